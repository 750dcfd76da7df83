"""The recipe: one frozen, validated object that says how a result was made, and its TOML."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from edxdenoise.config import (
    ESTIMATE,
    Denoise,
    Input,
    Output,
    Prepare,
    Quantify,
    check_keys,
    checked_fields,
    lists,
)
from edxdenoise.errors import ParameterError, RecipeError
from edxdenoise.quantification import LineSpec, check_lines


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
    edxdenoise.errors.RecipeError: recipe: unknown key 'denoise.selct'; allowed are weighting, \
decomposition, components, solver, subspace, select, keep, model, shrink, image, elements, seed, \
loss, init, start, fix_spectrum, fix_element, closure, tolerance, max_iterations; did you mean \
'denoise.select'?
    """

    input: Input = field(default_factory=Input)
    prepare: Prepare = field(default_factory=Prepare)
    denoise: Denoise = field(default_factory=Denoise)
    lines: Mapping[str, LineSpec] = field(default_factory=dict)
    quantify: Quantify = field(default_factory=Quantify)
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
        except RecursionError as error:
            raise RecipeError(f"{name}: brackets are nested too deep; no key needs that") from error
        return _build(tables, name)

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

        tables: dict[str, Any] = {}
        for section in dataclasses.fields(self):
            value = getattr(self, section.name)
            if isinstance(value, Mapping):
                tables[section.name] = {name: _table(spec) for name, spec in value.items()}
            else:
                tables[section.name] = _table(value)
        return tomli_w.dumps({name: table for name, table in tables.items() if table})

    @property
    def quantifies(self) -> bool:
        """Whether counts are to be turned into compositions."""
        return bool(self.lines) or self.quantify.k_factor is not None

    def with_k_factors(self, factors: Iterable[tuple[str, float | str, float]]) -> Recipe:
        """Put k-factors (line, value, standard deviation) into the recipe.

        A value may be ``"estimate"``, and the line then be empty for all lines without one.

        Raises
        ------
        RecipeError
            If the recipe has lines of its own and one named is not among them.
        """
        lines = dict(self.lines)
        quantify = self.quantify
        for name, value, stddev in factors:
            if not name:
                quantify = dataclasses.replace(quantify, k_factor=ESTIMATE)
                continue
            if self.lines and name not in self.lines:
                raise RecipeError(
                    f"k-factor of '{name}' is not used: the lines of the recipe are "
                    f"{', '.join(self.lines)}"
                )
            spec = lines.get(name, LineSpec())
            lines[name] = dataclasses.replace(spec, k_factor=value, k_factor_stddev=stddev)
        return dataclasses.replace(self, lines=_checked_lines(lines), quantify=quantify)


def _table(section: Any) -> dict[str, Any]:
    """Return one table of the recipe as TOML writes it."""
    values = dataclasses.asdict(section)
    if isinstance(section, Denoise):
        values = {key: value for key, value in values.items() if key not in section.unused}
    return {key: lists(value) for key, value in values.items() if value is not None}


def _build(tables: dict[str, Any], name: str) -> Recipe:
    """Return a recipe made from the tables of a TOML file."""
    sections = get_type_hints(Recipe)
    built: dict[str, Any] = {}
    try:
        check_keys(tables, list(sections))
        for title, table in tables.items():
            if not isinstance(table, dict):
                raise RecipeError(f"recipe: '{title}' is {table!r}, must be a table [{title}]")
            built[title] = _lines(table) if title == "lines" else sections[title](**table)
    except RecipeError as error:
        raise RecipeError(name + str(error).removeprefix("recipe")) from error
    return Recipe(**built)


def _lines(tables: dict[str, Any]) -> dict[str, LineSpec]:
    """Return lines made from the tables ``[lines.NAME]``."""
    lines = {}
    for line, table in tables.items():
        path = f"lines.{line}"
        if not isinstance(table, dict):
            raise RecipeError(f"recipe: '{path}' is {table!r}, must be a table [{path}]")
        lines[line] = checked_fields(LineSpec, table, path)
    return _checked_lines(lines)


def _checked_lines(lines: dict[str, LineSpec]) -> dict[str, LineSpec]:
    if lines:
        try:
            check_lines(lines)
        except ParameterError as error:
            raise RecipeError(f"recipe: {error}") from error
    return lines
