"""``edxdenoise compare``: several models of one input, judged by held-out counts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edxdenoise.cli.helpers import Computing, given, print_table, say
from edxdenoise.cli.options import (
    PathType,
    command,
    compute_options,
    json_option,
    overwrite_option,
    recipe_options,
    section_options,
)
from edxdenoise.config import Denoise, Input, Output, Prepare, Quantify

if TYPE_CHECKING:
    import xarray as xr

    from edxdenoise.io.vendor import Frames
    from edxdenoise.recipe import Recipe


@command(short_help="Compare models of INPUT by held-out counts.")
@click.argument("file", metavar="INPUT", type=PathType())
@section_options(Input, "signal", "frames")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME",
    help="pca:4 (components 1 to 4), pca:1-4,8, pca:elbow (or another selector), nmf:4, or "
    "denoise, for what that command does; twice or more.  [default: denoise, pca:4, pca:16, "
    "pca:cnn, nmf:4, nmf:16]",
)
@recipe_options(
    "Take all but the input from a recipe; options beat it.",
    "k-factor of a line, to judge at% by; once per element.",
)
@section_options(Quantify, "ratios", "intensities", "elements")
@section_options(Prepare)
@click.option(
    "--folds",
    type=click.Choice(["2", "4", "8", "16"]),
    default="8",
    show_default=True,
    help="Parts that are held out in turn: more take longer and come nearer to the full dose.",
)
@section_options(Denoise, "seed")
@section_options(Output, "report")
@json_option
@overwrite_option
@compute_options
def compare(
    file: Path,
    signal: str | None,
    frames: Frames | None,
    models: tuple[str, ...],
    recipe_file: Path | None,
    k_factors: tuple[tuple[str, float, float], ...],
    folds: str,
    seed: int,
    report: str | None,
    as_json: bool,
    overwrite: bool,
    computing: Computing,
    **options: Any,
) -> None:
    """Fit several models to INPUT and judge them by counts that they have not seen.

    \b
    edxdenoise compare map.bcf --energy 0.1:13 --report compared
    edxdenoise compare map.zarr --recipe cell.toml --model pca:4 --model pca:1-4,8 --model nmf:4
    """
    from edxdenoise.recipe import Recipe
    from edxdenoise.run import compare_file
    from edxdenoise.validation.models import DEFAULT_MODELS

    recipe = Recipe() if recipe_file is None else Recipe.from_file(recipe_file)
    recipe = _with_options(recipe.with_k_factors(k_factors), given({**options, "seed": seed}))
    recipe = replace(
        recipe,
        input=replace(
            recipe.input, files=(str(file),), signal=signal, frames=frames, exposure=None
        ),
        output=replace(recipe.output, report=report),
    )
    with computing.started() as progress:
        compared = compare_file(
            recipe,
            models or DEFAULT_MODELS,
            folds=int(folds),
            overwrite=overwrite,
            progress=progress,
            **computing.limits,
        )
    if as_json:
        from edxdenoise.report.verdicts import as_records

        click.echo(json.dumps(as_records(compared), indent=1))
    else:
        print_comparison(compared)
    if report is not None:
        say(f"wrote {report}")


def _with_options(recipe: Recipe, options: dict[str, Any]) -> Recipe:
    """Replace what a recipe says by the options of the same names."""
    from dataclasses import fields

    for name in ("prepare", "quantify", "denoise"):
        section = getattr(recipe, name)
        keys = {field.name for field in fields(section)} & options.keys()
        section = replace(section, **{key: options[key] for key in keys})
        recipe = replace(recipe, **{name: section})
    return recipe


def print_comparison(compared: xr.Dataset) -> None:
    """Models by held-out counts, quantities by model, and the sentences."""
    from edxdenoise.report.verdicts import (
        MODELS_CAPTION,
        QUANTITIES_CAPTION,
        model_table,
        quantity_table,
        verdict,
    )

    heads, rows = model_table(compared)
    print_table(MODELS_CAPTION, ["", *heads], rows)
    if "quantity_contrast" in compared:
        heads, rows = quantity_table(compared)
        click.echo()
        print_table(QUANTITIES_CAPTION, ["", *heads], rows)
    click.echo()
    for sentence in verdict(compared):
        click.echo(sentence)
