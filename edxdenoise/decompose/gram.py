"""Matrix products over blocks of pixels, in one pass and in the memory of a few blocks.

With D the weighted data (pixel x channel), a block contributes its own D'D (the Gram matrix), D P'
(scores) or D'D Q to a sum. D is never formed: the pixel weight divides the rows of a block and the
channel weight, common to all rows, is applied to the small result.
"""

from __future__ import annotations

import dask.array as da
import numpy as np
from scipy import sparse

from edxdenoise.blocks import (
    Block,
    SparseBlock,
    compact,
    compact_blocks,
    per_block,
    sum_blocks,
)

# A Gram matrix of which fewer cells than this share are filled is summed as a sparse one.
_SPARSE_PRODUCT = 0.05
# Up to this many products a Gram matrix is multiplied in 64 bits, for a quarter of a second more;
# beyond, a block is multiplied in 32 bits, twice as fast, and only summed with others in 64.
_SMALL = 2e10


def weighted_rows(
    counts: Block, weight_pixel: np.ndarray, dtype: type = np.float32
) -> np.ndarray | sparse.csr_array:
    """Rows X / g of a block: dense, or sparse float64 where nearly all counts are 0."""
    counts = compact(counts)
    weight = weight_pixel.reshape(-1)
    if isinstance(counts, SparseBlock):
        rows = counts.rows
        data = rows.data / np.repeat(weight, np.diff(rows.indptr))
        return sparse.csr_array((data, rows.indices, rows.indptr), shape=rows.shape)
    inverse = np.reciprocal(weight, dtype=dtype)[:, np.newaxis]
    flat = counts.reshape(len(weight), -1)
    return np.multiply(flat, inverse, dtype=dtype, casting="unsafe")


def gram_block(
    counts: Block, weight_pixel: np.ndarray, product: type = np.float32
) -> np.ndarray | sparse.csr_array:
    """(X/g)'(X/g) of one block, shape (channel, channel), to be summed over blocks.

    Sparse where few pairs of channels meet in a pixel.
    """
    rows = weighted_rows(counts, weight_pixel, product)
    if not sparse.issparse(rows):
        return (rows.T @ rows).astype(np.float64, copy=False)
    matrix = rows.T @ rows
    few = matrix.nnz < _SPARSE_PRODUCT * matrix.shape[0] * matrix.shape[1]
    return matrix if few else matrix.toarray()


def project_block(counts: Block, weight_pixel: np.ndarray, loadings: np.ndarray) -> np.ndarray:
    """Scores (X/g) L' of one block, shape (component, y, x), for loadings L over h."""
    rows = weighted_rows(counts, weight_pixel)
    if sparse.issparse(rows):
        scores = np.ascontiguousarray((rows @ loadings.T).T, dtype=np.float32)
    else:
        scores = loadings.astype(np.float32) @ rows.T
    return scores.reshape(-1, *counts.shape[:2])


def gram_apply_block(counts: Block, weight_pixel: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """(X/g)'(X/g) V of one block, shape (channel, n), without the Gram matrix itself."""
    rows = weighted_rows(counts, weight_pixel)
    product = rows.T @ (rows @ vectors.astype(rows.dtype))
    return product.astype(np.float64)


def gram(counts: da.Array, weight_pixel: da.Array) -> da.Array:
    """Gram matrix of the rows X/g, shape (channel, channel), float64; lazy."""
    channels = counts.shape[2]
    small = counts.shape[0] * counts.shape[1] * channels**2 <= _SMALL
    product = np.float64 if small else np.float32
    terms = per_block(gram_block, counts, weight_pixel, "yx", product=product)
    return sum_blocks(terms, (channels, channels))


def gram_apply(counts: da.Array, weight_pixel: da.Array, vectors: da.Array) -> da.Array:
    """Product of the Gram matrix with `vectors` (channel, n) in one pass; lazy."""
    terms = per_block(gram_apply_block, counts, weight_pixel, "yx", vectors, "en")
    return sum_blocks(terms, vectors.shape)


def project(counts: da.Array, weight_pixel: da.Array, loadings: da.Array) -> da.Array:
    """Scores of all pixels on `loadings` (component, channel) over h; (component, y, x), lazy."""
    return da.blockwise(
        project_block,
        "kyx",
        compact_blocks(counts),
        "yx",
        weight_pixel,
        "yx",
        loadings,
        "ke",
        concatenate=True,
        align_arrays=False,
        dtype=np.float32,
        meta=np.empty((0, 0, 0), np.float32),
    )


def cross_block(scores: np.ndarray) -> np.ndarray:
    """T T' of one block of score maps, shape (component, component), in 64 bits."""
    rows = scores.reshape(len(scores), -1).astype(np.float64)
    return rows @ rows.T


def cross(scores: da.Array) -> da.Array:
    """T T' of score maps (component, y, x): their products summed over pixels; lazy."""
    terms = da.blockwise(cross_block, "yx", scores, "kyx", concatenate=True, meta=np.empty((0, 0)))
    return sum_blocks(terms, (len(scores), len(scores)))
