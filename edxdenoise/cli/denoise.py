"""``edxdenoise denoise``: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edxdenoise.cli.helpers import Job
from edxdenoise.cli.options import (
    PathType,
    command,
    job_options,
    section_options,
)
from edxdenoise.config import Denoise, Input, Output, Prepare, split_keys


@command(short_help="Denoise spectrum images.")
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True, type=PathType())
@click.option("-o", "--output", required=True, type=PathType(), help="Result: .zarr, .nc or .hspy.")
@section_options(Input)
@section_options(Prepare)
@section_options(Denoise)
@section_options(Output)
@job_options
def denoise(
    inputs: tuple[Path, ...],
    output: Path,
    job: Job,
    **options: Any,
) -> None:
    """Denoise spectrum images: several INPUTs are stacked as areas of one map.

    \b
    edxdenoise denoise map.bcf -o map.zarr --report report
    edxdenoise denoise a.emi b.emi -o ab.nc --energy 0:13 --rebin-energy 4
    edxdenoise denoise map.bcf -o phases.zarr --decomposition nmf --components 4
    """
    from edxdenoise.errors import RecipeError
    from edxdenoise.recipe import Recipe
    from edxdenoise.run import run_recipe

    reading, preparing, denoising, writing = split_keys(options, Input, Prepare, Denoise, Output)
    try:
        recipe = Recipe(
            Input(tuple(map(str, inputs)), **reading),
            Prepare(**preparing),
            Denoise(**denoising),
            output=Output(str(output), **writing),
        )
    except RecipeError as error:
        raise click.UsageError(str(error).removeprefix("recipe: ")) from error
    job.do(run_recipe, recipe)
