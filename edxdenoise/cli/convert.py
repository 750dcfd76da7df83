"""``edxdenoise convert``: any readable file to ours or HyperSpy's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edxdenoise.cli.helpers import Computing, say
from edxdenoise.cli.options import (
    PathType,
    command,
    compute_options,
    file_argument,
    overwrite_option,
    section_options,
)
from edxdenoise.config import Input

if TYPE_CHECKING:
    from edxdenoise.io.vendor import Frames


@command(short_help="Write the map of FILE as .zarr, .nc or .hspy.")
@file_argument
@click.argument("out", type=PathType())
@section_options(Input, "signal", "frames")
@overwrite_option
@compute_options
def convert(
    file: Path,
    out: Path,
    signal: str | None,
    frames: Frames | None,
    overwrite: bool,
    computing: Computing,
) -> None:
    """Write the spectrum image of FILE to OUT: .zarr, .nc or .hspy.

    \b
    edxdenoise convert map.bcf map.zarr
    """
    from edxdenoise.run import convert_file

    with computing.started() as progress:
        convert_file(
            file,
            out,
            signal=signal,
            frames=frames,
            overwrite=overwrite,
            progress=progress,
            **computing.limits,
        )
    say(f"wrote {out}")
