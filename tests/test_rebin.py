"""Rebin: counts summed, totals kept, coordinates the means, areas apart, types that hold it."""

import warnings

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from helpers import cube, cubes, nothing_computed
from hypothesis import given, settings
from hypothesis import strategies as st

from edxdenoise.cube import smallest_count_dtype
from edxdenoise.errors import EdxdenoiseWarning, ParameterError
from edxdenoise.preprocess import crop, rebin, stack, unstack


def summed(counts, xy, energy):
    """What rebin must give, in Python's own integers: no type can overflow."""
    rows, columns, channels = (n // f for n, f in zip(counts.shape, (xy, xy, energy)))
    trimmed = counts[: rows * xy, : columns * xy, : channels * energy].astype(object)
    return trimmed.reshape(rows, xy, columns, xy, channels, energy).sum(axis=(1, 3, 5))


@pytest.mark.slow
@given(counts=cubes(), xy=st.integers(1, 3), energy=st.integers(1, 4), lazy=st.booleans())
@settings(max_examples=120, deadline=None)
def test_sums_are_exact_and_only_the_remainder_is_lost(counts, xy, energy, lazy):
    factors = (xy, xy, energy)
    if any(f > n for f, n in zip(factors, counts.shape)):
        with warnings.catch_warnings(), pytest.raises(ParameterError, match="must be from 1 to"):
            warnings.simplefilter("ignore", EdxdenoiseWarning)
            rebin(cube(counts), xy=xy, energy=energy)
        return
    data = da.from_array(counts, chunks=(2, 3, 4)) if lazy else counts
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = rebin(cube(data), xy=xy, energy=energy)
    dropped = [n % f for f, n in zip(factors, counts.shape)]
    told = [w for w in caught if issubclass(w.category, EdxdenoiseWarning)]
    assert len(told) == np.count_nonzero(dropped)
    expected = summed(counts, xy, energy)
    np.testing.assert_array_equal(result.counts.values.astype(object), expected)
    if not any(dropped):
        assert result.counts.values.astype(object).sum() == counts.astype(object).sum()
    if not lazy:
        assert result.counts.dtype == smallest_count_dtype(int(expected.max()))
    for dim, factor in zip("y x energy".split(), factors):
        own = cube(counts)[dim].values
        centres = own[: own.size // factor * factor].reshape(-1, factor).mean(axis=1)
        np.testing.assert_allclose(result[dim], centres)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
@pytest.mark.parametrize("lazy", [False, True])
def test_full_counts_never_overflow(dtype, lazy):
    full = np.full((4, 4, 8), min(np.iinfo(dtype).max, 2**50), dtype)
    ds = cube(da.from_array(full, chunks=3) if lazy else full)
    result = rebin(ds, xy=4, energy=8)
    assert int(result.counts.values[0, 0, 0]) == int(full[0, 0, 0]) * 128


@pytest.mark.parametrize("lazy", [False, True])
def test_negative_numbers_stay_negative(lazy):
    # They are refused later, where they must still be seen.
    counts = np.full((2, 2, 4), -3, np.int16)
    ds = cube(da.from_array(counts, chunks=1) if lazy else counts)
    np.testing.assert_array_equal(rebin(ds, xy=2).counts, np.full((1, 1, 4), -12))


def test_floats_stay_floats():
    counts = np.random.default_rng(0).random((4, 6, 8)).astype(np.float32)
    result = rebin(cube(counts), xy=2, energy=4)
    assert result.counts.dtype == np.float32
    expected = counts.reshape(2, 2, 3, 2, 2, 4).sum(axis=(1, 3, 5))
    np.testing.assert_allclose(result.counts, expected, rtol=1e-6)


def test_rebin_in_steps_is_rebin_at_once():
    ds = cube(np.random.default_rng(0).poisson(3, (8, 12, 24)))
    twice = rebin(rebin(ds, xy=2, energy=3), xy=2, energy=2)
    xr.testing.assert_allclose(twice, rebin(ds, xy=4, energy=6))


def test_factor_one_changes_nothing():
    ds = cube(np.ones((2, 2, 2), np.uint8))
    assert rebin(ds) is ds


@pytest.mark.parametrize("factors", [{"xy": 0}, {"energy": -1}, {"xy": 5}, {"energy": 9}])
def test_impossible_factors(factors):
    with pytest.raises(ParameterError, match="must be from 1 to"):
        rebin(cube(np.ones((4, 4, 8), np.uint8)), **factors)


def test_the_loss_is_stated():
    with pytest.warns(EdxdenoiseWarning, match="along energy: the last 2 of 8 do not fill"):
        rebin(cube(np.ones((4, 4, 8), np.uint8)), energy=3)


@pytest.mark.parametrize("chunks", [(2, 6, 12), (3, 4, 5), (1, 1, 1), (6, 6, 12)])
def test_lazy_whatever_the_chunks(chunks):
    counts = np.random.default_rng(0).poisson(3, (6, 6, 12)).astype(np.uint8)
    with nothing_computed():
        result = rebin(cube(da.from_array(counts, chunks=chunks)), xy=3, energy=4)
    assert isinstance(result.counts.data, da.Array)
    np.testing.assert_array_equal(result.counts, summed(counts, 3, 4).astype(int))


@given(rows=st.lists(st.integers(3, 8), min_size=2, max_size=4), xy=st.integers(2, 3))
@settings(max_examples=30, deadline=None)
def test_areas_are_never_mixed(rows, xy):
    maps = [cube(np.full((n, 6, 4), 10**i, np.uint16)) for i, n in enumerate(rows)]
    exposure = [1 / (i + 1) for i in range(len(rows))]
    stacked = stack(maps, exposure=exposure, labels=[f"map {n}" for n in "abcd"[: len(rows)]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EdxdenoiseWarning)  # rows that fill no bin
        result = rebin(stacked.assign_attrs(title="all"), xy=xy, energy=2)
    # Every pixel holds counts of one area alone, and says which.
    power = np.log10(result.counts.values / (2 * xy**2))
    np.testing.assert_array_equal(power, (result.area.values - 1.0)[:, None, None] + 0 * power)
    np.testing.assert_allclose(result.exposure.values[:, 0], 1 / result.area.values, rtol=1e-6)
    assert result.area.area_label == stacked.area.area_label
    assert result.title == "all"
    # An area keeps its place: first centre is that of the first rows that were summed.
    for own, part in zip(maps, unstack(result)):
        assert float(part.y[0]) == pytest.approx(float(own.y[:xy].mean()))


def test_exposure_of_a_bin_is_the_mean():
    ds = stack([cube(np.ones((4, 4, 4), np.uint8))])
    ds["exposure"] = ds.exposure.copy(data=np.arange(16, dtype=np.float32).reshape(4, 4))
    np.testing.assert_allclose(rebin(ds, xy=2).exposure, [[2.5, 4.5], [10.5, 12.5]])


def test_history_and_attributes_are_kept():
    ds = crop(cube(np.ones((4, 4, 8), np.uint8), attrs={"beam_energy": 15.0}), energy=(0.1, None))
    with pytest.warns(EdxdenoiseWarning):
        result = rebin(ds, energy=2)
    assert result.beam_energy == 15.0
    assert result.history == "crop energy=0.1:\nrebin energy=2 xy=1"
