"""Pictures of maps: components one by one, and counts before and after."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from edxdenoise.cube import detector_resolution, measured_pixels
from edxdenoise.report.frame import (
    Frame,
    colour_range,
    count_range,
    draw_map,
    fit_map,
    frame_of,
    grey_range,
    label_width,
)
from edxdenoise.report.spectra import counts_unit, label_peaks
from edxdenoise.report.style import (
    BLUE,
    DARK,
    GREY,
    PAGE_WIDTH,
    SMALL,
    add_axes,
    add_text,
    add_title,
    new_figure,
)
from edxdenoise.report.sums import Sums, unweighted_spectra
from edxdenoise.report.text import (
    component_list,
    decision,
    held_out_words,
    keeps_totals,
    kept_numbers,
    smoothing_words,
    verdict,
)
from edxdenoise.report.windows import Window
from edxdenoise.schema import (
    COMPONENT_MAP,
    COMPONENT_SPECTRUM,
    DIM_COMPONENT,
    DIM_DETECTOR,
    DIM_ENERGY,
    IMAGE,
    WEIGHT_ENERGY,
    WEIGHT_PIXEL,
)
from edxdenoise.xray import Identification, Peak, component_peaks, name_peaks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Inches.
_MARGIN = 0.12
_HEADER, _FOOTER = 0.42, 0.3
_LINE = 0.15  # of a title of more than two lines
_TITLE, _BELOW = 0.18, 0.3
_AXIS = 0.45
_BAR = 0.58
_MAP_WIDTH = 2.25
_LOWEST_ROW, _HIGHEST_MAP, _HIGHEST_TALL_MAP = 0.75, 1.55, 3.0
_HIGHEST_SPECTRUM = 1.55
_PAGE_HEIGHT = 9.6
_TALL = 1.25
_LEAST_WIDTH, _TITLE_CHARACTERS = 5.0, 66  # for the title, and of its lines
_NOTE = 0.16
_CAPTION_WIDTH = 1.65
_HIGHEST_COUNTS = 3.5
_PEAK_LABELS = 8


def component_figures(
    ds: xr.Dataset, elements: Identification, peaks: Sequence[Peak]
) -> Iterator[Figure]:
    """Pages with map, spectrum and verdict of every component of `ds`.

    Parameters
    ----------
    ds : Dataset
        With the components to show, computed, and what `select` adds.
    elements : Identification
        That peaks are named for.
    peaks : sequence of Peak
        Of the sum spectrum; the energy axis is cut behind the last.
    """
    frame = frame_of(ds)
    left = _MARGIN + label_width(frame)
    highest = max(_HIGHEST_MAP, min(_HIGHEST_TALL_MAP, _HIGHEST_MAP / _TALL * frame.ratio))
    height = float(np.clip(_MAP_WIDTH * frame.ratio, _LOWEST_ROW, highest))
    row = _TITLE + height + _AXIS
    per_page = max(1, int((_PAGE_HEIGHT - _HEADER - _FOOTER) // row))
    numbers = ds[DIM_COMPONENT].values
    for start in range(0, len(numbers), per_page):
        page = numbers[start : start + per_page]
        figure = new_figure(PAGE_WIDTH, _HEADER + row * len(page) + _FOOTER)
        kept = np.isin(page, kept_numbers(ds)).sum()
        add_title(figure, f"Components {component_list(page)}: {kept} kept")
        for place, number in enumerate(page):
            top = _HEADER + place * row
            _draw_component(figure, ds, int(number), frame, (left, top), height, elements, peaks)
        add_text(
            figure,
            _MARGIN,
            _HEADER + row * len(page) + 0.02,
            "Maps: scores in the weighted space; colours end at the 99.5th percentile. Spectra: "
            "what the component adds to a pixel's counts, root mean square over the pixels.",
            fontsize=SMALL,
            color=DARK,
        )
        yield figure


def _draw_component(
    figure: Figure,
    ds: xr.Dataset,
    number: int,
    frame: Frame,
    corner: tuple[float, float],
    height: float,
    elements: Identification,
    peaks: Sequence[Peak],
) -> None:
    left, top = corner
    component = ds.sel({DIM_COMPONENT: [number]})
    kept = number in kept_numbers(ds)
    colour = BLUE if kept else GREY
    title = {"fontsize": 7.5, "color": colour if kept else DARK}
    add_text(figure, _MARGIN, top, f"{number}", fontweight="bold", **title)
    add_text(figure, _MARGIN + 0.25, top, verdict(ds, number), **title)

    image = component[COMPONENT_MAP.name].values[0]
    width, _ = fit_map(frame, _MAP_WIDTH, height)
    box = (left, top + _TITLE, width, height)
    draw_map(figure, image, frame, box, colour_range(image), bar_label="score")

    spectrum_left = left + width + _BAR + 0.42
    axes = add_axes(
        figure,
        spectrum_left,
        top + _TITLE,
        PAGE_WIDTH - _MARGIN - spectrum_left,
        min(height, _HIGHEST_SPECTRUM),
    )
    energy = ds[DIM_ENERGY].values
    g = component[WEIGHT_PIXEL.name].values
    spectrum = unweighted_spectra(component)[0][0]
    spectrum = spectrum * np.sqrt(np.mean((g * image) ** 2, dtype=np.float64))
    axes.axhline(0, color=DARK, linewidth=0.4)
    axes.plot(energy, spectrum, color=colour, linewidth=0.7)
    axes.set_xlim(energy[0], _last_energy(energy, peaks))
    resolution = detector_resolution(ds)
    found = component_peaks(
        energy,
        component[COMPONENT_SPECTRUM.name].values[0],
        component[WEIGHT_ENERGY.name].values,
        resolution,
    )
    found = name_peaks(found, elements)
    low, high = min(float(spectrum.min()), 0.0), max(float(spectrum.max()), 0.0)
    room = 0.45 * (high - low or 1.0) if found else 0.05 * (high - low or 1.0)
    axes.set_ylim(low - 0.05 * (high - low), high + room)
    label_peaks(axes, energy, np.maximum(spectrum, 0), found, _PEAK_LABELS)
    axes.set_ylabel(counts_unit(energy), labelpad=2)
    axes.set_xlabel("energy (keV)", labelpad=1)
    axes.locator_params(axis="y", nbins=4)


def _last_energy(energy: np.ndarray, peaks: Sequence[Peak]) -> float:
    """End of what is worth showing: a little behind the last peak of the sum spectrum."""
    last = max((energy[peak.channel] for peak in peaks), default=energy[-1])
    return float(min(1.1 * last + 0.2, energy[-1]))


def maps_figure(ds: xr.Dataset, windows: Sequence[Window], raw: Sums, denoised: Sums) -> Figure:
    """Draw maps of windows, raw and denoised in the same colours, and images recorded with them.

    Parameters
    ----------
    ds : Dataset
        For the geometry, and with ``image`` and ``measured`` where there are such.
    windows : sequence of Window
        The first holds all channels.
    raw, denoised : Sums
        With the maps of these windows.
    """
    frame = frame_of(ds)
    images = _images(ds)
    # Two maps of each window, then the images by two.
    pairs = len(windows) + (len(images) + 1) // 2
    layout = max((_beside(frame, pairs), _below(frame, pairs)), key=_map_area)
    left, right = _MARGIN + label_width(frame), _MARGIN + _BAR
    rows, columns = (pairs, 2) if layout.beside else (2, pairs)
    last_row, last_column = rows - 1, columns - 1
    equal = keeps_totals(ds)
    said = filter(None, [decision(ds), smoothing_words(ds), held_out_words(ds)])
    title = "\n".join(textwrap.fill(sentence, _TITLE_CHARACTERS) for sentence in said)
    header = _HEADER + _LINE * max(title.count("\n") - 1, 0)
    figure = new_figure(
        max(left + last_column * layout.across + layout.width + right, _LEAST_WIDTH),
        header + last_row * layout.down + _TITLE + layout.height + _BELOW + equal * _NOTE,
    )
    add_title(figure, title)
    measured = measured_pixels(ds)
    cells: list[tuple[str, np.ndarray, tuple[str, float, float], bool]] = []
    for window, own, smooth in zip(windows, raw.maps, denoised.maps):
        colours = count_range(smooth)
        seen = np.where(measured, own, np.nan)
        cells.append((f"{window.label}, raw", seen, colours, not layout.beside))
        cells.append((f"{window.label}, denoised", smooth, colours, True))
    for name, image in images.items():
        cells.append((f"{name} image", image, grey_range(image), False))
    for number, (caption, image, colours, has_bar) in enumerate(cells):
        pair, step = divmod(number, 2)
        row, column = (pair, step) if layout.beside else (step, pair)
        x, y = left + column * layout.across, header + row * layout.down
        add_text(figure, x, y, caption, color=DARK, fontsize=SMALL, parse_math=False)
        draw_map(
            figure,
            image,
            frame,
            (x, y + _TITLE, layout.width, layout.height),
            colours,
            bar_label="counts / pixel" if has_bar else None,
            area_labels=not column,
        )
    if equal:
        text = "Maps of all X-rays are equal, since component 1 carries the total of every pixel."
        bottom = float(figure.get_size_inches()[1]) - 0.05
        add_text(figure, _MARGIN, bottom, text, fontsize=SMALL, color=DARK, va="bottom")
    return figure


def _images(ds: xr.Dataset) -> dict[str, np.ndarray]:
    """Images recorded with the counts, by detector."""
    if IMAGE.name not in ds:
        return {}
    return dict(zip(map(str, ds[DIM_DETECTOR].values), ds[IMAGE.name].values))


@dataclass(frozen=True)
class _Layout:
    """Inches of a map, and from one map to the next; raw beside denoised, or else above it."""

    beside: bool
    width: float
    height: float
    across: float
    down: float


def _map_area(layout: _Layout) -> float:
    return layout.width * layout.height


def _beside(frame: Frame, windows: int) -> _Layout:
    gap = 0.1
    room = PAGE_WIDTH - 2 * _MARGIN - label_width(frame) - _BAR
    tallest = (_PAGE_HEIGHT - _HEADER) / windows - _TITLE - _BELOW
    width, height = fit_map(frame, (room - gap) / 2, min(tallest, _HIGHEST_COUNTS))
    return _Layout(True, width, height, width + gap, _TITLE + height + _BELOW)


def _below(frame: Frame, windows: int) -> _Layout:
    room = PAGE_WIDTH - 2 * _MARGIN - label_width(frame)
    tallest = (_PAGE_HEIGHT - _HEADER) / 2 - _TITLE - _BELOW
    width, height = fit_map(frame, room / windows - _BAR, min(tallest, _HIGHEST_COUNTS))
    across = max(width, _CAPTION_WIDTH - _BAR) + _BAR
    return _Layout(False, width, height, across, _TITLE + height + _BELOW)
