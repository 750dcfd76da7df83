"""What a report shows of a result: numbers that the library computes, gathered once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.blocks import as_blocks, load, square_blocks
from edxdenoise.components.selection import kept_numbers, uncertain_numbers
from edxdenoise.cube import (
    DETECTOR_RESPONSE,
    detector_resolution,
    is_lazy,
    pixel_counts,
    reconstruct,
    sum_spectrum,
)
from edxdenoise.errors import DataError, Rank, recorded, warn, warning_attrs
from edxdenoise.quantification import (
    LineSpec,
    area_regions,
    bias_table,
    can_split,
    compare_groups,
    find_phases,
    region_table,
    sum_regions,
)
from edxdenoise.quantification.estimators import Weights, line_weights, sums_denoised
from edxdenoise.quantification.lines import quantified_lines, with_factor
from edxdenoise.report.frame import net_range
from edxdenoise.report.sums import Cells, line_sums
from edxdenoise.report.text import number_words
from edxdenoise.validation.residuals import BLOCK, Audit, residual_audit
from edxdenoise.xray import (
    Peak,
    find_elements,
    find_peaks,
    identified,
    name_peaks,
    with_local_elements,
)

# Values of the spectra of cells that are held at most.
_MOST_VALUES = 6_000_000
# Pixels that the three elements for one map are chosen by.
_OVERLAY_PIXELS = 1 << 16
# Dropped components that are shown, those that are borderline besides.
_DROPPED_SHOWN = 12
# Share of the counts that may be missed without any effect on at%.
_MUCH_MISSED = 1e-3
# One for each component, which may be a hundred; and cubes.
_LARGE = (
    v.COUNTS,
    v.COUNTS_DENOISED,
    v.COMPONENT_MAP,
    v.COMPONENT_MAP_SHRUNK,
    v.COMPONENT_MAP_SHRUNK_STDDEV,
)


@dataclass(frozen=True)
class Quantified:
    """What a report shows of a quantification.

    Parameters
    ----------
    lines : mapping of str to LineSpec
        Those that the result was quantified by.
    regions, groups : pandas.DataFrame
        From `region_table` and `compare_groups`.
    """

    lines: dict[str, LineSpec]
    regions: pd.DataFrame
    groups: pd.DataFrame

    @property
    def composed(self) -> dict[str, LineSpec]:
        """Lines with a k-factor."""
        return with_factor(self.lines)


def most_distinct(maps: np.ndarray, noise: np.ndarray, stray: np.ndarray) -> list[int]:
    """Return which three maps to show in one, in their order.

    Each has the most contrast as it is drawn that those before it do not have. What varies less
    than the noise of a pixel counts for less, what may be stray for half.

    Parameters
    ----------
    maps : array, shape (map, y, x)
    noise : array, shape (map,)
        Standard deviation of a pixel.
    stray : array of bool, shape (map,)
    """
    from scipy.linalg import qr

    step = max(1, int(np.sqrt(maps[0].size / _OVERLAY_PIXELS)))
    pixels = maps[:, ::step, ::step].reshape(len(maps), -1).astype(float)
    ends = [net_range(one, sigma)[2] for one, sigma in zip(pixels, noise)]
    spread = pixels.std(axis=1)
    weights = spread / np.hypot(spread, noise) / ends
    weights[stray] /= 2
    contrast = (pixels - pixels.mean(axis=1, keepdims=True)).T * weights
    order = qr(contrast, mode="r", pivoting=True)[1]
    return sorted(order[:3].tolist())


@dataclass(frozen=True)
class Findings:
    """What a report shows of a result.

    Parameters
    ----------
    ds : Dataset
        The result, computed but for its counts and the maps of its components.
    components : Dataset, optional
        The same with the maps of components that are shown; None without components.
    elements : pandas.DataFrame
        From `find_elements`.
    peaks : list of Peak
        Of the sum spectrum, named, largest first.
    raw, denoised : array, shape (element, y, x), optional
        Net counts of the main line of each element, by a fit of all of them at once.
    noise : array, shape (element,)
        Standard deviation of the raw net counts of a pixel by counting, root mean square.
    cells : Cells, optional
        Spectra of small parts of the map; None without counts.
    line_weights : mapping of str to (array, array)
        Of the lines whose net counts are told of any box: weights of the channels, shape (energy,),
        and in what is uncertain of the detector's response, shape (direction, energy).
    quantified : Quantified, optional
    bias : pandas.DataFrame
        From `bias_table`, of areas and phases; empty where there is nothing to test.
    audit : Audit, optional
        Of the residuals; None where there are none to scan.
    """

    ds: xr.Dataset
    components: xr.Dataset | None
    elements: pd.DataFrame
    peaks: list[Peak]
    raw: np.ndarray | None
    denoised: np.ndarray | None
    noise: np.ndarray
    cells: Cells | None
    line_weights: dict[str, tuple[np.ndarray, np.ndarray]]
    quantified: Quantified | None
    bias: pd.DataFrame
    audit: Audit | None

    @property
    def shown(self) -> np.ndarray | None:
        """Maps of the elements: denoised where they are, else raw."""
        return self.raw if self.denoised is None else self.denoised

    @property
    def main_elements(self) -> list[int]:
        """Rows of the three elements to show in one map, most significant first."""
        if self.shown is None or len(self.shown) < 2:
            return list(range(len(self.elements)))[:1]
        return most_distinct(self.shown, self.noise, self.elements["stray"].to_numpy() != "")

    @property
    def kept(self) -> xr.Dataset | None:
        """Components that rebuild the counts, with their maps."""
        return None if self.components is None else _kept(self.components)


def shown_components(ds: xr.Dataset) -> dict[str, np.ndarray]:
    """Numbers of all kept components, of borderline ones that were dropped, of others dropped."""
    kept, borderline = kept_numbers(ds), uncertain_numbers(ds)
    borderline = borderline[~np.isin(borderline, kept)]
    numbers = ds[v.DIM_COMPONENT].values
    rest = numbers[~np.isin(numbers, np.concatenate([kept, borderline]))]
    return {"kept": kept, "borderline": borderline, "dropped": rest[:_DROPPED_SHOWN]}


def gather(ds: xr.Dataset) -> Findings:
    """Compute what a report shows, in a few passes over the counts.

    Parameters
    ----------
    ds : Dataset
        Denoised, quantified, or both.

    Warns
    -----
    EdxdenoiseWarning
        If the residual audit finds structure that the kept components miss, or cannot be made.
    """
    small = ds.assign(load(ds.drop_vars(_LARGE, errors="ignore")).data_vars)
    small = with_local_elements(small)
    components = kept = None
    if v.COMPONENT_KEEP in ds:
        components = _components(ds, small)
        kept = _kept(components)
    table = find_elements(small)
    energy = small[v.DIM_ENERGY].values
    peaks = find_peaks(energy, sum_spectrum(small), detector_resolution(small))
    with recorded() as issued:
        weights = element_weights(small, table)
        raw = cells = denoised = found = None
        if v.COUNTS in ds:
            raw, cells = line_sums(small, weights.estimators, cell_side(small))
        if kept is not None:
            sums = sums_denoised(kept, weights.estimators).transpose("row", v.DIM_Y, v.DIM_X)
            denoised = sums.values.astype(np.float32)
        if kept is not None and v.COUNTS in ds:
            found = _audited(kept)
        quantified, small = _quantified(small, kept)
        channel_weights = _line_weights(small, table, weights)
        bias = _bias(kept, channel_weights)
    pixels = small.sizes[v.DIM_Y] * small.sizes[v.DIM_X]
    return Findings(
        ds=small.assign_attrs(warning_attrs(issued, ds.attrs)),
        components=components,
        elements=table,
        peaks=name_peaks(peaks, identified(small)),
        raw=raw,
        denoised=denoised,
        noise=np.sqrt(weights.estimators**2 @ sum_spectrum(small) / pixels),
        cells=cells,
        line_weights=channel_weights,
        quantified=quantified,
        bias=bias,
        audit=found,
    )


def _components(ds: xr.Dataset, small: xr.Dataset) -> xr.Dataset:
    """Components that are shown; the other maps, most of a hundred, are left where they are."""
    shown = np.concatenate(list(shown_components(small).values()))
    names = [name for name in (v.COMPONENT_MAP, v.COMPONENT_MAP_SHRUNK) if name in ds]
    return small.sel({v.DIM_COMPONENT: shown}).assign(
        load(ds[names].sel({v.DIM_COMPONENT: shown})).data_vars
    )


def _kept(components: xr.Dataset) -> xr.Dataset:
    kept = components[v.COMPONENT_KEEP].values == 1
    return components.isel({v.DIM_COMPONENT: kept}).sortby(v.DIM_COMPONENT)


def element_weights(ds: xr.Dataset, table: pd.DataFrame) -> Weights:
    """Weights of the channels in the net counts of the main lines of all elements found."""
    if table.empty:
        nothing = np.zeros((0, ds.sizes[v.DIM_ENERGY]))
        return Weights(nothing, nothing, nothing[np.newaxis])
    fitted = {str(line): LineSpec() for line in table["line"]}
    return line_weights(on_law(ds), fitted)


def on_law(ds: xr.Dataset) -> xr.Dataset:
    """Put a Dataset on the energy axis and resolution that its elements were found by.

    What a quantification measured of its detector is kept.
    """
    if DETECTOR_RESPONSE in ds.attrs:
        return ds
    law, energy = identified(ds).law, ds[v.DIM_ENERGY]
    corrected = ((energy - law.shift) / (1 + law.gain)).assign_attrs(energy.attrs)
    return ds.assign_coords({v.DIM_ENERGY: corrected.values}).assign_attrs(
        detector_resolution=law.resolution
    )


def _line_weights(
    ds: xr.Dataset, table: pd.DataFrame, weights: Weights
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    estimators, systematic = weights.estimators, weights.systematic
    names = [str(line) for line in table["line"]]
    if v.LINE_ESTIMATOR in ds:
        names = [str(name) for name in ds[v.DIM_LINE].values]
        estimators = ds[v.LINE_ESTIMATOR].values.astype(float)
        systematic = np.zeros((0, *estimators.shape))
        if v.LINE_SYSTEMATIC in ds:
            systematic = ds[v.LINE_SYSTEMATIC].values.astype(float)
    return {name: (estimators[i], systematic[:, i]) for i, name in enumerate(names)}


def _quantified(ds: xr.Dataset, kept: xr.Dataset | None) -> tuple[Quantified | None, xr.Dataset]:
    """Return tables of a quantification, and the Dataset with the regions that they are of."""
    if v.LINE_ESTIMATOR not in ds or v.COORD_K_FACTOR not in ds.coords:
        return None, ds
    if v.REGION_SPECTRUM not in ds:
        regions = load(sum_regions(ds if v.COUNTS in ds or kept is None else kept))
        ds = ds.assign_coords(regions.coords).assign(
            {name: regions[name] for name in regions.data_vars if name not in ds}
        )
    table = region_table(ds)
    return Quantified(quantified_lines(ds), table, compare_groups(table)), ds


def _bias(
    kept: xr.Dataset | None, weights: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> pd.DataFrame:
    """Return raw minus denoised of areas and, where counts are whole, of phases."""
    if kept is None or v.COUNTS not in kept or not weights:
        return pd.DataFrame()
    estimators = xr.DataArray(
        [estimator for estimator, _ in weights.values()],
        dims=(v.DIM_LINE, v.DIM_ENERGY),
        coords={v.DIM_LINE: list(weights)},
    )
    parts = [bias_table(kept, area_regions(kept), estimators=estimators)]
    if can_split(kept):
        phases = find_phases(kept)
        parts.append(
            bias_table(kept, phases.masks, estimators=estimators, held_out=phases.held_out)
        )
    return pd.concat(parts, ignore_index=True)


def _audited(kept: xr.Dataset) -> Audit | None:
    """Audit what the kept components describe, rebuilt by blocks; warn of what they do not."""
    counts = kept[v.COUNTS]
    # In the blocks of the audit, so that each is rebuilt where it is scanned.
    if is_lazy(kept):
        blocks = square_blocks(counts.data, BLOCK)
    else:
        blocks = as_blocks(counts.values, (BLOCK, BLOCK, -1))
    try:
        found = residual_audit(reconstruct(kept.assign({v.COUNTS: counts.copy(data=blocks)})))
    except DataError as error:
        warn(
            f"No residual audit: {error}",
            "signal that the model lost is not reported",
            rank=Rank.NOTE,
        )
        return None
    if not found.table.empty:
        share = missed_share(found, kept)
        warn(
            found.summary(),
            f"together they miss {number_words(100 * share)} % of the counts",
            "try more components or --no-shrink; audit.csv lists all",
            rank=Rank.WORSE if share > _MUCH_MISSED else Rank.NOTE,
        )
    return found


def missed_share(found: Audit, ds: xr.Dataset) -> float:
    """Share of the counts that the finds of an audit differ by from what is expected."""
    missed = float((found.table["counts"] - found.table["expected"]).abs().sum())
    return missed / float(sum_spectrum(ds).sum())


def typical_pixel(ds: xr.Dataset) -> tuple[int, int]:
    """The pixel such that half of all counts lie in brighter ones: never one of the vacuum."""
    totals = pixel_counts(ds)
    order = np.argsort(totals, axis=None, kind="stable")
    share = np.cumsum(totals.ravel()[order])
    y, x = np.unravel_index(order[np.searchsorted(share, share[-1] / 2)], totals.shape)
    return int(y), int(x)


def cell_side(ds: xr.Dataset) -> int:
    """Smallest side, in pixels, of cells whose spectra are few enough to hold."""
    rows, columns, channels = (ds.sizes[dim] for dim in (v.DIM_Y, v.DIM_X, v.DIM_ENERGY))
    side = 1
    while -(-rows // side) * -(-columns // side) * channels > _MOST_VALUES:
        side += 1
    return side
