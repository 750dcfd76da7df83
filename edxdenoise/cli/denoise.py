"""``edxdenoise denoise``: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edxdenoise.cli.helpers import computing
from edxdenoise.cli.options import (
    Numbers,
    PathType,
    Range,
    compute_options,
    overwrite_option,
    seed_option,
    signal_option,
)
from edxdenoise.methods import DECOMPOSITIONS, SELECTORS, SOLVERS, WEIGHTINGS


@click.command()
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True, type=PathType())
@click.option("-o", "--output", required=True, type=PathType(), help="Result: .zarr, .nc or .hspy.")
@signal_option
@click.option(
    "--energy", type=Range(float, "LO:HI"), help="Keep these energies in keV, such as 0.1:13."
)
@click.option(
    "--rebin-energy", type=click.IntRange(min=1), default=1, metavar="N", help="Sum N channels."
)
@click.option(
    "--rebin-xy", type=click.IntRange(min=1), default=1, metavar="N", help="Sum N x N pixels."
)
@click.option("--crop-y", type=Range(int, "A:B"), help="Keep these rows, counted from 0.")
@click.option("--crop-x", type=Range(int, "A:B"), help="Keep these columns, counted from 0.")
@click.option(
    "--exposure", type=Numbers(), help="Relative exposure of each INPUT; counts are not scaled."
)
@click.option("--weighting", type=click.Choice(WEIGHTINGS), default="poisson", show_default=True)
@click.option(
    "--decomposition", type=click.Choice(DECOMPOSITIONS), default="pca", show_default=True
)
@click.option(
    "--components",
    type=click.IntRange(min=1),
    metavar="N",
    help="Components to compute.  [default: 100]",
)
@click.option("--solver", type=click.Choice(SOLVERS), default="auto", show_default=True)
@click.option(
    "--select",
    type=click.Choice(SELECTORS),
    default=SELECTORS[0],
    show_default=True,
    help="How signal components are told from noise.",
)
@click.option("--keep", metavar="1-4,8", help="Keep these components; beats --select.")
@seed_option
@click.option("--report", type=PathType(), metavar="DIR", help="Write pictures that show why.")
@overwrite_option
@compute_options
def denoise(
    inputs: tuple[Path, ...],
    output: Path,
    report: Path | None,
    overwrite: bool,
    scheduler: str,
    workers: int | None,
    memory_limit: int | None,
    signal: str | None,
    exposure: tuple[float, ...] | None,
    **options: Any,
) -> None:
    """Denoise spectrum images: several INPUTs are stacked as areas of one map.

    \b
    edxdenoise denoise map.bcf -o map.zarr --report report
    edxdenoise denoise a.emi b.emi -o ab.nc --energy 0:13 --rebin-energy 4
    """
    from dataclasses import fields

    from edxdenoise.cli.components import print_components
    from edxdenoise.pipeline import denoise_files
    from edxdenoise.recipe import Denoise, Input, Output, Prepare, Recipe

    prepare = {field.name: options.pop(field.name) for field in fields(Prepare)}
    recipe = Recipe(
        Input(tuple(map(str, inputs)), signal, exposure),
        Prepare(**prepare),
        Denoise(**options),
        Output(str(output), None if report is None else str(report)),
    )
    with computing(scheduler, workers, memory_limit) as progress:
        result = denoise_files(
            recipe,
            overwrite=overwrite,
            memory_limit=memory_limit,
            workers=workers,
            progress=progress,
        )
    print_components(result, most=20)
    click.echo(f"wrote {output}" + (f" and {report}" if report else ""))
