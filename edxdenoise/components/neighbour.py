"""Components found by their neighbours: what is alike in pixels that lie side by side.

PCA takes pixels as strangers, so that noise of high variance outranks weak signal. With D the
weighted data (pixel x channel) and K_s a Gaussian of s pixels over the map without its centre,

    G = sum_s D' K_s D / |K_s|,    |K_s| the root of the sum of its squared weights,

is a covariance between neighbours. No pixel meets itself in it, so that shot noise, even or uneven,
is 0 on average, and signal that reaches over a few pixels stays (maximum autocorrelation factors:
P. Switzer and A. A. Green, Stanford Tech. Rep. 6 (1984); minimum noise fraction: A. A. Green et
al., IEEE Trans. Geosci. Remote Sens. 26 (1988) 65). Its eigenvectors are orthonormal in the
weighted space, as PCA's loadings are. Kernels end at the border of a stacked map.

How many are signal is told by the same sum with the sign of every pixel flipped at random: what
remains of it beside the components found is noise, whatever its kind, and an eigenvalue must exceed
the largest of that by a tenth.

Noise in hundreds of channels has large eigenvalues, that in a few directions small ones. So the
largest peaks of the mean spectrum are looked at once more beside what was found, alone
(`among_lines`): at few counts whole lines would else be missed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import dask
import dask.array as da
import numpy as np
import scipy.linalg
import xarray as xr
from scipy import sparse
from scipy.ndimage import convolve1d, gaussian_filter
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from edxdenoise import schema as v
from edxdenoise.blocks import (
    Block,
    again,
    as_delayed,
    compact_blocks,
    compact_of,
    delayed_blocks,
    load,
    sparse_block,
    sum_blocks,
    sum_terms,
    whole_rows,
)
from edxdenoise.components.pca import channel_counts, map_signs, project, weighted_blocks
from edxdenoise.components.smoothing import softmax
from edxdenoise.config import SUBSPACES
from edxdenoise.cube import add_history, channel_width, detector_resolution, is_lazy
from edxdenoise.errors import ParameterError
from edxdenoise.resources import NEIGHBOUR_SUMS, TILE_VALUES, default_workers
from edxdenoise.xray import channel_response, find_peaks, fwhm

_SCALES = (1.0, 4.0)  # pixels
_TRUNCATE = 3.0
REACH = int(_TRUNCATE * max(_SCALES) + 0.5)
# By how much an eigenvalue must exceed the null: a tenth, or 4 standard deviations of the
# difference of two largest eigenvalues of noise. Those measured on 64 x 64 to 200 x 200 pixels and
# 120 or 200 channels follow the law of C. A. Tracy and H. Widom (Commun. Math. Phys. 159 (1994)
# 151): one has 1.1 channels^(-2/3) of its value.
_MARGIN, _SPREADS = 0.10, 4 * 1.1 * math.sqrt(2)
# Counts per pixel up to which the search is as smooth along the channels as the detector is, and
# channels below which nothing is smoothed.
_FEW_COUNTS, _LEAST_SMOOTHING = 10.0, 0.3
_SMALLEST_TILE = 2 * REACH
# Counts over which the expected counts of a pixel are averaged, and pixels below which nothing is.
_WEIGHT_COUNTS, _LEAST_WIDTH = 30.0, 0.5
# Peaks that are looked at one by one, the standard deviations of counting that they exceed, and the
# least part of their shape that was not found before.
MOST_LINES, _LEAST_LINE, _LEAST_NEW = 12, 2.0, 0.3
# Limit of the largest eigenvalue of noise in few directions: one in some 300 exceeds it.
_SURE = 2.6
# Eigenvalues found by iterations, and the channels from which on these are the faster way.
_FEW, _LEAST_LANCZOS = 24, 500
# Restarts of these iterations beyond which the whole matrix is faster.
_MOST_RESTARTS = 30
# Relative error of the largest eigenvalue of random signs, far below the margin.
_NULL_TOLERANCE = 1e-4
# Rows of a matrix worked on at a time.
_STRIP = 128
# Gaussians that loadings are smoothed with, and the window of their risk, in widths of a peak.
_LOADING_WIDTHS, _RISK_WINDOW = (1.0, 0.7, 0.5, 0.35, 0.25), 3.0
# Widths of the smoothing along the channels beyond which its weights are nothing, below 1e-12.
_FARTHEST = 7.5


def neighbours(ds: xr.Dataset, *, subspace: str = "union", seed: int = 0) -> xr.Dataset:
    """Put components found by their neighbours among, or in place of, those of `pca`.

    Parameters
    ----------
    ds : Dataset
        With ``counts``, weights and the components that `edxdenoise.pca` gives. Stacked maps
        (coordinate ``area``) are not neighbours of one another.
    subspace : {"union", "neighbour", "pixel"}
        ``neighbour`` takes eigenvectors of the neighbour covariance alone; ``union`` those of them
        that are signal, and of the pixelwise components what these leave over: grains of single
        pixels have no neighbours of their kind. ``pixel`` returns `ds` as it is.
    seed : int
        Of the signs.

    Returns
    -------
    Dataset
        As many components as before, orthonormal in the weighted space: first that of `pca`, the
        total of every pixel and channel; then those that exceed the sign-flip null, flagged in
        ``component_neighbour``, by their neighbour covariance; then the others. Lazy in, lazy
        out.

    Raises
    ------
    ParameterError
        If the subspace is unknown.
    """
    if subspace not in SUBSPACES:
        raise ParameterError(f"subspace '{subspace}' must be one of {', '.join(SUBSPACES)}")
    v.validate(
        ds, v.COUNTS, v.WEIGHT_PIXEL, v.WEIGHT_ENERGY, v.COMPONENT_SPECTRUM, v.COMPONENT_VARIANCE
    )
    if subspace == "pixel":
        return ds
    counts, g, h = weighted_blocks(ds)
    spectra, before, ratio = (
        da.asarray(ds[spec].data)
        for spec in (v.COMPONENT_SPECTRUM, v.COMPONENT_VARIANCE, v.COMPONENT_VARIANCE_RATIO)
    )
    count, pixels = len(spectra), counts.shape[0] * counts.shape[1]
    stacked = v.COORD_AREA in ds.coords
    area = da.asarray(ds[v.COORD_AREA].data if stacked else np.zeros(counts.shape[0], int))
    spectrum = channel_counts(ds)
    level = spectrum.sum() / pixels
    expected = dask.delayed(expected_weights)(as_delayed(g), as_delayed(area), level)
    rows = da.from_delayed(expected, g.shape, np.float64)
    sums = neighbour_covariance(counts, rows, area, seed)
    parts = dask.delayed(_basis, nout=2)(
        as_delayed(sums),
        as_delayed(h),
        as_delayed(spectra),
        as_delayed(before),
        subspace,
        spectrum=as_delayed(spectrum),
        energy=ds[v.DIM_ENERGY].values,
        resolution=detector_resolution(ds),
        level=level,
    )
    basis = da.from_delayed(parts[0], spectra.shape, np.float64)
    found = da.from_delayed(parts[1], (count,), np.int8)
    scaled = basis / h
    (counts,) = again([counts], [scaled, g])
    maps = project(counts, g, scaled)
    variance = (maps.astype(np.float64) ** 2).sum(axis=(1, 2)) / pixels
    side = map_signs(maps)
    result = ds.assign(
        {
            v.COMPONENT_MAP: v.COMPONENT_MAP.array(maps * side[:, np.newaxis, np.newaxis]),
            v.COMPONENT_SPECTRUM: v.COMPONENT_SPECTRUM.array(basis * side[:, np.newaxis]),
            v.COMPONENT_VARIANCE: v.COMPONENT_VARIANCE.array(variance),
            # The ratio of any component tells the total variance.
            v.COMPONENT_VARIANCE_RATIO: v.COMPONENT_VARIANCE_RATIO.array(
                variance * (ratio[0] / before[0])
            ),
            v.COMPONENT_NEIGHBOUR: v.COMPONENT_NEIGHBOUR.array(found),
        }
    )
    result = add_history(result, f"neighbours subspace={subspace} seed={seed}")
    return result if is_lazy(ds) else load(result)


def found_by_neighbours(ds: xr.Dataset) -> np.ndarray:
    """Which components exceed the sign-flip null, shape (component,)."""
    if v.COMPONENT_NEIGHBOUR not in ds:
        return np.zeros(ds.sizes[v.DIM_COMPONENT], bool)
    return np.asarray(ds[v.COMPONENT_NEIGHBOUR].values > 0)


def expected_weights(g: np.ndarray, area: np.ndarray, level: float) -> np.ndarray:
    """Roots of the counts that a pixel and its neighbours let expect of it, shape (y, x).

    The weight of a pixel is one over the root of the counts that it was to have: the root of those
    that came is a poor guide to it where they are few. They are averaged over a Gaussian that holds
    `_WEIGHT_COUNTS`; where one pixel has that many, `g` is returned.

    Parameters
    ----------
    g : array, shape (y, x)
        Roots of the counts.
    area : array of int, shape (y,)
        Stacked map that a row belongs to.
    level : float
        Mean counts per pixel.

    Examples
    --------
    >>> g = np.sqrt([[0.0, 4.0], [4.0, 0.0]])
    >>> expected_weights(g, np.zeros(2), 2.0).round(2)
    array([[1.38, 1.45],
           [1.45, 1.38]])
    >>> expected_weights(10 * g, np.zeros(2), 200.0).round(2)
    array([[ 0., 20.],
           [20.,  0.]])
    """
    width = math.sqrt(_WEIGHT_COUNTS / (4 * math.pi * max(level, 1e-9)))
    if width < _LEAST_WIDTH:
        return g
    square = np.empty(g.shape)
    for number in np.unique(area):
        inside = area == number
        square[inside] = gaussian_filter(g[inside] ** 2, width)
    return np.sqrt(square)


def neighbour_covariance(counts: da.Array, g: da.Array, area: da.Array, seed: int) -> da.Array:
    """G h h' and the same with random signs, shape (2, channel, channel), float64; lazy.

    Parameters
    ----------
    counts : dask array, shape (y, x, energy)
    g : dask array, shape (y, x)
        Pixel weights.
    area : dask array of int, shape (y,)
        Stacked map that a row belongs to.
    seed : int
        Of the signs, which do not depend on how the counts are cut into blocks.
    """
    sign = np.random.default_rng(seed).integers(0, 2, counts.shape[:2], np.int8) * 2 - 1
    sums = _pair_sums if compact_of(counts).sparse else _tile_sums
    return sums(counts, g, area, sign)


def _symmetric(sums: np.ndarray) -> np.ndarray:
    """Replace matrices by their symmetric parts, in place, since each is large."""
    for each in sums:
        for start in range(0, len(each), _STRIP):
            strip = slice(start, start + _STRIP)
            both = (each[strip, start:] + each[start:, strip].T) / 2
            each[strip, start:], each[start:, strip] = both, both.T
    return sums


def _tile_sums(counts: da.Array, g: da.Array, area: da.Array, sign: np.ndarray) -> da.Array:
    """Sums over square tiles with all their cells and those around them."""
    rows, columns, channels = counts.shape
    side = max(math.isqrt(TILE_VALUES // channels) - 2 * REACH, _SMALLEST_TILE)
    tiles = (even_parts(rows, side), even_parts(columns, side))
    # Farther than the map is wide there is nothing to reach.
    reach = (min(REACH, rows), min(REACH, columns))
    # A weight of 0 leaves out what the tiles are padded with.
    pixels = [1 / g, da.from_array(sign), da.broadcast_to(area[:, None], (rows, columns))]
    padded = [
        da.overlap.overlap(
            array.rechunk((*tiles, *(-1 for _ in array.shape[2:]))),
            depth=dict(enumerate(reach)),
            boundary={0: 0, 1: 0},
            allow_rechunk=False,
        )
        for array in (counts, *pixels)
    ]
    cube, *maps = padded
    terms = da.blockwise(
        neighbour_block,
        "yx",
        cube,
        "yxe",
        *(part for each in maps for part in (each, "yx")),
        concatenate=True,
        meta=np.empty((0, 0)),
        reach=reach,
    )
    (sums,) = delayed_blocks(sum_blocks(terms, (2, channels, channels)))
    return da.from_delayed(dask.delayed(_mirrored)(sums), (2, channels, channels), np.float64)


def _mirrored(sums: np.ndarray) -> np.ndarray:
    """Fill the lower triangles of symmetric matrices, in place, since each is large."""
    for each in sums:
        for start in range(0, len(each), _STRIP):
            strip = slice(start, start + _STRIP)
            each[strip, strip] = np.triu(each[strip, strip]) + np.triu(each[strip, strip], 1).T
            each[start + _STRIP :, strip] = each[strip, start + _STRIP :].T
    return sums


def _pair_sums(counts: da.Array, g: da.Array, area: da.Array, sign: np.ndarray) -> da.Array:
    """Sums over pairs of counts, by bands of whole rows with the rows that follow them."""
    counts = whole_rows(counts)
    channels = counts.shape[2]
    heights = np.array(counts.chunks[0])
    ends = np.cumsum(heights)
    # Every part needs its sums in memory: one part per worker, fewer where many channels make the
    # sums large.
    number = max(1, min(default_workers(), NEIGHBOUR_SUMS // (16 * channels**2)))
    wanted = np.linspace(0, ends[-1], number + 1)[1:]
    cuts = sorted({0, *(np.searchsorted(ends, wanted) + 1).tolist()})
    blocks = delayed_blocks(compact_blocks(counts))
    terms = []
    for first, end in zip(cuts, cuts[1:]):
        top, bottom = ends[first] - heights[first], ends[end - 1]
        last = min(int(np.searchsorted(ends, bottom + REACH)) + 1, len(ends))
        rows = slice(top, min(bottom + REACH, ends[-1]))
        band = blocks[first:last], bottom - top
        maps = as_delayed(1 / g[rows]), sign[rows], as_delayed(area[rows])
        terms.append(dask.delayed(neighbour_band)(*band, *maps))
    return sum_terms(terms, (2, channels, channels))


def neighbour_band(
    blocks: list[Block], own: int, inverse_weight: np.ndarray, sign: np.ndarray, area: np.ndarray
) -> np.ndarray:
    """Neighbour products of a band of rows, as `neighbour_block` gives those of a tile.

    Parameters
    ----------
    blocks : list of Block
        As wide as the map, from its first row on.
    own : int
        Rows of the band; those below it are what it meets.
    inverse_weight, sign : array, shape (y, x)
        1/g and random signs, of the band and what it meets.
    area : array of int, shape (y,)
        Number of the stacked map.
    """
    from edxdenoise.components.kernels import neighbour_sums

    pixels, columns = inverse_weight.size, inverse_weight.shape[1]
    rows = sparse.vstack([sparse_block(block).rows for block in blocks], format="csr")
    starts = rows.indptr[: pixels + 1]
    weights = np.repeat(inverse_weight.reshape(-1), np.diff(starts))
    value = rows.data[: starts[-1]] * weights.astype(np.float64)
    channel = rows.indices[: starts[-1]]
    table = _pair_weights()
    flat = sign.reshape(-1).astype(np.float64)
    size = rows.shape[1]
    return _symmetric(neighbour_sums(starts, channel, value, columns, own, flat, area, table, size))


def _pair_weights() -> np.ndarray:
    """What a pair counts for, by rows down and columns to the right, shape (r + 1, 2 r + 1).

    Twice the sum of the kernels: each pair is met once, and the symmetric part halves it.
    """
    weights = np.zeros((REACH + 1, 2 * REACH + 1))
    for scale in _SCALES:
        along_y, along_x, _ = _kernel(scale, 2 * REACH + 1, 2 * REACH + 1)
        weights += 2 * np.outer(along_y[REACH, REACH:], along_x[REACH])
    return weights


def even_parts(size: int, most: int) -> tuple[int, ...]:
    """Parts of nearly equal size, none larger than `most`.

    Examples
    --------
    >>> even_parts(90, 86), even_parts(10, 86)
    ((45, 45), (10,))
    """
    number = -(-size // most)
    return tuple(size // number + (i < size % number) for i in range(number))


def neighbour_block(
    counts: np.ndarray,
    inverse_weight: np.ndarray,
    sign: np.ndarray,
    area: np.ndarray,
    reach: tuple[int, int] = (REACH, REACH),
) -> np.ndarray:
    """Neighbour products of one tile, shape (2, channel, channel), as they are and flipped.

    Of both what is above the diagonal: summed over tiles they are symmetric.

    Parameters
    ----------
    counts : array, shape (y + 2 r, x + 2 r, energy)
        With surroundings of r pixels.
    inverse_weight, sign, area : array, shape (y + 2 r, x + 2 r)
        1/g (0 where there is no pixel), random signs, number of the stacked map.
    reach : tuple of int
        r along y and x.
    """
    inside_y, inside_x = (slice(r, -r) for r in reach)
    rows = np.multiply(counts, inverse_weight[..., np.newaxis], dtype=np.float32, casting="unsafe")
    of_row = area[:, reach[1]]
    same = of_row[:, np.newaxis] == of_row
    kernels = [_kernel(s, len(counts), counts.shape[1]) for s in _SCALES]
    sums = np.zeros((2, counts.shape[2], counts.shape[2]))
    for flipped in range(2):
        if flipped:
            rows *= sign[..., np.newaxis]
        own = rows[inside_y, inside_x].reshape(-1, counts.shape[2])
        near = np.zeros_like(own)
        for along_y, along_x, centre in kernels:
            # Products with banded matrices: many times faster than filters channel by channel.
            strip = np.tensordot((along_y * same)[inside_y], rows, axes=1)
            near += np.matmul(along_x[inside_x], strip).reshape(own.shape)
            near -= centre * own
        for start in range(0, own.shape[1], _STRIP):
            end = start + _STRIP
            sums[flipped, start:end, start:] = own[:, start:end].T @ near[:, start:]
    return sums


def _kernel(scale: float, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray, np.float32]:
    """Gaussian along y and x as banded matrices, and its centre, over |K| without the centre.

    Examples
    --------
    >>> along_y, along_x, centre = _kernel(1.0, 30, 30)
    >>> weights = np.outer(along_y[15], along_x[15])
    >>> weights[15, 15] -= centre
    >>> bool(abs((weights**2).sum() - 1) < 1e-6), bool(abs(weights[15, 15]) < 1e-7)
    (True, True)
    """
    line, norm = _line(scale)
    reach = len(line) // 2
    bands = []
    for size in (rows, columns):
        distance = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
        band = np.where(distance <= reach, np.exp(-0.5 * (distance / scale) ** 2), 0)
        bands.append(band.astype(np.float32))
    return bands[0], bands[1] / np.float32(norm), np.float32(1 / norm)


def near_sums(values: np.ndarray) -> np.ndarray:
    """sum_s K_s applied to a map (y, x), without the centre of each.

    Examples
    --------
    >>> near_sums(np.eye(1, 3)).round(2)
    array([[0.  , 0.55, 0.22]])
    """
    result = np.zeros(values.shape)
    for scale in _SCALES:
        line, norm = _line(scale)
        near = convolve1d(values.astype(float), line, axis=0, mode="constant")
        near = convolve1d(near, line, axis=1, mode="constant") - values
        result += near / norm
    return result


def _line(scale: float) -> tuple[np.ndarray, float]:
    """Gaussian along one axis, 1 in its centre, and |K| of the plane without that centre."""
    reach = int(_TRUNCATE * scale + 0.5)
    line = np.exp(-0.5 * (np.arange(-reach, reach + 1) / scale) ** 2)
    return line, float(np.sqrt((line**2).sum() ** 2 - 1))


def search_width(level: float) -> float:
    """Width of the smoothing of the search, in widths of a peak, at so many counts per pixel.

    Whatever the specimen, its spectrum is as smooth as the detector's resolution makes it, and most
    of the noise is not. Up to 10 counts per pixel the search is smoothed by the width of a peak;
    beyond, where the noise needs it less, the width falls as 1 over the root of the counts.

    Examples
    --------
    >>> search_width(3.0), search_width(1000.0)
    (1.0, 0.1)
    """
    return min(1.0, math.sqrt(_FEW_COUNTS / max(level, 1e-9)))


def detector_smoothing(
    energy: np.ndarray, resolution: float, width: float
) -> sparse.csr_array | None:
    """Gaussian along the channels, shape (channel, channel); each row sums to 1.

    None where it is no wider than a part of a channel.

    Parameters
    ----------
    energy : array, shape (channel,)
        Channel centres in keV.
    resolution : float
        FWHM in eV at Mn K alpha.
    width : float
        In widths of a peak.

    Examples
    --------
    >>> energy = np.arange(0.2, 2, 0.02)
    >>> detector_smoothing(energy, 130.0, 1.0).shape, detector_smoothing(energy, 130.0, 0.1)
    ((90, 90), None)
    """
    if len(energy) < 2:
        return None
    sigma = fwhm(energy, resolution) / 1000 / (2 * np.sqrt(2 * np.log(2)))
    sigma *= width / channel_width(energy)
    if not np.median(sigma) > _LEAST_SMOOTHING:
        return None
    sigma = np.maximum(sigma, _LEAST_SMOOTHING)[:, np.newaxis]
    reach = int(_FARTHEST * sigma.max()) + 1
    step = np.arange(-reach, reach + 1)
    channel = np.arange(len(energy))[:, np.newaxis] + step
    inside = (channel >= 0) & (channel < len(energy))
    weights = np.exp(-0.5 * (step / sigma) ** 2) * inside
    weights /= weights.sum(axis=1, keepdims=True)
    starts = np.concatenate([[0], inside.sum(axis=1).cumsum()])
    return sparse.csr_array((weights[inside], channel[inside], starts), shape=(len(energy),) * 2)


def _basis(
    sums: np.ndarray,
    h: np.ndarray,
    spectra: np.ndarray,
    variance: np.ndarray,
    subspace: str,
    *,
    spectrum: np.ndarray,
    energy: np.ndarray,
    resolution: float,
    level: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal spectra (component, channel), and which of them exceed the sign-flip null.

    Parameters
    ----------
    sums : array, shape (2, channel, channel)
        Neighbour covariance, and with random signs, times h h'.
    h : array, shape (channel,)
        Channel weights.
    spectra, variance : array
        Of the pixelwise components.
    subspace : {"union", "neighbour"}
    spectrum : array, shape (channel,)
        Counts of the channels.
    energy, resolution
        As `detector_smoothing` takes them.
    level : float
        Mean counts per pixel.
    """
    count = len(spectra)
    first = spectra[:1]
    smoothing = detector_smoothing(energy, resolution, search_width(level))
    covariance, flipped = (Covariance(each, h, smoothing) for each in sums)
    # Nearly always few are signal, and those are found many times faster alone.
    few = min(_FEW, count - 1)
    alone = subspace == "union" and len(h) > _LEAST_LANCZOS and few > 0
    values, vectors = leading(covariance, first, few if alone else count)
    number = signal_number(values[: count - 1], vectors, flipped, first)
    if alone and number == few:
        values, vectors = leading(covariance, first, count)
        number = signal_number(values[: count - 1], vectors, flipped, first)
    broad = vectors[:number]
    if number:
        searched = broad if smoothing is None else broad @ smoothing
        sharp = smooth_loadings(sums, h, searched, first, energy, resolution, spectrum.sum())
        vectors = np.concatenate([sharp, vectors[number:]])
    if subspace == "union":
        # Peaks that the search blurred are not looked for once more.
        lines = line_shapes(spectrum, energy, resolution) * h
        lines = among_lines(sums, h, lines, np.concatenate([first, broad]))
        basis = orthonormal_rows(np.concatenate([first, vectors[:number], lines])[:count])
        number = len(basis) - 1
        left = np.sqrt(variance)[:, np.newaxis] * (spectra - spectra @ basis.T @ basis)
        rest = np.linalg.svd(left, full_matrices=False)[2]
        basis = np.concatenate([basis, rest[: count - number - 1]])
    else:
        basis = np.concatenate([first, vectors[: count - 1]])
    found = np.zeros(count, np.int8)
    found[1 : number + 1] = 1
    return orthonormal_rows(basis), found


