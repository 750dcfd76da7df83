"""Cliff-Lorimer k-factors from first principles, with their errors, and what they are good for.

By weight and against Si K alpha, k = s_Si / s with the counts s of a line per mass of its element
in a thin foil: s = sigma omega a epsilon / M. `emission` gives vacancies, yields and rates (sigma
omega a), the detector its efficiency epsilon; a line counts with what it cannot be resolved from
(`counted_lines`). Such values agree with two vendors' tables, which are calculated as well, to the
errors below; they do not agree for lines below 0.7 keV, whose absorption in window and contact
nobody states, nor for M lines and the L lines of light elements, whose yields are little known.

Errors are standard deviations of ratios of two k-factors. They are written as an error that each
line has for itself, and one that all lines of a group share: it is left out where all lines
quantified are of one group.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from edxdenoise.config import DETECTOR_WINDOWS
from edxdenoise.errors import ParameterError
from edxdenoise.xray import (
    DEFAULT_BEAM_ENERGY,
    Detector,
    atomic_number,
    atomic_weight,
    counted_lines,
    efficiency,
    emission,
)
from edxdenoise.xray.families import element_of

REFERENCE = "Si_Ka"

# nm of aluminium contact and of dead silicon: those with which vendors' tables agreed best.
_CONTACT, _DEAD_SILICON = 30.0, 40.0


@dataclass(frozen=True)
class Group:
    """Lines whose estimates share an error.

    Parameters
    ----------
    name : str
        For people.
    own, shared : float
        Relative standard deviations: of each line for itself, and common to the group.
    source : str
        What the common error is of; groups with the same source share it.
    refused : str
        Why there is no estimate unless it is asked for line by line; empty for the others.
    """

    name: str
    own: float
    shared: float
    source: str
    refused: str = ""


# Ratios of two k-factors are good to: 6 % among K lines from K (Z = 19) on, 15 % between these and
# Si to Ar, 20 % for Na to Al; 4 % among L lines, 10 % between them and K lines, 15 % to Si. The
# three common errors below, 5.7, 6.5 and 12.5 %, and those of single lines reproduce all of these.
_HEAVY = Group("K lines, Z 19-53", 0.042, 0.057, "K")
_MIDDLE = Group("K lines, Z 14-18", 0.042, 0.125, "soft K")
_LIGHT = Group("K lines, Z 11-13", 0.139, 0.125, "soft K")
_L = Group("L lines, Z 38-83", 0.028, 0.065, "L")
_SOFT = Group("K lines, Z 6-10", 0.15, 0.25, "window")
NO_WINDOW = "the detector's window is not known, which matters by a factor of 2 to 4"
_UNKNOWN_WINDOW = Group("K lines, Z 6-10, window unknown", 0.15, 0.7, "window", NO_WINDOW)
_LIGHT_L = Group(
    "L lines, Z below 38", 0.9, 0.1, "light L", "its yield is known to a factor of 2 to 6"
)
_M = Group("M lines", 0.6, 0.3, "M", "yields of M lines are known to a factor of 1.5 to 4")
_OTHER = Group("other lines", 0.9, 0.1, "other", "nobody has compared estimates of such lines")


@dataclass(frozen=True)
class KFactor:
    """An estimated k-factor.

    Parameters
    ----------
    line : str
        Siegbahn name.
    value : float
        By weight, against Si K alpha at the same beam energy.
    group : Group
        With its errors.
    """

    line: str
    value: float
    group: Group

    @property
    def stddev(self) -> float:
        """Standard deviation against Si K alpha."""
        if self.line == REFERENCE:
            return 0.0
        silicon = group_of_line(REFERENCE, None)
        same = self.group.source == silicon.source
        common = 0.0 if same else np.hypot(self.group.shared, silicon.shared)
        return float(self.value * np.sqrt(self.group.own**2 + silicon.own**2 + common**2))


def estimate_k_factors(
    lines: Iterable[str],
    *,
    beam_energy: float | None = None,
    resolution: float = 130.0,
    window: str | None = None,
) -> dict[str, KFactor]:
    """Estimate k-factors by weight, against Si K alpha.

    Parameters
    ----------
    lines : iterable of str
        Siegbahn names. An alpha line counts with its doublet, not with the rest of its family.
    beam_energy : float, optional
        In keV; 200 by default.
    resolution : float
        FWHM of the detector at Mn K alpha in eV.
    window : {"none", "polymer"}, optional
        The detector's window. Without it light elements have no estimate that is of use.

    Returns
    -------
    dict of str to KFactor

    Raises
    ------
    ParameterError
        If a line or window is not known, or a line is not excited.

    Examples
    --------
    >>> found = estimate_k_factors(["In_La", "Pb_La"])
    >>> {name: round(factor.value, 2) for name, factor in found.items()}
    {'In_La': 2.91, 'Pb_La': 5.34}
    """
    if window not in (None, *DETECTOR_WINDOWS):
        raise ParameterError(
            f"detector window '{window}' must be one of {', '.join(DETECTOR_WINDOWS)}"
        )
    beam = DEFAULT_BEAM_ENERGY if beam_energy is None else beam_energy
    detector = Detector(
        resolution,
        polymer_window=window == "polymer",
        contact=_CONTACT,
        dead_silicon=_DEAD_SILICON,
    )
    silicon = _strength(REFERENCE, beam, detector)
    return {
        name: KFactor(name, silicon / _strength(name, beam, detector), group_of_line(name, window))
        for name in lines
    }


def _strength(name: str, beam_energy: float, detector: Detector) -> float:
    """Return counts of a line per mass of its element, in an arbitrary common unit."""
    element = element_of(name)
    photons = emission(element, beam_energy)
    counted = [line for line in counted_lines(name, detector.resolution) if line in photons]
    if not counted:
        raise ParameterError(
            f"line '{name}' has no k-factor at {beam_energy:.4g} keV: the beam does not excite it"
        )
    seen = efficiency(detector, np.array([line.energy for line in counted]))
    return float(seen @ [photons[line] for line in counted]) / atomic_weight(element)


def group_of_line(name: str, window: str | None) -> Group:
    z = atomic_number(element_of(name))
    siegbahn = name.partition("_")[2]
    if siegbahn.startswith("K"):
        if z <= 5 or z > 53:
            return _OTHER
        if z <= 10:
            return _UNKNOWN_WINDOW if window is None else _SOFT
        return _LIGHT if z <= 13 else _MIDDLE if z <= 18 else _HEAVY
    if siegbahn.startswith("L"):
        return _LIGHT_L if z < 38 else _L if z <= 83 else _OTHER
    return _M
