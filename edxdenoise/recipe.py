"""The recipe: one frozen, validated object that says how a result was made, and its TOML."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from edxdenoise.errors import ParameterError, RecipeError
from edxdenoise.methods import DEFAULT_SELECTORS, SUBSPACES
from edxdenoise.quantification import LineSpec, check_lines
from edxdenoise.recipe_values import Pixels, Section, Window, checked

_PCA_KEYS = ("solver", "subspace", "model", "shrink", "image")
_NMF_KEYS = (
    "loss",
    "init",
    "start",
    "fix_spectrum",
    "fix_element",
    "closure",
    "tolerance",
    "max_iterations",
)


@dataclass(frozen=True)
class Input(Section):
    """``[input]``: what is read. Several files are stacked as areas, in this order.

    ``missing`` names a mask for each file: an image that is not 0 where a pixel was not measured.
    """

    files: tuple[str, ...] = ()
    signal: str | None = None
    exposure: tuple[float, ...] | None = None
    missing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.missing and len(self.missing) != len(self.files):
            raise RecipeError(
                f"recipe: 'input.missing' names {len(self.missing)} masks for {len(self.files)} "
                "files; name one mask for each file, in the same order"
            )


@dataclass(frozen=True)
class Prepare(Section):
    """``[prepare]``: what is done to the counts before they are decomposed."""

    energy: tuple[float, float] | None = None
    rebin_energy: int = 1
    rebin_xy: int = 1
    crop_y: Pixels | None = None
    crop_x: Pixels | None = None


@dataclass(frozen=True)
class Denoise(Section):
    """``[denoise]``: how the counts are decomposed and which components are kept."""

    weighting: str = "poisson"
    decomposition: str = "pca"
    components: int | str | None = None
    solver: str = "auto"
    subspace: str = SUBSPACES[0]
    select: str = "auto"
    keep: str | None = None
    model: tuple[str, ...] = ()
    shrink: bool = True
    image: str = "auto"
    elements: tuple[str, ...] = ()
    seed: int = 0
    loss: str = "frobenius"
    init: str = "nndsvda"
    start: tuple[str, ...] = ()
    fix_spectrum: tuple[str, ...] = ()
    fix_element: tuple[str, ...] = ()
    closure: bool = False
    tolerance: float = 1e-6
    max_iterations: int = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        counted = self.decomposition == "nmf" and self.components == "auto"
        if self.select == "auto":
            # A recipe says what was done, whatever the default becomes later.
            chosen = "elbow" if counted else DEFAULT_SELECTORS[self.decomposition]
            object.__setattr__(self, "select", chosen)
        self._check_unused()
        if self.decomposition == "pca":
            if self.components == "auto":
                raise RecipeError(
                    "recipe: 'denoise.components' is 'auto', which is for nmf; with pca it must be "
                    "a whole number"
                )
            return
        if counted == (self.select == "all"):
            raise RecipeError(
                f"recipe: 'denoise.select' is {self.select!r}, which "
                + (
                    "counts no components; with components 'auto' name another selector"
                    if counted
                    else "judges principal components; with nmf it must be 'all', or components "
                    "'auto' for as many as it selects"
                )
            )

    @property
    def unused(self) -> tuple[str, ...]:
        """Keys that the other decomposition alone takes."""
        return _PCA_KEYS if self.decomposition == "nmf" else _NMF_KEYS

    @property
    def asks_neighbours(self) -> bool:
        """Whether components are looked for among neighbouring pixels."""
        return self.decomposition == "pca" and self.subspace != "pixel"

    @property
    def averages(self) -> bool:
        """Whether like pixels are to be averaged; without weights there are no profiles of them."""
        return self.decomposition == "pca" and self.weighting == "poisson" and self.shrink

    def _check_unused(self) -> None:
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for key in self.unused:
            value = getattr(self, key)
            if value != defaults[key]:
                shown = _listed(value)
                raise RecipeError(
                    f"recipe: 'denoise.{key}' is {shown!r}, which {self.decomposition} has no use "
                    "for; leave it out"
                )


@dataclass(frozen=True)
class Quantify(Section):
    """``[quantify]``: how counts become compositions. The lines are in ``[lines.NAME]``."""

    ratios: tuple[str, ...] = ()
    source: str = "denoised"
    intensities: str = "fit"
    elements: tuple[str, ...] = ()
    k_factor: str | None = None
    k_factor_unit: str = "weight"
    detector_window: str | None = None
    correct_energy: bool = False
    vacuum_counts: float | None = None
    regions: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Output(Section):
    """``[output]``: where the result and its pictures go, and whether with ``counts_denoised``."""

    file: str | None = None
    report: str | None = None
    cube: bool = True


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
loss, init, start, fix_spectrum, fix_element, closure, tolerance, max_iterations
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
                quantify = dataclasses.replace(quantify, k_factor=str(value))
                continue
            if self.lines and name not in self.lines:
                raise RecipeError(
                    f"k-factor of '{name}' is not used: the lines of the recipe are "
                    f"{', '.join(self.lines)}"
                )
            spec = lines.get(name, LineSpec())
            lines[name] = dataclasses.replace(spec, k_factor=value, k_factor_stddev=stddev)
        return dataclasses.replace(self, lines=_checked_lines(lines, "recipe"), quantify=quantify)


def _table(section: Any) -> dict[str, Any]:
    """Return one table of the recipe as TOML writes it."""
    values = dataclasses.asdict(section)
    if isinstance(section, Denoise):
        values = {key: value for key, value in values.items() if key not in section.unused}
    return {key: _listed(value) for key, value in values.items() if value is not None}


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, tuple) else value


def _build(tables: dict[str, Any], name: str) -> Recipe:
    """A recipe from the tables of a TOML file."""
    sections = get_type_hints(Recipe)
    _check_keys(tables, sections, name, "")
    built: dict[str, Any] = {}
    for title, table in tables.items():
        if not isinstance(table, dict):
            raise RecipeError(f"{name}: '{title}' is {table!r}, must be a table [{title}]")
        if title == "lines":
            built[title] = _lines(table, name)
            continue
        _check_keys(table, get_type_hints(sections[title]), name, f"{title}.")
        try:
            built[title] = sections[title](**table)
        except RecipeError as error:
            raise RecipeError(name + str(error).removeprefix("recipe")) from error
    return Recipe(**built)


def _check_keys(table: dict[str, Any], allowed: dict[str, Any], name: str, path: str) -> None:
    for key in table:
        if key not in allowed:
            raise RecipeError(
                f"{name}: unknown key '{path}{key}'; allowed are {', '.join(allowed)}"
            )


def _lines(tables: dict[str, Any], name: str) -> dict[str, LineSpec]:
    """Lines from the tables ``[lines.NAME]``."""
    hints = get_type_hints(LineSpec)
    lines = {}
    for line, table in tables.items():
        path = f"lines.{line}"
        if not isinstance(table, dict):
            raise RecipeError(f"{name}: '{path}' is {table!r}, must be a table [{path}]")
        _check_keys(table, hints, name, f"{path}.")
        values: dict[str, Any] = {}
        for key, value in table.items():
            full = f"{path}.{key}"
            try:
                if key == "background":
                    if not isinstance(value, list):
                        raise RecipeError(
                            f"recipe: '{full}' is {value!r}, must be a list of [low, high] in keV"
                        )
                    values[key] = tuple(checked(each, Window, full) for each in value)
                else:
                    values[key] = checked(value, hints[key], full)
            except RecipeError as error:
                raise RecipeError(name + str(error).removeprefix("recipe")) from error
        lines[line] = LineSpec(**values)
    return _checked_lines(lines, name)


def _checked_lines(lines: dict[str, LineSpec], name: str) -> dict[str, LineSpec]:
    if lines:
        try:
            check_lines(lines)
        except ParameterError as error:
            raise RecipeError(f"{name}: {error}") from error
    return lines
