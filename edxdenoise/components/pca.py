"""Principal component analysis of the weighted counts, by any of four solvers.

All give the leading right singular vectors of the weighted data D (uncentred, as HyperSpy's
``decomposition`` after ``normalize_poissonian_noise``), and all then share one projection pass for
the score maps. They differ in how they reach the vectors:

covariance
    Eigenvectors of the Gram matrix D'D, summed over blocks in one pass. Exact.
randomized
    Subspace iteration (N. Halko, P. G. Martinsson, J. A. Tropp, SIAM Rev. 53 (2011) 217, algorithm
    4.4) with one pass per iteration and without the Gram matrix. Exact for components that stand
    out, 1 % or so for those within the noise.
full
    Singular value decomposition of D in float64 by a tall-skinny QR. Exact to rounding, slow.
incremental
    dask-ml's IncrementalPCA over batches of pixels: for more channels than a Gram matrix can
    have, and for data that arrive in pieces. Exact for strong components only.

Matrix products take one pass over the blocks of pixels and the memory of a few blocks. A block
contributes its own D'D (the Gram matrix), D P' (scores) or D'D Q to a sum. D is never formed: the
pixel weight divides the rows of a block and the channel weight, common to all rows, is applied to
the small result."""

from __future__ import annotations

import warnings

import dask
import dask.array as da
import numpy as np
import scipy.linalg
import xarray as xr
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import ArpackNoConvergence, eigsh
from threadpoolctl import threadpool_limits

from edxdenoise import schema as v
from edxdenoise.blocks import (
    Block,
    SparseBlock,
    again,
    as_delayed,
    channel_totals,
    chunk,
    compact,
    compact_blocks,
    compact_of,
    compute,
    counts_of,
    known_sparse,
    load,
    per_block,
    sum_blocks,
)
from edxdenoise.config import SOLVERS
from edxdenoise.cube import add_history, check_cube, is_lazy, is_poisson_weighted, stack_pixels
from edxdenoise.errors import ParameterError

# Share of the total variance at and below which there is nothing but rounding: noise of N counts on
# p pixels has at least p / N per component.
NO_VARIANCE = 1e-12
DEFAULT_COMPONENTS = 100

# A Gram matrix of 8192 channels has half a gigabyte in float64.
_COVARIANCE_CHANNELS = 8192
# With this many times fewer pixels than channels the data are smaller than their Gram matrix.
_FEW_PIXELS = 4
# Channels from which on Lanczos iterations are tried, and as many times the eigenvectors asked for.
_LEAST_LANCZOS, _LANCZOS_SHARE = 1000, 6
# Halko et al.: a few more vectors than asked for, and enough iterations to separate components
# whose variances differ by parts of a hundred. dask-ml's default of none is wrong by up to 36 %.
_OVERSAMPLING = 20
_ITERATIONS = 8


def pca(
    ds: xr.Dataset,
    *,
    components: int | None = None,
    solver: str = "auto",
    maps: bool = True,
    seed: int = 0,
) -> xr.Dataset:
    """Decompose the weighted counts into principal components.

    Parameters
    ----------
    ds : Dataset
        With ``counts``, ``weight_pixel`` and ``weight_energy`` (see `edxdenoise.weight`).
    components : int, optional
        How many; 100 by default, or as many as there are where there are fewer.
    solver : {"auto", "covariance", "incremental", "randomized", "full"}
        ``auto`` is covariance up to 8192 channels and incremental beyond, but full where there
        are far fewer pixels than channels.
    maps : bool
        False leaves out ``component_map``, for `neighbours`, which makes its own: spectra have any
        sign, and the covariance solver reads the counts once instead of twice.
    seed : int
        For the randomized solver.

    Returns
    -------
    Dataset
        With ``component_map`` (component, y, x) and ``component_spectrum`` (component, energy),
        whose product is the weighted data; ``component_variance``, the squared singular value
        per pixel as HyperSpy has it; ``component_variance_ratio``, against the TOTAL variance;
        ``mean_spectrum``, 0 since nothing is centred. The entry of each map with the largest
        magnitude is positive. Lazy in, lazy out, except that the incremental solver reads the
        counts at once.

    Raises
    ------
    ParameterError
        If there are fewer pixels or channels than components, or the solver is unknown.
    """
    v.validate(ds, v.COUNTS, v.WEIGHT_PIXEL, v.WEIGHT_ENERGY)
    check_cube(ds)
    shape = ds[v.COUNTS].shape
    components = check_components(components, shape)
    solver = _check_solver(solver, shape)
    lazy = is_lazy(ds)
    counts, g, h = weighted_blocks(ds)
    product = None
    if solver == "covariance":
        basis, total, product = _covariance(counts, g, h, components)
    elif solver == "randomized":
        basis, total = _randomized(counts, g, h, components, seed)
    elif solver == "full":
        basis, total = _full(counts, g, h, components)
    else:
        basis, total = _incremental(counts, g, h, components)

    total_first = is_poisson_weighted(ds)
    if total_first:
        parts = dask.delayed(with_total)(as_delayed(basis), as_delayed(channel_counts(ds)))
        basis = da.from_delayed(parts, basis.shape, np.float64)
    scaled, scores = basis / h, None
    if maps or product is None:
        (counts,) = again([counts], [scaled, g])
        scores = project(counts, g, scaled)
        products = cross(scores)
    else:
        products = scaled @ product @ scaled.T
    variance, rotation = _ritz(products, components, total_first, pixels=shape[0] * shape[1])
    loadings = rotation @ basis
    result = ds.assign_coords({v.DIM_COMPONENT: (v.DIM_COMPONENT, np.arange(1, components + 1))})
    if maps:
        rotated = da.tensordot(rotation.astype(np.float32), scores, axes=1)
        signs = map_signs(rotated)
        loadings = loadings * signs[:, np.newaxis]
        rotated = rotated * signs[:, np.newaxis, np.newaxis]
        result = result.assign({v.COMPONENT_MAP: v.COMPONENT_MAP.array(rotated)})
    result = result.assign(
        {
            v.COMPONENT_SPECTRUM: v.COMPONENT_SPECTRUM.array(loadings),
            v.COMPONENT_VARIANCE: v.COMPONENT_VARIANCE.array(variance),
            v.COMPONENT_VARIANCE_RATIO: v.COMPONENT_VARIANCE_RATIO.array(variance / total),
            v.MEAN_SPECTRUM: v.MEAN_SPECTRUM.array(np.zeros(shape[2])),
        }
    )
    result = add_history(result, f"pca components={components} solver={solver}")
    return result if lazy else load(result)


