"""Time and memory of PCA of Poisson-weighted counts: ours, HyperSpy's, dask-ml's, and the floor.

    python benchmarks/pca.py

Every method starts with the counts as whole numbers in memory and ends with component spectra and
score maps in memory: conversion, weighting, decomposition and projection all count. Each run has a
process of its own, in which a few rows of the map are decomposed first, so that neither imports nor
the start of thread pools count. Extra memory is what the process holds at most beyond what it held
with the counts loaded. The floor is what no method can do without: one Gram product and one
projection, bare, in float32.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _measure import high_water, machine, markdown, reset_high_water, run, scratch

COMPONENTS = 100
# Rows of the map for the trial before the clock starts.
_TRIAL_ROWS = 8
_BATCH = 16_500

# A method: from counts (y, x, energy) to what the clock starts with, and the work itself.
Method = tuple[Callable[[np.ndarray], Any], Callable[[Any], Any]]


def ours(solver: str) -> Method:
    """edxdenoise with one of its solvers."""
    from edxdenoise.components.pca import pca
    from edxdenoise.cube import make_cube
    from edxdenoise.preprocess import weight

    return (
        lambda counts: make_cube(counts, energy=np.arange(counts.shape[2]) * 0.02),
        lambda ds: pca(weight(ds), components=_components(ds.counts.shape), solver=solver),
    )


def hyperspy(**options: Any) -> Method:
    """HyperSpy's ``decomposition`` in float32, in which it is fastest."""
    import hyperspy.api as hs

    hs.preferences.General.show_progressbar = False

    def work(signal: Any) -> Any:
        signal.change_dtype("float32")
        signal.decomposition(normalize_poissonian_noise=True, print_info=False, **options)
        return signal

    return hs.signals.Signal1D, work


def dask_ml(make: Callable[[int], Any]) -> Method:
    """A dask-ml estimator on counts weighted with Dask."""
    import dask.array as da

    def work(counts: np.ndarray) -> Any:
        matrix = da.from_array(counts.reshape(-1, counts.shape[2]), chunks=(_BATCH, -1))
        pixel, channel = da.compute(matrix.sum(axis=1), matrix.sum(axis=0))
        pixel, channel = (np.sqrt(np.maximum(total, 1)) for total in (pixel, channel))
        matrix = (matrix / pixel[:, np.newaxis] / channel).astype(np.float32)
        estimator = make(_components(counts.shape)).fit(matrix)
        return estimator, np.asarray(estimator.transform(matrix))

    return lambda counts: counts, work


def dask_ml_incremental() -> Method:
    """Its default solver, randomized without power iterations, is wrong by up to 36 %."""
    from dask_ml.decomposition import IncrementalPCA

    return dask_ml(lambda n: IncrementalPCA(n, svd_solver="full", batch_size=_BATCH))


def dask_ml_randomized() -> Method:
    """With enough iterations to be right."""
    from dask_ml.decomposition import PCA

    return dask_ml(lambda n: PCA(n, svd_solver="randomized", iterated_power=4, random_state=0))


def floor() -> Method:
    """Two bare products of a float32 matrix that is there already."""

    def prepare(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = counts.reshape(-1, counts.shape[2]).astype(np.float32)
        return rows, rows[: _components(counts.shape)].T.copy()

    def work(arrays: tuple[np.ndarray, np.ndarray]) -> Any:
        rows, vectors = arrays
        return rows.T @ rows, rows @ vectors

    return prepare, work


METHODS: dict[str, Callable[[], Method]] = {
    "floor: Gram product and projection": floor,
    "edxdenoise covariance (default)": lambda: ours("covariance"),
    "edxdenoise randomized": lambda: ours("randomized"),
    "edxdenoise incremental": lambda: ours("incremental"),
    "edxdenoise full": lambda: ours("full"),
    "HyperSpy default (full SVD)": hyperspy,
    "HyperSpy randomized": lambda: hyperspy(svd_solver="randomized", output_dimension=COMPONENTS),
    "dask-ml IncrementalPCA, full": dask_ml_incremental,
    "dask-ml PCA, randomized, 4 iterations": dask_ml_randomized,
}
FLOOR, OURS = list(METHODS)[:2]


def _components(shape: tuple[int, ...]) -> int:
    return min(COMPONENTS, shape[0] * shape[1], shape[2])


def measure(method: str, path: Path) -> dict[str, float]:
    """Seconds and extra bytes of one method in this process."""
    warnings.simplefilter("ignore")
    counts = np.load(path)
    prepare, work = METHODS[method]()
    work(prepare(counts[:_TRIAL_ROWS].copy()))
    start_with = prepare(counts)
    gc.collect()
    before = reset_high_water()
    start = time.perf_counter()
    # Kept until the memory is read: the results are part of what a method needs.
    result = work(start_with)
    seconds = time.perf_counter() - start
    extra = high_water() - before
    del result
    return {"seconds": seconds, "extra": extra}


def compare(path: Path, methods: list[str], repeats: int) -> dict[str, list[dict[str, float]]]:
    """All methods `repeats` times, in turns, so that a slow minute hits all alike."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
    for _ in range(repeats):
        for name in methods:
            output = run([sys.executable, __file__, "--measure", name, path]).checked().output
            results[name].append(json.loads(output.splitlines()[-1]))
    return results


def table(results: dict[str, list[dict[str, float]]], cube: int) -> str:
    """The results as Markdown; `cube` is its size as float32 in bytes."""
    best = {name: min(each["seconds"] for each in runs) for name, runs in results.items()}
    rows = [
        [
            name,
            f"{best[name]:.2f} s",
            f"{best[name] / best[OURS]:.1f}",
            f"{best[name] / best[FLOOR]:.1f}",
            f"{max(each['extra'] for each in runs) / 1e6:.0f} MB",
            f"{max(each['extra'] for each in runs) / cube:.2f}",
        ]
        for name, runs in results.items()
    ]
    columns = ["method", "time", "x ours", "x floor", "extra memory", "x cube"]
    return markdown(columns, rows)


def main() -> None:
    """Simulate, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--shape", type=int, nargs=3, default=(330, 500, 650), metavar=("Y", "X", "E")
    )
    parser.add_argument("--counts-per-pixel", type=float, default=1000.0)
    parser.add_argument("--repeats", type=int, default=3, help="the fastest counts")
    parser.add_argument("--only", nargs="+", choices=METHODS, help="besides the floor and ours")
    parser.add_argument("--measure", nargs=2, metavar=("METHOD", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        method, path = options.measure
        print(json.dumps(measure(method, Path(path))))
        return

    from edxdenoise.simulation import simulate

    methods = [m for m in METHODS if not options.only or m in (FLOOR, OURS, *options.only)]
    *shape, channels = options.shape
    phantom = simulate(
        "solar-cell",
        shape=tuple(shape),
        channels=channels,
        energy_width=13 / channels,
        counts_per_pixel=options.counts_per_pixel,
    )
    with scratch(None) as folder:
        path = folder / "counts.npy"
        counts = phantom["counts"].values
        np.save(path, counts)
        results = compare(path, methods, options.repeats)
    cube = counts.size * 4
    print(
        f"solar-cell, {' x '.join(map(str, counts.shape))} {counts.dtype} "
        f"({cube / 1e6:.0f} MB as float32), {options.counts_per_pixel:g} counts per pixel, "
        f"{COMPONENTS} components, best of {options.repeats}; {machine()}\n"
    )
    print(table(results, cube))


if __name__ == "__main__":
    main()
