"""Pictures of compositions and ratios: maps, their errors, their distributions."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.quantification.region_table import bin_ratio, group_of
from edxdenoise.quantification.regions import area_regions
from edxdenoise.report.frame import (
    FAR_ABOVE,
    Frame,
    draw_map,
    fit_map,
    frame_of,
    hatch_undetected,
    label_width,
    shortened,
    value_range,
    well_known,
)
from edxdenoise.report.style import (
    DARK,
    PAGE_WIDTH,
    SMALL,
    add_axes,
    add_text,
    add_title,
    new_figure,
    series_line,
)
from edxdenoise.report.text import region_words, with_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Distributions are drawn between these percentiles.
_TAILS = (0.1, 99.9)

# Widths of the bins of distributions, as the perovskite article has them: at% and ratio.
ELEMENT_BIN, RATIO_BIN = 1.0, 0.05
RATIO_FACTOR = 2
# Inches.
_MARGIN, _HEADER, _TITLE, _BELOW, _BAR = 0.12, 0.45, 0.17, 0.4, 0.55
_FOOTER, _NOTE_LINE = 0.6, 0.105
_PAGE_HEIGHT, _HIGHEST, _LOWEST = 9.6, 3.0, 1.0
_CAPTION = 1.3
_PLOT_LEFT, _LEAST_PLOT = 0.36, 1.9
_SHORT = 20  # characters of names that leave room for numbers on the same line
_NOTE = (
    "Colours and distributions leave out pixels whose standard deviation is more than "
    f"{FAR_ABOVE:.0f} times the usual one and a fifth of the value; colours end at the 99.5th "
    "percentile. Numbers are of the summed counts of whole areas."
)
_GROUPS_NOTE = (
    "z and p compare groups of areas, by counting errors and by the scatter of the areas (Welch's "
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
    elements = [str(element) for element in ds[v.DIM_ELEMENT].values]
    detected = ds[v.LINE_DETECTED].values == 1
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
            ds[v.ATOMIC_PERCENT].values,
            ds[v.ATOMIC_PERCENT_STDDEV].values,
            detected,
        )
    ]
    notes = [
        "Hatched: most pixels around are below the detection limit, 3 σ of the background; share "
        f"of all pixels below it: {', '.join(shares)}.",
        "Grey: no value. " + _NOTE,
    ]
    return _rows_figure(
        _composition(table, elements),
        frame_of(ds),
        area_regions(ds),
        rows,
        (table, groups),
        notes,
        ELEMENT_BIN,
    )


def ratios_figure(ds: xr.Dataset, table: pd.DataFrame, groups: pd.DataFrame) -> Figure:
    """Maps of ratios, their standard deviations and their distributions, a row for each.

    Parameters
    ----------
    ds : Dataset
        What `cliff_lorimer` gives, computed.
    table, groups : pandas.DataFrame
        From `region_table` and `compare_groups`.
    """
    # Files hold no covariances of pixels, and so none of bins.
    whole = v.LINE_INTENSITY_COVARIANCE in ds
    large = min(ds.sizes[v.DIM_Y], ds.sizes[v.DIM_X]) >= 4 * RATIO_FACTOR
    factor = RATIO_FACTOR if whole and large else 1
    rows = []
    for number, text in enumerate(ds[v.DIM_RATIO].values):
        if factor > 1:
            value, stddev = binned_ratio(ds, str(text), factor)
        else:
            value, stddev = (ds[spec].values[number] for spec in (v.RATIO, v.RATIO_STDDEV))
        known = well_known(value, stddev, np.isfinite(value))
        rows.append(_Row(str(text), str(text), str(text), value, stddev, known))
    binned = f", of the summed counts of {factor} × {factor} pixels" if factor > 1 else ""
    return _rows_figure(
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
    title: str,
    frame: Frame,
    regions: Mapping[str, np.ndarray],
    rows: Sequence[_Row],
    tables: tuple[pd.DataFrame, pd.DataFrame],
    notes: Sequence[str],
    width: float,
) -> Figure:
    left = _MARGIN + label_width(frame)
    texts = [comparison(tables[1], row.quantity) for row in rows]
    title_height = _TITLE + _NOTE_LINE * max(text.count("\n") for text in texts)
    tallest = (_PAGE_HEIGHT - _HEADER - _FOOTER) / len(rows) - title_height - _BELOW
    room = PAGE_WIDTH - left - 2 * _BAR - _PLOT_LEFT - _LEAST_PLOT - _MARGIN
    map_width, map_height = fit_map(frame, room / 2, float(np.clip(tallest, _LOWEST, _HIGHEST)))
    across, height = max(map_width + _BAR, _CAPTION), max(map_height, _LOWEST)
    down = title_height + height + _BELOW
    plot_left = left + 2 * across + _PLOT_LEFT
    note = _wrapped([*notes, _GROUPS_NOTE] if len(tables[1]) else notes, 150)
    foot = 0.1 + _NOTE_LINE * (note.count("\n") + 1)
    figure = new_figure(PAGE_WIDTH, _HEADER + len(rows) * down + foot)
    add_title(figure, title)
    for number, row in enumerate(rows):
        y = _HEADER + number * down
        for step, (image, spread) in enumerate(((row.value, row.stddev), (row.stddev, None))):
            x = left + step * across
            caption = f"standard deviation of {row.name}" if step else row.name
            add_text(figure, x, y, caption, color=DARK, fontsize=SMALL)
            axes = draw_map(
                figure,
                image,
                frame,
                (x, y + title_height, map_width, map_height),
                value_range(image, row.known, row.unit, stddev=spread, error=bool(step)),
                bar_label=row.unit,
                area_labels=not step,
            )
            if row.detected is not None and not step:
                hatch_undetected(axes, row.detected)
        axes = add_axes(
            figure, plot_left, y + title_height, PAGE_WIDTH - _MARGIN - plot_left, height
        )
        image = np.where(row.known, row.value, np.nan)
        draw_distributions(axes, image, regions, width, group_values(tables[0], row.quantity))
        axes.set_xlabel(row.quantity, labelpad=1)
        axes.set_ylabel("share of pixels (%)", labelpad=2)
        add_text(figure, plot_left - _PLOT_LEFT, y, texts[number], color=DARK, fontsize=SMALL)
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


def binned_ratio(ds: xr.Dataset, text: str, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Ratio of counts summed over bins, and its standard deviation.

    NaN where fewer than half of a bin's pixels have a ratio, since their divisor is not detected,
    and where a bin lies in two areas.
    """
    value, stddev = bin_ratio(ds, text, factor=factor)
    ratio = ds[v.RATIO].sel({v.DIM_RATIO: text}).drop_vars(v.DIM_RATIO)
    bins = {v.DIM_Y: factor, v.DIM_X: factor}
    share = ratio.notnull().astype(float).coarsen(bins, boundary="trim").mean()
    inside = (share.values >= 0.5) & _one_area(ds, factor)[:, np.newaxis]
    return np.where(inside, value, np.nan), np.where(inside, stddev, np.nan)


