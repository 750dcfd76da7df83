"""Inputs of the networks: the `default` stack of a score map in units of its noise, or a picture.

The `default` stack has 64 x 64 blocks of b x b pixels, b the longest side over 64 rounded up, and
12 channels. t is a score map without its mean, u the variance of its noise over its mean, e = t in
units of the root of that mean, z = t over its own standard deviation, K0 a Gaussian without its
centre, n the pixels with counts in a block:

0       sum of z over a block / sqrt(n): structure of the size of the map
1-3     sum of e (K0 e) at scales of 1, 2 and 4 pixels / sqrt(2 sum of u (K0^2 u)): neighbours that
        agree; a pixel never meets itself, so that uneven noise alone gives 0 on average
4       extreme of z smoothed by 1 pixel: grains of a few pixels
5       (sum of z^2 - n) / sqrt(2 n): single pixels beyond the noise
6       logarithm of the block's mean of u: how uneven the noise is
7       sum of e / sqrt(n)
8       share of the block's pixels that have counts
9       logarithm of the number of pixels of the map
10      spatial statistic of the whole map (`spatial_evidence`), which sums over all scales
11      logarithm of .02 + its effect size: whether what is significant is of use

z alone misleads where noise is uneven: components leak a little of the mean into quiet layers.
Channels 0 to 5, 7 and 10 are compressed to sign(x) log(1 + |x|).

Small maps are smoothed by matrix products, several times as fast as a convolution. Along one axis,
T pixels of the result are a T x (T + 2R) matrix, with a Gaussian cut off at R pixels in each row,
times T + 2R pixels of the map: products of small matrices are what processors do best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import xarray as xr
from numpy.lib.stride_tricks import sliding_window_view
from threadpoolctl import threadpool_limits

from edxdenoise import schema as v
from edxdenoise.components.score_noise import ScoreNoise, score_noise
from edxdenoise.components.spatial import evidence_of
from edxdenoise.errors import ParameterError
from edxdenoise.resources import default_workers

KINDS = ("default", "article")
BLOCKS = 64
CHANNELS = 12
PICTURE = 100
# Channels that change sign with the map.
SIGNED = (0, 4, 7)

_SCALES = (1, 2, 4)
_COMPRESSED = (0, 1, 2, 3, 4, 5, 7)
_LEAST_EFFECT = 0.02
_REFERENCE = 12  # later components that tell what noise alone looks like


def network_input(
    ds: xr.Dataset,
    kind: str = "default",
    noise: ScoreNoise | None = None,
    components: Sequence[int] | None = None,
) -> np.ndarray:
    """Input of a network for the score maps of a decomposed map.

    Parameters
    ----------
    ds : Dataset
        With the components that `edxdenoise.pca` gives and the weights.
    kind : {"default", "article"}
    noise : ScoreNoise, optional
        If known already; computed from `ds` otherwise. The `article` kind does not use it.
    components : sequence of int, optional
        Positions, from 0; all by default.

    Returns
    -------
    array
        Float32, shape (component, 64, 64, 12), for ``default``; uint8, shape (component, 100, 100,
        3), for ``article``. Scaling the counts changes neither; the signed channels of ``default``
        change sign with the map.

    Raises
    ------
    ParameterError
        If the kind is unknown.
    """
    if kind == "article":
        v.validate(ds, v.COMPONENT_MAP)
        maps = ds[v.COMPONENT_MAP].data
        chosen = range(len(maps)) if components is None else components
        return _threaded(lambda k: picture(np.asarray(maps[k])), chosen, (PICTURE, PICTURE, 3))
    if kind != "default":
        raise ParameterError(f"input kind '{kind}' must be one of {', '.join(KINDS)}")
    known = score_noise(ds) if noise is None else noise
    chosen = range(len(known.maps)) if components is None else components
    evidence = evidence_of(ds, known)
    null = empirical_null(known) if evidence.correlated else None
    statistic = _log(evidence.statistic)
    effect = np.log(_LEAST_EFFECT + evidence.effect_size)

    def one(k: int) -> np.ndarray:
        stack = compressed(whitened_stack(known.maps[k], known.variance(k)), null)
        stack[..., 10], stack[..., 11] = statistic[k], effect[k]
        return stack

    return _threaded(one, chosen, (BLOCKS, BLOCKS, CHANNELS), np.float32)


def _threaded(
    one: Callable[[int], np.ndarray],
    chosen: Sequence[int],
    shape: tuple[int, ...],
    dtype: type = np.uint8,
) -> np.ndarray:
    """Stack of `one(k)`, with as many threads as there are cores to this process."""
    result: np.ndarray = np.empty((len(chosen), *shape), dtype)

    def put(position: int) -> None:
        result[position] = one(int(chosen[position]))

    # One BLAS thread each: two layers of threads would fight for the processors.
    with threadpool_limits(1), ThreadPoolExecutor(default_workers()) as pool:
        for _ in pool.map(put, range(len(chosen))):
            pass
    return result


def whitened_stack(score: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """The channels of the module before they are compressed; the last two are left at 0.

    Parameters
    ----------
    score, variance : array, shape (y, x)
        A score map and the variance of its noise, 0 where there are no counts.

    Returns
    -------
    array of float32, shape (64, 64, 12)
    """
    stack = np.zeros((BLOCKS, BLOCKS, CHANNELS), np.float32)
    filled = variance > 0
    pixels = int(np.count_nonzero(filled))
    if pixels == 0:
        return stack
    side = -(-max(score.shape) // BLOCKS)
    mean = variance.sum(dtype=float) / pixels
    u = variance * np.float32(1 / mean)
    level = score[filled].mean(dtype=float)
    e = (score - np.float32(level)) * np.float32(mean**-0.5)
    e *= filled
    z = e / np.sqrt(u + ~filled)

    inside = _blocks(filled.astype(np.float32), side)
    count = np.maximum(inside, 1)
    root = np.sqrt(count)
    values = [_blocks(z, side) / root]
    own = _blocks(e * e, side)
    for scale in _SCALES:
        centre, square = kernel_sums(scale)
        near = _blocks(e * smoothed(e, scale), side) - np.float32(centre) * own
        # The square of a Gaussian is a narrower one.
        below = 2 * square * _blocks(u * smoothed(u, scale / np.sqrt(2)), side)
        values.append(near / np.sqrt(np.where(below > 0, below, np.inf)))
    centre, square = kernel_sums(1)
    smooth = smoothed(z, 1) * np.float32((square + centre**2) ** -0.5)
    high, low = _blocks(smooth, side, np.maximum), _blocks(smooth, side, np.minimum)
    values.append(np.where(high >= -low, high, low))
    values.append((_blocks(z * z, side) - inside) / (np.sqrt(2) * root))
    unevenness = _blocks(u, side) / count
    values.append(np.log(np.where(unevenness > 0, unevenness, 1)))
    values.append(_blocks(e, side) / root)
    values.append(inside / side**2)
    values.append(np.full_like(inside, np.log(pixels)))
    rows, columns = inside.shape
    y, x = (BLOCKS - rows) // 2, (BLOCKS - columns) // 2
    stack[y : y + rows, x : x + columns, : len(values)] = np.stack(values, axis=-1)
    stack[..., 9] = np.log(pixels)
    return stack


def _blocks(image: np.ndarray, side: int, combine: np.ufunc = np.add) -> np.ndarray:
    """Blocks of side x side pixels summed, or combined otherwise; zeros beyond the map."""
    rows, columns = image.shape
    padding = ((0, -rows % side), (0, -columns % side))
    padded = np.pad(image, padding) if any(p[1] for p in padding) else image
    rows, columns = padded.shape
    strips = combine.reduce(padded.reshape(rows // side, side, columns), axis=1)
    return combine.reduce(strips.reshape(rows // side, columns // side, side), axis=2)


def compressed(stack: np.ndarray, null: tuple[np.ndarray, np.ndarray] | None = None) -> np.ndarray:
    """Channels centred on an empirical null, where there is one, and compressed.

    Parameters
    ----------
    stack : array, shape (64, 64, 12)
        From `whitened_stack`.
    null : (mean, deviation), each of shape (7,), optional
        Of the compressed channels, from `empirical_null`.
    """
    channels = list(_COMPRESSED)
    result = stack.copy()
    values = result[..., channels]
    if null is not None:
        inside = (stack[..., 8] > 0)[..., np.newaxis]
        values = np.where(inside, (values - null[0]) / null[1], 0)
    result[..., channels] = _log(values)
    return result


def _log(values: np.ndarray) -> np.ndarray:
    return np.sign(values) * np.log1p(np.abs(values))


def empirical_null(noise: ScoreNoise) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of the compressed channels over later components.

    Needed where noise is correlated; that of independent noise is known. Channels that change sign
    have a mean of 0.
    """
    count = len(noise.maps)
    channels = list(_COMPRESSED)
    values = []
    for k in np.unique(np.linspace(count // 2, count - 1, min(_REFERENCE, count)).astype(int)):
        stack = whitened_stack(noise.maps[k], noise.variance(k))
        values.append(stack[stack[..., 8] > 0][:, channels])
    pooled = np.concatenate(values).astype(float)
    signed = np.isin(channels, SIGNED)
    mean = np.where(signed, 0, pooled.mean(axis=0))
    # Blocks of independent noise have a deviation of 1, extremes have less.
    deviation = np.maximum(np.sqrt(((pooled - mean) ** 2).mean(axis=0)), 1)
    deviation[channels.index(4)] = max(deviation[channels.index(4)] / 3, 1)
    return mean.astype(np.float32), deviation.astype(np.float32)


def picture(score: np.ndarray) -> np.ndarray:
    """A score map as the article shows it to its network: magma from least to most, 8 bits.

    Parameters
    ----------
    score : array, shape (y, x)

    Returns
    -------
    array of uint8, shape (100, 100, 3)
    """
    from PIL import Image

    low, high = float(score.min()), float(score.max())
    level = (score - low) / (high - low) if high > low else np.zeros_like(score)
    image = Image.fromarray(_magma()[np.minimum(level * 256, 255).astype(np.uint8)])
    return np.asarray(image.resize((PICTURE, PICTURE), Image.Resampling.BILINEAR))


@cache
def _magma() -> np.ndarray:
    from matplotlib import colormaps

    return (colormaps["magma"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


_TILE = 32
_TRUNCATE = 3.0


def smoothed(image: np.ndarray, scale: float) -> np.ndarray:
    """An image smoothed by a Gaussian of `scale` pixels, with zeros beyond its border.

    Parameters
    ----------
    image : array of float32, shape (y, x)
    scale : float

    Returns
    -------
    array of float32, shape (y, x)

    Examples
    --------
    >>> image = np.zeros((9, 9), np.float32)
    >>> image[4, 4] = 1
    >>> [round(float(v), 4) for v in (smoothed(image, 1.0).sum(), smoothed(image, 1.0)[4, 4])]
    [1.0, 0.1592]
    """
    matrix = _matrix(scale)
    return _along_columns(_along_columns(image, matrix).T, matrix).T


def kernel_sums(scale: float) -> tuple[float, float]:
    """Centre weight of the Gaussian of `smoothed`, and the sum of the squares of all others.

    Examples
    --------
    >>> centre, square = kernel_sums(4.0)
    >>> abs(centre - 1 / (2 * np.pi * 16)) < 1e-3, abs(square + centre**2 - centre / 2) < 1e-3
    (True, True)
    """
    line = _gaussian(scale)
    centre = line.max() ** 2
    return float(centre), float((line**2).sum() ** 2 - centre**2)


def _gaussian(scale: float) -> np.ndarray:
    radius = int(_TRUNCATE * scale + 0.5)
    line = np.exp(-0.5 * (np.arange(-radius, radius + 1) / scale) ** 2)
    return line / line.sum()


@cache
def _matrix(scale: float) -> np.ndarray:
    line = _gaussian(scale)
    matrix = np.zeros((_TILE, _TILE + line.size - 1), np.float32)
    for row, weights in enumerate(matrix):
        weights[row : row + line.size] = line
    return matrix


def _along_columns(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    rows, columns = image.shape
    tiles = -(-rows // _TILE)
    window = matrix.shape[1]
    radius = (window - _TILE) // 2
    padded = np.zeros((tiles * _TILE + 2 * radius, columns), np.float32)
    padded[radius : radius + rows] = image
    parts = sliding_window_view(padded, window, axis=0)[::_TILE].transpose(0, 2, 1)
    return (matrix @ parts).reshape(-1, columns)[:rows]
