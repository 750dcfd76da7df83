"""Update of one block of pixels by NMF, and one pass over all blocks.

A block keeps its abundances, shape (component, y, x). Only spectra, shape (component, energy),
travel to it, and only sums over its pixels travel back. As in `gram`, the weighted data
D = X / (g h) are never formed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import dask
import numpy as np
from dask.delayed import Delayed
from threadpoolctl import threadpool_limits

from edxdenoise.decompose.gram import weighted_rows

# Pixels that are worked on at a time where a pass goes over their spectra more than once: so many
# spectra stay in the cache of a processor.
_CACHED = 256
# Least expected counts in a channel, where the spectra have none: nothing is divided by 0.
_LEAST = 1e-30


def descend(factor: np.ndarray, cross: np.ndarray, gram: np.ndarray, sweeps: int) -> None:
    """Lower |D - W H|^2 in W by hierarchical alternating least squares.

    Row by row, each has a closed optimum with all others held (A. Cichocki and A. H. Phan, IEICE
    Trans. Fundamentals E92-A (2009) 708, algorithm 2).

    Parameters
    ----------
    factor : array, shape (component, n)
        W' (or H), changed in place.
    cross : array, shape (free, n)
        H D' (or W'D). Rows of `factor` beyond these are held.
    gram : array, shape (component, component)
        H H' (or W'W).
    sweeps : int
        Cheap beside the products above (N. Gillis and F. Glineur, Neural Comput. 24 (2012) 1085).
    """
    for _ in range(sweeps):
        for k, target in enumerate(cross):
            if gram[k, k] > 0:
                row = factor[k] + (target - gram[k] @ factor) / gram[k, k]
                np.maximum(row, 0, out=factor[k])


def descend_closed(
    factor: np.ndarray, cross: np.ndarray, gram: np.ndarray, totals: np.ndarray, steps: int
) -> np.ndarray:
    """Lower |D - W H|^2 in W with the abundances of each pixel, 0 or more, adding up to its total.

    Steps down the gradient, as long as its largest slope allows, each followed by a projection.
    Parameters are those of `descend`; ``totals`` has shape (n,).
    """
    slope = float(np.linalg.eigvalsh(gram)[-1]) or 1.0
    ones = np.ones(len(factor), factor.dtype)
    factor = onto_simplex(factor, ones, totals)
    for _ in range(steps):
        step = (cross - gram @ factor) / factor.dtype.type(slope)
        factor = onto_simplex(factor + step, ones, totals)
    return factor


def onto_simplex(values: np.ndarray, weights: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """In each column, the nearest numbers from 0 up whose weighted sum is the total.

    M. Held, P. Wolfe and H. P. Crowder, Math. Program. 6 (1974) 62, theorem 1.

    Parameters
    ----------
    values : array, shape (n, column)
    weights : array, shape (n,)
        Above 0.
    totals : array, shape (column,)

    Examples
    --------
    >>> onto_simplex(np.array([[0.9], [0.5], [-3.0]]), np.ones(3), np.ones(1)).ravel()
    array([0.7, 0.3, 0. ])
    """
    columns = weights[:, np.newaxis]
    order = np.argsort(-values / columns, axis=0)
    sorted_values = np.take_along_axis(values, order, 0)
    sorted_weights = weights[order]
    excess = np.cumsum(sorted_values * sorted_weights, axis=0) - totals
    shift = excess / np.cumsum(sorted_weights**2, axis=0)
    positive = np.count_nonzero(sorted_values > shift * sorted_weights, axis=0)
    chosen = np.take_along_axis(shift, np.maximum(positive - 1, 0)[np.newaxis], 0)
    return np.maximum(values - chosen * columns, 0)


def frobenius_block(
    counts: np.ndarray,
    weight_pixel: np.ndarray,
    maps: np.ndarray,
    spectra: np.ndarray,
    weight_energy: np.ndarray,
    sweeps: int,
    closure: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """W of one block for the spectra, and the sums W'D and W'W that new spectra need.

    Parameters
    ----------
    counts : array, shape (y, x, energy)
    weight_pixel : array, shape (y, x)
    maps : array, shape (component, y, x)
        W so far; its kind of number is that of all products.
    spectra : array, shape (component, energy)
        H.
    weight_energy : array, shape (energy,)
    sweeps : int
    closure : bool
        Whether the abundances of a pixel add up to its total over g.
    """
    kind = maps.dtype.type
    rows = weighted_rows(counts, weight_pixel, kind)
    scaled = (spectra / weight_energy).astype(kind)
    gram = (spectra @ spectra.T).astype(kind)
    factor = maps.reshape(len(maps), -1).copy()
    cross = np.asarray((rows @ scaled.T).T, kind)
    if closure:
        totals = np.asarray(rows.sum(axis=1), kind).ravel()
        factor = descend_closed(factor, cross, gram, totals, sweeps)
    else:
        descend(factor, cross, gram, sweeps)
    across = np.asarray((rows.T @ factor.T).T, np.float64) / weight_energy
    wide = factor.astype(np.float64)
    return factor.reshape(maps.shape), across, wide @ wide.T


def poisson_block(
    counts: np.ndarray, maps: np.ndarray, spectra: np.ndarray, sweeps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.float64]:
    """A of one block for spectra B in counts, X ~ A B, and the sums that new spectra need.

    Multiplicative steps for the Kullback-Leibler divergence (D. D. Lee and H. S. Seung, Adv.
    Neural Inf. Process. Syst. 13 (2001) 556, eq. 5): A <- A (X / AB) B' / sum_j B_j.

    Parameters
    ----------
    counts : array, shape (y, x, energy)
    maps : array, shape (component, y, x)
        A so far, in counts where spectra add up to 1.
    spectra : array, shape (component, energy)
        B.
    sweeps : int

    Returns
    -------
    maps : array, shape (component, y, x)
    across : array, shape (component, energy)
        A' (X / AB).
    amounts : array, shape (component,)
        A summed over pixels.
    divergence : float
        sum X log(X / AB) - X + AB.
    """
    kind = maps.dtype
    b = spectra.astype(kind)
    sizes = b.sum(axis=1)
    safe = np.where(sizes > 0, sizes, 1)
    flat, amounts = counts.reshape(-1, counts.shape[-1]), maps.reshape(len(maps), -1).T.copy()
    across, divergence = np.zeros(spectra.shape), 0.0
    for start in range(0, len(flat), _CACHED):
        part = slice(start, start + _CACHED)
        x, a = flat[part].astype(kind), amounts[part]
        for _ in range(sweeps):
            a = a * (_ratio(x, a @ b) @ b.T / safe)
        ratio = _ratio(x, a @ b)
        across += a.T @ ratio
        amounts[part] = a
        # In rows first: single precision would lose the small against the large.
        terms = x * np.log(np.maximum(ratio, _LEAST)) - x
        divergence += float(terms.sum(axis=1).sum(dtype=np.float64) + (a @ sizes).sum(dtype=float))
    sums = amounts.sum(axis=0, dtype=np.float64)
    return amounts.T.reshape(maps.shape), across, sums, np.float64(divergence)


def _ratio(counts: np.ndarray, expected: np.ndarray) -> np.ndarray:
    np.maximum(expected, _LEAST, out=expected)
    return np.divide(counts, expected, out=expected)


def one_pass(
    kernel: Callable[..., tuple[Any, ...]], *blocks: Sequence[Any], shared: tuple[Any, ...]
) -> tuple[list[Delayed], list[Any]]:
    """Call `kernel` with every block and what is `shared`; keep its maps, sum the rest.

    Parameters
    ----------
    kernel : callable
        ``kernel(*parts, *shared)`` gives new maps, then sums.
    blocks : sequences of parts, of one length
    shared : tuple
        What travels to every block.

    Returns
    -------
    maps : list of Delayed
        Where they were made: in memory here, or on the workers of a cluster.
    sums : list
        Added up in the same order wherever they were made.
    """
    common = [dask.delayed(each, pure=False) for each in shared]
    made = [dask.delayed(kernel, pure=False)(*parts, *common) for parts in zip(*blocks)]
    maps = [dask.delayed(_first, pure=False)(each) for each in made]
    sums = [dask.delayed(_rest, pure=False)(each) for each in made]
    while len(sums) > 1:
        pairs = [sums[i : i + 2] for i in range(0, len(sums), 2)]
        sums = [dask.delayed(_add, pure=False)(*pair) if pair[1:] else pair[0] for pair in pairs]
    with threadpool_limits(1):
        *kept, total = dask.persist(*maps, sums[0])
        return kept, total.compute()


def _first(made: tuple[Any, ...]) -> Any:
    return made[0]


def _rest(made: tuple[Any, ...]) -> list[Any]:
    return list(made[1:])


def _add(one: list[Any], other: list[Any]) -> list[Any]:
    return [a + b for a, b in zip(one, other)]
