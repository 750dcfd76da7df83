"""The images that classifiers are tested on, and the figures of the benchmark on them."""

import ast
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from edxdenoise import make_cube, pca, weight

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def unseen(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("unseen")


@pytest.fixture
def selection(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("selection")


def small(unseen, **options):
    """The first seed whose image is quickly made."""
    for seed in range(20):
        ds, truth = unseen.unseen(seed, **options)
        if ds.counts.size < 2_000_000 and ds.sizes["y"] > 40:
            return seed, ds, truth
    raise AssertionError("no small image")


def expected(truth):
    return np.tensordot(truth[0], truth[1], axes=(0, 0))


def test_imports_nothing_of_the_training_generator(unseen):
    tree = ast.parse(Path(unseen.__file__).read_text())
    names = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names += [a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names]
    assert "edxdenoise" in names
    assert not [name for name in names if "simulation" in name or "training" in name]
    # The package gives what it holds under short names too.
    from_package = [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "edxdenoise"
        for alias in node.names
    ]
    assert from_package == ["make_cube"]


def test_seeded(unseen):
    seed, ds, truth = small(unseen)
    again, same = unseen.unseen(seed)
    other, _ = unseen.unseen(seed + 1)
    assert again.identical(ds)
    np.testing.assert_array_equal(same[0], truth[0])
    assert other.counts.shape != ds.counts.shape or (other.counts.values != ds.counts.values).any()


def test_counts_are_poisson_about_the_truth(unseen):
    _, ds, truth = small(unseen, dose=(300, 600))
    mean = expected(truth)
    counts = ds.counts.values
    assert counts.dtype.kind == "u"
    assert (mean >= -1e-9).all()
    z = (counts - mean) / np.sqrt(np.maximum(mean, 1e-12))
    seen = mean > 0.5
    assert abs(z[seen].mean()) < 5 / np.sqrt(seen.sum())
    assert z[seen].var() == pytest.approx(1, abs=0.03)
    # Row flicker and dead pixels are part of the truth, and of the dose.
    assert 200 < mean.sum(axis=2).mean() < 700


@pytest.mark.parametrize("seed", range(6))
def test_dose_and_axes_are_in_range(unseen, seed):
    ds, (amounts, spectra) = unseen.unseen(seed, dose=(20, 60))
    assert all(32 <= ds.sizes[dim] <= 512 for dim in ("y", "x"))
    assert 100 <= ds.sizes["energy"] <= 2048
    assert amounts.shape[1:] == ds.counts.shape[:2]
    np.testing.assert_allclose(spectra.sum(axis=1), 1)
    assert (amounts >= -1e-9).all()


@pytest.fixture
def two_phases():
    """Half a map of one phase, half of another, and what PCA makes of it."""
    rng = np.random.default_rng(3)
    spectra = rng.dirichlet(np.ones(30), 2)
    amounts = np.zeros((2, 60, 60))
    amounts[0, :30] = amounts[1, 30:] = 400.0
    truth = amounts, spectra
    ds = make_cube(rng.poisson(expected(truth)), energy=np.arange(30) * 0.1)
    return pca(weight(ds), components=12), truth


def test_true_r_tells_signal_from_noise(unseen, two_phases):
    r = unseen.true_r(*two_phases)
    assert r[1] > 0.95
    # 3600 pixels: chance correlations have a standard deviation of 1/60.
    assert (r[2:] < 4 / 60).all()


def test_variance_cv_is_that_of_repeated_counts(unseen, two_phases):
    ds, truth = two_phases
    rng = np.random.default_rng(0)
    loadings = ds.component_spectrum.values / ds.weight_energy.values
    g = np.sqrt(truth[0].sum(axis=0))
    draws = [rng.poisson(expected(truth)) @ loadings.T / g[..., None] for _ in range(60)]
    variance = np.var(draws, axis=0)
    # Pixels of a phase have one variance: their mean takes the scatter of 60 draws away.
    halves = np.stack([variance[:30].mean(axis=(0, 1)), variance[30:].mean(axis=(0, 1))])
    cv = halves.std(axis=0) / halves.mean(axis=0)
    np.testing.assert_allclose(unseen.variance_cv(ds, truth), cv, atol=0.02)


@pytest.mark.parametrize("name", ["smoothed 0.6 px", "half-pixel shift", "scaled x 1.7"])
def test_linear_variants_treat_truth_as_counts(unseen, name):
    seed, ds, truth = small(unseen)
    changed, new = unseen.VARIANTS[name](ds, truth, seed)
    # The same done to expected counts gives the new expected counts.
    exact, _ = unseen.VARIANTS[name](ds.assign(counts=(ds.counts.dims, expected(truth))), truth, 0)
    np.testing.assert_allclose(exact.counts.values, expected(new), rtol=1e-4, atol=1e-5)
    assert changed.counts.dtype.kind == "f"
    assert changed.counts.shape == exact.counts.shape


@pytest.mark.parametrize("name", ["row flicker", "dead pixels"])
def test_counted_variants_stay_poisson(unseen, name):
    seed, ds, truth = small(unseen, dose=(300, 600))
    changed, new = unseen.VARIANTS[name](ds, truth, seed)
    mean = expected(new)
    assert changed.counts.dtype == ds.counts.dtype
    assert mean.sum() < expected(truth).sum()
    seen = mean > 0.5
    z = (changed.counts.values[seen] - mean[seen]) / np.sqrt(mean[seen])
    assert z.var() == pytest.approx(1, abs=0.03)
    assert (changed.counts.values[mean == 0] == 0).all()


def test_wilson_interval(selection):
    # R. G. Newcombe, Stat. Med. 17 (1998) 857, table I, method 3: 81 of 263.
    assert selection.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert selection.wilson(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)


def test_auc_is_that_of_scikit_learn(selection):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    positive, negative = rng.normal(1, 1, 40).round(1), rng.normal(0, 1, 70).round(1)
    truth = np.repeat([1, 0], [40, 70])
    score = np.concatenate([positive, negative])
    ours = selection.auc(positive, negative)
    assert ours == pytest.approx(metrics.roc_auc_score(truth, score), abs=1e-12)
    assert np.isnan(selection.auc(positive, negative[:0]))


def test_lag_one_is_normal_on_white_noise(selection):
    maps = np.random.default_rng(5).standard_normal((200, 40, 50))
    ds = make_cube(np.ones((40, 50, 2), np.uint8), energy=np.arange(2))
    ds = ds.assign(component_map=(("component", "y", "x"), maps))
    score, keep = selection.lag_one(ds)
    assert abs(score.mean()) < 0.3
    assert score.std() == pytest.approx(1, abs=0.15)
    assert not keep.any()


def test_judge_gives_truth_and_answers(selection):
    rows = selection.judge((2, 1, ""), ())
    assert {"r", "cv", "keep spatial", "score spatial", "keep lag-1"} <= set(rows)
    assert len({values.size for values in rows.values()}) == 1
    assert np.isnan(rows["score elbow"]).all()
    assert set(np.unique(rows["keep edge"])) <= {0, 1}
    assert (rows["keep spatial"][rows["r"] > 0.5] == 1).all()
    assert rows["image"][0] == 2


def test_benchmark_prints_its_tables(selection, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["selection", "--quick", "--only", "bins", "areas"])
    selection.main()
    printed = capsys.readouterr().out.splitlines()
    titles = [line for line in printed if line.startswith("### ")]
    assert len(titles) == len(selection.BINS) + 2
    names = {line.split("|")[1].strip() for line in printed if "|" in line}
    assert {"lag-1", "elbow", "second-elbow", "edge", "split", "spatial"} <= names


def test_who_is_told_the_true_maps_knows_signal_from_noise(unseen, selection):
    _, ds, truth = small(unseen, dose=(200, 600))
    ds = pca(weight(ds), components=30).compute()
    r = unseen.true_r(ds, truth)
    score, keep = selection.told(truth, ds)
    assert keep[r > 0.2].all() and not keep[r < 0.04].any()
    assert np.abs(score[r > 0.3] - r[r > 0.3]).max() < 0.1
