"""``edxdenoise components``: what was found and what was kept."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edxdenoise.cli.helpers import print_table, say
from edxdenoise.cli.options import command, file_argument, json_option

if TYPE_CHECKING:
    import xarray as xr

_MOST_BORDERLINE = 8
_MOST_SHOWN = 10


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
        print_components(ds, most=None)


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
        "keep": [bool(keep) for keep in ds["component_keep"].values],
    }
    return [dict(zip(columns, values)) for values in zip(*columns.values())]


def _names(ds: xr.Dataset) -> list[str | None]:
    """Names of the components; those that were held say so."""
    from edxdenoise.report.text import component_name

    return [component_name(ds, number) for number in ds["component"].values]


def print_components(ds: xr.Dataset, *, most: int | None = _MOST_SHOWN) -> None:
    """Print the components as a table: all, or those kept and the likeliest of the others."""
    from edxdenoise.report.text import held_out_words, smoothing_words

    rows = component_rows(ds)
    kept = [int(str(row["component"])) for row in rows if row["keep"]]
    shown = rows if most is None else _likeliest(rows, most)
    columns = {
        "component": ("component", "{}"),
        "name": ("name", "{}"),
        "variance_ratio": ("of total", "{:.3%}"),
        "signal_probability": ("probability", "{:.2f}"),
        "spatial_statistic": ("statistic", "{:.1f}"),
        "effect_size": ("effect", "{:.2f}"),
        "signal_kept": ("left", "{:.0%}"),
        "outcome": ("outcome", "{}"),
    }
    formats = {key: form for key, (_, form) in columns.items() if key in rows[0]}
    table = [
        ["" if row[key] is None else form.format(row[key]) for key, form in formats.items()]
        + ["kept" if row["keep"] else ""]
        for row in shown
    ]
    print_table("", [*(columns[key][0] for key in formats), "keep"], table)
    if len(shown) < len(rows):
        click.echo(f"({len(rows) - len(shown)} more were dropped)")
    numbers = ", ".join(map(str, kept))
    click.echo(f"{len(kept)} of {len(rows)} components kept: {numbers}")
    if shrunk := smoothing_words(ds):
        click.echo(shrunk)
    if held_out := held_out_words(ds):
        click.echo(held_out)
    unsure = [str(row["component"]) for row in rows if row["outcome"] == "uncertain"]
    if unsure:
        more = len(unsure) - _MOST_BORDERLINE
        listed = ", ".join(unsure[:_MOST_BORDERLINE]) + (f" and {more} more" if more > 0 else "")
        click.echo(f"Borderline components, please inspect: {listed}")


def say_image_gains(ds: xr.Dataset) -> None:
    """Say what each image gains as a guide of the smoothing."""
    from edxdenoise.errors import texts_of
    from edxdenoise.schema import IMAGE_GAIN

    for text in texts_of(ds.attrs, IMAGE_GAIN):
        say(text)


def _likeliest(rows: list[dict[str, object]], most: int) -> list[dict[str, object]]:
    """Return the kept components and up to `most` in all, borderline and probable ones first."""

    def rank(row: dict[str, object]) -> tuple[bool, bool, float, int]:
        probability = row["signal_probability"]
        likely = 0.0 if probability is None else float(str(probability))
        uncertain = row["outcome"] == "uncertain"
        return not row["keep"], not uncertain, -likely, int(str(row["component"]))

    kept = sum(bool(row["keep"]) for row in rows)
    chosen = sorted(rows, key=rank)[: max(most, kept)]
    return [row for row in rows if row in chosen]
