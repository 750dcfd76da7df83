"""``edxdenoise demo``: the whole chain with no input needed."""

from __future__ import annotations

from pathlib import Path

import click

from edxdenoise.cli.helpers import Job
from edxdenoise.cli.options import (
    PathType,
    command,
    job_options,
)


@command(short_help="Run the whole chain on a simulated solar cell.")
@click.option(
    "-o", "--output", type=PathType(), default=Path("demo"), show_default=True, metavar="DIR"
)
@job_options
def demo(
    output: Path,
    job: Job,
) -> None:
    """Simulate a small solar-cell map, denoise and quantify it, and say where the results lie.

    \b
    edxdenoise demo
    """
    from edxdenoise.run import demo_recipe, run_demo

    job.do(run_demo, demo_recipe(), folder=output)
