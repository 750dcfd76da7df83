"""``edxdenoise simulate``: a phantom with its truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edxdenoise.cli.helpers import Computing, say
from edxdenoise.cli.options import (
    PathType,
    command,
    compute_options,
    overwrite_option,
    preset_option,
    section_options,
)
from edxdenoise.config import IMAGES, Denoise


class Shape(click.ParamType):
    """``330x500`` as (y, x)."""

    name = "YxX"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, tuple):
            return value
        parts = value.lower().split("x")
        if len(parts) != 2 or not all(part.isdigit() for part in parts):
            self.fail(f"'{value}' must be written {self.name}, such as 330x500", param, ctx)
        return int(parts[0]), int(parts[1])


@command(short_help="Write a phantom to OUT, with its truth.")
@click.argument("out", type=PathType())
@preset_option
@click.option(
    "--shape", type=Shape(), metavar="YxX", help="Pixels, such as 330x500.  [default: the preset's]"
)
@click.option("--channels", type=click.IntRange(min=2), metavar="N", help="Number of channels.")
@click.option("--energy-width", type=float, metavar="KEV", help="Width of a channel in keV.")
@click.option(
    "--counts-per-pixel", type=float, default=1000.0, show_default=True, help="Mean dose."
)
@click.option(
    "--image",
    "images",
    type=click.Choice(IMAGES),
    multiple=True,
    help="Image to record with the counts: of the specimen, or unrelated to it; may be repeated.",
)
@section_options(Denoise, "seed")
@overwrite_option
@compute_options
def simulate(
    out: Path,
    overwrite: bool,
    computing: Computing,
    **options: Any,
) -> None:
    """Write a phantom to OUT, with the truth: expected counts, phases, compositions.

    \b
    edxdenoise simulate phantom.zarr --preset solar-cell --counts-per-pixel 300
    """
    from edxdenoise.io import save_dataset
    from edxdenoise.simulation import simulate as simulate_phantom

    with computing.started() as progress, progress("simulation"):
        save_dataset(simulate_phantom(**options), out, overwrite=overwrite)
    say(f"wrote {out}")
