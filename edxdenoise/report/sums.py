"""Spectra and maps of the counts and of the kept components, without a second cube in memory.

Both come as the same `Sums`, so that every picture can set one beside the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import dask
import numpy as np
import xarray as xr

from edxdenoise.compute import chunk, compute
from edxdenoise.cube import is_lazy
from edxdenoise.decompose.gram import delayed_blocks
from edxdenoise.schema import (
    COMPONENT_MAP,
    COMPONENT_MAP_SHRUNK,
    COMPONENT_SPECTRUM,
    COUNTS,
    MEAN_SPECTRUM,
    WEIGHT_ENERGY,
    WEIGHT_PIXEL,
)


@dataclass(frozen=True)
class Sums:
    """Sums of a cube.

    Parameters
    ----------
    maps : array, shape (window, y, x)
        Counts within each window of channels.
    spectrum : array, shape (energy,)
        Counts of all pixels.
    """

    maps: np.ndarray
    spectrum: np.ndarray


def raw_sums(ds: xr.Dataset, windows: Sequence[slice]) -> Sums:
    """Sum the counts over pixels and within windows of channels, in one pass over their blocks.

    Parameters
    ----------
    ds : Dataset
        With ``counts``.
    windows : sequence of slice
        Channels of each window.
    """
    counts = (ds if is_lazy(ds) else chunk(ds[[COUNTS.name]]))[COUNTS.name].data
    starts = [np.cumsum([0, *sizes[:-1]]) for sizes in counts.chunks]
    corners = [(y, x, e) for y in starts[0] for x in starts[1] for e in starts[2]]
    (parts,) = compute(
        [
            dask.delayed(_block_sums)(block, e, windows)
            for block, (_, _, e) in zip(delayed_blocks(counts), corners)
        ]
    )
    rows, columns, channels = counts.shape
    maps, spectrum = np.zeros((len(windows), rows, columns)), np.zeros(channels)
    for (part, sums), (y, x, e) in zip(parts, corners):
        maps[:, y : y + part.shape[1], x : x + part.shape[2]] += part
        spectrum[e : e + len(sums)] += sums
    return Sums(maps, spectrum)


def _block_sums(
    counts: np.ndarray, first_channel: int, windows: Sequence[slice]
) -> tuple[np.ndarray, np.ndarray]:
    """Maps of the windows and spectrum of one block whose channels start at `first_channel`."""
    maps = np.zeros((len(windows), *counts.shape[:2]))
    for number, window in enumerate(windows):
        start, stop = (max(edge - first_channel, 0) for edge in (window.start, window.stop))
        maps[number] = counts[:, :, start:stop].sum(axis=2, dtype=np.float64)
    return maps, counts.sum(axis=(0, 1), dtype=np.float64)


@dataclass(frozen=True)
class Cells:
    """Counts summed over square cells of pixels; those at the edges may be smaller.

    Parameters
    ----------
    side : int
        Of a cell, in pixels.
    counts : array, shape (cell y, cell x, energy)
    """

    side: int
    counts: np.ndarray


def line_sums(ds: xr.Dataset, estimators: np.ndarray, side: int) -> tuple[np.ndarray, Cells]:
    """Net counts of lines in every pixel, and spectra of cells, in one pass over the counts.

    Parameters
    ----------
    ds : Dataset
        With ``counts``.
    estimators : array, shape (line, energy)
        Weight of each channel in the net counts of a line.
    side : int
        Of a cell, in pixels.

    Returns
    -------
    maps : array of float32, shape (line, y, x)
    cells : Cells
    """
    counts = (ds if is_lazy(ds) else chunk(ds[[COUNTS.name]]))[COUNTS.name].data
    starts = [np.cumsum([0, *sizes[:-1]]) for sizes in counts.chunks]
    corners = [(y, x, e) for y in starts[0] for x in starts[1] for e in starts[2]]
    (parts,) = compute(
        [
            dask.delayed(_block_lines)(block, estimators, corner, side)
            for block, corner in zip(delayed_blocks(counts), corners)
        ]
    )
    rows, columns, channels = counts.shape
    maps = np.zeros((len(estimators), rows, columns), np.float32)
    whole = counts.dtype.kind in "ui"
    cells = np.zeros((-(-rows // side), -(-columns // side), channels), "u4" if whole else "f8")
    for (part, sums), (y, x, e) in zip(parts, corners):
        maps[:, y : y + part.shape[1], x : x + part.shape[2]] += part
        first = y // side, x // side
        cells[
            first[0] : first[0] + sums.shape[0],
            first[1] : first[1] + sums.shape[1],
            e : e + sums.shape[2],
        ] += sums
    return maps, Cells(side, cells)


def _block_lines(
    counts: np.ndarray, estimators: np.ndarray, corner: tuple[int, int, int], side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Maps of the lines and sums of the cells of one block that starts at `corner`."""
    y, x, e = corner
    rows = estimators[:, e : e + counts.shape[2]]
    # Row by row of pixels, so that no copy of the block in 64 bits is made.
    maps = np.stack([row.astype(float) @ rows.T for row in counts])
    sums = counts
    for axis, start in enumerate((y, x)):
        numbers = (start + np.arange(counts.shape[axis])) // side
        edges = np.flatnonzero(np.diff(numbers, prepend=-1))
        kind = "u4" if counts.dtype.kind in "ui" else "f8"
        sums = np.add.reduceat(sums, edges, axis=axis, dtype=kind)
    return np.moveaxis(maps, -1, 0).astype(np.float32), sums


