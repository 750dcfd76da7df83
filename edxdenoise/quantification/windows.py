"""Net intensities by windows: what each channel counts for.

A net intensity is a weighted sum over the channels of a spectrum: +1 or a share of a channel inside
the integration window, and less than 0 in the background windows. All that follows, errors
included, needs no more than these weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

import numpy as np
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.cube import channel_width, detector_resolution, energy_range, sum_spectrum
from edxdenoise.errors import ParameterError, Rank, warn
from edxdenoise.quantification.lines import LineSpec
from edxdenoise.xray import Peak, find_peaks, fwhm, line_energy
from edxdenoise.xray.families import LOWEST_ENERGY, Window, element_of, strong_lines

# Background windows, in FWHM of the line: their width, the gap to the line's centre, and how far
# out one may be moved to find a place free of other lines.
_WIDTH = 1.0
_GAP = 2.0
_FARTHEST = 15.0
_STEP = 0.1
# A window keeps this far from the centre of another line, in that line's FWHM.
_CLEARANCE = 1.0
# A peak with less than this share of a line's net counts does not matter in its background: a
# window that holds all of it moves the line by half of that.
_NEGLIGIBLE = 0.02
# Below, in keV, the edge of the discriminator makes a bump that is no peak.
_LOWEST_PEAK = 0.2


def integration_window(name: str, spec: LineSpec, resolution: float) -> Window:
    """The window given, or one FWHM either side of the line, in keV."""
    if spec.window is not None:
        return spec.window
    energy = line_energy(name)
    width = float(fwhm(energy, resolution)) / 1000
    return energy - width, energy + width


def estimate_background(
    name: str,
    others: Iterable[float],
    energy_range: Window,
    resolution: float = 130.0,
) -> tuple[Window, ...]:
    """Background windows either side of a line that touch no other line.

    Each is one FWHM wide and starts two FWHM from the line; it is moved outwards until it is clear
    of every other line. A side without a free place has none.

    Parameters
    ----------
    name : str
        The line.
    others : iterable of float
        Energies in keV of all other lines to keep clear of.
    energy_range : (low, high)
        Of the spectra, in keV.
    resolution : float
        FWHM at Mn K alpha in eV.

    Returns
    -------
    tuple of (low, high)
        One or two windows in keV.

    Raises
    ------
    ParameterError
        If there is no free place on either side.
    """
    energy = line_energy(name)
    width = float(fwhm(energy, resolution)) / 1000
    positions = np.array([other for other in others if other != energy])
    clearance = _CLEARANCE * fwhm(positions, resolution) / 1000
    low, high = max(energy_range[0], LOWEST_ENERGY), energy_range[1]
    windows = []
    for side in (-1, 1):
        for gap in np.arange(_GAP, _FARTHEST, _STEP):
            near, far = energy + side * gap * width, energy + side * (gap + _WIDTH) * width
            start, end = min(near, far), max(near, far)
            if start < low or end > high:
                break
            if not np.any((positions + clearance > start) & (positions - clearance < end)):
                windows.append((float(start), float(end)))
                break
    if not windows:
        closest = positions[np.argsort(np.abs(positions - energy))][:4]
        raise ParameterError(
            f"no place for a background window of '{name}' is free of other lines (the nearest "
            f"peaks are at {', '.join(f'{each:.2f}' for each in np.sort(closest))} keV); give "
            f"'lines.{name}.background', or use --intensities fit"
        )
    return tuple(windows)


def background_windows(
    lines: Mapping[str, LineSpec],
    energy_range: Window,
    *,
    elements: Iterable[str] = (),
    beam_energy: float | None = None,
    resolution: float = 130.0,
    peaks: Iterable[float] = (),
) -> dict[str, tuple[Window, ...]]:
    """The background windows given, and estimates for the lines without.

    `peaks` are energies in keV of further peaks to keep clear of, whatever element they are of.
    """
    present = [element_of(name) for name in lines] + list(elements)
    others = [
        energy for _, energy, _ in strong_lines(present, energy_range, beam_energy=beam_energy)
    ] + list(peaks)
    windows = {}
    for name, spec in lines.items():
        if spec.background is not None:
            windows[name] = spec.background
        else:
            # Partners that the window of the line itself holds are no obstacle.
            near = float(fwhm(line_energy(name), resolution)) / 1000
            far = [other for other in others if abs(other - line_energy(name)) > near]
            windows[name] = estimate_background(name, far, energy_range, resolution)
    return windows


def place_windows(
    ds: xr.Dataset, lines: Mapping[str, LineSpec], elements: Iterable[str] = ()
) -> dict[str, tuple[Window, ...]]:
    """Background windows of lines, clear of every peak of the sum spectrum.

    Only where no place is left, peaks of less than 2 % of the line's net counts are tolerated.

    Parameters
    ----------
    ds : Dataset
        With counts, or what was made of them.
    lines : mapping of str to LineSpec
    elements : iterable of str
        Others that the specimen holds.

    Returns
    -------
    dict of str to tuple of (low, high)
        In keV. Windows given by the user are left as they are; a warning names the peaks in them.

    Raises
    ------
    ParameterError
        If there is no free place for a window; the message names the nearest peaks.
    """
    resolution, span = detector_resolution(ds), energy_range(ds)
    found = find_peaks(ds[v.DIM_ENERGY].values, sum_spectrum(ds), resolution)
    beam = ds.attrs.get("beam_energy")
    elements = list(elements)
    for name, spec in lines.items():
        for low, high in spec.background or ():
            inside = [peak for peak in found if low <= peak.energy <= high]
            if inside:
                peak = inside[0]
                listed = [element_of(each) for each in lines] + elements
                whose = _nearest_line(peak.energy, listed, span, beam, resolution)
                warn(
                    f"The background window [{low:.4g}, {high:.4g}] keV of {name} holds the peak "
                    f"at {peak.energy:.2f} keV ({whose})",
                    f"net counts and at% of {element_of(name)} are too low",
                    f"leave out 'lines.{name}.background', or use --intensities fit",
                    rank=Rank.WRONG,
                )
    present = [*map(element_of, lines), *elements]
    positions = [position for _, position, _ in strong_lines(present, span, beam_energy=beam)]
    windows: dict[str, tuple[Window, ...]] = {}
    for name, spec in lines.items():
        own = [peak.net_counts for peak in found if _at(peak, line_energy(name), resolution)]
        least = _NEGLIGIBLE * max(own, default=0.0)
        strange = [
            peak for peak in found if not any(_at(peak, each, resolution) for each in positions)
        ]
        matter = [p for p in strange if p.energy > _LOWEST_PEAK and p.net_counts > least]
        place = partial(
            background_windows,
            {name: spec},
            span,
            elements=present,
            beam_energy=beam,
            resolution=resolution,
        )
        try:
            windows |= place(peaks=[peak.energy for peak in strange])
        except ParameterError:
            windows |= place(peaks=[peak.energy for peak in matter])
    return windows


def _at(peak: Peak, energy: float, resolution: float) -> bool:
    """Whether a peak is that of a line, or merged with it."""
    return abs(peak.energy - energy) < 0.5e-3 * float(fwhm(energy, resolution))


def _nearest_line(
    energy: float,
    elements: Iterable[str],
    span: Window,
    beam_energy: float | None,
    resolution: float,
) -> str:
    """Return the line of the elements that are present nearest to an energy.

    No other element names a peak: a weak line of it says nothing where its main line is missing.
    """
    reach = 0.3e-3 * float(fwhm(energy, resolution))
    near = [
        (abs(position - energy), name)
        for name, position, _ in strong_lines(elements, span, beam_energy=beam_energy)
        if abs(position - energy) < reach
    ]
    return min(near)[1].replace("_", " ") if near else "no line of the elements present"


def rounded_weights(
    energy: np.ndarray, window: Window, background: tuple[Window, ...]
) -> np.ndarray:
    """Weights as eXSpy's ``get_lines_intensity`` has them.

    Edges are rounded to channels, the upper one excluded; the background is the mean of all
    background channels, times the number of channels in the window.
    """
    weights = np.zeros(energy.size)
    start, end = _rounded(energy, window)
    weights[start:end] = 1.0
    ranges = [_rounded(energy, each) for each in background]
    channels = sum(stop - first for first, stop in ranges)
    for first, stop in ranges:
        weights[first:stop] -= (end - start) / channels
    return weights


def _rounded(energy: np.ndarray, window: Window) -> tuple[int, int]:
    width = channel_width(energy)
    # As HyperSpy rounds, halves downwards; and what exceeds a half by less than it can tell.
    start, end = (int(np.ceil((edge - energy[0]) / width - 0.5 - 1e-12)) for edge in window)
    # A window narrower than a channel is that channel.
    return max(start, 0), min(max(end, start + 1), energy.size)


def linear_weights(
    energy: np.ndarray, window: Window, background: tuple[Window, ...]
) -> np.ndarray:
    """Weights for windows cut within channels, and a straight line between two background windows.

    A channel cut by an edge counts with the share of it inside. With one background window the
    background is level.
    """
    inside = _shares(energy, window)
    span = inside.sum()
    densities = [_shares(energy, each) for each in background]
    densities = [share / share.sum() for share in densities]
    if len(densities) == 1:
        return inside - span * densities[0]
    centre = (inside @ energy) / span
    left, right = (density @ energy for density in densities)
    along = (centre - left) / (right - left)
    return inside - span * ((1 - along) * densities[0] + along * densities[1])


def _shares(energy: np.ndarray, window: Window) -> np.ndarray:
    """Share of each channel that lies inside the window."""
    width = channel_width(energy)
    lower = np.maximum(energy - width / 2, window[0])
    upper = np.minimum(energy + width / 2, window[1])
    return np.clip((upper - lower) / width, 0, 1)
