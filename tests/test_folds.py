"""Holding out: equal parts that add up to the counts, multinomial, the same whatever the chunks."""

from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
from helpers import cube, cubes, nothing_computed, phases
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from edxdenoise.config import Denoise, Input, Output, Prepare
from edxdenoise.errors import DataError, FormatError, ParameterError
from edxdenoise.io.events import Events
from edxdenoise.io.read import frame_events
from edxdenoise.io.save import save_dataset
from edxdenoise.recipe import Recipe
from edxdenoise.report.verdicts import verdict
from edxdenoise.run import compare_file, run_recipe
from edxdenoise.thinning import FOLDS, FrameFolds, hold_out
from edxdenoise.validation.holdout import held_out_error


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


def with_frames(frames):
    """A map of frames, shape (frame, y, x, energy), and its events."""
    places = np.argwhere(frames).repeat(frames[frames > 0], axis=0)
    frame, y, x, channel = np.random.default_rng(0).permutation(places).T
    shape = frames.shape[1:]
    events = Events.of_places(y * shape[1] + x, channel, frame, shape, len(frames))
    return cube(frames.sum(axis=0)), events


@pytest.mark.parametrize("mean", [0.001, 1.0])
def test_whole_frames_are_held_out(mean):
    frames = np.random.default_rng(1).poisson(mean, (11, 5, 6, 70)).astype(np.uint8)
    ds, events = with_frames(frames)
    ds = ds.chunk({"y": 2, "x": 6})
    folds = FrameFolds(11, lambda marks: events.counts(marks, ds.counts.dtype))
    for number, own in enumerate([[0, 7, 8], [1, 6, 9], [2, 5, 10], [3, 4]]):
        rest, held_out = hold_out(ds, number, folds=4, frames=folds)
        np.testing.assert_array_equal(held_out.counts, frames[own].sum(axis=0))
        np.testing.assert_array_equal(rest.counts, np.delete(frames, own, axis=0).sum(axis=0))
    np.testing.assert_array_equal(events.by_frame(), frames.sum(axis=(1, 2)))
    assert folds.suffice(4) and not folds.suffice(8)
    other = FrameFolds(11, lambda marks: events.counts(~marks & (np.arange(11) < 99), np.uint8) * 9)
    with pytest.raises(DataError, match="its frames are not those of the map"):
        hold_out(ds, 0, folds=4, frames=other)[0].counts.compute()


DENOISE = Denoise(components=4, keep="1-3", shrink=False, subspace="pixel")


def test_what_changes_from_frame_to_frame_counts_as_error():
    truth = phases((8, 10, 40), counts=6000).counts.values / 16
    errors = {}
    for name, shifts in (
        ("still", [0] * 16),
        ("unsteady", np.random.default_rng(4).permutation(16)),
    ):
        means = np.stack([np.roll(truth, shift, axis=2) for shift in shifts])
        ds, events = with_frames(np.random.default_rng(2).poisson(means).astype(np.uint8))
        folds = FrameFolds(16, lambda marks: events.counts(marks, ds.counts.dtype))
        for frames in (folds, None):
            errors[name, frames is None] = held_out_error(ds, DENOISE, frames).error.values
    for name, low, high in (("still", -3, 3), ("unsteady", 10, np.inf)):
        (by_frame, stddev), (at_random, other) = errors[name, False], errors[name, True]
        assert low < (by_frame - at_random) / np.hypot(stddev, other) < high


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
def test_commands_hold_out_the_frames_that_a_file_keeps(tmp_path):
    truth = phases((10, 12, 40), counts=300).counts.values / 20
    counts = np.random.default_rng(2).poisson(truth, (20, *truth.shape)).astype(np.uint8)
    ds, events = with_frames(counts)
    save_dataset(ds.assign_attrs(frames=20).merge(events.to_dataset()), tmp_path / "a.zarr")
    recipe = Recipe(
        Input((str(tmp_path / "a.zarr"),), frames=(2, 18)),
        Prepare(crop_y=(1, 9), rebin_energy=2),
        DENOISE,
        output=Output(str(tmp_path / "out.zarr")),
    )
    found = run_recipe(recipe).held_out_error
    assert found.attrs["fitted_to"] == "3/4 of the 16 frames"
    ds, events = with_frames(
        counts[2:18, 1:9].reshape(16, 8, 12, 20, 2).sum(axis=-1, dtype=np.uint8)
    )
    folds = FrameFolds(16, lambda marks: events.counts(marks, ds.counts.dtype))
    np.testing.assert_allclose(found, held_out_error(ds, DENOISE, folds).error)
    compared = compare_file(recipe, ["pca:1", "pca:3"])
    assert "fitted 8 times, to 7/8 of the 16 frames" in " ".join(verdict(compared))
    few = replace(recipe, input=replace(recipe.input, frames=(0, 7)))
    assert run_recipe(few, overwrite=True).held_out_error.attrs["fitted_to"] == "3/4 of the counts"
    (tmp_path / "a.zarr" / "event_frame" / "zarr.json").write_text("{")
    with pytest.raises(FormatError, match="cannot read '.*a.zarr'"):
        frame_events(tmp_path / "a.zarr")
