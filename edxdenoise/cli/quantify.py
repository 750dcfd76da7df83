"""``edxdenoise quantify``: at% maps and ratios with errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edxdenoise.cli.helpers import Verbosity, computing, given, print_table, say
from edxdenoise.cli.options import (
    KFactor,
    PathType,
    command,
    compute_options,
    file_argument,
    overwrite_option,
    print_recipe_option,
    section_options,
)
from edxdenoise.config import Input, Output, Quantify

if TYPE_CHECKING:
    import xarray as xr

    from edxdenoise.recipe import Recipe


@command()
@file_argument
@click.option("-o", "--output", type=PathType(), required=True, help="Maps: .zarr or .nc.")
@section_options(Input, "signal")
@click.option(
    "--recipe",
    "recipe_file",
    type=PathType(),
    metavar="FILE.toml",
    help="Take [lines] and [quantify] from a recipe; options beat it.",
)
@click.option(
    "--k-factor",
    "k_factors",
    type=KFactor(),
    multiple=True,
    help="k-factor of a line, with its error if known; once per element. 'estimate' alone: of all "
    "others by theory, where that is honest. None: maps of net counts.",
)
@section_options(Quantify)
@section_options(Output, "report")
@print_recipe_option
@overwrite_option
@compute_options
def quantify(
    file: Path,
    output: Path,
    signal: str | None,
    recipe_file: Path | None,
    k_factors: tuple[tuple[str, float | str, float], ...],
    print_recipe: bool,
    overwrite: bool,
    scheduler: str,
    workers: int | None,
    memory_limit: int | None,
    **options: Any,
) -> None:
    """Turn a denoised FILE (or counts) into maps of net counts, at% and ratios, with errors.

    \b
    edxdenoise quantify map.zarr -o maps.zarr
    edxdenoise quantify map.zarr -o maps.zarr --k-factor estimate
    edxdenoise quantify map.zarr -o maps.zarr --k-factor Pb_La=4.37 --k-factor I_La=3.41
    edxdenoise quantify map.zarr -o maps.zarr --recipe solar-cell.toml --report quantified
    """
    from edxdenoise.jobs import quantify_file
    from edxdenoise.recipe import Recipe

    recipe = Recipe() if recipe_file is None else Recipe.from_file(recipe_file)
    recipe = recipe.with_k_factors(k_factors)
    recipe = replace(
        recipe,
        quantify=replace(recipe.quantify, **given(options)),
        input=Input((str(file),), signal),
        output=Output(str(output), options.pop("report")),
    )
    if print_recipe:
        click.echo(recipe.to_toml(), nl=False)
        return
    with computing(scheduler, workers, memory_limit) as progress:
        maps = quantify_file(
            recipe,
            overwrite=overwrite,
            memory_limit=memory_limit,
            workers=workers,
            progress=progress,
        )
    if Verbosity.level >= 0:
        print_regions(maps, recipe)
    say(f"wrote {output}" + (f" and {recipe.output.report}" if recipe.output.report else ""))


def print_regions(ds: xr.Dataset, recipe: Recipe) -> None:
    """Print composition and ratios of the map, its areas, phases and regions, with n and counts."""
    from edxdenoise.quantification import region_table
    from edxdenoise.quantification.resolve import EstimatedLine, quantified_lines
    from edxdenoise.report.text import number_words, region_words, with_error

    lines = quantified_lines(ds, recipe.lines)
    table = region_table(
        ds,
        lines,
        k_factor_unit=recipe.quantify.k_factor_unit,
        ratios=recipe.quantify.ratios,
    )
    columns: dict[str, list[str]] = {}
    for region, own in table.groupby("region", sort=False):
        first = own.iloc[0]
        numbers = [f"{first['pixels']:,}", number_words(first["counts"])]
        columns[str(region)] = [
            *numbers,
            *(region_words(row).replace("−", "-") for _, row in own.iterrows()),
        ]
    heads = ["pixels", "counts", *dict.fromkeys(table["quantity"])]
    # The longer side goes down the page.
    if len(columns) > len(heads):
        print_table("", ["", *heads], [[name, *cells] for name, cells in columns.items()])
    else:
        rows = [[head, *cells] for head, cells in zip(heads, zip(*columns.values()))]
        print_table("", ["", *columns], rows)
    if "true" in table:
        whole = table[table["kind"] == "map"]
        rows = [
            [row["quantity"], region_words(row).replace("−", "-"), f"{row['true']:.3g}"]
            for _, row in whole.iterrows()
        ]
        print_table("Whole map of the phantom", ["", "measured", "true"], rows)
    if (table["kind"] == "phase").any():
        say("phases: found with one half of the counts, composition from the other")
    estimated = {name: spec for name, spec in lines.items() if isinstance(spec, EstimatedLine)}
    if estimated:
        factors = ", ".join(
            f"{name.replace('_', ' ')} "
            + with_error(float(spec.k_factor or 0), spec.k_factor_stddev).replace("−", "-")
            for name, spec in estimated.items()
        )
        click.echo(f"estimated k-factors: {factors}; their errors are part of those of at%")
    composed = [spec for spec in lines.values() if spec.k_factor is not None]
    if composed and not any(spec.k_factor_stddev for spec in composed):
        say("errors include counting statistics only (no k-factor uncertainties were given)")
    if not composed:
        say("net counts; for at% give k-factors, or --k-factor estimate")
