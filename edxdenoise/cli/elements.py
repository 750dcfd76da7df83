"""``edxdenoise elements``: which elements a file holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edxdenoise.cli.helpers import Computing, print_table
from edxdenoise.cli.options import (
    Configured,
    command,
    compute_options,
    file_argument,
    json_option,
    section_options,
)
from edxdenoise.config import Denoise, Input

if TYPE_CHECKING:
    import pandas as pd

    from edxdenoise.io.vendor import Frames

_COLUMNS = ["element", "line", "net_counts", "significance", "where"]


@command(short_help="Find the elements in FILE.")
@file_argument
@section_options(Input, "signal", "frames")
@click.option(
    "--elements",
    type=Configured(Denoise, "elements"),
    help="Elements that you expect: they are tested first.",
)
@json_option
@compute_options
def elements(
    file: Path,
    signal: str | None,
    frames: Frames | None,
    elements: tuple[str, ...] | None,
    as_json: bool,
    computing: Computing,
) -> None:
    """Find the elements in FILE: lines, net counts, significance, possible confusions.

    \b
    edxdenoise elements map.bcf
    """
    from edxdenoise.io import read_cube
    from edxdenoise.xray import find_elements

    with computing.started() as progress, progress("elements"):
        ds = read_cube(file, signal=signal, frames=frames, memory_limit=computing.memory_limit)
        found = find_elements(ds, elements=elements or ())
    if as_json:
        click.echo(json.dumps(found[_COLUMNS].to_dict("records"), indent=1))
    else:
        print_elements(found)


def print_elements(found: pd.DataFrame) -> None:
    """Print the elements found, most significant first."""
    if found.empty:
        click.echo("no element found")
        return
    rows = [
        [
            row.element,
            row.line.replace("_", " "),
            f"{row.energy:.3f}",
            f"{row.net_counts:,.0f}",
            f"{row.net_stddev:,.0f}",
            f"{row.significance:.1f}",
            row.where,
            row.confused_with,
            row.stray,
        ]
        for row in found.itertuples()
    ]
    columns = ["element", "line", "keV", "net counts", "±", "significance", "where"]
    print_table("", [*columns, "may be confused with", "often stray from"], rows)
