"""``edxdenoise report``: the page and pictures of a denoised file."""

from __future__ import annotations

from pathlib import Path

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
from edxdenoise.config import Denoise, Output, Pictures


@command(short_help="Write a page that shows what was found in a FILE.")
@file_argument
@click.option("-o", "--output", required=True, type=PathType(), metavar="DIR", help="Folder.")
@section_options(Denoise, "elements")
@section_options(Output, "pictures")
@overwrite_option
@compute_options
def report(
    file: Path,
    output: Path,
    elements: tuple[str, ...],
    pictures: Pictures,
    overwrite: bool,
    computing: Computing,
) -> None:
    """Write a page, pictures and tables that show what was found in a denoised FILE.

    Open DIR/index.html in a browser.

    \b
    edxdenoise report map.zarr -o report
    """
    from edxdenoise.io import check_apart, open_denoised
    from edxdenoise.report import write_report
    from edxdenoise.xray.identification import GIVEN

    check_apart([file], [None, output])
    ds = open_denoised(file)
    with computing.started() as progress, progress("report"):
        if elements:
            ds = ds.assign_attrs({GIVEN: list(elements)})
        write_report(ds, output, pictures=pictures, overwrite=overwrite)
    say(f"wrote {output}; open {output / 'index.html'}")
