"""Tables of k-factors: known ones, estimates, and what another beam energy makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edxdenoise.errors import FormatError, ParameterError
from edxdenoise.quantification.k_factors import (
    REFERENCE,
    Group,
    estimate_k_factors,
    group_of_line,
)
from edxdenoise.quantification.lines import LineSpec, check_lines
from edxdenoise.quantification.resolve import anchor, check_known
from edxdenoise.xray import DEFAULT_BEAM_ENERGY, SYMBOLS, emission

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
