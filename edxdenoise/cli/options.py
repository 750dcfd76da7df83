"""Options of the command line: those that `edxdenoise.config` declares, and those of no recipe."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

import click

from edxdenoise.cli.helpers import Computing, Job
from edxdenoise.config import (
    ESTIMATE,
    PRESETS,
    Denoise,
    Input,
    Option,
    Output,
    Prepare,
    annotation,
    kind_of,
    options,
    parsed,
    split_keys,
)

if TYPE_CHECKING:
    from edxdenoise.recipe import Recipe

F = TypeVar("F", bound=Callable[..., Any])


class PathType(click.Path):
    """A path that the library checks: its messages say more than click's."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, readable=False)


class Configured(click.ParamType):
    """Text of an option that `edxdenoise.config` declares."""

    def __init__(self, section: type, name: str) -> None:
        self.section = section
        self.key = name
        self.name = kind_of(section, name).metavar

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return parsed(self.section, self.key, value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


COMPUTING = "Computing"


class Grouped(click.Option):
    """An option that the help shows under a heading."""

    def __init__(self, *args: Any, group: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose help lists its options under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write options by heading, those without one first."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if isinstance(param, click.Option) and record is not None:
                groups.setdefault(getattr(param, "group", ""), []).append(record)
        for title in sorted(groups, key=lambda title: title == COMPUTING):
            with formatter.section(title or "Options"):
                formatter.write_dl(groups[title])


command = functools.partial(click.command, cls=GroupedCommand)


def section_options(section: type, *names: str) -> Callable[[F], F]:
    """Add the options of a section of the recipe, all or those named, as config declares them."""

    def add(function: F) -> F:
        declared = options(section)
        for name in reversed(names or tuple(declared)):
            function = _option(section, name, declared[name])(function)
        return function

    return add


def _option(section: type, name: str, option: Option) -> Callable[[F], F]:
    """Return the decorator of one option."""
    hint, _ = annotation(section, name)
    default = {field.name: field.default for field in fields(section)}[name]
    flag = "--" + (option.flag or name).replace("_", "-")
    settings: dict[str, Any] = {
        "default": default,
        "help": option.help,
        "group": option.group or _HEADINGS[section.__name__],
        "cls": Grouped,
    }
    if hint is bool:
        if default:
            flag += f"/--no-{name.replace('_', '-')}"
            settings["show_default"] = True
        return click.option(flag, name, is_flag=True, **settings)
    if option.default:
        settings["help"] += f"  [default: {option.default}]"
    else:
        settings["show_default"] = default not in (None, ())
    if get_origin(hint) is Literal:
        settings["type"] = click.Choice(get_args(hint))
    elif get_origin(hint) is tuple and kind_of(section, name).read is str:
        settings |= {"multiple": True, "type": str}
    else:
        settings["type"] = Configured(section, name)
    if option.metavar:
        settings["metavar"] = option.metavar
    return click.option(flag, name, **settings)


_HEADINGS = {
    "Input": "Input",
    "Prepare": "Preparation",
    "Denoise": "Components",
    "Quantify": "Quantification",
    "Output": "Output",
}


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


def recipe_options(recipe_help: str, k_factor_help: str) -> Callable[[F], F]:
    """A recipe to start from, and k-factors that beat those in it."""
    return lambda function: _apply(
        function,
        click.option(
            "--recipe", "recipe_file", type=PathType(), metavar="FILE.toml", help=recipe_help
        ),
        click.option("--k-factor", "k_factors", type=KFactor(), multiple=True, help=k_factor_help),
    )


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


def recipe_of(inputs: Iterable[Path], values: dict[str, Any]) -> Recipe:
    """Return the recipe of what was typed: inputs, and options from reading to writing."""
    from edxdenoise.errors import RecipeError
    from edxdenoise.recipe import Recipe

    reading, preparing, denoising, writing = split_keys(values, Input, Prepare, Denoise, Output)
    try:
        return Recipe(
            Input(tuple(map(str, inputs)), **reading),
            Prepare(**preparing),
            Denoise(**denoising),
            output=Output(**writing),
        )
    except RecipeError as error:
        raise click.UsageError(str(error).removeprefix("recipe: ")) from error


def _apply(function: F, *options: Callable[[F], F]) -> F:
    for option in reversed(options):
        function = option(function)
    return function


def file_argument(function: F) -> F:
    """One input file."""
    return click.argument("file", type=PathType())(function)


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


def preset_option(function: F) -> F:
    """Which phantom."""
    return click.option(
        "--preset",
        type=click.Choice(PRESETS),
        default=PRESETS[0],
        show_default=True,
        help="Which specimen.",
    )(function)


def corpus_options(function: F) -> F:
    """Where labelled components come from: keywords of `edxdenoise.training.corpus.Sources`."""
    return _apply(
        function,
        click.argument("files", metavar="[FILE]...", nargs=-1, type=PathType()),
        click.option(
            "--simulated",
            type=click.IntRange(min=0),
            default=0,
            metavar="N",
            help="Phantoms to take components from.",
        ),
        click.option(
            "--labels",
            type=PathType(),
            metavar="FILE.csv",
            help="Labels of your own: file, component, signal or noise.",
        ),
        section_options(Denoise, "seed"),
        click.option(
            "--workers", type=click.IntRange(min=1), metavar="N", help="Processes.  [default: all]"
        ),
    )


def _be_patient(context: click.Context, option: click.Parameter, value: float | None) -> None:
    if value is not None:
        import dask

        dask.config.set({"edxdenoise.patience": value})


def compute_options(function: F) -> F:
    """Options of where and with how much memory a command computes, as its `computing`."""
    return _collected(function, Computing, "computing")


def resume_option(function: F) -> F:
    """Go on where a job was interrupted."""
    return click.option(
        "--resume",
        is_flag=True,
        help="Keep what takes long beside the output until that is written, and go on from what "
        "an interrupted run with this option left.",
    )(function)


def job_options(function: F) -> F:
    """Options of a command that does what a recipe says, as its `job`."""
    print_recipe = click.option(
        "--print-recipe", is_flag=True, help="Print the recipe that repeats this, and do nothing."
    )
    return print_recipe(overwrite_option(_collected(function, Job, "job")))


def _collected(function: Callable[..., Any], kind: type[Computing], name: str) -> Any:
    """Hand the options of computing to a command as one object."""

    @functools.wraps(function)
    def collecting(**options: Any) -> Any:
        own = {field.name: options.pop(field.name) for field in fields(kind)}
        return function(**{name: kind(**own)}, **options)

    computing = functools.partial(click.option, cls=Grouped, group=COMPUTING)
    return _apply(
        collecting,
        computing(
            "--scheduler",
            default="threads",
            show_default=True,
            metavar="WHERE",
            help="threads, processes, the address of a Dask scheduler or its .json file.",
        ),
        computing(
            "--workers",
            type=click.IntRange(min=1),
            metavar="N",
            help="Threads or processes.  [default: one per processor]",
        ),
        computing(
            "--memory-limit",
            type=Memory(),
            help="Memory to keep within, such as 4GB.  [default: half of what is free]",
        ),
        computing(
            "--wait-for-workers",
            nargs=2,
            type=(click.IntRange(min=1), click.FloatRange(min=0)),
            metavar="N SECONDS",
            help="Wait for N workers of a Dask scheduler, SECONDS at most.  [default: 1 60]",
        ),
        computing(
            "--patience",
            type=click.FloatRange(min=0, min_open=True),
            metavar="SECONDS",
            expose_value=False,
            callback=_be_patient,
            help="Time to parse a file.  [default: a minute, and one more for every 6 MB]",
        ),
    )
