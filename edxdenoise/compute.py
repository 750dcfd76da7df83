"""Dask schedulers and blocks of pixels."""

from __future__ import annotations

import ctypes
import itertools
import re
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

from edxdenoise import cluster
from edxdenoise.errors import FormatError, MemoryLimitError, ParameterError
from edxdenoise.resources import (
    BLOCK_COPIES,
    BLOCK_PIXELS,
    default_memory_limit,
    default_workers,
    format_memory,
)
from edxdenoise.schema import COUNTS, DIM_ENERGY, DIM_X, DIM_Y


def block_shape(
    shape: tuple[int, int, int], *, memory_limit: int | None = None, workers: int | None = None
) -> tuple[int, int]:
    """Pixels (y, x) per block such that all workers together keep within the memory limit.

    Parameters
    ----------
    shape : tuple of int
        Shape (y, x, energy) of the cube.
    memory_limit : int, optional
        Bytes; by default half of what is free.
    workers : int, optional
        Blocks worked on at a time; by default the number of processors.

    Raises
    ------
    MemoryLimitError
        If not even one pixel per worker fits.

    Examples
    --------
    >>> block_shape((330, 500, 650), memory_limit=10**9, workers=2)
    (8, 500)
    """
    limit = default_memory_limit() if memory_limit is None else memory_limit
    workers = default_workers() if workers is None else workers
    rows, columns, channels = shape
    per_pixel = 4 * channels * BLOCK_COPIES
    pixels = min(BLOCK_PIXELS, limit // (workers * per_pixel))
    if pixels < 1:
        raise MemoryLimitError(
            f"a memory limit of {format_memory(limit)} does not hold one spectrum of {channels} "
            f"channels for each of {workers} workers; allow {format_memory(workers * per_pixel)}"
        )
    if pixels < columns:
        return 1, int(pixels)
    return int(min(rows, pixels // columns)), columns


def chunk(
    ds: xr.Dataset, *, memory_limit: int | None = None, workers: int | None = None
) -> xr.Dataset:
    """Cut the counts into blocks of pixels with whole spectra, as a Dask array.

    Parameters are those of `block_shape`. Nothing is computed.
    """
    sizes = ds[COUNTS.name].sizes
    rows, columns = block_shape(
        (sizes[DIM_Y], sizes[DIM_X], sizes[DIM_ENERGY]), memory_limit=memory_limit, workers=workers
    )
    counts = ds[COUNTS.name]
    if isinstance(counts.data, np.ndarray):
        lazy = as_blocks(counts.data, (rows, columns, -1))
        ds = ds.assign({COUNTS.name: counts.copy(data=lazy)})
    return ds.chunk({DIM_Y: rows, DIM_X: columns, DIM_ENERGY: -1})


def as_blocks(array: np.ndarray, chunks: tuple[Any, ...]) -> da.Array:
    """A lazy array whose blocks are views of `array`; Dask's ``from_array`` copies and hashes it.

    Parameters
    ----------
    array : array
        Not to be changed from now on.
    chunks : tuple
        As Dask takes them.
    """
    chunks = da.core.normalize_chunks(chunks, array.shape, dtype=array.dtype)
    name = f"blocks-{uuid.uuid4().hex}"
    keys = itertools.product([name], *(range(len(sizes)) for sizes in chunks))
    parts = da.core.slices_from_chunks(chunks)
    graph = {key: array[part] for key, part in zip(keys, parts)}
    return da.Array(graph, name, chunks, meta=array[(slice(0, 0),) * array.ndim])


@contextmanager
def scheduler(
    name: str = "threads",
    *,
    workers: int | None = None,
    memory_limit: int | None = None,
    wait_for_workers: tuple[int, float] = cluster.WAIT_FOR_WORKERS,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[None]:
    """Run everything computed inside on the scheduler named.

    Parameters
    ----------
    name : str
        ``threads`` (this process), ``processes`` (a local cluster), the address of a Dask
        scheduler such as ``tcp://host:8786``, or the path of its scheduler file (``.json``).
    workers : int, optional
        Threads or processes; by default one per processor. A cluster that runs already has its
        own.
    memory_limit : int, optional
        Bytes for all workers of a local cluster together.
    wait_for_workers, say
        As `cluster.connect` takes them.

    Raises
    ------
    ParameterError
        If the name is none of these or the cluster does not answer.
    ClusterError
        As `cluster.connect`.
    """
    if name == "threads":
        # One BLAS thread per Dask thread: two layers of threads would fight for the processors.
        with (
            threadpool_limits(1),
            dask.config.set(scheduler="threads", num_workers=workers or default_workers()),
        ):
            yield
        return
    if name == "processes":
        from distributed import LocalCluster

        count = workers or default_workers()
        per_worker = (memory_limit or default_memory_limit()) // count
        with (
            LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                memory_limit=per_worker,
                dashboard_address=None,
            ) as local,
            cluster.connect(local.scheduler_address),
        ):
            yield
        return
    if not (name.endswith(".json") or "://" in name or re.fullmatch(r"[^/\s]+:\d+", name)):
        raise ParameterError(
            f"scheduler '{name}' is not known; allowed are threads, processes, an address such as "
            "tcp://host:8786 or a scheduler file ending in .json"
        )
    with cluster.connect(name, wait_for_workers, say):
        yield


def compute(*lazy: Any) -> tuple[Any, ...]:
    """Compute Dask collections together, as one graph, with one BLAS thread per Dask thread.

    Two layers of threads would fight for the processors.
    """
    with threadpool_limits(1), _damaged_netcdf():
        computed = dask.compute(*lazy)
    _trim_memory()
    return computed


def load(ds: xr.Dataset) -> xr.Dataset:
    """Return the Dataset with all its lazy variables computed, as one graph."""
    with threadpool_limits(1), _damaged_netcdf():
        computed = ds.compute()
    _trim_memory()
    return computed


@contextmanager
def _damaged_netcdf() -> Iterator[None]:
    """Name what netCDF only calls an HDF error: a chunk that does not agree with its checksum."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("NetCDF: "):
            raise
        raise FormatError(
            f"a part of a .nc file is damaged ({error}); copy or write that file again"
        ) from error


def _trim_memory() -> None:
    """Give memory that is free back to the system, which glibc does not do by itself.

    Score maps exist twice for a moment, as blocks and whole: kept, the blocks would count as ours
    for the rest of the run. Dask's documentation advises the same for its workers.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
