"""``edxdenoise convert``: any readable file to ours or HyperSpy's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from edxdenoise.cli.helpers import Computing, say
from edxdenoise.cli.options import (
    Configured,
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


class _Frames(Configured):
    """Frames to sum: some, or all of them; or all of them kept apart."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if value == "sum":
            return None
        return value if value == "keep" else super().convert(value, param, ctx)


@command(short_help="Write the map of FILE as .zarr, .nc or .hspy.")
@file_argument
@click.argument("out", type=PathType())
@section_options(Input, "signal")
@click.option(
    "--frames",
    type=_Frames(Input, "frames"),
    metavar="A:B|sum|keep",
    default="sum",
    help="Sum all frames, or those from A to B; or keep their counts apart as well, in a .zarr.",
)
@overwrite_option
@compute_options
def convert(
    file: Path,
    out: Path,
    signal: str | None,
    frames: Frames | Literal["keep"] | None,
    overwrite: bool,
    computing: Computing,
) -> None:
    """Write the spectrum image of FILE to OUT: .zarr, .nc or .hspy.

    \b
    edxdenoise convert map.bcf map.zarr
    edxdenoise convert map.pts map.zarr --frames keep
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
