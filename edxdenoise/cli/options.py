"""Every option that more than one command takes, defined once, and how their text is read."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from edxdenoise.methods import DETECTOR_WINDOWS, ESTIMATE, INITS, LOSSES, PRESETS

F = TypeVar("F", bound=Callable[..., Any])


class PathType(click.Path):
    """A path whose existence the library checks: its message says more than click's."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)


class Range(click.ParamType):
    """``A:B`` as a pair of numbers, either of which may be left out for an open end."""

    def __init__(self, kind: type, metavar: str, example: str) -> None:
        self.kind = kind
        self.name = metavar
        self.example = example

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, tuple):
            return value
        # Pixels are counted from 0, energies may be negative.
        open_ends = (-math.inf if self.kind is float else 0, math.inf)
        try:
            low, high = (
                self.kind(part) if part.strip() else end
                for part, end in zip(value.split(":"), open_ends, strict=True)
            )
        except ValueError:
            self.fail(f"'{value}' must be written {self.name}, such as {self.example}", param, ctx)
        # Pixel numbers of different sign count from different ends: only the map can tell.
        if not low < high and (self.kind is float or (low < 0) == (high < 0)):
            self.fail(f"'{value}' must run from low to high", param, ctx)
        return low, high


class Numbers(click.ParamType):
    """``F,F,...`` as a tuple of numbers above 0."""

    name = "F,F,..."

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"'{value}' must be numbers written {self.name}", param, ctx)
        if not all(0 < number < math.inf for number in numbers):
            self.fail(f"'{value}' must be numbers above 0", param, ctx)
        return numbers


class Elements(click.ParamType):
    """``Pb,I`` as a tuple of symbols; whether there are such elements the library says."""

    name = "A,B,..."

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, tuple):
            return value
        symbols = tuple(part.strip() for part in value.split(","))
        if not all(symbol.isalpha() for symbol in symbols):
            self.fail(f"'{value}' must be symbols, such as Pb,I", param, ctx)
        return symbols


class KFactor(click.ParamType):
    """``Pb_La=4.374`` or ``Pb_La=4.374+-0.2`` as (line, value, standard deviation).

    ``estimate`` stands for a number, and alone for every line that has none (line ``""``).
    """

    name = "LINE=K[+-S]"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, tuple):
            return value
        if value == ESTIMATE:
            return "", ESTIMATE, 0.0
        line, _, numbers = value.partition("=")
        if line and numbers == ESTIMATE:
            return line, ESTIMATE, 0.0
        factor, _, stddev = numbers.replace("±", "+-").partition("+-")
        try:
            return line, float(factor), float(stddev or 0)
        except ValueError:
            self.fail(f"'{value}' must be written {self.name}, such as Pb_La=4.374", param, ctx)


class Number(click.ParamType):
    """A whole number from 1 up, or ``auto``."""

    name = "N"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, int) or value == "auto":
            return value
        try:
            number = int(value)
        except ValueError:
            number = 0
        if number < 1:
            self.fail(f"'{value}' must be a whole number from 1 up, or auto", param, ctx)
        return number


class Memory(click.ParamType):
    """``4GB`` or ``500MiB`` as bytes."""

    name = "SIZE"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        from edxdenoise.errors import ParameterError
        from edxdenoise.resources import parse_memory

        if isinstance(value, int):
            return value
        try:
            return parse_memory(value)
        except ParameterError as error:
            self.fail(str(error), param, ctx)


def _apply(function: F, *options: Callable[[F], F]) -> F:
    for option in reversed(options):
        function = option(function)
    return function


def file_argument(function: F) -> F:
    """One input file."""
    return click.argument("file", type=PathType())(function)


def signal_option(function: F) -> F:
    """Which signal of a file that holds several."""
    return click.option(
        "--signal", metavar="N", help="Which signal, by number or title, where there are several."
    )(function)


def window_option(function: F) -> F:
    """Options of what stands before the detector."""
    return click.option(
        "--detector-window",
        type=click.Choice(DETECTOR_WINDOWS),
        help="Window of the detector, for estimated k-factors of C, N, O and F.",
    )(function)


def overwrite_option(function: F) -> F:
    """Replace what is there."""
    return click.option("--overwrite", is_flag=True, help="Replace an output that exists.")(
        function
    )


def print_recipe_option(function: F) -> F:
    """The recipe of a command line, instead of its work."""
    return click.option(
        "--print-recipe", is_flag=True, help="Print the recipe that repeats this, and do nothing."
    )(function)


