"""The lines of the elements: families with fixed ratios, those that matter, what overlaps what.

`element_spectrum` shows all lines of one as a detector does, without background.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from edxdenoise.errors import ParameterError
from edxdenoise.xray.detector import Detector, channel_response, efficiency, fwhm
from edxdenoise.xray.lines import SYMBOLS, Line, counted_lines, emission, line_energy

# Below, in keV, spectra hold the detector's zero peak.
LOWEST_ENERGY = 0.1

# Lines weaker than this share of their element's strongest are neither listed nor kept clear of.
_LEAST_SHARE = 0.02

# Share of the counts of the strongest alpha line that one of an inner shell must have.
_INNER_SHARE = 1 / 3

Window = tuple[float, float]


@dataclass(frozen=True)
class Family:
    """The lines that one element emits from one shell, whose ratios are fixed by nature.

    Parameters
    ----------
    name : str
        Such as ``"Pb_La"``: the line that counts are given of.
    element : str
        Symbol.
    energies, weights : tuple of float
        In keV, and relative to the line named with its unresolved partners.
    photons : float
        Of the line named with its partners that a windowless detector counts, per atom and
        electron.
    """

    name: str
    element: str
    energies: tuple[float, ...]
    weights: tuple[float, ...]
    photons: float = 1.0


def element_of(name: str) -> str:
    """Symbol of the element a line belongs to.

    Examples
    --------
    >>> element_of("Pb_La")
    'Pb'
    """
    return name.partition("_")[0]


def family_lines(element: str, beam_energy: float) -> dict[str, list[tuple[Line, float]]]:
    """Lines of an element by shell, each with photons per atom and electron, strongest first."""
    shells: dict[str, list[tuple[Line, float]]] = {}
    for line, photons in emission(element, beam_energy).items():
        shells.setdefault(line.family, []).append((line, photons))
    for lines in shells.values():
        lines.sort(key=lambda pair: -pair[1])
    return shells


def families(
    elements: Iterable[str],
    energy_range: Window,
    *,
    beam_energy: float | None = None,
    resolution: float = 130.0,
    names: Sequence[str] = (),
) -> list[Family]:
    """Every family of `elements` with a line inside the range, those of `names` first.

    Weights are photons times the efficiency of a windowless silicon detector: a tenth of what
    Pb Lb would have beside Pb La passes through it. Families that give less than a fiftieth of
    what the strongest of their element does are left out, unless named: a fit would rather take
    noise and the errors of the model for them.

    Parameters
    ----------
    elements : iterable of str
        Symbols.
    energy_range : (low, high)
        In keV.
    beam_energy : float, optional
        In keV; 200 by default. It sets which lines are excited and the weights between subshells.
    resolution : float
        FWHM at Mn K alpha in eV, for which lines count with the one named.
    names : sequence of str
        Lines to name families after.

    Raises
    ------
    ParameterError
        If a line of `names` is in no family: outside the range, or not excited.
    """
    beam = DEFAULT_BEAM_ENERGY if beam_energy is None else beam_energy
    low, high = max(energy_range[0], LOWEST_ENERGY), energy_range[1]
    found: dict[str, Family] = {}
    for element in dict.fromkeys(elements):
        shells = [
            [
                (line, p * window_free_efficiency(line.energy))
                for line, p in lines
                if low <= line.energy <= high
            ]
            for lines in family_lines(element, beam).values()
        ]
        strongest = max((p for lines in shells for _, p in lines), default=0.0)
        for lines in shells:
            members = {line.name for line, _ in lines}
            name = next((n for n in names if n in members or f"{n}1" in members), None)
            if name is None and max((p for _, p in lines), default=0.0) <= _LEAST_SHARE * strongest:
                continue
            reference = max(lines, key=lambda pair: pair[1])[0]
            counted = counted_lines(name or _group_name(reference.name), resolution)
            if name is None and reference not in counted:
                counted = counted_lines(reference.name, resolution)
            name = name or _group_name(reference.name)
            scale = sum(p for line, p in lines if line in counted)
            kept = [(line, p) for line, p in lines if p > 1e-3 * scale]
            family = Family(
                name,
                element,
                tuple(line.energy for line, _ in kept),
                tuple(p / scale for _, p in kept),
                scale,
            )
            found[family.name] = family
    for name in names:
        if name not in found:
            raise ParameterError(
                f"line '{name}' at {line_energy(name):.4g} keV cannot be fitted: it must lie "
                f"within {low:.4g} to {high:.4g} keV and be excited by a beam of {beam:.4g} keV"
            )
    others = [family for name, family in found.items() if name not in names]
    return [found[name] for name in names] + others


@lru_cache(maxsize=None)
def window_free_efficiency(energy: float) -> float:
    """Efficiency of a windowless detector; what window there is, few files say."""
    return float(efficiency(Detector(), np.array([energy]))[0])


def _group_name(name: str) -> str:
    """``Pb_La1`` as people call it with its partners, ``Pb_La``."""
    return name.rstrip("0123456789,") if name[-1].isdigit() else name


def main_line(
    element: str, energy_range: Window, *, beam_energy: float | None = None
) -> str | None:
    """Choose the alpha line that an element is best quantified by.

    It is that of the innermost shell that gives a third of the counts of the strongest one: inner
    lines are absorbed less, overlap less and have better known k-factors.

    Parameters
    ----------
    element : str
        Symbol.
    energy_range : (low, high)
        Of the spectra, in keV.
    beam_energy : float, optional
        In keV; 200 by default.

    Returns
    -------
    str or None
        Such as ``"Pb_La"``; None where no line is within the range.

    Examples
    --------
    >>> [main_line(element, (0.1, 20)) for element in ("O", "Fe", "Sr", "In", "Pb")]
    ['O_Ka', 'Fe_Ka', 'Sr_Ka', 'In_La', 'Pb_La']
    """
    beam = DEFAULT_BEAM_ENERGY if beam_energy is None else beam_energy
    low, high = max(energy_range[0], LOWEST_ENERGY), energy_range[1]
    photons = emission(element, beam)
    counts: dict[str, float] = {}
    for shell in "KLM":
        counted = [line for line in photons if line.name in _alpha_names(element, shell)]
        if counted and all(low <= line.energy <= high for line in counted):
            name = f"{element}_{shell}a"
            counts[name] = sum(
                photons[line] * window_free_efficiency(line.energy) for line in counted
            )
    enough = _INNER_SHARE * max(counts.values(), default=0.0)
    return next((name for name, number in counts.items() if number >= enough > 0), None)


def _alpha_names(element: str, shell: str) -> tuple[str, ...]:
    return tuple(f"{element}_{shell}a{number}" for number in ("", 1, 2))


def strong_lines(
    elements: Iterable[str], energy_range: Window, *, beam_energy: float | None = None
) -> list[tuple[str, float, float]]:
    """Name, energy and share of its element's strongest of every line that matters, by energy."""
    beam = DEFAULT_BEAM_ENERGY if beam_energy is None else beam_energy
    low, high = max(energy_range[0], LOWEST_ENERGY), energy_range[1]
    listed = []
    for element in dict.fromkeys(elements):
        inside = [
            (line, photons)
            for line, photons in emission(element, beam).items()
            if low <= line.energy <= high
        ]
        strongest = max((photons for _, photons in inside), default=0.0)
        listed += [
            (line.name, line.energy, photons / strongest)
            for line, photons in inside
            if photons >= _LEAST_SHARE * strongest
        ]
    return sorted(listed, key=lambda entry: entry[1])


