"""``edxdenoise evaluate``: how good a network is on components whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edxdenoise.cli.helpers import counting, print_table
from edxdenoise.cli.options import PathType, command, json_option, section_options
from edxdenoise.config import Denoise


@command(short_help="Test a network on phantoms or labelled components.")
@click.argument("files", metavar="[FILE]...", nargs=-1, type=PathType())
@click.option(
    "--simulated", type=click.IntRange(min=0), default=0, metavar="N", help="Phantoms to test on."
)
@click.option(
    "--labels",
    type=PathType(),
    metavar="FILE.csv",
    help="Labels of your own: file, component, signal or noise.",
)
@section_options(Denoise, "model")
@section_options(Denoise, "seed")
@click.option(
    "--workers", type=click.IntRange(min=1), metavar="N", help="Processes.  [default: all]"
)
@json_option
def evaluate(
    files: tuple[Path, ...],
    simulated: int,
    labels: Path | None,
    model: tuple[str, ...],
    seed: int,
    workers: int | None,
    as_json: bool,
) -> None:
    """Test a network on phantoms, on components you labelled, or on FILEs by the split test.

    A seed that the network was trained with tells nothing: take another.

    \b
    edxdenoise evaluate --simulated 20 --seed 1
    edxdenoise evaluate --labels labels.csv --model mine/default-1.keras --json
    """
    from dataclasses import asdict

    from edxdenoise.resources import default_workers
    from edxdenoise.training.fit import evaluate_networks

    with counting() as bar:
        found = evaluate_networks(
            model,
            simulated=simulated,
            labels=labels,
            files=files,
            seed=seed,
            workers=workers or default_workers(),
            progress=lambda done, of: bar("phantoms", done, of),
        )
    scores = asdict(found.scores)
    bins = zip(found.said.tolist(), found.seen.tolist(), found.number.tolist())
    filled = [row for row in bins if row[2]]
    if as_json:
        names = "said", "seen", "components"
        reliability = [dict(zip(names, row)) for row in filled]
        click.echo(json.dumps({**scores, "reliability": reliability}, indent=1))
        return
    rows = [
        [name, f"{value:,}" if isinstance(value, int) else f"{value:.3f}"]
        for name, value in scores.items()
    ]
    print_table("", ["", "value"], rows)
    click.echo()
    table = [[f"{said:.2f}", f"{seen:.2f}", str(number)] for said, seen, number in filled]
    print_table("", ["probability said", "label seen", "components"], table)
