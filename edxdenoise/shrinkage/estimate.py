"""Profiles and totals averaged over pixels that are alike, without any parameter of the user's.

In profile coordinates c = t / g thickness cancels, and the covariance of the noise is known. Every
rotated profile is smoothed as Stein's estimate advises (`pilot`); pixels alike in all of them are
averaged (`means`); and once more with that average for a guide.

Totals of pixels are averaged the same way over pixels alike in composition and in total. That is
right only where chi2 = mean((n - n^)^2 / n^) is no more than 1, so that what was taken away is
Poisson noise, and where it helps on held-out counts: thickness that changes from pixel to pixel is
no noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from edxdenoise.schema import COORD_AREA, DIM_Y
from edxdenoise.shrinkage.bands import bands
from edxdenoise.shrinkage.means import REACH, means
from edxdenoise.shrinkage.pilot import REACH as PILOT_REACH
from edxdenoise.shrinkage.pilot import pilot, pilot_scale
from edxdenoise.shrinkage.profiles import Profiles

# Share of the pixels of one material that are averaged as alike. Thickness goes up and down where
# composition does not: pixels of nearly the same total are to be had, and too many blur its steps.
_ALIKE, _ALIKE_TOTALS = 0.99, 0.5
# Standard deviations of chi2 by which Poisson noise alone may exceed 1.
_CHANCE = 3.0


@dataclass(frozen=True)
class Shrunk:
    """Profiles after averaging.

    Parameters
    ----------
    values, variance : array, shape (y, x, k)
        Rotated as `Profiles` are, and the variance of their noise for the weights as they are.
    own : array, shape (y, x)
        Share of a pixel in its own mean.
    """

    values: np.ndarray
    variance: np.ndarray
    own: np.ndarray


def shrink_profiles(noisy: Profiles, area: np.ndarray) -> Shrunk:
    """Pilot, means, and means of the same guided by the means."""
    rows, columns, depth = noisy.values.shape
    areas = area_rows(area)
    scales = [
        pilot_scale(noisy.values[..., k], noisy.variance[..., k], noisy.counts, areas)
        for k in range(depth)
    ]
    result = Shrunk(
        np.empty_like(noisy.values), np.empty_like(noisy.variance), np.empty_like(noisy.counts)
    )
    for band, around, inside in bands(rows, columns, PILOT_REACH + 2 * REACH):
        part, numbers = noisy.rows(around), area[around]
        guide, noise = np.empty_like(part.values), np.empty_like(part.variance)
        for k, scale in enumerate(scales):
            guide[..., k], noise[..., k] = pilot(
                part.values[..., k], part.variance[..., k], part.counts, area_rows(numbers), scale
            )
        for _ in range(2):
            guide, noise, own = means(
                guide, noise, part.values, part.variance, part.counts, numbers, _ALIKE
            )
        for whole, piece in zip((result.values, result.variance, result.own), (guide, noise, own)):
            whole[band] = piece[inside]
    return result


def shrink_totals(
    noisy: Profiles, shrunk: Shrunk, area: np.ndarray, totals: np.ndarray, spread: float = 1.0
) -> np.ndarray:
    """Totals averaged over pixels alike in composition and in total.

    Parameters
    ----------
    noisy, shrunk : Profiles, Shrunk
        Of the same pixels.
    area : array of int, shape (y,)
    totals : array, shape (y, x)
        Counts of the pixels.
    spread : float
        Variance of their noise over that of the counts as measured.

    Returns
    -------
    array, shape (y, x)
    """
    filled = (noisy.counts > 0).astype(np.float32)
    spread *= noisy.scale
    # Of Poisson counts the variance is what is expected: counts smoothed by some pixels.
    expected = pilot(noisy.counts, noisy.counts, filled, area_rows(area))[0]
    variance = (spread * np.maximum(expected, 1)).astype(np.float32)
    guide, noise = pilot(totals, variance, filled, area_rows(area))
    totals = totals.astype(np.float32)
    result = np.empty_like(totals)
    for band, around, inside in bands(len(totals), totals.shape[1], REACH):
        mean, *_ = means(
            _joined(shrunk.values[around], guide[around]),
            _joined(shrunk.variance[around], noise[around]),
            totals[around, :, None],
            variance[around, :, None],
            filled[around],
            area[around],
            _ALIKE_TOTALS,
        )
        result[band] = mean[inside, :, 0]
    return result


def _joined(profiles: np.ndarray, one: np.ndarray) -> np.ndarray:
    return np.concatenate([profiles, one[..., None]], axis=2, dtype=np.float32)


def chi2_of(noisy: Profiles, totals: np.ndarray) -> tuple[float, float]:
    """Mean of (n - n^)^2 / n^ over pixels with counts, and how large Poisson noise may make it.

    In units of the noise seen. The square of a Poisson count's deviation over its mean has the
    variance 2 + 1/n.
    """
    filled = noisy.counts > 0
    expected = np.maximum(totals[filled], 1)
    square = (noisy.counts - totals)[filled] ** 2 / expected
    chance = np.sqrt((2 + 1 / expected).sum(dtype=float)) / filled.sum()
    return float(square.mean(dtype=float) / noisy.scale), float(1 + _CHANCE * chance)


def area_numbers(ds: xr.Dataset) -> np.ndarray:
    """Stacked map that each row belongs to."""
    if COORD_AREA in ds.coords:
        return np.asarray(ds[COORD_AREA].values, dtype=np.int64)
    return np.zeros(ds.sizes[DIM_Y], np.int64)


def area_rows(area: np.ndarray) -> list[slice]:
    """Rows of each stacked map.

    Examples
    --------
    >>> area_rows(np.array([1, 1, 2]))
    [slice(0, 2, None), slice(2, 3, None)]
    """
    ends = [0, *(np.flatnonzero(np.diff(area)) + 1).tolist(), len(area)]
    return [slice(first, end) for first, end in zip(ends, ends[1:])]
