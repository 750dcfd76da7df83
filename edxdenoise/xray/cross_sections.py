"""Ionisation of inner shells by electrons: how often a fast electron makes a vacancy.

The parametrisation of D. Bote, F. Salvat, A. Jablonski and C. J. Powell, At. Data Nucl. Data
Tables 95 (2009) 871, of distorted-wave Born calculations for K, L and M shells, from the edge to
1 GeV. Its two branches meet at 16 times the edge with a step below 1.2 %. The coefficients are
those that NIST published (BoteSalvatICX.jl, public domain).
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import TypeVar

import numpy as np

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
