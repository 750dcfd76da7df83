"""Covariances of the intensities of single denoised pixels.

The covariances of `intensity` are those of Poisson counts behind the projection. Where pixels were
averaged they hold too much noise. A single pixel has instead, with n its denoised total and s the
standard deviation of that,

    V_lm = sum_k g^2 B_lk B_mk s_k^2 + I_l I_m s^2 / n^2 + b_l^2 delta_lm + R_lm
    B_lk = sum_j a_lj h_j p_kj

with the sum over the kept components but the first and s_k of ``component_map_shrunk_stddev``. The
noise of the total is common to all lines; b_l, ``line_intensity_bias``, is the bias that the raw
counts show (`bias`), independent from line to line; R is of the detector's response
(``line_systematic``).
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from edxdenoise.cube import is_poisson_weighted, kept_maps, pixel_counts
from edxdenoise.quantification.estimators import score_weights, sums_denoised, weighted_sums
from edxdenoise.schema import (
    COMPONENT_KEEP,
    COMPONENT_MAP_SHRUNK_STDDEV,
    DIM_COMPONENT,
    DIM_LINE,
    DIM_LINE_OTHER,
    DIM_X,
    DIM_Y,
    LINE_ESTIMATOR,
    LINE_INTENSITY_BIAS,
    LINE_INTENSITY_COVARIANCE,
    LINE_INTENSITY_STDDEV,
    LINE_SYSTEMATIC,
    TOTAL_STDDEV,
    WEIGHT_PIXEL,
)

# Attribute of the covariances: what the intensities are of.
SOURCE = "source"


def is_shrunk(ds: xr.Dataset) -> bool:
    """Whether denoised counts are of maps that were shrunk."""
    return COMPONENT_MAP_SHRUNK_STDDEV.name in ds


def shares_noise(ds: xr.Dataset) -> bool:
    """Whether the intensities are of counts that were averaged over pixels."""
    return _of_denoised(ds) and is_shrunk(ds)


def _of_denoised(ds: xr.Dataset) -> bool:
    return ds[LINE_INTENSITY_COVARIANCE.name].attrs.get(SOURCE) == "denoised"


def profile_variance(ds: xr.Dataset, estimators: np.ndarray) -> xr.DataArray:
    """Variances of shrunk maps but for that of the total, dims (y, x, row), one row per line."""
    return _profile_sums(ds, score_weights(ds, estimators) ** 2)


def _profile_sums(ds: xr.Dataset, products: np.ndarray) -> xr.DataArray:
    """sum_k g^2 products_k s_k^2 over the kept components but the first, dims (y, x, row)."""
    kept = np.flatnonzero(ds[COMPONENT_KEEP.name].values)[1:]
    stddev = ds[COMPONENT_MAP_SHRUNK_STDDEV.name].isel({DIM_COMPONENT: kept})
    sums = weighted_sums(stddev**2, DIM_COMPONENT, products[:, kept])
    return sums * ds[WEIGHT_PIXEL.name] ** 2


def total_share(ds: xr.Dataset) -> xr.DataArray:
    """s^2 / n^2 of the module for every pixel, n the denoised total; 0 where it is not known."""
    measured = _pixel_counts(ds)
    if not is_shrunk(ds):
        known = (measured > 0) & is_poisson_weighted(ds)
        return (1 / measured.where(known)).fillna(0.0)
    first = kept_maps(ds).isel({DIM_COMPONENT: 0}, drop=True)
    total = first * ds[WEIGHT_PIXEL.name] * np.sqrt(measured.sum())
    return (ds[TOTAL_STDDEV.name] ** 2 / total.where(total > 0) ** 2).fillna(0.0)


def _pixel_counts(ds: xr.Dataset) -> xr.DataArray:
    return xr.DataArray(pixel_counts(ds), dims=(DIM_Y, DIM_X))


def pixel_covariance(ds: xr.Dataset, intensity: xr.DataArray) -> xr.DataArray:
    """Covariances of the intensities of single pixels, dims (line, line_other, y, x).

    Parameters
    ----------
    ds : Dataset
        With ``line_intensity_stddev``, and ``line_intensity_covariance``, which adds up over
        pixels.
    intensity : DataArray, dims (line, y, x)
    """
    covariance = ds[LINE_INTENSITY_COVARIANCE.name]
    if not _of_denoised(ds):
        return covariance
    stddev = ds[LINE_INTENSITY_STDDEV.name]
    bias = ds.get(LINE_INTENSITY_BIAS.name, xr.zeros_like(intensity))
    if not shares_noise(ds):
        same = covariance[DIM_LINE] == covariance[DIM_LINE_OTHER]
        return covariance.where(~same, stddev**2).transpose(*covariance.dims)
    weights = score_weights(ds, ds[LINE_ESTIMATOR.name].values)
    first, second = np.triu_indices(len(weights))
    pairs = _profile_sums(ds, weights[first] * weights[second])
    moved = xr.zeros_like(pairs.isel(row=slice(0)))
    if LINE_SYSTEMATIC.name in ds:
        shifts = ds[LINE_SYSTEMATIC.name].values
        moved = sums_denoised(ds, shifts.reshape(-1, shifts.shape[-1]))
    single = xr.apply_ufunc(
        _of_pixels,
        pairs.rename(row="pair"),
        moved.rename(row="moved"),
        *(part.astype(np.float32) for part in (intensity, stddev, bias, total_share(ds))),
        input_core_dims=[["pair"], ["moved"], *[[DIM_LINE]] * 3, []],
        output_core_dims=[[DIM_LINE, DIM_LINE_OTHER]],
        dask="parallelized",
        dask_gufunc_kwargs={
            "output_sizes": {DIM_LINE_OTHER: len(weights)},
            "allow_rechunk": True,
        },
        output_dtypes=[np.float32],
    )
    return single.assign_coords(covariance.coords).transpose(*covariance.dims)


def _of_pixels(
    pairs: np.ndarray,
    moved: np.ndarray,
    intensity: np.ndarray,
    stddev: np.ndarray,
    bias: np.ndarray,
    share: np.ndarray,
) -> np.ndarray:
    """Covariances of one block, with lines last."""
    lines = stddev.shape[-1]
    first, second = np.triu_indices(lines)
    result = np.empty((*stddev.shape, lines))
    result[..., first, second] = result[..., second, first] = pairs
    result += np.asarray(share)[..., None, None] * intensity[..., :, None] * intensity[..., None, :]
    moved = moved.reshape(*moved.shape[:-1], -1, lines)
    result += moved.swapaxes(-1, -2) @ moved
    each = np.arange(lines)
    result[..., each, each] += bias**2
    # The variances are those that are stated; a common factor of a row leaves it a covariance.
    before = result[..., each, each]
    scale = np.divide(stddev, np.sqrt(before), out=np.zeros_like(before), where=before > 0)
    result *= scale[..., :, None] * scale[..., None, :]
    result[..., each, each] = stddev**2
    return result.astype(np.float32)
