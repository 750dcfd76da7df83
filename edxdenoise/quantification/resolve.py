"""Lines and k-factors of a quantification: those given, and those chosen and estimated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from edxdenoise.config import ESTIMATE
from edxdenoise.cube import detector_resolution, energy_range
from edxdenoise.errors import ParameterError, Rank, warn
from edxdenoise.quantification.composition import parse_ratio
from edxdenoise.quantification.k_factors import (
    NO_WINDOW,
    Group,
    KFactor,
    estimate_k_factors,
)
from edxdenoise.quantification.lines import EstimatedLine, LineSpec, by_weight
from edxdenoise.xray import present_elements
from edxdenoise.xray.families import element_of, main_line

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
