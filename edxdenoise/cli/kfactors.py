"""``edxdenoise kfactors``: estimated k-factors, and known ones at another beam energy."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edxdenoise.cli.helpers import print_table, say
from edxdenoise.cli.options import (
    Configured,
    KFactor,
    PathType,
    command,
    json_option,
    section_options,
)
from edxdenoise.config import Denoise, Quantify


@command(short_help="Print estimated k-factors, or convert known ones.")
@click.option(
    "--elements",
    type=Configured(Denoise, "elements"),
    help="Symbols, such as Fe,Pt.  [default: all]",
)
@click.option(
    "--beam-energy", type=float, default=200.0, show_default=True, metavar="KEV", help="In keV."
)
@section_options(Quantify, "detector_window")
@click.option(
    "--k-factor",
    "k_factors",
    type=KFactor(),
    multiple=True,
    help="Known k-factor: estimates of its group are scaled to it.",
)
@click.option(
    "--table", type=PathType(), metavar="FILE.csv", help="Known k-factors: line,k[,error] per row."
)
@click.option(
    "--from-energy",
    type=float,
    metavar="KEV",
    help="Beam energy of the known k-factors: convert them to --beam-energy.",
)
@json_option
def kfactors(
    elements: tuple[str, ...] | None,
    beam_energy: float,
    detector_window: str | None,
    k_factors: tuple[tuple[str, float | str, float], ...],
    table: Path | None,
    from_energy: float | None,
    as_json: bool,
) -> None:
    """Print estimated k-factors with their errors, or convert a known table.

    They are by weight, against Si Ka, for thin foils. An alpha line counts with its doublet, not
    with the rest of its family.

    \b
    edxdenoise kfactors --elements Fe,Pt --beam-energy 300
    edxdenoise kfactors --elements I,Pb,In --k-factor Pb_La=4.374
    edxdenoise kfactors --table known.csv --from-energy 200 --beam-energy 80
    """
    from edxdenoise.quantification.k_factors import k_factor_table, read_k_factors

    known = read_k_factors(table) if table else {}
    for line, value, stddev in k_factors:
        if isinstance(value, str):
            raise click.UsageError("--k-factor of this command takes numbers: LINE=K[+-S]")
        known[line] = (value, stddev)
    rows = k_factor_table(
        elements or (),
        known,
        beam_energy=beam_energy,
        window=detector_window,
        from_energy=from_energy,
    )
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    cells = [
        [
            row["line"].replace("_", " "),
            f"{row['k_factor']:.3f}",
            f"{row['stddev']:.2g}",
            row["origin"],
            row["group"],
            row["note"],
        ]
        for row in rows
    ]
    print_table("", ["line", "k", "±", "origin", "group", "note"], cells)
    window = {None: "not known", "none": "none", "polymer": "300 nm polymer on a grid"}
    say(
        f"beam {beam_energy:.4g} keV; detector 0.45 mm Si, 30 nm Al contact, 40 nm dead layer, "
        f"window {window[detector_window]}. By weight, Si Ka = 1, thin foil; ± is one standard "
        "deviation against Si Ka"
    )
