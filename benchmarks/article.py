"""The article's Table 2 in form: its network, taught its way and without leaks.

    python benchmarks/article.py

Score maps of components 1 to 100 of a solar-cell phantom of four areas, each cut into its areas:
400 pictures, as the article has them. A component is signal if the correlation of its map with the
truth is above .15; its pictures share its label. "imbalanced" is that; "augmented" has the pictures
of the minority 14 times, changed at random.

"leaking" is the article's order: augmented first, then split 7:3 at random, so that copies of one
picture and the areas of one component lie on both sides. "by component" puts all pictures of a
component, and their copies, on one side (and copies are for training alone). "another specimen"
trains on all of one phantom and tests on another of the same kind, of other grains, noise and dose;
"another generator" tests the same networks on images of `unseen`. Every row is the mean of some
seeds; the range of the balanced accuracy is in brackets. The time is that of training one network.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
from _measure import machine, markdown
from selection import NOISE, SIGNAL, decomposed
from unseen import true_r, unseen

from edxdenoise import pca, simulate, weight
from edxdenoise.components.network_inputs import network_input
from edxdenoise.components.networks import build, keras, tensorflow
from edxdenoise.training.augmentation import copied_order, picture_batches
from edxdenoise.training.evaluation import Scores, score
from edxdenoise.training.fit import SCHEDULES, constants

COMPONENTS = 100
_TRAIN = 0.7
_UNSEEN_IMAGES = 40

# Pictures, whether each is signal, and the component it is from.
Pictures = tuple[np.ndarray, np.ndarray, np.ndarray]


def specimen_pictures(seed: int, dose: float, shape: tuple[int, int]) -> Pictures:
    """Pictures of the components of one phantom, area by area."""
    phantom = simulate("solar-cell", shape=shape, counts_per_pixel=dose, seed=seed).compute()
    truth = phantom["phase_map"].values.astype(float), phantom["phase_spectrum"].values
    ds = pca(weight(phantom), components=COMPONENTS).compute()
    signal = true_r(ds, truth) > SIGNAL
    area = ds["area"].values
    parts = [network_input(ds.isel(y=area == n), "article") for n in np.unique(area)]
    number = np.arange(COMPONENTS)
    return np.concatenate(parts), np.tile(signal, len(parts)), np.tile(number, len(parts))


def unseen_pictures(images: int) -> Pictures:
    """Pictures of clear signal and clear noise of images of another generator."""
    pictures, signals = [], []
    for seed in range(images):
        ds, truth = unseen(10_000 + seed)
        ds, _ = decomposed(ds)
        r = true_r(ds, truth)
        clear = np.flatnonzero((r < NOISE) | (r > SIGNAL))[1:]
        pictures.append(network_input(ds, "article", components=clear.tolist()))
        signals.append(r[clear] > SIGNAL)
    signal = np.concatenate(signals)
    return np.concatenate(pictures), signal, np.arange(signal.size)


def augmented(data: Pictures, seed: int) -> Pictures:
    """The pictures of the minority 14 times, changed at random; all others once."""
    pictures, signal, component = data
    labels = signal.astype(np.float32)
    order = copied_order(labels, seed)
    batches = picture_batches(pictures, labels, order, len(order), seed)
    changed = next(iter(batches))[0].numpy()
    return changed, signal[order], component[order]


def trained(data: Pictures, seed: int) -> tuple[object, float]:
    """The article's network after its 10 passes, and the seconds they took."""
    pictures, signal, _ = data
    schedule = SCHEDULES["article"]
    model = build(constants("article", pictures), seed)
    k = keras()
    model.compile(k.optimizers.Adam(schedule.rate), "categorical_crossentropy")
    rng = np.random.default_rng(seed)
    labels = signal.astype(np.float32)
    # Changed already, where at all: here each is only cropped at random.
    nothing = np.zeros(signal.size, bool)
    start = time.perf_counter()
    for epoch in range(schedule.epochs):
        order = rng.permutation(signal.size)
        batches = picture_batches(
            pictures, labels, order, schedule.batch, seed * schedule.epochs + epoch, nothing
        )
        model.fit(batches, verbose=0, shuffle=False)
    return model, time.perf_counter() - start


