"""``edxdenoise plan``: what denoising a file will take."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from edxdenoise.cli.helpers import Computing, print_table
from edxdenoise.cli.options import (
    PathType,
    command,
    compute_options,
    json_option,
    recipe_of,
    section_options,
)
from edxdenoise.config import Denoise, Input, Output, Prepare


@command(short_help="Tell what denoising files will take.")
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True, type=PathType())
@section_options(Input)
@section_options(Prepare)
@section_options(Denoise)
@section_options(Output, "cube", "report")
@json_option
@compute_options
def plan(
    inputs: tuple[Path, ...],
    as_json: bool,
    computing: Computing,
    **options: Any,
) -> None:
    """Tell what denoising INPUTs will take on this machine: memory, disk, passes, time.

    Small parts of the map are denoised for trial; nothing is written.

    \b
    edxdenoise plan map.bcf --workers 2
    """
    from edxdenoise.plan import plan_file

    with computing.started() as progress:
        made = plan_file(recipe_of(inputs, options), progress=progress, **computing.limits)
    if as_json:
        click.echo(json.dumps({**asdict(made), "seconds": made.seconds}, indent=1))
        return
    from edxdenoise.resources import format_memory

    where = "held in memory" if made.held else "read block by block"
    needed = made.memory.in_memory if made.held else made.memory.streamed
    for name, text in {
        "shape": " x ".join(map(str, made.shape)),
        "counts": f"{format_memory(made.memory.cube)}, {where}",
        "memory": format_memory(needed),
        "output": f"about {format_memory(made.disk)}",
        "time": f"about {made.seconds:.0f} s, within a factor of 2 or so",
    }.items():
        click.echo(f"{name:10}{text}")
    click.echo()
    rows = [[each.name, f"{each.passes:.3g}", f"{each.seconds:.1f}"] for each in made.stages]
    print_table("", ["name", "passes", "seconds"], rows)
