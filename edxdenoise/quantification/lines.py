"""Which lines are quantified: their names, windows and k-factors, and what overlaps them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from edxdenoise.config import ESTIMATE
from edxdenoise.errors import ParameterError, Rank, warn
from edxdenoise.xray import fwhm, line_energy
from edxdenoise.xray.families import Window, element_of, strong_lines

# Tabulated ones lie between 0.1 and 10 or so; far beyond, sums of concentrations overflow.
_K_FACTORS = (1e-6, 1e6)


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
    missing = [name for name, spec in lines.items() if not isinstance(spec.k_factor, float | int)]
    if missing:
        raise ParameterError(
            f"no k-factor for {', '.join(missing)}; give --k-factor {missing[0]}=VALUE, "
            f"--k-factor {ESTIMATE}, or k_factor in [lines.{missing[0]}]"
        )
    factors = {}
    for name, spec in lines.items():
        scale = atomic_weight(element_of(name)) if unit == "atomic" else 1.0
        assert isinstance(spec.k_factor, float | int)
        factors[name] = (spec.k_factor * scale, spec.k_factor_stddev * scale)
    return factors
