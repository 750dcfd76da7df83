"""Peaks of a spectrum and the lines they may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.ndimage import uniform_filter1d
from scipy.signal import find_peaks as local_maxima

from edxdenoise.errors import ParameterError
from edxdenoise.schema import DIM_ENERGY
from edxdenoise.xray import emission, fwhm

LOWEST_PEAK = 0.1  # keV; below lies what the electronics make
# A net height must exceed its counting error, or the usual height of a component's noise, by this.
_SIGNIFICANT = 5.0
_GREEK = {"a": "α", "b": "β", "g": "γ"}
# A line farther from a peak than this share of its width is not named for it; of those nearer, one
# with less than this share of the best one's likelihood is left out.
_NAME_DISTANCE = 0.5
_NAME_SHARE = 0.25
# Scatter of the channels of a peak over its net height: .3 for a Gaussian, over 1 for a spike.
_EVEN = 0.6
# Share of the highest peak of a component below which one is not seen in its picture.
_VISIBLE = 0.02
# Share of the strongest line of its family below which a line is no name for a peak.
_WEAKEST_LINE = 0.02
_DEFAULT_RESOLUTION = 130.0
_PLAUSIBLE_RESOLUTION = (100.0, 300.0)


@dataclass(frozen=True)
class NamedLine:
    """A line that a peak may be.

    Parameters
    ----------
    name : str
        Element and series, as printed: ``"Cu Kα"``.
    energy : float
        In keV.
    strength : float
        Photons per atom and electron, as a cross section in barn.
    """

    name: str
    energy: float
    strength: float


@dataclass(frozen=True)
class Peak:
    """A peak of a spectrum.

    Parameters
    ----------
    channel : int
        Where it is highest.
    energy : float
        In keV: of its line, or of the channel where it has no name.
    name : str
        Lines it may be, ``"Pb Mα / S Kα"``; empty where none fits.
    """

    channel: int
    energy: float
    name: str

    @property
    def label(self) -> str:
        """Name and energy, ``"Cu Kα 8.05 keV"``."""
        return f"{self.name} {self.energy:.2f} keV".lstrip()


def resolution_of(ds: xr.Dataset) -> float:
    """FWHM at Mn K alpha in eV; 130 where the file says nothing that can be true."""
    low, high = _PLAUSIBLE_RESOLUTION
    resolution = float(ds.attrs.get("detector_resolution", _DEFAULT_RESOLUTION))
    return resolution if low < resolution < high else _DEFAULT_RESOLUTION


def lines_of(ds: xr.Dataset) -> list[NamedLine]:
    """Lines of the elements that the file names, within its energy axis."""
    energy = ds[DIM_ENERGY].values
    beam = max(float(ds.attrs.get("beam_energy", 0.0)), float(energy[-1]))
    named = []
    for element in ds.attrs.get("elements", ()):
        try:
            photons = emission(str(element), beam)
        except ParameterError:
            # Vendors' lists hold names of compounds and the like.
            continue
        strongest: dict[str, float] = {}
        for line, strength in photons.items():
            strongest[line.family] = max(strongest.get(line.family, 0.0), strength)
        named += [
            NamedLine(name, line.energy, strength)
            for line, strength in photons.items()
            if (name := _printed(line.name)) is not None
            and energy[0] <= line.energy <= energy[-1]
            and strength > _WEAKEST_LINE * strongest[line.family]
        ]
    return named


def _printed(name: str) -> str | None:
    """Element and series of a line; None for those too weak to be looked for.

    Examples
    --------
    >>> _printed("Cu_Ka1"), _printed("Pb_Lb2,15"), _printed("Fe_Ll")
    ('Cu Kα', 'Pb Lβ', None)
    """
    element, _, siegbahn = name.partition("_")
    greek = _GREEK.get(siegbahn[1])
    return f"{element} {siegbahn[0]}{greek}" if greek else None


def top_hat(energy: np.ndarray, spectra: np.ndarray, resolution: float) -> np.ndarray:
    """Mean height of each channel's surroundings, 1 FWHM wide, above those on either side.

    The zero-area rectangular filter of P. J. Statham, Anal. Chem. 49 (1977) 2149: a straight
    background gives 0 and a peak its net height. It is 0 where the filter does not fit.

    Parameters
    ----------
    energy : array, shape (energy,)
        Evenly spaced, in keV.
    spectra : array, shape (..., energy)
    resolution : float
        FWHM at Mn K alpha in eV.
    """
    half, wing, fits = _filter_sizes(energy, resolution)
    centre = np.flatnonzero(fits)
    half, wing = half[fits], wing[fits]
    sums = np.concatenate(
        [np.zeros((*spectra.shape[:-1], 1)), np.cumsum(spectra, axis=-1, dtype=np.float64)], -1
    )

    def between(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        return (sums[..., stop] - sums[..., start]) / (stop - start)

    low, high = centre - half, centre + half + 1
    result = np.zeros(spectra.shape)
    sides = between(low - wing, low) + between(high, high + wing)
    result[..., centre] = between(low, high) - sides / 2
    return result


def _filter_sizes(
    energy: np.ndarray, resolution: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Channels either side of the centre, channels of a wing, and where all of them exist."""
    width = energy[1] - energy[0]
    channels = fwhm(np.maximum(energy, LOWEST_PEAK), resolution) / 1000 / width
    half = np.maximum(np.rint((channels - 1) / 2).astype(int), 0)
    wing = np.maximum(np.rint(channels / 2).astype(int), 1)
    index = np.arange(len(energy))
    fits = (index - half - wing >= 0) & (index + half + wing < len(energy))
    return half, wing, fits


