"""Which lines are quantified: their names, windows and k-factors, and what overlaps them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.config import ESTIMATE, K_FACTOR_UNITS
from edxdenoise.errors import ParameterError, Rank, warn
from edxdenoise.xray import fwhm, line_energy
from edxdenoise.xray.families import Window, element_of, strong_lines

# Tabulated ones lie between 0.1 and 10 or so; far beyond, sums of concentrations overflow.
_K_FACTORS = (1e-6, 1e6)
# Attributes of ``line_intensity`` that say how it was made.
INTENSITIES_USED, ELEMENTS_USED = "intensities", "elements"


@dataclass(frozen=True)
class LineSpec:
    """One line to quantify an element by.

    Parameters
    ----------
    k_factor : float or "estimate", optional
        Cliff-Lorimer factor against a reference common to all lines, by weight, for the line named
        (its unresolved partners included, such as La1 and La2) and not for its whole family.
        ``"estimate"`` asks for an estimate even where it is poor.
    k_factor_stddev : float
        Standard deviation of the k-factor, as its table states it.
    window : (low, high), optional
        Integration window in keV; by default one FWHM either side of the line.
    background : sequence of (low, high), optional
        One or two background windows in keV; estimated by default.
    """

    k_factor: float | str | None = None
    k_factor_stddev: float = 0.0
    window: Window | None = None
    background: tuple[Window, ...] | None = None


class EstimatedLine(LineSpec):
    """A line whose k-factor is estimated."""


# What a user may write for a line.
LineLike = LineSpec | float | str | tuple[float, float] | None


def line_specs(lines: Mapping[str, LineLike]) -> dict[str, LineSpec]:
    """Read a k-factor, a pair (k-factor, standard deviation), or None as a `LineSpec`.

    Examples
    --------
    >>> line_specs({"Pb_La": (4.4, 0.2)})["Pb_La"].k_factor_stddev
    0.2
    """
    specs = {}
    for name, value in lines.items():
        if isinstance(value, LineSpec):
            specs[name] = value
        elif isinstance(value, tuple | list) and len(value) == 2:
            specs[name] = LineSpec(float(value[0]), float(value[1]))
        elif value is None or isinstance(value, str) or np.isscalar(value):
            specs[name] = LineSpec(
                value if value is None or isinstance(value, str) else float(value)
            )
        else:
            raise ParameterError(
                f"'lines.{name}' is {value!r}, must be a k-factor, a pair (k-factor, standard "
                "deviation) or a LineSpec"
            )
    return specs


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
        try:
            energy = line_energy(name)
        except ParameterError as error:
            raise ParameterError(f"'lines.{name}': {error}") from None
        element = element_of(name)
        if element in seen:
            raise ParameterError(
                f"lines '{seen[element]}' and '{name}' are both of {element}; quantify an element "
                "by one line"
            )
        seen[element] = name
        for key, value, least, most in (
            ("k_factor", spec.k_factor, *_K_FACTORS),
            ("k_factor_stddev", spec.k_factor_stddev, 0.0, np.inf),
        ):
            if value is None or value == ESTIMATE:
                continue
            if isinstance(value, str) or not (np.isfinite(value) and least <= value <= most):
                allowed = (
                    f"a number from {least:g} to {most:g}, or '{ESTIMATE}'"
                    if least
                    else "0 or more"
                )
                shown = repr(value) if isinstance(value, str) else value
                raise ParameterError(f"'lines.{name}.{key}' is {shown}, must be {allowed}")
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
        for low, high in spec.background or ():
            if low <= energy <= high:
                raise ParameterError(
                    f"'lines.{name}.background' has [{low}, {high}] keV, which holds the line "
                    f"itself at {energy:.4g} keV; put it beside the line"
                )
        if spec.window is not None and not spec.window[0] <= energy <= spec.window[1]:
            raise ParameterError(
                f"'lines.{name}.window' is {list(spec.window)} keV, must hold the line at "
                f"{energy:.4g} keV"
            )


def check_reach(lines: Mapping[str, LineSpec], energy_range: Window) -> None:
    """Check that lines and the windows given lie on the energy axis.

    Parameters
    ----------
    lines : mapping of str to LineSpec
        Checked as `check_lines` does.
    energy_range : (low, high)
        Of the spectra, in keV.

    Raises
    ------
    ParameterError
        Naming the line or window.
    """
    first, last = energy_range
    axis = f"outside the energy axis, {first:.4g} to {last:.4g} keV"
    for name, spec in lines.items():
        energy = line_energy(name)
        if not first <= energy <= last:
            raise ParameterError(
                f"line '{name}' at {energy:.4g} keV lies {axis}; choose another line of "
                f"{element_of(name)}"
            )
        for key, windows in (("window", [spec.window]), ("background", spec.background or ())):
            for window in windows:
                if window is not None and (window[0] < first or window[1] > last):
                    raise ParameterError(
                        f"'lines.{name}.{key}' has [{window[0]:.6g}, {window[1]:.6g}] keV, {axis}"
                    )


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
    others = [element_of(name) for name in lines] + list(elements)
    check_reach(lines, energy_range)
    listed = strong_lines(others, energy_range, beam_energy=beam_energy)
    for name in lines:
        energy = line_energy(name)
        if beam_energy is not None and energy > beam_energy / 2:
            warn(
                f"Line '{name}' at {energy:.4g} keV is above half the beam energy of "
                f"{beam_energy:.4g} keV",
                "it is weakly excited, and k-factors for it are unreliable",
                f"use a line of {element_of(name)} at lower energy",
                rank=Rank.WORSE,
            )
        width = float(fwhm(energy, resolution)) / 1000
        close = [
            f"{other.replace('_', ' ')} ({1000 * (position - energy):+.0f} eV)"
            for other, position, _ in listed
            if element_of(other) != element_of(name) and abs(position - energy) < width
        ]
        if close and overlaps:
            warn(
                f"Line '{name}' at {energy:.4g} keV overlaps {', '.join(close)}",
                f"windows cannot separate them, and at% of {element_of(name)} is wrong",
                "use --intensities fit",
                rank=Rank.WRONG,
            )


def by_weight(lines: Mapping[str, LineSpec], unit: str) -> dict[str, LineSpec]:
    """Return lines whose k-factors are by weight, whatever they were given by.

    Parameters
    ----------
    lines : mapping of str to LineSpec
        Those without a number stay as they are.
    unit : {"weight", "atomic"}
        Percents that the k-factors given are for: an atomic one, ratio of atoms per ratio of
        intensities, becomes one by weight when multiplied by the atomic weight.

    Raises
    ------
    ParameterError
        If the unit is unknown.
    """
    from edxdenoise.xray import atomic_weight

    if unit not in K_FACTOR_UNITS:
        raise ParameterError(f"k_factor_unit '{unit}' must be {' or '.join(K_FACTOR_UNITS)}")
    converted = dict(lines)
    for name, spec in lines.items():
        if unit == "atomic" and isinstance(spec.k_factor, float | int):
            scale = atomic_weight(element_of(name))
            factor, stddev = spec.k_factor * scale, spec.k_factor_stddev * scale
            converted[name] = replace(spec, k_factor=factor, k_factor_stddev=stddev)
    return converted


def check_k_factors(lines: Mapping[str, LineSpec]) -> None:
    """Raise ParameterError where a line has no k-factor."""
    missing = [name for name, spec in lines.items() if not isinstance(spec.k_factor, float | int)]
    if missing:
        raise ParameterError(
            f"no k-factor for {', '.join(missing)}; give --k-factor {missing[0]}=VALUE, "
            f"--k-factor {ESTIMATE}, or k_factor in [lines.{missing[0]}]"
        )


def record_lines(
    ds: xr.Dataset, lines: Mapping[str, LineSpec], *, intensities: str, elements: Iterable[str]
) -> xr.Dataset:
    """Record in a Dataset how its lines are quantified, for `quantified_lines`.

    Parameters
    ----------
    ds : Dataset
        With ``line_intensity`` of these lines, in their order.
    lines : mapping of str to LineSpec
        With k-factors by weight.
    intensities, elements
        As `line_intensity` takes them.
    """
    specs = list(lines.values())
    factors = [spec.k_factor if isinstance(spec.k_factor, float | int) else None for spec in specs]
    origins = [
        "none" if k is None else "estimated" if isinstance(spec, EstimatedLine) else "given"
        for k, spec in zip(factors, specs)
    ]
    edges = np.full((len(specs), 6), np.nan)
    for row, spec in zip(edges, specs):
        ends = [*(spec.window or (np.nan, np.nan)), *np.ravel(spec.background or ())]
        row[: len(ends)] = ends
    how = {INTENSITIES_USED: intensities, ELEMENTS_USED: list(elements)}
    return ds.assign(
        {
            v.LINE_INTENSITY: ds[v.LINE_INTENSITY].assign_attrs(how),
            v.LINE_WINDOW: v.LINE_WINDOW.array(edges),
        }
    ).assign_coords(
        {
            v.COORD_K_FACTOR: (v.DIM_LINE, [np.nan if k is None else float(k) for k in factors]),
            v.COORD_K_FACTOR_STDDEV: (v.DIM_LINE, [spec.k_factor_stddev for spec in specs]),
            v.COORD_K_FACTOR_ORIGIN: (v.DIM_LINE, origins),
        }
    )


def quantified_lines(ds: xr.Dataset) -> dict[str, LineSpec]:
    """Return the lines by which a Dataset was quantified, with k-factors by weight.

    Parameters
    ----------
    ds : Dataset
        From `line_intensity`.
    """
    edges = np.full((ds.sizes[v.DIM_LINE], 6), np.nan)
    if v.LINE_WINDOW in ds:
        edges = ds[v.LINE_WINDOW].values
    found = {}
    for name, value, stddev, origin, row in zip(
        map(str, ds[v.DIM_LINE].values),
        ds[v.COORD_K_FACTOR].values,
        ds[v.COORD_K_FACTOR_STDDEV].values,
        ds[v.COORD_K_FACTOR_ORIGIN].values,
        edges,
    ):
        window, *background = (
            (float(low), float(high)) if np.isfinite(low) else None
            for low, high in row.reshape(3, 2)
        )
        given = tuple(each for each in background if each is not None)
        kind = EstimatedLine if origin == "estimated" else LineSpec
        factor = None if np.isnan(value) else float(value)
        found[name] = kind(factor, float(stddev), window, given or None)
    return found


def composed_lines(ds: xr.Dataset) -> dict[str, LineSpec]:
    """Return the lines of a Dataset that have a k-factor."""
    return with_factor(quantified_lines(ds))


def with_factor(lines: Mapping[str, LineSpec]) -> dict[str, LineSpec]:
    """Return the lines that have a k-factor."""
    return {name: spec for name, spec in lines.items() if spec.k_factor is not None}


def intensities_used(ds: xr.Dataset) -> str:
    """Return the integration method of a quantified Dataset."""
    return _how(ds, INTENSITIES_USED)


def elements_used(ds: xr.Dataset) -> list[str]:
    """Return the other elements that windows kept clear of, or that the fit included."""
    # Files of earlier versions hold all of them in one text.
    return " ".join(_how(ds, ELEMENTS_USED)).split()


def _how(ds: xr.Dataset, key: str) -> Any:
    attrs = ds[v.LINE_INTENSITY].attrs
    if key not in attrs:
        raise ParameterError(
            "the file does not say how its lines were quantified, as those of earlier versions; "
            "quantify it again"
        )
    return attrs[key]
