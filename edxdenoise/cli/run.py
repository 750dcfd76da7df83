"""``edxdenoise run``: all that a recipe says."""

from __future__ import annotations

from pathlib import Path

import click

from edxdenoise.cli.helpers import Verbosity, computing
from edxdenoise.cli.options import (
    PathType,
    command,
    compute_options,
    overwrite_option,
    print_recipe_option,
)


@command(short_help="Do all that RECIPE.toml says.")
@click.argument("recipe_file", metavar="RECIPE.toml", type=PathType())
@print_recipe_option
@overwrite_option
@compute_options
def run(
    recipe_file: Path,
    print_recipe: bool,
    overwrite: bool,
    scheduler: str,
    workers: int | None,
    memory_limit: int | None,
) -> None:
    """Do what RECIPE.toml says, from files to maps and pictures.

    Paths in the recipe start from the folder it lies in.

    \b
    edxdenoise run data/solar-cell.toml
    """
    from edxdenoise.cli.summaries import (
        denoised_facts,
        print_composition,
        print_facts,
        say_written,
    )
    from edxdenoise.recipe import Recipe
    from edxdenoise.run import run_recipe

    recipe = Recipe.from_file(recipe_file)
    if print_recipe:
        click.echo(recipe.to_toml(), nl=False)
        return
    with computing(scheduler, workers, memory_limit) as progress:
        result = run_recipe(
            recipe,
            folder=recipe_file.parent,
            overwrite=overwrite,
            memory_limit=memory_limit,
            workers=workers,
            progress=progress,
        )
    if Verbosity.level >= 0:
        print_facts(denoised_facts(result))
        if recipe.quantifies:
            click.echo()
            print_composition(result)
    say_written(name for name in (recipe.output.file, recipe.output.report) if name)