def json_option(function: F) -> F:
    """Machine-readable output."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")(
        function
    )


def seed_option(function: F) -> F:
    """Seed of all random numbers."""
    return click.option(
        "--seed",
        type=click.IntRange(min=0),
        metavar="N",
        default=0,
        show_default=True,
        help="Seed of all random numbers.",
    )(function)


def prepare_options(function: F) -> F:
    """Options of the preparation of the counts."""
    return _apply(
        function,
        click.option(
            "--energy",
            type=Range(float, "LO:HI", "0.1:13 or 0.1:"),
            help="Keep these energies in keV, such as 0.1:13.",
        ),
        click.option(
            "--rebin-energy",
            type=click.IntRange(min=1),
            default=1,
            metavar="N",
            help="Sum N neighbouring channels.",
        ),
        click.option(
            "--rebin-xy",
            type=click.IntRange(min=1),
            default=1,
            metavar="N",
            help="Sum N x N pixels.",
        ),
        click.option(
            "--crop-y",
            type=Range(int, "A:B", "0:100 or 10:"),
            help="Keep these rows, counted from 0, without B.",
        ),
        click.option(
            "--crop-x",
            type=Range(int, "A:B", "0:100 or 10:"),
            help="Keep these columns, counted from 0, without B.",
        ),
    )


def model_option(function: F) -> F:
    """Networks to ask in place of ours."""
    return click.option(
        "--model",
        multiple=True,
        metavar="FILE.keras",
        help="Network to ask in place of ours; several are averaged.",
    )(function)


def nmf_options(function: F) -> F:
    """Options that only ``--decomposition nmf`` takes."""
    return _apply(
        function,
        click.option(
            "--loss",
            type=click.Choice(LOSSES),
            default=LOSSES[0],
            show_default=True,
            help="What nmf lowers: squares of weighted data, or Poisson deviance of counts.",
        ),
        click.option(
            "--init",
            type=click.Choice(INITS),
            default=INITS[0],
            show_default=True,
            help="Where nmf starts.",
        ),
        click.option(
            "--start",
            multiple=True,
            metavar="FILE",
            help="Start nmf from these spectra: an earlier result, a phantom, or .msa files.",
        ),
        click.option(
            "--fix-spectrum",
            multiple=True,
            metavar="FILE.msa",
            help="Hold this spectrum as one of the components of nmf; may be repeated.",
        ),
        click.option(
            "--fix-element",
            multiple=True,
            metavar="SYMBOL",
            help="Hold the lines of this element as one of the components of nmf.",
        ),
        click.option(
            "--closure", is_flag=True, help="Let the shares of nmf add up to one in every pixel."
        ),
        click.option(
            "--tolerance",
            type=click.FloatRange(min=0, max=1, max_open=True),
            default=1e-6,
            show_default=True,
            help="End of nmf: an iteration lowers the objective by less than this share.",
        ),
        click.option(
            "--max-iterations",
            type=click.IntRange(min=1),
            default=500,
            show_default=True,
            metavar="N",
            help="End of nmf in any case; go on with --start.",
        ),
    )


def elements_option(function: F) -> F:
    """Elements that are there, found or not."""
    return click.option(
        "--elements",
        type=Elements(),
        default=(),
        help="Elements in the specimen besides those that are found.",
    )(function)


def preset_option(function: F) -> F:
    """Which phantom."""
    return click.option(
        "--preset",
        type=click.Choice(PRESETS),
        default=PRESETS[0],
        show_default=True,
        help="Which specimen.",
    )(function)


def _remember(context: click.Context, option: click.Parameter, value: Any) -> None:
    """Keep a value for `helpers.computing`, which no command needs to know."""
    if value is not None:
        context.meta[f"edxdenoise.{option.name}"] = value


def _be_patient(context: click.Context, option: click.Parameter, value: float | None) -> None:
    if value is not None:
        import dask

        dask.config.set({"edxdenoise.patience": value})


def compute_options(function: F) -> F:
    """Options of where and with how much memory a command computes."""
    return _apply(
        function,
        click.option(
            "--scheduler",
            default="threads",
            show_default=True,
            metavar="WHERE",
            help="threads, processes, the address of a Dask scheduler or its .json file.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            metavar="N",
            help="Threads or processes.  [default: one per processor]",
        ),
        click.option(
            "--memory-limit",
            type=Memory(),
            help="Memory to keep within, such as 4GB.  [default: half of what is free]",
        ),
        click.option(
            "--wait-for-workers",
            nargs=2,
            type=(click.IntRange(min=1), click.FloatRange(min=0)),
            metavar="N SECONDS",
            expose_value=False,
            callback=_remember,
            help="Wait for N workers of a Dask scheduler, SECONDS at most.  [default: 1 60]",
        ),
        click.option(
            "--patience",
            type=click.FloatRange(min=0, min_open=True),
            metavar="SECONDS",
            expose_value=False,
            callback=_be_patient,
            help="Time to parse a file.  [default: a minute, and one more for every 6 MB]",
        ),
    )
