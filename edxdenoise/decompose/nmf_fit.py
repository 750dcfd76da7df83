"""Iterations of NMF on the data: new abundances in every block, then new spectra from their sums.

Each step lowers the objective or leaves it: abundances with spectra held, spectra with abundances
held. Spectra beyond the free ones never change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from dask.delayed import Delayed

from edxdenoise.decompose.nmf_blocks import (
    descend,
    frobenius_block,
    one_pass,
    onto_simplex,
    poisson_block,
)

# Sweeps over the abundances for one reading of the data, for which they wait anyway.
_SWEEPS = 2
# Steps along the gradient, which are shorter.
_CLOSED_STEPS = 8

# Called with a label, the iteration and the most there may be.
Count = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Problem:
    """Quantities that do not change between iterations.

    Parameters
    ----------
    counts, weights : sequences of Delayed
        Blocks (y, x, energy) of the counts and (y, x) of g.
    weight_energy : array, shape (energy,)
        h.
    free : int
        So many spectra, the first, are fitted; the others are held.
    total : float
        |D|^2, sum of squares of the weighted data.
    closure : bool
        Whether the shares of a pixel add up to one.
    """

    counts: Sequence[Delayed]
    weights: Sequence[Delayed]
    weight_energy: np.ndarray
    free: int
    total: float
    closure: bool = False


class Settled:
    """Whether the objective has stopped falling; tells meanwhile how it falls.

    Parameters
    ----------
    stage : str
        What the fit is called.
    tolerance : float
        Share of the objective that one iteration must lower it by.
    most : int
        Iterations at most.
    count : callable
        ``count(label, done, most)`` after each; the label has the objective.
    span : int
        Iterations that the fall is a mean of: that of one may be lost in rounding.
    """

    def __init__(
        self, stage: str, tolerance: float, most: int, count: Count, span: int = 1
    ) -> None:
        self._stage, self._tolerance, self._most, self._count = stage, tolerance, most, count
        self._span = span
        self.objectives: list[float] = []

    def __call__(self, objective: float) -> bool:
        self.objectives.append(objective)
        done = len(self.objectives)
        self._count(f"{self._stage}, objective {objective:.7g}", done, self._most)
        return done >= self._most or self.fall < self._tolerance

    @property
    def fall(self) -> float:
        """By which share of itself the objective fell in one of the last iterations."""
        if len(self.objectives) <= self._span:
            return np.inf
        before, now = self.objectives[-1 - self._span], self.objectives[-1]
        return (before - now) / abs(before) / self._span if before else 0.0


def frobenius(total: float, cross: np.ndarray, inner: np.ndarray, spectra: np.ndarray) -> float:
    """|D - W H|^2 from |D|^2, W'D and W'W."""
    return total - 2 * float(np.vdot(cross, spectra)) + float(np.vdot(inner, spectra @ spectra.T))


def fit_frobenius(
    problem: Problem, maps: Sequence[Delayed], spectra: np.ndarray, settled: Settled
) -> tuple[Sequence[Delayed], np.ndarray]:
    """Lower |D - W H|^2 until it is settled.

    Parameters
    ----------
    problem : Problem
    maps : sequence of Delayed
        Blocks (component, y, x) of W.
    spectra : array, shape (component, energy)
        H.
    settled : Settled

    Returns
    -------
    maps, spectra
    """
    h, free = problem.weight_energy, problem.free
    steps = _CLOSED_STEPS if problem.closure else _SWEEPS
    if problem.closure:
        # One unit of each abundance is then one count over g.
        spectra = spectra / (spectra @ h)[:, np.newaxis]
    going = True
    while going:
        maps, (cross, inner) = one_pass(
            frobenius_block,
            problem.counts,
            problem.weights,
            maps,
            shared=(spectra, h, steps, problem.closure),
        )
        spectra = spectra.copy()
        if problem.closure:
            _descend_normalised(spectra, cross[:free], inner, h)
        else:
            descend(spectra, cross[:free], inner, 1)
        going = not settled(frobenius(problem.total, cross, inner, spectra))
    return maps, spectra


def _descend_normalised(
    spectra: np.ndarray, cross: np.ndarray, inner: np.ndarray, h: np.ndarray
) -> None:
    """As `descend`, with every spectrum adding up to one count."""
    for k, target in enumerate(cross):
        if inner[k, k] > 0:
            row = spectra[k] + (target - inner[k] @ spectra) / inner[k, k]
            spectra[k] = onto_simplex(row[:, np.newaxis], h, np.ones(1))[:, 0]


def fit_poisson(
    problem: Problem, maps: Sequence[Delayed], spectra: np.ndarray, settled: Settled
) -> tuple[Sequence[Delayed], np.ndarray]:
    """Lower the Kullback-Leibler divergence of the counts X from A B until it is settled.

    Parameters
    ----------
    problem : Problem
    maps : sequence of Delayed
        Blocks (component, y, x) of A = g W.
    spectra : array, shape (component, energy)
        B = h H.
    settled : Settled

    Returns
    -------
    maps, spectra
        Abundances come last: they keep the total of every pixel.
    """
    free = problem.free
    while True:
        maps, (across, amounts, divergence) = one_pass(
            poisson_block, problem.counts, maps, shared=(spectra, _SWEEPS)
        )
        if settled(float(divergence)):
            return maps, spectra
        safe = np.where(amounts > 0, amounts, 1)[:free, np.newaxis]
        spectra = np.vstack([spectra[:free] * across[:free] / safe, spectra[free:]])
