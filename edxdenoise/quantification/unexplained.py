"""Peaks of the sum spectrum that no listed element explains: a fit blames others for them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import xarray as xr

from edxdenoise.cube import detector_resolution, energy_range, sum_spectrum
from edxdenoise.errors import Rank, warn
from edxdenoise.schema import DIM_ENERGY
from edxdenoise.xray import SYMBOLS, fwhm
from edxdenoise.xray.families import Window, element_of, strong_lines

# Net counts in standard deviations, and as a share of the largest peak's: escape and sum peaks
# and the errors of peak shapes stay below.
_SIGNIFICANT, _LEAST_SHARE = 8.0, 0.02
# In FWHM: half the window, inner and outer end of the windows for the background.
_HALF, _INNER, _OUTER = 0.5, 1.0, 1.6
# Lines with this share of their element's strongest explain any peak, others one of which they can
# give this part.
_STRONG, _ENOUGH = 0.3, 0.2
_LOWEST = 0.2  # keV; below it zero peak and absorption make bumps of their own
_SUGGESTIONS = 3


@dataclass(frozen=True)
class UnexplainedPeak:
    """A peak without a line.

    Parameters
    ----------
    energy : float
        In keV.
    net : float
        Counts above the background beside it.
    candidates : tuple of str
        Lines that lie there, nearest first.
    """

    energy: float
    net: float
    candidates: tuple[str, ...]


def unexplained_peaks(ds: xr.Dataset, elements: Iterable[str]) -> list[UnexplainedPeak]:
    """Peaks of the sum spectrum that are farther than one FWHM from every line of `elements`.

    A peak stands out by 8 standard deviations of the counts and has 2 % of the net counts of the
    largest.

    Parameters
    ----------
    ds : Dataset
        With counts or what was made of them.
    elements : iterable of str
        Symbols of what the specimen is said to hold.
    """
    spectrum, energy = sum_spectrum(ds).astype(float), ds[DIM_ENERGY].values
    width = fwhm(np.maximum(energy, _LOWEST), detector_resolution(ds))
    width = width / 1000
    net, stddev = _net_counts(spectrum, energy, width)
    beam = ds.attrs.get("beam_energy")
    listed = strong_lines(elements, energy_range(ds), beam_energy=beam)
    # Counts of an element's strongest line, as each of its strong ones says.
    seen: dict[str, float] = {}
    for name, position, share in listed:
        if share >= _STRONG:
            counts = float(np.interp(position, energy, net)) / share
            seen[element_of(name)] = max(seen.get(element_of(name), 0.0), counts)
    explained = np.zeros(energy.size, bool)
    for name, position, share in listed:
        near = np.abs(energy - position) < width
        # A weak line explains no more than the strong ones allow.
        expected = share * seen[element_of(name)]
        explained |= near & ((share >= _STRONG) | (expected > _ENOUGH * net))
    least = np.maximum(_SIGNIFICANT * stddev, _LEAST_SHARE * net.max(initial=0))
    free = np.where(explained | (energy < _LOWEST), -np.inf, net)
    found: list[UnexplainedPeak] = []
    suggested: list[str] = []
    while (free > least).any():
        top = int(np.argmax(np.where(free > least, free, -np.inf)))
        near = np.abs(energy - energy[top]) < _HALF * width[top]
        # The flank of a peak that is explained is no peak.
        if net[top] >= net[near].max():
            weights = np.maximum(net[near], 0)
            centre = float(np.average(energy[near], weights=weights))
            reach = 0.4 * width[top]
            candidates = lines_at(centre, reach, energy_range(ds), beam)
            # The element suggested for a larger peak, as Cu Kb follows Cu Ka, needs no other.
            others = strong_lines(suggested, energy_range(ds), beam_energy=beam)
            if not any(abs(position - centre) < reach for _, position, _ in others):
                found.append(UnexplainedPeak(centre, float(net[top]), candidates))
                suggested += [element_of(name) for name in candidates[:1]]
        free[np.abs(energy - energy[top]) < width[top]] = -np.inf
    return sorted(found, key=lambda peak: peak.energy)


def check_explained(ds: xr.Dataset, elements: Iterable[str]) -> None:
    """Warn of peaks that the listed elements do not explain."""
    elements = list(elements)
    peaks = unexplained_peaks(ds, elements)
    if not peaks:
        return
    words = [f"{p.energy:.2f} keV ({' or '.join(p.candidates) or 'no line'})" for p in peaks]
    warn(
        f"No listed element explains the peak{'s' * (len(peaks) > 1)} at {', '.join(words)}",
        "its counts may be attributed to background or to lines nearby",
        "add the elements that are present with --elements",
        rank=Rank.WRONG,
    )


def _net_counts(
    spectrum: np.ndarray, energy: np.ndarray, width: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Counts around every channel above the windows at both sides, and their stddev."""
    sums = np.concatenate([[0.0], np.cumsum(spectrum)])

    def between(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first, last = np.searchsorted(energy, low), np.searchsorted(energy, high)
        return sums[last] - sums[first], (last - first).astype(float)

    peak, channels = between(energy - _HALF * width, energy + _HALF * width)
    below, below_size = between(energy - _OUTER * width, energy - _INNER * width)
    above, above_size = between(energy + _INNER * width, energy + _OUTER * width)
    usable = (below_size > 0) & (above_size > 0)
    a, b = np.maximum(below_size, 1), np.maximum(above_size, 1)
    net = peak - channels * (below / a + above / b) / 2
    variance = peak + (channels / 2) ** 2 * (below / a**2 + above / b**2)
    return np.where(usable, net, 0.0), np.sqrt(np.maximum(variance, 1))


@lru_cache(maxsize=None)
def _all_lines(limits: Window, beam_energy: float | None) -> list[tuple[str, float, float]]:
    return strong_lines(SYMBOLS, limits, beam_energy=beam_energy)


def lines_at(
    energy: float, reach: float, limits: Window, beam_energy: float | None
) -> tuple[str, ...]:
    """Strongest lines of any element within `reach` keV of an energy, nearest first."""
    near = sorted(
        (abs(position - energy), name)
        for name, position, _ in _all_lines(limits, beam_energy)
        if name.endswith("a1") and abs(position - energy) < reach
    )
    return tuple(dict.fromkeys(name.rstrip("0123456789") for _, name in near))[:_SUGGESTIONS]
