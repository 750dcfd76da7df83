"""How well selectors tell signal from noise, on specimens that no classifier was trained on.

    python benchmarks/selection.py

Four sections: `bins`, all selectors on images of `unseen`, by dose; `robust`, the same images
smoothed, interpolated, flickering, with dead pixels and scaled; `end`, the error of denoised counts
and of line ratios on solar cells with the components each selector keeps; `areas`, a component that
differs only between stacked maps, on the stack and cut apart.

r is the correlation of a score map with the map free of noise (truth: expected counts). Signal is
r > 0.15, noise r < 0.05; what lies between is grey, and counts as neither. Component 1 is always
kept and not judged. Sensitivity is the share of the signal called signal, specificity that of the
noise called noise, with 95 % intervals (E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209). AUC is
the chance that a signal scores higher than a noise; its interval is from images drawn again with
replacement. "told the true maps" is a bound: it knows where every phase lies, and asks only whether
the map shows any of them. "grey AUC" compares r of 0.08 to 0.15 with noise. "uneven" noise has a
variance that varies over the map by more than 0.3 of its mean.
"""

# This file must not be called selectors.py: it would hide Python's own module from all benchmarks.
from __future__ import annotations

import argparse
import multiprocessing
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import xarray as xr
from _measure import machine, markdown
from scipy import stats
from threadpoolctl import threadpool_limits
from unseen import VARIANTS, true_r, true_scores, unseen, variance_cv

from edxdenoise import pca, reconstruct, select, simulate, weight
from edxdenoise.components.selection import SELECTORS
from edxdenoise.errors import DataError, FormatError

BINS = ((20, 60), (60, 200), (200, 600), (600, 2500), (2500, 20_000))
SECTIONS = ("bins", "robust", "end", "areas")
STRONG, SIGNAL, NOISE = 0.3, 0.15, 0.05
GREY = (0.08, 0.15)
UNEVEN = 0.3
WEAK_WANTED = 200
_COMPONENTS = 50
_RESAMPLES = 200
_LARGE = 10_000
_LEAST_LAG = 4.0  # standard deviations of white noise

# Score of every component, or None, and what is kept.
Answer = tuple[np.ndarray | None, np.ndarray]


def lag_one(ds: xr.Dataset) -> Answer:
    """Mean autocorrelation of the score map with its neighbours in y and x, even noise assumed."""
    maps = ds["component_map"].values
    maps = maps - maps.mean(axis=(1, 2), keepdims=True)
    products = (maps[:, 1:] * maps[:, :-1]).sum((1, 2)) + (maps[..., 1:] * maps[..., :-1]).sum(
        (1, 2)
    )
    score = products / np.sqrt(2 * maps[0].size) / np.maximum(maps.var(axis=(1, 2)), 1e-30)
    return score, score > _LEAST_LAG


def selector(name: str, ds: xr.Dataset) -> Answer:
    """What a selector of the package says."""
    verdict = SELECTORS[name](ds, 0)
    return verdict.probability, verdict.keep


def network(models: tuple[str, ...], ds: xr.Dataset) -> Answer:
    """The network alone: probability above one half."""
    from edxdenoise.components.networks import Classifier

    probability = Classifier.load(models).probability(ds)
    return probability, probability > 0.5


def told(truth: tuple[np.ndarray, np.ndarray], ds: xr.Dataset) -> Answer:
    """Correlation with the best sum of the true maps of all phases: nobody can know more."""
    amounts, spectra = truth
    total = np.tensordot(spectra.sum(axis=1), amounts, axes=1)
    patterns = (amounts / np.sqrt(np.where(total > 0, total, np.inf))).reshape(len(amounts), -1)
    patterns = patterns - patterns.mean(axis=1, keepdims=True)
    basis, size, _ = np.linalg.svd(patterns.T, full_matrices=False)
    basis = basis[:, size > 1e-9 * size[0]]
    maps = ds["component_map"].values.reshape(len(ds["component"]), -1).astype(float)
    maps -= maps.mean(axis=1, keepdims=True)
    share = ((maps @ basis) ** 2).sum(axis=1) / (maps**2).sum(axis=1)
    # So much is there by chance.
    chance = basis.shape[1] / basis.shape[0]
    r = np.sqrt(np.clip((share - chance) / (1 - chance), 0, 1))
    return r, r > (NOISE + SIGNAL) / 2


