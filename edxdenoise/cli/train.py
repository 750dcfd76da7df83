"""``edxdenoise train``: teach the network on phantoms and on files of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edxdenoise.cli.helpers import Verbosity, counting, say
from edxdenoise.cli.options import PathType, command, corpus_options
from edxdenoise.config import NETWORKS


@command(short_help="Train a network that tells signal from noise.")
@click.option(
    "-o", "--output", required=True, type=PathType(), help="Folder for networks and corpus."
)
@click.option("--network", type=click.Choice(NETWORKS), default=NETWORKS[0], show_default=True)
@click.option(
    "--from",
    "from_model",
    type=PathType(),
    metavar="FILE.keras",
    help="Network to start from, such as ours for EELS data.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    metavar="N",
    help="Networks to average, of different first weights.",
)
@corpus_options
def train(
    output: Path,
    network: str,
    from_model: Path | None,
    seeds: int,
    seed: int,
    **sources: Any,
) -> None:
    """Train the network that tells signal from noise; interrupted, the same command goes on.

    Denoised FILEs are labelled by the split test. Components of one phantom or file are never
    both learnt from and validated on.

    \b
    edxdenoise train -o networks --simulated 300
    edxdenoise train -o mine --labels labels.csv --simulated 100
    """
    from edxdenoise.training.corpus import Sources
    from edxdenoise.training.fit import train as train_networks

    made = Sources(seed=seed, **sources)
    with counting() as bar:
        trained = train_networks(
            made.write(output / "corpus", lambda done, of: bar("phantoms", done, of)),
            output,
            network=network,
            seed=seed,
            seeds=seeds,
            from_model=from_model,
            progress=lambda done, of, loss: bar(f"loss {loss:.4f}", done, of),
        )
    if Verbosity.level >= 0:
        for one in trained:
            right = ((one.probability > 0.5) == (one.label >= 0.5)).mean()
            click.echo(f"{one.path}: {right:.1%} of {len(one.label)} held-out components right")
    say(f"use it: edxdenoise denoise MAP -o OUT.zarr --select cnn --model {trained[0].path}")
