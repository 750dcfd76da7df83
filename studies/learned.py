"""Whether a learned estimator makes the smoothing better: a network beside the mixture's others.

    python studies/learned.py --weights FILE [--steps 10000] [--maps JEOL] [--seeds 3] [--csv]

A bias-free U-Net of 49,000 parameters (S. Mohan et al., ICLR 2020) smooths one map at a time. It
sees the map and the deviation of its noise at six scales. As a network without biases it multiplies
its result where both are multiplied, so that no scale has to be chosen. It is trained on random
fields, grains, layers, lattices and spots with the noise of component maps and of totals from 0.5
to 5000 counts per pixel, never on a real map. `--weights` names the file that keeps it
(``.weights.h5``); where the file exists, nothing is trained.

On real files, thinned and judged as in few_counts.py, `denoise` is run as it is, with the network
as one more estimator of the mixture, whose risk is measured as that of non-local means, and with
the network in place of the mixture. Figures are medians over lines, then means over seeds.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from _study import RESULTS, kept_rows, write_csv
from few_counts import COMPONENTS, DATA, FILES, real_parts
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from edxdenoise import denoise
from edxdenoise.components import networks, smoothing
from edxdenoise.config import Denoise
from edxdenoise.pipeline import rebuilt

keras, tf = networks.keras(), networks.tensorflow()
ops, layers = keras.ops, keras.layers
# Its name in the package is that of the function.
stage = importlib.import_module("edxdenoise.components.shrink")

DOSES = (1.0, 3.0, 10.0)
LEVELS, FILTERS = 6, (8, 16, 16, 16, 16, 16)
# Weight of the next coarser level in the means of one: an empty pixel has that mean alone.
_FILL = 0.01
PATCH, BATCH, VALIDATED = 96, 8, 48
HEAD = ("map", "counts per pixel", "denoise", "with the network", "change, %", "network alone")


# The network ------------------------------------------------------------------------------------


class Smoother(keras.Model):
    """Smooth maps of known noise: input (n c / v, n / v), output the estimate of c."""

    def __init__(self) -> None:
        super().__init__()

        def convolutions(size: int = 3) -> list[Any]:
            return [
                layers.Conv2D(each, size, padding="same", use_bias=False, activation="relu")
                for each in FILTERS
            ]

        self.down, self.up, self.again = (convolutions() for _ in range(3))
        self.out = [layers.Conv2D(1, 1, use_bias=False) for _ in FILTERS]
        self.half = layers.AveragePooling2D(2)
        self.double = layers.UpSampling2D(2, interpolation="bilinear")

    def call(self, inputs: Any) -> Any:
        product, precision = inputs[..., :1], inputs[..., 1:]
        whole = ops.mean(precision, axis=(1, 2), keepdims=True)
        level = ops.mean(product, axis=(1, 2), keepdims=True) / whole
        sums = [(product - level * precision, precision)]
        while len(sums) < LEVELS:
            sums.append(tuple(self.half(each) for each in sums[-1]))
        above, below = sums[-1][0], sums[-1][1] + _FILL * whole
        noisy = []
        for scale, (one, other) in reversed(list(enumerate(sums))):
            if scale < LEVELS - 1:
                above = one + _FILL * self.double(above)
                below = other + _FILL * self.double(below)
            noisy.append(ops.concatenate([above / below, 2.0**-scale * below**-0.5], axis=-1))
        features = []
        for convolution, seen in zip(self.down, reversed(noisy)):
            before = [self.half(features[-1])] if features else []
            features.append(convolution(ops.concatenate([*before, seen], axis=-1)))
        mean, hidden = noisy[0][..., :1], []
        for scale, seen in zip(reversed(range(LEVELS)), noisy):
            if hidden:
                mean = self.double(mean)
                hidden = [self.double(hidden[0]), mean]
            known = ops.concatenate([*hidden, features[scale], seen], axis=-1)
            hidden = [self.again[scale](self.up[scale](known))]
            mean = mean + self.out[scale](hidden[0])
        return mean + level


class Network:
    """The network on stacks of maps as `edxdenoise.components.smoothing` has them."""

    def __init__(self) -> None:
        self.model = Smoother()
        self.model(np.ones((1, 64, 64, 2), np.float32))
        self.run = tf.function(self.model)

    def __call__(self, values: np.ndarray, weights: np.ndarray, variance: np.ndarray) -> np.ndarray:
        """Estimates like `values`, shape (k, y, x)."""
        rows, columns = weights.shape
        size = 2 ** (LEVELS - 1)
        room = ((0, -rows % size), (0, -columns % size), (0, 0))
        result = np.empty_like(values)
        for k, (value, noise) in enumerate(zip(values, variance)):
            precision = weights / noise
            given = np.pad(np.stack([precision * value, precision], axis=-1), room)
            result[k] = self.run(given[np.newaxis]).numpy()[0, :rows, :columns, 0]
        return result


# What it is trained on --------------------------------------------------------------------------


def random_field(rng: np.random.Generator, size: int) -> np.ndarray:
    """Smooth field of variance 1: noise of one length, or of a power law."""
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    if rng.random() < 0.5:
        response = np.exp(-2 * (np.pi * k * np.exp(rng.uniform(0.5, 3))) ** 2)
    else:
        k[0, 0] = np.inf
        response = k ** -rng.uniform(1, 2.5)
    found = np.fft.ifft2(np.fft.fft2(rng.standard_normal(k.shape)) * response).real
    return (found - found.mean()) / found.std()


def random_map(rng: np.random.Generator, size: int) -> np.ndarray:
    """Field, grains, layers, lattice or spots, of variance 1."""
    y, x = np.mgrid[:size, :size].astype(float)
    kind = rng.integers(5)
    if kind == 0:
        found = random_field(rng, size)
    elif kind == 1:
        centres = rng.uniform(0, size, (int(np.exp(rng.uniform(1, 5))), 2))
        places = np.stack([y, x], axis=-1)
        found = rng.standard_normal(len(centres))[cKDTree(centres).query(places)[1]]
    elif kind == 2:
        angle = rng.uniform(0, np.pi)
        depth = y * np.cos(angle) + x * np.sin(angle) + 4 * rng.random() * random_field(rng, size)
        edges = np.sort(rng.uniform(-size, 1.5 * size, rng.integers(2, 24)))
        found = rng.standard_normal(len(edges) + 1)[np.searchsorted(edges, depth)]
    elif kind == 3:
        turn, period = rng.uniform(0, np.pi), rng.uniform(3, 14)
        found = np.zeros((size, size))
        for angle in (turn, turn + rng.uniform(1, np.pi / 2)):
            along = y * np.cos(angle) + x * np.sin(angle)
            found += np.cos(2 * np.pi * (along / period + rng.random()))
        if rng.random() < 0.5:
            found *= random_field(rng, size) > 0
    else:
        found = np.zeros((size, size))
        for _ in range(int(np.exp(rng.uniform(0, 4)))):
            centre, radius = rng.uniform(0, size, 2), np.exp(rng.uniform(-0.5, 2.3))
            found[np.hypot(y - centre[0], x - centre[1]) < radius] = rng.normal(1, 0.3)
    if rng.random() < 0.5:
        found = gaussian_filter(found, rng.uniform(0.3, 1.5), mode="nearest")
    if rng.random() < 0.3:
        found = found + rng.uniform(0, 1) * random_field(rng, size)
    found = found - found.mean()
    return found / max(found.std(), 1e-6)


def example(rng: np.random.Generator, size: int) -> tuple[np.ndarray, ...]:
    """Values, weights, variance and truth of one map, shape (y, x)."""
    dose = np.exp(rng.uniform(np.log(0.5), np.log(5000)))
    thickness = np.exp(rng.uniform(0, 0.7) * random_map(rng, size))
    if rng.random() < 0.2:
        thickness = thickness * np.where(random_field(rng, size) > 0, 1, 0.03)
    expected = dose * thickness / thickness.mean()
    counts = rng.poisson(expected).astype(float)
    if rng.random() < 0.25:
        # The totals: their noise is that of the counts which pixels nearby let expect.
        noise = np.maximum(gaussian_filter(expected, 2.0), 0.02)
        return counts, np.ones_like(counts), noise, expected
    shape = random_map(rng, size)
    truth = np.exp(rng.uniform(np.log(0.02), 0)) * shape
    noise = np.exp(rng.uniform(-0.7, 0.7) * np.tanh(shape + rng.normal()))
    values = truth + rng.standard_normal(truth.shape) * np.sqrt(noise / np.maximum(counts, 1))
    return np.where(counts > 0, values, 0), counts, noise, truth


def batches(seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Input of the network; truth and weight of its error."""
    rng = np.random.default_rng(seed)
    while True:
        values, weights, noise, truth = (
            np.stack(each) for each in zip(*(example(rng, PATCH) for _ in range(BATCH)))
        )
        precision = weights / noise
        yield tuple(
            np.stack(pair, axis=-1).astype(np.float32)
            for pair in ((precision * values, precision), (truth, precision))
        )


