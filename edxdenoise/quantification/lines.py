"""Which lines are quantified: their names, k-factors, families, and what stands in their way."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from edxdenoise.errors import EdxdenoiseWarning, ParameterError
from edxdenoise.xray import (
    Detector,
    Line,
    efficiency,
    element_lines,
    emission,
    fwhm,
    line_energy,
)

# Below, in keV, spectra hold the detector's zero peak.
LOWEST_ENERGY = 0.1
# Lines weaker than this share of their element's strongest are neither listed nor kept clear of.
_LEAST_SHARE = 0.02
DEFAULT_BEAM_ENERGY = 200.0

Window = tuple[float, float]


@dataclass(frozen=True)
class LineSpec:
    """One line to quantify an element by.

    Parameters
    ----------
    k_factor : float, optional
        Cliff-Lorimer factor against a reference common to all lines, by weight, for the line named
        (its unresolved partners included, such as La1 and La2) and not for its whole family.
    k_factor_stddev : float
        Standard deviation of the k-factor, as its table states it.
    window : (low, high), optional
        Integration window in keV; by default one FWHM either side of the line.
    background : sequence of (low, high), optional
        One or two background windows in keV; estimated by default.
    """

    k_factor: float | None = None
    k_factor_stddev: float = 0.0
    window: Window | None = None
    background: tuple[Window, ...] | None = None


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
    """

    name: str
    element: str
    energies: tuple[float, ...]
    weights: tuple[float, ...]


def element_of(name: str) -> str:
    """Symbol of the element a line belongs to.

    Examples
    --------
    >>> element_of("Pb_La")
    'Pb'
    """
    return name.partition("_")[0]


