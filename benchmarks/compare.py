"""Whether `compare` is right: its estimates against the truth, and the article's Table 1.

    python benchmarks/compare.py [--phantoms N] [--shape 66x100] [--channels 160] [--no-article]

Each phantom is compared as a user would, with the five default models. The truth is of the same
models, fitted to 7/8 of the counts, and beside it that of the models fitted to all counts. Table 1
is of the article's phantom at full size.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import xarray as xr
from _measure import machine, markdown

from edxdenoise.blocks import scheduler
from edxdenoise.errors import EdxdenoiseWarning
from edxdenoise.recipe import Recipe
from edxdenoise.report.verdicts import model_table, quantity_table, verdict
from edxdenoise.simulation import simulate
from edxdenoise.validation.comparison import compare

ARTICLE = Recipe.from_file(Path(__file__).parents[1] / "data" / "solar-cell.toml")
# Preset, dose and seed.
PHANTOMS = (
    ("solar-cell", 300.0, 1),
    ("solar-cell", 1000.0, 2),
    ("solar-cell", 1000.0, 3),
    ("solar-cell", 4000.0, 4),
    ("solar-cell", 4000.0, 5),
    ("layers-gradient", 1000.0, 1),
    ("nanoparticles", 300.0, 2),
    ("nanoparticles", 1000.0, 3),
    ("core-shell", 1000.0, 4),
    ("mineral", 1000.0, 5),
)
ARTICLE_SHAPE, ARTICLE_DOSES = (330, 500), (1000.0, 4000.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--phantoms", type=int, default=len(PHANTOMS))
    parser.add_argument("--shape", default="66x100")
    parser.add_argument("--channels", type=int, default=160)
    parser.add_argument("--no-article", action="store_true")
    args = parser.parse_args()
    warnings.simplefilter("ignore", EdxdenoiseWarning)
    print(machine())
    shape = tuple(map(int, args.shape.split("x")))
    with scheduler("threads"):
        print_phantoms(PHANTOMS[: args.phantoms], shape, args.channels)
        if not args.no_article:
            for dose in ARTICLE_DOSES:
                print_article(dose)


def print_phantoms(
    phantoms: tuple[tuple[str, float, int], ...], shape: tuple[int, int], channels: int
) -> None:
    """Ranks and values of the estimates against the truth, a row for each phantom."""
    rows = []
    counts = np.zeros(5, int)
    for preset, dose, seed in phantoms:
        start = time.perf_counter()
        ds = simulate(preset, shape=shape, channels=channels, counts_per_pixel=dose, seed=seed)
        compared = compare(ds.compute()).sel(region="all")
        ranks = {name: _ranks(compared[name]) for name in _RANKED}
        same = ranks["deviance"] == ranks["true_deviance"]
        same_error = ranks["error"] == ranks["true_error"]
        same_full = ranks["deviance"] == ranks["true_deviance_full"]
        z_error = (compared["error"] - compared["true_error"]) / compared["error_stddev"]
        z_deviance = _deviance_z(compared)
        within, within_pairs = np.abs(z_error).max() <= 2, np.abs(z_deviance).max() <= 2
        counts += np.array([same, same_error, same_full, within, within_pairs], int)
        rows.append(
            [
                f"{preset}, seed {seed}",
                f"{dose:.0f}",
                " < ".join(ranks["deviance"]),
                _yes(same) if same else f"NO, by {_wrongly(compared):.1f} se",
                _yes(same_error),
                _yes(same_full),
                f"{float(np.abs(z_error).max()):.1f}",
                f"{float(np.abs(z_deviance).max()):.1f}",
                f"{time.perf_counter() - start:.0f} s",
            ]
        )
    heads = [
        f"phantom {shape[0]} x {shape[1]} x {channels}",
        "dose",
        "rank by held-out deviance",
        "as truth",
        "error ranks as truth",
        "as truth at full dose",
        "worst z of errors",
        "worst z of differences",
        "time",
    ]
    print("\n" + markdown(heads, rows))
    print(
        f"\nOf {len(rows)}: deviance ranks as the truth on {counts[0]}, squared error on "
        f"{counts[1]}, deviance as models of the full dose on {counts[2]}; squared errors of all "
        f"models within 2 standard errors on {counts[3]}, all differences of deviance on "
        f"{counts[4]}.\n"
    )


_RANKED = ("deviance", "error", "true_deviance", "true_error", "true_deviance_full")


def _ranks(values: xr.DataArray) -> tuple[str, ...]:
    return tuple(str(name) for name in values["model"].values[np.argsort(values.values)])


def _deviance_z(compared: xr.Dataset) -> np.ndarray:
    """z-scores of the differences from the best model, against the truth."""
    best = int(np.argmin(compared["deviance"].values))
    off = compared["deviance"] - compared["true_deviance"]
    stddev = compared["deviance_stddev"][best].values
    other = stddev > 0
    return (off.values - off.values[best])[other] / stddev[other]


def _wrongly(compared: xr.Dataset) -> float:
    """Standard errors of the surest of the differences that have the wrong sign."""
    values, true = compared["deviance"].values, compared["true_deviance"].values
    difference = values[:, np.newaxis] - values
    wrong = difference * (true[:, np.newaxis] - true) < 0
    stddev = compared["deviance_stddev"].values
    return float((np.abs(difference) / np.where(stddev > 0, stddev, np.inf))[wrong].max())


def _yes(same: bool) -> str:
    return "yes" if same else "NO"


def print_article(dose: float) -> None:
    """The article's Table 1 on its phantom, in numbers."""
    ds = simulate("solar-cell", shape=ARTICLE_SHAPE, counts_per_pixel=dose).persist()
    start = time.perf_counter()
    compared = compare(ds, lines=ARTICLE.lines, quantify=ARTICLE.quantify)
    print(
        f"\nSolar cell, 330 x 500 x {ds.sizes['energy']}, {dose:.0f} counts per pixel: "
        f"{time.perf_counter() - start:.0f} s\n"
    )
    for heads, rows in (model_table(compared), quantity_table(compared)):
        print(markdown(["", *heads], rows) + "\n")
    for sentence in verdict(compared):
        print(f"- {sentence}")


if __name__ == "__main__":
    main()
