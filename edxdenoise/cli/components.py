"""``edxdenoise components``: what was found and what was kept."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edxdenoise.cli.helpers import print_table
from edxdenoise.cli.options import file_argument, json_option

if TYPE_CHECKING:
    import xarray as xr


@click.command()
@file_argument
@json_option
def components(file: Path, as_json: bool) -> None:
    """Show the components of a denoised FILE: variance, probability, kept or not.

    \b
    edxdenoise components map.zarr
    """
    ds = open_denoised(file)
    if as_json:
        click.echo(json.dumps(component_rows(ds), indent=1))
    else:
        print_components(ds)


def open_denoised(file: Path) -> xr.Dataset:
    """Open a file that ``edxdenoise denoise`` wrote."""
    from edxdenoise.errors import FormatError
    from edxdenoise.io import open_dataset
    from edxdenoise.schema import COMPONENT_KEEP

    ds = open_dataset(file)
    if COMPONENT_KEEP.name not in ds:
        raise FormatError(f"{file} holds no components; make them with edxdenoise denoise")
    return ds


def component_rows(ds: xr.Dataset) -> list[dict[str, object]]:
    """One record per component; a probability that there is not is None."""
    columns = zip(
        ds["component"].values.tolist(),
        ds["component_variance"].values.tolist(),
        ds["component_variance_ratio"].values.tolist(),
        ds["component_signal_probability"].values.tolist(),
        ds["component_keep"].values.tolist(),
    )
    return [
        {
            "component": number,
            "variance": variance,
            "variance_ratio": ratio,
            "signal_probability": None if math.isnan(probability) else probability,
            "keep": bool(keep),
        }
        for number, variance, ratio, probability, keep in columns
    ]


def print_components(ds: xr.Dataset, *, most: int | None = None) -> None:
    """The components as a table, at least up to the last one kept."""
    rows = component_rows(ds)
    kept = [int(str(row["component"])) for row in rows if row["keep"]]
    shown = rows if most is None else rows[: max(most, *kept)]
    table = []
    for row in shown:
        probability = row["signal_probability"]
        table.append(
            [
                str(row["component"]),
                f"{row['variance']:.4g}",
                f"{row['variance_ratio']:.3%}",
                "" if probability is None else f"{probability:.2f}",
                "kept" if row["keep"] else "",
            ]
        )
    print_table("", ["component", "variance", "of total", "probability", "keep"], table)
    numbers = ", ".join(map(str, kept))
    click.echo(f"{len(kept)} of {len(rows)} components kept: {numbers}")