def tested(model: object, data: Pictures, seconds: float) -> Scores:
    """Scores of a network on pictures."""
    pictures, signal, _ = data
    probability = model.predict(pictures, batch_size=64, verbose=0)[:, 1].astype(float)
    return score(signal, probability, seconds=seconds)


def part(data: Pictures, chosen: np.ndarray) -> Pictures:
    """Some of the pictures."""
    return tuple(each[chosen] for each in data)


def random_split(number: int, seed: int) -> np.ndarray:
    """Which of `number` things are for training, array of bool."""
    return np.random.default_rng([seed, 7]).permutation(number) < _TRAIN * number


def by_component(data: Pictures, seed: int) -> np.ndarray:
    """Which pictures are for training, 7:3 of the signal and of the noise components."""
    _, signal, component = data
    numbers, first = np.unique(component, return_index=True)
    train = np.zeros(numbers.size, bool)
    for kind in (True, False):
        of_kind = np.flatnonzero(signal[first] == kind)
        train[of_kind] = random_split(of_kind.size, seed)
    return train[np.searchsorted(numbers, component)]


def rows(options: argparse.Namespace) -> list[list[str]]:
    """The table."""
    shape = tuple(options.shape)
    first = specimen_pictures(1, options.dose, shape)
    second = specimen_pictures(2, options.dose / 2, shape)
    other = unseen_pictures(options.unseen)
    for name, each in (("phantom", first), ("another", second), ("unseen", other)):
        print(f"{name}: {each[1].sum()} of {each[1].size} pictures are signal")
    found: dict[tuple[str, str], list[Scores]] = {}

    def note(pictures: str, split: str, one: Scores) -> None:
        found.setdefault((pictures, split), []).append(one)

    for seed in range(options.seeds):
        for name in ("imbalanced", "augmented"):

            def ready(data: Pictures, name: str = name, seed: int = seed) -> Pictures:
                return augmented(data, seed) if name == "augmented" else data

            everything = ready(first)
            train = random_split(everything[1].size, seed)
            model, seconds = trained(part(everything, train), seed)
            note(name, "leaking", tested(model, part(everything, ~train), seconds))
            train = by_component(first, seed)
            model, seconds = trained(ready(part(first, train)), seed)
            note(name, "by component", tested(model, part(first, ~train), seconds))
            model, seconds = trained(everything, seed)
            note(name, "another specimen", tested(model, second, seconds))
            note(name, "another generator", tested(model, other, seconds))
    return [row(*key, scores) for key, scores in found.items()]


def row(pictures: str, split: str, scores: list[Scores]) -> list[str]:
    """Means over the seeds."""

    def mean(name: str) -> float:
        values = np.array([getattr(one, name) for one in scores], float)
        return float(np.nanmean(values)) if np.isfinite(values).any() else np.nan

    balanced = [one.balanced for one in scores]
    names = ("fraction", "accuracy", "sensitivity", "specificity", "ppv", "npv")
    cells = [f"{mean(name):.3f}" for name in names]
    spread = f"{np.mean(balanced):.3f} [{min(balanced):.3f}, {max(balanced):.3f}]"
    return [pictures, split, *cells, spread, f"{mean('seconds'):.0f} s"]


_COLUMNS = (
    *("pictures", "split", "signal", "accuracy", "sensitivity", "specificity"),
    *("PPV", "NPV", "balanced", "time"),
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dose", type=float, default=1000.0, help="counts per pixel")
    parser.add_argument("--shape", type=int, nargs=2, default=(330, 500))
    parser.add_argument("--unseen", type=int, default=_UNSEEN_IMAGES, metavar="IMAGES")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    keras()
    tensorflow().config.experimental.enable_op_determinism()
    print(machine())
    print("\n" + markdown(_COLUMNS, rows(options)))


if __name__ == "__main__":
    main()
