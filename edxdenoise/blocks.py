"""Blocks of pixels: how they are cut, with which scheduler they are computed, and what is summed.

A block holds all its cells, or only those with counts.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import operator
import os
import re
import sys
import tempfile
import uuid
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import dask
import dask.array as da
import dask.local
import dask.threaded
import numpy as np
import xarray as xr
from dask._task_spec import GraphNode, Task, TaskRef
from dask.base import clone_key
from dask.delayed import Delayed
from dask.graph_manipulation import bind
from dask.highlevelgraph import HighLevelGraph, Layer, MaterializedLayer
from dask.typing import Key
from scipy import sparse
from threadpoolctl import threadpool_limits

from edxdenoise import cluster
from edxdenoise import schema as v
from edxdenoise.errors import FormatError, MemoryLimitError, ParameterError
from edxdenoise.resources import (
    BLOCK_COPIES,
    block_pixels,
    default_memory_limit,
    default_workers,
    format_memory,
)

# Below this share of cells that hold counts the sparse products win; measured on uint8 blocks of
# 4096 pixels x 2048 channels: the Gram matrix of 1 % is 4 times faster than the dense one
# (conversion included), that of 5 % no faster.
DENSITY = 0.03
# Bytes of the channel number that is stored with every count, and of the place of a pixel's first.
_INDEX = 4
_WORD = 8
# M_MMAP_THRESHOLD of glibc's malloc.h, and the bytes above which an array is mapped separately.
_MMAP_THRESHOLD, _LARGE_ARRAY = -3, 6_000_000
# Bytes of maps from which on those that are dropped wait in a file.
_WORTH_A_FILE = 100_000_000
# Where lazy counts keep what they know of themselves.
_KNOWN = "edxdenoise"


@dataclass(frozen=True)
class SparseBlock:
    """A block of pixels without its empty cells.

    Parameters
    ----------
    rows : scipy.sparse.csr_array, shape (y * x, energy)
        Counts; channels of a pixel rise, and none holds 0.
    sides : tuple of int
        Rows and columns of the block.
    """

    rows: sparse.csr_array
    sides: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, columns and channels."""
        return *self.sides, self.rows.shape[1]

    @property
    def dtype(self) -> np.dtype:
        """Type of the counts."""
        return self.rows.dtype

    def __sizeof__(self) -> int:
        return self.rows.data.nbytes + self.rows.indices.nbytes + self.rows.indptr.nbytes

    def with_counts(self, counts: np.ndarray) -> SparseBlock:
        """The same cells with other counts; those that get 0 are left out."""
        rows = self.rows
        changed = sparse.csr_array((counts, rows.indices, rows.indptr), shape=rows.shape)
        if not counts.all():
            changed = changed.copy()
            changed.eliminate_zeros()
        return SparseBlock(changed, self.sides)

    def toarray(self) -> np.ndarray:
        """The block with all its cells, shape (y, x, energy)."""
        cells = np.zeros(self.rows.shape, self.dtype)
        pixel = np.repeat(np.arange(len(cells)), np.diff(self.rows.indptr))
        cells[pixel, self.rows.indices] = self.rows.data
        return cells.reshape(self.shape)


Block = np.ndarray | SparseBlock


@dataclass(frozen=True)
class Compact:
    """What lazy counts know of themselves.

    Parameters
    ----------
    blocks : dask array, shape (y, x)
        A chunk of it is a `Block` of whole spectra; it cannot be computed as an array.
    held : bool
        Whether the blocks are in memory and cost nothing to read again.
    sparse : bool
        Whether the map as a whole is known to fill fewer cells than `DENSITY`.
    """

    blocks: da.Array
    held: bool = False
    sparse: bool = False


