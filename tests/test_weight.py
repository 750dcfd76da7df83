"""Keenan-Kotula weights: definition, inverse, sums, refusals."""

import warnings

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from helpers import cube, cubes, nothing_computed, phases, weighted
from hypothesis import given, settings

from edxdenoise.cube import is_poisson_weighted
from edxdenoise.errors import DataError, ParameterError
from edxdenoise.preprocess import check_weights, weight


def root_or_one(totals):
    roots = np.sqrt(np.array(totals, float))
    return np.where(roots == 0, 1, roots)


@pytest.mark.slow
@given(cubes())
@settings(max_examples=60, deadline=None)
def test_weights_are_roots_of_totals_and_the_round_trip_is_exact(counts):
    # Lazy: no check, so that hypothesis may be as sparse as it likes.
    with nothing_computed():
        ds = weight(cube(da.from_array(counts, chunks=(2, 3, 4))))
        data = weighted(ds)
        back = data * ds.weight_pixel.data[:, :, np.newaxis] * ds.weight_energy.data
    exact = counts.astype(object)
    np.testing.assert_allclose(ds.weight_pixel, root_or_one(exact.sum(axis=2)), rtol=1e-14)
    np.testing.assert_allclose(ds.weight_energy, root_or_one(exact.sum(axis=(0, 1))), rtol=1e-14)
    np.testing.assert_allclose(back, counts, rtol=1e-12)
    np.testing.assert_array_equal(data.compute() == 0, counts == 0)


def test_numpy_and_dask_agree_and_counts_stay():
    ds = phases()
    before = ds.copy(deep=True)
    result = weight(ds)
    for chunks in ({"y": 5}, {"x": 7, "energy": 11}):
        lazy = weight(ds.chunk(chunks))
        assert isinstance(lazy.weight_pixel.data, da.Array)
        xr.testing.assert_allclose(lazy.compute(), result, rtol=1e-15)
    xr.testing.assert_identical(ds, before)
    xr.testing.assert_identical(result.counts, ds.counts)


def test_weighted_data_is_normalised():
    """tr(D'D) weighted by the roots: g'D h = N, by definition."""
    ds = weight(phases())
    g, h = ds.weight_pixel.values.ravel(), ds.weight_energy.values
    matrix = weighted(ds).reshape(g.size, h.size)
    assert g @ matrix @ h == pytest.approx(float(ds.counts.sum()), rel=1e-12)
    # Keenan and Kotula: the noise has variance 1/N everywhere, if the mean is of rank one.
    np.testing.assert_allclose(matrix @ h, g, rtol=1e-12)
    np.testing.assert_allclose(matrix.T @ g, h, rtol=1e-12)


@pytest.mark.parametrize("lazy", [False, True])
def test_no_weighting(lazy):
    ds = phases()
    result = weight(ds.chunk({"y": 5}) if lazy else ds, weighting="none")
    assert (result.weight_pixel == 1).all() and (result.weight_energy == 1).all()
    np.testing.assert_array_equal(weighted(result), ds.counts)


@pytest.mark.parametrize("bad", [-1, -1.5, np.nan, np.inf])
@pytest.mark.parametrize("lazy", [False, True])
def test_negative_or_missing_values_are_refused(bad, lazy):
    # One bad value among so many counts that every total is large and positive.
    counts = np.full((4, 5, 6), 100, np.int32 if bad == -1 else float)
    counts[1, 2, 3] = bad
    ds = cube(da.from_array(counts, chunks=2) if lazy else counts)
    with pytest.raises(DataError, match="1 pixels hold negative or missing"):
        check_weights(weight(ds))


@pytest.mark.parametrize("lazy", [False, True])
def test_no_counts_at_all_are_refused(lazy):
    ds = cube(np.zeros((4, 5, 6), np.uint8))
    with pytest.raises(DataError, match="no counts at all"):
        check_weights(weight(ds.chunk({"y": 2}) if lazy else ds))


def test_unknown_weighting():
    with pytest.raises(ParameterError, match="'gauss' must be one of poisson, none"):
        weight(phases(), weighting="gauss")


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("weighting", ["poisson", "none"])
def test_sums_say_what_is_empty(weighting, lazy):
    """A pixel of one count has the weight of an empty one, and is none."""
    counts = np.zeros((3, 4, 5), np.uint8)
    counts[1, 2, 3] = 1
    ds = cube(counts)
    found = weight(ds.chunk({"y": 2}) if lazy else ds, weighting=weighting)
    np.testing.assert_array_equal(found.pixel_counts, counts.sum(axis=2))
    np.testing.assert_array_equal(found.sum_spectrum, counts.sum(axis=(0, 1)))
    assert (found.weight_pixel == 1).all() and (found.weight_energy == 1).all()
    assert is_poisson_weighted(found) == (weighting == "poisson")


def test_few_counts_are_no_reason_to_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weight(cube(np.eye(20, dtype=np.uint8).reshape(4, 5, 20)))
