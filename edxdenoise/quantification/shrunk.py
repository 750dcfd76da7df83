"""Covariances of the intensities of single denoised pixels.

The covariances of `intensity` are those of Poisson counts behind the projection. Where pixels were
averaged they hold too much noise. A single pixel has instead, with n its counts and s the standard
deviation of its total,

    V_l = P_l + I_l^2 s^2 / n^2 + b_l^2

P_l is the variance of its composition, cov_ll - I_l^2 / n without shrinkage and with it

    P_l = sum_k (g B_lk s_k)^2,    B_lk = sum_j a_lj h_j p_kj

over the kept components but the first, with s_k of ``component_map_shrunk_stddev``; s^2 is n
without, and with it that of ``total_stddev``; b_l, ``line_intensity_bias``, is the bias that
the raw counts show (`bias`). The noise of the total is common to all lines; P has the correlations
that cov has without it, and biases are taken as independent.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from edxdenoise.cube import is_poisson_weighted, kept_maps, pixel_counts
from edxdenoise.quantification.estimators import score_weights, weighted_sums
from edxdenoise.schema import (
    COMPONENT_KEEP,
    COMPONENT_MAP_SHRUNK_STDDEV,
    DIM_COMPONENT,
    DIM_LINE,
    DIM_LINE_OTHER,
    DIM_X,
    DIM_Y,
    LINE_INTENSITY_BIAS,
    LINE_INTENSITY_COVARIANCE,
    LINE_INTENSITY_STDDEV,
    TOTAL_STDDEV,
    WEIGHT_PIXEL,
)

# Attribute of the covariances: what the intensities are of.
SOURCE = "source"
# Share of a variance of which its part beside the total is no less.
_LEAST = 1e-3


def is_shrunk(ds: xr.Dataset) -> bool:
    """Whether denoised counts are of maps that were shrunk."""
    return COMPONENT_MAP_SHRUNK_STDDEV.name in ds


def shares_noise(ds: xr.Dataset) -> bool:
    """Whether the intensities are of counts that were averaged over pixels."""
    return _of_denoised(ds) and is_shrunk(ds)


def _of_denoised(ds: xr.Dataset) -> bool:
    return ds[LINE_INTENSITY_COVARIANCE.name].attrs.get(SOURCE) == "denoised"


def profile_variance(ds: xr.Dataset, estimators: np.ndarray) -> xr.DataArray:
    """P of shrunk maps, dims (y, x, row), one row per estimator."""
    kept = np.flatnonzero(ds[COMPONENT_KEEP.name].values)[1:]
    stddev = ds[COMPONENT_MAP_SHRUNK_STDDEV.name].isel({DIM_COMPONENT: kept})
    weights = score_weights(ds, estimators)[:, kept]
    return weighted_sums(stddev**2, DIM_COMPONENT, weights**2) * ds[WEIGHT_PIXEL.name] ** 2


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
    bias = ds.get(LINE_INTENSITY_BIAS.name, xr.zeros_like(intensity))
    maps = intensity, ds[LINE_INTENSITY_STDDEV.name], bias
    pixels = total_share(ds), _pixel_counts(ds).clip(1)
    single = xr.apply_ufunc(
        _of_pixels,
        covariance,
        *(part.astype(np.float32) for part in (*maps, *pixels)),
        input_core_dims=[[DIM_LINE, DIM_LINE_OTHER], *[[DIM_LINE]] * 3, [], []],
        output_core_dims=[[DIM_LINE, DIM_LINE_OTHER]],
        dask="parallelized",
        output_dtypes=[np.float32],
    )
    return single.transpose(*covariance.dims)


def _of_pixels(
    covariance: np.ndarray,
    intensity: np.ndarray,
    stddev: np.ndarray,
    bias: np.ndarray,
    share: np.ndarray,
    counts: np.ndarray,
) -> np.ndarray:
    """Return the variances of one block, with lines last."""
    product = intensity[..., :, None] * intensity[..., None, :]
    own = covariance - np.where(share > 0, 1 / counts, 0)[..., None, None] * product
    before = np.maximum(_diagonal(own), _LEAST * _diagonal(covariance))
    common = share[..., None, None] * product
    left = np.maximum(stddev**2 - bias**2 - _diagonal(common), 0)
    scale = np.sqrt(np.divide(left, before, out=np.zeros_like(left), where=before > 0))
    result = own * scale[..., :, None] * scale[..., None, :] + common
    lines = np.arange(stddev.shape[-1])
    result[..., lines, lines] = stddev**2
    return result


def _diagonal(matrices: np.ndarray) -> np.ndarray:
    return np.diagonal(matrices, axis1=-2, axis2=-1)
