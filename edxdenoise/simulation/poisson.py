"""Expected and Poisson counts of blocks of pixels, the same however the map is cut into blocks."""

from __future__ import annotations

import dask.array as da
import numpy as np

from edxdenoise.cube import smallest_count_dtype

# Pixels along x that share one generator and one matrix product. Blocks are cut at its multiples
# only, so that neither the draws nor the rounding of the products depend on them.
SEGMENT = 32


def expected_counts(phase_map: da.Array, spectra: np.ndarray) -> da.Array:
    """Sum over phases of map times spectrum, lazily.

    Parameters
    ----------
    phase_map : dask array, shape (phase, y, x)
        In one chunk along phase; chunks along x start at multiples of `SEGMENT`.
    spectra : array, shape (phase, energy)

    Returns
    -------
    dask array of float32, shape (y, x, energy)
    """
    return da.map_blocks(
        _expected_block,
        phase_map,
        spectra=spectra,
        dtype=np.float32,
        drop_axis=0,
        new_axis=2,
        chunks=(*phase_map.chunks[1:], (spectra.shape[1],)),
        meta=np.empty((0, 0, 0), np.float32),
    )


def poisson_counts(expected: da.Array, dtype: np.dtype, *, seed: int, stream: int) -> da.Array:
    """Draw Poisson counts, lazily; each row has its own generators.

    Parameters
    ----------
    expected : dask array, shape (y, x, energy)
        Chunks along x start at multiples of `SEGMENT`.
    dtype : numpy.dtype
        Of the counts.
    seed, stream : int
        What the generators grow from.

    Returns
    -------
    dask array of `dtype`, shape (y, x, energy)
    """
    return da.map_blocks(
        _poisson_block,
        expected,
        seed=seed,
        stream=stream,
        out=dtype,
        dtype=dtype,
        meta=np.empty((0, 0, 0), dtype),
    )


def count_dtype(phase_map: np.ndarray, spectra: np.ndarray) -> np.dtype:
    """Smallest unsigned type that holds Poisson counts of any channel of any pixel.

    The largest expectation is bounded, not computed: the cube need not exist. Ten standard
    deviations and a margin for small expectations are never reached.
    """
    largest = float(np.tensordot(spectra.max(axis=1), phase_map, axes=1).max())
    return smallest_count_dtype(int(np.ceil(largest + 10 * np.sqrt(largest) + 25)))


def _segments(columns: int) -> list[slice]:
    return [slice(start, min(start + SEGMENT, columns)) for start in range(0, columns, SEGMENT)]


def _expected_block(phase_map: np.ndarray, *, spectra: np.ndarray) -> np.ndarray:
    _, rows, columns = phase_map.shape
    expected = np.empty((rows, columns, spectra.shape[1]), np.float32)
    pixels = np.ascontiguousarray(np.moveaxis(phase_map, 0, -1))
    for row in range(rows):
        for part in _segments(columns):
            np.matmul(pixels[row, part], spectra, out=expected[row, part])
    return expected


def _poisson_block(
    expected: np.ndarray, *, seed: int, stream: int, out: np.dtype, block_info: dict
) -> np.ndarray:
    (top, _), (left, _), _ = block_info[0]["array-location"]
    rows, columns, _ = expected.shape
    counts = np.empty(expected.shape, out)
    for row in range(rows):
        for part in _segments(columns):
            key = [seed, stream, top + row, left + part.start]
            generator = np.random.default_rng(np.random.SeedSequence(key))
            counts[row, part] = generator.poisson(expected[row, part])
    return counts
