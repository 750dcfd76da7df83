"""``edxdenoise denoise``: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edxdenoise.cli.helpers import Verbosity, computing, say
from edxdenoise.cli.options import (
    Number,
    Numbers,
    PathType,
    compute_options,
    elements_option,
    model_option,
    nmf_options,
    overwrite_option,
    prepare_options,
    print_recipe_option,
    seed_option,
    signal_option,
)
from edxdenoise.methods import DECOMPOSITIONS, SELECTORS, SOLVERS, SUBSPACES, WEIGHTINGS


@click.command()
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True, type=PathType())
@click.option("-o", "--output", required=True, type=PathType(), help="Result: .zarr, .nc or .hspy.")
@signal_option
@prepare_options
@click.option(
    "--exposure", type=Numbers(), help="Relative exposure of each INPUT; counts are not scaled."
)
@click.option(
    "--missing",
    multiple=True,
    metavar="MASK.tif",
    help="Image that is not 0 where a pixel of INPUT was not measured; one for each INPUT.",
)
@click.option("--weighting", type=click.Choice(WEIGHTINGS), default="poisson", show_default=True)
@click.option(
    "--decomposition", type=click.Choice(DECOMPOSITIONS), default="pca", show_default=True
)
@click.option(
    "--components",
    type=Number(),
    help="Components to compute; auto, for nmf, as many as --select selects of pca.  "
    "[default: 100 for pca, 4 for nmf]",
)
@click.option("--solver", type=click.Choice(SOLVERS), default="auto", show_default=True)
@click.option(
    "--subspace",
    type=click.Choice(SUBSPACES),
    default=SUBSPACES[0],
    show_default=True,
    help="Components found by neighbouring pixels, by single pixels, or both.",
)
@click.option(
    "--select",
    type=click.Choice(("auto", *SELECTORS)),
    default="auto",
    show_default=True,
    help="How components are selected; auto is cnn for pca, all for nmf.",
)
@click.option("--keep", metavar="1-4,8", help="Keep these components; beats --select.")
@model_option
@click.option(
    "--shrink/--no-shrink",
    default=True,
    show_default=True,
    help="Average the kept maps over pixels that are alike within their noise.",
)
@click.option(
    "--image",
    default="auto",
    show_default=True,
    metavar="auto|none|NAME",
    help="Image recorded with the counts, such as HAADF, that may guide the averaging.",
)
@elements_option
@nmf_options
@seed_option
@click.option(
    "--cube/--no-cube",
    default=True,
    show_default=True,
    help="Write the denoised counts; left out, they are rebuilt when the file is opened.",
)
@click.option("--report", type=PathType(), metavar="DIR", help="Write pictures that show why.")
@print_recipe_option
@overwrite_option
@compute_options
def denoise(
    inputs: tuple[Path, ...],
    output: Path,
    cube: bool,
    report: Path | None,
    print_recipe: bool,
    overwrite: bool,
    scheduler: str,
    workers: int | None,
    memory_limit: int | None,
    signal: str | None,
    exposure: tuple[float, ...] | None,
    missing: tuple[str, ...],
    **options: Any,
) -> None:
    """Denoise spectrum images: several INPUTs are stacked as areas of one map.

    \b
    edxdenoise denoise map.bcf -o map.zarr --report report
    edxdenoise denoise a.emi b.emi -o ab.nc --energy 0:13 --rebin-energy 4
    edxdenoise denoise map.bcf -o phases.zarr --decomposition nmf --components 4
    """
    from dataclasses import fields

    from edxdenoise.cli.components import print_components, say_image_gains
    from edxdenoise.errors import RecipeError
    from edxdenoise.jobs import run_recipe
    from edxdenoise.recipe import Denoise, Input, Output, Prepare, Recipe

    prepare = {field.name: options.pop(field.name) for field in fields(Prepare)}
    try:
        recipe = Recipe(
            Input(tuple(map(str, inputs)), signal, exposure, missing),
            Prepare(**prepare),
            Denoise(**options),
            output=Output(str(output), None if report is None else str(report), cube),
        )
    except RecipeError as error:
        raise click.UsageError(str(error).removeprefix("recipe: ")) from error
    if print_recipe:
        click.echo(recipe.to_toml(), nl=False)
        return
    with computing(scheduler, workers, memory_limit) as progress:
        result = run_recipe(
            recipe,
            overwrite=overwrite,
            memory_limit=memory_limit,
            workers=workers,
            progress=progress,
        )
    if Verbosity.level >= 0:
        print_components(result)
    say_image_gains(result)
    say(f"wrote {output}" + (f" and {report}" if report else ""))
