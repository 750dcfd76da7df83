"""The spectrum that a material gives: lines, bremsstrahlung, absorption, detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edxdenoise.simulation.materials import Material
from edxdenoise.xray.cross_sections import velocity_squared
from edxdenoise.xray.detector import (
    Detector,
    attenuation,
    channel_response,
    discriminator,
    efficiency,
)
from edxdenoise.xray.lines import Line, atomic_number, atomic_weight, emission

_AVOGADRO = 6.02214e23
_BARN = 1e-24
# Bremsstrahlung per electron and atom: Z^2/beta^2 chi/k with chi in barn over all angles, the
# scaled cross section of Seltzer & Berger (1986), taken as constant. A measured dacite at 20 kV
# agrees within 45 % from 1 to 8 keV. At the large angle to the beam where detectors sit a foil
# sends half of it.
_BREMSSTRAHLUNG = 8e-3
_BACKWARD = {"TEM": 0.5, "SEM": 1.0}
# The continuum is followed on this grid before the detector blurs it.
_CONTINUUM_STEP = 0.010  # keV
_SLOWING_DOWN_STEPS = 24
# X-rays of a bulk specimen come from this share of the electrons' path length in depth.
_DEPTH_PER_PATH = 0.5
# Grids and pole pieces absorb their own soft lines: on a copper grid L falls to a sixth of K.
_STRAY_DEPTH = 2e-3  # g/cm^2


@dataclass(frozen=True)
class Instrument:
    """A microscope with its detector.

    Parameters
    ----------
    kind : str
        ``"TEM"``: electrons cross a foil. ``"SEM"``: they stop in the specimen.
    beam_energy : float
        In keV.
    detector : Detector
    foil_thickness : float
        Nominal, in nm; what absorption is reckoned with in a foil.
    """

    kind: str
    beam_energy: float
    detector: Detector
    foil_thickness: float = 100.0


def material_spectra(
    materials: Sequence[Material], instrument: Instrument, energy: np.ndarray
) -> np.ndarray:
    """Expected counts per channel of each material, on one relative scale for all.

    Parameters
    ----------
    materials : sequence of Material
    instrument : Instrument
    energy : array, shape (energy,)
        Channel centres in keV.

    Returns
    -------
    array, shape (material, energy)
        In a foil per g/cm^2 of the material; in bulk per electron.
    """
    made = [_line_photons(material, instrument) for material in materials]
    line_energies = sorted({line.energy for lines in made for line in lines})
    last = min(energy[-1] + 0.5, instrument.beam_energy)
    continuum_energies = np.arange(_CONTINUUM_STEP / 2, last, _CONTINUUM_STEP)
    sources = np.concatenate([line_energies, continuum_energies])
    photons = np.zeros((len(materials), sources.size))
    for row, material, lines in zip(photons, materials, made):
        for line, number in lines.items():
            row[line_energies.index(line.energy)] += number
        row[len(line_energies) :] = _CONTINUUM_STEP * _bremsstrahlung(
            material, instrument, continuum_energies
        )
        row *= _escaping(
            material.weight_fractions(), _depth(material, instrument), instrument, sources
        )
    return detected(sources, photons, instrument.detector, energy)


def line_counts(material: Material, instrument: Instrument) -> dict[Line, float]:
    """Detected counts of every line of a material, on the scale of `material_spectra`."""
    photons = _line_photons(material, instrument)
    energies = np.array([line.energy for line in photons])
    seen = efficiency(instrument.detector, energies) * _escaping(
        material.weight_fractions(), _depth(material, instrument), instrument, energies
    )
    return {line: photons[line] * share for line, share in zip(photons, seen)}


def line_spectrum(
    intensities: Mapping[str, float], instrument: Instrument, energy: np.ndarray
) -> np.ndarray:
    """Spectrum of the lines of elements alone, as thick parts around the specimen give them.

    Parameters
    ----------
    intensities : mapping of str to float
        Photons per element, in any unit.
    instrument : Instrument
    energy : array, shape (energy,)
        Channel centres in keV.

    Returns
    -------
    array, shape (energy,)
        Sums to one.
    """
    photons = stray_photons(intensities, instrument)
    sources = np.array([line.energy for line in photons])
    spectrum = detected(sources, np.array(list(photons.values())), instrument.detector, energy)
    return spectrum / spectrum.sum()


def stray_photons(intensities: Mapping[str, float], instrument: Instrument) -> dict[Line, float]:
    """Photons of every line that leave the thick parts around the specimen.

    Parameters
    ----------
    intensities : mapping of str to float
        Photons per element, in any unit.
    instrument : Instrument
    """
    photons: dict[Line, float] = {}
    for element, intensity in intensities.items():
        lines = emission(element, instrument.beam_energy)
        sources = np.array([line.energy for line in lines])
        made = np.array(list(lines.values()))
        made *= _escaping({element: 1.0}, _STRAY_DEPTH, instrument, sources)
        photons |= dict(zip(lines, intensity * made / made.sum()))
    return photons


def detected(
    sources: np.ndarray, photons: np.ndarray, detector: Detector, energy: np.ndarray
) -> np.ndarray:
    """Return the counts that a detector makes of photons.

    Parameters
    ----------
    sources : array, shape (source,)
        Energies of the photons in keV.
    photons : array, shape (..., source)
    detector : Detector
    energy : array, shape (energy,)
        Channel centres in keV.

    Returns
    -------
    array, shape (..., energy)
        Counts.
    """
    seen = photons * efficiency(detector, sources)
    counts = seen @ channel_response(sources, energy, detector.resolution)
    return counts * discriminator(energy, detector.resolution)


def _electron_path(material: Material, instrument: Instrument) -> tuple[np.ndarray, np.ndarray]:
    """Energies (keV) of the electrons and mass (g/cm^2) crossed at each."""
    if instrument.kind == "TEM":
        return np.array([instrument.beam_energy]), np.array([1.0])
    edges = np.linspace(0.05, instrument.beam_energy, _SLOWING_DOWN_STEPS + 1)
    energies = 0.5 * (edges[1:] + edges[:-1])
    return energies, np.diff(edges) / _stopping_power(material, energies)


def _stopping_power(material: Material, energies: np.ndarray) -> np.ndarray:
    """Energy loss in keV per g/cm^2 (Joy & Luo 1989, Scanning 11, 176)."""
    total = np.zeros(energies.shape)
    for element, weight in material.weight_fractions().items():
        z = atomic_number(element)
        ionisation = (9.76 * z + 58.5 * z**-0.19) / 1000
        logarithm = np.log(1.166 * (energies + 0.85 * ionisation) / ionisation)
        total += weight * 78500 * z / (atomic_weight(element) * energies) * logarithm
    return total


def _line_photons(material: Material, instrument: Instrument) -> dict[Line, float]:
    photons: dict[Line, float] = {}
    for element, weight in material.weight_fractions().items():
        atoms = weight * _AVOGADRO * _BARN / atomic_weight(element)
        for beam_energy, path in zip(*_electron_path(material, instrument)):
            for line, cross_section in emission(element, float(beam_energy)).items():
                photons[line] = photons.get(line, 0) + atoms * path * cross_section
    return photons


def _bremsstrahlung(
    material: Material, instrument: Instrument, photon_energies: np.ndarray
) -> np.ndarray:
    """Continuum photons per keV; summed over a bulk specimen it has the shape of Kramers' law."""
    energies, paths = _electron_path(material, instrument)
    z2 = sum(
        weight * atomic_number(element) ** 2 / atomic_weight(element)
        for element, weight in material.weight_fractions().items()
    )
    crossed = paths / velocity_squared(energies)
    if instrument.kind == "TEM":
        total = np.full(photon_energies.shape, crossed[0])
    else:
        # Electrons make photons of less than their own energy only: sum from the beam's downwards.
        total = np.interp(photon_energies, energies, np.cumsum(crossed[::-1])[::-1] - crossed / 2)
    scale = _BACKWARD[instrument.kind] * _BREMSSTRAHLUNG * _AVOGADRO * _BARN * z2
    return scale * total / photon_energies


def _depth(material: Material, instrument: Instrument) -> float:
    """Mass (g/cm^2) over which X-rays start."""
    if instrument.kind == "TEM":
        return material.density * instrument.foil_thickness * 1e-7
    return float(_DEPTH_PER_PATH * _electron_path(material, instrument)[1].sum())


def _escaping(
    weights: Mapping[str, float], depth: float, instrument: Instrument, energy: np.ndarray
) -> np.ndarray:
    """Share of the photons that leave `depth` g/cm^2 when they start evenly over it."""
    cosecant = 1 / np.sin(np.radians(instrument.detector.take_off_angle))
    chi = attenuation(weights, energy) * cosecant * depth
    return -np.expm1(-chi) / chi
