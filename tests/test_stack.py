"""Stack maps as areas and take them apart again: counts, coordinates, exposure, names."""

import json

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from helpers import cube, nothing_computed
from hypothesis import given, settings
from hypothesis import strategies as st

from edxdenoise.errors import EdxdenoiseWarning, ParameterError, SchemaError
from edxdenoise.preprocess import crop, stack, unstack
from edxdenoise.schema import EXPOSURE, validate


def a_map(rows, seed=0, start=0.0, step=1.0, **kwargs):
    counts = np.random.default_rng(seed).poisson(3, (rows, 5, 8))
    return cube(counts, y=start + step * np.arange(rows), x=step * np.arange(5.0), **kwargs)


several = st.lists(
    st.tuples(st.integers(1, 6), st.floats(-100, 100), st.floats(0.2, 3)), min_size=1, max_size=5
)


@pytest.mark.slow
@given(several, st.floats(0.01, 10), st.booleans())
@settings(max_examples=60, deadline=None)
def test_unstack_is_the_inverse(several, first_exposure, lazy):
    maps = [a_map(n, i, start, 0.5) for i, (n, start, _) in enumerate(several)]
    if lazy:
        maps = [ds.chunk({"y": 2}) for ds in maps]
    exposure = [first_exposure] + [e for _, _, e in several[1:]]
    stacked = stack(maps, exposure=exposure)
    validate(stacked, EXPOSURE)
    assert stacked.sizes["y"] == sum(ds.sizes["y"] for ds in maps)
    assert int(stacked.counts.sum()) == sum(int(ds.counts.sum()) for ds in maps)
    numbers = np.repeat(np.arange(len(maps)) + 1, [ds.sizes["y"] for ds in maps])
    np.testing.assert_array_equal(stacked.area, numbers)
    assert (np.diff(stacked.y) > 0).all()

    parts = unstack(stacked)
    assert len(parts) == len(maps)
    for part, ds, value in zip(parts, maps, exposure):
        assert part.counts.dtype == ds.counts.dtype
        np.testing.assert_array_equal(part.counts, ds.counts)
        np.testing.assert_allclose(part.y, ds.y, atol=1e-12)
        xr.testing.assert_equal(part.x, ds.x)
        xr.testing.assert_equal(part.energy, ds.energy)
        np.testing.assert_allclose(part.exposure, value, rtol=1e-6)


def test_stack_continues_along_y_with_the_step_of_each_map():
    stacked = stack([a_map(3, step=2.0, start=10), a_map(2, step=2.0, start=-5)])
    np.testing.assert_allclose(stacked.y, [10, 12, 14, 16, 18])


@pytest.mark.parametrize("rows", [(2, None), (0, 4), (5, None), (1, 6)])
def test_what_a_crop_leaves_goes_back_to_its_place(rows):
    maps = [a_map(4, 0, start=7), a_map(3, 1, start=-2)]
    stacked = stack(maps, labels=["upper", "lower"], exposure=[0.5, 2])
    own = np.concatenate([ds.y.values for ds in maps])[slice(*rows)]
    names = np.repeat(["upper", "lower"], [4, 3])[slice(*rows)]
    cropped = crop(stacked, y=rows)
    # Once more through a stack: areas that were cropped away must not lend their names.
    for ds in (cropped, stack([cropped])):
        parts = unstack(ds)
        np.testing.assert_allclose(np.concatenate([part.y for part in parts]), own)
        assert [part.title for part in parts] == list(dict.fromkeys(names))


def test_stacks_of_stacks_keep_all_areas():
    maps = [a_map(2, i, start=10.0 * i) for i in range(4)]
    two = [stack(maps[:2], labels=["a", "b"]), stack(maps[2:], labels=["c", "d"])]
    stacked = stack(two, exposure=[1, 0.5])
    assert stacked.area.area_label == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(stacked.area, [1, 1, 2, 2, 3, 3, 4, 4])
    np.testing.assert_allclose(stacked.exposure[:, 0], [1] * 4 + [0.5] * 4)
    for part, ds in zip(unstack(stacked), maps):
        np.testing.assert_array_equal(part.counts, ds.counts)
        np.testing.assert_allclose(part.y, ds.y)


