"""The detector: energy resolution, efficiency, and what a line becomes in its channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xraylib
from scipy.special import erf, erfc, erfcx

from edxdenoise.cube import Resolution
from edxdenoise.errors import ParameterError

MN_KA_ENERGY = 5.8987  # keV, where detectors are specified
SI_KA_ENERGY = 1.7398  # keV, which escapes from a silicon detector
# Variance of the number of electron-hole pairs in silicon, as squared FWHM in eV^2 per keV.
_FANO = 2500.0
# Squared FWHM in eV^2 that is left at zero energy, whatever the resolution claimed: just what a
# detector of 122 eV has. Without it the square turns negative below 122 eV.
_FWHM_FLOOR = 122.0**2 - _FANO * MN_KA_ENERGY
FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))

_SILICON_DENSITY = 2.33
_ALUMINIUM_DENSITY = 2.70
_ACTIVE_SILICON = 0.045 * _SILICON_DENSITY
# 300 nm of polyimide (C22H10N2O5, 1.42 g/cm^3) on a silicon grid that is 77 % open.
_POLYMER = {"C": 0.691, "H": 0.026, "N": 0.073, "O": 0.209}
_POLYMER_MASS = 300e-7 * 1.42
_POLYMER_OPEN = 0.77
_THRESHOLD = 0.12  # keV, of the pulse discriminator
# Mean loss of charge in the tail, as a share of the photon's energy: that of O K alpha in a
# measured dacite, whose tail reaches from 0.35 to 0.47 keV.
_TAIL_LENGTH = 0.2
# xraylib has no attenuation below; the discriminator hides what lies there.
_LOWEST_ENERGY = 0.1001


@dataclass(frozen=True)
class Detector:
    """An energy-dispersive silicon drift detector.

    Parameters
    ----------
    resolution : float
        FWHM at Mn K alpha in eV.
    take_off_angle : float
        In degrees.
    polymer_window : bool
        Whether a polymer window stands before it; else it is windowless.
    contact, dead_silicon : float
        Thickness in nm of the aluminium contact, and of the silicon below it in which X-rays are
        lost.
    """

    resolution: float = 130.0
    take_off_angle: float = 18.0
    polymer_window: bool = False
    contact: float = 15.0
    dead_silicon: float = 30.0


def fwhm(energy: np.ndarray | float, resolution: float = 130.0) -> np.ndarray:
    """Full width at half maximum in eV of a line at `energy` keV.

    sqrt(2.5 eV (E - E_Mn) + R^2) (Fiori & Newbury 1978); for R below 122 eV, where that turns
    imaginary at low energy, the slope is lowered so that R at Mn K alpha is kept. A measured
    `Resolution` has its own slope.

    Parameters
    ----------
    energy : array or float
        In keV.
    resolution : float
        R: FWHM at Mn K alpha in eV.

    Examples
    --------
    >>> np.round(fwhm(np.array([0.2774, 5.8987])), 1)
    array([ 53.4, 130. ])
    """
    if not resolution > np.sqrt(_FWHM_FLOOR):
        raise ParameterError(
            f"a resolution of {float(resolution)} eV is impossible; a silicon detector has 121 to "
            "160 eV"
        )
    value = float(resolution)
    slope = min(_FANO, (value**2 - _FWHM_FLOOR) / MN_KA_ENERGY)
    if isinstance(resolution, Resolution) and resolution.slope is not None:
        slope = 1000 * resolution.slope
    return np.sqrt(slope * (np.asarray(energy, float) - MN_KA_ENERGY) + value**2)


def channel_response(
    line_energies: np.ndarray, energy: np.ndarray, resolution: float = 130.0
) -> np.ndarray:
    """Share of each line that falls into each channel.

    The line is a Gaussian, integrated over the channel. Of photons absorbed within the tail depth
    of a `Resolution`, part of the charge is lost: their peak is the Gaussian convolved with an
    exponential towards low energies (F. Scholze, M. Procop, X-Ray Spectrom. 38 (2009) 312).

    Parameters
    ----------
    line_energies : array, shape (line,)
        In keV.
    energy : array, shape (energy,)
        Centres of evenly spaced channels in keV.
    resolution : float
        FWHM at Mn K alpha in eV.

    Returns
    -------
    array, shape (line, energy)
        Rows sum to one where the line lies well inside the channels.
    """
    width = energy[1] - energy[0]
    edges = np.append(energy - width / 2, energy[-1] + width / 2)
    return binned_response(line_energies, edges, resolution)


def binned_response(
    line_energies: np.ndarray, edges: np.ndarray, resolution: float = 130.0
) -> np.ndarray:
    """Share of each line in bins between `edges` (keV), shape (line, bin): `channel_response`."""
    lines = np.asarray(line_energies, float)[:, None]
    sigma = fwhm(lines, resolution) / 1000 / FWHM_PER_SIGMA
    distance = edges - lines
    response = 0.5 * np.diff(erf(distance / (np.sqrt(2) * sigma)), axis=1)
    depth = resolution.tail_depth if isinstance(resolution, Resolution) else 0.0
    if not depth or not lines.size:
        return response
    length = _TAIL_LENGTH * lines
    # Where the exponential would overflow it is the other form that does not.
    u = (distance / sigma + sigma / length) / np.sqrt(2)
    below = np.exp(np.minimum(distance / length + 0.5 * (sigma / length) ** 2, 50)) * erfc(u) / 2
    above = np.exp(-0.5 * (distance / sigma) ** 2) * erfcx(np.maximum(u, 0)) / 2
    tail = response + np.diff(np.where(u > 0, above, below), axis=1)
    absorbed = attenuation({"Si": 1.0}, lines[:, 0]) * _SILICON_DENSITY * 1e-7 * depth
    share = -np.expm1(-absorbed)[:, None]
    return (1 - share) * response + share * tail


def attenuation(composition: Mapping[str, float], energy: np.ndarray) -> np.ndarray:
    """Mass attenuation coefficient in cm^2/g of weight fractions at `energy` keV."""
    energies = np.maximum(np.atleast_1d(energy), _LOWEST_ENERGY)
    total = np.zeros(energies.shape)
    for element, weight in composition.items():
        z = xraylib.SymbolToAtomicNumber(element)
        total += weight * np.array([xraylib.CS_Total(z, float(e)) for e in energies])
    return total


def efficiency(detector: Detector, energy: np.ndarray) -> np.ndarray:
    """Share of the photons of `energy` keV that reach and stop in the active silicon."""
    silicon = attenuation({"Si": 1.0}, energy)
    crossed = 1e-7 * detector.dead_silicon * _SILICON_DENSITY * silicon
    crossed += 1e-7 * detector.contact * _ALUMINIUM_DENSITY * attenuation({"Al": 1.0}, energy)
    share = np.exp(-crossed)
    if detector.polymer_window:
        share *= _POLYMER_OPEN * np.exp(-_POLYMER_MASS * attenuation(_POLYMER, energy))
    return share * -np.expm1(-_ACTIVE_SILICON * silicon)


def escape_fraction(energy: np.ndarray) -> np.ndarray:
    """Share of the photons of `energy` keV whose silicon K alpha photon leaves the detector.

    Normal incidence on thick silicon (S. J. B. Reed and N. G. Ware, J. Phys. E 5 (1972) 582); 0
    below the silicon K edge at 1.839 keV.
    """
    energy = np.atleast_1d(np.asarray(energy, float))
    ratio = attenuation({"Si": 1.0}, energy) / attenuation({"Si": 1.0}, np.array([SI_KA_ENERGY]))
    # Half go the right way; K share of the absorption times fluorescence yield, K alpha.
    share = 0.5 * 0.92 * 0.047 * (1 - np.log1p(ratio) / ratio)
    return np.where(energy > 1.839, share, 0.0)


def discriminator(energy: np.ndarray, resolution: float) -> np.ndarray:
    """Share of the pulses in channels at `energy` keV that pass the low-level threshold."""
    sigma = float(fwhm(_THRESHOLD, resolution)) / 1000 / FWHM_PER_SIGMA
    return 0.5 * (1 + erf((np.asarray(energy) - _THRESHOLD) / (np.sqrt(2) * sigma)))
