"""Time and memory of NMF: how long we take to the objective scikit-learn ends with.

    python benchmarks/nmf.py

Both start with whole counts in memory: conversion and weighting count. scikit-learn runs to its own
end (NNDSVDA start, tolerance 1e-4, at most 200 iterations) on a float32 matrix; ours weights,
compresses and fits until its objective, on all data, is no higher. Each has a process of its own,
in which a few rows of the map are fitted first. Extra memory is what the process holds at most
beyond what it held with the counts loaded.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from _measure import high_water, machine, markdown, reset_high_water, run, scratch

_TRIAL_ROWS = 8
_ROWS = 10_000


class _Reached(Exception):
    """The objective is as low as scikit-learn's."""


def ours(counts: np.ndarray, loss: str, components: int, target: float) -> dict[str, float]:
    """Seconds and iterations to the target."""
    from edxdenoise import nmf, weight
    from edxdenoise.cube import make_cube

    start = time.perf_counter()
    last = {"seconds": np.nan, "iterations": 0, "objective": np.inf}

    def watch(label: str, done: int, most: int) -> None:
        if label.startswith("nmf"):
            last.update(iterations=done, objective=float(label.split()[-1]))
            if last["objective"] <= target:
                last["seconds"] = time.perf_counter() - start
                raise _Reached

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = make_cube(counts, energy=0.01 + 0.02 * np.arange(counts.shape[2]))
        try:
            nmf(weight(ds), components=components, loss=loss, progress=watch)
        except _Reached:
            pass
    return last


def matrix_for(counts: np.ndarray, loss: str) -> np.ndarray:
    """What scikit-learn factorises: weighted data, or counts."""
    rows = counts.reshape(-1, counts.shape[2])
    if loss == "poisson":
        return rows.astype(np.float32)
    g, h = (np.sqrt(rows.sum(axis=axis, dtype=float)) for axis in (1, 0))
    g[g == 0], h[h == 0] = 1, 1
    result = rows / g[:, np.newaxis].astype(np.float32)
    result /= h.astype(np.float32)
    return result


def theirs(counts: np.ndarray, loss: str, components: int) -> dict[str, float]:
    """Seconds, iterations and objective of scikit-learn."""
    from sklearn.decomposition import NMF

    solver = {"solver": "mu", "beta_loss": "kullback-leibler"} if loss == "poisson" else {}
    model = NMF(components, init="nndsvda", random_state=0, **solver)
    start = time.perf_counter()
    matrix = matrix_for(counts, loss)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        maps = model.fit_transform(matrix)
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "iterations": int(model.n_iter_),
        "extra": high_water(),
        "objective": objective(matrix, maps, model.components_, loss),
    }


def objective(matrix: np.ndarray, maps: np.ndarray, spectra: np.ndarray, loss: str) -> float:
    """Of a fit, in 64 bits."""
    total = 0.0
    for start in range(0, len(matrix), _ROWS):
        x = matrix[start : start + _ROWS].astype(np.float64)
        y = maps[start : start + _ROWS].astype(np.float64) @ spectra
        if loss == "frobenius":
            total += float(((x - y) ** 2).sum())
        else:
            some = x > 0
            total += float((x[some] * np.log(x[some] / y[some])).sum() - x.sum() + y.sum())
    return total


def child(who: str, path: Path, loss: str, components: int, target: float) -> None:
    """Print one measurement as JSON."""
    counts = np.load(path)
    trial = counts[:_TRIAL_ROWS]
    if who == "ours":
        ours(trial, loss, components, -np.inf)
        gc.collect()
        before = reset_high_water()
        result = ours(counts, loss, components, target)
        result["extra"] = high_water() - before
    else:
        theirs(trial, loss, components)
        gc.collect()
        before = reset_high_water()
        result = theirs(counts, loss, components)
        result["extra"] -= before
    print(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=2, default=(330, 500))
    parser.add_argument("--channels", type=int, default=650)
    parser.add_argument("--components", type=int, nargs="+", default=(4, 16))
    parser.add_argument("--losses", nargs="+", default=("frobenius", "poisson"))
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        who, path, loss, components, target = options.child
        child(who, Path(path), loss, int(components), float(target))
        return
    from edxdenoise.blocks import block_shape
    from edxdenoise.simulation import simulate

    shape = (*options.shape, options.channels)
    rows = []
    with scratch(None) as folder:
        path = folder / "counts.npy"
        phantom = simulate("solar-cell", shape=shape[:2], channels=shape[2])
        np.save(path, phantom.counts.values)
        for loss in options.losses:
            for components in options.components:
                target, slow = "0", 0.0
                for who in ("scikit-learn", "ours"):
                    command = [sys.executable, __file__, "--child", who, path, loss]
                    output = run([*command, str(components), target]).checked().output
                    found = json.loads(output)
                    target, slow = repr(found["objective"]), slow or found["seconds"]
                    seconds = found["seconds"]
                    rows.append(
                        [
                            f"{loss}, {components}, {'edxdenoise' if who == 'ours' else who}",
                            f"{seconds:.1f} s" if np.isfinite(seconds) else "not reached",
                            str(found["iterations"]),
                            f"{found['objective']:.8g}",
                            f"{slow / seconds:.1f}x",
                            f"{found['extra'] / 1e6:.0f} MB",
                        ]
                    )
                    print(" ".join(rows[-1]), file=sys.stderr, flush=True)
    print(machine())
    size = np.prod(block_shape(shape)) * shape[2] * 4 / 1e6
    cube = np.prod(shape) * 4 / 1e6
    print(f"As float32, a block takes {size:.0f} MB and the cube {cube:.0f} MB.\n")
    columns = ["loss, components", "time", "passes", "objective", "against", "extra memory"]
    print(markdown(columns, rows))


if __name__ == "__main__":
    main()