def loss(target: Any, found: Any) -> Any:
    """Logarithm of the squared error of each map, no less than that of its mean."""
    truth, precision = target[..., :1], target[..., 1:]
    total = ops.sum(precision, axis=(1, 2, 3)) + 1e-9
    square = ops.sum(precision * (found - truth) ** 2, axis=(1, 2, 3))
    return ops.mean(ops.log((square + 1) / total))


def trained(path: Path, steps: int) -> Network:
    """The network of the file; trained and written where there is none."""
    keras.utils.set_random_seed(0)
    network = Network()
    if path.exists():
        network.model.load_weights(path)
    else:
        shape = (BATCH, PATCH, PATCH, 2)
        signature = (tf.TensorSpec(shape), tf.TensorSpec(shape))
        data = tf.data.Dataset.from_generator(lambda: batches(1), output_signature=signature)
        rate = keras.optimizers.schedules.CosineDecay(3e-3, steps)
        network.model.compile(keras.optimizers.Adam(rate), loss, jit_compile=False)
        start = time.perf_counter()
        parts = 10
        network.model.fit(data.prefetch(2), steps_per_epoch=steps // parts, epochs=parts, verbose=2)
        print(f"trained in {time.perf_counter() - start:.0f} s")
        network.model.save_weights(path)
    print(network.model.count_params(), "parameters")
    return network


def validate(network: Network) -> None:
    """Print errors on maps of another seed, of the kind that it was trained on."""
    rng, found = np.random.default_rng(2), []
    for _ in range(VALIDATED):
        given = [each.astype(np.float32) for each in example(rng, PATCH)]
        (values, variance, truth), weights = (given[i][np.newaxis] for i in (0, 2, 3)), given[1]
        known, dose = (values, weights, variance), weights if weights.std() else values
        mixture = partial(smoothing.smooth, *known, window=smoothing.risk_window(dose))
        results = [mixture().values, network(*known)]
        with one_more(network):
            results.append(mixture().values)
        square = [(weights / variance * (each - truth) ** 2).sum() for each in results]
        found.append(np.sqrt(square))
    with_, alone = (np.median([each[i] / each[0] for each in found]) for i in (2, 1))
    print(f"maps as trained on, error over the mixture's: with {with_:.3f}, alone {alone:.3f}")


# On real files ----------------------------------------------------------------------------------


@contextmanager
def one_more(network: Network) -> Iterator[None]:
    """Let the network be one of the estimators of the mixture whose response is measured."""
    plain, risk = smoothing._alike, smoothing.own_risk

    def alike(guide: Any, values: Any, weights: Any, variance: Any, *rest: Any) -> Any:
        means, own = plain(guide, values, weights, variance, *rest)
        found = network(values, weights, variance)[np.newaxis]
        # Its response is no less than that of the wider average over like pixels.
        return np.concatenate([means, found]), np.concatenate([own, own.min(axis=0)[np.newaxis]])

    def own_risk(own: Any, spike: Any) -> Any:
        # A network may answer by more than what comes in; a pixel gains by single counts once.
        return own + risk(np.minimum(own, 1), spike) - np.minimum(own, 1)

    with (
        mock.patch.object(smoothing, "_alike", alike),
        mock.patch.object(smoothing, "own_risk", own_risk),
    ):
        yield


@contextmanager
def alone(network: Network) -> Iterator[None]:
    """Let the network replace the mixture."""
    plain = smoothing.smooth

    def smooth(values: Any, weights: Any, variance: Any, **rest: Any) -> Any:
        mixed = plain(values, weights, variance, **rest)
        return replace(mixed, values=network(values, weights, variance))

    with mock.patch.object(stage, "smooth", smooth):
        yield


def study(network: Network, options: argparse.Namespace) -> list[list[str]]:
    """Rows of the table, one per map and dose."""
    found: dict[tuple[str, float], list[list[float]]] = {}
    for name in options.maps:
        for dose, seed, part, window, judge in real_parts(
            name, options.doses, options.seeds, options.data
        ):
            recipe = Denoise(components=COMPONENTS, seed=seed)
            results = [denoise(part, recipe)]
            for context in (one_more, alone):
                with context(network):
                    results.append(rebuilt(results[0], recipe, errors=False))
            maps = [each["counts_denoised"].values @ window for each in results]
            figures = [float(np.median(judge.errors(each))) for each in maps]
            found.setdefault((name, dose), []).append(figures)
            print(name, dose, seed, *(f"{each:.4f}" for each in figures), sep=", ", flush=True)
    rows = []
    for (name, dose), each in found.items():
        plain, with_, only = np.mean(each, axis=0)
        change = f"{100 * (with_ / plain - 1):+.1f}"
        rows.append([name, f"{dose:g}", f"{plain:.3f}", f"{with_:.3f}", change, f"{only:.3f}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="file that keeps the network")
    parser.add_argument("--steps", type=int, default=10000, help="of training")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the real files")
    parser.add_argument("--maps", nargs="*", default=list(FILES), choices=list(FILES))
    parser.add_argument("--doses", nargs="+", type=float, default=DOSES, help="counts per pixel")
    parser.add_argument("--seeds", type=int, default=3, help="number of random splits")
    parser.add_argument("--csv", action="store_true", help="write them to learned.csv too")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    network = trained(options.weights, options.steps)
    validate(network)
    rows = study(network, options)
    if options.csv and rows:
        path = RESULTS / "learned.csv"
        rows = kept_rows(path, rows, key=2)
        rows.sort(key=lambda row: (list(FILES).index(row[0]), float(row[1])))
        write_csv(path, [HEAD, *rows])


if __name__ == "__main__":
    sys.exit(main())