def check_lines(lines: Mapping[str, LineSpec]) -> None:
    """Check names, elements and k-factors of the lines to be quantified.

    Raises
    ------
    ParameterError
        Naming the line: unknown, second of its element, k-factor or window impossible.
    """
    if not lines:
        raise ParameterError("no line to quantify; name at least one, such as Pb_La")
    seen: dict[str, str] = {}
    for name, spec in lines.items():
        energy = line_energy(name)
        element = element_of(name)
        if element in seen:
            raise ParameterError(
                f"lines '{seen[element]}' and '{name}' are both of {element}; quantify an element "
                "by one line"
            )
        seen[element] = name
        for key, value, least in (
            ("k_factor", spec.k_factor, np.nextafter(0, 1)),
            ("k_factor_stddev", spec.k_factor_stddev, 0.0),
        ):
            if value is not None and not (np.isfinite(value) and value >= least):
                raise ParameterError(
                    f"'lines.{name}.{key}' is {value}, must be "
                    f"{'a number above 0' if least else '0 or more'}"
                )
        for key, windows in (("window", [spec.window]), ("background", spec.background or ())):
            for window in windows:
                if window is not None and not window[0] < window[1]:
                    raise ParameterError(
                        f"'lines.{name}.{key}' is {list(window)}, must run from low to high keV"
                    )
        if spec.background is not None and len(spec.background) not in (1, 2):
            raise ParameterError(
                f"'lines.{name}.background' has {len(spec.background)} windows, must have 1 or 2"
            )
        if spec.window is not None and not spec.window[0] <= energy <= spec.window[1]:
            raise ParameterError(
                f"'lines.{name}.window' is {list(spec.window)} keV, must hold the line at "
                f"{energy:.4g} keV"
            )


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
        FWHM at Mn K alpha in eV: lines nearer than half a FWHM to the one named count with it.
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
            [(line, p * _seen(line.energy)) for line, p in lines if low <= line.energy <= high]
            for lines in family_lines(element, beam).values()
        ]
        strongest = max((p for lines in shells for _, p in lines), default=0.0)
        for lines in shells:
            members = {line.name for line, _ in lines}
            name = next((n for n in names if n in members or f"{n}1" in members), None)
            if name is None and max((p for _, p in lines), default=0.0) <= _LEAST_SHARE * strongest:
                continue
            reference = max(lines, key=lambda pair: pair[1])[0]
            energy = reference.energy if name is None else line_energy(name)
            near = 0.5e-3 * float(fwhm(energy, resolution))
            scale = sum(p for line, p in lines if abs(line.energy - energy) < near)
            kept = [(line, p) for line, p in lines if p > 1e-3 * scale]
            family = Family(
                name or _group_name(reference.name),
                element,
                tuple(line.energy for line, _ in kept),
                tuple(p / scale for _, p in kept),
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
def _seen(energy: float) -> float:
    """Efficiency of a windowless detector; what window there is, few files say."""
    return float(efficiency(Detector(), np.array([energy]))[0])


def _group_name(name: str) -> str:
    """``Pb_La1`` as people call it with its partners, ``Pb_La``."""
    return name.rstrip("0123456789,") if name[-1].isdigit() else name


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


def check_positions(
    lines: Mapping[str, LineSpec],
    energy_range: Window,
    *,
    beam_energy: float | None = None,
    resolution: float = 130.0,
    elements: Iterable[str] = (),
    overlaps: bool = True,
) -> None:
    """Warn of lines that overlap those of another listed element, or are hardly excited.

    Parameters
    ----------
    lines : mapping of str to LineSpec
        Checked as `check_lines` does.
    energy_range : (low, high)
        Of the spectra, in keV.
    beam_energy, resolution : float
        In keV; FWHM at Mn K alpha in eV.
    elements : iterable of str
        Others that the specimen holds.
    overlaps : bool
        Whether to warn of overlaps, which a fit of all lines at once resolves.

    Raises
    ------
    ParameterError
        If a line lies outside the energy axis.
    """
    low, high = energy_range
    others = [element_of(name) for name in lines] + list(elements)
    listed = strong_lines(others, energy_range, beam_energy=beam_energy)
    for name in lines:
        energy = line_energy(name)
        if not low <= energy <= high:
            raise ParameterError(
                f"line '{name}' at {energy:.4g} keV lies outside the energy axis, {low:.4g} to "
                f"{high:.4g} keV; choose another line of {element_of(name)}"
            )
        if beam_energy is not None and energy > beam_energy / 2:
            warnings.warn(
                f"line '{name}' at {energy:.4g} keV lies above half the beam energy of "
                f"{beam_energy:.4g} keV and is hardly excited",
                EdxdenoiseWarning,
                stacklevel=2,
            )
        width = float(fwhm(energy, resolution)) / 1000
        close = [
            f"{other.replace('_', ' ')} ({1000 * (position - energy):+.0f} eV)"
            for other, position, _ in listed
            if element_of(other) != element_of(name) and abs(position - energy) < width
        ]
        if close and overlaps:
            warnings.warn(
                f"line '{name}' at {energy:.4g} keV overlaps {', '.join(close)}: windows cannot "
                "tell them apart; use --intensities fit",
                EdxdenoiseWarning,
                stacklevel=2,
            )


def list_lines(
    elements: Iterable[str],
    energy_range: Window,
    *,
    beam_energy: float | None = None,
    resolution: float = 130.0,
) -> list[dict[str, object]]:
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
        ``line``, ``energy`` (keV), ``fwhm`` (eV), ``share`` of the element's strongest, and
        ``overlaps``: lines of other elements within one FWHM.
    """
    listed = strong_lines(elements, energy_range, beam_energy=beam_energy)
    found: list[dict[str, object]] = []
    for name, energy, share in listed:
        width = float(fwhm(energy, resolution))
        overlaps = [
            other
            for other, position, _ in listed
            if element_of(other) != element_of(name) and 1000 * abs(position - energy) < width
        ]
        found.append(
            {"line": name, "energy": energy, "fwhm": width, "share": share, "overlaps": overlaps}
        )
    return found


def weight_k_factors(lines: Mapping[str, LineSpec], unit: str) -> dict[str, tuple[float, float]]:
    """k-factors by weight and their standard deviations, by line.

    Parameters
    ----------
    lines : mapping of str to LineSpec
        All of them with a k-factor.
    unit : {"weight", "atomic"}
        What the k-factors given count: an atomic one, ratio of atoms per ratio of intensities,
        becomes one by weight when multiplied by the atomic weight.

    Raises
    ------
    ParameterError
        If a line has no k-factor, or the unit is unknown.
    """
    from edxdenoise.xray import atomic_weight

    if unit not in ("weight", "atomic"):
        raise ParameterError(f"k_factor_unit '{unit}' must be weight or atomic")
    missing = [name for name, spec in lines.items() if spec.k_factor is None]
    if missing:
        raise ParameterError(
            f"no k-factor for {', '.join(missing)}; give --k-factor {missing[0]}=VALUE or "
            f"k_factor in [lines.{missing[0]}]"
        )
    factors = {}
    for name, spec in lines.items():
        scale = atomic_weight(element_of(name)) if unit == "atomic" else 1.0
        assert spec.k_factor is not None
        factors[name] = (spec.k_factor * scale, spec.k_factor_stddev * scale)
    return factors


__all__ = [
    "Family",
    "LineSpec",
    "check_lines",
    "check_positions",
    "element_lines",
    "element_of",
    "families",
    "strong_lines",
    "weight_k_factors",
]
