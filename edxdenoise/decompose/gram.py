"""Matrix products over blocks of pixels, in one pass and in the memory of a few blocks.

With D the weighted data (pixel x channel), a block contributes its own D'D (the Gram matrix), D P'
(scores) or D'D Q to a sum. D is never formed: the pixel weight divides the rows of a block and the
channel weight, common to all rows, is applied to the small result.
"""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
from dask.delayed import Delayed
from scipy import sparse

# Below this share of non-zero counts the sparse products win; measured on uint8 blocks of 4096
# pixels x 2048 channels: the Gram matrix of 1 % is 4 times faster than the dense one (conversion
# included), that of 5 % no faster.
_SPARSE_DENSITY = 0.03
# Up to this many products a Gram matrix is multiplied in 64 bits, for a quarter of a second more;
# beyond, a block is multiplied in 32 bits, twice as fast, and only summed with others in 64.
_SMALL = 2e10


def weighted_rows(
    counts: np.ndarray, weight_pixel: np.ndarray, dtype: type = np.float32
) -> np.ndarray | sparse.csr_array:
    """Rows X / g of a block: dense, or sparse float64 where nearly all counts are 0."""
    flat = counts.reshape(-1, counts.shape[-1])
    weight = weight_pixel.reshape(-1)
    filled = np.count_nonzero(flat)
    if filled >= _SPARSE_DENSITY * flat.size:
        inverse = np.reciprocal(weight, dtype=dtype)[:, np.newaxis]
        return np.multiply(flat, inverse, dtype=dtype, casting="unsafe")
    # As csr_array(flat) would, in a third of its time.
    where = np.flatnonzero(flat)
    pixel, channel = np.divmod(where, flat.shape[1])
    data = flat.reshape(-1)[where] / weight[pixel]
    starts = np.searchsorted(pixel, np.arange(len(flat) + 1))
    return sparse.csr_array((data, channel, starts), shape=flat.shape)


def gram_block(
    counts: np.ndarray, weight_pixel: np.ndarray, product: type = np.float32
) -> np.ndarray:
    """(X/g)'(X/g) of one block, shape (1, 1, channel, channel), to be summed over blocks."""
    rows = weighted_rows(counts, weight_pixel, product)
    matrix = rows.T @ rows
    if sparse.issparse(matrix):
        matrix = matrix.toarray()
    return matrix.astype(np.float64, copy=False)[np.newaxis, np.newaxis]


def project_block(counts: np.ndarray, weight_pixel: np.ndarray, loadings: np.ndarray) -> np.ndarray:
    """Scores (X/g) L' of one block, shape (component, y, x), for loadings L over h."""
    rows = weighted_rows(counts, weight_pixel)
    if sparse.issparse(rows):
        scores = np.ascontiguousarray((rows @ loadings.T).T, dtype=np.float32)
    else:
        scores = loadings.astype(np.float32) @ rows.T
    return scores.reshape(-1, *counts.shape[:2])


def gram_apply_block(
    counts: np.ndarray, weight_pixel: np.ndarray, vectors: np.ndarray
) -> np.ndarray:
    """(X/g)'(X/g) V of one block, shape (1, 1, channel, n), without the Gram matrix itself."""
    rows = weighted_rows(counts, weight_pixel)
    product = rows.T @ (rows @ vectors.astype(rows.dtype))
    return product.astype(np.float64)[np.newaxis, np.newaxis]


def delayed_blocks(array: da.Array) -> list[Delayed]:
    """The blocks of an array for use in delayed functions.

    An array handed to a delayed function as it is would be optimised on its own, under new keys,
    and everything before it computed once more for each function.
    """
    return list(array.to_delayed(optimize_graph=False).ravel())


def as_delayed(array: da.Array) -> Delayed:
    """An array of a single block for use in delayed functions; see `delayed_blocks`."""
    return delayed_blocks(array.rechunk(-1))[0]


def sum_blocks(partial: da.Array) -> da.Array:
    """Sum over the first two axes, pair by pair as a tree.

    Dask's own ``sum`` joins several blocks before it adds them: with Gram matrices of 2048 channels
    that costs more than the products of sparse counts.
    """
    sums = delayed_blocks(partial)
    while len(sums) > 1:
        pairs = [sums[i : i + 2] for i in range(0, len(sums), 2)]
        sums = [dask.delayed(np.add)(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return da.from_delayed(sums[0], (1, 1, *partial.shape[2:]), np.float64)[0, 0]


def gram(counts: da.Array, weight_pixel: da.Array) -> da.Array:
    """Gram matrix of the rows X/g, shape (channel, channel), float64; lazy."""
    channels = counts.shape[2]
    small = counts.shape[0] * counts.shape[1] * channels**2 <= _SMALL
    return sum_blocks(
        da.blockwise(
            gram_block,
            "yxij",
            counts,
            "yxe",
            weight_pixel,
            "yx",
            new_axes={"i": channels, "j": channels},
            adjust_chunks={"y": 1, "x": 1},
            concatenate=True,
            dtype=np.float64,
            product=np.float64 if small else np.float32,
        )
    )


def gram_apply(counts: da.Array, weight_pixel: da.Array, vectors: da.Array) -> da.Array:
    """Product of the Gram matrix with `vectors` (channel, n) in one pass; lazy."""
    return sum_blocks(
        da.blockwise(
            gram_apply_block,
            "yxin",
            counts,
            "yxe",
            weight_pixel,
            "yx",
            vectors,
            "en",
            new_axes={"i": counts.shape[2]},
            adjust_chunks={"y": 1, "x": 1},
            concatenate=True,
            dtype=np.float64,
        )
    )


def project(counts: da.Array, weight_pixel: da.Array, loadings: da.Array) -> da.Array:
    """Scores of all pixels on `loadings` (component, channel) over h; (component, y, x), lazy."""
    return da.blockwise(
        project_block,
        "kyx",
        counts,
        "yxe",
        weight_pixel,
        "yx",
        loadings,
        "ke",
        concatenate=True,
        dtype=np.float32,
    )


def cross_block(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """T T' of one block of score maps, shape (1, 1, component, component), in 64 bits."""
    rows = scores.reshape(len(scores), -1).astype(np.float64)
    return (rows @ rows.T)[np.newaxis, np.newaxis]


def cross(scores: da.Array) -> da.Array:
    """T T' of score maps (component, y, x): their products summed over pixels; lazy."""
    return sum_blocks(
        da.blockwise(
            cross_block,
            "yxij",
            scores,
            "iyx",
            scores,
            "jyx",
            adjust_chunks={"y": 1, "x": 1},
            dtype=np.float64,
        )
    )