def registry(models: Sequence[str]) -> dict[str, Callable[[xr.Dataset], Answer]]:
    """All selectors there are, by name; says which are missing."""
    chosen: dict[str, Callable[[xr.Dataset], Answer]] = {"lag-1": lag_one}
    for name in ("elbow", "second-elbow", "edge", "split", "spatial"):
        if name in SELECTORS:
            chosen[name] = partial(selector, name)
        else:
            print(f"{name} is left out: edxdenoise has no such selector")
    by_kind: dict[str, list[str]] = {}
    try:
        from edxdenoise.components.networks import Classifier

        for path in models:
            by_kind.setdefault(Classifier.load([path]).kind, []).append(path)
        for kind, paths in by_kind.items():
            chosen[f"network {kind}, {len(paths)} given"] = partial(network, tuple(paths))
        Classifier.load()
        chosen["network shipped"] = partial(network, ())
        chosen["cnn (network and spatial)"] = partial(selector, "cnn")
    except (FormatError, ImportError) as error:
        print(f"cnn is left out: {error}")
    return chosen


def decomposed(ds: xr.Dataset) -> tuple[xr.Dataset, bool]:
    """With components and their spatial evidence, and whether correlated noise was warned of."""
    most = min(_COMPONENTS, ds.sizes["y"] * ds.sizes["x"], ds.sizes["energy"])
    ds = pca(weight(ds), components=most)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ds = select(ds, selector="spatial")
    return ds, any("share their noise" in str(warning.message) for warning in caught)


Rows = dict[str, np.ndarray]


def judge(task: tuple[int, int, str], models: tuple[str, ...]) -> Rows:
    """Truth and the answers of all selectors about the components, but the first, of one image."""
    seed, number, variant = task
    ds, truth = unseen(seed, dose=BINS[number])
    if variant:
        ds, truth = VARIANTS[variant](ds, truth, seed)
    # The doses are meant to be low, and the maps to be smoothed.
    warnings.simplefilter("ignore")
    ds, warned = decomposed(ds)
    r = true_r(ds, truth)[1:]
    rows = {"r": r, "cv": variance_cv(ds, truth)[1:]}
    pixels = truth[0][0].size
    for name, value in (("bin", number), ("image", seed), ("warned", warned), ("pixels", pixels)):
        rows[name] = np.full(r.size, value)
    functions = {"told the true maps": partial(told, truth), **_quiet_registry(models)}
    for name, function in functions.items():
        try:
            score, keep = function(ds)
        except DataError:
            # The split test needs whole counts.
            score, keep = None, np.full(r.size + 1, np.nan)
        rows[f"keep {name}"] = keep[1:].astype(float)
        rows[f"score {name}"] = np.full(r.size, np.nan) if score is None else score[1:]
    return rows


def _quiet_registry(models: tuple[str, ...]) -> dict[str, Callable[[xr.Dataset], Answer]]:
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()):
        return registry(models)