def smooth_loadings(
    sums: np.ndarray,
    h: np.ndarray,
    vectors: np.ndarray,
    first: np.ndarray,
    energy: np.ndarray,
    resolution: float,
    total: float,
) -> np.ndarray:
    """Spectra of components that a smoothed search found, as sharp as the counts allow.

    The neighbour covariance M takes a blurred eigenvector v to M v, which is blurred no more, but
    noisy. Its noise has two parts in every channel: that of the entries of M, and, as the map of v
    meets the noise of 1 / N of N counts, sum_i (K D v)_i^2 / N, which is no more than
    v'M v sum_s sum K_s / |K_s| / N. M v is then smoothed along the channels as maps are over pixels
    (`edxdenoise.components.smoothing`): Gaussians up to the width of a peak, weighted by Stein's
    risk in a window. Noise that stays in a spectrum costs twice, since it is found in its map too.

    Parameters
    ----------
    sums : array, shape (2, channel, channel)
        Neighbour covariance, and with random signs, times h h'.
    h : array, shape (channel,)
        Channel weights.
    vectors : array, shape (k, channel)
        v, in the weighted space.
    first : array, shape (1, channel)
        The first component, which the result is orthogonal to.
    energy, resolution
        As `detector_smoothing` takes them.
    total : float
        N.

    Returns
    -------
    array, shape (k, channel)
        Orthonormal.
    """
    rows = (vectors / h) @ sums[0] / h
    rows -= rows @ first.T @ first
    window = detector_smoothing(energy, resolution, _RISK_WINDOW)
    if window is not None:
        gain = sum((line.sum() ** 2 - 1) / norm for line, norm in map(_line, _SCALES))
        strength = np.linalg.norm(rows, axis=1, keepdims=True)
        rows /= np.sqrt(entry_deviation(sums[1], h) ** 2 + gain * strength / total)
        filled = sums[0].any(axis=1)
        size = 1 / window.power(2).sum(axis=1)
        kernels = [detector_smoothing(energy, resolution, width) for width in _LOADING_WIDTHS]
        bank = [each for each in kernels if each is not None] + [sparse.eye_array(len(h))]
        estimates = np.array([rows @ each.T for each in bank])
        costs = [4 * each.diagonal() * filled for each in bank]
        risks = [((each - rows) ** 2 + cost) @ window.T for each, cost in zip(estimates, costs)]
        rows = (softmax(-0.5 * size * np.array(risks))[0] * estimates).sum(axis=0)
        rows -= rows @ first.T @ first
    return orthonormal_rows(rows)


