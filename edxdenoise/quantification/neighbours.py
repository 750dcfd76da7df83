"""Expected counts of a pixel from the pixel itself and from its neighbours.

The variance of Poisson counts is what was expected of them. Counts of one pixel are a poor guide
to that: a pixel that happens to be low gets too small an error, so that deviations downwards look
larger than those upwards. Neighbours know nothing of its noise. So variances are averaged over
about a pixel, with the totals of the pixels as weights, and scaled back to the pixel's own total:
thickness, which changes from pixel to pixel, cancels. A pixel whose intensities differ from those
of its neighbours by more than chance lies at an interface and speaks for itself.
"""

from __future__ import annotations

import dask.array as da
import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter

# Standard deviation of the Gaussian, and where it ends, in pixels.
_SMOOTHING = 0.8
_REACH = 3
# Share of the average that a pixel gives itself, for the Gaussian over a plane.
OWN_SHARE = 1 / (4 * np.pi * _SMOOTHING**2)
# By how much thickness differs from a pixel to its neighbours: few counts tell less of it than of
# chance, and totals are drawn towards the average.
_UNEVEN = 0.2
# Mean square of the differences to the neighbours, in standard deviations, that chance may make.
_CHANCE = 2.0


def expected_sums(
    variances: xr.DataArray, intensities: xr.DataArray, totals: xr.DataArray
) -> xr.DataArray:
    """Variances and intensities as they are expected of each pixel.

    Parameters
    ----------
    variances : DataArray, dims (y, x, row)
        Variances and covariances that the counts of each pixel give, the upper triangle row by row.
    intensities : DataArray, dims (y, x, row)
        Net counts of the lines.
    totals : DataArray, dims (y, x)
        Counts of the pixels, or anything proportional.

    Returns
    -------
    DataArray, dims (y, x, row)
        Variances, then intensities. Lazy where they are.
    """
    parts = [variances, intensities, totals.astype(float).expand_dims("row", -1)]
    both = xr.concat(parts, "row").transpose(..., "row")
    lines = intensities.sizes["row"]
    if isinstance(both.data, da.Array):
        data = both.data.rechunk({2: -1}).map_overlap(
            expected,
            depth={axis: min(_REACH, both.shape[axis]) for axis in (0, 1)},
            boundary="none",
            lines=lines,
            dtype=np.float64,
            meta=np.empty((0, 0, 0)),
        )
    else:
        data = expected(both.data, lines)
    return both.copy(data=data).isel(row=slice(-1))


def expected(sums: np.ndarray, lines: int) -> np.ndarray:
    """Average one block, shape (y, x, row), whose last row holds the totals."""
    near = gaussian_filter(sums, (_SMOOTHING, _SMOOTHING, 0), radius=(_REACH, _REACH, 0))
    total, mean = sums[..., -1:], near[..., -1:]
    trust = _UNEVEN**2 * mean / (1 + _UNEVEN**2 * mean)
    scale = trust * total + (1 - trust) * mean
    near *= np.divide(scale, mean, out=np.zeros_like(mean), where=mean > 0)
    first, second = np.triu_indices(lines)
    variance = near[..., : first.size][..., first == second]
    square = (sums - near)[..., first.size : -1] ** 2
    square = np.divide(square, variance, out=np.zeros_like(square), where=variance > 0)
    alone = 1 - _CHANCE / np.maximum(square.mean(axis=-1, keepdims=True), _CHANCE)
    near += alone**2 * (sums - near)
    return near
