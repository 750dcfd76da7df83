"""Crop: half-open ranges of energy and pixels, nothing else changed."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from helpers import cube, nothing_computed
from hypothesis import given, settings
from hypothesis import strategies as st

from edxdenoise.errors import ParameterError
from edxdenoise.preprocess import crop

COUNTS = np.random.default_rng(0).poisson(3, (6, 7, 40))
DS = cube(COUNTS)  # channel i at 0.05 + 0.1 i keV


@given(first=st.integers(0, 38), number=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_energy_is_half_open_at_channel_centres(first, number):
    last = min(first + number, 39)
    # As a person types it, not as offset + i * width comes out.
    low, high = round(0.05 + 0.1 * first, 2), round(0.05 + 0.1 * last, 2)
    kept = crop(DS, energy=(low, high))
    np.testing.assert_array_equal(kept.counts, COUNTS[:, :, first:last])
    np.testing.assert_array_equal(kept.energy, DS.energy[first:last])


@pytest.mark.parametrize(
    ("energy", "channels"),
    [
        ((None, 0.5), slice(0, 5)),
        ((0.5, None), slice(5, None)),
        ((None, None), slice(None)),
        ((-3, 99), slice(None)),
        ((0.06, 0.14), None),
        ((2, 1), None),
        ((50, 60), None),
    ],
)
def test_energy_ends(energy, channels):
    if channels is None:
        with pytest.raises(ParameterError, match="leaves no channel; the axis runs from 0.05"):
            crop(DS, energy=energy)
    else:
        np.testing.assert_array_equal(crop(DS, energy=energy).counts, COUNTS[:, :, channels])


limits = st.tuples(st.none() | st.integers(-9, 9), st.none() | st.integers(-9, 9))


@given(y=st.none() | limits, x=st.none() | limits)
@settings(max_examples=80, deadline=None)
def test_pixels_are_cut_as_slices_are(y, x):
    expected = COUNTS[slice(*(y or (None,))), slice(*(x or (None,)))]
    if expected.size == 0:
        with pytest.raises(ParameterError, match="leaves no pixel"):
            crop(DS, y=y, x=x)
        return
    kept = crop(DS, y=y, x=x)
    np.testing.assert_array_equal(kept.counts, expected)
    np.testing.assert_array_equal(kept.y, DS.y[slice(*(y or (None,)))])
    np.testing.assert_array_equal(kept.x, DS.x[slice(*(x or (None,)))])


def test_crop_of_a_crop_is_the_crop_of_both():
    twice = crop(crop(DS, energy=(0.5, 3), y=(1, 5)), energy=(1, 2), y=(1, 3))
    once = crop(DS, energy=(1, 2), y=(2, 4))
    xr.testing.assert_equal(twice, once)


def test_nothing_asked_for_changes_nothing():
    xr.testing.assert_identical(crop(DS), DS)


def test_lazy_input_unchanged_and_history():
    before = DS.copy(deep=True)
    with nothing_computed():
        lazy = crop(cube(da.from_array(COUNTS, chunks=3)), energy=(1, 2), x=(0, 4))
    assert isinstance(lazy.counts.data, da.Array)
    np.testing.assert_array_equal(lazy.counts, COUNTS[:, :4, 10:20])
    assert crop(DS, energy=(1, 2), x=(0, 4)).history == "crop energy=1:2 x=0:4"
    xr.testing.assert_identical(DS, before)
