"""Sums of the counts and of the kept components, without a second cube in memory."""

from __future__ import annotations

from dataclasses import dataclass

import dask
import numpy as np
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.blocks import chunk, compute, delayed_blocks
from edxdenoise.cube import is_lazy, kept_maps


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
    counts = (ds if is_lazy(ds) else chunk(ds[[v.COUNTS]]))[v.COUNTS].data
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


def denoised_amounts(ds: xr.Dataset, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Amounts and spectra whose products are the denoised spectra of cells.

    Parameters
    ----------
    ds : Dataset
        With the kept components alone, and the weights.
    side : int
        Of a cell, in pixels.

    Returns
    -------
    amounts : array, shape (part, cell y, cell x)
    spectra : array, shape (part, energy)
        Of the components, and the mean spectrum last.
    """
    g = ds[v.WEIGHT_PIXEL].values
    maps = np.concatenate([kept_maps(ds).values * g, g[np.newaxis]]).astype(np.float64)
    for axis in (1, 2):
        maps = np.add.reduceat(maps, np.arange(0, maps.shape[axis], side), axis=axis)
    return maps, np.vstack([*unweighted_spectra(ds)])


def denoised_spectrum(ds: xr.Dataset) -> np.ndarray:
    """Sum spectrum of the cube that the components of `ds`, all of them kept, rebuild."""
    amounts, spectra = denoised_amounts(ds, max(ds[v.WEIGHT_PIXEL].shape))
    return amounts[:, 0, 0] @ spectra


def unweighted_spectra(ds: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Component spectra times h, shape (component, energy), and the mean spectrum times h."""
    h = ds[v.WEIGHT_ENERGY].values
    return ds[v.COMPONENT_SPECTRUM].values * h, ds[v.MEAN_SPECTRUM].values * h


def pixel_spectra(
    ds: xr.Dataset, components: xr.Dataset, y: int, x: int
) -> tuple[np.ndarray, np.ndarray]:
    """Spectrum of one pixel, as counted and as `components` rebuild it, each (energy,)."""
    raw = compute(ds[v.COUNTS].data[y, x])[0].astype(np.float64)
    spectra, mean = unweighted_spectra(components)
    scores = kept_maps(components).values[:, y, x].astype(np.float64)
    return raw, float(components[v.WEIGHT_PIXEL].values[y, x]) * (scores @ spectra + mean)
