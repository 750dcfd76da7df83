"""The command line: one module per command, whose body parses, calls the library and prints."""

from __future__ import annotations

import difflib
import importlib
from typing import Any

import click

from edxdenoise._version import __version__
from edxdenoise.cli.helpers import Verbosity, plain_errors

_COMMANDS = (
    "info",
    "elements",
    "convert",
    "plan",
    "denoise",
    "components",
    "classify",
    "quantify",
    "kfactors",
    "compare",
    "run",
    "lines",
    "report",
    "review",
    "simulate",
    "train",
    "evaluate",
    "demo",
)


class _Commands(click.Group):
    """Commands in the order of the work, each from the module of its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        return getattr(importlib.import_module(f"edxdenoise.cli.{name}"), name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        near = difflib.get_close_matches(args[0], _COMMANDS, 1)
        if args[0] not in _COMMANDS and near:
            ctx.fail(f"There is no command '{args[0]}'; did you mean '{near[0]}'?")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with plain_errors():
            return super().invoke(ctx)


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--verbose", count=True, help="Say more; -vv shows tracebacks.")
@click.option("-q", "--quiet", is_flag=True, help="Only errors, and what was asked to be shown.")
@click.version_option(__version__, prog_name="edxdenoise")
def main(verbose: int, quiet: bool) -> None:
    """Denoised, quantified data sets from noisy EDX spectrum images.

    \b
    edxdenoise denoise map.bcf -o map.zarr --report report
    """
    Verbosity.level = -1 if quiet else verbose
