"""Memory limits, blocks and schedulers."""

import dask
import numpy as np
import pytest
from helpers import cube, nothing_computed
from hypothesis import assume, given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from edxdenoise.blocks import block_shape, chunk, compute, load, scheduler
from edxdenoise.errors import MemoryLimitError, ParameterError
from edxdenoise.resources import (
    check_memory,
    default_memory_limit,
    default_workers,
    format_memory,
    memory_needed,
    parse_memory,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GB", 4 * 10**9),
        ("4 gb", 4 * 10**9),
        ("4g", 4 * 10**9),
        ("1GiB", 2**30),
        (" 1.5 MiB ", 3 * 2**19),
        (".5kB", 500),
        ("2.kB", 2000),
        ("1e9", 10**9),
        ("2e3MB", 2 * 10**9),
        ("1T", 10**12),
        ("512", 512),
        ("512B", 512),
    ],
)
def test_memory_is_read(text, size):
    assert parse_memory(text) == size


@pytest.mark.parametrize(
    "text", ["", "GB", "4XB", "-4GB", "1.2.3GB", ".", "1e999", "nan", "inf", "4 4GB", "0", "0.1B"]
)
def test_memory_that_makes_no_sense(text):
    with pytest.raises(ParameterError, match="memory '"):
        parse_memory(text)


@given(st.integers(1, 10**15))
def test_memory_reads_what_it_writes(size):
    assert parse_memory(format_memory(size)) == pytest.approx(size, rel=0.006)


@given(
    st.tuples(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 5000)),
    st.integers(10**6, 10**11),
    st.integers(1, 64),
)
def test_blocks_keep_within_the_limit(shape, limit, workers):
    needed = 16 * shape[2] * workers  # four float32 copies of one spectrum per worker
    if needed > limit:
        with pytest.raises(MemoryLimitError, match="does not hold one spectrum"):
            block_shape(shape, memory_limit=limit, workers=workers)
        return
    rows, columns = block_shape(shape, memory_limit=limit, workers=workers)
    assert 1 <= rows <= shape[0] and 1 <= columns <= shape[1]
    assert rows == 1 or columns == shape[1]
    assert rows * columns * needed <= limit
    assert rows * columns <= 4096


@given(st.integers(10**6, 10**10), st.integers(2, 8))
def test_more_memory_never_means_smaller_blocks(limit, factor):
    shape = (512, 512, 1000)
    assume(16 * 1000 * 2 <= limit)
    small, large = (
        np.prod(block_shape(shape, memory_limit=n, workers=2)) for n in (limit, factor * limit)
    )
    assert small <= large


@pytest.mark.parametrize("lazy", [False, True])
def test_chunk_gives_whole_spectra_and_computes_nothing(lazy):
    ds = cube(np.random.default_rng(0).poisson(2, (40, 30, 20)))
    given_ds = ds.chunk({"y": 7, "energy": 6}) if lazy else ds
    with nothing_computed():
        result = chunk(given_ds, memory_limit=2 * 16 * 20 * 90, workers=2)
    assert result.counts.chunks == ((3,) * 13 + (1,), (30,), (20,))
    np.testing.assert_array_equal(result.counts, ds.counts)


def test_defaults_are_possible():
    assert 1 <= default_workers() <= 4096
    assert default_memory_limit() > 0


@given(st.tuples(*[st.integers(2, 500)] * 3), st.integers(1, 100), st.integers(1, 8))
def test_memory_needed_grows_with_the_job(shape, components, workers):
    need = memory_needed(shape, 2, components=components, workers=workers)
    assert need.cube == 2 * np.prod(shape)
    assert need.held < need.streamed <= need.in_memory
    more = memory_needed(shape, 2, components=components + 1, workers=workers + 1)
    assert more.held > need.held and more.streamed > need.streamed


def test_memory_that_does_not_suffice():
    check_memory(10, 10, "this")
    with pytest.raises(MemoryLimitError, match="this job needs 2.* GB, the .*limit is 1 GB"):
        check_memory(2 * 10**9, 10**9, "this job")


def _blas_threads():
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return max((pool["num_threads"] for pool in pools), default=1)


def test_threads_scheduler_has_one_layer_of_threads():
    before = _blas_threads()
    with scheduler("threads", workers=3):
        assert dask.config.get("scheduler") == "threads"
        assert dask.config.get("num_workers") == 3
        assert _blas_threads() == 1
    assert _blas_threads() == before
    assert dask.config.get("scheduler", None) is None


def test_compute_and_load_use_one_blas_thread():
    assert compute(dask.delayed(_blas_threads)(), 5) == (1, 5)
    ds = cube(np.ones((4, 4, 4), np.uint8)).chunk({"y": 2})
    assert isinstance(load(ds).counts.data, np.ndarray)


@pytest.mark.parametrize("name", ["magic", "", "process", "host", "a b:1"])
def test_unknown_scheduler(name):
    with pytest.raises(ParameterError, match="is not known; allowed are threads, processes"):
        with scheduler(name):
            pass


@pytest.mark.slow
def test_processes_give_the_same():
    ds = cube(np.random.default_rng(0).poisson(2, (8, 6, 5))).chunk({"y": 2})
    with scheduler("processes", workers=1, memory_limit=10**9):
        total = ds.counts.sum().compute()
    assert total == ds.counts.values.sum()
