"""Peaks of a spectrum and the lines they may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from edxdenoise.errors import ParameterError
from edxdenoise.schema import DIM_ENERGY
from edxdenoise.xray import Peak, emission, fwhm

_GREEK = {"a": "α", "b": "β", "g": "γ"}
# A line farther from a peak than this share of its width is not named for it; of those nearer, one
# with less than this share of the best one's likelihood is left out.
_NAME_DISTANCE = 0.5
_NAME_SHARE = 0.25
# Share of the strongest line of its family below which a line is no name for a peak.
_WEAKEST_LINE = 0.02


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


def name_peaks(peaks: Sequence[Peak], lines: Sequence[NamedLine], resolution: float) -> list[Peak]:
    """Peaks with the names of the lines that they may be."""
    return [_named(peak, lines, float(fwhm(peak.energy, resolution)) / 1000) for peak in peaks]


def _named(peak: Peak, lines: Sequence[NamedLine], width: float) -> Peak:
    near = [line for line in lines if abs(line.energy - peak.energy) < _NAME_DISTANCE * width]
    if not near:
        return peak
    # A peak's place is known to about a third of its width where it is weak or has a shoulder.
    likelihood = {
        line: line.strength * np.exp(-0.5 * ((line.energy - peak.energy) / (0.3 * width)) ** 2)
        for line in near
    }
    ranked = sorted(near, key=lambda line: -likelihood[line])
    best = likelihood[ranked[0]]
    names = [line.name for line in ranked if likelihood[line] > _NAME_SHARE * best]
    elements = {name.split()[0]: name for name in reversed(names)}
    name = " / ".join(list(elements.values())[::-1][:2])
    return replace(peak, energy=ranked[0].energy, name=name)