def test_exposure_of_a_map_is_carried_and_can_be_replaced():
    once = stack([a_map(2), a_map(2)], exposure=[1 / 1.2, 1])
    again = stack([once, a_map(1)])
    np.testing.assert_allclose(again.exposure[:, 0], [1 / 1.2] * 2 + [1] * 3, rtol=1e-6)
    np.testing.assert_allclose(stack([once], exposure=[3.0]).exposure, 3)


def test_names_come_from_labels_then_titles_then_numbers():
    maps = [a_map(2, attrs={"title": "control"}), a_map(2)]
    assert stack(maps).area.area_label == ["control", "2"]
    assert stack(maps, labels=["x", "y"]).area.area_label == ["x", "y"]


def test_attributes_are_collected():
    maps = [
        a_map(2, attrs={"title": t, "elements": e, "original_metadata": json.dumps({"n": t})})
        for t, e in (("a", ["C", "N"]), ("b", ["N", "Pb"]))
    ]
    stacked = stack(maps)
    assert stacked.title == "a; b"
    assert stacked.elements == ["C", "N", "Pb"]
    assert json.loads(stacked.original_metadata) == [{"n": "a"}, {"n": "b"}]
    assert stacked.history == "stack maps=2"


def test_types_widen_and_nothing_overflows():
    small = cube(np.full((1, 5, 8), 255, np.uint8))
    large = cube(np.full((1, 5, 8), 65_535, np.uint16))
    counts = stack([small, large]).counts
    assert counts.dtype == np.uint16
    np.testing.assert_array_equal(counts[:, 0, 0], [255, 65_535])


def test_lazy_and_input_unchanged():
    maps = [a_map(3, 1), a_map(4, 2)]
    before = [ds.copy(deep=True) for ds in maps]
    with nothing_computed():
        stacked = stack([ds.chunk({"y": 2, "x": 3}) for ds in maps], exposure=[1, 2])
        parts = unstack(stacked)
    assert isinstance(stacked.counts.data, da.Array)
    assert all(isinstance(part.counts.data, da.Array) for part in parts)
    stack(maps, exposure=[1, 2])
    for ds, old in zip(maps, before):
        xr.testing.assert_identical(ds, old)


def test_a_map_that_is_no_stack_comes_back_as_it_is():
    ds = a_map(3)
    assert unstack(ds)[0] is ds


@pytest.mark.parametrize(
    ("maps", "kwargs", "error", "match"),
    [
        ([], {}, ParameterError, "no map"),
        ([a_map(2)], {"exposure": [1, 2]}, ParameterError, "exposure: 2 given for 1 maps"),
        ([a_map(2)], {"labels": []}, ParameterError, "labels: 0 given"),
        ([a_map(2)], {"exposure": [0.0]}, ParameterError, "exposure 0.0 must be a positive"),
        ([a_map(2)], {"exposure": [float("nan")]}, ParameterError, "must be a positive"),
        ([a_map(2), crop(a_map(2), x=(0, 4))], {}, SchemaError, "4 pixels wide, map 1 5"),
        ([a_map(2), crop(a_map(2), energy=(0.1, None))], {}, SchemaError, "channels from"),
        (
            [a_map(2), a_map(2).assign_coords(energy=a_map(2).energy + 0.05)],
            {},
            SchemaError,
            "map 2 has 8 channels",
        ),
        ([a_map(2), xr.Dataset()], {}, SchemaError, "no variable 'counts'"),
    ],
)
def test_maps_that_do_not_fit(maps, kwargs, error, match):
    with pytest.raises(error, match=match):
        stack(maps, **kwargs)


def test_axes_that_differ_by_a_hair_are_one():
    shifted = a_map(2).assign_coords(energy=a_map(2).energy + 0.001)
    stacked = stack([a_map(2), shifted])
    xr.testing.assert_equal(stacked.energy, a_map(2).energy)


def test_other_pixel_sizes_raise_doubt():
    with pytest.warns(EdxdenoiseWarning, match="Map 2 has pixels of 2 pixel, map 1 of 1 pixel"):
        stack([a_map(2), a_map(2, step=2.0)])
