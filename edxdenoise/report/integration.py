"""Draw on the sum spectrum what was integrated: windows and background, or the fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.cube import channel_width, detector_resolution, sum_spectrum
from edxdenoise.errors import SHOWN
from edxdenoise.quantification import LineSpec
from edxdenoise.quantification.estimators import Weights, line_weights
from edxdenoise.quantification.fit import solve_nonnegative
from edxdenoise.quantification.lines import elements_used, intensities_used, quantified_lines
from edxdenoise.quantification.windows import integration_window, place_windows
from edxdenoise.report.spectra import counts_unit, label_peaks
from edxdenoise.report.style import (
    BLUE,
    DARK,
    GREY,
    ORANGE,
    PAGE_WIDTH,
    SMALL,
    VERMILION,
    add_axes,
    label_powers,
    new_plot,
)
from edxdenoise.report.text import number_words, warning_lines
from edxdenoise.xray import Peak, find_peaks, fwhm, identified, line_energy, line_label, name_peaks
from edxdenoise.xray.families import Window

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches.
_LEFT, _RIGHT, _HEAD, _TITLE, _AXIS = 0.5, 0.1, 0.35, 0.18, 0.38
_OVERVIEW, _RESIDUAL, _PANEL = 2.2, 0.7, 1.15
_COLUMNS = 3
_GAP = 0.42
_MOST_LABELS = 24
# Panels reach this far beyond the windows, in FWHM of the line, and as far from a fitted line.
_MARGIN, _REACH = 0.6, 4.0
# Room above the spectrum for upright names, as a factor on the height: linear and logarithmic.
_ROOM, _LOG_ROOM = 1.8, 0.33


def integration_figure(ds: xr.Dataset) -> Figure:
    """The sum spectrum with what was done to it: all of it above, each line in a panel below.

    Parameters
    ----------
    ds : Dataset
        Quantified, with counts or their weights.

    Returns
    -------
    matplotlib.figure.Figure
        Windows and background lines; for a fit the families of lines, the background and the
        residual.
    """
    lines, intensities = quantified_lines(ds), intensities_used(ds)
    elements = elements_used(ds)
    weights = line_weights(ds, lines, intensities=intensities, elements=elements)
    spectrum = sum_spectrum(ds)
    energy = ds[v.DIM_ENERGY].values
    resolution = detector_resolution(ds)
    peaks = name_peaks(find_peaks(energy, spectrum, resolution), identified(ds, elements))
    fit = intensities == "fit"
    rows = -(-len(lines) // _COLUMNS)
    below = _AXIS + (_RESIDUAL + 2 * _TITLE if fit else 0.0)
    height = _TITLE + _OVERVIEW + below + rows * (_TITLE + _PANEL + _AXIS)
    figure = new_plot(height, _title(lines, intensities), warning_lines(ds, most=SHOWN))
    figure.set_layout_engine("none")
    top = _HEAD + _TITLE
    overview = add_axes(figure, _LEFT, top, PAGE_WIDTH - _LEFT - _RIGHT, _OVERVIEW)
    overview.set_title("sum of all pixels", loc="left", color=DARK)
    panels = _panels(figure, len(lines), top + _OVERVIEW + below)
    if fit:
        residual = add_axes(
            figure, _LEFT, top + _OVERVIEW + 2 * _TITLE, PAGE_WIDTH - _LEFT - _RIGHT, _RESIDUAL
        )
        overview.tick_params(labelbottom=False)
        _draw_fit(overview, residual, panels, energy, spectrum, weights, peaks, lines, resolution)
    else:
        background = place_windows(ds, lines, elements)
        windows = {
            name: (integration_window(name, spec, resolution), background[name])
            for name, spec in lines.items()
        }
        overview.set_xlabel("energy (keV)", labelpad=1)
        sloped = intensities == "windows-linear"
        _draw_windows(
            overview, panels, energy, spectrum, weights, peaks, windows, sloped, resolution
        )
    return figure


def _title(lines: Mapping[str, LineSpec], intensities: str) -> str:
    number = f"{len(lines)} lines" if len(lines) > 1 else line_label(next(iter(lines)))
    if intensities == "fit":
        return (
            f"Fit of {number} and all others at once: quantified blue, background orange, sum red"
        )
    how = ", channels whole, background level" if intensities == "windows" else ""
    return f"Windows of {number}: integrated blue, background orange{how}"


def _panels(figure: Figure, count: int, top: float) -> list[Axes]:
    width = (PAGE_WIDTH - _LEFT - _RIGHT - (_COLUMNS - 1) * _GAP) / _COLUMNS
    return [
        add_axes(
            figure,
            _LEFT + (number % _COLUMNS) * (width + _GAP),
            top + _TITLE + (number // _COLUMNS) * (_TITLE + _PANEL + _AXIS),
            width,
            _PANEL,
        )
        for number in range(count)
    ]


def _draw_overview(axes: Axes, energy: np.ndarray, spectrum: np.ndarray, peaks: list[Peak]) -> None:
    axes.step(
        energy,
        np.where(spectrum > 0, spectrum, np.nan),
        where="mid",
        color=DARK,
        linewidth=0.7,
    )
    axes.set_yscale("log")
    label_powers(axes.yaxis)
    highest = max(float(spectrum.max()), 1.0)
    filled = spectrum[spectrum > 0]
    lowest = max(0.5, float(np.percentile(filled, 2)) / 2) if filled.size else 0.5
    axes.set(xlim=(energy[0], energy[-1]), ylim=(lowest, highest * (highest / lowest) ** _LOG_ROOM))
    axes.set_ylabel(counts_unit(energy))
    label_peaks(axes, energy, spectrum, peaks, _MOST_LABELS)


def _draw_windows(
    overview: Axes,
    panels: list[Axes],
    energy: np.ndarray,
    spectrum: np.ndarray,
    weights: Weights,
    peaks: list[Peak],
    windows: Mapping[str, tuple[Window, tuple[Window, ...]]],
    sloped: bool,
    resolution: float,
) -> None:
    _draw_overview(overview, energy, spectrum, peaks)
    for axes, estimator, (name, (window, background)) in zip(
        panels, weights.estimators, windows.items()
    ):
        margin = _MARGIN * float(fwhm(line_energy(name), resolution)) / 1000
        edges = [edge for span in (window, *background) for edge in span]
        low, high = min(edges), max(edges)
        _draw_panel(axes, energy, spectrum, peaks, (low - margin, high + margin), window)
        for place in (overview, axes):
            place.axvspan(*window, color=BLUE, alpha=0.15, linewidth=0)
            for span in background:
                place.axvspan(*span, color=ORANGE, alpha=0.4, linewidth=0)
        level = (
            background_line(energy, spectrum, background)
            if sloped
            else np.full(energy.shape, background_level(spectrum, estimator))
        )
        axes.fill_between(
            energy,
            level,
            spectrum,
            where=estimator > 0.5,
            step="mid",
            color=BLUE,
            alpha=0.5,
            linewidth=0,
        )
        between = np.array([low, high])
        axes.plot(between, np.interp(between, energy, level), color=VERMILION, linewidth=0.9)
        net, gross = float(estimator @ spectrum), float(np.maximum(estimator, 0) @ spectrum)
        share = f", {100 * net / gross:.0f} % of window" if gross > 0 else ""
        words = number_words(abs(net))
        _caption(axes, f"{line_label(name)}: {'−' * (net < 0)}{words} net{share}")


def background_line(
    energy: np.ndarray, spectrum: np.ndarray, windows: Sequence[Window]
) -> np.ndarray:
    """Background per channel that ``windows-linear`` takes off, over the whole axis.

    Parameters
    ----------
    energy, spectrum : array, shape (energy,)
        Channel centres in keV, and counts.
    windows : sequence of (low, high)
        One or two background windows in keV, cut within channels.

    Returns
    -------
    array, shape (energy,)
        A straight line through the means of two windows; the mean of one.

    Examples
    --------
    >>> energy = np.arange(5) + 0.5
    >>> background_line(energy, 3 * energy, [(0, 1), (4, 5)])
    array([ 1.5,  4.5,  7.5, 10.5, 13.5])
    """
    width = channel_width(energy)
    edges = np.append(energy - width / 2, energy[-1] + width / 2)
    counts = np.diff(np.interp(windows, edges, np.append(0, np.cumsum(spectrum))), axis=1)[:, 0]
    means = counts / (np.diff(windows, axis=1)[:, 0] / width)
    if len(windows) == 1:
        return np.full(energy.shape, means[0])
    left, right = np.mean(windows, axis=1)
    return means[0] + (means[1] - means[0]) / (right - left) * (energy - left)


def background_level(spectrum: np.ndarray, estimator: np.ndarray) -> float:
    """Background per channel that ``windows`` takes off: the mean of all background channels.

    Parameters
    ----------
    spectrum : array, shape (energy,)
    estimator : array, shape (energy,)
        What each channel counts for: below 0 in the background windows.
    """
    taken = np.minimum(estimator, 0)
    return float(taken @ spectrum / taken.sum())


def _draw_panel(
    axes: Axes,
    energy: np.ndarray,
    spectrum: np.ndarray,
    peaks: list[Peak],
    ends: Window,
    core: Window,
) -> None:
    """Spectrum between `ends`, as high as it is within `core`, with the names of the peaks."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    shown = (energy >= ends[0]) & (energy <= ends[1])
    inside = (energy >= core[0]) & (energy <= core[1])
    height = max(float(spectrum[inside].max(initial=0)), 1.0)
    axes.step(energy[shown], spectrum[shown], where="mid", color=DARK, linewidth=0.6)
    axes.set(xlim=(max(ends[0], energy[0]), min(ends[1], energy[-1])), ylim=(0, _ROOM * height))
    near = [peak for peak in peaks if shown[peak.channel]]
    label_peaks(axes, energy, np.minimum(spectrum, height), near, _MOST_LABELS)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("energy (keV)", labelpad=1)


