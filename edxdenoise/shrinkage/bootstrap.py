"""How far shrunk profiles are from the truth: the same again on a specimen that is known.

What non-local means do depends on the counts, so that no closed form tells their error: the weights
are chosen by the noise that they average, and at an edge all alike pixels lie on one side. A
parametric bootstrap does (B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap, 1993,
section 6.5): the shrunk map is taken for the truth, noise of the known variance is added, the sum
is shrunk, and its mean square distance from where it started, over pixels nearby, is the variance
and the squared bias of the method on a specimen like this one.

What shrinkage has moved before is not seen by that: `edxdenoise.quantification.bias` compares with
the raw counts.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edxdenoise.shrinkage.estimate import Shrunk, area_rows, shrink_profiles, shrink_totals
from edxdenoise.shrinkage.pilot import filtered, gaussian_line
from edxdenoise.shrinkage.profiles import Profiles

_DRAWS = 2
_WIDTH = 1.5  # pixels; a square of one pixel says little


def profile_errors(
    noisy: Profiles, shrunk: Shrunk, area: np.ndarray, *, seed: int = 0
) -> np.ndarray:
    """Mean square errors of shrunk profiles, shape (y, x, k).

    Parameters
    ----------
    noisy, shrunk : Profiles, Shrunk
        Of the same pixels.
    area : array of int, shape (y,)
    seed : int
        Of the noise that is added.
    """
    random = np.random.default_rng([seed, 2])
    square = np.zeros_like(shrunk.values)
    for _ in range(_DRAWS):
        draw = random.standard_normal(square.shape, np.float32)
        draw *= np.sqrt(noisy.variance)
        draw += shrunk.values
        error = shrink_profiles(replace(noisy, values=draw), area).values
        error -= shrunk.values
        error *= error
        square += error
    for k in range(square.shape[2]):
        square[..., k] = _nearby(square[..., k] / _DRAWS, noisy.counts, area)
    # Errors reach over many pixels: two draws may be low by chance, the noise of a mean is not.
    return np.maximum(square, shrunk.variance, out=square)


def total_errors(
    noisy: Profiles, shrunk: Shrunk, area: np.ndarray, totals: np.ndarray, *, seed: int = 0
) -> np.ndarray:
    """Mean square errors of shrunk totals, shape (y, x); parameters as in `profile_errors`."""
    random = np.random.default_rng([seed, 3])
    deviation = np.sqrt(noisy.scale * totals)
    square = np.zeros(totals.shape)
    for _ in range(_DRAWS):
        found = totals + deviation * random.standard_normal(totals.shape, dtype=np.float32)
        square += (shrink_totals(noisy, shrunk, area, found) - totals) ** 2 / _DRAWS
    return totals * _nearby(square / np.maximum(totals, 1), noisy.counts, area)


def _nearby(square: np.ndarray, counts: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Mean over pixels nearby, each with its counts for a weight."""
    areas, line = area_rows(area), gaussian_line(_WIDTH)
    below = filtered(counts, line, areas)
    return filtered(counts * square, line, areas) / np.where(below > 0, below, 1)
