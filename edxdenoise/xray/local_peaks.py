"""Where a peak stands out in a few pixels only, which the spectrum of the whole map hides."""

from __future__ import annotations

from collections.abc import Iterable

import dask.array as da
import numpy as np
import xarray as xr
from scipy.ndimage import label, uniform_filter

from edxdenoise.compute import compute
from edxdenoise.cube import detector_resolution
from edxdenoise.schema import COUNTS, DIM_ENERGY, DIM_X, DIM_Y
from edxdenoise.xray.detector import fwhm

# Larger maps are summed over squares of pixels to at most so many each way.
_LARGEST_MAP = 128
_SMALLEST_MAP = 8
_SIZES = (3, 5, 9)  # pixels, of the squares that are looked at
_LEAST = 4.5  # standard deviations
_LARGEST_SHARE = 0.25  # of the map: more is no small part
_MOST = 6
_SAME = 0.5  # share of common pixels from which two places are one
_CLEAR = 0.6  # FWHM, from lines that are known


def local_peaks(ds: xr.Dataset, known: Iterable[float]) -> tuple[da.Array, list[np.ndarray]]:
    """Find small parts of a map where a peak is higher than its surroundings in energy.

    Every other pixel is looked at, as on a chess board, so that the rest can test what is found.

    Parameters
    ----------
    ds : Dataset
        With ``counts``, in memory or lazy.
    known : iterable of float
        Energies in keV, on the axis of the map, of lines that are explained.

    Returns
    -------
    counts : dask array, shape (y, x, energy)
        Those of `ds`, summed over squares of pixels where the map is large.
    parts : list of array of bool, shape (y, x)
        Most significant first.
    """
    counts = da.asarray(ds[COUNTS.name].transpose(DIM_Y, DIM_X, DIM_ENERGY).data)
    counts = counts.rechunk({2: -1})
    square = -(-max(counts.shape[:2]) // _LARGEST_MAP)
    if square > 1:
        counts = da.coarsen(np.sum, counts, {0: square, 1: square}, trim_excess=True)
    if min(counts.shape[:2]) < _SMALLEST_MAP:
        return counts, []
    energy = ds[DIM_ENERGY].values.astype(float)
    resolution = detector_resolution(ds)
    # Windows of half a FWHM.
    used = np.flatnonzero(energy > 0.2)
    step = energy[1] - energy[0]
    position = np.cumsum(1000 * step / fwhm(energy[used], resolution))
    starts = used[np.unique(np.floor(2 * position), return_index=True)[1]]
    bounds = np.append(starts, energy.size)
    windows = counts.map_blocks(
        np.add.reduceat, starts, axis=2, dtype=np.float32, chunks=(*counts.chunks[:2], starts.size)
    )
    maps = np.moveaxis(np.asarray(compute(windows)[0]), 2, 0).astype(np.float32)
    maps *= chess_board(maps.shape[1:])
    centres = (energy[bounds[:-1]] + energy[bounds[1:] - 1]) / 2
    width = fwhm(centres, resolution) / 1000
    lines = np.array(sorted(known))
    free = np.array([not (np.abs(lines - c) < _CLEAR * w).any() for c, w in zip(centres, width)])

    found: list[tuple[float, np.ndarray]] = []
    for size in _SIZES:
        sums = np.array([uniform_filter(m, size, mode="constant") for m in maps]) * size**2
        sums = np.maximum(sums, 0)
        # A FWHM against as much on either side, half a FWHM away.
        inner = sums[3:-4] + sums[4:-3]
        outer = (sums[:-7] + sums[1:-6] + sums[6:-1] + sums[7:]) / 2
        z = (inner - outer) / np.sqrt(inner + outer / 2 + 1)
        for number in np.flatnonzero(free[3:-4] & free[4:-3]):
            best = float(z[number].max())
            if best < _LEAST:
                continue
            labels, _ = label(z[number] > best / 2)
            part = labels == labels.flat[z[number].argmax()]
            if part.mean() < _LARGEST_SHARE:
                found.append((best, part))
    found.sort(key=lambda pair: -pair[0])
    parts: list[np.ndarray] = []
    for _, part in found:
        if all((part & other).sum() < _SAME * (part | other).sum() for other in parts):
            parts.append(part)
        if len(parts) == _MOST:
            break
    return counts, parts


def chess_board(shape: tuple[int, ...]) -> np.ndarray:
    """Every other pixel.

    Examples
    --------
    >>> chess_board((2, 3)).astype(int)
    array([[1, 0, 1],
           [0, 1, 0]])
    """
    rows, columns = np.indices(shape)
    return (rows + columns) % 2 == 0
