"""Gaussian smoothing of small maps by matrix products, several times as fast as a convolution.

Along one axis, T pixels of the result are a T x (T + 2R) matrix, with a Gaussian cut off at R
pixels in each row, times T + 2R pixels of the map: products of small matrices are what processors
do best.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

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
