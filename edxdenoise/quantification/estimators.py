"""Weights of the channels in each line intensity, and the weighted sums that follow.

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

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.blocks import weighted_sums
from edxdenoise.components.nmf import is_nmf
from edxdenoise.cube import (
    detector_resolution,
    energy_range,
    is_poisson_weighted,
    kept_maps,
    pixel_counts,
    sum_spectrum,
)
from edxdenoise.errors import ParameterError
from edxdenoise.quantification.fit import (
    LOWEST_FITTED,
    FitModel,
    fit_model,
)
from edxdenoise.quantification.lines import LineSpec
from edxdenoise.quantification.response import systematic_weights
from edxdenoise.quantification.windows import (
    integration_window,
    linear_weights,
    place_windows,
    rounded_weights,
)
from edxdenoise.xray import channel_response, line_energy
from edxdenoise.xray.families import DEFAULT_BEAM_ENERGY, Family, element_of, families


@dataclass(frozen=True)
class Weights:
    """Weights of the channels in each intensity.

    Parameters
    ----------
    estimators : array, shape (line, energy)
        a of the module.
    shapes : array, shape (line, energy)
        Share of each line in each channel.
    background : array, shape (energy,), optional
        Of the mean spectrum, where a fit or components call for it.
    systematic : array, shape (direction, line, energy)
        Shifts of the intensities by what is uncertain of the detector's response, as weights.
    model : FitModel, optional
        Where intensities are fitted with amplitudes of 0 or more.
    """

    estimators: np.ndarray
    shapes: np.ndarray
    systematic: np.ndarray
    background: np.ndarray | None = None
    model: FitModel | None = None


def line_weights(
    ds: xr.Dataset,
    lines: Mapping[str, LineSpec],
    *,
    intensities: str = "fit",
    elements: Iterable[str] = (),
) -> Weights:
    """Return the weights of the channels, by windows or by a fit; see `line_intensity`."""
    energy = ds[v.DIM_ENERGY].values
    resolution = detector_resolution(ds)
    beam_energy = ds.attrs.get("beam_energy")
    span = energy_range(ds)
    present = list(dict.fromkeys([*map(element_of, lines), *elements]))
    model = None
    if intensities == "fit" or v.COMPONENT_KEEP in ds:
        found = families(
            present,
            (max(span[0], LOWEST_FITTED), span[1]),
            beam_energy=beam_energy,
            resolution=resolution,
            names=list(lines) if intensities == "fit" else (),
        )
        pixels = ds.sizes[v.DIM_Y] * ds.sizes[v.DIM_X]
        model = fit_model(
            energy,
            sum_spectrum(ds) / pixels,
            found,
            pixels=pixels,
            resolution=resolution,
            beam_energy=DEFAULT_BEAM_ENERGY if beam_energy is None else beam_energy,
            needed=len(lines) if intensities == "fit" else 0,
        )
    background = None if model is None else model.background
    if model is not None and intensities == "fit":
        count = len(lines)
        kept = [family for family in found if family.name in model.names]
        estimators = model.estimators
        systematic = systematic_weights(ds, kept, estimators, count)
        return Weights(estimators[:count], model.shapes[:count], systematic, background, model)
    shapes = np.vstack(
        [channel_response(np.array([line_energy(name)]), energy, resolution) for name in lines]
    )
    windows = place_windows(ds, lines, elements)
    by_window = rounded_weights if intensities == "windows" else linear_weights
    rows = []
    for name, spec in lines.items():
        window = integration_window(name, spec, resolution)
        if window[0] < span[0] or window[1] > span[1]:
            raise ParameterError(
                f"'lines.{name}.window' is [{window[0]:.4g}, {window[1]:.4g}] keV, outside the "
                f"energy axis, {span[0]:.4g} to {span[1]:.4g} keV"
            )
        rows.append(by_window(energy, window, windows[name]))
    estimators = np.array(rows)
    single = [Family(name, element_of(name), (line_energy(name),), (1.0,)) for name in lines]
    # A window counts a share of its line: what it holds over that share is the whole line.
    shares = np.einsum("le,le->l", estimators, shapes)[:, np.newaxis]
    systematic = systematic_weights(ds, single, estimators, len(lines), shares)
    return Weights(estimators, shapes, systematic, background)


def score_weights(ds: xr.Dataset, estimators: np.ndarray) -> np.ndarray:
    """Return the weights of the scores, times g, in the intensities, shape (line, component)."""
    spectra, h = ds[v.COMPONENT_SPECTRUM].values, ds[v.WEIGHT_ENERGY].values
    return (estimators * h) @ spectra.T


def behind_projection(ds: xr.Dataset, estimators: np.ndarray) -> np.ndarray:
    """b of the module: what each channel of the raw counts weighs in denoised intensities."""
    h = ds[v.WEIGHT_ENERGY].values
    spectra = ds[v.COMPONENT_SPECTRUM].values
    kept = ds[v.COMPONENT_KEEP].values == 1
    # Rows that give the map of each component by least squares: principal components are
    # orthonormal and are their own, the spectra of NMF are not.
    dual = np.linalg.pinv(spectra).T if is_nmf(ds) else spectra
    scores = score_weights(ds, estimators)
    if v.COMPONENT_SIGNAL_KEPT in ds and v.TOTAL_STDDEV not in ds:
        # Each map has one weight; of averages over pixels there is no filter by channels.
        scores = scores * ds[v.COMPONENT_SIGNAL_KEPT].values
    return scores[:, kept] @ dual[kept] / h


def sums_counts(ds: xr.Dataset, rows: np.ndarray) -> xr.DataArray:
    """sum_j rows_rj X_ij of every pixel."""
    return xr.DataArray(weighted_sums(ds[v.COUNTS].data, rows), dims=(v.DIM_Y, v.DIM_X, "row"))


def sums_denoised(ds: xr.Dataset, rows: np.ndarray) -> xr.DataArray:
    """sum_j rows_rj m_ij of every pixel, m the counts rebuilt: no cube is formed."""
    kept = np.flatnonzero(ds[v.COMPONENT_KEEP].values)
    h = ds[v.WEIGHT_ENERGY].values
    spectra = ds[v.COMPONENT_SPECTRUM].values[kept] * h
    maps = kept_maps(ds)
    mean = rows @ (ds[v.MEAN_SPECTRUM].values * h)
    sums = _weighted_maps(maps, rows @ spectra.T) + xr.DataArray(mean, dims="row")
    return sums * ds[v.WEIGHT_PIXEL]


def _weighted_maps(maps: xr.DataArray, rows: np.ndarray) -> xr.DataArray:
    """Sum of maps over components, weighted by each of `rows`; last dimension ``row``."""
    return xr.apply_ufunc(
        lambda block: block.astype(np.float64) @ rows.T,
        maps,
        input_core_dims=[[v.DIM_COMPONENT]],
        output_core_dims=[["row"]],
        dask="parallelized",
        dask_gufunc_kwargs={"output_sizes": {"row": len(rows)}, "allow_rechunk": True},
        output_dtypes=[np.float64],
    )


# Attribute of the covariances: what the intensities are of.
SOURCE = "source"


def is_shrunk(ds: xr.Dataset) -> bool:
    """Whether denoised counts are of maps that were shrunk."""
    return v.COMPONENT_MAP_SHRUNK_STDDEV in ds


def shares_noise(ds: xr.Dataset) -> bool:
    """Whether the intensities are of counts that were averaged over pixels."""
    return _of_denoised(ds) and is_shrunk(ds)


def _of_denoised(ds: xr.Dataset) -> bool:
    return ds[v.LINE_INTENSITY_COVARIANCE].attrs.get(SOURCE) == "denoised"


def profile_variance(ds: xr.Dataset, estimators: np.ndarray) -> xr.DataArray:
    """Variances of shrunk maps but for that of the total, dims (y, x, row), one row per line."""
    errors = _profile_errors(ds, estimators)
    return (errors**2).coarsen(row=errors.sizes["row"] // len(estimators)).sum()


def _profile_errors(ds: xr.Dataset, estimators: np.ndarray) -> xr.DataArray:
    """Independent errors of the profile, dims (y, x, row): all of the first line, of the next ...

    With C = U U', they are sum_k g B_lk U_kd s_k in every direction d.
    """
    kept = np.flatnonzero(ds[v.COMPONENT_KEEP].values)[1:]
    # Files of earlier versions have none.
    correlation = np.eye(len(kept))
    if v.COMPONENT_ERROR_CORRELATION in ds:
        correlation = ds[v.COMPONENT_ERROR_CORRELATION].values[np.ix_(kept, kept)].astype(float)
    values, vectors = np.linalg.eigh(correlation)
    root = vectors * np.sqrt(np.maximum(values, 0))
    weights = score_weights(ds, estimators)[:, np.newaxis, kept] * root.T
    stddev = ds[v.COMPONENT_MAP_SHRUNK_STDDEV].isel({v.DIM_COMPONENT: kept})
    # Component 1 alone has no error of the profile.
    rows = weights.reshape(-1, len(kept)) if len(kept) else np.zeros((len(estimators), 0))
    return _weighted_maps(stddev, rows) * ds[v.WEIGHT_PIXEL]


def total_share(ds: xr.Dataset) -> xr.DataArray:
    """s^2 / n^2 of the module for every pixel, n the denoised total; 0 where it is not known."""
    measured = _pixel_counts(ds)
    if not is_shrunk(ds):
        known = (measured > 0) & is_poisson_weighted(ds)
        return (1 / measured.where(known)).fillna(0.0)
    first = kept_maps(ds).isel({v.DIM_COMPONENT: 0}, drop=True)
    total = first * ds[v.WEIGHT_PIXEL] * np.sqrt(measured.sum())
    return (ds[v.TOTAL_STDDEV] ** 2 / total.where(total > 0) ** 2).fillna(0.0)


def _pixel_counts(ds: xr.Dataset) -> xr.DataArray:
    return xr.DataArray(pixel_counts(ds), dims=(v.DIM_Y, v.DIM_X))


def pixel_covariance(ds: xr.Dataset, intensity: xr.DataArray) -> xr.DataArray:
    """Covariances of the intensities of single pixels, dims (line, line_other, y, x).

    Parameters
    ----------
    ds : Dataset
        With ``line_intensity_stddev``, and ``line_intensity_covariance``, which adds up over
        pixels.
    intensity : DataArray, dims (line, y, x)
    """
    covariance = ds[v.LINE_INTENSITY_COVARIANCE]
    if not _of_denoised(ds):
        return covariance
    stddev = ds[v.LINE_INTENSITY_STDDEV]
    bias = ds.get(v.LINE_INTENSITY_BIAS, xr.zeros_like(intensity))
    if not shares_noise(ds):
        same = covariance[v.DIM_LINE] == covariance[v.DIM_LINE_OTHER]
        return covariance.where(~same, stddev**2).transpose(*covariance.dims)
    estimators = ds[v.LINE_ESTIMATOR].values
    profile = _profile_errors(ds, estimators)
    moved = profile.isel(row=slice(0))
    if v.LINE_SYSTEMATIC in ds:
        shifts = ds[v.LINE_SYSTEMATIC].values
        moved = sums_denoised(ds, shifts.reshape(-1, shifts.shape[-1]))
    single = xr.apply_ufunc(
        _of_pixels,
        profile.rename(row="profile"),
        moved.rename(row="moved"),
        *(part.astype(np.float32) for part in (intensity, stddev, bias, total_share(ds))),
        input_core_dims=[["profile"], ["moved"], *[[v.DIM_LINE]] * 3, []],
        output_core_dims=[[v.DIM_LINE, v.DIM_LINE_OTHER]],
        dask="parallelized",
        dask_gufunc_kwargs={
            "output_sizes": {v.DIM_LINE_OTHER: len(estimators)},
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