def within_rank(ds: xr.Dataset) -> xr.Dataset:
    """Drop the components without variance: the weighted counts have no more than their rank.

    Parameters
    ----------
    ds : Dataset
        With computed principal components.
    """
    has = ds[v.COMPONENT_VARIANCE_RATIO].values > NO_VARIANCE
    has[0] = True
    if has.all():
        return ds
    ds = ds.isel({v.DIM_COMPONENT: np.flatnonzero(has)})
    ds = ds.assign_coords({v.DIM_COMPONENT: (v.DIM_COMPONENT, np.arange(1, has.sum() + 1))})
    return add_history(ds, f"within_rank components={has.sum()}")


def principal_loadings(ds: xr.Dataset, components: int) -> da.Array:
    """Loadings alone, shape (component, energy), of either sign and without a projection; lazy."""
    counts, g, h = weighted_blocks(ds)
    if _check_solver("auto", counts.shape) == "full":
        return _full(counts, g, h, components)[0]
    return _covariance(counts, g, h, components)[0]


def weighted_blocks(ds: xr.Dataset) -> tuple[da.Array, da.Array, da.Array]:
    """Counts, g and h as Dask arrays in the same blocks of pixels with whole spectra."""
    if is_lazy(ds):
        counts = ds[v.COUNTS].data
        counts = counts_of(compact_of(counts), counts.shape[2])
    else:
        filled = int(np.count_nonzero(ds[v.COUNTS].values))
        counts = known_sparse(chunk(ds)[v.COUNTS].data, filled)
    g = da.asarray(ds[v.WEIGHT_PIXEL].data).rechunk(counts.chunks[:2])
    h = da.asarray(ds[v.WEIGHT_ENERGY].data).rechunk(-1)
    return counts, g, h


def check_components(components: int | None, shape: tuple[int, ...]) -> int:
    """Number of components to compute for a cube of this shape.

    Examples
    --------
    >>> check_components(None, (4, 3, 1024))
    12
    """
    largest = min(shape[0] * shape[1], shape[2])
    if components is None:
        return min(DEFAULT_COMPONENTS, largest)
    if not 1 <= components <= largest:
        raise ParameterError(
            f"components {components} must be from 1 to {largest}, the lesser of "
            f"{shape[0] * shape[1]} pixels and {shape[2]} channels"
        )
    return components


def _check_solver(solver: str, shape: tuple[int, ...]) -> str:
    if solver not in SOLVERS:
        raise ParameterError(f"solver '{solver}' must be one of {', '.join(SOLVERS)}")
    if solver != "auto":
        return solver
    pixels, channels = shape[0] * shape[1], shape[2]
    if _FEW_PIXELS * pixels < channels:
        return "full"
    return "covariance" if channels <= _COVARIANCE_CHANNELS else "incremental"


def map_signs(scores: da.Array) -> da.Array:
    """+1 where the entry of a map with the largest magnitude is positive, else -1."""
    return da.where(scores.max(axis=(1, 2)) >= -scores.min(axis=(1, 2)), 1, -1).astype(np.int8)