def line_shapes(spectrum: np.ndarray, energy: np.ndarray, resolution: float) -> np.ndarray:
    """Shapes of the largest peaks of a spectrum, shape (peak, channel), at most `MOST_LINES`.

    Parameters
    ----------
    spectrum : array, shape (channel,)
        Counts.
    energy : array, shape (channel,)
        In keV.
    resolution : float
        FWHM in eV at Mn K alpha.
    """
    peaks = find_peaks(energy, spectrum, resolution, least=_LEAST_LINE)[:MOST_LINES]
    return channel_response(np.array([peak.energy for peak in peaks]), energy, resolution)


def among_lines(
    sums: np.ndarray, h: np.ndarray, lines: np.ndarray, known: np.ndarray
) -> np.ndarray:
    """Find components of few directions, such as lines: they need less evidence than those of all.

    Of n directions the largest eigenvalue of noise is that of a random symmetric matrix,
    s (2 n^(1/2) + .. n^(-1/6)), with s the standard deviation of its entries (C. A. Tracy and H.
    Widom, Commun. Math. Phys. 177 (1996) 727), far less than that of all channels.

    Parameters
    ----------
    sums : array, shape (2, channel, channel)
        Neighbour covariance, and with random signs, times h h'.
    h : array, shape (channel,)
        Channel weights.
    lines : array, shape (n, channel)
        Directions in the weighted space.
    known : array, shape (m, channel)
        Orthonormal components found before.

    Returns
    -------
    array, shape (found, channel)
        Orthonormal, and to `known`.
    """
    lines = lines / np.linalg.norm(lines, axis=1, keepdims=True)
    size, span = np.linalg.svd(lines - lines @ known.T @ known, full_matrices=False)[1:]
    span = span[size > _LEAST_NEW]
    number = len(span)
    if not number:
        return span
    found, flipped = (span / h @ each @ (span / h).T for each in sums)
    values, vectors = np.linalg.eigh(found)
    limit = entry_deviation(sums[1], h) * (2 * np.sqrt(number) + _SURE * number ** (-1 / 6))
    limit = max(limit, (1 + _MARGIN) * np.linalg.eigvalsh(flipped)[-1])
    return (vectors[:, values > limit].T @ span)[::-1]


