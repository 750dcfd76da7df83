"""Thinning: A + B = X, A binomial, A and B independent, the same whatever the chunks."""

import dask.array as da
import numpy as np
import pytest
from helpers import cube, cubes, nothing_computed
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from edxdenoise.errors import DataError, ParameterError
from edxdenoise.thinning import hold_out, thin

FRACTIONS = (0.1, 0.5, 0.75)


@given(counts=cubes(), fraction=st.floats(0.001, 0.999), seed=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_parts_add_up(counts, fraction, seed):
    a, b = thin(cube(counts), fraction=fraction, seed=seed)
    stored = cube(counts).counts
    assert a.counts.dtype == b.counts.dtype == stored.dtype
    assert (a.counts.values <= stored.values).all()
    np.testing.assert_array_equal(a.counts.values + b.counts.values, stored.values)


@pytest.mark.parametrize("fraction", FRACTIONS)
@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 40, 255, 256, 1000])
def test_parts_are_binomial(count, fraction):
    """Mean, variance and the whole distribution, on both sides of the limit of 8 counts."""
    size = 40_000
    a = thin(cube(np.full((40, 10, 100), count)), fraction=fraction)[0].counts.values.ravel()
    law = stats.binom(count, fraction)
    assert a.mean() == pytest.approx(law.mean(), abs=4.5 * law.std() / np.sqrt(size))
    # Standard error of a variance from the fourth moment of the binomial distribution.
    variance, kurtosis = law.stats("vk")
    error = variance * np.sqrt((kurtosis + 2) / size)
    assert a.var() == pytest.approx(variance, abs=4.5 * error + 1e-4)
    # Chi-squared over bins of equal probability, as far as whole numbers allow.
    edges = np.unique(law.ppf(np.linspace(0, 1, 12)[1:-1]))
    bins = np.searchsorted(edges, a)
    probability = np.diff(np.concatenate([[0], law.cdf(edges), [1]]))
    filled = probability > 1e-9
    observed = np.bincount(bins, minlength=probability.size)
    expected = probability[filled] / probability[filled].sum() * size
    assert stats.chisquare(observed[filled], expected).pvalue > 1e-4


@pytest.mark.parametrize("fraction", FRACTIONS)
@pytest.mark.parametrize("mean", [0.5, 6.0, 60.0])
def test_parts_of_poisson_counts_are_independent_and_poisson(mean, fraction):
    counts = np.random.default_rng(1).poisson(mean, (50, 40, 100))
    a, b = (
        part.counts.values.ravel().astype(float) for part in thin(cube(counts), fraction=fraction)
    )
    assert abs(np.corrcoef(a, b)[0, 1]) < 4.5 / np.sqrt(a.size)
    # Not even the spread of one knows the other.
    assert abs(np.corrcoef(a**2, (b - b.mean()) ** 2)[0, 1]) < 4.5 / np.sqrt(a.size)
    for part, share in ((a, fraction), (b, 1 - fraction)):
        assert part.var() / part.mean() == pytest.approx(1, abs=0.02)
        assert part.mean() == pytest.approx(share * mean, rel=0.02)


def test_neighbours_are_independent():
    counts = np.full((60, 40, 50), 4, np.uint8)
    a = thin(cube(counts))[0].counts.values.astype(float)
    for axis in range(3):
        first = np.take(a, range(a.shape[axis] - 1), axis).ravel()
        second = np.take(a, range(1, a.shape[axis]), axis).ravel()
        assert abs(np.corrcoef(first, second)[0, 1]) < 4.5 / np.sqrt(first.size)


@pytest.mark.parametrize("chunks", [(1, 12, 20), (5, 4, 20), (3, 5, 7), (16, 12, 3)])
def test_the_same_whatever_the_chunks_and_lazy(chunks):
    counts = np.random.default_rng(0).poisson(7, (16, 12, 20)).astype(np.uint8)
    expected = thin(cube(counts), fraction=0.75, seed=5)
    with nothing_computed():
        parts = thin(cube(da.from_array(counts, chunks=chunks)), fraction=0.75, seed=5)
    for part, ours in zip(parts, expected):
        assert isinstance(part.counts.data, da.Array)
        np.testing.assert_array_equal(part.counts, ours.counts)


def test_seeds_differ_and_repeat():
    ds = cube(np.full((10, 10, 20), 5, np.uint8))
    first, again, other = (thin(ds, seed=seed)[0].counts.values for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5


@pytest.mark.parametrize("fraction", [1e-9, 1 - 1e-9])
def test_extreme_fractions_keep_nearly_nothing_or_all(fraction):
    counts = np.full((10, 10, 20), 6, np.uint8)
    kept = int(thin(cube(counts), fraction=fraction)[0].counts.sum())
    assert kept == pytest.approx(fraction * counts.sum(), abs=2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_only_unsigned_counts_are_thinned(dtype):
    ds = cube(da.ones((3, 3, 3), dtype=dtype))
    with pytest.raises(DataError, match="only whole counts"):
        thin(ds)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, np.nan])
def test_impossible_fractions(fraction):
    with pytest.raises(ParameterError, match="must lie between 0 and 1"):
        thin(cube(np.ones((3, 3, 3), np.uint8)), fraction=fraction)


def test_history_says_which_part():
    a, b = thin(cube(np.ones((3, 3, 3), np.uint8)), fraction=0.25, seed=3)
    assert a.history == "thin fraction=0.25 seed=3 part=A"
    assert b.history.endswith("part=B")


def test_a_part_is_thinned_again():
    """With the same seed again: the random numbers that made a part must not split it."""
    ds = cube(np.random.default_rng(0).poisson(20, (12, 10, 50)))
    part, _ = thin(ds, seed=0)
    again, rest = thin(part, seed=0)
    counts = np.array([float(each.counts.sum()) for each in (again, rest)])
    assert abs(counts[0] - counts[1]) < 5 * np.sqrt(counts.sum())
    held, _ = hold_out(part, 0, folds=2, seed=0)
    assert abs(2 * float(held.counts.sum()) - counts.sum()) < 5 * np.sqrt(counts.sum())