def denoised_sums(ds: xr.Dataset, windows: Sequence[slice]) -> Sums:
    """Return the sums of the cube that all components of `ds` rebuild: it is linear in them.

    Parameters
    ----------
    ds : Dataset
        With computed maps and ``component_spectrum`` of the components wanted, the weights and
        ``mean_spectrum``.
    windows : sequence of slice
        Channels of each window.
    """
    g = ds[WEIGHT_PIXEL.name].values
    maps = _rebuilding_maps(ds)
    spectra, mean = unweighted_spectra(ds)
    amounts = np.array([np.sum(g * score, dtype=np.float64) for score in maps])
    spectrum = amounts @ spectra + g.sum() * mean
    windowed = np.zeros((len(windows), *g.shape))
    for number, window in enumerate(windows):
        weights = spectra[:, window].sum(axis=1)
        windowed[number] = g * (np.tensordot(weights, maps, 1) + mean[window].sum())
    return Sums(windowed, spectrum)


def _rebuilding_maps(ds: xr.Dataset) -> np.ndarray:
    """Maps of all components of `ds`, shrunk ones where there are."""
    maps = ds[COMPONENT_MAP.name].values
    if COMPONENT_MAP_SHRUNK.name not in ds:
        return maps
    shrunk = ds[COMPONENT_MAP_SHRUNK.name].values
    return np.where(np.isnan(shrunk), maps, shrunk)


def unweighted_spectra(ds: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Component spectra times h, shape (component, energy), and the mean spectrum times h."""
    h = ds[WEIGHT_ENERGY.name].values
    return ds[COMPONENT_SPECTRUM.name].values * h, ds[MEAN_SPECTRUM.name].values * h


def pixel_spectra(
    ds: xr.Dataset, components: xr.Dataset, y: int, x: int
) -> tuple[np.ndarray, np.ndarray]:
    """Spectrum of one pixel, as counted and as `components` rebuild it, each (energy,)."""
    raw = compute(ds[COUNTS.name].data[y, x])[0].astype(np.float64)
    spectra, mean = unweighted_spectra(components)
    scores = _rebuilding_maps(components)[:, y, x].astype(np.float64)
    return raw, float(components[WEIGHT_PIXEL.name].values[y, x]) * (scores @ spectra + mean)
