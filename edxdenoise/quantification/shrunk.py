"""What spatial shrinkage does to the covariances of intensities.

Without it I = n f, with a profile f of covariance C / n for the n counts of the pixel. Shrinkage
averages f over N counts (``effective_counts``) and leaves the total as it is or averages it too
(``total_stddev``, s), so that with cov the covariance before

    cov' = (cov - I I' / n) n / N + I I' s^2 / n^2 = r cov + q I I',

r = n / N and q = s^2 / n^2 - r / n. Pixels that were averaged share their noise: a sum over a
region rests on the counts of the region, so that it is cov, not cov', that adds up.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from edxdenoise.quantification.composition import unbiased_intensity
from edxdenoise.schema import (
    DIM_LINE,
    DIM_LINE_OTHER,
    EFFECTIVE_COUNTS,
    LINE_INTENSITY_COVARIANCE,
    TOTAL_STDDEV,
    WEIGHT_PIXEL,
)


def noise_left(ds: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """r and q of the module for every pixel; 1 and 0 where nothing was shrunk."""
    counts = ds[WEIGHT_PIXEL.name] ** 2
    if EFFECTIVE_COUNTS.name not in ds:
        return xr.ones_like(counts), xr.zeros_like(counts)
    known = ds[EFFECTIVE_COUNTS.name] > 0
    left = (counts / ds[EFFECTIVE_COUNTS.name]).where(known, 1.0)
    common = (ds[TOTAL_STDDEV.name] ** 2 / counts**2 - left / counts).where(known, 0.0)
    return left, common


def adding_covariance(ds: xr.Dataset) -> xr.DataArray:
    """Covariances of intensities that add up over pixels, dims (line, line_other, y, x)."""
    covariance = ds[LINE_INTENSITY_COVARIANCE.name]
    if EFFECTIVE_COUNTS.name not in ds or not shrunk_lines(ds):
        return covariance
    left, common = noise_left(ds)
    intensity = unbiased_intensity(ds).astype(np.float64)
    other = intensity.rename({DIM_LINE: DIM_LINE_OTHER})
    return ((covariance - common * intensity * other) / left).transpose(*covariance.dims)


def shrunk_lines(ds: xr.Dataset) -> bool:
    """Whether the intensities are of counts that were shrunk, and not of raw ones."""
    return bool(ds[LINE_INTENSITY_COVARIANCE.name].attrs.get(SHRUNK, 0))


# Attribute of the covariances: 1 where the intensities are of shrunk maps.
SHRUNK = "shrunk"
