"""``edxdenoise quantify``: at% maps and ratios with errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edxdenoise.cli.helpers import Job, given
from edxdenoise.cli.options import (
    PathType,
    command,
    file_argument,
    job_options,
    recipe_options,
    section_options,
)
from edxdenoise.config import Input, Output, Pictures, Quantify

if TYPE_CHECKING:
    from edxdenoise.io.vendor import Frames


@command(short_help="Make maps of net counts, at% and ratios, with errors.")
@file_argument
@click.option("-o", "--output", type=PathType(), required=True, help="Maps: .zarr, .nc or .hspy.")
@section_options(Input, "signal", "frames")
@recipe_options(
    "Take [lines] and [quantify] from a recipe; options beat it.",
    "k-factor of a line, with its error if known; once per element. 'estimate' alone: of all "
    "others by theory, where that is honest. None: maps of net counts.",
)
@section_options(Quantify)
@section_options(Output, "report", "pictures")
@job_options
def quantify(
    file: Path,
    output: Path,
    signal: str | None,
    frames: Frames | None,
    report: str | None,
    pictures: Pictures,
    recipe_file: Path | None,
    k_factors: tuple[tuple[str, float | str, float], ...],
    job: Job,
    **options: Any,
) -> None:
    """Turn a denoised FILE (or counts) into maps of net counts, at% and ratios, with errors.

    \b
    edxdenoise quantify map.zarr -o maps.zarr
    edxdenoise quantify map.zarr -o maps.zarr --k-factor estimate
    edxdenoise quantify map.zarr -o maps.zarr --k-factor Pb_La=4.37 --k-factor I_La=3.41
    edxdenoise quantify map.zarr -o maps.zarr --recipe solar-cell.toml --report quantified
    """
    from edxdenoise.recipe import Recipe
    from edxdenoise.run import quantify_file

    recipe = Recipe() if recipe_file is None else Recipe.from_file(recipe_file)
    recipe = recipe.with_k_factors(k_factors)
    recipe = replace(
        recipe,
        quantify=replace(recipe.quantify, **given(options)),
        input=Input((str(file),), signal, frames),
        output=Output(str(output), report, pictures=pictures),
    )
    job.do(quantify_file, recipe)