def list_lines(
    elements: Iterable[str],
    energy_range: Window,
    *,
    beam_energy: float | None = None,
    resolution: float = 130.0,
) -> list[dict[str, Any]]:
    """Every line of `elements` that matters, with its width and what overlaps it, by energy.

    Parameters
    ----------
    elements : iterable of str
        Symbols.
    energy_range : (low, high)
        In keV.
    beam_energy, resolution : float
        In keV; FWHM at Mn K alpha in eV.

    Returns
    -------
    list of dict
        ``line``, ``energy`` (keV), ``fwhm`` (eV), ``share`` of the element's strongest,
        ``overlaps``: lines of other elements within one FWHM, and ``hardly_excited``: whether it
        lies above half the beam energy.
    """
    beam = DEFAULT_BEAM_ENERGY if beam_energy is None else beam_energy
    listed = strong_lines(elements, energy_range, beam_energy=beam)
    found: list[dict[str, Any]] = []
    for name, energy, share in listed:
        width = float(fwhm(energy, resolution))
        overlaps = [
            other
            for other, position, _ in listed
            if element_of(other) != element_of(name) and 1000 * abs(position - energy) < width
        ]
        found.append(
            {
                "line": name,
                "energy": energy,
                "fwhm": width,
                "share": share,
                "overlaps": overlaps,
                "hardly_excited": energy > beam / 2,
            }
        )
    return found


