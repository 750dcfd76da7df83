"""``edxdenoise classify``: judge the components of a file again."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edxdenoise.cli.components import component_records, print_components
from edxdenoise.cli.options import command, file_argument, json_option, section_options
from edxdenoise.config import Denoise


@command(short_help="Ask the network for the components of a denoised FILE.")
@file_argument
@section_options(Denoise, "model")
@json_option
def classify(file: Path, model: tuple[str, ...], as_json: bool) -> None:
    """Ask the network, and the spatial statistic, for the components of a denoised FILE.

    FILE stays as it is. To use another network's choice, denoise again with --model.

    \b
    edxdenoise classify map.zarr
    edxdenoise classify map.zarr --model mine.keras --json
    """
    from edxdenoise.components.selection import select
    from edxdenoise.io import open_denoised

    ds = select(open_denoised(file), selector="cnn", models=model)
    if as_json:
        click.echo(json.dumps(component_records(ds), indent=1))
    else:
        print_components(ds)
