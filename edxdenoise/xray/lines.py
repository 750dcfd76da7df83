"""X-ray lines of the elements: energies, and how many photons an electron makes of each.

Vacancies are those of `ionisation_cross_section`, of Coster-Kronig transitions and of K lines,
which leave one in the L shell. Energies, fluorescence yields and Coster-Kronig probabilities are
XrayDB's (W. T. Elam et al., Radiat. Phys. Chem. 63 (2002) 121), K yields up to neon those of W.
Bambynek et al., Rev. Mod. Phys. 44 (1972) 716. Radiative rates are xraylib's: XrayDB gives Mg to Cl
the K alpha share of heavier elements. xraylib fills the 4f shell from gadolinium on; M alpha and M
beta of lanthanum to europium, which come from it, are those of gadolinium by the number of 4f
electrons.

Ionisation of inner shells by fast electrons follows the parametrisation of D. Bote, F. Salvat, A.
Jablonski and C. J. Powell, At. Data Nucl. Data Tables 95 (2009) 871, of distorted-wave Born
calculations for K, L and M shells, from the edge to 1 GeV. Its two branches meet at 16 times the
edge with a step below 1.2 %. The coefficients are those that NIST published (BoteSalvatICX.jl,
public domain)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import TypeVar

import numpy as np
import xraylib

from edxdenoise.errors import ParameterError
from edxdenoise.xray.detector import fwhm

# Coster-Kronig transitions, in the order in which vacancies move outwards.
_COSTER_KRONIG = (("L1", "L2"), ("L1", "L3"), ("L2", "L3")) + tuple(
    (f"M{i}", f"M{j}") for i in range(1, 6) for j in range(i + 1, 6)
)
# Heaviest element whose K yield is that of Bambynek et al.; the tables scatter by a factor of 2.
_LAST_LIGHT = 10
# Between them, not included, the 4f shell fills; gadolinium has half of it, 7 electrons.
_BARIUM, _GADOLINIUM, _HALF_SHELL = 56, 64, 7


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
    >>> line_energy("pb la")
    Traceback (most recent call last):
    ...
    edxdenoise.errors.ParameterError: line 'pb la' is not known; did you mean 'Pb_La'?
    """
    likely = _likely_name(name)
    if likely not in ("", name):
        raise ParameterError(f"line '{name}' is not known; did you mean '{likely}'?")
    element, _, _ = name.partition("_")
    known = {line.name: line.energy for line in element_lines(element)}
    for candidate in (name, f"{name}1"):
        if candidate in known:
            return known[candidate]
    allowed = ", ".join(sorted(known)) or "none"
    raise ParameterError(f"line '{name}' is not known; the lines of {element} are {allowed}")


def _likely_name(text: str) -> str:
    """Return the name of the line that somebody may mean; empty where there is none."""
    meant = re.fullmatch(r"([A-Z][a-z]?)[\s_-]*([KLM])-?([abgln]?)(\d?)", text, re.IGNORECASE)
    if not meant:
        return ""
    symbol, shell, series, number = meant.groups()
    likely = f"{symbol.title()}_{shell.upper()}{series.lower() or 'a'}{number}"
    try:
        known = {line.name for line in element_lines(symbol.title())}
    except ParameterError:
        return ""
    return likely if known & {likely, f"{likely}1"} else ""


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
        subshell: ionisation_cross_section(z, subshell, beam_energy) for subshell in SUBSHELLS
    }
    for outer in ("L2", "L3"):
        vacancies[outer] += (
            vacancies["K"] * _fluorescence_yield(z, "K") * _radiative_rate(z, "K", outer)
        )
    for inner, outer in _COSTER_KRONIG:
        vacancies[outer] += vacancies[inner] * _coster_kronig(z, inner, outer)
    photons = {
        line: vacancies[line.subshell] * _fluorescence_yield(z, line.subshell) * line.rate
        for line in element_lines(element)
    }
    return {line: value for line, value in photons.items() if value > 0}


def counted_lines(name: str, resolution: float = 130.0) -> list[Line]:
    """Lines whose counts are those of a named line, since a detector does not resolve them.

    They are the line itself, the doublet that an alpha line without a number names (``"Pb_La"`` is
    La1 and La2) and others of its shell within half a FWHM. k-factors, fits and the truth of a
    phantom all mean these.

    Parameters
    ----------
    name : str
        As `line_energy` takes it.
    resolution : float
        FWHM at Mn K alpha in eV.

    Raises
    ------
    ParameterError
        If there is no such line.

    Examples
    --------
    >>> [line.name for line in counted_lines("Pb_La")]
    ['Pb_La1', 'Pb_La2']
    """
    lines = element_lines(name.partition("_")[0])
    energy = line_energy(name)
    named = next(line for line in lines if line.name in (name, f"{name}1"))
    near = 0.5e-3 * float(fwhm(energy, resolution))
    doublet = (f"{name}1", f"{name}2") if name.endswith("a") else ()
    return [
        line
        for line in lines
        if line.family == named.family
        and (abs(line.energy - energy) < near or line.name in doublet)
    ]


def _levels(text: str) -> list[str]:
    """Level names of XrayDB: ``"N4,5"`` to ``["N4", "N5"]``."""
    return [text[0] + number for number in text[1:].split(",")]