def judge_all(tasks: list[tuple[int, int, str]], models: tuple[str, ...], workers: int) -> Rows:
    """`judge` of many images, in processes of one thread each, joined."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        parts = list(pool.map(partial(judge, models=models), tasks))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _one_thread() -> None:
    threadpool_limits(1)


# Figures ----------------------------------------------------------------------------------------


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a rate.

    Examples
    --------
    >>> [round(bound, 4) for bound in wilson(8, 10)]
    [0.4902, 0.9433]
    """
    if not trials:
        return np.nan, np.nan
    z2 = stats.norm.ppf(0.975) ** 2
    rate = successes / trials
    middle = (rate + z2 / (2 * trials)) / (1 + z2 / trials)
    half = np.sqrt(z2 * (rate * (1 - rate) / trials + z2 / (4 * trials**2))) / (1 + z2 / trials)
    return middle - half, middle + half


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Chance that a positive scores higher than a negative, ties counted half; NaN without any."""
    if not (positive.size and negative.size) or np.isnan(positive).any():
        return np.nan
    ranks = stats.rankdata(np.concatenate([positive, negative]))
    above = ranks[: positive.size].sum() - positive.size * (positive.size + 1) / 2
    return float(above / (positive.size * negative.size))


def rate_cell(said: np.ndarray) -> str:
    """Share of True with its interval."""
    if not said.size or np.isnan(said).any():
        return "-"
    low, high = wilson(int(said.sum()), said.size)
    return f"{said.mean():.3f} [{low:.3f}, {high:.3f}]"


def auc_cell(
    score: np.ndarray, positive: np.ndarray, negative: np.ndarray, image: np.ndarray
) -> str:
    """AUC with an interval from images drawn again."""
    value = auc(score[positive], score[negative])
    if np.isnan(value):
        return "-"
    rng = np.random.default_rng(0)
    images, place = np.unique(image, return_inverse=True)
    members = np.split(np.argsort(place, kind="stable"), np.cumsum(np.bincount(place))[:-1])
    values = []
    for _ in range(_RESAMPLES):
        drawn = np.concatenate([members[i] for i in rng.integers(images.size, size=images.size)])
        values.append(auc(score[drawn[positive[drawn]]], score[drawn[negative[drawn]]]))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return f"{value:.4f} [{low:.3f}, {high:.3f}]"


_COLUMNS = (
    "selector",
    "sens. r > .3",
    "sens. r > .15",
    "specificity",
    "spec. uneven",
    "balanced",
    "AUC",
    "grey AUC",
)


def table(rows: Rows) -> str:
    """Selectors by row."""
    r, noise, signal = rows["r"], rows["r"] < NOISE, rows["r"] > SIGNAL
    grey = (r > GREY[0]) & (r < GREY[1])
    lines = []
    for name in _names(rows):
        keep, score = rows[f"keep {name}"], rows[f"score {name}"]
        lines.append(
            [
                name,
                rate_cell(keep[r > STRONG]),
                rate_cell(keep[signal]),
                rate_cell(1 - keep[noise]),
                rate_cell(1 - keep[noise & (rows["cv"] > UNEVEN)]),
                f"{_balanced(keep, signal, noise):.3f}",
                auc_cell(score, signal, noise, rows["image"]),
                auc_cell(score, grey, noise, rows["image"]),
            ]
        )
    return markdown(_COLUMNS, lines)


def _balanced(keep: np.ndarray, signal: np.ndarray, noise: np.ndarray) -> float:
    return (keep[signal].mean() + 1 - keep[noise].mean()) / 2 if signal.any() else np.nan


def _names(rows: Rows) -> list[str]:
    return [name.removeprefix("keep ") for name in rows if name.startswith("keep ")]


def numbers(rows: Rows) -> str:
    """How many components of which kind."""
    r = rows["r"]
    uneven = (r < NOISE) & (rows["cv"] > UNEVEN)
    return (
        f"{np.unique(rows['image']).size} images, {np.count_nonzero(r > SIGNAL)} signal "
        f"({np.count_nonzero((r > SIGNAL) & (r < STRONG))} weak, r < .3), "
        f"{np.count_nonzero((r > GREY[0]) & (r < GREY[1]))} grey, "
        f"{np.count_nonzero(r < NOISE)} noise ({np.count_nonzero(uneven)} uneven)"
    )


# Sections ---------------------------------------------------------------------------------------


def bins(options: argparse.Namespace) -> None:
    """All selectors by dose."""
    tasks = [(seed, number, "") for seed, number in _images(options, options.images)]
    rows = judge_all(tasks, tuple(options.model), options.workers)
    for number, (low, high) in enumerate(BINS):
        part = {name: values[rows["bin"] == number] for name, values in rows.items()}
        print(f"\n### {low} to {high} counts per pixel: {numbers(part)}\n\n{table(part)}")
    # A faint unknown pattern in a thousand pixels is beyond any test.
    for title, chosen in (
        ("all doses", rows["pixels"] > 0),
        (f"maps of more than {_LARGE} pixels", rows["pixels"] > _LARGE),
    ):
        part = {name: values[chosen] for name, values in rows.items()}
        print(f"\n### {title}: {numbers(part)}\n\n{table(part)}")
    weak = np.count_nonzero((rows["r"] > SIGNAL) & (rows["r"] < STRONG))
    if weak < WEAK_WANTED:
        print(f"\nonly {weak} weak components; {WEAK_WANTED} are wanted: give --images more")


def robust(options: argparse.Namespace) -> None:
    """Selectors on the same images as others would have left them to us."""
    images = _images(options, max(options.images // 10, 1))
    variants = ("", *VARIANTS)
    tasks = [(seed, number, variant) for variant in variants for seed, number in images]
    rows = judge_all(tasks, tuple(options.model), options.workers)
    variant_of, start = {}, 0
    for variant in variants:
        # Rows come in the order of the tasks: an image's first row starts a new one.
        stop = start + _length(rows, start, len(images))
        variant_of[variant] = slice(start, stop)
        start = stop
    lines = []
    for variant, where in variant_of.items():
        part = {name: values[where] for name, values in rows.items()}
        signal, noise = part["r"] > SIGNAL, part["r"] < NOISE
        _, first = np.unique(part["image"], return_index=True)
        warned = f"{int(part['warned'][first].sum())} of {first.size}"
        for name in _names(part):
            keep = part[f"keep {name}"]
            large = keep[signal & (part["pixels"] > _LARGE)]
            cells = [rate_cell(keep[signal]), rate_cell(large), rate_cell(1 - keep[noise])]
            lines.append([variant or "as measured", name, *cells, warned])
    rates = ["sens. r > .15", f"above {_LARGE} pixels", "specificity"]
    columns = ["images", "selector", *rates, "noise said to be correlated"]
    print("\n" + markdown(columns, lines))


def _length(rows: Rows, start: int, images: int) -> int:
    """Rows from `start` on until `images` images have passed."""
    change = np.flatnonzero(np.diff(rows["image"][start:])) + 1
    return int(change[images - 1]) if change.size >= images else rows["image"].size - start


def end(options: argparse.Namespace) -> None:
    """Error of denoised counts and of line ratios."""
    warnings.simplefilter("ignore")
    lines = []
    for dose in (100, 300, 1000, 4000):
        shape = (66, 100) if options.quick else (132, 200)
        phantom = simulate("solar-cell", shape=shape, counts_per_pixel=dose, seed=options.seed)
        phantom = phantom.compute()
        truth = phantom["phase_map"].values.astype(float), phantom["phase_spectrum"].values
        ds, _ = decomposed(phantom)
        r = true_r(ds, truth)
        chosen = {name: SELECTORS[name](ds, 0).keep for name in ("elbow", "spatial")}
        if "cnn (network and spatial)" in _quiet_registry(()):
            chosen["cnn"] = SELECTORS["cnn"](ds, 0).keep
        chosen["truth, r > .15"] = r > SIGNAL
        # Components are orthogonal in the weighted space: each adds its noise or lacks its signal.
        scores, maps = true_scores(ds, truth), ds["component_map"].values
        noisier = ((maps - scores) ** 2).sum((1, 2)) > (scores**2).sum((1, 2))
        chosen["truth, least error"] = ~noisier
        for name, keep in chosen.items():
            keep = keep.copy()
            keep[0] = True
            lines.append([str(dose), name, str(keep.sum()), *_errors(ds, keep)])
    columns = ["counts per pixel", "components by", "kept", "counts", "N/Pb", "I/Pb"]
    print("\n" + markdown(columns, lines))


# Windows of the N K, I L and Pb L lines, keV.
_WINDOWS = {"N": (0.34, 0.46), "I": (3.84, 4.06), "Pb": (10.4, 10.7)}


def _errors(ds: xr.Dataset, keep: np.ndarray) -> list[str]:
    flags = ds["component_keep"].copy(data=keep.astype(np.int8))
    rebuilt = reconstruct(ds.assign(component_keep=flags))["counts_denoised"].values
    expected = ds["expected_counts"].values
    # In units of Poisson noise, so that weak lines count.
    scale = np.sqrt(np.maximum(expected, 1e-6 * expected.max()))
    cells = [f"{np.sqrt(np.mean(((rebuilt - expected) / scale) ** 2)):.4f}"]
    net = {line: _net(ds, rebuilt, line) for line in _WINDOWS}
    true = {line: _net(ds, expected, line) for line in _WINDOWS}
    film = true["Pb"] > 0.5 * np.quantile(true["Pb"], 0.75)
    for line in ("N", "I"):
        ratio, right = (each[line][film] / each["Pb"][film] for each in (net, true))
        cells.append(f"{np.sqrt(np.mean((ratio - right) ** 2)) / right.mean():.4f}")
    return cells


def _net(ds: xr.Dataset, counts: np.ndarray, line: str) -> np.ndarray:
    """Counts in the window of a line, 2 x 2 pixels together, less the true background.

    The background is the straight line between the ends of the window in the expected counts.
    """
    low, high = _WINDOWS[line]
    energy = ds["energy"].values
    window = np.flatnonzero((energy > low) & (energy < high))
    expected = ds["expected_counts"].values
    background = (expected[..., window[0]] + expected[..., window[-1]]) / 2 * window.size
    net = counts[..., window].sum(axis=-1, dtype=float) - background
    y, x = (n // 2 * 2 for n in net.shape)
    return net[:y, :x].reshape(y // 2, 2, x // 2, 2).sum(axis=(1, 3))


def areas(options: argparse.Namespace) -> None:
    """Components that differ between areas only, on the stack and cut apart."""
    warnings.simplefilter("ignore")
    shape = (66, 100) if options.quick else (198, 300)
    arguments = {"shape": shape, "channels": 325, "counts_per_pixel": 2000, "seed": options.seed}
    ds, truth = _plain_films(simulate("solar-cell", **arguments).compute(), options.seed)
    ds, _ = decomposed(ds)
    r = true_r(ds, truth)
    area = ds["area"].values
    maps = ds["component_map"].values
    within = _r_within(ds, truth, area)
    functions = _quiet_registry(tuple(options.model))
    parts = [_cut(ds, area == number) for number in np.unique(area)]
    lines = []
    for k in np.flatnonzero(r > SIGNAL)[1:]:
        means = np.array([maps[k, area == number].mean() for number in np.unique(area)])
        row = [str(k + 1), f"{r[k]:.2f}", f"{within[k]:.2f}"]
        row.append(f"{np.ptp(means) / maps[k].std():.2f}")
        for name in _LOOKING:
            if name in functions:
                row.append(_said(functions[name], ds, k))
                row.append(" ".join(_said(functions[name], part, k) for part in parts))
        lines.append(row)
    columns = ["component", "r", "largest r of an area", "spread of areas' means / sd"]
    for name in _LOOKING:
        if name in functions:
            columns += [f"{name}: stack", "cut apart"]
    print("\n" + markdown(columns, lines))


_LOOKING = ("lag-1", "spatial", "network shipped")


def _plain_films(phantom: xr.Dataset, seed: int) -> tuple[xr.Dataset, tuple]:
    """The films of the solar cells alone, of one phase each, which differs between areas only."""
    amounts = phantom["phase_map"].values.astype(float)
    spectra = phantom["phase_spectrum"].values.astype(float)
    number = {str(name): i for i, name in enumerate(phantom["phase"].values)}
    control, treated = (number[f"MAPbI3 {kind}"] for kind in ("control", "treated"))
    others = [number[name] for name in ("MAPbI3 N-poor", "MAPbI3 damaged", "PbI2")]
    film = amounts[[control, treated, *others]].sum(axis=0)
    first = (phantom["area"].values <= 2)[:, None]
    amounts[control], amounts[treated] = film * first, film * ~first
    amounts[others] = 0
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero((film / amounts[: number["stray"]].sum(axis=0)).min(axis=1) > 0.95)
    amounts = amounts[:, rows]
    counts = rng.poisson(np.tensordot(amounts, spectra, axes=(0, 0))).astype(np.uint16)
    stack = phantom[["counts"]].isel(y=rows)
    return stack.assign(counts=(stack["counts"].dims, counts)), (amounts, spectra)


def _cut(ds: xr.Dataset, rows: np.ndarray) -> xr.Dataset:
    """One area with the components of the stack, judged as a map of its own."""
    gone = ["component_spatial_statistic", "component_effect_size"]
    return ds.drop_vars(gone).isel(y=np.flatnonzero(rows))


def _r_within(ds: xr.Dataset, truth: tuple[np.ndarray, np.ndarray], area: np.ndarray) -> np.ndarray:
    return np.max(
        [
            true_r(ds.isel(y=np.flatnonzero(area == n)), (truth[0][:, area == n], truth[1]))
            for n in np.unique(area)
        ],
        axis=0,
    )


def _said(function: Callable[[xr.Dataset], Answer], ds: xr.Dataset, k: int) -> str:
    score, keep = function(ds)
    known = score is not None and 0 <= score.min() and score.max() <= 1
    sure = f" {max(score[k], 1 - score[k]):.0%}" if known else ""
    return ("signal" if keep[k] else "noise") + sure


def _images(options: argparse.Namespace, each: int) -> list[tuple[int, int]]:
    """Seeds and dose bins."""
    return [
        (options.seed + 1000 * number + i, number)
        for number in range(len(BINS))
        for i in range(each)
    ]


def main() -> None:
    """Print the sections."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--images", type=int, default=60, help="of each dose bin")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--model", action="append", default=[], metavar="FILE", help="a network")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one image of each bin")
    options = parser.parse_args()
    if options.quick:
        options.images = 1
    print(f"{machine()}; seed {options.seed}")
    registry(options.model)
    for name in options.only:
        start = time.perf_counter()
        print(f"\n## {name}")
        {"bins": bins, "robust": robust, "end": end, "areas": areas}[name](options)
        print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
