"""``edxdenoise components``: what was found and what was kept."""

from __future__ import annotations

import json
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


@command(short_help="Show the components of a denoised FILE.")
@file_argument
@json_option
def components(file: Path, as_json: bool) -> None:
    """Show the components of a denoised FILE: variance, probability, kept or not.

    \b
    edxdenoise components map.zarr
    """
    from edxdenoise.io import open_denoised

    ds = open_denoised(file)
    if as_json:
        click.echo(json.dumps(component_records(ds), indent=1))
    else:
        print_components(ds)


def component_records(ds: xr.Dataset) -> list[dict[str, Any]]:
    """Return one record per component, ready for JSON; a number that there is not is None."""
    from edxdenoise.components.selection import component_table

    table = component_table(ds)
    return table.astype(object).where(table.notna(), None).to_dict("records")


def print_components(ds: xr.Dataset) -> None:
    """Print the components as a table with a legend."""
    rows = component_records(ds)
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
