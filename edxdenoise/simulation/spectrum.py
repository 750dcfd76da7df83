"""The spectrum that a material gives: lines, bremsstrahlung, absorption, detector.

Hydrogen is left out of materials: it gives no X-rays, so compositions here compare with measured
ones as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edxdenoise.xray.detector import (
    Detector,
    attenuation,
    channel_response,
    discriminator,
    efficiency,
)
from edxdenoise.xray.lines import Line, atomic_number, atomic_weight, emission, velocity_squared

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


@dataclass(frozen=True)
class Material:
    """A homogeneous material.

    Parameters
    ----------
    atoms : mapping of str to float
        Atoms per formula unit, hydrogen left out.
    density : float
        In g/cm^3.
    """

    atoms: Mapping[str, float]
    density: float

    def atomic_fractions(self) -> dict[str, float]:
        """Share of the atoms per element.

        Examples
        --------
        >>> Material({"Pb": 1, "I": 3}, 6.2).atomic_fractions()
        {'Pb': 0.25, 'I': 0.75}
        """
        total = sum(self.atoms.values())
        return {element: number / total for element, number in self.atoms.items()}

    def weight_fractions(self) -> dict[str, float]:
        """Share of the mass per element."""
        mass = {element: n * atomic_weight(element) for element, n in self.atoms.items()}
        total = sum(mass.values())
        return {element: value / total for element, value in mass.items()}


MATERIALS: dict[str, Material] = {
    # Perovskite solar cell. The control film has lost some methylammonium iodide in its annealing.
    "MAPbI3 control": Material({"Pb": 1.0, "I": 2.93, "C": 0.92, "N": 0.89}, 4.1),
    "MAPbI3 treated": Material({"Pb": 1.0, "I": 3.0, "C": 1.08, "N": 1.06}, 4.1),
    "MAPbI3 N-poor": Material({"Pb": 1.0, "I": 2.85, "C": 0.60, "N": 0.30}, 4.2),
    "MAPbI3 damaged": Material({"Pb": 1.0, "I": 1.6, "C": 4.0, "N": 0.2}, 2.8),
    "PbI2": Material({"Pb": 1.0, "I": 2.0}, 6.16),
    "PCBM": Material({"C": 72.0, "O": 2.0}, 1.5),
    "ITO": Material({"In": 1.82, "Sn": 0.18, "O": 3.0}, 7.1),
    "Cu": Material({"Cu": 1.0}, 8.96),
    "glass": Material({"Si": 0.72, "Na": 0.26, "Ca": 0.10, "Mg": 0.08, "O": 1.76}, 2.5),
    "Pt cap": Material({"Pt": 0.40, "C": 0.52, "Ga": 0.08}, 9.0),
    # Supported metal particles.
    "carbon film": Material({"C": 1.0}, 2.0),
    "Au": Material({"Au": 1.0}, 19.3),
    "AuAg": Material({"Au": 0.5, "Ag": 0.5}, 15.0),
    "Ag": Material({"Ag": 1.0}, 10.5),
    "Pd": Material({"Pd": 1.0}, 12.0),
    "CeO2": Material({"Ce": 1.0, "O": 2.0}, 7.2),
    # Core-shell particles.
    "FePt": Material({"Fe": 1.0, "Pt": 1.0}, 15.0),
    "Fe3O4": Material({"Fe": 3.0, "O": 4.0}, 5.2),
    # Semiconductor layers.
    "Si": Material({"Si": 1.0}, 2.33),
    "SiGe": Material({"Si": 0.6, "Ge": 0.4}, 3.9),
    "Si doped with As": Material({"Si": 0.96, "As": 0.04}, 2.45),
    "SiO2": Material({"Si": 1.0, "O": 2.0}, 2.2),
    "HfO2": Material({"Hf": 1.0, "O": 2.0}, 9.7),
    "TiN": Material({"Ti": 1.0, "N": 1.0}, 5.2),
    "W": Material({"W": 1.0}, 19.3),
    # A dacite: idealised minerals, feldspar between its end members.
    "quartz": Material({"Si": 1.0, "O": 2.0}, 2.65),
    "albite": Material({"Na": 1.0, "Al": 1.0, "Si": 3.0, "O": 8.0}, 2.62),
    "anorthite": Material({"Ca": 1.0, "Al": 2.0, "Si": 2.0, "O": 8.0}, 2.73),
    "sanidine": Material({"K": 0.8, "Na": 0.2, "Al": 1.0, "Si": 3.0, "O": 8.0}, 2.56),
    "hornblende": Material(
        {"Ca": 1.8, "Na": 0.4, "Mg": 3.2, "Fe": 1.5, "Al": 1.7, "Ti": 0.2, "Si": 6.6, "O": 24.0},
        3.2,
    ),
    "magnetite": Material({"Fe": 2.7, "Ti": 0.25, "Al": 0.05, "O": 4.0}, 5.1),
    "ilmenite": Material({"Fe": 0.9, "Ti": 1.0, "Mn": 0.1, "O": 3.0}, 4.7),
    "apatite": Material({"Ca": 5.0, "P": 3.0, "O": 12.0, "F": 0.7, "Cl": 0.3}, 3.2),
    "zircon": Material({"Zr": 1.0, "Si": 1.0, "O": 4.0}, 4.65),
    "glass (dacite)": Material(
        {"Si": 6.3, "Al": 1.25, "Na": 0.55, "K": 0.45, "Ca": 0.15, "Fe": 0.1, "O": 16.0}, 2.4
    ),
}