def channel_counts(ds: xr.Dataset) -> da.Array:
    """Counts of every channel, shape (energy,); lazy."""
    if v.SUM_SPECTRUM in ds:
        sums = ds[v.SUM_SPECTRUM].data
    else:
        sums = channel_totals(ds[v.COUNTS].data, np.float64)
    return da.asarray(sums).rechunk(-1)


def with_total(basis: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Put the total before a basis of Poisson-weighted data, as many rows as before.

    The first singular vector of such data is known: the roots of the channels' counts, with the
    singular value 1. Where counts are few it is not the only one: a pixel of one count in a channel
    of one count is another, and a solver returns any mixture of them.

    Parameters
    ----------
    basis : array, shape (component, energy)
        Orthonormal rows.
    sums : array, shape (energy,)
        Counts of the channels.

    Returns
    -------
    array, shape (component, energy)
        The total, then what is orthogonal to it within the span of the basis.
    """
    first = np.sqrt(sums.astype(np.float64) / sums.sum(dtype=np.float64))
    inside = scipy.linalg.null_space((basis @ first)[np.newaxis]).T
    return np.concatenate([first[np.newaxis], (inside @ basis)[: len(basis) - 1]])


def _ritz(
    products: da.Array, components: int, total_first: bool, *, pixels: int
) -> tuple[da.Array, da.Array]:
    """Variances of the best `components` directions within a basis, and the rotation to them.

    Scores T of the data on a basis hold all there is to know within its span (Rayleigh and Ritz):
    the eigenvectors of T T', a small matrix summed in 64 bits, turn the basis into principal
    components. A basis from sums in 32 bits, exact to parts in 10^5 among the noise, so gives
    singular values exact to parts in 10^6, and one that is only near the right span the best
    components within it. The total, where it comes first, stays as it is: it is a principal
    component already.
    """
    parts = dask.delayed(_rotation, nout=2)(as_delayed(products), components, total_first)
    singular = da.from_delayed(parts[0], (components,), np.float64)
    rotation = da.from_delayed(parts[1], (components, len(products)), np.float64)
    return singular**2 / pixels, rotation


def _rotation(
    product: np.ndarray, components: int, total_first: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Singular values and rotation from T T'."""
    if not total_first:
        return leading_eigenvectors(product, components)
    singular, others = leading_eigenvectors(product[1:, 1:], components - 1)
    rotation = scipy.linalg.block_diag(1.0, others)[:components, : len(product)]
    return np.concatenate([[np.sqrt(product[0, 0])], singular]), rotation


def _covariance(
    counts: da.Array, g: da.Array, h: da.Array, components: int
) -> tuple[da.Array, da.Array, da.Array]:
    pixels, channels = counts.shape[0] * counts.shape[1], counts.shape[2]
    product = gram(counts, g)
    vectors = dask.delayed(leading_eigenvectors, nout=2)(
        as_delayed(product), components, as_delayed(h)
    )[1]
    basis = da.from_delayed(vectors, (components, channels), np.float64)
    return basis, (da.diag(product) / h**2).sum() / pixels, product


def leading_eigenvectors(
    gram_matrix: np.ndarray, components: int, h: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Singular values of D and its right singular vectors (rows), largest first.

    Empty channels, of which low doses leave many, stand for themselves with singular value 0.

    Parameters
    ----------
    gram_matrix : array, shape (channel, channel)
        D'D, times h h' where there are channel weights.
    components : int
    h : array, shape (channel,), optional
    """
    filled, empty = (
        np.flatnonzero(side) for side in (np.diag(gram_matrix) > 0, np.diag(gram_matrix) <= 0)
    )
    count = min(components, filled.size)
    singular, vectors = np.zeros(components), np.zeros((components, len(gram_matrix)))
    if count:
        inverse = np.ones(filled.size) if h is None else 1 / h[filled]
        values, rows = _leading(gram_matrix, filled, inverse, count)
        singular[:count] = np.sqrt(np.maximum(values, 0))
        vectors[:count, filled] = rows
    vectors[np.arange(count, components), empty[: components - count]] = 1
    return singular, vectors


def _leading(
    gram_matrix: np.ndarray, filled: np.ndarray, inverse: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Largest eigenvalues, falling, of the filled rows and columns times `inverse` on both sides.

    Where few channels share pixels, Lanczos iterations are many times faster than LAPACK.
    """
    size = filled.size
    if size >= _LEAST_LANCZOS and np.count_nonzero(gram_matrix) < _SPARSE_PRODUCT * size**2:
        scale = sparse.diags_array(inverse)
        matrix = scale @ sparse.csr_array(gram_matrix)[filled][:, filled] @ scale
        try:
            return _by_lanczos(matrix, count)
        except ArpackNoConvergence:
            pass
    matrix = gram_matrix[np.ix_(filled, filled)]
    matrix *= inverse[:, np.newaxis]
    matrix *= inverse
    values, columns = scipy.linalg.eigh(
        # In the order of LAPACK, which works in the one copy there is.
        matrix.T,
        subset_by_index=(size - count, size - 1),
        overwrite_a=True,
    )
    return values[::-1], columns.T[::-1]


def _by_lanczos(matrix: sparse.csr_array, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Largest eigenvalues of a sparse matrix, falling, and their eigenvectors (rows).

    Channels that no pixel joins are apart. Iterations find an eigenvalue once, and parts of a few
    channels, of which there may be many alike, share theirs: each part is looked at by itself.
    """
    number, label = connected_components(matrix, directed=False)
    ends = np.cumsum(np.bincount(label, minlength=number))
    found = []
    for members in np.split(np.argsort(label, kind="stable"), ends[:-1]):
        size, part = members.size, matrix[members][:, members]
        if size >= _LANCZOS_SHARE * count:
            start = np.ones(size) / np.sqrt(size)
            values, columns = eigsh(part, k=count, which="LA", v0=start, ncv=3 * count)
        else:
            values, columns = scipy.linalg.eigh(part.toarray())
        found += [(value, members, column) for value, column in zip(values, columns.T)]
    best = sorted(found, key=lambda each: -each[0])[:count]
    rows = np.zeros((count, matrix.shape[0]))
    for row, (_, members, column) in zip(rows, best):
        row[members] = column
    return np.array([value for value, *_ in best]), rows


def _randomized(
    counts: da.Array, g: da.Array, h: da.Array, components: int, seed: int
) -> tuple[da.Array, da.Array]:
    pixels, channels = counts.shape[0] * counts.shape[1], counts.shape[2]
    width = min(components + _OVERSAMPLING, channels)
    start = np.random.default_rng(seed).standard_normal((channels, width))
    basis = da.from_array(np.linalg.qr(start)[0])
    for _ in range(_ITERATIONS):
        scaled = basis / h[:, np.newaxis]
        (reread,) = again([counts], [scaled, g])
        product = gram_apply(reread, g, scaled) / h[:, np.newaxis]
        basis = da.from_delayed(
            dask.delayed(_orthonormal)(as_delayed(product)), (channels, width), np.float64
        )
    # In the last pass: in the first, the scheduler may put it off and hold all blocks until then.
    squares = (reread / g[:, :, np.newaxis]) ** 2
    return basis.T, (squares.sum(axis=(0, 1)) / h**2).sum() / pixels


def _orthonormal(matrix: np.ndarray) -> np.ndarray:
    return np.linalg.qr(matrix)[0]


def _full(counts: da.Array, g: da.Array, h: da.Array, components: int) -> tuple[da.Array, da.Array]:
    pixels, channels = counts.shape[0] * counts.shape[1], counts.shape[2]
    # Read again once h is known, so that no block waits for it.
    (counts,) = again([counts], [g, h])
    matrix = da.asarray(stack_pixels(counts / g[:, :, np.newaxis] / h))
    if pixels < channels:
        matrix = matrix.rechunk(-1)
    _, singular, vectors = da.linalg.svd(matrix)
    return vectors[:components], (singular**2).sum() / pixels


def _incremental(
    counts: da.Array, g: da.Array, h: da.Array, components: int
) -> tuple[da.Array, da.Array]:
    from dask_ml.decomposition import IncrementalPCA

    pixels, channels = counts.shape[0] * counts.shape[1], counts.shape[2]
    # Lazy weights would be computed again, from all counts, for every batch.
    g, h = dask.persist(g, h)
    matrix = da.asarray(stack_pixels(counts / g[:, :, np.newaxis] / h))
    (total,) = compute((matrix**2).sum() / pixels)
    # dask-ml merges a last batch of fewer rows than components into the one before. Its accuracy
    # rests on the rows per channel, of which its default is 5.
    batch = min(max(10 * channels, components), pixels)
    # The default solver is randomized without power iterations and wrong by up to 36 %.
    estimator = IncrementalPCA(components, svd_solver="full", batch_size=batch)
    with (
        threadpool_limits(1),
        warnings.catch_warnings(),
        np.errstate(divide="ignore", invalid="ignore"),
    ):
        # dask-ml divides by the zero pixels seen before the first batch; nothing comes of it.
        warnings.simplefilter("ignore", RuntimeWarning)
        estimator.fit(matrix.rechunk((batch, -1)))
    # dask-ml centres: D'D of the data as they are has the mean as one more row.
    centred = estimator.singular_values_[:, np.newaxis] * estimator.components_
    rows = np.vstack([centred, np.sqrt(pixels) * estimator.mean_])
    vectors = np.linalg.svd(rows, full_matrices=False)[2]
    return da.from_array(vectors[:components]), total


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
