"""Pictures of maps: components one by one, and elements raw and denoised."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.cube import detector_resolution, measured_pixels, pixel_counts
from edxdenoise.report.findings import Findings, shown_components
from edxdenoise.report.frame import (
    Frame,
    colour_range,
    count_range,
    draw_map,
    fit_map,
    frame_of,
    grey_range,
    label_width,
    net_range,
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
from edxdenoise.report.sums import unweighted_spectra
from edxdenoise.report.text import (
    component_list,
    decision,
    remaining_error,
    smoothing_words,
    verdict,
)
from edxdenoise.xray import (
    Identification,
    Peak,
    component_peaks,
    identified,
    line_label,
    name_peaks,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Inches.
_MARGIN = 0.12
_HEADER, _FOOTER = 0.42, 0.3
_LINE = 0.15  # of a title of more than two lines
_TITLE, _VERDICT, _BELOW = 0.18, 0.28, 0.3
_AXIS = 0.45
_BAR = 0.58
_MAP_WIDTH = 2.25
_LOWEST_ROW, _HIGHEST_MAP, _HIGHEST_TALL_MAP = 0.75, 1.55, 3.0
_HIGHEST_SPECTRUM = 1.55
_PAGE_HEIGHT = 9.6
_TALL = 1.25
_TITLE_CHARACTERS, _VERDICT_CHARACTERS = 90, 135  # in a line
_LETTER = 0.05
_HIGHEST_COUNTS = 3.5
_GAP, _COLUMNS = 0.06, 4
_OUTCOMES = {
    "kept": "Components kept",
    "borderline": "Borderline components, dropped: please inspect",
    "dropped": "Components dropped, the first of them",
}
_PEAK_LABELS = 8


def component_figures(
    ds: xr.Dataset, components: xr.Dataset, peaks: Sequence[Peak]
) -> Iterator[Figure]:
    """Pages with map, spectrum and verdict of the components that are shown, kept ones first.

    Parameters
    ----------
    ds : Dataset
        A result, computed but for its counts and maps; its components are shown.
    components : Dataset
        The same with the maps of those components.
    peaks : sequence of Peak
        Of the sum spectrum; the energy axis is cut behind the last.
    """
    frame = frame_of(ds)
    left = _MARGIN + label_width(frame)
    highest = max(_HIGHEST_MAP, min(_HIGHEST_TALL_MAP, _HIGHEST_MAP / _TALL * frame.ratio))
    height = float(np.clip(_MAP_WIDTH * frame.ratio, _LOWEST_ROW, highest))
    row = _VERDICT + height + _AXIS
    per_page = max(1, int((_PAGE_HEIGHT - _HEADER - _FOOTER) // row))
    elements = identified(ds)
    for outcome, numbers in shown_components(ds).items():
        for start in range(0, len(numbers), per_page):
            page = numbers[start : start + per_page]
            figure = new_figure(PAGE_WIDTH, _HEADER + row * len(page) + _FOOTER)
            add_title(figure, f"{_OUTCOMES[outcome]}: {component_list(page)}")
            for place, number in enumerate(page):
                top = _HEADER + place * row
                words = verdict(ds, int(number))
                colour = BLUE if outcome == "kept" else DARK
                add_text(figure, _MARGIN, top, f"{number}", fontweight="bold", color=colour)
                add_text(
                    figure,
                    _MARGIN + 0.25,
                    top,
                    textwrap.fill(words, _VERDICT_CHARACTERS),
                    fontsize=SMALL,
                    color=colour,
                )
                component = components.sel({v.DIM_COMPONENT: [number]})
                colour = BLUE if outcome == "kept" else GREY
                _draw_component(
                    figure, component, frame, (left, top), height, elements, peaks, colour
                )
            add_text(
                figure,
                _MARGIN,
                _HEADER + row * len(page) + 0.02,
                "Maps: scores in the weighted space; colours end at the 99.5th percentile. "
                "Spectra: what the component adds to a pixel's counts,\n"
                "root mean square over the pixels.",
                fontsize=SMALL,
                color=DARK,
            )
            yield figure


def _draw_component(
    figure: Figure,
    component: xr.Dataset,
    frame: Frame,
    corner: tuple[float, float],
    height: float,
    elements: Identification,
    peaks: Sequence[Peak],
    colour: str,
) -> None:
    left, top = corner
    image = component[v.COMPONENT_MAP].values[0]
    width, _ = fit_map(frame, _MAP_WIDTH, height)
    box = (left, top + _VERDICT, width, height)
    draw_map(figure, image, frame, box, colour_range(image), bar_label="score")

    spectrum_left = left + width + _BAR + 0.42
    axes = add_axes(
        figure,
        spectrum_left,
        top + _VERDICT,
        PAGE_WIDTH - _MARGIN - spectrum_left,
        min(height, _HIGHEST_SPECTRUM),
    )
    energy = component[v.DIM_ENERGY].values
    g = component[v.WEIGHT_PIXEL].values
    spectrum = unweighted_spectra(component)[0][0]
    spectrum = spectrum * np.sqrt(np.mean((g * image) ** 2, dtype=np.float64))
    axes.axhline(0, color=DARK, linewidth=0.4)
    axes.plot(energy, spectrum, color=colour, linewidth=0.7)
    axes.set_xlim(energy[0], last_energy(energy, peaks))
    resolution = detector_resolution(component)
    found = component_peaks(
        energy,
        component[v.COMPONENT_SPECTRUM].values[0],
        component[v.WEIGHT_ENERGY].values,
        resolution,
    )
    found = name_peaks(found, elements)
    low, high = min(float(spectrum.min()), 0.0), max(float(spectrum.max()), 0.0)
    # Upright names must end within the axes.
    longest = max((len(peak.name or "0.00 keV") for peak in found), default=0)
    share = min((_LETTER * longest + 0.1) / min(height, _HIGHEST_SPECTRUM), 0.7)
    span = (high - low) or 1.0
    axes.set_ylim(low - 0.05 * span, low + span / (1 - share))
    label_peaks(axes, energy, np.maximum(spectrum, 0), found, _PEAK_LABELS)
    axes.set_ylabel(counts_unit(energy), labelpad=2)
    axes.set_xlabel("energy (keV)", labelpad=1)
    axes.locator_params(axis="y", nbins=4)


def last_energy(energy: np.ndarray, peaks: Sequence[Peak]) -> float:
    """End of what is worth showing: a little behind the last peak of the sum spectrum."""
    last = max((energy[peak.channel] for peak in peaks), default=energy[-1])
    return float(min(1.1 * last + 0.2, energy[-1]))


def _error_left(ds: xr.Dataset) -> str:
    error = remaining_error(ds)
    return f"Remaining error (cross-validated): {error} of that of raw counts" if error else ""


def element_figures(found: Findings) -> Iterator[Figure]:
    """Pages with the map of the main line of every element, raw and denoised, images first.

    Parameters
    ----------
    found : Findings
    """
    frame = frame_of(found.ds)
    pairs = [*_image_cells(found), *_element_cells(found)]
    room = PAGE_WIDTH - 2 * _MARGIN - label_width(frame)
    across = room / _COLUMNS
    width, height = fit_map(frame, across - _BAR - _GAP, _HIGHEST_COUNTS)
    down = _TITLE + height + _BELOW
    said = filter(None, [_decision(found), smoothing_words(found.ds), _error_left(found.ds)])
    title = "\n".join(textwrap.fill(sentence, _TITLE_CHARACTERS) for sentence in said)
    header = _HEADER + _LINE * max(title.count("\n") - 1, 0)
    beside = _COLUMNS // 2
    per_page = beside * max(1, int((_PAGE_HEIGHT - header) // down))
    for start in range(0, len(pairs), per_page):
        page = pairs[start : start + per_page]
        rows = -(-len(page) // beside)
        figure = new_figure(PAGE_WIDTH, header + rows * down)
        add_title(figure, title)
        for number, pair in enumerate(page):
            row, place = divmod(number, beside)
            for step, cell in enumerate(pair):
                x = _MARGIN + label_width(frame) + (2 * place + step) * across
                y = header + row * down
                add_text(figure, x, y, cell.caption, color=DARK, fontsize=SMALL, parse_math=False)
                box = (x, y + _TITLE, width, height)
                draw_map(
                    figure,
                    cell.image,
                    frame,
                    box,
                    cell.colours,
                    bar_label=cell.unit,
                    area_labels=not place and not step,
                )
        yield figure


@dataclass(frozen=True)
class _Cell:
    """A map with its caption, colours, and the unit of its colour bar, if it has one."""

    caption: str
    image: np.ndarray
    colours: tuple[str, float, float]
    unit: str | None = None


def _image_cells(found: Findings) -> Iterator[tuple[_Cell, ...]]:
    """Images recorded with the counts, and the sum of all counts, by two."""
    ds = found.ds
    cells = []
    if v.IMAGE in ds:
        for name, image in zip(map(str, ds[v.DIM_DETECTOR].values), ds[v.IMAGE].values):
            cells.append(_Cell(f"{name} image", image, grey_range(image)))
    totals = np.where(measured_pixels(ds), pixel_counts(ds), np.nan)
    colours = count_range(totals[np.isfinite(totals)])
    cells.append(_Cell("all X-rays", totals, colours, "counts / pixel"))
    for start in range(0, len(cells), 2):
        yield tuple(cells[start : start + 2])


def _element_cells(found: Findings) -> Iterator[tuple[_Cell, ...]]:
    measured = measured_pixels(found.ds)
    for number, line in enumerate(map(str, found.elements["line"])):
        raw, denoised, shown = found.raw, found.denoised, found.shown
        if shown is None:
            return
        colours = net_range(shown[number], float(found.noise[number]))
        cells = []
        if raw is not None:
            image = np.where(measured, raw[number], np.nan)
            cells.append(_Cell(f"{line_label(line)}, raw", image, colours, "net counts"))
        if denoised is not None:
            caption = f"{line_label(line)}, denoised"
            cells.append(_Cell(caption, denoised[number], colours, "net counts"))
        yield tuple(cells)


def _decision(found: Findings) -> str:
    return decision(found.ds) if found.components is not None else "Net counts of all elements"
