"""``edxdenoise run``: all that a recipe says."""

from __future__ import annotations

from pathlib import Path

import click

from edxdenoise.cli.helpers import Job
from edxdenoise.cli.options import (
    PathType,
    command,
    job_options,
    resume_option,
)


@command(short_help="Do all that RECIPE.toml says.")
@click.argument("recipe_file", metavar="RECIPE.toml", type=PathType())
@resume_option
@job_options
def run(
    recipe_file: Path,
    resume: bool,
    job: Job,
) -> None:
    """Do what RECIPE.toml says, from files to maps and pictures.

    Paths in the recipe start from the folder it lies in.

    \b
    edxdenoise run data/solar-cell.toml
    """
    from edxdenoise.recipe import Recipe
    from edxdenoise.run import run_recipe

    recipe = Recipe.from_file(recipe_file)
    job.do(run_recipe, recipe, folder=recipe_file.parent, resume=resume)
