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

`resolve_lines` gives the lines and k-factors of a quantification: those given, those chosen and
those estimated; `k_factor_table` tabulates them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from edxdenoise.config import DETECTOR_WINDOWS, ESTIMATE
from edxdenoise.cube import detector_resolution, energy_range
from edxdenoise.errors import FormatError, ParameterError, Rank, warn
from edxdenoise.quantification.composition import parse_ratio
from edxdenoise.quantification.lines import EstimatedLine, LineSpec, by_weight, check_lines
from edxdenoise.xray import (
    DEFAULT_BEAM_ENERGY,
    SYMBOLS,
    Detector,
    atomic_number,
    atomic_weight,
    counted_lines,
    efficiency,
    emission,
    present_elements,
)
from edxdenoise.xray.families import element_of, main_line

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


# A k-factor this far from its estimate is more likely that of something else.
_FAR = 1.3
# The whole L family has about twice the counts of its alpha line.
_FAMILY = 0.75
# keV up to which a beam is taken to be that of a SEM.
_HIGHEST_SEM = 30.0


def resolve_lines(
    ds: xr.Dataset,
    lines: Mapping[str, LineSpec],
    *,
    elements: Iterable[str] = (),
    estimate: bool = False,
    unit: str = "weight",
    window: str | None = None,
    ratios: Sequence[str] = (),
) -> dict[str, LineSpec]:
    """Choose lines of the elements found, where none are given, and estimate k-factors.

    Parameters
    ----------
    ds : Dataset
        With energies, a sum spectrum, and the beam energy and resolution that are known.
    lines : mapping of str to LineSpec
        Those given.
    elements : iterable of str
        Symbols; by default those that `present_elements` finds. What the file
        lists is a hint alone.
    estimate, window
        As `resolve_k_factors` takes them.
    unit : {"weight", "atomic"}
        Percents that the k-factors given are for.
    ratios : sequence of str
        Such as ``"I/Pb"``, whose elements must have k-factors.

    Returns
    -------
    dict of str to LineSpec
        k-factors are numbers, by weight, or None for lines of which there are net counts alone.

    Raises
    ------
    ParameterError
        If there is no line to quantify, or one is impossible.
    """
    beam_energy = ds.attrs.get("beam_energy")
    chosen = by_weight(lines, unit)
    if not lines or estimate:
        covered = {element_of(name) for name in lines}
        for element in tuple(elements) or present_elements(ds):
            name = main_line(element, energy_range(ds), beam_energy=beam_energy)
            if name is not None and element not in covered:
                chosen[name] = LineSpec()
    if not chosen:
        raise ParameterError(
            "no line to quantify: no element was found; name some, such as --elements Fe,Pt, "
            "or a line with its k-factor, such as --k-factor Pb_La=4.374"
        )
    for text in ratios:
        parse_ratio(text, [element_of(name) for name in chosen])
    resolved = resolve_k_factors(
        chosen,
        estimate=estimate,
        beam_energy=beam_energy,
        resolution=detector_resolution(ds),
        window=window,
    )
    composed = [element_of(name) for name, spec in resolved.items() if spec.k_factor is not None]
    if ratios and not composed:
        raise ParameterError(
            f"ratio '{ratios[0]}' needs k-factors; give --k-factor {next(iter(resolved))}="
            f"VALUE for its lines, or --k-factor {ESTIMATE}"
        )
    for text in ratios:
        parse_ratio(text, composed)
    return resolved


def check_thin(ds: xr.Dataset) -> None:
    """Warn where the beam energy is that of a SEM: its specimens are rarely thin foils."""
    beam_energy = ds.attrs.get("beam_energy")
    if beam_energy is not None and beam_energy <= _HIGHEST_SEM:
        warn(
            f"The beam energy is {beam_energy:.4g} keV, as in a SEM",
            "Cliff-Lorimer holds for thin foils: at% of a bulk specimen are not corrected for "
            "absorption and fluorescence, while maps of net counts and their ratios still hold",
            rank=Rank.WORSE,
        )


