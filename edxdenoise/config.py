"""Every option, declared once: its type, limits, default and help.

A field of a section is a key of the recipe, an option of the command line and a keyword of the
Python functions. To add an option, add a field here and use it where it acts.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from annotated_types import Ge, Gt, Lt
from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated

from edxdenoise.errors import RecipeError

Weighting = Literal["poisson", "none"]
Decomposition = Literal["pca", "nmf"]
Subspace = Literal["union", "neighbour", "pixel"]
Solver = Literal["auto", "covariance", "incremental", "randomized", "full"]
Selector = Literal["auto", "cnn", "spatial", "split", "edge", "elbow", "second-elbow", "all"]
Loss = Literal["frobenius", "poisson"]
Init = Literal["nndsvda", "random"]
Source = Literal["denoised", "counts"]
Pictures = Literal["png", "pdf", "svg"]
Intensities = Literal["fit", "windows-linear", "windows"]
KFactorUnit = Literal["weight", "atomic"]
DetectorWindow = Literal["none", "polymer"]
Estimate = Literal["estimate"]

WEIGHTINGS = get_args(Weighting)
DECOMPOSITIONS = get_args(Decomposition)
SUBSPACES = get_args(Subspace)
SOLVERS = get_args(Solver)
SELECTORS = get_args(Selector)[1:]
LOSSES = get_args(Loss)
INITS = get_args(Init)
SOURCES = get_args(Source)
INTENSITIES = get_args(Intensities)
K_FACTOR_UNITS = get_args(KFactorUnit)
DETECTOR_WINDOWS = get_args(DetectorWindow)
ESTIMATE: Estimate = "estimate"

PRESETS = ("solar-cell", "nanoparticles", "core-shell", "layers-gradient", "mineral")
IMAGES = ("specimen", "unrelated")
NETWORKS = ("default", "article")


@dataclass(frozen=True)
class Kind:
    """How values of a type are written.

    Parameters
    ----------
    allowed : str
        What an error message says a value must be.
    metavar : str
        How the help of the command line writes it.
    read : callable
        Make a value from the text of the command line; raises ValueError.
    """

    allowed: str
    metavar: str = ""
    read: Callable[[str], Any] = str


@dataclass(frozen=True)
class Option:
    """How a field appears on the command line.

    Parameters
    ----------
    help : str
        One plain sentence.
    group : str
        Heading of the help under which it stands; by default that of its section.
    flag : str
        Name of the option; by default that of the field.
    default : str
        What the help calls the default, where the value does not say it.
    metavar : str
        How the help writes a value; by default as its kind does.
    only : str
        The one decomposition that takes it; by default both.
    """

    help: str
    group: str = ""
    flag: str = ""
    default: str = ""
    metavar: str = ""
    only: str = ""


def _plain(text: str) -> str:
    if "\0" in text:
        raise ValueError
    return text


def _ascending(limits: tuple[float, float]) -> tuple[float, float]:
    if not limits[0] < limits[1]:
        raise ValueError
    return limits


def _pixels(limits: tuple[int, int | float]) -> tuple[int, int | float]:
    first, end = limits
    # Numbers of different sign count from different ends: only the map can tell.
    if not (isinstance(end, int) or end == math.inf):
        raise ValueError
    if (first < 0) == (end < 0) and not first < end:
        raise ValueError
    return limits


def _components(text: str) -> str:
    if not re.fullmatch(r"\s*\d+\s*(-\s*\d+\s*)?(,\s*\d+\s*(-\s*\d+\s*)?)*", text):
        raise ValueError
    return text


def _different(texts: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(texts)) < len(texts):
        raise ValueError
    return texts


def _read_range(kind: type, text: str) -> tuple[Any, Any]:
    """Read ``A:B``; either end may be left out. Pixels count from 0, energies may be negative."""
    open_ends = (-math.inf if kind is float else 0, math.inf)
    low, high = (
        kind(part) if part.strip() else end
        for part, end in zip(text.split(":"), open_ends, strict=True)
    )
    return low, high


def _read_count(text: str) -> int | str:
    return text if text == "auto" else int(text)


def _read_symbols(text: str) -> tuple[str, ...]:
    symbols = tuple(part.strip() for part in text.split(","))
    if not all(symbol.isalpha() for symbol in symbols):
        raise ValueError
    return symbols


Text = Annotated[
    str, AfterValidator(_plain), Kind("text in quotes, without null characters", "TEXT")
]
Whole = Annotated[int, Ge(0), Kind("a whole number, 0 or more", "N", int)]
Positive = Annotated[int, Ge(1), Kind("a whole number, 1 or more", "N", int)]
Count = Annotated[
    Positive | Literal["auto"], Kind("a whole number, 1 or more, or 'auto'", "N", _read_count)
]
Share = Annotated[float, Ge(0), Lt(1), Kind("a number from 0 to below 1", "SHARE", float)]
Level = Annotated[float, Ge(0), Lt(math.inf), Kind("a number, 0 or more", "N", float)]
Window = tuple[float, float]
Energies = Annotated[
    Window,
    AfterValidator(_ascending),
    Kind(
        "two numbers from low to high, such as 0.1:13 or [0.1, 13]",
        "LO:HI",
        functools.partial(_read_range, float),
    ),
]
# First pixel and the one after the last, as Python counts them; infinite for an open end.
Pixels = Annotated[
    tuple[int, int | float],
    AfterValidator(_pixels),
    Kind(
        "whole numbers from low to high, such as 0:100 or [0, 100], the last one inf or left out "
        "for an open end",
        "A:B",
        functools.partial(_read_range, int),
    ),
]
Exposures = Annotated[
    tuple[Annotated[float, Gt(0), Lt(math.inf)], ...],
    Kind(
        "numbers above 0, such as 0.83,1 or [0.83, 1]",
        "F,F,...",
        lambda text: tuple(map(float, text.split(","))),
    ),
]
Components = Annotated[
    str,
    AfterValidator(_components),
    Kind("component numbers in quotes, such as '1-4,8,10'", "1-4,8"),
]
Symbols = Annotated[
    tuple[Text, ...], Kind("symbols of elements, such as Pb,I", "A,B,...", _read_symbols)
]
Texts = tuple[Text, ...]

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def section(cls: type[T]) -> type[T]:
    """Make a class a section of the recipe: frozen, every value checked, one clear error."""
    made: Any = validated(frozen=True, config=ConfigDict(strict=True))(cls)
    init = made.__init__
    names = [field.name for field in dataclasses.fields(made)]

    @functools.wraps(init)
    def checked(self: Any, *values: Any, **named: Any) -> None:
        given = _tuples(dict(zip(names, values)) | named)
        table = cls.__name__.lower()
        check_keys(given, names, f"{table}.")
        try:
            init(self, **given)
        except ValidationError as error:
            hints = get_type_hints(cls, include_extras=True)
            raise _explained(error, hints, given, table) from None

    made.__init__ = checked
    return made


def check_keys(given: dict[str, Any], names: list[str], path: str = "") -> None:
    """Raise RecipeError for a key that there is not, with the nearest that there is."""
    for key in given:
        if key not in names:
            near = difflib.get_close_matches(key, names, 1)
            hint = f"; did you mean '{path}{near[0]}'?" if near else ""
            raise RecipeError(
                f"recipe: unknown key '{path}{key}'; allowed are {', '.join(names)}{hint}"
            )


def split_keys(values: dict[str, Any], *sections: type) -> list[dict[str, Any]]:
    """Return what of `values` belongs to each section.

    Raises
    ------
    RecipeError
        If a key is of none of them.

    Examples
    --------
    >>> split_keys({"energy": (0, 13), "seed": 1}, Prepare, Denoise)
    [{'energy': (0, 13)}, {'seed': 1}]
    """
    names = [[field.name for field in dataclasses.fields(each)] for each in sections]
    check_keys(values, [name for each in names for name in each])
    return [{key: values[key] for key in each if key in values} for each in names]


def checked_fields(cls: Any, values: dict[str, Any], path: str) -> Any:
    """Return an instance of a dataclass `cls` made from `values` as a section checks them."""
    names = [field.name for field in dataclasses.fields(cls)]
    check_keys(values, names, f"{path}.")
    try:
        # A validated dataclass is another class than `cls`, and would not equal its instances.
        checked = validated(frozen=True, config=ConfigDict(strict=True))(cls)(**_tuples(values))
        return cls(**{name: getattr(checked, name) for name in names})
    except ValidationError as error:
        raise _explained(error, get_type_hints(cls, include_extras=True), values, path) from None


@functools.cache
def annotation(cls: type, name: str) -> tuple[Any, list[Any]]:
    """Return the type of a field, without None, and what is annotated to it and to its type."""
    notes: list[Any] = []
    hint = get_type_hints(cls, include_extras=True)[name]
    while True:
        if get_origin(hint) is Annotated:
            hint, *more = get_args(hint)
            notes += more
        elif type(None) in get_args(hint):
            (hint,) = (each for each in get_args(hint) if each is not type(None))
        else:
            return hint, notes


def kind_of(cls: type, name: str) -> Kind:
    """Return how values of a field are written."""
    hint, notes = annotation(cls, name)
    kinds = [note for note in notes if isinstance(note, Kind)]
    if kinds:
        return kinds[0]
    return Kind(_allowed(hint))


def parsed(cls: type, name: str, text: str) -> Any:
    """Return the value of a field that is written as text.

    Raises
    ------
    ValueError
        Saying what is allowed.

    Examples
    --------
    >>> parsed(Prepare, "energy", "0.1:")
    (0.1, inf)
    >>> parsed(Prepare, "rebin_xy", "0")
    Traceback (most recent call last):
    ...
    ValueError: '0' must be a whole number, 1 or more
    """
    kind = kind_of(cls, name)
    hint = get_type_hints(cls, include_extras=True)[name]
    try:
        return TypeAdapter(hint, config=ConfigDict(strict=True)).validate_python(kind.read(text))
    except ValueError:
        raise ValueError(f"'{text}' must be {kind.allowed}") from None


@functools.cache
def options(cls: type) -> dict[str, Option]:
    """Return the fields of a section that are options of the command line."""
    found = {}
    for name in get_type_hints(cls):
        for note in annotation(cls, name)[1]:
            if isinstance(note, Option):
                found[name] = note
    return found


_TYPES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text in quotes",
}


def _allowed(hint: Any) -> str:
    """Say what a value of a type must be.

    Examples
    --------
    >>> _allowed(tuple[float, float])
    'a list in brackets, a number and a number'
    """
    if get_origin(hint) is Annotated:
        for note in get_args(hint)[1:]:
            if isinstance(note, Kind):
                return note.allowed
        return _allowed(get_args(hint)[0])
    parts = get_args(hint)
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(parts) if len(parts) > 1 else repr(parts[0])
    if get_origin(hint) is tuple:
        each = [_allowed(part) for part in parts if part is not Ellipsis]
        return "a list in brackets, " + (
            f"each {each[0]}" if Ellipsis in parts else " and ".join(each)
        )
    if parts:
        return " or ".join(_allowed(part) for part in parts if part is not type(None))
    return _TYPES[hint]


def _explained(
    error: ValidationError, hints: dict[str, Any], values: dict[str, Any], path: str
) -> RecipeError:
    """Return pydantic's first finding as one line of ours."""
    first = error.errors()[0]
    inner = first.get("ctx", {}).get("error")
    if isinstance(inner, RecipeError):
        return inner
    key = str(first["loc"][0])
    shown = lists(values[key])
    return RecipeError(f"recipe: '{path}.{key}' is {shown!r}, must be {_allowed(hints[key])}")


