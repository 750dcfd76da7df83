"""``edxdenoise demo``: the whole chain with no input needed."""

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


@command(short_help="Run the whole chain on a simulated solar cell.")
@click.option(
    "-o", "--output", type=PathType(), default=Path("demo"), show_default=True, metavar="DIR"
)
@print_recipe_option
@overwrite_option
@compute_options
def demo(
    output: Path,
    print_recipe: bool,
    overwrite: bool,
    scheduler: str,
    workers: int | None,
    memory_limit: int | None,
) -> None:
    """Simulate a small solar-cell map, denoise and quantify it, and say where the results lie.

    \b
    edxdenoise demo
    """
    from edxdenoise.cli.summaries import denoised_facts, print_composition, print_facts
    from edxdenoise.run import demo_recipe, run_demo

    if print_recipe:
        click.echo(demo_recipe().to_toml(), nl=False)
        return
    with computing(scheduler, workers, memory_limit) as progress:
        result = run_demo(
            output,
            overwrite=overwrite,
            memory_limit=memory_limit,
            workers=workers,
            progress=progress,
        )
    if Verbosity.level < 0:
        return
    print_facts(denoised_facts(result))
    click.echo()
    print_composition(result)
    click.echo(f"phantom with its truth:  {output / 'phantom.zarr'}")
    click.echo(f"denoised and quantified: {output / 'denoised.zarr'}")
    click.echo(f"pictures and tables:     {output / 'report'}")
