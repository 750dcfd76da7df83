"""Spectra before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from scipy.optimize import isotonic_regression

from edxdenoise import schema as v
from edxdenoise.components.selection import kept_numbers
from edxdenoise.errors import SHOWN
from edxdenoise.report.style import (
    BLUE,
    DARK,
    GREY,
    POINTS_PER_INCH,
    SMALL,
    VERMILION,
    label_powers,
    new_plot,
)
from edxdenoise.report.text import keeps_totals, number_words, warning_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from edxdenoise.xray import Peak

# Inches that an upright label takes along the energy axis.
_LABEL_WIDTH = 0.095
_MOST_LABELS = 24
# Residuals are drawn in a window of at least this many standard deviations.
_LEAST_RESIDUAL = 3.0


def spectra_figure(
    ds: xr.Dataset,
    raw: np.ndarray,
    denoised: np.ndarray,
    peaks: Sequence[Peak],
    pixel: tuple[int, int],
    pixel_spectra: tuple[np.ndarray, np.ndarray],
) -> Figure:
    """Sum spectra before and after, their difference, and the spectrum of one pixel.

    Parameters
    ----------
    ds : Dataset
    raw, denoised : array, shape (energy,)
        Sum spectra of the counts and of the kept components.
    peaks : sequence of Peak
        Of the sum spectrum, largest first.
    pixel : tuple of int
        (y, x) of the pixel shown.
    pixel_spectra : tuple of array
        Its spectrum as counted and as rebuilt.
    """
    energy = ds[v.DIM_ENERGY].values
    pixels = ds.sizes[v.DIM_Y] * ds.sizes[v.DIM_X]
    total = raw.sum()
    figure = new_plot(
        5.1,
        f"{len(kept_numbers(ds))} of {ds.sizes[v.DIM_COMPONENT]} components describe "
        f"{number_words(total)} counts in {ds.sizes[v.DIM_Y]} × {ds.sizes[v.DIM_X]} pixels, "
        f"{number_words(total / pixels)} per pixel",
        warning_lines(ds, most=SHOWN),
    )
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=[3, 1, 2])
    unit = counts_unit(energy)

    _draw_sums(top, energy, raw, denoised, peaks)
    top.set_ylabel(unit)
    top.set_title("sum of all pixels", loc="left", color=DARK)

    _draw_residual(middle, energy, raw, denoised)
    title = "(raw − denoised) / √raw"
    # Shrinkage keeps the totals of pixels, not those of channels.
    if keeps_totals(ds) and v.COMPONENT_MAP_SHRUNK not in ds:
        title += ": none, since component 1 carries the total of every channel"
    middle.set_title(title, loc="left", color=DARK)

    y, x = pixel
    counted, rebuilt = pixel_spectra
    bottom.fill_between(
        energy, counted, step="mid", facecolor="0.75", edgecolor=GREY, linewidth=0.3, label="raw"
    )
    bottom.plot(energy, rebuilt, color=BLUE, linewidth=0.9, label="denoised")
    bottom.set(ylabel=unit, xlabel="energy (keV)")
    bottom.set_title(
        f"one pixel (y {y}, x {x}): {number_words(counted.sum())} counts; half "
        "of all counts lie in brighter pixels",
        loc="left",
        color=DARK,
    )
    bottom.legend(loc="upper right")
    return figure


def sum_figure(energy: np.ndarray, spectra: dict[str, np.ndarray], peaks: Sequence[Peak]) -> Figure:
    """Draw sum spectra with their peaks named.

    Parameters
    ----------
    energy : array, shape (energy,)
    spectra : dict of str to array, shape (energy,)
        ``raw`` and, where there is one, ``denoised``.
    peaks : sequence of Peak
        Of the raw spectrum, largest first.
    """
    figure = new_plot(2.6, "Sum of all pixels", [])
    axes = figure.subplots()
    _draw_sums(axes, energy, spectra["raw"], spectra.get("denoised"), peaks)
    axes.set(xlabel="energy (keV)", ylabel=counts_unit(energy))
    return figure


def counts_unit(energy: np.ndarray) -> str:
    """Counts per channel, with the width of a channel."""
    return f"counts / {1000 * (energy[1] - energy[0]):.4g} eV"


def _draw_sums(
    axes: Axes,
    energy: np.ndarray,
    raw: np.ndarray,
    denoised: np.ndarray | None,
    peaks: Sequence[Peak],
) -> None:
    axes.step(
        energy, np.where(raw > 0, raw, np.nan), where="mid", color=GREY, linewidth=1.6, label="raw"
    )
    if denoised is not None:
        visible = np.where(denoised > 0, denoised, np.nan)
        axes.plot(energy, visible, color=BLUE, linewidth=0.7, label="denoised")
    axes.set_yscale("log")
    label_powers(axes.yaxis)
    highest = max(float(raw.max()), 1.0)
    lowest = max(0.5, float(np.percentile(raw[raw > 0], 2)) / 2)
    # Room above the curve for names of peaks that stand upright.
    axes.set(xlim=(energy[0], energy[-1]), ylim=(lowest, highest * (highest / lowest) ** 0.33))
    label_peaks(axes, energy, raw, peaks, _MOST_LABELS)
    axes.legend(loc="upper right")


def label_peaks(
    axes: Axes, energy: np.ndarray, spectrum: np.ndarray, peaks: Sequence[Peak], most: int
) -> None:
    """Write upright names over the largest peaks, side by side where peaks stand close.

    A peak whose name would come to stand far from it, or push another's away, has none.
    """
    low, high = axes.get_xlim()
    inch = (high - low) * axes.figure.dpi / axes.bbox.width
    apart = _LABEL_WIDTH * inch
    named: list[Peak] = []
    places = moved = np.array([])
    for peak in peaks[:most]:
        trial = sorted([*named, peak], key=lambda peak: peak.channel)
        trial_places = np.array([energy[peak.channel] for peak in trial])
        trial_moved = spread(trial_places, apart, low)
        if np.abs(trial_moved - trial_places).max() <= apart:
            named, places, moved = trial, trial_places, trial_moved
    for peak, place, label_place in zip(named, places, moved):
        nearby = spectrum[max(peak.channel - 2, 0) : peak.channel + 3]
        shift = POINTS_PER_INCH * (label_place - place) / inch
        axes.annotate(
            peak.name or f"{peak.energy:.2f} keV",
            (place, float(nearby.max())),
            (shift, 5 if abs(shift) > 1 else 3),
            textcoords="offset points",
            rotation=90,
            ha="center",
            va="bottom",
            fontsize=SMALL,
            color=DARK,
            arrowprops=(
                {"arrowstyle": "-", "linewidth": 0.3, "color": GREY, "shrinkA": 0}
                if abs(shift) > 1
                else None
            ),
        )


def spread(places: np.ndarray, apart: float, lowest: float) -> np.ndarray:
    """The rising places at least `apart` from each other that are nearest to `places`.

    The first is at least half of that above `lowest`.

    Examples
    --------
    >>> spread(np.array([0.0, 1.0, 9.0]), 2.0, -9.0).tolist()
    [-0.5, 1.5, 9.0]
    """
    steps = apart * np.arange(len(places))
    return np.maximum(isotonic_regression(places - steps).x, lowest + apart / 2) + steps


def _draw_residual(axes: Axes, energy: np.ndarray, raw: np.ndarray, denoised: np.ndarray) -> None:
    filled = raw > 0
    residual = np.full(raw.shape, np.nan)
    residual[filled] = (raw - denoised)[filled] / np.sqrt(raw[filled])
    largest = float(np.nanmax(np.abs(residual), initial=0.0))
    axes.axhspan(-1, 1, color="0.93", linewidth=0)
    axes.plot(energy, residual, color=VERMILION, linewidth=0.6)
    limit = max(_LEAST_RESIDUAL, 1.1 * largest)
    axes.set(ylim=(-limit, limit), ylabel="residual (σ)")