def _one_area(ds: xr.Dataset, factor: int) -> np.ndarray:
    """Whether all rows of a bin belong to one area, shape (binned y,)."""
    rows = ds.sizes[v.DIM_Y] // factor * factor
    areas = ds[v.COORD_AREA].values if v.COORD_AREA in ds.coords else np.ones(rows, int)
    bins = areas[:rows].reshape(-1, factor)
    return bins.min(axis=1) == bins.max(axis=1)


def binned_regions(ds: xr.Dataset, factor: int) -> dict[str, np.ndarray]:
    """Masks of the areas on maps binned by `factor`; bins in two areas belong to none."""
    rows, columns = (ds.sizes[dim] // factor * factor for dim in (v.DIM_Y, v.DIM_X))
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


def distribution(values: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Share in % of the finite values in each bin of `width`, bins starting at multiples of it.

    Returns
    -------
    edges : array, shape (bin + 1,)
    share : array, shape (bin,)

    Examples
    --------
    >>> distribution(np.array([0.01, 0.02, 0.07, np.nan]), 0.05)[1].round(1)
    array([66.7, 33.3])
    """
    finite = values[np.isfinite(values)].astype(float)
    if not finite.size:
        return np.array([0.0, width]), np.zeros(1)
    # In bins, with a little room for what rounding does to a value on an edge.
    place = np.floor(finite / width + 1e-6).astype(int)
    first = place.min()
    share = 100 * np.bincount(place - first) / finite.size
    return width * (first + np.arange(len(share) + 1)), share


def draw_distributions(
    axes: Axes,
    image: np.ndarray,
    regions: Mapping[str, np.ndarray],
    width: float,
    values: Mapping[str, str],
) -> None:
    """Distributions of a map, bold for each group of areas and thin for each area.

    Parameters
    ----------
    axes : Axes
    image : array, shape (y, x)
        NaN where a pixel does not count.
    regions : mapping of str to array of bool, shape (y, x)
        The whole as ``all``, and areas where there are any.
    width : float
        Of a bin.
    values : mapping of str to str
        What to say of each group.
    """
    groups: dict[str, list[str]] = {}
    for name in [name for name in regions if name != "all"] or ["all"]:
        groups.setdefault(group_of(name), []).append(name)
    for number, (group, names) in enumerate(groups.items()):
        line = series_line(number)
        together = image[np.any([regions[name] for name in names], axis=0)]
        label = f"{shortened(group)}: {values[group]}"
        edges, share = distribution(together, width)
        axes.stairs(share, edges, linewidth=1.0, label=label, **line)
        for name in names if len(names) > 1 else []:
            edges, share = distribution(image[regions[name]], width)
            axes.stairs(share, edges, linewidth=0.4, alpha=0.7, **line)
    finite = image[np.isfinite(image)]
    low, high = np.percentile(finite, _TAILS) if finite.size else (0.0, 1.0)
    axes.set_xlim(low - width, max(high, low) + width)
    axes.set_ylim(0, 1.35 * max(axes.get_ylim()[1], 1e-9) / 1.05)
    axes.legend(loc="upper right", fontsize=SMALL, handlelength=1.2, borderaxespad=0.1)


def group_values(table: pd.DataFrame, quantity: str) -> dict[str, str]:
    """Mean over the areas of each group, with its standard deviation."""
    rows = table[(table["quantity"] == quantity) & table["kind"].isin(["map", "area"])].copy()
    rows["group"] = [group_of(name) for name in rows["region"]]
    words = {}
    for group, part in rows.groupby("group", sort=False):
        counting = part["stddev_counting"] ** 2
        # What is not of the counts is common to all areas and does not average out.
        common = (part["stddev"] ** 2 - counting).clip(lower=0)
        stddev = np.sqrt(counting.sum() / len(part) ** 2 + common.mean())
        value = part["value"].mean(skipna=False)
        words[str(group)] = region_words(
            {"value": value, "stddev": stddev, "limit": part["limit"].max()}
        )
    return words


def comparison(groups: pd.DataFrame, quantity: str) -> str:
    if groups.empty:
        return ""
    row = groups[groups["quantity"] == quantity].iloc[0]
    names = " − ".join(shortened(name) for name in row["groups"].split(" - "))
    text = f"{names}:\n" if len(names) > _SHORT else f"{names}: "
    text += f"{with_error(row['difference'], row['stddev'])}, z {row['z']:.3g}"
    if np.isfinite(row["p_areas"]):
        text += f", p {row['p_areas']:.2g}"
    return text.replace("-", "−")