def _tuples(value: Any) -> Any:
    """TOML and people write lists where a frozen value is a tuple."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value


def lists(value: Any) -> Any:
    """Return a value as TOML writes it: lists in place of tuples."""
    return [lists(item) for item in value] if isinstance(value, tuple) else value


@section
class Input:
    """``[input]``: what is read. Several files are stacked as areas, in this order."""

    files: Texts = ()
    signal: Annotated[
        Text | None,
        Option("Take this signal, by number or title, where a file holds several.", metavar="N"),
    ] = None
    frames: Annotated[
        Pixels | None,
        Option(
            "Sum these frames alone, counted from 0, without B (.pts, .emd, .zarr that keeps them)."
        ),
    ] = None
    exposure: Annotated[
        Exposures | None, Option("Relative exposure of each INPUT; counts are not scaled.")
    ] = None
    missing: Annotated[
        Texts,
        Option(
            "Image that is not 0 where a pixel of INPUT was not measured; one for each INPUT.",
            metavar="MASK.tif",
        ),
    ] = ()

    def __post_init__(self) -> None:
        if self.missing and len(self.missing) != len(self.files):
            raise RecipeError(
                f"recipe: 'input.missing' names {len(self.missing)} masks for {len(self.files)} "
                "files; name one mask for each file, in the same order"
            )


@section
class Prepare:
    """``[prepare]``: what is done to the counts before they are decomposed."""

    energy: Annotated[Energies | None, Option("Keep these energies in keV, such as 0.1:13.")] = None
    rebin_energy: Annotated[Positive, Option("Sum N neighbouring channels.")] = 1
    rebin_xy: Annotated[Positive, Option("Sum N x N pixels.")] = 1
    crop_y: Annotated[Pixels | None, Option("Keep these rows, counted from 0, without B.")] = None
    crop_x: Annotated[Pixels | None, Option("Keep these columns, counted from 0, without B.")] = (
        None
    )


_SMOOTHING = "Smoothing"
_NMF = "Components, with --decomposition nmf"


@section
class Denoise:
    """``[denoise]``: how the counts are decomposed and which components are kept."""

    weighting: Annotated[Weighting, Option("Weights of pixels and channels.")] = "poisson"
    decomposition: Annotated[Decomposition, Option("Decomposition of the map.")] = "pca"
    components: Annotated[
        Count | None,
        Option(
            "Components to compute; auto, for nmf, as many as --select selects of pca.",
            default="100 for pca, 4 for nmf",
        ),
    ] = None
    solver: Annotated[Solver, Option("Solver of pca.", only="pca")] = "auto"
    subspace: Annotated[
        Subspace,
        Option("Components found by neighbouring pixels, by single pixels, or both.", only="pca"),
    ] = "union"
    select: Annotated[
        Selector,
        Option("How components are selected.", default="cnn for pca, all for nmf"),
    ] = "auto"
    keep: Annotated[Components | None, Option("Keep these components; beats --select.")] = None
    model: Annotated[
        Texts,
        Option(
            "Use this network instead of the built-in one; repeat to average several.",
            metavar="FILE.keras",
            only="pca",
        ),
    ] = ()
    shrink: Annotated[
        bool,
        Option(
            "Smooth the kept maps as far as their noise asks for; if not, each is weighted by its "
            "signal over signal plus noise (but with subspace pixel).",
            _SMOOTHING,
            only="pca",
        ),
    ] = True
    image: Annotated[
        Text,
        Option(
            "Image recorded with the counts, such as HAADF, that may guide the smoothing.",
            _SMOOTHING,
            metavar="auto|none|NAME",
            only="pca",
        ),
    ] = "auto"
    elements: Annotated[
        Symbols, Option("Elements in the specimen besides those that are found.")
    ] = ()
    seed: Annotated[Whole, Option("Seed of all random numbers.")] = 0
    loss: Annotated[
        Loss,
        Option(
            "NMF loss: squares of weighted data, or Poisson deviance of counts.", _NMF, only="nmf"
        ),
    ] = "frobenius"
    init: Annotated[Init, Option("Start of the iteration.", _NMF, only="nmf")] = "nndsvda"
    start: Annotated[
        Texts,
        Option(
            "Start from the spectra of this file: an earlier result, a phantom or .msa.",
            _NMF,
            metavar="FILE",
            only="nmf",
        ),
    ] = ()
    fix_spectrum: Annotated[
        Texts,
        Option(
            "Hold this spectrum as a component; repeatable.",
            _NMF,
            metavar="FILE.msa",
            only="nmf",
        ),
    ] = ()
    fix_element: Annotated[
        Texts,
        Option(
            "Hold the lines of this element as a component; repeatable.",
            _NMF,
            metavar="SYMBOL",
            only="nmf",
        ),
    ] = ()
    closure: Annotated[
        bool, Option("Let the abundances of every pixel add up to one.", _NMF, only="nmf")
    ] = False
    tolerance: Annotated[
        Share,
        Option(
            "End when an iteration lowers the objective by less than this share.", _NMF, only="nmf"
        ),
    ] = 1e-6
    max_iterations: Annotated[
        Positive, Option("End after N iterations in any case.", _NMF, only="nmf")
    ] = 500

    def __post_init__(self) -> None:
        counted = self.decomposition == "nmf" and self.components == "auto"
        if self.select == "auto":
            # A recipe says what was done, whatever the default becomes later.
            chosen = "cnn" if self.decomposition == "pca" else "elbow" if counted else "all"
            object.__setattr__(self, "select", chosen)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in self.unused and value != field.default:
                raise RecipeError(
                    f"recipe: 'denoise.{field.name}' is {lists(value)!r}, which "
                    f"{self.decomposition} has no use for; leave it out"
                )
        if self.decomposition == "pca":
            if self.components == "auto":
                raise RecipeError(
                    "recipe: 'denoise.components' is 'auto', which is for nmf; with pca it must be "
                    "a whole number"
                )
        elif counted == (self.select == "all"):
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
        return tuple(
            name
            for name, option in options(Denoise).items()
            if option.only not in ("", self.decomposition)
        )

    @property
    def asks_neighbours(self) -> bool:
        """Whether components are looked for among neighbouring pixels."""
        return self.decomposition == "pca" and self.subspace != "pixel"

    @property
    def averages(self) -> bool:
        """Whether like pixels are to be averaged; without weights there are no profiles of them."""
        return self.decomposition == "pca" and self.weighting == "poisson" and self.shrink

    @property
    def weights_components(self) -> bool:
        """Whether each kept component gets one weight; pixelwise ones are above their noise."""
        return self.asks_neighbours and self.weighting == "poisson" and not self.shrink


@section
class Quantify:
    """``[quantify]``: how counts become compositions. The lines are in ``[lines.NAME]``."""

    ratios: Annotated[
        Annotated[Texts, AfterValidator(_different), Kind("different ratios")],
        Option("Ratio of atomic percents; repeatable.", flag="ratio", metavar="A/B"),
    ] = ()
    source: Annotated[Source, Option("Data to integrate.")] = "denoised"
    intensities: Annotated[Intensities, Option("Integration method.")] = "fit"
    elements: Annotated[
        Symbols, Option("Elements in the specimen besides those that are found.")
    ] = ()
    k_factor: Estimate | None = None
    k_factor_unit: Annotated[KFactorUnit, Option("Percents that k-factors are for.")] = "weight"
    detector_window: Annotated[
        DetectorWindow | None,
        Option("Window of the detector, for estimated k-factors of C, N, O and F."),
    ] = None
    correct_energy: Annotated[bool, Option("Move the energy axis to where known peaks are.")] = (
        False
    )
    vacuum_counts: Annotated[
        Level | None,
        Option("Mean counts of a pixel of vacuum: mask pixels that show no more."),
    ] = None
    regions: Annotated[
        Texts,
        Option(
            "Composition of these pixels, counted from 0, of a polygon NAME=Y,X Y,X Y,X, or of the "
            "regions in a TIFF of labels, ImageJ .roi or GeoJSON; repeatable.",
            flag="region",
            metavar="NAME=Y0:Y1,X0:X1|FILE",
        ),
    ] = ()
    profiles: Annotated[
        Texts,
        Option(
            "Composition along a line, W pixels wide, in steps of a pixel; repeatable.",
            flag="profile",
            metavar="Y0,X0:Y1,X1[,W]",
        ),
    ] = ()


@section
class Output:
    """``[output]``: where the result and its report go, and whether with ``counts_denoised``."""

    file: Text | None = None
    report: Annotated[Text | None, Option("Write a report into this folder.", metavar="DIR")] = None
    cube: Annotated[
        bool,
        Option("Write the denoised counts; left out, they are rebuilt when the file is opened."),
    ] = True
    pictures: Annotated[Pictures, Option("Format of the pictures of the report.")] = "png"
