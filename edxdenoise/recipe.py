"""The recipe: one frozen, validated object that says how a result was made, and its TOML."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_type_hints

from edxdenoise.errors import RecipeError
from edxdenoise.methods import DECOMPOSITIONS, SELECTORS, SOLVERS, WEIGHTINGS

_ALLOWED = {
    "weighting": WEIGHTINGS,
    "decomposition": DECOMPOSITIONS,
    "solver": SOLVERS,
    "select": SELECTORS,
}


@dataclass(frozen=True)
class Input:
    """``[input]``: what is read. Several files are stacked as areas, in this order."""

    files: tuple[str, ...] = ()
    signal: str | None = None
    exposure: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Prepare:
    """``[prepare]``: what is done to the counts before they are decomposed."""

    energy: tuple[float, float] | None = None
    rebin_energy: int = 1
    rebin_xy: int = 1
    crop_y: tuple[int, int] | None = None
    crop_x: tuple[int, int] | None = None


@dataclass(frozen=True)
class Denoise:
    """``[denoise]``: how the counts are decomposed and which components are kept."""

    weighting: str = "poisson"
    decomposition: str = "pca"
    components: int | None = None
    solver: str = "auto"
    select: str = "split"
    keep: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class Output:
    """``[output]``: where the result and its pictures go."""

    file: str | None = None
    report: str | None = None


@dataclass(frozen=True)
class Recipe:
    """All of it, as contract 3 of the design says.

    Examples
    --------
    >>> recipe = Recipe.from_toml('[denoise]\\nselect = "elbow"')
    >>> recipe.denoise.select
    'elbow'
    >>> Recipe.from_toml('[denoise]\\nselct = "elbow"')
    Traceback (most recent call last):
    ...
    edxdenoise.errors.RecipeError: recipe: unknown key 'denoise.selct'; allowed are weighting, ...
    """

    input: Input = field(default_factory=Input)
    prepare: Prepare = field(default_factory=Prepare)
    denoise: Denoise = field(default_factory=Denoise)
    output: Output = field(default_factory=Output)

    @classmethod
    def from_toml(cls, text: str, *, name: str = "recipe") -> Recipe:
        """Read a recipe from TOML text; `name` is what errors call it.

        Raises
        ------
        RecipeError
            Naming the key, its value and what is allowed.
        """
        try:
            tables = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise RecipeError(f"{name}: not valid TOML: {error}") from error
        return _build(cls, tables, name, "")

    @classmethod
    def from_file(cls, path: str | Path) -> Recipe:
        """Read a recipe from a file.

        Raises
        ------
        RecipeError
            If the file cannot be read, or as `from_toml`.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path}: cannot be read as a recipe: {error}") from error
        return cls.from_toml(text, name=str(path))

    def to_toml(self) -> str:
        """TOML text that `from_toml` makes the same recipe of."""
        import tomli_w

        tables = {
            section.name: {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in dataclasses.asdict(getattr(self, section.name)).items()
                if value is not None
            }
            for section in dataclasses.fields(self)
        }
        return tomli_w.dumps({name: table for name, table in tables.items() if table})


def _build(cls: Any, table: Any, name: str, path: str) -> Any:
    """An object of dataclass `cls` from a TOML table, every key checked against its type."""
    if not isinstance(table, dict):
        raise RecipeError(f"{name}: '{path}' is {table!r}, must be a table [{path}]")
    hints = get_type_hints(cls)
    values = {}
    for key, value in table.items():
        full = f"{path}.{key}" if path else key
        if key not in hints:
            raise RecipeError(f"{name}: unknown key '{full}'; allowed are {', '.join(hints)}")
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            values[key] = _build(hint, value, name, full)
        else:
            values[key] = _check_value(value, hint, name, full)
    built = cls(**values)
    _check_choices(built, name, path)
    return built


_TYPE_NAMES = {int: "a whole number", float: "a number", str: "text in quotes"}


def _check_value(value: Any, hint: Any, name: str, full: str) -> Any:
    kinds = [kind for kind in get_args(hint) if kind is not type(None)] or [hint]
    kind = kinds[0] if len(kinds) == 1 else hint
    items = get_args(kind)
    if items:
        count = None if items[-1] is Ellipsis else len(items)
        what = _TYPE_NAMES[items[0]]
        if (
            not isinstance(value, list)
            or (count is not None and len(value) != count)
            or not all(_is(item, items[0]) for item in value)
        ):
            raise RecipeError(
                f"{name}: '{full}' is {value!r}, must be a list of "
                f"{what if count is None else f'{count} values, each {what}'}"
            )
        return tuple(items[0](item) for item in value)
    if not _is(value, kind):
        raise RecipeError(f"{name}: '{full}' is {value!r}, must be {_TYPE_NAMES[kind]}")
    return kind(value)


def _is(value: Any, kind: type) -> bool:
    # TOML's true is Python's True, which is an int.
    if isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if kind is float else kind)


def _check_choices(built: Any, name: str, path: str) -> None:
    for key, allowed in _ALLOWED.items():
        value = getattr(built, key, allowed[0])
        if value not in allowed:
            raise RecipeError(
                f"{name}: '{path}.{key}' is {value!r}, must be one of {', '.join(allowed)}"
            )
    for key in ("rebin_energy", "rebin_xy", "components"):
        value = getattr(built, key, None)
        if value is not None and value < 1:
            raise RecipeError(f"{name}: '{path}.{key}' is {value}, must be 1 or more")
    for key in ("energy", "crop_y", "crop_x"):
        limits = getattr(built, key, None)
        if limits is not None and not limits[0] < limits[1]:
            raise RecipeError(
                f"{name}: '{path}.{key}' is {list(limits)}, must run from low to high"
            )
    for value in getattr(built, "exposure", None) or ():
        if not value > 0:
            raise RecipeError(f"{name}: '{path}.exposure' has {value}, must be above 0")
