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
    recipe_of,
    resume_option,
    section_options,
)
from edxdenoise.config import Denoise, Input, Output, Prepare


@command(short_help="Denoise spectrum images.")
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True, type=PathType())
@click.option("-o", "--output", required=True, type=PathType(), help="Result: .zarr, .nc or .hspy.")
@section_options(Input)
@section_options(Prepare)
@section_options(Denoise)
@section_options(Output)
@resume_option
@job_options
def denoise(
    inputs: tuple[Path, ...],
    output: Path,
    resume: bool,
    job: Job,
    **options: Any,
) -> None:
    """Denoise spectrum images: several INPUTs are stacked as areas of one map.

    \b
    edxdenoise denoise map.bcf -o map.zarr --report report
    edxdenoise denoise a.emi b.emi -o ab.nc --energy 0:13 --rebin-energy 4
    edxdenoise denoise map.bcf -o phases.zarr --decomposition nmf --components 4
    """
    from edxdenoise.run import run_recipe

    job.do(run_recipe, recipe_of(inputs, {"file": str(output), **options}), resume=resume)