def compact(block: Block) -> Block:
    """A block without its empty cells, if these are nearly all.

    Examples
    --------
    >>> type(compact(np.zeros((1, 2, 100), np.uint8))).__name__
    'SparseBlock'
    >>> type(compact(np.ones((1, 2, 100), np.uint8))).__name__
    'ndarray'
    """
    if isinstance(block, SparseBlock) or np.count_nonzero(block) >= DENSITY * block.size:
        return block
    return sparse_block(block)


def sparse_block(block: Block) -> SparseBlock:
    """A block without its empty cells, however many these are."""
    if isinstance(block, SparseBlock):
        return block
    rows, columns, channels = block.shape
    flat = np.ascontiguousarray(block).reshape(-1)
    where = _filled_cells(flat)
    pixel, channel = np.divmod(where, channels)
    starts = np.searchsorted(pixel, np.arange(rows * columns + 1))
    content = flat[where], channel.astype(np.int32), starts.astype(np.int32)
    return SparseBlock(sparse.csr_array(content, shape=(rows * columns, channels)), (rows, columns))


def less(block: Block, part: Block) -> Block:
    """What is left of the counts of a block without a part of them, of the same kind."""
    if isinstance(block, SparseBlock):
        return SparseBlock(sparse.csr_array(block.rows - sparse_block(part).rows), block.sides)
    return block - dense(part)


def _filled_cells(flat: np.ndarray) -> np.ndarray:
    """Places of what is not 0: first of words of 8 bytes, most of which are empty, then in them."""
    each = _WORD // flat.itemsize
    if flat.dtype.kind != "u" or each < 2 or flat.size % each:
        return np.flatnonzero(flat)
    words = np.flatnonzero(flat.view(np.uint64))
    cells = (words[:, np.newaxis] * each + np.arange(each)).reshape(-1)
    return cells[flat[cells] != 0]


def block_of_counts(
    places: tuple[np.ndarray, np.ndarray], counts: np.ndarray, shape: tuple[int, int, int]
) -> Block:
    """A block of counts that are given one by one, in the smallest type that holds them.

    Parameters
    ----------
    places : (array of int, array of int), shape (n,)
        Pixel, row by row, and channel; more than one count may belong to a cell.
    counts : array, shape (n,)
        Of a type that holds their sums.
    shape : tuple of int
        Rows, columns and channels.

    Examples
    --------
    >>> block = block_of_counts(([1, 1], [60, 60]), np.ones(2, np.uint32), (1, 2, 100))
    >>> block.dtype, int(block.toarray()[0, 1, 60])
    (dtype('uint8'), 2)
    """
    rows = sparse.csr_array((counts, places), shape=(shape[0] * shape[1], shape[2]))
    block = in_smallest_type(SparseBlock(rows, shape[:2]))
    few = rows.nnz < DENSITY * rows.shape[0] * rows.shape[1]
    return block if few else dense(block)


def in_smallest_type(block: Block) -> Block:
    """Whole counts in the smallest type that holds them."""
    largest = int(stored_counts(block).max(initial=0))
    return recast_block(block, kind=np.min_scalar_type(largest))


def in_rows(block: SparseBlock) -> da.Array:
    """Lazy counts, shape (y, x, energy), of what is in memory, in blocks of whole rows."""
    height, (rows, columns) = block_rows(block.shape), block.sides
    heights = [min(height, rows - top) for top in range(0, rows, height)]
    name = f"held-{uuid.uuid4().hex}"
    graph = {
        (name, number, 0): SparseBlock(
            block.rows[number * height * columns :][: own * columns], (own, columns)
        )
        for number, own in enumerate(heights)
    }
    chunks = (tuple(heights), (columns,))
    blocks = da.Array(graph, name, chunks, meta=np.empty((0, 0), block.dtype))
    return counts_of(Compact(blocks, held=True), block.shape[2])


