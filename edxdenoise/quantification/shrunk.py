"""Covariances of the intensities of single denoised pixels.

The covariances of `intensity` are those of Poisson counts behind the projection. Where pixels were
averaged they hold too much noise. A single pixel has instead, with n its denoised total and s the
standard deviation of that,

    V_lm = sum_kq g^2 B_lk B_mq s_k s_q C_kq + I_l I_m s^2 / n^2 + b_l^2 delta_lm + R_lm
    B_lk = sum_j a_lj h_j p_kj

with the sum over pairs of kept components but the first, s_k of ``component_map_shrunk_stddev`` and
C of ``component_error_correlation``. The noise of the total is common to all lines; b_l,
``line_intensity_bias``, is the bias that the raw counts show (`bias`), independent from line to
line; R is of the detector's response (``line_systematic``).
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from edxdenoise.cube import is_poisson_weighted, kept_maps, pixel_counts
from edxdenoise.quantification.estimators import score_weights, sums_denoised, weighted_sums
from edxdenoise.schema import (
    COMPONENT_ERROR_CORRELATION,
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
    errors = _profile_errors(ds, estimators)
    return (errors**2).coarsen(row=errors.sizes["row"] // len(estimators)).sum()


def _profile_errors(ds: xr.Dataset, estimators: np.ndarray) -> xr.DataArray:
    """Independent errors of the profile, dims (y, x, row): all of the first line, of the next ...

    With C = U U', they are sum_k g B_lk U_kd s_k in every direction d.
    """
    kept = np.flatnonzero(ds[COMPONENT_KEEP.name].values)[1:]
    # Files of earlier versions have none.
    correlation = np.eye(len(kept))
    if COMPONENT_ERROR_CORRELATION.name in ds:
        correlation = ds[COMPONENT_ERROR_CORRELATION.name].values[np.ix_(kept, kept)].astype(float)
    values, vectors = np.linalg.eigh(correlation)
    root = vectors * np.sqrt(np.maximum(values, 0))
    weights = score_weights(ds, estimators)[:, np.newaxis, kept] * root.T
    stddev = ds[COMPONENT_MAP_SHRUNK_STDDEV.name].isel({DIM_COMPONENT: kept})
    # Component 1 alone has no error of the profile.
    rows = weights.reshape(-1, len(kept)) if len(kept) else np.zeros((len(estimators), 0))
    return weighted_sums(stddev, DIM_COMPONENT, rows) * ds[WEIGHT_PIXEL.name]


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
    estimators = ds[LINE_ESTIMATOR.name].values
    profile = _profile_errors(ds, estimators)
    moved = profile.isel(row=slice(0))
    if LINE_SYSTEMATIC.name in ds:
        shifts = ds[LINE_SYSTEMATIC.name].values
        moved = sums_denoised(ds, shifts.reshape(-1, shifts.shape[-1]))
    single = xr.apply_ufunc(
        _of_pixels,
        profile.rename(row="profile"),
        moved.rename(row="moved"),
        *(part.astype(np.float32) for part in (intensity, stddev, bias, total_share(ds))),
        input_core_dims=[["profile"], ["moved"], *[[DIM_LINE]] * 3, []],
        output_core_dims=[[DIM_LINE, DIM_LINE_OTHER]],
        dask="parallelized",
        dask_gufunc_kwargs={
            "output_sizes": {DIM_LINE_OTHER: len(estimators)},
            "allow_rechunk": True,
        },
        output_dtypes=[np.float32],
    )
    return single.assign_coords(covariance.coords).transpose(*covariance.dims)


def _of_pixels(
    profile: np.ndarray,
    moved: np.ndarray,
    intensity: np.ndarray,
    stddev: np.ndarray,
    bias: np.ndarray,
    share: np.ndarray,
) -> np.ndarray:
    """Covariances of one block, with lines last."""
    lines = stddev.shape[-1]
    profile = profile.reshape(*profile.shape[:-1], lines, -1)
    result = profile @ profile.swapaxes(-1, -2)
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