def candidate_lines(
    energy: float, reach: float, energy_range: Window, *, beam_energy: float | None = None
) -> list[dict[str, Any]]:
    """Lines of any element near an energy, nearest first.

    Parameters
    ----------
    energy, reach : float
        In keV.
    energy_range : (low, high)
        In keV: lines outside do not count as an element's strongest.
    beam_energy : float, optional
        In keV; 200 by default.

    Returns
    -------
    list of dict
        ``line``, its ``energy`` (keV) and ``distance`` (eV), ``share`` of the element's strongest.
        Unresolved partners, such as K alpha 1 and 2, are one line.
    """
    found: dict[str, dict[str, Any]] = {}
    near = sorted(
        (abs(position - energy), name, position, share)
        for name, position, share in _all_lines(energy_range, beam_energy)
        if abs(position - energy) <= reach
    )
    for _, name, position, share in near:
        name = _group_name(name)
        entry = found.setdefault(
            name,
            {
                "line": name,
                "energy": position,
                "distance": 1000 * (position - energy),
                "share": share,
            },
        )
        entry["share"] = max(entry["share"], share)
    return list(found.values())


@lru_cache(maxsize=None)
def _all_lines(limits: Window, beam_energy: float | None) -> list[tuple[str, float, float]]:
    return strong_lines(SYMBOLS, limits, beam_energy=beam_energy)


DEFAULT_BEAM_ENERGY = 200.0


def element_spectrum(
    element: str,
    energy: np.ndarray,
    *,
    beam_energy: float | None = None,
    resolution: float = 130.0,
) -> np.ndarray:
    """Lines of an element in the ratios a thin specimen and a windowless detector give.

    Parameters
    ----------
    element : str
        Symbol.
    energy : array, shape (energy,)
        Centres of evenly spaced channels in keV.
    beam_energy : float, optional
        In keV; 200 where nobody says.
    resolution : float
        FWHM at Mn K alpha in eV.

    Returns
    -------
    array, shape (energy,)
        Adds up to 1.

    Raises
    ------
    ParameterError
        If there is no such element, or no line of it within the channels.

    Examples
    --------
    >>> energy = np.arange(0.1, 12, 0.02)
    >>> spectrum = element_spectrum("Cu", energy)
    >>> round(float(energy[spectrum.argmax()]), 2)
    8.04
    """
    beam = DEFAULT_BEAM_ENERGY if beam_energy is None else beam_energy
    half = (energy[1] - energy[0]) / 2
    lines = {
        line.energy: photons
        for line, photons in emission(element, beam).items()
        if energy[0] - half <= line.energy <= energy[-1] + half
    }
    if not lines:
        raise ParameterError(
            f"element '{element}' has no line between {energy[0]:.4g} and {energy[-1]:.4g} keV "
            f"that a beam of {beam:.4g} keV excites"
        )
    energies = np.array(list(lines))
    amounts = np.array(list(lines.values())) * efficiency(Detector(), energies)
    spectrum = amounts @ channel_response(energies, energy, resolution)
    return spectrum / spectrum.sum()
