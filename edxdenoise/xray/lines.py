"""X-ray lines of the elements: energies, and how many photons an electron makes of each.

Energies are those of XrayDB. Radiative rates, fluorescence yields and Coster-Kronig transitions
are xraylib's: XrayDB gives Mg to Cl the K alpha share of heavier elements.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
import xraylib

from edxdenoise.errors import ParameterError

_Number = TypeVar("_Number", float, np.ndarray)

ELECTRON_REST_ENERGY = 510.999  # keV

_SUBSHELLS = {"K": 2, "L1": 2, "L2": 2, "L3": 4, "M1": 2, "M2": 2, "M3": 4, "M4": 4, "M5": 6}
# Coster-Kronig transitions, in the order in which vacancies move outwards.
_COSTER_KRONIG = (("L1", "L2"), ("L1", "L3"), ("L2", "L3")) + tuple(
    (f"M{i}", f"M{j}") for i in range(1, 6) for j in range(i + 1, 6)
)
# b and c of the Bethe cross section: Powell (1976) Rev. Mod. Phys. 48, 33 for K and L; the inner
# M shells are too little measured for values of their own.
_BETHE = {"K": (0.9, 0.65), "L": (0.6, 0.6), "M": (0.6, 0.6)}
# pi e^4, in barn keV^2, of the Bethe cross section.
_PI_E4 = 6.51e4


@dataclass(frozen=True)
class Line:
    """One X-ray line.

    Parameters
    ----------
    name : str
        Element and Siegbahn name, such as ``"Pb_La1"``.
    energy : float
        In keV.
    subshell : str
        Where the vacancy was, such as ``"L3"``.
    rate : float
        Share of the subshell's X-rays.
    """

    name: str
    energy: float
    subshell: str
    rate: float

    @property
    def family(self) -> str:
        """K, L or M."""
        return self.subshell[0]


# Beryllium to uranium: what X-ray detectors see in a specimen.
SYMBOLS = tuple(xraylib.AtomicNumberToSymbol(z) for z in range(4, 93))


def atomic_number(element: str) -> int:
    """Atomic number of a symbol.

    Examples
    --------
    >>> atomic_number("Pb")
    82
    """
    try:
        return int(xraylib.SymbolToAtomicNumber(element))
    except ValueError:
        raise ParameterError(
            f"element '{element}' is not known; write its symbol, such as 'Pb'"
        ) from None


def atomic_weight(element: str) -> float:
    """Atomic weight in g/mol, XrayDB's: xraylib's is off by up to 1 %."""
    import xraydb

    return float(xraydb.atomic_mass(atomic_number(element)))


@lru_cache(maxsize=None)
def element_lines(element: str) -> tuple[Line, ...]:
    """Every line of an element with a known energy and rate, strongest of a subshell first.

    Parameters
    ----------
    element : str
        Symbol, ``"Pb"``.

    Returns
    -------
    tuple of Line
    """
    import xraydb

    z = atomic_number(element)
    lines = []
    for siegbahn, entry in xraydb.xray_lines(element).items():
        rate = _radiative_rate(z, entry.initial_level, entry.final_level)
        if rate > 0:
            subshell = entry.initial_level.replace("4,5", "5")
            lines.append(Line(f"{element}_{siegbahn}", entry.energy / 1000, subshell, rate))
    return tuple(sorted(lines, key=lambda line: (line.subshell, -line.rate)))


def line_energy(name: str) -> float:
    """Energy of a line in keV.

    Parameters
    ----------
    name : str
        Element and Siegbahn name: ``"Pb_La"`` (which is ``"Pb_La1"``), ``"Pb_Lb1"``, ``"Pb_Ma"``.

    Raises
    ------
    ParameterError
        If there is no such line.

    Examples
    --------
    >>> round(line_energy("Pb_La"), 3), round(line_energy("C_Ka"), 3)
    (10.551, 0.277)
    """
    element, _, siegbahn = name.partition("_")
    known = {line.name: line.energy for line in element_lines(element)}
    for candidate in (name, f"{name}1"):
        if candidate in known:
            return known[candidate]
    allowed = ", ".join(sorted(known)) or "none"
    raise ParameterError(f"line '{name}' is not known; the lines of {element} are {allowed}")


def emission(element: str, beam_energy: float) -> dict[Line, float]:
    """Photons of each line that one electron makes per atom, as a cross section in barn.

    The weights of a family of lines, such as L, are these numbers over their sum.

    Parameters
    ----------
    element : str
        Symbol.
    beam_energy : float
        Energy of the electrons in keV.

    Returns
    -------
    dict of Line to float
        Only lines that are excited.
    """
    z = atomic_number(element)
    vacancies = {
        subshell: ionisation_cross_section(_edge(z, subshell), beam_energy, subshell)
        for subshell in _SUBSHELLS
    }
    for inner, outer in _COSTER_KRONIG:
        vacancies[outer] += vacancies[inner] * _coster_kronig(z, inner, outer)
    photons = {
        line: vacancies[line.subshell] * _fluorescence_yield(z, line.subshell) * line.rate
        for line in element_lines(element)
    }
    return {line: value for line, value in photons.items() if value > 0}


def ionisation_cross_section(edge: float, beam_energy: float, subshell: str) -> float:
    """Relativistic Bethe cross section of a subshell in barn (Williams & Carter 2009, eq. 4.2).

    The logarithm ln(c U) of the overvoltage U is replaced by ln(1 + c (U - 1)), equal to it at
    the high overvoltage it is meant for and zero at the edge instead of below zero.

    Parameters
    ----------
    edge, beam_energy : float
        In keV; an edge of 0 means that the subshell is empty.
    subshell : str
        Such as ``"L3"``.
    """
    if not 0 < edge < beam_energy:
        return 0.0
    b, c = _BETHE[subshell[0]]
    beta2 = velocity_squared(beam_energy)
    kinetic = 0.5 * ELECTRON_REST_ENERGY * beta2
    if kinetic <= edge:
        return 0.0
    logarithm = np.log1p(c * (kinetic / edge - 1)) - np.log1p(-beta2) - beta2
    return float(_PI_E4 * _SUBSHELLS[subshell] * b / (kinetic * edge) * logarithm)


def velocity_squared(energy: _Number) -> _Number:
    """(v/c)^2 of an electron of `energy` keV.

    Examples
    --------
    >>> round(velocity_squared(200.0), 3)
    0.483
    """
    return 1 - 1 / (1 + energy / ELECTRON_REST_ENERGY) ** 2


def _levels(text: str) -> list[str]:
    """Level names of XrayDB: ``"N4,5"`` to ``["N4", "N5"]``."""
    return [text[0] + number for number in text[1:].split(",")]


def _radiative_rate(z: int, initial: str, final: str) -> float:
    rate = 0.0
    # Only M zeta joins two subshells; its stronger one stands for both.
    subshell = _levels(initial)[-1]
    for level in _levels(final):
        macro = getattr(xraylib, f"{subshell}{level}_LINE", None)
        if macro is not None:
            rate += _or_zero(xraylib.RadRate, z, macro)
    return rate


def _edge(z: int, subshell: str) -> float:
    return _or_zero(xraylib.EdgeEnergy, z, getattr(xraylib, f"{subshell}_SHELL"))


def _fluorescence_yield(z: int, subshell: str) -> float:
    return _or_zero(xraylib.FluorYield, z, getattr(xraylib, f"{subshell}_SHELL"))


def _coster_kronig(z: int, inner: str, outer: str) -> float:
    name = f"F{inner}{outer[-1]}_TRANS"
    return _or_zero(xraylib.CosKronTransProb, z, getattr(xraylib, name))


def _or_zero(function: Callable[[int, int], float], z: int, macro: int) -> float:
    """xraylib raises where an element has no such shell or line."""
    try:
        return float(function(z, macro))
    except ValueError:
        return 0.0
