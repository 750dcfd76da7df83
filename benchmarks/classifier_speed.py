"""How fast components are judged, and how repeatable that is.

    python benchmarks/classifier_speed.py

100 components of a solar-cell phantom of 330 x 500 pixels. "network" is all that `--select cnn`
does for its probabilities: the noise of the scores, the network's inputs and the ensemble on both
signs, with the spatial evidence there already; "spatial" is that evidence, "select" both and the
choice, as `denoise` does it. Best of some repeats, after one that loads what is loaded once.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np
from _measure import machine, markdown

from edxdenoise import pca, select, simulate, weight
from edxdenoise.components.network_inputs import network_input
from edxdenoise.components.networks import Classifier, device_names
from edxdenoise.components.score_noise import score_noise
from edxdenoise.components.spatial import spatial_evidence


def best(function: Callable[[], object], repeats: int) -> float:
    """Least seconds of a call, after a first one."""
    function()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--shape", type=int, nargs=2, default=(330, 500))
    parser.add_argument("--components", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    phantom = simulate("solar-cell", shape=tuple(options.shape)).compute()
    ds = pca(weight(phantom), components=options.components).compute()
    judged = select(ds, selector="cnn")
    print(f"{machine()}; networks on {', '.join(device_names())}")
    classifier = Classifier.load()
    noise = score_noise(ds)
    calls = {
        "noise of the scores": lambda: score_noise(ds),
        "spatial": lambda: spatial_evidence(ds, noise=noise),
        "inputs of the network": lambda: network_input(judged, "default", noise),
        "network": lambda: classifier.probability(judged),
        "select": lambda: select(ds, selector="cnn"),
    }
    rows = []
    for name, call in calls.items():
        seconds = best(call, options.repeats)
        rows.append([name, f"{seconds:.2f} s", f"{options.components / seconds:.0f}"])
    print("\n" + markdown(["part", "time", "components per second"], rows))
    again = classifier.probability(judged)
    change = np.abs(again - judged["component_signal_probability"].values).max()
    print(f"\nsecond run: probabilities differ by at most {change:.1e}")


if __name__ == "__main__":
    main()