def resolve_k_factors(
    lines: Mapping[str, LineSpec],
    *,
    estimate: bool = False,
    beam_energy: float | None = None,
    resolution: float = 130.0,
    window: str | None = None,
) -> dict[str, LineSpec]:
    """Put numbers in place of k-factors that are to be estimated.

    A k-factor that is given anchors the estimates of its group: they are scaled by what it, or the
    geometric mean of several, is to its own estimate.

    Parameters
    ----------
    lines : mapping of str to LineSpec
        With k-factors by weight, ``"estimate"``, or None.
    estimate : bool
        Estimate also those that are None, where that is honest; the others stay None and a warning
        names them.
    beam_energy, resolution, window
        As `estimate_k_factors` takes them.

    Returns
    -------
    dict of str to LineSpec
        k-factors are numbers or None. Standard deviations of estimates are those of ratios between
        the lines given.

    Warns
    -----
    EdxdenoiseWarning
        Of lines without an estimate, and of k-factors given that are more than 30 % off theirs.
    """
    known = {name: spec for name, spec in lines.items() if isinstance(spec.k_factor, float | int)}
    forced = {name for name, spec in lines.items() if spec.k_factor == ESTIMATE}
    asked = forced | {name for name in lines if estimate and name not in known}
    if not asked and len(known) < 2:
        return dict(lines)
    estimates = estimate_k_factors(
        [*known, *asked], beam_energy=beam_energy, resolution=resolution, window=window
    )
    check_known(known, estimates, absolute=bool(asked))
    refused = {name for name in asked - forced if estimates[name].group.refused}
    if refused:
        _warn_refused({name: estimates[name] for name in lines if name in refused})
    composed = [name for name in lines if name in known or name in asked - refused]
    sources = {None if name in known else estimates[name].group.source for name in composed}
    resolved = dict(lines)
    for name in asked:
        if name in refused:
            resolved[name] = replace(lines[name], k_factor=None)
            continue
        scale, shared = anchor(estimates[name].group, known, estimates)
        if scale is None:
            scale, shared = 1.0, estimates[name].group.shared if len(sources) > 1 else 0.0
        value = scale * estimates[name].value
        error = np.hypot(estimates[name].group.own, shared) if len(composed) > 1 else 0.0
        spec = lines[name]
        resolved[name] = EstimatedLine(value, float(error * value), spec.window, spec.background)
    return resolved


def anchor(
    group: Group, known: Mapping[str, LineSpec], estimates: Mapping[str, KFactor]
) -> tuple[float | None, float]:
    """Scale of a group's estimates from k-factors that are given, and its relative error."""
    ratios, variances = [], []
    for name, spec in known.items():
        if estimates[name].group == group:
            assert isinstance(spec.k_factor, float | int)
            ratios.append(spec.k_factor / estimates[name].value)
            variances.append(group.own**2 + (spec.k_factor_stddev / spec.k_factor) ** 2)
    if not ratios:
        return None, 0.0
    return float(np.exp(np.mean(np.log(ratios)))), float(np.sqrt(np.sum(variances)) / len(ratios))


def check_known(
    known: Mapping[str, LineSpec], estimates: Mapping[str, KFactor], *, absolute: bool
) -> None:
    """Warn of k-factors that are far from their estimates.

    Where none is estimated the reference of the user's table may be any: each is compared with the
    others.
    """
    logs = {
        name: float(np.log(spec.k_factor / estimates[name].value))
        for name, spec in known.items()
        if isinstance(spec.k_factor, float | int) and not estimates[name].group.refused
    }
    for name, log in logs.items():
        others = [value for other, value in logs.items() if other != name]
        if not absolute and not others:
            continue
        usual = 0.0 if absolute else float(np.median(others))
        if abs(log - usual) <= np.log(_FAR):
            continue
        expected = estimates[name].value * np.exp(usual)
        family = log - usual < np.log(_FAMILY) and name.partition("_")[2].startswith("L")
        cause = (
            "; values for the whole L family are half of those for the alpha line" if family else ""
        )
        far = f"{abs(np.expm1(log - usual)):.0%} {'below' if log < usual else 'above'}"
        warn(
            f"The k-factor of {name}, {known[name].k_factor:.4g}, is {far} its estimate of "
            f"{expected:.3g}" + ("" if absolute else ", on the scale of the other k-factors"),
            f"if it is wrong, at% of {element_of(name)} is wrong by as much",
            "check its line, beam energy and unit (estimates: by weight, Si Ka = 1)" + cause,
            rank=Rank.WRONG,
        )


def _warn_refused(refused: Mapping[str, KFactor]) -> None:
    reasons: dict[str, list[str]] = {}
    for name, factor in refused.items():
        reasons.setdefault(factor.group.refused, []).append(name)
    first = next(iter(refused))
    window = NO_WINDOW in reasons
    warn(
        "No k-factor is estimated for "
        + "; ".join(f"{', '.join(names)} ({reason})" for reason, names in reasons.items()),
        "at% are those of the other elements alone",
        f"give it, such as --k-factor {first}=VALUE"
        + (", or --detector-window none or polymer" if window else ""),
        rank=Rank.WRONG,
    )


# Relative error of what a k-factor changes by between two beam energies.
CONVERSION_ERROR = 0.02
# keV between which a silicon detector sees lines.
_LOWEST, _HIGHEST = 0.1, 40.0


def convert_k_factors(
    factors: Mapping[str, float], *, from_energy: float, to_energy: float
) -> dict[str, float]:
    """Convert known k-factors by weight to another beam energy.

    What one beam energy changes is known far better than k-factors themselves: the result is good
    to 2 %.

    Parameters
    ----------
    factors : mapping of str to float
        By line. The reference is the line whose k-factor is 1, or Si K alpha.
    from_energy, to_energy : float
        In keV.

    Examples
    --------
    >>> known = {"Si_Ka": 1.0, "Fe_Ka": 1.40}
    >>> round(convert_k_factors(known, from_energy=200, to_energy=300)["Fe_Ka"], 2)
    1.36
    """
    reference = next((name for name, value in factors.items() if value == 1), REFERENCE)
    before, after = (
        estimate_k_factors([*factors, reference], beam_energy=energy)
        for energy in (from_energy, to_energy)
    )
    scale = before[reference].value / after[reference].value
    return {
        name: float(value * scale * after[name].value / before[name].value)
        for name, value in factors.items()
    }


