"""What a command tells at its end: at most 15 lines, 80 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from edxdenoise.cli.helpers import print_table, printable, say

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

_WIDTH = 80
_LABEL = 18
_MOST_BORDERLINE = 8
# Regions that somebody asked for come before those that are made of the map itself.
_KINDS = ("map", "region", "area", "phase")


def print_facts(facts: dict[str, str]) -> None:
    """Print a label and a text on each line, long texts folded under themselves."""
    width = max([_LABEL, *(len(label) + 2 for label in facts)])
    for label, text in facts.items():
        head = f"{label:{width}}"
        click.echo(
            textwrap.fill(
                printable(text),
                _WIDTH,
                initial_indent=head,
                subsequent_indent=" " * width,
                break_on_hyphens=False,
            )
        )


def print_result(ds: xr.Dataset) -> None:
    """Print what a job found: what was denoised, what was quantified, or both."""
    from edxdenoise import schema as v

    if v.COUNTS_DENOISED in ds:
        print_facts(denoised_facts(ds))
    if v.COUNTS_DENOISED in ds and v.LINE_INTENSITY in ds:
        click.echo()
    if v.LINE_INTENSITY in ds:
        print_composition(ds)


def denoised_facts(ds: xr.Dataset) -> dict[str, str]:
    """Return what `edxdenoise denoise` did: the map, what was kept, the gain, the elements."""
    from edxdenoise.errors import texts_of
    from edxdenoise.report.text import borderline_words, facts, smoothing_words
    from edxdenoise.schema import IMAGE_GAIN
    from edxdenoise.xray.identification import identified

    elements = [one.element for one in identified(ds).elements]
    said = {
        label: f"{number}: {more}" if more else number
        for label, (number, more) in facts(ds, elements).items()
    }
    if unsure := borderline_words(ds, _MOST_BORDERLINE):
        said["borderline"] = f"{unsure}; please inspect"
    if smoothing := smoothing_words(ds):
        said["smoothing"] = smoothing.removeprefix("Smoothing ")
    if gains := texts_of(ds.attrs, IMAGE_GAIN):
        said["images"] = "; ".join(gains)
    return {label.capitalize(): text for label, text in said.items()}


def print_composition(ds: xr.Dataset) -> None:
    """Print composition and ratios of the map and of as many regions as the width has room for.

    A phantom shows its true composition beside the measured one.
    """
    from edxdenoise.quantification import quantified_lines, region_table
    from edxdenoise.quantification.lines import EstimatedLine, with_factor
    from edxdenoise.report.text import with_error

    lines = quantified_lines(ds)
    table = region_table(ds)
    left_out = _print_regions(table)
    if (table["kind"] == "phase").any():
        say("phases: found with one half of the counts, composition from the other")
    if left_out:
        say(f"not shown: {left_out}; --report writes all to regions.csv")
    estimated = {name: spec for name, spec in lines.items() if isinstance(spec, EstimatedLine)}
    if estimated:
        factors = ", ".join(
            f"{name.replace('_', ' ')} "
            + with_error(float(spec.k_factor or 0), spec.k_factor_stddev).replace("−", "-")
            for name, spec in estimated.items()
        )
        print_facts({"k-factors": f"estimated, their errors are part of those of at%: {factors}"})
    composed = with_factor(lines)
    if composed and not any(spec.k_factor_stddev for spec in composed.values()):
        say("errors do not include those of the k-factors: none were given")
    if not composed:
        say("net counts; for at% give k-factors, or --k-factor estimate")


def _print_regions(table: pd.DataFrame) -> str:
    """Print quantities by region, profiles below; return which regions had no room."""
    from edxdenoise.report.text import number_words, region_words

    columns: dict[str, list[str]] = {}
    kinds: dict[str, str] = {}
    for region, own in table.groupby("region", sort=False):
        first = own.iloc[0]
        name = str(region)
        kinds[name] = str(first["kind"])
        columns[name] = [
            f"{first['pixels']:,}",
            number_words(first["counts"]),
            *(region_words(row).replace("−", "-") for _, row in own.iterrows()),
        ]
        if "true" in table and kinds[name] == "map":
            columns["true"] = ["", "", *(f"{value:.3g}" for value in own["true"])]
            kinds["true"] = "map"
    heads = ["pixels", "counts", *dict.fromkeys(table["quantity"])]
    order = [name for kind in _KINDS for name in columns if kinds[name] == kind]
    asked = [name for name in order if kinds[name] in ("map", "region")]
    shown = _fitting(order, columns, heads) or order[:1]
    rows = [[head, *(columns[name][i] for name in shown)] for i, head in enumerate(heads)]
    print_table("", ["", *shown], rows)
    # What was asked for is always shown, below where there is no room beside.
    rest = [name for name in asked if name not in shown]
    while rest:
        some = _fitting(rest, columns, heads) or rest[:1]
        click.echo()
        print_table(
            "", ["", *some], [[h, *(columns[n][i] for n in some)] for i, h in enumerate(heads)]
        )
        rest = rest[len(some) :]
    profiles = [name for name in columns if kinds[name] == "profile"]
    if profiles:
        click.echo()
        print_table("", ["", *heads], [[name, *columns[name]] for name in profiles])
    hidden = [name for name in order if name not in shown and name not in asked]
    return ", ".join(hidden[:4]) + (f" and {len(hidden) - 4} more" if len(hidden) > 4 else "")


def _fitting(names: Sequence[str], columns: dict[str, list[str]], heads: list[str]) -> list[str]:
    """Return the first regions whose columns fit beside each other."""
    room = _WIDTH - max(map(len, heads))
    fitting = []
    for name in names:
        room -= 2 + max(map(len, [name, *columns[name]]))
        if room < 0:
            break
        fitting.append(name)
    return fitting
