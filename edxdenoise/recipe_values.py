"""Allowed values of a recipe: their types, and the limits that types do not state."""

from __future__ import annotations

import math
import re
from types import UnionType
from typing import Any, get_args, get_type_hints

from edxdenoise.errors import RecipeError
from edxdenoise.methods import (
    DECOMPOSITIONS,
    DETECTOR_WINDOWS,
    ESTIMATE,
    INITS,
    INTENSITIES,
    K_FACTOR_UNITS,
    LOSSES,
    SELECTORS,
    SOLVERS,
    SOURCES,
    SUBSPACES,
    WEIGHTINGS,
)

_ALLOWED = {
    "weighting": WEIGHTINGS,
    "decomposition": DECOMPOSITIONS,
    "solver": SOLVERS,
    "subspace": SUBSPACES,
    "loss": LOSSES,
    "init": INITS,
    "select": ("auto", *SELECTORS),
    "source": SOURCES,
    "intensities": INTENSITIES,
    "k_factor_unit": K_FACTOR_UNITS,
    "k_factor": (ESTIMATE,),
    "detector_window": DETECTOR_WINDOWS,
}
_KEEP = re.compile(r"\s*\d+\s*(-\s*\d+\s*)?(,\s*\d+\s*(-\s*\d+\s*)?)*")

# First pixel and the one after the last, as Python counts them; infinite for an open end.
Pixels = tuple[int, int | float]
Window = tuple[float, float]


class Section:
    """A table of the recipe: every value is checked when it is made, by whatever way."""

    def __post_init__(self) -> None:
        table = type(self).__name__.lower()
        for key, hint in get_type_hints(type(self)).items():
            value = checked(getattr(self, key), hint, f"{table}.{key}")
            object.__setattr__(self, key, value)
            _check_possible(key, value, f"{table}.{key}")


_TYPE_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    int | float: "a whole number or inf",
    str: "text in quotes",
    int | str: "a whole number or text in quotes",
    float | str: "a number or text in quotes",
}


def checked(value: Any, hint: Any, key: str) -> Any:
    """`value` as the type that `hint` asks for: tuples of lists, float of int."""
    kinds = get_args(hint)
    if type(None) in kinds:
        if value is None:
            return None
        hint = kinds[0] | str if str in kinds and len(kinds) > 2 else kinds[0]
    if isinstance(hint, UnionType):
        if not any(_is(value, kind) for kind in get_args(hint)):
            raise RecipeError(f"recipe: '{key}' is {value!r}, must be {_TYPE_NAMES[hint]}")
        # A whole number may stand for a number, but pixels stay whole.
        return float(value) if hint == float | str and not isinstance(value, str) else value
    items = get_args(hint)
    if not items:
        if not _is(value, hint):
            raise RecipeError(f"recipe: '{key}' is {value!r}, must be {_TYPE_NAMES[hint]}")
        return hint(value)
    many = items[-1] is Ellipsis
    if many and isinstance(value, (list, tuple)):
        items = items[:1] * len(value)
    if (
        not isinstance(value, (list, tuple))
        or len(value) != len(items)
        or not all(map(_is, value, items))
    ):
        names = [_TYPE_NAMES[item] for item in items if item is not Ellipsis]
        shape = f"each {names[0]}" if many else " and ".join(names)
        raise RecipeError(f"recipe: '{key}' is {value!r}, must be a list in brackets, {shape}")
    return tuple(float(item) if kind is float else item for item, kind in zip(value, items))


def _is(value: Any, kind: Any) -> bool:
    # TOML's true is Python's True, which is an int.
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _check_possible(key: str, value: Any, full: str) -> None:
    """Check what the type of a value does not say."""
    if value is None:
        return
    allowed = ""
    texts = [item for item in (value if isinstance(value, tuple) else (value,)) if item]
    if any(isinstance(item, str) and "\0" in item for item in texts):
        allowed = "text without null characters"
    elif key == "ratios" and len(set(value)) < len(value):
        allowed = "different ratios"
    elif key in _ALLOWED and value not in _ALLOWED[key]:
        allowed = f"one of {', '.join(_ALLOWED[key])}"
    elif key in ("rebin_energy", "rebin_xy", "max_iterations") and value < 1:
        allowed = "1 or more"
    elif key == "components" and value != "auto" and (isinstance(value, str) or value < 1):
        allowed = "1 or more, or 'auto'"
    elif key == "tolerance" and not 0 <= value < 1:
        allowed = "from 0 to below 1"
    elif key == "seed" and value < 0:
        allowed = "0 or more"
    elif key == "keep" and not _KEEP.fullmatch(value):
        allowed = "component numbers such as '1-4,8,10'"
    elif key == "vacuum_counts" and not 0 <= value < math.inf:
        allowed = "0 or more"
    elif key == "exposure" and not all(0 < factor < math.inf for factor in value):
        allowed = "numbers above 0"
    elif key == "energy" and not value[0] < value[1]:
        allowed = "from low to high"
    elif key in ("crop_y", "crop_x"):
        first, end = value
        whole = isinstance(end, int) or end == math.inf
        # Numbers of different sign count from different ends: only the map can tell.
        if not whole or (first < 0) == (end < 0) and not first < end:
            allowed = "whole numbers from low to high, the last one inf for an open end"
    if allowed:
        shown = list(value) if isinstance(value, tuple) else value
        raise RecipeError(f"recipe: '{full}' is {shown!r}, must be {allowed}")
