"""The split test against the truth of phantoms, on pure noise, whatever the chunks."""

from importlib import import_module

import dask.array as da
import numpy as np
import pytest
from helpers import cube, phases, solar_cell

from edxdenoise.components.pca import pca
from edxdenoise.components.selection import select
from edxdenoise.components.split import signal_probability, split_probability
from edxdenoise.errors import DataError
from edxdenoise.preprocess import weight

COMPONENTS = 25


def truth(ds, expected):
    """|r| of every map with the projection of the expected counts, weighted by true totals."""
    expected = expected.values.reshape(-1, expected.shape[2]).astype(float)
    scaled = expected / np.sqrt(expected.sum(axis=1, keepdims=True))
    projected = scaled @ (ds.component_spectrum.values / ds.weight_energy.values).T
    maps = ds.component_map.values.reshape(len(ds.component), -1)
    return np.array([abs(np.corrcoef(a, b)[0, 1]) for a, b in zip(maps, projected.T)])


def decomposed(counts_per_pixel, shape, seed):
    phantom = solar_cell(counts_per_pixel, shape=shape, seed=seed)
    ds = pca(weight(phantom[["counts"]]), components=COMPONENTS)
    return ds, truth(ds, phantom.expected_counts)


CELLS = [
    (dose, shape, s) for dose in (1000, 4000) for shape in ((66, 100), (132, 200)) for s in (0, 1)
]


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_verdict_and_estimated_correlation_on_solar_cells(cell, monkeypatch):
    """Nothing that is noise passes, everything that is plainly visible does."""
    ds, r = decomposed(*cell)
    probability = split_probability(ds, seed=2)
    assert probability.shape == (COMPONENTS,)
    assert ((probability >= 0) & (probability <= 1)).all()
    assert (r < 0.05).sum() >= 10 and (r > 0.4).sum() >= 5  # so that there is something to tell
    assert (probability[r < 0.05] < 0.5).all()
    assert (probability[r > 0.4] > 0.5).all()
    # With these limits the probability is the estimate of r itself.
    split = import_module("edxdenoise.components.split")
    monkeypatch.setattr(split, "_INVISIBLE", 0.0)
    monkeypatch.setattr(split, "_VISIBLE", 1.0)
    # A single split of few counts may be off by a tenth.
    estimate = np.mean([split_probability(ds, seed=seed) for seed in range(3)], axis=0)
    np.testing.assert_allclose(estimate[r > 0.4], r[r > 0.4], atol=0.1)
    assert (estimate[r < 0.05] < 0.1).all()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("counts", [30, 300, 3000])
def test_pure_noise_keeps_component_1_only(counts, seed):
    rng = np.random.default_rng(seed)
    thickness = np.exp(0.3 * rng.standard_normal((30, 40, 1)))
    expected = thickness * (0.2 + rng.gamma(0.7, size=60))
    ds = cube(rng.poisson(expected * counts * 1200 / expected.sum()))
    ds = select(pca(weight(ds), components=15), selector="split", seed=seed)
    np.testing.assert_array_equal(ds.component_keep, [1] + [0] * 14)
    assert ds.component_signal_probability[0] == 1
    assert (ds.component_signal_probability[1:] < 0.5).all()


@pytest.mark.parametrize("weighting", ["poisson", "none"])
def test_phases_are_found_whatever_the_weighting(weighting):
    ds = pca(weight(phases(counts=500), weighting=weighting), components=10)
    # One split in ten takes one noise component for a signal.
    kept = [select(ds, selector="split", seed=seed).component_keep for seed in range(5)]
    np.testing.assert_array_equal(np.median(kept, axis=0), [1] * 3 + [0] * 7)


@pytest.mark.parametrize("chunks", [{"y": 5}, {"y": 1}, {"x": 6}, {"y": 7, "energy": 9}], ids=str)
def test_the_same_verdict_whatever_the_chunks(chunks):
    ds = phases(counts=60)
    expected = split_probability(pca(weight(ds), components=8), seed=4)
    lazy = pca(weight(ds.chunk(chunks)), components=8)
    assert isinstance(lazy.component_map.data, da.Array)
    np.testing.assert_allclose(split_probability(lazy, seed=4), expected, atol=1e-4)


def test_seed_decides():
    ds = pca(weight(phases(counts=20)), components=8)
    first, again, other = (split_probability(ds, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("lazy", [False, True])
def test_counts_that_are_not_whole_are_refused(lazy):
    ds = phases()
    ds["counts"] = ds.counts * 1.2
    ds = pca(weight(ds), components=5)
    with pytest.raises(DataError, match="only whole counts"):
        select(ds.chunk({"y": 6}) if lazy else ds, selector="split")


def test_probability_by_hand():
    """Two components proven beyond doubt and one not at all; maps of known variance."""
    maps = np.zeros((4, 1, 2))
    maps[:, 0] = [[1, -1], [10, -10], [1, -1], [0, 0]]
    probability = signal_probability(
        spectra=np.eye(4)[:, :3],
        maps=maps,
        proven=np.eye(3),
        # Signal energies 2, 2 and 2 of 2, 200, 2 and 0 in all.
        signal=2 * np.eye(3),
        z=np.array([20.0, 20.0, -20.0]),
    )
    # r is 1, then .1, halfway between invisible and visible; then unproven; then an empty map.
    np.testing.assert_allclose(probability, [1, 0.5, 0, 0], atol=1e-12)
