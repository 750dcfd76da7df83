"""Pictures of compositions and ratios: maps, their errors, their distributions."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr
from scipy.ndimage import uniform_filter

from edxdenoise.quantification import LineSpec
from edxdenoise.quantification.regions import area_regions, bin_ratio
from edxdenoise.report.distributions import comparison, draw_distributions, group_values
from edxdenoise.report.frame import (
    Frame,
    count_range,
    draw_map,
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
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Widths of the bins of distributions, as the perovskite article has them: at% and ratio.
ELEMENT_BIN, RATIO_BIN = 1.0, 0.05
RATIO_FACTOR = 2
_STDDEV_COLOURS = "cividis"
_NO_VALUE = "0.75"
# Inches.
_MARGIN, _HEADER, _TITLE, _BELOW, _BAR = 0.12, 0.45, 0.17, 0.4, 0.55
_FOOTER, _NOTE_LINE = 0.6, 0.105
_PAGE_HEIGHT, _HIGHEST, _LOWEST = 9.6, 3.0, 1.0
_CAPTION = 1.3
_SINGLE_WIDTH, _SINGLE_HEIGHT = 3.0, 4.0
_PLOT_LEFT, _LEAST_PLOT = 0.36, 1.9
# A pixel is well known up to this many times the usual standard deviation, or where its value is
# that many standard deviations.
_FAR_ABOVE, _MANY = 3.0, 5.0
# Maps whose smallest values are above this share of the largest have colours that begin there.
_EVEN = 0.4
_NOTE = (
    "Colours and distributions leave out pixels whose standard deviation is more than "
    f"{_FAR_ABOVE:.0f} times the usual one and a fifth of the value; colours end at the 99.5th "
    "percentile. Numbers are of the summed counts of whole areas, with counting errors; z and p "
    "compare groups of areas, by these errors and by the scatter of the areas (Welch's t-test)."
)
# Undetected pixels are hatched where most of a neighbourhood of this share of the map are.
_NEIGHBOURHOOD = 1 / 100


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
        f"{element} {100 * (1 - part.mean()):.0f} %" for element, part in zip(elements, detected)
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


def well_known(value: np.ndarray, stddev: np.ndarray, specimen: np.ndarray) -> np.ndarray:
    """Pixels whose standard deviation is not far above the usual one, median over `specimen`.

    Nor are pixels left out whose value is many standard deviations. Others, such as those of
    vacuum or of a phase none of whose lines are quantified, divide next to nothing by next to
    nothing.

    Examples
    --------
    >>> specimen = np.array([True, True, True, True, False])
    >>> stddev = np.array([1.0, 2.0, 9.0, 9.0, np.nan])
    >>> well_known(np.array([5.0, 0.0, 90.0, 20.0, np.nan]), stddev, specimen)
    array([ True,  True,  True, False, False])
    """
    finite = np.isfinite(value) & np.isfinite(stddev)
    usual = stddev[finite & specimen]
    limit = _FAR_ABOVE * np.median(usual) if usual.size else np.inf
    known = np.zeros(value.shape, bool)
    known[finite] = stddev[finite] <= np.maximum(limit, np.abs(value[finite]) / _MANY)
    return known


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
    note = _wrapped(notes, 150)
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
    whole = table[table["region"] == "all"].set_index("quantity")["value"]
    parts = [f"{element} {whole[f'{element} at%']:.3g}" for element in elements]
    return _wrapped(["Whole map: " + ", ".join(parts) + " at%"], 95)


def _wrapped(paragraphs: Sequence[str], length: int) -> str:
    return "\n".join(line for text in paragraphs for line in textwrap.wrap(text, length))


def draw_value_map(
    figure: Figure,
    image: np.ndarray,
    frame: Frame,
    box: tuple[float, float, float, float],
    known: np.ndarray,
    unit: str,
    *,
    error: bool = False,
    labels: bool = True,
) -> Axes:
    """A map with scale bar and colour bar, grey where it has no value.

    Parameters
    ----------
    figure : Figure
    image : array, shape (y, x)
    frame : Frame
    box : tuple of float
        As `draw_map` takes it.
    known : array of bool, shape (y, x)
        Pixels that the ends of the colours are taken from.
    unit : str
        Of the colour bar.
    error : bool
        Whether it is a map of standard deviations, which have colours of their own.
    labels : bool
        Whether to name stacked areas.
    """
    shown = image[known & np.isfinite(image)]
    cmap, low, high = count_range(shown if shown.size else np.zeros(1))
    if shown.size and not error and unit != "counts":
        lowest = float(np.percentile(shown, 100 - 99.5))
        # From 0, what little a nearly even map varies by would not be seen.
        low = lowest if lowest > _EVEN * high else 0.0
    colours = (_STDDEV_COLOURS if error else cmap, low, high)
    axes = draw_map(figure, image, frame, box, colours, bar_label=unit, area_labels=labels)
    axes.set_facecolor(_NO_VALUE)
    return axes


def hatch_undetected(axes: Axes, detected: np.ndarray) -> None:
    """Hatch a map where most pixels around are below the detection limit."""
    import matplotlib

    size = 2 * round(_NEIGHBOURHOOD * min(detected.shape)) + 3
    share = uniform_filter((~detected).astype(float), size, mode="nearest")
    if min(detected.shape) < 2 or not (share > 0.5).any():
        return
    with matplotlib.rc_context({"hatch.linewidth": 0.3}):
        hatched = axes.contourf(share, levels=[0.5, 2.0], colors="none", hatches=["////"])
    hatched.set(edgecolor="0.8", linewidth=0)


def map_figure(
    ds: xr.Dataset, image: np.ndarray, caption: str, unit: str, known: np.ndarray
) -> Figure:
    """One map as wide as a column, with scale bar and colour bar.

    Parameters
    ----------
    ds : Dataset
        For the geometry.
    image : array, shape (y, x)
    caption : str
    unit : str
        Of the colour bar.
    known : array of bool, shape (y, x)
        Pixels that the ends of the colours are taken from.
    """
    frame = frame_of(ds)
    left = _MARGIN + label_width(frame)
    width, height = fit_map(frame, _SINGLE_WIDTH, _SINGLE_HEIGHT)
    figure = new_figure(max(left + width + _BAR, 2.2), 0.3 + height + _BELOW)
    add_text(figure, left, 0.1, caption, color=DARK)
    draw_value_map(figure, image, frame, (left, 0.3, width, height), known, unit)
    return figure


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
