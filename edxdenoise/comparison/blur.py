"""Counts averaged over a Gaussian whose width is chosen by the risk: what a blur can do by itself.

With X the counts of a channel, a their average and K(0) the share of a pixel in its own, the risk
of the channel is mean (X - a)^2 + 2 K(0) mean X (C. M. Stein, Ann. Stat. 9 (1981) 1135; the noise
of a pixel is its count). One width has the least sum over channels, each in units of its noise.
"""

from __future__ import annotations

import dask.array as da
import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter

from edxdenoise.compute import compute
from edxdenoise.schema import COUNTS, COUNTS_DENOISED

WIDTHS = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0, 11.0, 16.0)  # pixels
_TRUNCATE = 4.0


def blurred(ds: xr.Dataset) -> xr.Dataset:
    """Return a map with its counts averaged as ``counts_denoised``, lazy where they are."""
    counts = ds[COUNTS.name].data
    # The widths that fit the map, and none.
    widths = [0.0, *(width for width in WIDTHS if width <= max(counts.shape[:2]) / 4)]
    mean = counts.mean(axis=(0, 1), dtype=float)
    squares = [((_average(counts, w) - counts) ** 2).mean(axis=(0, 1), dtype=float) for w in widths]
    mean, *squares = compute(mean, *squares)
    noise = np.maximum(mean, 1 / counts.shape[0] / counts.shape[1])
    risks = [
        float(((square + 2 * own_share(width) * mean) / noise).sum())
        for width, square in zip(widths, squares)
    ]
    best = _average(counts, widths[int(np.argmin(risks))])
    return ds.assign({COUNTS_DENOISED.name: COUNTS_DENOISED.array(best)})


def own_share(width: float) -> float:
    """Weight of a pixel in its own average, far from borders.

    Examples
    --------
    >>> round(own_share(0.0), 3), round(own_share(2.0), 4), round(1 / (4 * np.pi) / 2, 4)
    (1.0, 0.0398, 0.0398)
    """
    if width == 0:
        return 1.0
    reach = int(_TRUNCATE * width + 0.5)
    line = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    return float(line[reach] / line.sum()) ** 2


def _average(counts: np.ndarray | da.Array, width: float) -> np.ndarray | da.Array:
    if width == 0:
        return counts.astype(np.float32)
    if not isinstance(counts, da.Array):
        return _filter(counts, width)
    depth = int(_TRUNCATE * width + 0.5)
    edges = {0: min(depth, counts.shape[0]), 1: min(depth, counts.shape[1])}
    return counts.map_overlap(
        _filter, depth=edges, boundary="reflect", width=width, dtype=np.float32
    )


def _filter(block: np.ndarray, width: float) -> np.ndarray:
    sigma = (width, width, 0)
    return gaussian_filter(block.astype(np.float32), sigma, truncate=_TRUNCATE)
