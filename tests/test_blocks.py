"""Blocks with empty cells and without: everything is the same, and nothing is read twice."""

import pickle
import tempfile

import dask.array as da
import numpy as np
import pytest
from helpers import cube, cubes, nothing_computed
from hypothesis import given, settings
from hypothesis import strategies as st

from edxdenoise import blocks, denoise, quantify, simulate
from edxdenoise.blocks import (
    SparseBlock,
    block_of_counts,
    channel_totals,
    chunk,
    compact_of,
    compact_size,
    compute,
    delayed_blocks,
    dense,
    hold,
    in_rows,
    known_sparse,
    pixel_totals,
    recast,
    set_aside,
    sparse_block,
    square_blocks,
    whole_rows,
)
from edxdenoise.config import Denoise
from edxdenoise.cube import make_cube
from edxdenoise.pipeline import quantities
from edxdenoise.preprocess import weight
from edxdenoise.survey import survey
from edxdenoise.thinning import hold_out, thin
from edxdenoise.validation.holdout import held_out_error
from edxdenoise.xray.peaks import local_peaks


def few_counts(shape=(24, 30, 120), mean=0.02, seed=0):
    """Two specimens side by side, at a few counts per pixel."""
    energy = np.arange(shape[2])
    lines = [np.exp(-0.5 * ((energy - at) / 4) ** 2) for at in (30, 80)]
    expected = np.zeros(shape) + 0.3
    expected[:, :15] += 8 * lines[0]
    expected[:, 15:] += 8 * lines[1]
    counts = np.random.default_rng(seed).poisson(expected * mean / expected.mean())
    return counts.astype(np.uint8)


@pytest.fixture(params=[0.0, 1.1], ids=["dense", "sparse"])
def density(request, monkeypatch):
    monkeypatch.setattr(blocks, "DENSITY", request.param)
    return request.param


@pytest.mark.parametrize("mean", [0.02, 1.0], ids=["sparse", "dense"])
@pytest.mark.parametrize("chunks", [(5, 7), (24, 30), (1, 30)])
def test_square_blocks_hold_the_same_counts(mean, chunks):
    counts = few_counts(mean=mean)
    found = square_blocks(da.from_array(counts, (*chunks, -1)), 9)
    assert found.chunks[:2] == ((9, 9, 6), (9, 9, 9, 3))
    np.testing.assert_array_equal(found, counts)
    kept = {type(block) for block in compute(*delayed_blocks(compact_of(found).blocks))}
    assert kept == {SparseBlock if mean < 1 else np.ndarray}


