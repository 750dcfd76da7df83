"""Where and with how much memory the work is done: Dask schedulers, memory limit, pixel blocks."""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import numpy as np
import psutil
import xarray as xr
from threadpoolctl import threadpool_limits

from edxdenoise.errors import MemoryLimitError, ParameterError
from edxdenoise.schema import COUNTS, DIM_ENERGY, DIM_X, DIM_Y

# Large enough that Dask's bookkeeping is nothing beside the matrix product, small enough that a
# block of 2048 channels as float32 (33 MB) leaves room for one per worker in a small memory.
_BLOCK_PIXELS = 4096
# Copies of a block as float32 that one worker may hold at a time: read, weighted, product, and
# what the next stage makes of it.
_BLOCK_COPIES = 4

# Maps held for the spatial statistic, and those a worker makes for one component.
_STATISTIC_MAPS, _TRANSFORMS = 14, 8
# Values of a tile and its surroundings where neighbours are looked at: 32 MB as float32, of which a
# worker holds a few copies.
TILE_VALUES = 8_000_000
_TILE_COPIES = 6
# Maps that averaging over like pixels works on: some fourteen for each of seven kept components.
_SHRINK_MAPS = 100
# What Python and the libraries take by themselves.
_PROGRAM = 350_000_000

_SIZE_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def parse_memory(text: str) -> int:
    """Bytes from text such as ``4GB``, ``500 MiB`` or ``1e9``.

    Examples
    --------
    >>> parse_memory("4GB"), parse_memory("1 KiB")
    (4000000000, 1024)
    """
    match = re.fullmatch(
        r"\s*((?:[0-9]+[.]?[0-9]*|[.][0-9]+)(?:e[0-9]{1,2})?)\s*([kmgt]?)(i?)b?\s*", text.lower()
    )
    if match is None:
        raise ParameterError(f"memory '{text}' is not understood; write it as 4GB or 500MiB")
    number, prefix, binary = match.groups()
    unit = 1024 ** "kmgt".index(prefix) * 1024 if binary and prefix else _SIZE_UNITS[prefix]
    size = int(float(number) * unit)
    if size <= 0:
        raise ParameterError(f"memory '{text}' must be more than 0")
    return size


def format_memory(size: float) -> str:
    """Bytes for people.

    Examples
    --------
    >>> format_memory(1_072_693_248), format_memory(512)
    ('1.07 GB', '512 B')
    """
    for unit, width in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= width:
            number = size / width
            return f"{number:.0f} {unit}" if number >= 100 else f"{number:.3g} {unit}"
    return f"{int(size)} B"


def default_memory_limit() -> int:
    """Half of the memory that is free now, in bytes."""
    return psutil.virtual_memory().available // 2


def default_workers() -> int:
    """Number of processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    per_pixel = 4 * channels * _BLOCK_COPIES
    pixels = min(_BLOCK_PIXELS, limit // (workers * per_pixel))
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
    name: str = "threads", *, workers: int | None = None, memory_limit: int | None = None
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

    Raises
    ------
    ParameterError
        If the name is none of these or the cluster does not answer.
    """
    if name == "threads":
        # One BLAS thread per Dask thread: two layers of threads would fight for the processors.
        with (
            threadpool_limits(1),
            dask.config.set(scheduler="threads", num_workers=workers or default_workers()),
        ):
            yield
        return
    from distributed import Client, LocalCluster

    if name == "processes":
        count = workers or default_workers()
        per_worker = (memory_limit or default_memory_limit()) // count
        with (
            LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                memory_limit=per_worker,
                dashboard_address=None,
            ) as cluster,
            Client(cluster),
        ):
            yield
        return
    if not (name.endswith(".json") or "://" in name or re.fullmatch(r"[^/\s]+:\d+", name)):
        raise ParameterError(
            f"scheduler '{name}' is not known; allowed are threads, processes, an address such as "
            "tcp://host:8786 or a scheduler file ending in .json"
        )
    if name.endswith(".json") and not os.path.isfile(name):
        # The client would wait for the file to appear.
        raise ParameterError(f"scheduler file '{name}' does not exist; start the scheduler first")
    try:
        client = (
            Client(scheduler_file=name, timeout="10s")
            if name.endswith(".json")
            else Client(name, timeout="10s")
        )
    except (OSError, ValueError) as error:
        raise ParameterError(f"no Dask scheduler answers at '{name}': {error}") from error
    with client:
        yield