def block_rows(shape: tuple[int, int, int]) -> int:
    """Rows of a block where memory does not ask for fewer."""
    return max(min(shape[0], block_pixels(shape[2]) // shape[1]), 1)


def dense(block: Block) -> np.ndarray:
    """A block with all its cells, shape (y, x, energy)."""
    return block.toarray() if isinstance(block, SparseBlock) else block


def pixel_sums(block: Block, kind: type) -> np.ndarray:
    """Counts of every pixel, shape (y, x)."""
    if isinstance(block, SparseBlock):
        return np.asarray(block.rows.sum(axis=1, dtype=kind)).reshape(block.sides)
    return block.sum(axis=2, dtype=kind)


def channel_sums(block: Block, kind: type) -> np.ndarray:
    """Counts of every channel, shape (energy,)."""
    if isinstance(block, SparseBlock):
        rows = block.rows
        sums = np.zeros(rows.shape[1], kind)
        np.add.at(sums, rows.indices, rows.data.astype(kind))
        return sums
    return block.sum(axis=(0, 1), dtype=kind)


def weighted_sums(counts: np.ndarray | da.Array, rows: np.ndarray) -> np.ndarray | da.Array:
    """Sums over the channels of a map, weighted by each of `rows`, shape (y, x, row); lazy stays.

    Parameters
    ----------
    counts : array or dask array, shape (y, x, energy)
    rows : array, shape (row, energy)
    """
    if not isinstance(counts, da.Array):
        return weighted_block(counts, rows)
    return da.blockwise(
        weighted_block,
        "yxr",
        compact_blocks(counts),
        "yx",
        as_blocks(rows, (-1, -1)),
        "re",
        concatenate=True,
        align_arrays=False,
        dtype=np.float64,
        meta=np.empty((0, 0, 0)),
    )


def weighted_block(block: Block, rows: np.ndarray) -> np.ndarray:
    """Weighted sums of a block, as `weighted_sums`."""
    if isinstance(block, SparseBlock):
        return (block.rows @ rows.T).reshape(*block.sides, len(rows))
    # Windows leave most channels out.
    used = np.flatnonzero(rows.any(axis=0))
    return block[..., used].astype(np.float64) @ rows[:, used].T


def masked_sums(counts: np.ndarray | da.Array, masks: np.ndarray) -> np.ndarray | da.Array:
    """Counts of every channel within masks (mask, y, x), shape (mask, energy); lazy stays lazy."""
    if not isinstance(counts, da.Array):
        return masked_block(counts, masks)
    inside = as_blocks(masks, (-1, *counts.chunks[:2]))
    terms = per_block(masked_block, counts, inside, "ryx")
    return sum_blocks(terms, (len(masks), counts.shape[2]))


def masked_block(block: Block, masks: np.ndarray) -> np.ndarray:
    """Counts within masks of a block, as `masked_sums`."""
    inside = masks.reshape(len(masks), -1)
    if isinstance(block, SparseBlock):
        return np.asarray(inside.astype(np.float64) @ block.rows)
    flat = block.reshape(inside.shape[1], -1)
    return np.array([flat[each].sum(axis=0, dtype=np.float64) for each in inside])


def pixel_totals(counts: np.ndarray | da.Array, dtype: type) -> np.ndarray | da.Array:
    """Counts of every pixel of a map, shape (y, x); lazy stays lazy."""
    if not isinstance(counts, da.Array):
        return pixel_sums(counts, dtype)
    blocks = compact_blocks(counts)
    return da.map_blocks(pixel_sums, blocks, dtype, dtype=dtype, meta=np.empty((0, 0), dtype))


def channel_totals(counts: np.ndarray | da.Array, dtype: type) -> np.ndarray | da.Array:
    """Counts of every channel of a map, shape (energy,); lazy stays lazy."""
    if not isinstance(counts, da.Array):
        return channel_sums(counts, dtype)
    return sum_blocks(per_block(channel_sums, counts, kind=dtype), counts.shape[2:], dtype)


def stored_counts(block: Block) -> np.ndarray:
    """Counts of all cells that a block stores, in one row."""
    return block.rows.data if isinstance(block, SparseBlock) else block.reshape(-1)


def compact_size(shape: tuple[int, ...], filled: int, itemsize: int) -> int:
    """Bytes of counts in compact blocks, of which `filled` cells hold some.

    Examples
    --------
    >>> compact_size((512, 512, 4096), 308_000, 1)
    2588576
    """
    pixels, cells = shape[0] * shape[1], shape[0] * shape[1] * shape[2]
    if is_sparse(shape, filled):
        return filled * (itemsize + _INDEX) + pixels * _INDEX
    return cells * itemsize


def is_sparse(shape: tuple[int, ...], filled: int) -> bool:
    """Whether a map as a whole fills fewer cells than `DENSITY`."""
    return filled < DENSITY * shape[0] * shape[1] * shape[2]


def counts_of(known: Compact, channels: int) -> da.Array:
    """Lazy counts, shape (y, x, energy), from their compact blocks."""
    counts = da.blockwise(
        dense,
        "yxe",
        known.blocks,
        "yx",
        new_axes={"e": channels},
        dtype=known.blocks.dtype,
        meta=np.empty((0, 0, 0), known.blocks.dtype),
    )
    # An attribute and no new type of array, since xarray does not mix types of arrays.
    vars(counts)[_KNOWN] = known
    return counts


def compact_of(counts: da.Array) -> Compact:
    """The compact blocks of lazy counts; nothing is computed."""
    known = vars(counts).get(_KNOWN)
    if known is not None:
        return known
    whole = counts.rechunk({2: -1})
    meta = np.empty((0, 0), counts.dtype)
    return Compact(da.blockwise(_compact_whole, "yx", whole, "yxe", dtype=counts.dtype, meta=meta))


def compact_blocks(counts: da.Array) -> da.Array:
    """Blocks of lazy counts for kernels, a Dask array (y, x) whose chunks are each a `Block`."""
    return compact_of(counts).blocks


def _compact_whole(parts: Sequence[np.ndarray]) -> Block:
    # Dask hands over a list of parts along the channels; joining them would copy the one there is.
    (block,) = parts
    return compact(block)


def hold(counts: da.Array) -> da.Array:
    """Read the counts into memory, in compact blocks."""
    known = compact_of(counts)
    return counts_of(replace(known, blocks=known.blocks.persist(), held=True), counts.shape[2])


def known_sparse(counts: da.Array, filled: int) -> da.Array:
    """The same counts, of which it is known now how many cells hold some."""
    whole = is_sparse(counts.shape, filled)
    return counts_of(replace(compact_of(counts), sparse=whole), counts.shape[2])


def recast(counts: np.ndarray | da.Array, dtype: np.dtype) -> np.ndarray | da.Array:
    """Counts as another type, which holds them; lazy stay lazy."""
    if not isinstance(counts, da.Array):
        return counts.astype(dtype)
    return mapped(recast_block, counts, dtype=dtype, kind=dtype)


def recast_block(block: Block, *, kind: np.dtype) -> Block:
    """A block of counts as another type, which holds them."""
    if isinstance(block, SparseBlock):
        return block.with_counts(block.rows.data.astype(kind))
    return block.astype(kind)


def mapped(
    kernel: Callable[..., Block],
    counts: da.Array,
    *others: da.Array,
    dtype: np.dtype,
    **options: Any,
) -> da.Array:
    """Counts whose blocks are ``kernel(block, *others, **options)``, of equal chunks; lazy."""
    known = compact_of(counts)
    blocks = _chunks(kernel, known.blocks, *map(compact_blocks, others), dtype=dtype, **options)
    return counts_of(replace(known, blocks=blocks), counts.shape[2])


def split(
    kernel: Callable[..., tuple[Block, ...]], counts: da.Array, *, parts: int, **options: Any
) -> tuple[da.Array, ...]:
    """Counts split into parts, whose blocks are ``kernel(block, rows, **options)``; lazy.

    `rows` are the numbers of the rows of the block in the map. As a Dask array of their own they
    would be one more source beside the counts, and the scheduler would read many blocks ahead.
    """
    known, dtype = compact_of(counts), counts.dtype
    several = _chunks(_with_rows, known.blocks, dtype=dtype, split=kernel, options=options)
    return tuple(
        counts_of(
            replace(known, blocks=_chunks(_picked, several, dtype=dtype, number=number)),
            counts.shape[2],
        )
        for number in range(parts)
    )


def _with_rows(
    block: Block, *, split: Any, options: dict[str, Any], block_info: dict[int, Any]
) -> tuple[Block, ...]:
    (top, end), _ = block_info[0]["array-location"]
    return split(block, np.arange(top, end), **options)


def _picked(blocks: tuple[Block, ...], number: int) -> Block:
    return blocks[number]


def _chunks(kernel: Any, *blocks: da.Array, dtype: np.dtype, **options: Any) -> da.Array:
    """A Dask array (y, x) whose chunks are what `kernel` makes of blocks."""
    meta = np.empty((0, 0), dtype)
    return da.map_blocks(kernel, *blocks, dtype=dtype, meta=meta, **options)


def whole_rows(counts: da.Array) -> da.Array:
    """The same lazy counts in blocks that are as wide as the map."""
    if counts.numblocks[1] == 1:
        return counts
    known = compact_of(counts)
    blocks = da.blockwise(
        beside,
        "yw",
        known.blocks,
        "yx",
        new_axes={"w": counts.shape[1]},
        dtype=counts.dtype,
        meta=np.empty((0, 0), counts.dtype),
    )
    return counts_of(replace(known, blocks=blocks), counts.shape[2])


def square_blocks(counts: da.Array, side: int) -> da.Array:
    """The same lazy counts in blocks of `side` x `side` pixels; sparse ones stay sparse."""
    counts = whole_rows(counts)
    rows, columns, channels = counts.shape
    known = compact_of(counts)
    wide = delayed_blocks(known.blocks)
    ends = np.cumsum(counts.chunks[0])
    edges = [[*range(0, length, side), length] for length in (rows, columns)]
    graph = []
    for top, bottom in zip(edges[0], edges[0][1:]):
        first, last = np.searchsorted(ends, [top, bottom - 1], side="right").tolist()
        parts, start = wide[first : last + 1], int(ends[first] - counts.chunks[0][first])
        band = dask.delayed(_below)(parts, slice(top - start, bottom - start))
        graph.append(
            [
                da.from_delayed(
                    dask.delayed(_columns)(band, slice(left, right)),
                    (bottom - top, right - left),
                    dtype=counts.dtype,
                    meta=np.empty((0, 0), counts.dtype),
                )
                for left, right in zip(edges[1], edges[1][1:])
            ]
        )
    return counts_of(replace(known, blocks=da.block(graph)), channels)


def _below(blocks: Sequence[Block], rows: slice) -> Block:
    """Some rows of blocks of whole rows that lie below one another; sparse where all are."""
    if not all(isinstance(block, SparseBlock) for block in blocks):
        return np.concatenate([dense(block) for block in blocks])[rows]
    columns = blocks[0].shape[1]
    joined = sparse.vstack([sparse_block(block).rows for block in blocks], format="csr")
    own = sparse.csr_array(joined[rows.start * columns : rows.stop * columns])
    return SparseBlock(own, (rows.stop - rows.start, columns))


def _columns(block: Block, columns: slice) -> Block:
    if not isinstance(block, SparseBlock):
        return block[:, columns]
    height, width = block.sides
    chosen = np.arange(height * width).reshape(height, width)[:, columns]
    return SparseBlock(sparse.csr_array(block.rows[chosen.ravel()]), chosen.shape)


def beside(blocks: Sequence[Block]) -> Block:
    """Join blocks of the same rows along x; sparse where all are."""
    if not all(isinstance(block, SparseBlock) for block in blocks):
        return np.concatenate([dense(block) for block in blocks], axis=1)
    height, widths = blocks[0].shape[0], [block.shape[1] for block in blocks]
    joined = sparse.vstack([sparse_block(block).rows for block in blocks], format="csr")
    # Pixels of one row lie in each block behind one another.
    starts = np.cumsum([0, *(height * width for width in widths)])
    order = [
        start + np.arange(height * width).reshape(height, width)
        for start, width in zip(starts, widths)
    ]
    rows = sparse.csr_array(joined[np.concatenate(order, axis=1).ravel()])
    return SparseBlock(rows, (height, sum(widths)))


def again(arrays: Sequence[da.Array], after: Sequence[da.Array] | da.Array) -> list[da.Array]:
    """The same arrays, read once more when `after` is known.

    In one pass the graph would hold the whole cube from the first use of a block to the second;
    and the local scheduler goes on with what it can do since last, so that blocks that had to wait
    for anything would all be read first. Counts that are held are only taken up again.
    """
    known = [vars(array).get(_KNOWN) for array in arrays]
    waiting = [own.blocks if own else each for own, each in zip(known, arrays) if not _held(own)]
    ready = iter(bind([_renamable(array) for array in waiting], after) if waiting else [])
    result = []
    for own, array in zip(known, arrays):
        later = array if _held(own) else next(ready)
        if own and not own.held:
            later = counts_of(replace(own, blocks=later), array.shape[2])
        result.append(later)
    return result


class _Tasks(MaterializedLayer):
    """A layer whose tasks `bind` can rename.

    That of Dask does not rename what a ``Task`` refers to: slices would go on reading from tasks
    that are no longer in the graph.
    """

    def clone(
        self, keys: set, seed: Hashable, bind_to: Key | None = None
    ) -> tuple[MaterializedLayer, bool]:
        renamed: dict[Key, GraphNode] = {}
        bound = False
        for key, task in self.items():
            if key in keys:
                names = {each: clone_key(each, seed) for each in task.dependencies if each in keys}
                key = clone_key(key, seed)
                task = task.substitute(names, key=key)
                if bind_to is not None and not names:
                    task, bound = Task(key, _after, TaskRef(bind_to), task), True
            renamed[key] = task
        return MaterializedLayer(renamed), bound


def _after(_: object, value: object) -> object:
    return value


def _renamable(array: da.Array) -> da.Array:
    """The same array in a graph that `bind` can rename."""
    layers = {
        name: _Tasks(dict(layer)) if _holds_tasks(layer) else layer
        for name, layer in array.dask.layers.items()
    }
    graph = HighLevelGraph(layers, array.dask.dependencies)
    return da.Array(graph, array.name, array.chunks, dtype=array.dtype, meta=array._meta)


def _holds_tasks(layer: Layer) -> bool:
    return type(layer) is MaterializedLayer and all(
        isinstance(task, GraphNode) for task in layer.values()
    )


def _held(known: Compact | None) -> bool:
    return known is not None and known.held


def sum_blocks(terms: da.Array, shape: tuple[int, ...], dtype: type = np.float64) -> da.Array:
    """Sum over all blocks, pair by pair as a tree, an array of shape `shape`; lazy.

    Dask's own ``sum`` joins several blocks before it adds them: with Gram matrices of 2048 channels
    that costs more than the products of sparse counts.

    Parameters
    ----------
    terms : dask array, shape (y, x)
        Each chunk is one term, of the shape of the sum, dense or sparse.
    shape : tuple of int
    dtype : type
    """
    return sum_terms(delayed_blocks(terms), shape, dtype)


def sum_terms(
    terms: Sequence[Delayed], shape: tuple[int, ...], dtype: type = np.float64
) -> da.Array:
    """Sum of delayed arrays, dense or sparse, as `sum_blocks`."""
    sums = list(terms)
    while len(sums) > 1:
        pairs = [sums[i : i + 2] for i in range(0, len(sums), 2)]
        sums = [dask.delayed(operator.add)(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return da.from_delayed(dask.delayed(_as_dense)(sums[0]), shape, dtype)


def _as_dense(matrix: np.ndarray | sparse.csr_array) -> np.ndarray:
    return matrix if isinstance(matrix, np.ndarray) else matrix.toarray()


def per_block(
    kernel: Callable[..., Any], counts: da.Array, *others: Any, **options: Any
) -> da.Array:
    """What `kernel` makes of every block, for `sum_blocks`: a Dask array (y, x) of terms.

    Parameters
    ----------
    kernel : callable
        ``kernel(block, *others, **options)``.
    counts : dask array, shape (y, x, energy)
    others : pairs of dask array and str
        As `dask.array.blockwise` takes them.
    """
    return da.blockwise(
        kernel,
        "yx",
        compact_blocks(counts),
        "yx",
        *others,
        concatenate=True,
        align_arrays=False,
        meta=np.empty((0, 0)),
        **options,
    )


def delayed_blocks(array: da.Array) -> list[Delayed]:
    """The blocks of an array for use in delayed functions.

    An array handed to a delayed function as it is would be optimised on its own, under new keys,
    and everything before it computed once more for each function.
    """
    return list(array.to_delayed(optimize_graph=False).ravel())


def as_delayed(array: da.Array) -> Delayed:
    """An array of a single block for use in delayed functions; see `delayed_blocks`."""
    return delayed_blocks(array.rechunk(-1))[0]


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
    pixels = min(block_pixels(channels), limit // (workers * per_pixel))
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
    sizes = ds[v.COUNTS].sizes
    limit = default_memory_limit() if memory_limit is None else memory_limit
    workers = default_workers() if workers is None else workers
    # Half, since a worker of a cluster holds what other stages have made besides.
    limit = int(min(limit, cluster.room() / 2 * workers))
    rows, columns = block_shape(
        (sizes[v.DIM_Y], sizes[v.DIM_X], sizes[v.DIM_ENERGY]), memory_limit=limit, workers=workers
    )
    counts = ds[v.COUNTS]
    if isinstance(counts.data, np.ndarray):
        lazy = as_blocks(counts.data, (rows, columns, -1))
        ds = ds.assign({v.COUNTS: counts.copy(data=lazy)})
    cut = ds.chunk({v.DIM_Y: rows, v.DIM_X: columns, v.DIM_ENERGY: -1})
    known = vars(counts.data).get(_KNOWN) if isinstance(counts.data, da.Array) else None
    if (
        known is not None
        and known.held
        and np.all(np.less_equal(known.blocks.chunksize, (rows, columns)))
    ):
        # Blocks that are held, and small enough, stay compact.
        cut = cut.assign({v.COUNTS: counts})
    return cut


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


def as_planes(
    planes: Sequence[np.ndarray | Callable[[], np.ndarray]], shape: tuple[int, int]
) -> da.Array:
    """A lazy stack of maps of float32, shape (n, y, x): each a block, or a function that makes it.

    Parameters
    ----------
    planes : sequence
        Arrays of shape (y, x), or functions that return them.
    shape : tuple of int
        y, x.
    """
    name = f"planes-{uuid.uuid4().hex}"
    graph: dict[Key, Any] = {}
    for number, plane in enumerate(planes):
        key = (name, number, 0, 0)
        graph[key] = Task(key, _made, plane) if callable(plane) else plane[np.newaxis]
    chunks = ((1,) * len(planes), *((size,) for size in shape))
    return da.Array(graph, name, chunks, meta=np.empty((0, 0, 0), np.float32))


def _made(plane: Callable[[], np.ndarray]) -> np.ndarray:
    return plane()[np.newaxis]


@dataclass(frozen=True)
class _Stored:
    """A map in a file; where it is sent to another process, the map itself is."""

    file: Any
    number: int
    shape: tuple[int, int]

    def __call__(self) -> np.ndarray:
        size = 4 * math.prod(self.shape)
        content = os.pread(self.file.fileno(), size, self.number * size)
        return np.frombuffer(content, np.float32).reshape(self.shape)

    def __reduce__(self) -> Any:
        return partial, (np.asarray, self())


def set_aside(maps: np.ndarray, kept: Sequence[int]) -> np.ndarray | da.Array:
    """Leave in memory those of many maps that are kept; the others wait in a temporary file.

    The file has no name, so that nothing is left of it however the program ends. Maps of less than
    `_WORTH_A_FILE` bytes, and those that no temporary file has room for, stay as they are.

    Parameters
    ----------
    maps : array of float32, shape (n, y, x)
    kept : sequence of int
    """
    if maps.nbytes < _WORTH_A_FILE or not hasattr(os, "pread"):
        return maps
    shape = maps.shape[1:]
    try:
        file = tempfile.TemporaryFile()
        for number in set(range(len(maps))) - set(kept):
            file.seek(4 * number * math.prod(shape))
            file.write(np.ascontiguousarray(maps[number]).data)
        file.flush()
    except OSError:
        return maps
    planes: list[Any] = [_Stored(file, number, shape) for number in range(len(maps))]
    for number in kept:
        planes[number] = maps[number].copy()
    return as_planes(planes, shape)


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
    keep_heap_small()
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
    trim_memory()
    return computed


def load(ds: xr.Dataset) -> xr.Dataset:
    """Return the Dataset with all its lazy variables computed, as one graph."""
    lazy = {name: each.data for name, each in ds.variables.items() if each.chunks}
    # Blocks written one by one to where they belong need not be held beside the whole.
    several = {name: data for name, data in lazy.items() if data.npartitions > 1}
    threads = (None, dask.threaded.get, dask.local.get_sync)
    if dask.base.get_scheduler() not in threads or not several:
        with threadpool_limits(1), _damaged_netcdf():
            computed = ds.compute()
        trim_memory()
        return computed
    whole = {name: np.empty(data.shape, data.dtype) for name, data in several.items()}
    filled = [_filled(data, whole[name]) for name, data in several.items()]
    _, rest = compute(filled, {name: lazy[name] for name in lazy if name not in several})
    return ds.assign({name: ds[name].copy(data=data) for name, data in {**whole, **rest}.items()})


def _filled(data: da.Array, target: np.ndarray) -> da.Array:
    """Write the blocks of `data` into `target`; lazy."""

    def put(block: np.ndarray, block_info: dict[int, Any]) -> np.ndarray:
        target[tuple(slice(*ends) for ends in block_info[0]["array-location"])] = block
        return np.empty((0,) * target.ndim)

    name = f"filled-{uuid.uuid4().hex}"
    return da.map_blocks(put, data, name=name, dtype=float, meta=np.empty((0,) * target.ndim))


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


def keep_heap_small() -> None:
    """Make glibc map each array of more than `_LARGE_ARRAY` bytes separately.

    By default glibc raises this limit to 32 MB as arrays are freed. Smaller arrays then leave holes
    in its heap, which count as memory of the program. A limit below 6 MB would cost time.
    """
    if sys.platform == "linux":
        option = getattr(ctypes.CDLL(None), "mallopt", None)
        if option is not None:
            option(_MMAP_THRESHOLD, _LARGE_ARRAY)


def trim_memory() -> None:
    """Give memory that is free back to the system, which glibc does not do by itself.

    Score maps exist twice for a moment, as blocks and whole: kept, the blocks would count as ours
    for the rest of the run. Dask's documentation advises the same for its workers.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