def read_k_factors(path: str | Path) -> dict[str, tuple[float, float]]:
    """Read k-factors and their standard deviations from rows ``line,k[,error]``.

    Lines that start with ``#`` and a heading without numbers are skipped.

    Raises
    ------
    FormatError
        If the file cannot be read, or a row is not of that form.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: cannot be read as a table of k-factors: {error}") from error
    known = {}
    for number, row in enumerate(text.splitlines(), start=1):
        name, *numbers = [cell.strip() for cell in row.split(",")]
        if not name or name.startswith("#") or (number == 1 and "_" not in name):
            continue
        try:
            value, stddev = float(numbers[0]), float(numbers[1] if len(numbers) > 1 else 0)
        except (ValueError, IndexError):
            raise FormatError(
                f"{path}, line {number}: '{row}' must be a line and its k-factor, such as "
                "Fe_Ka,1.43 or Fe_Ka,1.43,0.06"
            ) from None
        known[name] = (value, stddev)
    if not known:
        raise FormatError(f"{path}: holds no k-factor; rows are such as Fe_Ka,1.43")
    return known


def k_factor_table(
    elements: Iterable[str],
    known: Mapping[str, tuple[float, float]],
    *,
    beam_energy: float | None = None,
    window: str | None = None,
    from_energy: float | None = None,
) -> list[dict[str, Any]]:
    """Estimated k-factors of elements, or known ones converted to another beam energy.

    Parameters
    ----------
    elements : iterable of str
        Symbols; all elements for none, unless known k-factors are converted.
    known : mapping of str to (float, float)
        k-factors by weight and their standard deviations, by line.
    beam_energy, window
        As `estimate_k_factors` takes them.
    from_energy : float, optional
        Beam energy in keV of the known k-factors, which are then converted; otherwise they scale
        the estimates of their groups.

    Returns
    -------
    list of dict
        ``line``, ``k_factor``, ``stddev`` (against Si K alpha), ``origin`` (given, converted,
        estimated, estimated and scaled), ``group`` and ``note``.
    """
    beam = DEFAULT_BEAM_ENERGY if beam_energy is None else beam_energy
    specs = {name: LineSpec(value, stddev) for name, (value, stddev) in known.items()}
    for name, spec in specs.items():
        check_lines({name: spec})
    if from_energy is not None:
        if not known:
            raise ParameterError("no k-factor to convert; give --table FILE.csv or --k-factor")
        values = {name: value for name, (value, _) in known.items()}
        converted = convert_k_factors(values, from_energy=from_energy, to_energy=beam)
        return [
            _row(
                name,
                value,
                float(value * np.hypot(known[name][1] / known[name][0], CONVERSION_ERROR)),
                "converted",
                group_of_line(name, window),
            )
            for name, value in converted.items()
        ]
    names = [name for element in elements or SYMBOLS for name in _alpha_lines(element, beam)]
    estimates = estimate_k_factors(dict.fromkeys([*known, *names]), beam_energy=beam, window=window)
    if not list(elements):
        estimates = {
            name: estimate
            for name, estimate in estimates.items()
            if name in known or not estimate.group.refused
        }
    check_known(specs, estimates, absolute=True)
    rows = []
    for name, estimate in estimates.items():
        if name in known:
            rows.append(_row(name, *known[name], "given", estimate.group))
            continue
        scale, error = anchor(estimate.group, specs, estimates)
        if scale is None:
            rows.append(_row(name, estimate.value, estimate.stddev, "estimated", estimate.group))
            continue
        value = scale * estimate.value
        stddev = float(value * np.hypot(estimate.group.own, error))
        rows.append(_row(name, value, stddev, "estimated, scaled", estimate.group))
    return rows


def _row(name: str, value: float, stddev: float, origin: str, group: Group) -> dict[str, Any]:
    note = f"not used unless asked for: {group.refused}" if group.refused else ""
    return {
        "line": name,
        "k_factor": value,
        "stddev": stddev,
        "origin": origin,
        "group": group.name,
        "note": note if origin.startswith("estimated") else "",
    }


def _alpha_lines(element: str, beam_energy: float) -> list[str]:
    """K, L and M alpha of an element, where they are excited and a detector sees them."""
    photons = emission(element, beam_energy)
    found = []
    for shell in "KLM":
        name = f"{element}_{shell}a"
        named = [line for line in photons if line.name in (name, f"{name}1")]
        if named and _LOWEST < named[0].energy < _HIGHEST:
            found.append(name)
    return found