@lru_cache(maxsize=None)
def _radiative_rate(z: int, initial: str, final: str) -> float:
    rate = 0.0
    # Only M zeta joins two subshells; its stronger one stands for both.
    subshell = _levels(initial)[-1]
    for level in _levels(final):
        macro = getattr(xraylib, f"{subshell}{level}_LINE", None)
        if macro is not None:
            rate += _or_zero(xraylib.RadRate, z, macro)
    if _BARIUM < z < _GADOLINIUM and subshell in ("M4", "M5"):
        filled = (z - _BARIUM) / _HALF_SHELL
        from_4f = _radiative_rate(_GADOLINIUM, subshell, "N6,7")
        share = filled if final in ("N6", "N7", "N6,7") else 1.0
        rate = share * _radiative_rate(_GADOLINIUM, initial, final)
        rate /= 1 - from_4f * (1 - filled)
    return rate


def edge_energy(z: int, subshell: str) -> float:
    """Absorption edge of a subshell such as ``"L3"`` in keV; 0 where it is empty."""
    return _or_zero(xraylib.EdgeEnergy, z, getattr(xraylib, f"{subshell}_SHELL"))


@lru_cache(maxsize=None)
def _fluorescence_yield(z: int, subshell: str) -> float:
    import xraydb

    if subshell == "K" and z <= _LAST_LIGHT:
        root = 0.0370 + 0.03112 * z + 5.44e-5 * z**2 - 1.25e-6 * z**3
        return root**4 / (1 + root**4)
    edge = xraydb.xray_edge(z, subshell)
    return 0.0 if edge is None else float(edge.fyield)


@lru_cache(maxsize=None)
def _coster_kronig(z: int, inner: str, outer: str) -> float:
    import xraydb

    return float(xraydb.ck_probability(z, inner, outer, total=False) or 0.0)


def _or_zero(function: Callable[[int, int], float], z: int, macro: int) -> float:
    """xraylib raises where an element has no such line."""
    try:
        return float(function(z, macro))
    except ValueError:
        return 0.0


_Number = TypeVar("_Number", float, np.ndarray)

ELECTRON_REST_ENERGY = 510.998918  # keV
SUBSHELLS = ("K", "L1", "L2", "L3", "M1", "M2", "M3", "M4", "M5")

_TABLE = "bote_salvat_2009.csv"
# 4 pi a0^2, in barn.
_FOUR_PI_A0_SQUARED = 4 * np.pi * 0.5291772108e8**2 / 1e8
# Overvoltage at which the branches meet.
_BRANCH = 16.0


def velocity_squared(energy: _Number) -> _Number:
    """(v/c)^2 of an electron of `energy` keV.

    Examples
    --------
    >>> round(velocity_squared(200.0), 3)
    0.483
    """
    return 1 - 1 / (1 + energy / ELECTRON_REST_ENERGY) ** 2


def ionisation_cross_section(z: int, subshell: str, beam_energy: float) -> float:
    """Cross section for ionisation of a subshell by an electron, in barn.

    Parameters
    ----------
    z : int
        Atomic number, 1 to 92.
    subshell : str
        ``"K"``, ``"L1"`` to ``"L3"`` or ``"M1"`` to ``"M5"``.
    beam_energy : float
        In keV.

    Returns
    -------
    float
        0 below the edge and for a subshell that has no edge above 50 eV.

    Examples
    --------
    >>> round(ionisation_cross_section(14, "K", 200.0))
    1745
    """
    coefficients = _coefficients().get((z, subshell))
    if coefficients is None:
        return 0.0
    edge, be, anlj, g1, g2, g3, g4, a1, a2, a3, a4, a5 = coefficients
    overvoltage = 1000 * beam_energy / edge
    if overvoltage <= 1:
        return 0.0
    if overvoltage <= _BRANCH:
        t = 1 / (1 + overvoltage)
        root = a1 + a2 * overvoltage + t * (a3 + t**2 * (a4 + t**2 * a5))
        return float(_FOUR_PI_A0_SQUARED * (overvoltage - 1) * (root / overvoltage) ** 2)
    # Momentum in units of m c, and the Lorentz factor.
    lorentz = 1 + beam_energy / ELECTRON_REST_ENERGY
    momentum = np.sqrt(lorentz**2 - 1)
    beta2 = velocity_squared(beam_energy)
    bracket = (2 * np.log(momentum) - beta2) * (1 + g1 / momentum)
    bracket += g2 + g3 / np.sqrt(lorentz) + g4 / momentum
    return float(_FOUR_PI_A0_SQUARED * anlj / beta2 * overvoltage / (overvoltage + be) * bracket)


@lru_cache(maxsize=1)
def _coefficients() -> dict[tuple[int, str], tuple[float, ...]]:
    """Edge in eV, be, anlj, g1-g4 and a1-a5 by atomic number and subshell."""
    table: dict[tuple[int, str], tuple[float, ...]] = {}
    text = files("edxdenoise.xray").joinpath(_TABLE).read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if not line.startswith("#")]
    for row in rows[1:]:
        z, subshell, *numbers = row.split(",")
        table[int(z), subshell] = tuple(map(float, numbers))
    return table
