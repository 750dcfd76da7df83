"""Every option that more than one command takes, defined once, and how their text is read."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from edxdenoise.methods import PRESETS

F = TypeVar("F", bound=Callable[..., Any])


class PathType(click.Path):
    """A path whose existence the library checks: its message says more than click's."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)


class Range(click.ParamType):
    """``A:B`` as a pair of numbers; an open end is infinite where numbers may be."""

    def __init__(self, kind: type, metavar: str) -> None:
        self.kind = kind
        self.name = metavar

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, tuple):
            return value
        parts = value.split(":")
        if len(parts) != 2:
            self.fail(f"'{value}' must be written {self.name}", param, ctx)
        open_ends = (-math.inf, math.inf)
        try:
            low, high = (
                open_ends[i] if part == "" and self.kind is float else self.kind(part)
                for i, part in enumerate(parts)
            )
        except ValueError:
            self.fail(f"'{value}' must be two numbers written {self.name}", param, ctx)
        if not low < high:
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


class Memory(click.ParamType):
    """``4GB`` or ``500MiB`` as bytes."""

    name = "SIZE"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        from edxdenoise.compute import parse_memory
        from edxdenoise.errors import ParameterError

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


def overwrite_option(function: F) -> F:
    """Replace what is there."""
    return click.option("--overwrite", is_flag=True, help="Replace an output that exists.")(
        function
    )


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
        default=0,
        show_default=True,
        help="Seed of all random numbers.",
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


def compute_options(function: F) -> F:
    """Where and with how much memory a command computes."""
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
    )
