"""What spatial shrinkage does to the covariances of intensities.

Without it I = n f, with a profile f of covariance C / n for the n counts of the pixel. Shrinkage
averages f over N counts (``effective_counts``) and leaves the total as it is or averages it too
(``total_stddev``, s), so that with cov the covariance before

    cov' = (cov - I I' / n) n / N + I I' s^2 / n^2 = r cov + q I I',

r = n / N and q = s^2 / n^2 - r / n. Pixels that were averaged share their noise: a sum over a
region rests on the counts of the region, so that it is cov, not cov', that adds up. It is cov that
is stored, and cov' that errors of single pixels are made of.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from edxdenoise.schema import (
    DIM_LINE,
    DIM_LINE_OTHER,
    EFFECTIVE_COUNTS,
    LINE_INTENSITY_COVARIANCE,
    TOTAL_STDDEV,
    WEIGHT_PIXEL,
)

# Attribute of the covariances: 1 where the intensities are of shrunk maps.
SHRUNK = "shrunk"


def noise_left(ds: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """r and q of the module for every pixel; 1 and 0 where nothing was shrunk."""
    counts = ds[WEIGHT_PIXEL.name] ** 2
    if EFFECTIVE_COUNTS.name not in ds:
        return xr.ones_like(counts), xr.zeros_like(counts)
    known = ds[EFFECTIVE_COUNTS.name] > 0
    left = (counts / ds[EFFECTIVE_COUNTS.name]).where(known, 1.0)
    common = (ds[TOTAL_STDDEV.name] ** 2 / counts**2 - left / counts).where(known, 0.0)
    return left, common


def pixel_covariance(ds: xr.Dataset, intensity: xr.DataArray) -> xr.DataArray:
    """Covariances of the intensities of single pixels, dims (line, line_other, y, x).

    Parameters
    ----------
    ds : Dataset
        With ``line_intensity_covariance``, which adds up over pixels.
    intensity : DataArray, dims (line, y, x)
    """
    covariance = ds[LINE_INTENSITY_COVARIANCE.name]
    if not is_shrunk(ds):
        return covariance
    left, common = (part.astype(np.float32) for part in noise_left(ds))
    other = intensity.rename({DIM_LINE: DIM_LINE_OTHER})
    return (left * covariance + common * intensity * other).transpose(*covariance.dims)


def is_shrunk(ds: xr.Dataset) -> bool:
    """Whether the intensities are of counts that were shrunk, and not of raw ones."""
    return bool(ds[LINE_INTENSITY_COVARIANCE.name].attrs.get(SHRUNK, 0))
