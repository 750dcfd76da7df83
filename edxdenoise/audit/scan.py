"""The scan: windows of channels, tiles of pixels, and which of them stand out.

Tiles of every size are made of cells of half their side, two by two, so that they overlap by half.
Blocks of 64 x 64 pixels, whatever the chunks, are scanned for small tiles on their own; only their
sums in cells of 16 pixels travel, and are scanned for the larger ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from edxdenoise.audit.tails import deviance_root, scaled, tail_probability
from edxdenoise.xray import fwhm

BLOCK = 64  # pixels, side of a block
CELL = 16  # pixels, side of the cells that leave it
SHOWN = 4  # pixels, side of the cells of the picture
SMALL_TILES = (4, 8, 16)  # scanned within blocks
_LOWEST = 0.1  # keV; windows below are as wide as there
# Share of the mean that is expected of every tile.
_LEAST = 0.05
# Finds that a scan gives, strongest first, and how many are compared for overlaps at most.
_MOST, _MOST_COMPARED = 100, 20_000

FIND = np.dtype(
    [
        ("size", "i8"),
        ("y_start", "i8"),
        ("y_stop", "i8"),
        ("x_start", "i8"),
        ("x_stop", "i8"),
        ("first", "i8"),
        ("last", "i8"),
        ("counts", "f8"),
        ("expected", "f8"),
        ("z", "f8"),
        ("p", "f8"),
    ]
)
EXTENT = ("first", "last", "y_start", "y_stop", "x_start", "x_stop")


def scan_windows(energy: np.ndarray, resolution: float) -> np.ndarray:
    """First channel and the one after the last of each window, shape (window, 2).

    Windows are one FWHM wide and overlap by half; the last one holds all channels.

    Parameters
    ----------
    energy : array, shape (energy,)
        Evenly spaced, in keV.
    resolution : float
        FWHM at Mn K alpha in eV.

    Examples
    --------
    >>> scan_windows(0.01 * np.arange(12), 130.0).tolist()
    [[0, 4], [2, 6], [4, 8], [6, 10], [8, 12], [0, 12]]
    """
    width = energy[1] - energy[0]
    half = fwhm(np.maximum(energy, _LOWEST), resolution) / 2000 / width
    edges = [0]
    while edges[-1] < len(energy):
        edges.append(min(edges[-1] + max(1, round(float(half[edges[-1]]))), len(energy)))
    pairs = [(start, stop) for start, stop in zip(edges, edges[2:])]
    return np.array([*pairs, (0, len(energy))])


def tile_sizes(shape: tuple[int, int]) -> list[int]:
    """Sides of the tiles that a map of this shape (y, x) is scanned by; the last holds it all.

    Examples
    --------
    >>> tile_sizes((33, 50)), tile_sizes((2, 3))
    ([1, 4, 8, 16, 32, 50], [1, 3])
    """
    sizes, longest = [1], max(shape)
    size = SMALL_TILES[0]
    while size < longest:
        sizes.append(size)
        size *= 2
    return [*sizes, longest]


def tests_made(shape: tuple[int, int], windows: int) -> dict[int, int]:
    """Tests by size of tile: places times windows."""
    one, *between, whole = tile_sizes(shape)
    made = {one: shape[0] * shape[1] * windows}
    for size in between:
        side = BLOCK if size in SMALL_TILES else max(shape)
        places = [
            sum(_places(min(side, length - start), size) for start in range(0, length, side))
            for length in shape
        ]
        made[size] = places[0] * places[1] * windows
    return {**made, whole: windows}


def _places(length: int, size: int) -> int:
    return 2 * -(-length // size) - 1


@dataclass(frozen=True)
class Cells:
    """Sums over square cells of pixels.

    Parameters
    ----------
    side : int
        Of a cell, in pixels.
    corner : tuple of int
        (y, x) of the first pixel.
    shape : tuple of int
        Of the whole map, which ends tiles at its edges.
    pixels : array, shape (y, x)
        Pixels in each cell; cells at the edges have fewer.
    sums : array, shape (3, y, x, window)
        Counts, expected counts and variance of the residual.
    """

    side: int
    corner: tuple[int, int]
    shape: tuple[int, int]
    pixels: np.ndarray
    sums: np.ndarray

    def coarser(self) -> Cells:
        """Cells of twice the side."""
        pixels, sums = (
            _pairs(_pairs(part, axis), axis + 1)
            for part, axis in ((self.pixels, 0), (self.sums, 1))
        )
        return Cells(2 * self.side, self.corner, self.shape, pixels, sums)


def _pairs(values: np.ndarray, axis: int) -> np.ndarray:
    """Sums of neighbours, two by two; a last one may stay alone."""
    values = np.moveaxis(values, axis, 0)
    joined = values[::2].copy()
    joined[: len(values) // 2] += values[1::2]
    return np.moveaxis(joined, 0, axis)


@dataclass(frozen=True)
class Scanned:
    """Result of a scan by one size of tiles.

    Parameters
    ----------
    finds : array of FIND
        What is beyond the limit, strongest first, overlaps left out.
    profile : array, shape (3, window)
        Sums of the strongest find in all windows; of size 0 where there is none.
    peaks : array, shape (y, x)
        z of the largest magnitude in each tile, those half shifted left out.
    """

    finds: np.ndarray
    profile: np.ndarray
    peaks: np.ndarray


def scan_pixels(cells: Cells, windows: np.ndarray, limit: float) -> Scanned:
    """Scan single pixels; `limit` is the largest probability that counts."""
    coarse = cells.coarser().coarser()
    around = coarse.sums[1:] / coarse.pixels[..., np.newaxis]
    rows, columns = cells.pixels.shape
    around = around.repeat(SHOWN, axis=1)[:, :rows].repeat(SHOWN, axis=2)[:, :, :columns]
    scanned = _scan(cells.sums, around, cells, 1, windows, limit)
    peaks = _strongest(_strongest(scanned.peaks, SHOWN, 0), SHOWN, 1)
    return Scanned(scanned.finds, scanned.profile, peaks)


def scan_tiles(cells: Cells, windows: np.ndarray, limit: float) -> Scanned:
    """Scan tiles of two by two cells."""
    # A single row of cells is joined by an empty one.
    odd = [length % 2 for length in cells.pixels.shape]
    pixels = np.pad(cells.pixels, [(1, 1 + n) for n in odd])
    sums = np.pad(cells.sums, [(0, 0), *[(1, 1 + n) for n in odd], (0, 0)])
    pixels = _two_by_two(pixels[..., np.newaxis])
    tiles = _two_by_two(sums)
    around, area = (
        part[..., :-2, :-2, :]
        + part[..., 2:, :-2, :]
        + part[..., :-2, 2:, :]
        + part[..., 2:, 2:, :]
        for part in (tiles[1:], pixels)
    )
    own, tiles = pixels[1:-1, 1:-1], tiles[:, 1:-1, 1:-1]
    scanned = _scan(tiles, around * (own / area), cells, 2 * cells.side, windows, limit)
    return Scanned(scanned.finds, scanned.profile, scanned.peaks[::2, ::2])


def scan_whole(cells: Cells, windows: np.ndarray, limit: float) -> Scanned:
    """Scan the sum of all cells."""
    sums = cells.sums.sum(axis=(1, 2), keepdims=True)
    return _scan(sums, sums[1:], cells, max(cells.shape), windows, limit)


def _two_by_two(sums: np.ndarray) -> np.ndarray:
    """Sums over all squares of two by two cells; windows on the last axis."""
    rows = sums[..., :-1, :, :] + sums[..., 1:, :, :]
    return rows[..., :-1, :] + rows[..., 1:, :]


def larger(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the value of the larger magnitude."""
    return np.where(np.abs(second) > np.abs(first), second, first)


