"""Making a cube: smallest type of counts, axes, pixels as rows, one-line refusals."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from helpers import cube, cubes, nothing_computed
from hypothesis import given, settings

from edxdenoise.cube import (
    add_history,
    check_cube,
    energy_axis,
    is_lazy,
    make_cube,
    smallest_count_dtype,
    stack_pixels,
)
from edxdenoise.errors import DataError, SchemaError
from edxdenoise.schema import COUNTS, SPECS, WEIGHT_PIXEL, validate


@pytest.mark.parametrize(
    ("largest", "dtype"),
    [
        (0, np.uint8),
        (255, np.uint8),
        (256, np.uint16),
        (65_535, np.uint16),
        (65_536, np.uint32),
        (2**32, np.uint64),
        (2**64 - 1, np.uint64),
    ],
)
def test_smallest_dtype(largest, dtype):
    assert smallest_count_dtype(largest) == dtype


def test_a_count_beyond_64_bits_is_refused():
    with pytest.raises(DataError, match="64 bits"):
        smallest_count_dtype(2**64)


@given(cubes((np.uint16, np.int64, np.uint64)))
@settings(max_examples=40, deadline=None)
def test_whole_counts_are_stored_exactly_in_the_smallest_type(counts):
    stored = cube(counts).counts
    assert stored.dtype == smallest_count_dtype(int(counts.max()))
    np.testing.assert_array_equal(stored.values.astype(object), counts.astype(object))


@pytest.mark.parametrize(
    ("counts", "dtype"),
    [
        (np.array([[[1.0, 300.0]]]), np.uint16),  # whole, as some readers give them
        (np.array([[[1.0, 0.5]]]), np.float64),
        (np.array([[[1.0, np.nan]]]), np.float64),
        (np.array([[[1.0, np.inf]]]), np.float64),
        (np.array([[[1, -1]]]), np.int64),
        (np.zeros((2, 2, 0), np.int32), np.int32),
    ],
)
def test_type_follows_what_the_counts_are(counts, dtype):
    assert cube(counts).counts.dtype == dtype


def test_coordinates_and_attributes():
    ds = make_cube(
        np.ones((2, 3, 4), int),
        energy=np.arange(4) * 0.01,
        y=np.array([5.0, 7.0]),
        spatial_units="nm",
        attrs={"beam_energy": 200.0},
    )
    validate(ds, COUNTS)
    np.testing.assert_array_equal(ds.y, [5, 7])
    np.testing.assert_array_equal(ds.x, [0, 1, 2])
    assert (ds.y.units, ds.energy.units, ds.beam_energy) == ("nm", "keV", 200.0)


def test_dask_counts_stay_lazy_and_keep_their_type():
    with nothing_computed():
        ds = cube(da.zeros((4, 5, 6), dtype=np.int32, chunks=2))
    assert is_lazy(ds) and ds.counts.dtype == np.int32
    assert not is_lazy(ds.compute())


@pytest.mark.parametrize(
    ("shape", "kwargs"),
    [
        ((4, 5), {"energy": np.arange(5)}),
        ((4, 5, 6), {"energy": np.arange(5)}),
        ((4, 5, 6), {"energy": np.arange(6), "y": np.arange(5)}),
    ],
)
def test_wrong_shapes_are_refused(shape, kwargs):
    with pytest.raises(SchemaError, match="must be"):
        make_cube(np.zeros(shape, np.uint8), **kwargs)


def test_energy_axis():
    offset, width = energy_axis(cube(np.zeros((1, 1, 50), np.uint8)))
    assert (offset, width) == pytest.approx((0.05, 0.1))


@pytest.mark.parametrize("energy", [[0.0], [0.0, 0.1, 0.3], [0.2, 0.1, 0.0]])
def test_energy_axis_that_is_none(energy):
    ds = make_cube(np.zeros((1, 1, len(energy)), np.uint8), energy=np.array(energy))
    with pytest.raises(SchemaError, match="energy axis"):
        energy_axis(ds)


@given(cubes())
@settings(max_examples=30, deadline=None)
def test_rows_are_pixels_in_order(counts):
    matrix = stack_pixels(counts)
    assert matrix.shape == (counts.shape[0] * counts.shape[1], counts.shape[2])
    np.testing.assert_array_equal(matrix.reshape(counts.shape), counts)


@pytest.mark.parametrize("chunks", [(2, 5, 6), (2, 2, 6), (3, 2, 4), (4, 5, 1)])
def test_stack_pixels_lazily_whatever_the_chunks(chunks):
    counts = np.arange(120).reshape(4, 5, 6)
    with nothing_computed():
        matrix = stack_pixels(da.from_array(counts, chunks=chunks))
    np.testing.assert_array_equal(matrix, counts.reshape(20, 6))


def test_history_grows_without_changing_the_input():
    ds = xr.Dataset()
    assert add_history(add_history(ds, "a"), "b").history == "a\nb"
    assert "history" not in ds.attrs


@pytest.mark.parametrize(("shape", "what"), [((1, 1, 9), "pixel"), ((3, 3, 1), "channel")])
def test_a_cube_too_small_to_decompose(shape, what):
    with pytest.raises(DataError, match=f"one {what}"):
        check_cube(cube(np.ones(shape, np.uint8)))


def test_validate_names_what_is_wrong():
    ds = cube(np.ones((2, 3, 4), np.uint8))
    with pytest.raises(SchemaError, match="'weight_pixel'"):
        validate(ds, WEIGHT_PIXEL)
    with pytest.raises(SchemaError, match="dims"):
        validate(ds.transpose("energy", "y", "x"), COUNTS)
    with pytest.raises(SchemaError, match="bool, must be unsigned integer"):
        validate(ds.astype(bool), COUNTS)


def test_specs_are_complete_and_named_as_they_are_stored():
    assert {"counts", "exposure", "component_keep", "counts_denoised"} <= set(SPECS)
    for name, spec in SPECS.items():
        assert spec == name and spec.units and spec.long_name
        array = spec.array(np.zeros((1,) * len(spec.dims)))
        assert array.dims == spec.dims and array.attrs["long_name"] == spec.long_name
