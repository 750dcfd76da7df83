"""What a report shows of a result: numbers that the library computes, gathered once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from edxdenoise.compute import load
from edxdenoise.cube import DETECTOR_RESPONSE, detector_resolution, kept_maps, sum_spectrum
from edxdenoise.errors import recorded, warning_attrs
from edxdenoise.quantification import (
    LineSpec,
    area_regions,
    bias_table,
    can_split,
    compare_groups,
    find_phases,
    measure_response,
    region_table,
    sum_regions,
)
from edxdenoise.quantification.estimators import line_weights, sums_denoised
from edxdenoise.quantification.resolve import quantified_lines
from edxdenoise.report.sums import Cells, line_sums
from edxdenoise.schema import (
    COMPONENT_KEEP,
    COMPONENT_SPECTRUM,
    COORD_K_FACTOR,
    COUNTS,
    DIM_ENERGY,
    DIM_RATIO,
    DIM_X,
    DIM_Y,
    LINE_ESTIMATOR,
    LINE_SYSTEMATIC,
    MEAN_SPECTRUM,
    RATIO,
    REGION_SPECTRUM,
    WEIGHT_ENERGY,
    WEIGHT_PIXEL,
)
from edxdenoise.xray import Peak, find_elements, find_peaks, identified, name_peaks

# Values of the spectra of cells that are held at most.
_MOST_VALUES = 6_000_000


@dataclass(frozen=True)
class Findings:
    """What a report shows of a result.

    Parameters
    ----------
    ds : Dataset
        The result; all but its counts is computed.
    elements : pandas.DataFrame
        From `find_elements`.
    peaks : sequence of Peak
        Of the sum spectrum, named, largest first.
    raw, denoised : array, shape (element, y, x)
        Net counts of the main line of each element, by a fit of all of them at once; None without
        counts, or without components.
    noise : array, shape (element,)
        Standard deviation of the raw net counts of a pixel by counting, root mean square.
    cells : Cells, optional
        Spectra of small parts of the map; None without counts.
    lines : mapping of str to LineSpec
        Those that the result was quantified by; empty if it was not.
    regions, groups : pandas.DataFrame
        From `region_table` and `compare_groups`; empty without a quantification.
    bias : pandas.DataFrame
        From `bias_table`, of areas and phases; empty where there is nothing to test.
    k_factor_unit : {"weight", "atomic"}
        What the k-factors of `lines` count.
    box_lines : sequence of str
        Lines whose net counts are told of any box: those quantified, or else those of `elements`.
    estimators : array, shape (line, energy)
        Weights of the channels in the net counts of these lines.
    systematic : array, shape (direction, line, energy)
        And in what is uncertain of the detector's response.
    """

    ds: xr.Dataset
    elements: pd.DataFrame
    peaks: Sequence[Peak]
    raw: np.ndarray | None
    denoised: np.ndarray | None
    noise: np.ndarray
    cells: Cells | None
    lines: dict[str, LineSpec]
    regions: pd.DataFrame
    groups: pd.DataFrame
    bias: pd.DataFrame
    k_factor_unit: str
    box_lines: Sequence[str]
    estimators: np.ndarray
    systematic: np.ndarray


def gather(ds: xr.Dataset, *, intensities: str = "fit", k_factor_unit: str = "weight") -> Findings:
    """Compute what a report shows, in a few passes over the counts."""
    ds = ds.assign(load(ds.drop_vars(COUNTS.name, errors="ignore")).data_vars)
    energy, resolution = ds[DIM_ENERGY].values, detector_resolution(ds)
    elements = find_elements(ds)
    peaks = name_peaks(find_peaks(energy, sum_spectrum(ds), resolution), identified(ds))
    raw = denoised = cells = None
    noise = np.zeros(0)
    pixels = ds.sizes[DIM_Y] * ds.sizes[DIM_X]
    estimators, systematic = np.zeros((0, energy.size)), np.zeros((0, 0, energy.size))
    if len(elements):
        fitted = {str(line): LineSpec() for line in elements["line"]}
        measured = ds
        if DETECTOR_RESPONSE not in ds.attrs:
            with recorded(show=False) as issued:
                measured = measure_response(ds, elements["element"])
            ds = ds.assign_attrs(warning_attrs(issued, ds.attrs))
        weights = line_weights(measured, fitted)
        estimators, systematic = weights.estimators, weights.systematic
        noise = np.sqrt(estimators**2 @ sum_spectrum(ds) / pixels)
    if COUNTS.name in ds:
        raw, cells = line_sums(ds, estimators, _cell_side(ds))
    if COMPONENT_KEEP.name in ds:
        sums = sums_denoised(ds, estimators).transpose("row", DIM_Y, DIM_X)
        denoised = sums.values.astype(np.float32)
    lines: dict[str, LineSpec] = {}
    regions = groups = bias = pd.DataFrame()
    if LINE_ESTIMATOR.name in ds and COORD_K_FACTOR in ds.coords:
        lines = quantified_lines(ds)
        if REGION_SPECTRUM.name not in ds:
            ds = ds.assign(load(sum_regions(ds)).data_vars)
        ratios = [str(text) for text in ds[DIM_RATIO].values] if RATIO.name in ds else []
        regions = region_table(ds, lines, k_factor_unit=k_factor_unit, ratios=ratios)
        groups = compare_groups(regions)
    if COUNTS.name in ds and COMPONENT_KEEP.name in ds and (lines or len(elements)):
        bias = _bias(ds, lines or {str(n): LineSpec() for n in elements["line"]}, intensities)
    box_lines = list(lines) or [str(line) for line in elements["line"]]
    if lines:
        estimators = ds[LINE_ESTIMATOR.name].values.astype(float)
        systematic = np.zeros((0, *estimators.shape))
        if LINE_SYSTEMATIC.name in ds:
            systematic = ds[LINE_SYSTEMATIC.name].values.astype(float)
    return Findings(
        ds,
        elements,
        peaks,
        raw,
        denoised,
        noise,
        cells,
        lines,
        regions,
        groups,
        bias,
        k_factor_unit,
        box_lines,
        estimators,
        systematic,
    )


def _bias(ds: xr.Dataset, lines: dict[str, LineSpec], intensities: str) -> pd.DataFrame:
    """Raw minus denoised of areas and, where counts are whole, of phases."""
    parts = [bias_table(ds, lines, area_regions(ds), intensities=intensities)]
    if can_split(ds):
        phases = find_phases(ds)
        parts.append(
            bias_table(ds, lines, phases.masks, intensities=intensities, held_out=phases.held_out)
        )
    return pd.concat(parts, ignore_index=True)


def _cell_side(ds: xr.Dataset) -> int:
    """Smallest side of cells whose spectra are few enough to hold."""
    rows, columns, channels = (ds.sizes[dim] for dim in (DIM_Y, DIM_X, DIM_ENERGY))
    side = 1
    while -(-rows // side) * -(-columns // side) * channels > _MOST_VALUES:
        side += 1
    return side


def box_amounts(ds: xr.Dataset, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Amounts and spectra whose products are the denoised spectra of cells.

    Returns
    -------
    amounts : array, shape (part, cell y, cell x)
    spectra : array, shape (part, energy)
        Of the kept components, and the mean last.
    """
    kept = np.flatnonzero(ds[COMPONENT_KEEP.name].values)
    g, h = ds[WEIGHT_PIXEL.name].values, ds[WEIGHT_ENERGY.name].values
    maps = np.concatenate([kept_maps(ds).values * g, g[np.newaxis]]).astype(float)
    for axis in (1, 2):
        maps = np.add.reduceat(maps, np.arange(0, maps.shape[axis], side), axis=axis)
    spectra = np.vstack([ds[COMPONENT_SPECTRUM.name].values[kept], ds[MEAN_SPECTRUM.name].values])
    return maps, spectra * h