def _strongest(values: np.ndarray, factor: int, axis: int) -> np.ndarray:
    """Return, for each `factor` neighbours along an axis, the value of the largest magnitude."""
    starts = np.arange(0, values.shape[axis], factor)
    high = np.maximum.reduceat(values, starts, axis)
    low = np.minimum.reduceat(values, starts, axis)
    return larger(high, low)


def _scan(
    sums: np.ndarray,
    around: np.ndarray,
    cells: Cells,
    size: int,
    windows: np.ndarray,
    limit: float,
) -> Scanned:
    """Scan tiles whose sums and surroundings, scaled to the tile, have shapes (., y, x, window)."""
    # Components can expect next to nothing, or less, of pixels that differ by their noise alone.
    residual = sums[0] - np.maximum(sums[1], 0)
    mean = np.maximum(cells.sums, 0).mean(axis=(1, 2)) * (size / cells.side) ** 2
    floor = _LEAST * np.array([mean[:2].max(axis=0), mean[2]])[:, np.newaxis, np.newaxis]
    expected, variance = np.maximum(np.maximum(sums[1:], around), floor)
    # The deviance root is never less than the z-score of the tail (Zubkov & Serov 2013), and no
    # more than root 2 of Pearson's where counts are missing: nothing is lost by looking first.
    least = float(norm.isf(limit / 2))
    hot = np.flatnonzero(residual**2 > least**2 / 2 * np.maximum(expected, variance))
    mean = expected.ravel()[hot].astype(float)
    # Where nothing at all is expected, any count is a find.
    seen, mean = scaled(
        residual.ravel()[hot], np.maximum(mean, np.finfo(float).tiny), variance.ravel()[hot]
    )
    z = deviance_root(seen, mean)
    large = np.abs(z) >= least
    hot, z = hot[large], z[large]
    p = tail_probability(seen[large], mean[large])
    hot, z, p = (part[p <= limit] for part in (hot, z, p))

    place, window = np.divmod(hot, sums.shape[-1])
    high, low = np.zeros((2, residual[..., 0].size))
    np.maximum.at(high, place, z)
    np.minimum.at(low, place, z)
    peaks = larger(high, low).reshape(residual.shape[:2])

    finds = np.zeros(len(hot), FIND)
    for name, corner, index, length in zip(
        "yx", cells.corner, np.divmod(place, residual.shape[1]), cells.shape
    ):
        finds[f"{name}_start"] = corner + index * cells.side
        finds[f"{name}_stop"] = np.minimum(corner + index * cells.side + size, length)
    finds["size"] = size
    finds["first"], finds["last"] = windows[window].T
    finds["counts"], finds["expected"] = (part.ravel()[hot] for part in sums[:2])
    finds["z"], finds["p"] = z, p
    chosen = merged(finds, _MOST)
    first = sums.reshape(3, -1, sums.shape[-1])[:, place[chosen[:1]]]
    return Scanned(finds[chosen], first.reshape(3, -1), peaks)


def merged(finds: np.ndarray, most: int) -> np.ndarray:
    """Indices of the `most` strongest finds that overlap no stronger one in place and energy."""
    order = np.argsort(-np.abs(finds["z"]), kind="stable")[:_MOST_COMPARED]
    first, last, *bounds = (finds[name][order] for name in EXTENT)
    free = np.ones(len(order), bool)
    chosen: list[int] = []
    while len(chosen) < most and free.any():
        best = int(free.argmax())
        chosen.append(order[best])
        # Windows that touch share the foot of a peak.
        overlap = (first <= last[best]) & (last >= first[best])
        for start, stop in zip(bounds[::2], bounds[1::2]):
            overlap &= (start < stop[best]) & (stop > start[best])
        free &= ~overlap
    return np.array(chosen, int)
