"""``edxdenoise evaluate``: how good a network is on components whose truth is known."""

from __future__ import annotations

import json
from typing import Any

import click

from edxdenoise.cli.helpers import counting, print_table
from edxdenoise.cli.options import command, corpus_options, json_option, section_options
from edxdenoise.config import Denoise


@command(short_help="Test a network on phantoms or labelled components.")
@corpus_options
@section_options(Denoise, "model")
@json_option
def evaluate(model: tuple[str, ...], as_json: bool, **sources: Any) -> None:
    """Test a network on phantoms, on components you labelled, or on FILEs by the split test.

    A seed that the network was trained with tells nothing: take another.

    \b
    edxdenoise evaluate --simulated 20 --seed 1
    edxdenoise evaluate --labels labels.csv --model mine/default-1.keras --json
    """
    from dataclasses import asdict

    from edxdenoise.training.corpus import Sources
    from edxdenoise.training.evaluation import evaluate_networks

    with counting() as bar:
        found = evaluate_networks(
            model, Sources(**sources), lambda done, of: bar("phantoms", done, of)
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