def _draw_fit(
    overview: Axes,
    residual: Axes,
    panels: list[Axes],
    energy: np.ndarray,
    spectrum: np.ndarray,
    weights: Weights,
    peaks: list[Peak],
    lines: Mapping[str, LineSpec],
    resolution: float,
) -> None:
    model = weights.model
    assert model is not None
    amplitudes = solve_nonnegative(model.gram, (model.filters @ spectrum)[:, np.newaxis])[:, 0]
    parts = amplitudes[:, np.newaxis] * model.shapes
    background = parts[len(model.names) :].sum(axis=0)
    total = parts.sum(axis=0)
    used = model.weights > 0
    _draw_overview(overview, energy, spectrum, peaks)
    for axes in (overview, *panels):
        for number, part in enumerate(parts[: len(model.names)]):
            chosen = number < len(lines)
            # A family is drawn where it is more than rounding, so that log axes are not crossed.
            where = part > 1e-4 * part.max(initial=0)
            axes.plot(
                energy,
                np.where(where, part + (0 if axes is overview else background), np.nan),
                color=BLUE if chosen else GREY,
                linewidth=0.8 if chosen else 0.5,
            )
        axes.plot(energy, np.where(used, background, np.nan), color=ORANGE, linewidth=0.9)
        axes.plot(energy, np.where(used, total, np.nan), color=VERMILION, linewidth=0.6)
    difference = np.where(used & (spectrum > 0), spectrum - total, np.nan)
    residual.axhspan(-1, 1, color="0.93", linewidth=0)
    residual.plot(energy, difference / np.sqrt(np.maximum(spectrum, 1)), color=DARK, linewidth=0.5)
    share = 100 * float(np.nansum(np.abs(difference)) / spectrum[used].sum())
    residual.set(xlim=overview.get_xlim(), ylabel="residual (σ)")
    residual.set_xlabel("energy (keV)", labelpad=1)
    residual.set_title(
        f"(counts − fit) / √counts; they differ by {share:.2g} % of the counts",
        loc="left",
        color=DARK,
    )
    for axes, name, amplitude, part in zip(panels, lines, amplitudes, parts):
        centre = line_energy(name)
        width = float(fwhm(centre, resolution)) / 1000
        ends = (centre - _REACH * width, centre + _REACH * width)
        _draw_panel(axes, energy, spectrum, peaks, ends, (centre - width, centre + width))
        axes.fill_between(
            energy, background, background + part, color=BLUE, alpha=0.35, linewidth=0
        )
        _caption(axes, f"{line_label(name)}: {number_words(float(amplitude))} net counts")


def _caption(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", color=DARK, fontsize=SMALL)
