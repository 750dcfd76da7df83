"""Pictures of compositions and ratios: maps, their errors, their distributions."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from edxdenoise.quantification import LineSpec
from edxdenoise.quantification.region_table import bin_ratio
from edxdenoise.quantification.regions import area_regions
from edxdenoise.report.distributions import comparison, draw_distributions, group_values
from edxdenoise.report.frame import (
    Frame,
    fit_map,
    frame_of,
    label_width,
)
from edxdenoise.report.style import (
    DARK,
    PAGE_WIDTH,
    SMALL,
    add_axes,
    add_text,
    add_title,
    new_figure,
)
from edxdenoise.report.text import region_words
from edxdenoise.report.value_maps import FAR_ABOVE, draw_value_map, hatch_undetected, well_known
from edxdenoise.schema import (
    ATOMIC_PERCENT,
    ATOMIC_PERCENT_STDDEV,
    COORD_AREA,
    DIM_ELEMENT,
    DIM_RATIO,
    DIM_X,
    DIM_Y,
    LINE_DETECTED,
    RATIO,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Widths of the bins of distributions, as the perovskite article has them: at% and ratio.
ELEMENT_BIN, RATIO_BIN = 1.0, 0.05
RATIO_FACTOR = 2
# Inches.
_MARGIN, _HEADER, _TITLE, _BELOW, _BAR = 0.12, 0.45, 0.17, 0.4, 0.55
_FOOTER, _NOTE_LINE = 0.6, 0.105
_PAGE_HEIGHT, _HIGHEST, _LOWEST = 9.6, 3.0, 1.0
_CAPTION = 1.3
_PLOT_LEFT, _LEAST_PLOT = 0.36, 1.9
_NOTE = (
    "Colours and distributions leave out pixels whose standard deviation is more than "
    f"{FAR_ABOVE:.0f} times the usual one and a fifth of the value; colours end at the 99.5th "
    "percentile. Numbers are of the summed counts of whole areas, with counting errors."
)
_GROUPS_NOTE = (
    "z and p compare groups of areas, by these errors and by the scatter of the areas (Welch's "
    "t-test)."
)


def percent_figure(ds: xr.Dataset, table: pd.DataFrame, groups: pd.DataFrame) -> Figure:
    """Maps of at%, their standard deviations and their distributions, a row for each element.

    Parameters
    ----------
    ds : Dataset
        What `cliff_lorimer` gives, computed.
    table, groups : pandas.DataFrame
        From `region_table`, with the region ``all``, and `compare_groups`.

    Returns
    -------
    matplotlib.figure.Figure
        Pixels without a value are grey; where most pixels around are below the detection limit the
        map is hatched.
    """
    elements = [str(element) for element in ds[DIM_ELEMENT].values]
    detected = ds[LINE_DETECTED.name].values == 1
    shares = [
        f"{element} {100 * (1 - part.mean()):.0f}\u00a0%"
        for element, part in zip(elements, detected)
    ]
    rows = [
        _Row(
            name=element,
            quantity=f"{element} at%",
            unit="at%",
            value=value,
            stddev=stddev,
            known=well_known(value, stddev, detected.any(axis=0)),
            detected=part,
        )
        for element, value, stddev, part in zip(
            elements,
            ds[ATOMIC_PERCENT.name].values,
            ds[ATOMIC_PERCENT_STDDEV.name].values,
            detected,
        )
    ]
    notes = [
        "Hatched: most pixels around are below the detection limit, 3 σ of the background; share "
        f"of all pixels below it: {', '.join(shares)}.",
        "Grey: no value. " + _NOTE,
    ]
    return _rows_figure(
        ds,
        _composition(table, elements),
        frame_of(ds),
        area_regions(ds),
        rows,
        (table, groups),
        notes,
        ELEMENT_BIN,
    )


def ratios_figure(
    ds: xr.Dataset,
    lines: Mapping[str, LineSpec],
    table: pd.DataFrame,
    groups: pd.DataFrame,
    *,
    k_factor_unit: str = "weight",
) -> Figure:
    """Maps of ratios, their standard deviations and their distributions, a row for each.

    Parameters
    ----------
    ds : Dataset
        What `cliff_lorimer` gives, computed.
    lines : mapping of str to LineSpec
    table, groups : pandas.DataFrame
        From `region_table` and `compare_groups`.
    k_factor_unit : {"weight", "atomic"}
    """
    factor = RATIO_FACTOR if min(ds.sizes[DIM_Y], ds.sizes[DIM_X]) >= 4 * RATIO_FACTOR else 1
    rows = []
    for text in ds[DIM_RATIO].values:
        value, stddev = binned_ratio(ds, lines, str(text), factor, k_factor_unit)
        known = well_known(value, stddev, np.isfinite(value))
        rows.append(_Row(str(text), str(text), str(text), value, stddev, known))
    binned = f", of the summed counts of {factor} × {factor} pixels" if factor > 1 else ""
    return _rows_figure(
        ds,
        f"Ratios of atoms{binned}",
        _binned_frame(frame_of(ds), factor, rows[0].value.shape[1]),
        binned_regions(ds, factor),
        rows,
        (table, groups),
        ["Grey: no value, since the divisor is below the detection limit. " + _NOTE],
        RATIO_BIN,
    )


@dataclass(frozen=True)
class _Row:
    """A map, its standard deviation, and the pixels whose value is known well."""

    name: str
    quantity: str  # in the table of regions
    unit: str
    value: np.ndarray
    stddev: np.ndarray
    known: np.ndarray
    detected: np.ndarray | None = None


def _rows_figure(
    ds: xr.Dataset,
    title: str,
    frame: Frame,
    regions: Mapping[str, np.ndarray],
    rows: Sequence[_Row],
    tables: tuple[pd.DataFrame, pd.DataFrame],
    notes: Sequence[str],
    width: float,
) -> Figure:
    left = _MARGIN + label_width(frame)
    tallest = (_PAGE_HEIGHT - _HEADER - _FOOTER) / len(rows) - _TITLE - _BELOW
    room = PAGE_WIDTH - left - 2 * _BAR - _PLOT_LEFT - _LEAST_PLOT - _MARGIN
    map_width, map_height = fit_map(frame, room / 2, float(np.clip(tallest, _LOWEST, _HIGHEST)))
    across, height = max(map_width + _BAR, _CAPTION), max(map_height, _LOWEST)
    down = _TITLE + height + _BELOW
    plot_left = left + 2 * across + _PLOT_LEFT
    note = _wrapped([*notes, _GROUPS_NOTE] if len(tables[1]) else notes, 150)
    foot = 0.1 + _NOTE_LINE * (note.count("\n") + 1)
    figure = new_figure(PAGE_WIDTH, _HEADER + len(rows) * down + foot)
    add_title(figure, title)
    for number, row in enumerate(rows):
        y = _HEADER + number * down
        for step, image in enumerate((row.value, row.stddev)):
            x = left + step * across
            caption = f"standard deviation of {row.name}" if step else row.name
            add_text(figure, x, y, caption, color=DARK, fontsize=SMALL)
            axes = draw_value_map(
                figure,
                image,
                frame,
                (x, y + _TITLE, map_width, map_height),
                row.known,
                row.unit,
                error=bool(step),
                labels=not step,
            )
            if row.detected is not None and not step:
                hatch_undetected(axes, row.detected)
        axes = add_axes(figure, plot_left, y + _TITLE, PAGE_WIDTH - _MARGIN - plot_left, height)
        image = np.where(row.known, row.value, np.nan)
        draw_distributions(axes, image, regions, width, group_values(tables[0], row.quantity))
        axes.set_xlabel(row.quantity, labelpad=1)
        axes.set_ylabel("share of pixels (%)", labelpad=2)
        text = comparison(tables[1], row.quantity)
        add_text(figure, plot_left - _PLOT_LEFT, y, text, color=DARK, fontsize=SMALL)
    bottom = _HEADER + len(rows) * down + 0.04
    add_text(figure, _MARGIN, bottom, note, fontsize=SMALL, color=DARK)
    return figure


def _composition(table: pd.DataFrame, elements: Sequence[str]) -> str:
    whole = table[table["region"] == "all"].set_index("quantity")
    parts = [f"{element} {region_words(whole.loc[f'{element} at%'])}" for element in elements]
    estimated = [
        element for element in elements if whole.loc[f"{element} at%", "k_factor"] == "estimated"
    ]
    notes = []
    if "true" in whole:
        true = [f"{element} {whole.loc[f'{element} at%', 'true']:.3g}" for element in elements]
        notes.append(f"True composition of the phantom: {', '.join(true)} at%")
    notes += [f"k-factors estimated: {', '.join(estimated)}"] if estimated else []
    return _wrapped(["Whole map: " + ", ".join(parts) + " at%", *notes], 95)


def _wrapped(paragraphs: Sequence[str], length: int) -> str:
    return "\n".join(line for text in paragraphs for line in textwrap.wrap(text, length))


def binned_ratio(
    ds: xr.Dataset, lines: Mapping[str, LineSpec], text: str, factor: int, k_factor_unit: str
) -> tuple[np.ndarray, np.ndarray]:
    """Ratio of counts summed over bins, and its standard deviation.

    NaN where fewer than half of a bin's pixels have a ratio, since their divisor is not detected,
    and where a bin lies in two areas.
    """
    value, stddev = bin_ratio(ds, lines, text, factor=factor, k_factor_unit=k_factor_unit)
    ratio = ds[RATIO.name].sel({DIM_RATIO: text}).drop_vars(DIM_RATIO)
    bins = {DIM_Y: factor, DIM_X: factor}
    share = ratio.notnull().astype(float).coarsen(bins, boundary="trim").mean()
    inside = (share.values >= 0.5) & _one_area(ds, factor)[:, np.newaxis]
    return np.where(inside, value, np.nan), np.where(inside, stddev, np.nan)


def _one_area(ds: xr.Dataset, factor: int) -> np.ndarray:
    """Whether all rows of a bin belong to one area, shape (binned y,)."""
    rows = ds.sizes[DIM_Y] // factor * factor
    areas = ds[COORD_AREA].values if COORD_AREA in ds.coords else np.ones(rows, int)
    bins = areas[:rows].reshape(-1, factor)
    return bins.min(axis=1) == bins.max(axis=1)


def binned_regions(ds: xr.Dataset, factor: int) -> dict[str, np.ndarray]:
    """Masks of the areas on maps binned by `factor`; bins in two areas belong to none."""
    rows, columns = (ds.sizes[dim] // factor * factor for dim in (DIM_Y, DIM_X))
    inside = _one_area(ds, factor)[:, np.newaxis]
    return {
        name: mask[:rows:factor, :columns:factor] & (inside | (name == "all"))
        for name, mask in area_regions(ds).items()
    }


def _binned_frame(frame: Frame, factor: int, columns: int) -> Frame:
    return replace(
        frame,
        columns=columns,
        step=frame.step * factor,
        borders=tuple((border + 0.5) / factor - 0.5 for border in frame.borders),
        areas=tuple(((middle + 0.5) / factor - 0.5, name) for middle, name in frame.areas),
    )