def sum_peaks(
    energy: np.ndarray, spectrum: np.ndarray, lines: Sequence[NamedLine], resolution: float
) -> list[Peak]:
    """Peaks of a spectrum of counts that stand out of counting noise, most net counts first."""
    net = top_hat(energy, spectrum, resolution)
    half, wing, _ = _filter_sizes(energy, resolution)
    # A window of n channels with y counts each has a mean with variance y / n.
    error = np.sqrt(np.maximum(spectrum, 1) * (1 / (2 * half + 1) + 0.5 / wing))
    counts = net * fwhm(np.maximum(energy, LOWEST_PEAK), resolution)
    return _peaks(energy, counts, net > _SIGNIFICANT * error, lines, resolution)


def loading_peaks(
    energy: np.ndarray,
    loading: np.ndarray,
    weight: np.ndarray,
    lines: Sequence[NamedLine],
    resolution: float,
) -> list[Peak]:
    """Peaks, upwards and downwards, of a component's spectrum, largest in counts first.

    Parameters
    ----------
    energy : array, shape (energy,)
        In keV.
    loading : array, shape (energy,)
        In the weighted space, where noise is the same in all channels.
    weight : array, shape (energy,)
        h, by which it becomes counts.
    lines : sequence of NamedLine
    resolution : float
        FWHM at Mn K alpha in eV.
    """
    net = top_hat(energy, loading, resolution)
    height = np.abs(net)
    noise = np.median(height[height > 0]) / 0.6745 if height.any() else 0.0
    significant = (height > _SIGNIFICANT * noise) & _broad(energy, loading, net, resolution)
    significant &= height * weight > _VISIBLE * np.abs(loading * weight).max()
    return _peaks(energy, height * weight, significant, lines, resolution)


def _broad(
    energy: np.ndarray, spectrum: np.ndarray, net: np.ndarray, resolution: float
) -> np.ndarray:
    """Where all channels of a peak share in it.

    Not so where single channels stick out up or down, as in noise, and beside a peak, where the
    filter swings to the other side.
    """
    half, _, _ = _filter_sizes(energy, resolution)
    broad = np.zeros(len(energy), bool)
    for size in np.unique(half):
        mean = uniform_filter1d(spectrum, 2 * size + 1)
        variance = uniform_filter1d(spectrum**2, 2 * size + 1) - mean**2
        even = variance < (_EVEN * net) ** 2
        broad |= (half == size) & even & (mean * net > 0)
    return broad


def _peaks(
    energy: np.ndarray,
    size: np.ndarray,
    significant: np.ndarray,
    lines: Sequence[NamedLine],
    resolution: float,
) -> list[Peak]:
    """Local maxima of `size` at least 1 FWHM apart, largest first."""
    where, _ = local_maxima(size)
    where = where[significant[where] & (energy[where] > LOWEST_PEAK)]
    found: list[Peak] = []
    for channel in where[np.argsort(-size[where], kind="stable")]:
        width = float(fwhm(energy[channel], resolution)) / 1000
        if all(abs(energy[channel] - energy[peak.channel]) > width for peak in found):
            found.append(_named(int(channel), float(energy[channel]), width, lines))
    return found


def _named(channel: int, energy: float, width: float, lines: Sequence[NamedLine]) -> Peak:
    near = [line for line in lines if abs(line.energy - energy) < _NAME_DISTANCE * width]
    if not near:
        return Peak(channel, energy, "")
    # A peak's place is known to about a third of its width where it is weak or has a shoulder.
    likelihood = {
        line: line.strength * np.exp(-0.5 * ((line.energy - energy) / (0.3 * width)) ** 2)
        for line in near
    }
    ranked = sorted(near, key=lambda line: -likelihood[line])
    best = likelihood[ranked[0]]
    names = [line.name for line in ranked if likelihood[line] > _NAME_SHARE * best]
    elements = {name.split()[0]: name for name in reversed(names)}
    return Peak(channel, ranked[0].energy, " / ".join(list(elements.values())[::-1][:2]))
