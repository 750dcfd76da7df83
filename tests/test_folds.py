"""Holding out: equal parts that add up to the counts, multinomial, the same whatever the chunks."""

import dask.array as da
import numpy as np
import pytest
from helpers import cube, cubes, nothing_computed
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from edxdenoise.errors import DataError, ParameterError
from edxdenoise.thinning import FOLDS, hold_out


def parts_of(ds, folds, seed=0):
    return [hold_out(ds, i, folds=folds, seed=seed)[1].counts.values for i in range(folds)]


@given(counts=cubes(most=5), folds=st.sampled_from(FOLDS), seed=st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_parts_add_up(counts, folds, seed):
    ds = cube(counts)
    parts = parts_of(ds, folds, seed)
    assert all(part.dtype == ds.counts.dtype for part in parts)
    np.testing.assert_array_equal(sum(part.astype(object) for part in parts), ds.counts.values)
    rest, held_out = hold_out(ds, folds - 1, folds=folds, seed=seed)
    np.testing.assert_array_equal(held_out.counts, parts[-1])
    np.testing.assert_array_equal(rest.counts.values + held_out.counts.values, ds.counts.values)


@pytest.mark.parametrize("folds", FOLDS)
@pytest.mark.parametrize("count", [1, 7, 8, 9, 300])
def test_parts_are_equal_and_multinomial(count, folds):
    parts = np.stack(parts_of(cube(np.full((20, 10, 100), count)), folds)).reshape(folds, -1)
    parts = parts.astype(float)
    size, share = parts.shape[1], 1 / folds
    law = stats.binom(count, share)
    error = law.std() / np.sqrt(size)
    np.testing.assert_allclose(parts.mean(axis=1), law.mean(), atol=5 * error)
    covariance = np.cov(parts)
    own = np.eye(folds, dtype=bool)
    expected = np.where(own, law.var(), -count * share**2)
    # Standard error of a variance from the fourth moment; those of covariances are smaller.
    error = law.var() * np.sqrt((law.stats("k") + 2) / size)
    np.testing.assert_allclose(covariance, expected, atol=5 * float(error) + 1e-4)


def test_parts_of_poisson_counts_are_independent():
    counts = np.random.default_rng(1).poisson(6, (50, 40, 50))
    a, b = (part.ravel().astype(float) for part in parts_of(cube(counts), 4)[:2])
    assert abs(np.corrcoef(a, b)[0, 1]) < 4.5 / np.sqrt(a.size)
    assert a.var() / a.mean() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("chunks", [(1, 3, 2), (5, 7, 4), (2, -1, -1)])
def test_chunks_do_not_matter_and_lazy_stays_lazy(chunks):
    ds = cube(np.random.default_rng(0).poisson(3, (5, 7, 4)))
    lazy = ds.assign(counts=(ds.counts.dims, da.from_array(ds.counts.values, chunks=chunks)))
    with nothing_computed():
        rest, held_out = hold_out(lazy, 1, folds=4, seed=3)
    expected = hold_out(ds, 1, folds=4, seed=3)
    for lazily, at_once in zip((rest, held_out), expected):
        np.testing.assert_array_equal(lazily.counts, at_once.counts)
        assert lazily.attrs["history"] == at_once.attrs["history"]


def test_seeds_differ():
    ds = cube(np.full((4, 4, 20), 5))
    assert (parts_of(ds, 2, seed=0)[0] != parts_of(ds, 2, seed=1)[0]).any()


@pytest.mark.parametrize(
    "kwargs, words",
    [({"folds": 3}, "2, 4, 8, 16"), ({"folds": 4, "number": 4}, "from 0 to 3")],
)
def test_impossible_numbers(kwargs, words):
    with pytest.raises(ParameterError, match=words):
        hold_out(cube(np.ones((2, 2, 3), int)), kwargs.pop("number", 0), **kwargs)


def test_counts_must_be_whole():
    with pytest.raises(DataError, match="unsigned"):
        hold_out(cube(np.full((2, 2, 3), 0.5)), 0)