def entry_deviation(sums: np.ndarray, h: np.ndarray) -> float:
    """Root mean square of the entries of ``sums / h h'`` beside the diagonal."""
    inverse = np.where(sums.any(axis=1), 1 / h, 0) ** 2
    square = -float((np.diag(sums) ** 2) @ inverse**2)
    for start in range(0, len(h), _STRIP):
        rows = slice(start, start + _STRIP)
        square += float(inverse[rows] @ (sums[rows] ** 2 @ inverse))
    filled = int(np.count_nonzero(inverse))
    return float(np.sqrt(max(square, 0.0) / max(filled * (filled - 1), 1)))


@dataclass(frozen=True)
class Covariance:
    """A neighbour covariance as an operator, without a copy of its matrix.

    Parameters
    ----------
    sums : array, shape (channel, channel)
        The matrix times h h'.
    h : array, shape (channel,)
        Channel weights.
    smoothing : sparse array, shape (channel, channel), optional
        S; the covariance is S M S'.
    """

    sums: np.ndarray
    h: np.ndarray
    smoothing: sparse.csr_array | None

    @property
    def filled(self) -> int:
        """Number of channels that take part."""
        return int(np.count_nonzero(self.sums.any(axis=1)))

    def without(self, vectors: np.ndarray) -> LinearOperator:
        """The covariance with orthonormal rows `vectors` projected out of both sides."""
        size, h = len(self.h), self.h[:, np.newaxis]
        smoothing = sparse.eye_array(size) if self.smoothing is None else self.smoothing

        def beside(columns: np.ndarray) -> np.ndarray:
            return columns - vectors.T @ (vectors @ columns)

        def product(columns: np.ndarray) -> np.ndarray:
            columns = columns.reshape(size, -1)
            return beside(smoothing @ (self.sums @ (smoothing.T @ beside(columns) / h) / h))

        return LinearOperator((size, size), matvec=product, matmat=product, dtype=np.float64)