def compute(*lazy: Any) -> tuple[Any, ...]:
    """Compute Dask collections together, as one graph, with one BLAS thread per Dask thread.

    Two layers of threads would fight for the processors.
    """
    with threadpool_limits(1):
        computed = dask.compute(*lazy)
    _trim_memory()
    return computed


def load(ds: xr.Dataset) -> xr.Dataset:
    """The same Dataset with all its lazy variables computed, as one graph."""
    with threadpool_limits(1):
        computed = ds.compute()
    _trim_memory()
    return computed


def _trim_memory() -> None:
    """Give memory that is free back to the system, which glibc does not do by itself.

    Score maps exist twice for a moment, as blocks and whole: kept, the blocks would count as ours
    for the rest of the run. Dask's documentation advises the same for its workers.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes a denoising job needs.

    Parameters
    ----------
    cube : int
        The counts as they are stored.
    held : int
        What is held throughout whatever the block size: score maps and Gram matrices.
    streamed : int
        The least the job can do with: one pixel per worker at a time, and what is held.
    in_memory : int
        With the whole cube in memory, which saves reading it several times.
    """

    cube: int
    held: int
    streamed: int
    in_memory: int


def memory_needed(
    shape: tuple[int, int, int],
    itemsize: int,
    *,
    components: int = 100,
    workers: int | None = None,
    neighbours: bool = False,
    shrink: bool = False,
) -> MemoryNeed:
    """Memory for denoising a cube of this shape (y, x, energy) and bytes per count.

    With `neighbours`, components are looked for in tiles with their surroundings; with `shrink`,
    maps are averaged over like pixels.

    Examples
    --------
    >>> format_memory(memory_needed((1024, 1024, 2048), 1, workers=2).held)
    '1.32 GB'
    """
    workers = default_workers() if workers is None else workers
    pixels, channels = shape[0] * shape[1], shape[2]
    cube = pixels * channels * itemsize
    # The maps once as computed, once more while they are put together, or what the spatial
    # statistic needs beside them; a Gram matrix for each worker, its running sum and the
    # eigensolver's copy, in 64 bits.
    beside = [components, _STATISTIC_MAPS + _TRANSFORMS * workers]
    if shrink:
        # Shrunk maps, their errors, and what is worked on.
        beside.append(2 * components + _SHRINK_MAPS)
    maps = components + max(beside)
    held = _PROGRAM + 4 * maps * pixels + (workers + 2) * 8 * channels**2
    if neighbours:
        # Two sums for every worker, and two while they are added up.
        tile = min(TILE_VALUES, 4 * pixels * channels)
        held += workers * _TILE_COPIES * 4 * tile + (workers + 2) * 16 * channels**2
    per_worker = 4 * channels * _BLOCK_COPIES
    return MemoryNeed(
        cube=cube,
        held=held,
        streamed=held + workers * per_worker,
        in_memory=held + cube + workers * per_worker * min(_BLOCK_PIXELS, pixels),
    )


def check_memory(need: int, limit: int, what: str) -> None:
    """Raise MemoryLimitError if `what` needs more bytes than the limit."""
    if need > limit:
        raise MemoryLimitError(
            # Half a percent more than needed, so that the number as printed is enough.
            f"{what} needs {format_memory(1.005 * need)}, the limit is {format_memory(limit)}; "
            "raise --memory-limit, or crop, rebin or ask for fewer components"
        )
