"""Shapes of stored chunks, such that Dask blocks can be written at the same time."""

from __future__ import annotations

import math

import xarray as xr

# Numbers per stored chunk. Fewer make many small files, more make a viewer that wants one spectrum
# wait; a float32 chunk has 1 MB to 67 MB.
_SMALLEST_CHUNK = 1 << 18
_LARGEST_CHUNK = 1 << 24


def align(ds: xr.Dataset) -> xr.Dataset:
    """Give every lazy variable blocks of one shape, and join blocks too small to be files."""
    return ds.assign(
        {
            name: array.chunk(dict(zip(array.dims, _even_blocks(array))))
            for name, array in ds.variables.items()
            if array.chunks
        }
    )


def _even_blocks(array: xr.Variable) -> tuple[int, ...]:
    assert array.chunks is not None
    blocks = [max(1, *sizes) for sizes in array.chunks]
    for axis in reversed(range(array.ndim)):
        wanted = _SMALLEST_CHUNK // math.prod(blocks)
        if wanted > 1:
            blocks[axis] = min(array.shape[axis], blocks[axis] * wanted)
    return tuple(blocks)


def storage_chunks(array: xr.Variable | xr.DataArray) -> tuple[int, ...]:
    """Shape of the stored chunks: Dask blocks, cut into equal parts where they are too large.

    No stored chunk lies in two Dask blocks, so that blocks can be written at the same time.
    """
    blocks = [max(sizes) for sizes in array.chunks] if array.chunks else array.shape
    chunks = [max(1, block) for block in blocks]
    for axis, (block, length) in enumerate(zip(blocks, array.shape)):
        parts = min(block, math.ceil(math.prod(chunks) / _LARGEST_CHUNK))
        if parts <= 1:
            continue
        if block < length:
            parts = next(n for n in range(parts, block + 1) if block % n == 0)
        chunks[axis] = math.ceil(block / parts)
    return tuple(chunks)