def leading(covariance: Covariance, first: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Largest eigenvalues, falling, and their eigenvectors (rows).

    Parameters
    ----------
    covariance : Covariance
    first : array, shape (1, channel)
        Is projected out.
    count : int
        How many; a few of many channels are found by Lanczos iterations.
    """
    size, operator = len(covariance.h), covariance.without(first)
    if size > _LEAST_LANCZOS and count <= _FEW:
        start = np.ones(size) / np.sqrt(size)
        try:
            values, vectors = eigsh(operator, k=count, which="LA", v0=start, maxiter=_MOST_RESTARTS)
        except ArpackNoConvergence:
            # Of a map of a few pixels, whose eigenvalues are nearly all alike.
            pass
        else:
            order = np.argsort(values)[::-1]
            return values[order], vectors.T[order]
    values, vectors = scipy.linalg.eigh(
        operator @ np.eye(size),
        subset_by_index=(size - min(count, size), size - 1),
    )
    return values[::-1], vectors.T[::-1]


def signal_number(
    values: np.ndarray, vectors: np.ndarray, flipped: Covariance, first: np.ndarray
) -> int:
    """Return the number of eigenvalues above those of random signs beside earlier components.

    Parameters
    ----------
    values : array, shape (n,)
        Of the neighbour covariance beside `first`, falling.
    vectors : array, shape (n, channel)
    flipped : Covariance
        With random signs.
    first : array, shape (1, channel)
    """
    least = 1 + max(_MARGIN, _SPREADS * flipped.filled ** (-2 / 3))
    start = np.ones(len(first[0])) / np.sqrt(len(first[0]))
    for number, value in enumerate(values):
        left = flipped.without(np.concatenate([first, vectors[:number]]))
        null = eigsh(left, k=1, which="LA", v0=start, tol=_NULL_TOLERANCE)[0][0]
        if value <= least * null:
            return number
    return len(values)


def orthonormal_rows(rows: np.ndarray) -> np.ndarray:
    """Rows made orthonormal to rounding, each as near to what it was as that allows."""
    triangle = np.linalg.qr(rows.T)
    return (triangle[0] * np.sign(np.diag(triangle[1]))).T
