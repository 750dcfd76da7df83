"""``edxdenoise components``: what was found and what was kept."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edxdenoise.cli.helpers import print_table
from edxdenoise.cli.options import command, file_argument, json_option
from edxdenoise.cli.summaries import print_facts

if TYPE_CHECKING:
    import xarray as xr

# Key of a record, head of its column, format and what the legend says.
_COLUMNS = (
    ("component", "component", "{}", ""),
    ("name", "name", "{}", ""),
    ("variance_ratio", "of total", "{:.3%}", "share of the variance of the weighted counts"),
    ("signal_probability", "probability", "{:.2f}", "probability of signal, by the selector"),
    ("spatial_statistic", "statistic", "{:.1f}", "spatial statistic of the map, about 0 for noise"),
    ("effect_size", "effect", "{:.2f}", "share of the map that is signal"),
    ("signal_kept", "left", "{:.0%}", "share of the signal that smoothing left"),
    ("outcome", "outcome", "{}", "signal, noise, or uncertain: inspect its map"),
    ("note", "note", "{}", ""),
)


@command()
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
    """One record per component; a number that there is not is None."""
    from edxdenoise.schema import COORD_COMPONENT_NOTE
    from edxdenoise.selection import component_outcomes

    count = ds.sizes["component"]

    def column(name: str) -> list[float | None]:
        # Files of earlier versions have no spatial statistic.
        values = ds[name].values.tolist() if name in ds else [math.nan] * count
        return [None if math.isnan(value) else value for value in values]

    columns: dict[str, list[Any]] = {
        "component": ds["component"].values.tolist(),
        **({"name": _names(ds)} if "component_name" in ds.coords else {}),
        "variance": column("component_variance"),
        "variance_ratio": column("component_variance_ratio"),
        "signal_probability": column("component_signal_probability"),
        "spatial_statistic": column("component_spatial_statistic"),
        "effect_size": column("component_effect_size"),
        "signal_kept": column("component_signal_kept"),
        "outcome": component_outcomes(ds),
        **(
            {"note": ds[COORD_COMPONENT_NOTE].values.tolist()}
            if COORD_COMPONENT_NOTE in ds.coords
            else {}
        ),
        "keep": [bool(keep) for keep in ds["component_keep"].values],
    }
    return [dict(zip(columns, values)) for values in zip(*columns.values())]


def _names(ds: xr.Dataset) -> list[str | None]:
    """Names of the components; those that were held say so."""
    from edxdenoise.report.text import component_name

    return [component_name(ds, number) for number in ds["component"].values]


def print_components(ds: xr.Dataset) -> None:
    """Print the components as a table with a legend."""
    rows = component_rows(ds)
    kept = [str(row["component"]) for row in rows if row["keep"]]
    columns = [(key, *rest) for key, *rest in _COLUMNS if key in rows[0]]
    table = [
        ["" if row[key] is None else form.format(row[key]) for key, _, form, _ in columns]
        + ["kept" if row["keep"] else ""]
        for row in rows
    ]
    print_table("", [*(head for _, head, _, _ in columns), "keep"], table)
    click.echo(f"{len(kept)} of {len(rows)} components kept: {', '.join(kept)}")
    print_facts({head: meaning for _, head, _, meaning in columns if meaning})