def test_maps_set_aside_come_back(monkeypatch):
    maps = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)
    assert set_aside(maps, [1]) is maps
    monkeypatch.setattr(blocks, "_WORTH_A_FILE", 100)
    aside = set_aside(maps, [1, 3])
    for found in (aside, pickle.loads(pickle.dumps(aside))):
        np.testing.assert_array_equal(found, maps)
        np.testing.assert_array_equal(found[[0, 3]], maps[[0, 3]])

    def full(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    assert set_aside(maps, [1]) is maps


@pytest.mark.parametrize("options", [{}, {"shrink": False}])
def test_denoised_alike_with_maps_set_aside(monkeypatch, options):
    ds = make_cube(few_counts(mean=0.2), energy=np.arange(120) * 0.1)
    plain = denoise(ds, components=12, **options)
    monkeypatch.setattr(blocks, "_WORTH_A_FILE", 1)
    found = denoise(chunk(ds), components=12, **options)
    assert isinstance(found.component_map.data, da.Array)
    for name in ("component_map", "component_map_shrunk", "counts_denoised"):
        scale = np.abs(plain[name]).max()
        np.testing.assert_allclose(found[name], plain[name], atol=1e-5 * float(scale))


@given(
    counts=cubes(), empty=st.floats(0, 1), dtype=st.sampled_from([None, float, np.float32]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_a_block_comes_back_as_it_was(counts, empty, dtype):
    counts = np.where(np.random.default_rng(0).random(counts.shape) < empty, 0, counts)
    counts = counts.astype(dtype or counts.dtype)
    block = sparse_block(counts)
    assert block.shape == counts.shape and block.dtype == counts.dtype
    assert block.rows.data.all()
    np.testing.assert_array_equal(dense(block), counts)


def test_counts_one_by_one_become_a_block_in_any_order():
    counts = few_counts()
    places = np.repeat(np.flatnonzero(counts), counts[counts > 0])
    places = np.random.default_rng(1).permutation(places)
    where = np.divmod(places, counts.shape[2])
    block = block_of_counts(where, np.ones(places.size, np.uint32), counts.shape)
    assert isinstance(block, SparseBlock) and block.dtype == np.uint8
    np.testing.assert_array_equal(dense(block), counts)
    filled = block_of_counts(([0, 0, 1], [0, 1, 1]), np.array([1, 2, 300]), (1, 2, 2))
    np.testing.assert_array_equal(filled, np.array([[[1, 2], [0, 300]]], np.uint16))


def test_counts_of_a_file_stay_in_compact_blocks(monkeypatch):
    """Until blocks have to be smaller than they were read."""
    monkeypatch.setattr("edxdenoise.resources._BLOCK_VALUES", 8 * 30 * 120)
    counts = few_counts()
    ds = cube(in_rows(sparse_block(counts)))
    assert ds.counts.chunks[:2] == ((8, 8, 8), (30,))
    known = compact_of(chunk(ds).counts.data)
    assert known.held and known is compact_of(ds.counts.data)
    smaller = chunk(ds, memory_limit=4 * 30 * 120 * 4 * 4, workers=1)
    assert not compact_of(smaller.counts.data).held
    for each in (ds, chunk(ds), smaller):
        np.testing.assert_array_equal(each.counts, counts)


def test_density_decides():
    few, many = few_counts(), few_counts(mean=0.2)
    assert isinstance(blocks.compact(few), SparseBlock)
    assert blocks.compact(many) is many
    assert compact_size(few.shape, np.count_nonzero(few), 1) < few.nbytes / 5
    assert compact_size(many.shape, np.count_nonzero(many), 1) == many.nbytes


@pytest.mark.parametrize("chunks", [(24, 30, 120), (5, 7, 50), (1, 11, 120)])
def test_sums_and_rows(density, chunks):
    counts = few_counts()
    lazy = da.from_array(counts, chunks=chunks)
    with nothing_computed():
        sums = pixel_totals(lazy, np.uint64), channel_totals(lazy, np.float64)
        wide = whole_rows(recast(lazy, np.dtype(np.uint16)))
    pixel, channel = compute(*sums)
    np.testing.assert_array_equal(pixel, counts.sum(axis=2))
    np.testing.assert_array_equal(channel, counts.sum(axis=(0, 1)))
    assert wide.dtype == np.uint16 and wide.chunks[1] == (30,)
    np.testing.assert_array_equal(wide.compute(), counts)


def test_held_counts_are_read_once():
    reads = []

    def read(block):
        reads.append(block.shape)
        return block

    counts = few_counts()
    lazy = da.map_blocks(read, da.from_array(counts, chunks=(6, -1, -1)), meta=counts[:0])
    held = hold(lazy)
    reads.clear()
    assert compact_of(held).held and not compact_of(lazy).held
    ds = cube(held)
    found = survey(ds)
    assert (found.total, found.filled) == (counts.sum(), np.count_nonzero(counts))
    part, rest = thin(ds)
    np.testing.assert_array_equal(part["counts"] + rest["counts"], counts)
    assert compact_of(part["counts"].data).held
    assert not reads
    known = known_sparse(held, found.filled)
    assert compact_of(known).sparse and compact_of(recast(known, np.dtype("u2"))).sparse


@pytest.mark.parametrize("split", [thin, lambda ds: hold_out(ds, 1, folds=4)])
@pytest.mark.parametrize("chunks", [(24, 30, 120), (5, 7, 120)])
def test_random_parts_do_not_depend_on_how_cells_are_stored(density, split, chunks):
    counts = few_counts(mean=0.1)
    expected = [part["counts"].values for part in split(cube(counts))]
    lazy = cube(da.from_array(counts, chunks=chunks))
    for part, same in zip(split(lazy), expected):
        np.testing.assert_array_equal(part["counts"], same)


def test_negative_counts_are_refused(density):
    counts = few_counts().astype(np.float32)
    counts[3, 4, 5] = -1
    lazy = weight(cube(da.from_array(counts, chunks=(6, -1, -1))))
    assert np.isnan(lazy["pixel_counts"].values).sum() == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
def test_denoised_the_same_from_sparse_and_dense_blocks(monkeypatch):
    counts = few_counts(mean=0.05)
    results, errors = [], []
    for limit, chunks in ((0.0, (7, 30, 120)), (1.1, (5, 11, 120))):
        monkeypatch.setattr(blocks, "DENSITY", limit)
        ds = cube(da.from_array(counts, chunks=chunks))
        recipe = Denoise(components=10, select="split", shrink=False)
        results.append(denoise(ds, recipe))
        errors.append(held_out_error(ds, recipe).error.values)
    plain, sparse = results
    assert compact_of(sparse["counts"].data).sparse and not compact_of(plain["counts"].data).sparse
    np.testing.assert_array_equal(plain["component_keep"], sparse["component_keep"])
    np.testing.assert_array_equal(plain["component_neighbour"], sparse["component_neighbour"])
    np.testing.assert_allclose(plain["component_variance"], sparse["component_variance"], rtol=1e-6)
    cubes = [each["counts_denoised"].values for each in results]
    np.testing.assert_allclose(*cubes, atol=1e-5 * cubes[0].max())
    np.testing.assert_allclose(*errors, rtol=1e-4)
    # Whatever does not ask for compact blocks sees dense ones.
    np.testing.assert_array_equal(sparse["counts"], counts)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
def test_quantified_the_same_from_sparse_and_dense_blocks_read_twice(monkeypatch):
    phantom = simulate("solar-cell", shape=(16, 24), channels=130, energy_width=0.1)
    counts = thin(phantom[["counts"]].compute(), fraction=0.02)[0]["counts"]
    model = denoise(phantom.assign(counts=counts), keep="1-3").drop_vars("counts_denoised")
    quantified, parts, reads = [], [], []

    def read(block):
        reads.append(block.shape)
        return block

    for limit, chunks in ((0.0, (16, 24, 130)), (1.1, (5, 11, 130))):
        monkeypatch.setattr(blocks, "DENSITY", limit)
        lazy = da.from_array(counts.values, chunks=chunks)
        if limit:
            # Not one block gets its empty cells.
            monkeypatch.setattr(SparseBlock, "toarray", None)
            lazy = hold(lazy)
        else:
            lazy = lazy.map_blocks(read, meta=lazy._meta)
        ds = model.assign(counts=counts.copy(data=lazy))
        parts.append(local_peaks(ds, []))
        reads.clear()
        lines = {"Pb_La": 4.374, "I_La": 3.413}
        quantified.append([quantify(ds, lines, source=each) for each in ("counts", "denoised")])
        assert len(reads) == (0 if limit else 4)
    for plain, sparse in zip(*quantified):
        for name in quantities(plain):
            np.testing.assert_allclose(plain[name], sparse[name], 1e-6, 1e-6, err_msg=name)
    assert parts[0]
    np.testing.assert_array_equal(*parts)
