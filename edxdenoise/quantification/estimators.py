"""Weights of the channels in each line intensity, and the weighted sums that follow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from edxdenoise.cube import detector_resolution, energy_range, kept_maps, sum_spectrum
from edxdenoise.decompose import is_nmf
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
from edxdenoise.schema import (
    COMPONENT_KEEP,
    COMPONENT_SIGNAL_KEPT,
    COMPONENT_SPECTRUM,
    COUNTS,
    DIM_COMPONENT,
    DIM_ENERGY,
    DIM_X,
    DIM_Y,
    MEAN_SPECTRUM,
    TOTAL_STDDEV,
    WEIGHT_ENERGY,
    WEIGHT_PIXEL,
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
    energy = ds[DIM_ENERGY].values
    resolution = detector_resolution(ds)
    beam_energy = ds.attrs.get("beam_energy")
    span = energy_range(ds)
    present = list(dict.fromkeys([*map(element_of, lines), *elements]))
    model = None
    if intensities == "fit" or COMPONENT_KEEP.name in ds:
        found = families(
            present,
            (max(span[0], LOWEST_FITTED), span[1]),
            beam_energy=beam_energy,
            resolution=resolution,
            names=list(lines) if intensities == "fit" else (),
        )
        pixels = ds.sizes[DIM_Y] * ds.sizes[DIM_X]
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
    spectra, h = ds[COMPONENT_SPECTRUM.name].values, ds[WEIGHT_ENERGY.name].values
    return (estimators * h) @ spectra.T


def behind_projection(ds: xr.Dataset, estimators: np.ndarray) -> np.ndarray:
    """b of the module: what each channel of the raw counts weighs in denoised intensities."""
    h = ds[WEIGHT_ENERGY.name].values
    spectra = ds[COMPONENT_SPECTRUM.name].values
    kept = ds[COMPONENT_KEEP.name].values == 1
    # Rows that give the map of each component by least squares: principal components are
    # orthonormal and are their own, the spectra of NMF are not.
    dual = np.linalg.pinv(spectra).T if is_nmf(ds) else spectra
    scores = score_weights(ds, estimators)
    if COMPONENT_SIGNAL_KEPT.name in ds and TOTAL_STDDEV.name not in ds:
        # Each map has one weight; of averages over pixels there is no filter by channels.
        scores = scores * ds[COMPONENT_SIGNAL_KEPT.name].values
    return scores[:, kept] @ dual[kept] / h


def sums_counts(ds: xr.Dataset, rows: np.ndarray) -> xr.DataArray:
    """sum_j rows_rj X_ij of every pixel."""
    # Windows leave most channels out.
    used = np.flatnonzero(rows.any(axis=0))
    counts = ds[COUNTS.name].isel({DIM_ENERGY: used}).reset_coords(drop=True)
    return weighted_sums(counts, DIM_ENERGY, rows[:, used])


def sums_denoised(ds: xr.Dataset, rows: np.ndarray) -> xr.DataArray:
    """sum_j rows_rj m_ij of every pixel, m the counts rebuilt: no cube is formed."""
    kept = np.flatnonzero(ds[COMPONENT_KEEP.name].values)
    h = ds[WEIGHT_ENERGY.name].values
    spectra = ds[COMPONENT_SPECTRUM.name].values[kept] * h
    maps = kept_maps(ds)
    mean = rows @ (ds[MEAN_SPECTRUM.name].values * h)
    sums = weighted_sums(maps, DIM_COMPONENT, rows @ spectra.T) + xr.DataArray(mean, dims="row")
    return sums * ds[WEIGHT_PIXEL.name]


def weighted_sums(array: xr.DataArray, dim: str, rows: np.ndarray) -> xr.DataArray:
    """Sum of `array` over `dim`, weighted by each of `rows`; last dimension ``row``."""
    return xr.apply_ufunc(
        lambda block: block.astype(np.float64) @ rows.T,
        array,
        input_core_dims=[[dim]],
        output_core_dims=[["row"]],
        dask="parallelized",
        dask_gufunc_kwargs={"output_sizes": {"row": len(rows)}, "allow_rechunk": True},
        output_dtypes=[np.float64],
    )
