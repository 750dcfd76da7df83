"""The residual audit: one pass over the counts, and a table of what a model dropped.

The scan looks for windows of channels and tiles of pixels that stand out. Tiles of every size are
made of cells of half their side, two by two, so that they overlap by half. Blocks of 64 x 64
pixels, whatever the chunks, are scanned for small tiles on their own; only their sums in cells of
16 pixels travel, and are scanned for the larger ones.

`tail_probability` is that of a sum of residuals where the model is right. In a tile of pixels and a
window of channels, n counts were seen and m were expected. Both come from the same Poisson counts
X: with a the window and b what a projection onto kept components makes of it, n - m = sum (a_j -
b_j) X_ij has mean 0 where the model is right, and the variance

    V = sum (a_j - b_j)^2 lambda_ij,    lambda the expected counts.

A model fitted to the counts follows them, so that V is mostly a little less than the m of Poisson
counts. But where the noise is uneven, V exceeds m many times: noise of a line that is strong here
enters, by way of the projection, windows that hold few counts. So the law is that of Poisson counts
scaled to the larger of both variances, phi = max(1, V / m): n - m + m over phi against a Poisson
variable of mean m / phi, by the incomplete gamma function. With phi = 1 that is exact; else its
skewness phi / sqrt(V) is never below that of the weighted sum.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import dask
import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import gammainc, gammaincc, xlogy
from scipy.stats import norm

from edxdenoise import schema as v
from edxdenoise.blocks import as_blocks, compute, delayed_blocks
from edxdenoise.cube import check_cube, detector_resolution, energy_axis, energy_range
from edxdenoise.errors import DataError, ParameterError
from edxdenoise.quantification.estimators import behind_projection
from edxdenoise.xray import fwhm, identified
from edxdenoise.xray.families import LOWEST_ENERGY, candidate_lines

# Rows of the table.
_MOST_FINDS = 1000
# A line names a find if it lies within this share of a FWHM from the middle of its window.
_NEAR = 0.6
_NAMES = 3


@dataclass(frozen=True)
class Audit:
    """Result of the scan of the residuals.

    Parameters
    ----------
    table : pandas.DataFrame
        From `residual_audit`.
    rate : float
        Probability that chance alone puts anything into the table.
    tests : int
        Tests made.
    peaks : array, shape (y, x)
        z of the largest magnitude among all tiles beyond the limit that hold a cell of 4 x 4
        pixels; 0 where none is.
    energies : array, shape (window,)
        Middle of each window of one FWHM, in keV.
    profile : array, shape (3, window)
        Counts, expected counts and variance of their difference in each window at the place of
        the strongest find; of size 0 where nothing was found.
    """

    table: pd.DataFrame
    rate: float
    tests: int
    peaks: np.ndarray
    energies: np.ndarray
    profile: np.ndarray

    def summary(self) -> str:
        """State in one line how much was found, and the strongest; pixels as `slice` takes them."""
        if self.table.empty:
            return (
                f"The residuals are counting noise in all of {self.tests:,} tests (false-alarm "
                f"rate {100 * self.rate:g} %)"
            )
        first = self.table.iloc[0]
        features = "1 feature" if len(self.table) == 1 else f"{len(self.table)} features"
        if len(self.table) == _MOST_FINDS:
            features = f"{_MOST_FINDS} features or more"
        name = f" ({first.lines})" if first.lines else ""
        return (
            f"The residuals show {features} that the model does not describe, the strongest at "
            f"{first.energy_low:.2f} to {first.energy_high:.2f} keV{name}, y {first.y_start}:"
            f"{first.y_stop}, x {first.x_start}:{first.x_stop}: {first.counts:,.0f} counts where "
            f"{first.expected:,.0f} are expected (z {first.z:.1f})"
        )


def residual_audit(ds: xr.Dataset, *, false_alarm_rate: float = 0.01) -> Audit:
    """Places and energies where the counts differ from the denoised ones by more than chance.

    Counts and denoised counts are summed over tiles of 1, 4, 8, 16 ... pixels and the whole map,
    overlapping by half, and over windows of one FWHM and all channels. Each sum is compared with
    the tail of a Poisson law (`tail_probability`). The false-alarm rate is that of the whole
    table: sizes of tiles share it evenly, and so do the tests within a size (Bonferroni). Tiles and
    windows overlap, so that the true rate is lower.

    Parameters
    ----------
    ds : Dataset
        With ``counts`` and ``counts_denoised``, in memory or lazy: both are read once, block by
        block. Where kept components are there, they tell what the model's own noise adds.
    false_alarm_rate : float
        Probability that chance alone puts anything into the table.

    Returns
    -------
    Audit
        Its ``table`` has one row per find, strongest first, at most 1000; finds that overlap a
        stronger one in place and energy are left out. No rows where nothing was found. ``size``
        (side of the tile, in pixels); ``y_start``, ``y_stop``, ``x_start``, ``x_stop`` (pixels, as
        `slice` takes them); ``y_low``, ``y_high``, ``x_low``, ``x_high`` (in units of the map);
        ``energy_low``, ``energy_high`` (keV); ``lines`` (of the elements found; else of any, with a
        ``?``); ``counts``, ``expected``; ``z`` (signed root of the deviance); ``p`` (two-sided) and
        ``false_alarm``: ``p`` after correction for all tests, at most 1.

    Raises
    ------
    SchemaError
        If the Dataset is not denoised.
    DataError
        If the counts are not whole numbers: those of others' scaling are no Poisson counts.
    ParameterError
        If the rate is not between 0 and 1.

    Examples
    --------
    >>> from edxdenoise.config import Denoise
    >>> from edxdenoise import denoise, simulate
    >>> phantom = simulate("solar-cell", shape=(33, 50), channels=160, energy_width=0.08)
    >>> poor = denoise(phantom.compute(), Denoise(keep="1"))
    >>> residual_audit(poor).table.lines[0]
    'In_La'
    """
    if not 0 < false_alarm_rate < 1:
        raise ParameterError(
            f"false_alarm_rate is {false_alarm_rate}, must be between 0 and 1, such as 0.01"
        )
    v.validate(ds, v.COUNTS, v.COUNTS_DENOISED)
    check_cube(ds)
    energy_axis(ds)
    resolution = detector_resolution(ds)
    windows = scan_windows(ds[v.DIM_ENERGY].values, resolution)
    shape = (ds.sizes[v.DIM_Y], ds.sizes[v.DIM_X])
    tests = tests_made(shape, len(windows))
    limits = {size: false_alarm_rate / (len(tests) * made) for size, made in tests.items()}

    cells, scans, peaks = _scan_blocks(ds, windows, limits)
    for size in [size for size in tests if size > SMALL_TILES[-1]][:-1]:
        scans.append(scan_tiles(cells, windows, limits[size]))
        peaks = larger(peaks, _enlarged(scans[-1].peaks, size // SHOWN, peaks.shape))
        cells = cells.coarser()
    whole = max(tests)
    scans.append(scan_whole(cells, windows, limits[whole]))
    peaks = larger(peaks, scans[-1].peaks)

    finds = np.concatenate([scan.finds for scan in scans])
    finds = finds[merged(finds, _MOST_FINDS)]
    profile = np.zeros((3, 0))
    if len(finds):
        (profile,) = [
            scan.profile[:, :-1] for scan in scans if len(scan.finds) and scan.finds[0] == finds[0]
        ]
    corrected = finds["p"] * [len(tests) * tests[size] for size in finds["size"]]
    table = _table(ds, finds, np.minimum(corrected, 1), resolution)
    energy = ds[v.DIM_ENERGY].values
    middles = (energy[windows[:-1, 0]] + energy[windows[:-1, 1] - 1]) / 2
    return Audit(table, false_alarm_rate, sum(tests.values()), peaks, middles, profile)


def _scan_blocks(
    ds: xr.Dataset, windows: np.ndarray, limits: dict[int, float]
) -> tuple[Cells, list[Scanned], np.ndarray]:
    """Cells of the whole map, what small tiles found, and their picture, in one pass."""
    shape = (ds.sizes[v.DIM_Y], ds.sizes[v.DIM_X])
    inside = np.zeros((ds.sizes[v.DIM_ENERGY], len(windows)))
    for column, (first, last) in enumerate(windows):
        inside[first:last, column] = 1
    lost = inside
    if all(spec in ds for spec in (v.COMPONENT_SPECTRUM, v.COMPONENT_KEEP, v.WEIGHT_ENERGY)):
        lost = inside - behind_projection(ds, inside.T).T
    weights = dask.delayed(
        (inside.astype(np.float32), np.hstack([inside, lost**2]).astype(np.float32))
    )
    cubes = []
    for spec in (v.COUNTS, v.COUNTS_DENOISED):
        cube = ds[spec].data
        blocks = (BLOCK, BLOCK, -1)
        lazy = isinstance(cube, da.Array)
        cubes.append(cube.rechunk(blocks) if lazy else as_blocks(cube, blocks))
    corners = [(y, x) for y in range(0, shape[0], BLOCK) for x in range(0, shape[1], BLOCK)]
    (parts,) = compute(
        [
            dask.delayed(_scan_block)(counts, denoised, weights, corner, shape, windows, limits)
            for counts, denoised, corner in zip(*map(delayed_blocks, cubes), corners)
        ]
    )
    down, across = (-(-length // CELL) for length in shape)
    sums, pixels = np.zeros((3, down, across, len(windows))), np.zeros((down, across))
    peaks = np.zeros([-(-length // SHOWN) for length in shape])
    for part, (y, x) in zip(parts, corners):
        if part is None:
            raise DataError(
                "the counts are not whole numbers of 0 or more, as Poisson counts are; audit the "
                "raw counts"
            )
        block, _, block_peaks = part
        for target, source, side in (
            (sums, block.sums, CELL),
            (pixels[np.newaxis], block.pixels[np.newaxis], CELL),
            (peaks[np.newaxis], block_peaks[np.newaxis], SHOWN),
        ):
            rows, columns = source.shape[1:3]
            target[:, y // side : y // side + rows, x // side : x // side + columns] = source
    scans = [scan for _, found, _ in parts for scan in found]
    return Cells(CELL, (0, 0), shape, pixels, sums), scans, peaks


def _scan_block(
    counts: np.ndarray,
    denoised: np.ndarray,
    weights: tuple[np.ndarray, np.ndarray],
    corner: tuple[int, int],
    shape: tuple[int, int],
    windows: np.ndarray,
    limits: dict[int, float],
) -> tuple[Cells, list[Scanned], np.ndarray] | None:
    """Scan one block by its small tiles; None where the counts are no counts."""
    if counts.dtype.kind != "u" and not ((counts >= 0) & (counts == np.trunc(counts))).all():
        return None
    if not np.isfinite(denoised).all():
        raise DataError("the denoised counts are not finite; denoise again")
    seen, modelled = (
        cube.reshape(-1, cube.shape[-1]).astype(np.float32, copy=False) @ weight
        for cube, weight in zip((counts, denoised), weights)
    )
    sums = np.stack([seen, *np.split(modelled, 2, axis=1)])
    block = counts.shape[:2]
    cells = Cells(1, corner, shape, np.ones(block), sums.reshape(3, *block, -1))
    scans = [scan_pixels(cells, windows, limits[1])]
    peaks = scans[0].peaks
    cells = cells.coarser()
    for size in SMALL_TILES:
        # A map of fewer pixels is scanned as a whole.
        if size in limits and size < max(shape):
            scans.append(scan_tiles(cells, windows, limits[size]))
            peaks = larger(peaks, _enlarged(scans[-1].peaks, size // SHOWN, peaks.shape))
        cells = cells.coarser()
    return cells, scans, peaks


def _enlarged(image: np.ndarray, factor: int, shape: tuple[int, ...]) -> np.ndarray:
    return image.repeat(factor, axis=0)[: shape[0]].repeat(factor, axis=1)[:, : shape[1]]


def _table(
    ds: xr.Dataset, finds: np.ndarray, corrected: np.ndarray, resolution: float
) -> pd.DataFrame:
    """Finds with what pixels and channels are in units and lines."""
    start, width = energy_axis(ds)
    table = pd.DataFrame({name: finds[name] for name in ("size", *EXTENT[2:])})
    for dim in (v.DIM_Y, v.DIM_X):
        positions = ds[dim].values
        step = (positions[-1] - positions[0]) / max(len(positions) - 1, 1) or 1.0
        table[f"{dim}_low"] = positions[finds[f"{dim}_start"]] - step / 2
        table[f"{dim}_high"] = positions[finds[f"{dim}_stop"] - 1] + step / 2
    low, high = (start + (finds[name] - 0.5) * width for name in ("first", "last"))
    table["energy_low"], table["energy_high"] = low, high
    narrow = finds["last"] - finds["first"] < ds.sizes[v.DIM_ENERGY]
    names = _line_names(ds, np.unique((low + high)[narrow] / 2), resolution)
    table["lines"] = [
        names[middle] if line else "" for middle, line in zip((low + high) / 2, narrow)
    ]
    for name in ("counts", "expected", "z", "p"):
        table[name] = finds[name]
    table["false_alarm"] = corrected
    return table


def _line_names(ds: xr.Dataset, energies: Iterable[float], resolution: float) -> dict[float, str]:
    """Lines at each energy: of the elements found, else of any, with a ``?``."""
    found = [line for element in identified(ds).elements for line in element.lines]
    names = {}
    for energy in energies:
        reach = _NEAR * float(fwhm(max(energy, 0.1), resolution)) / 1000
        near = sorted((abs(line.energy - energy), line.name, line) for line in found)
        own = [line.name for distance, _, line in near if distance < reach and line.net_counts > 0]
        others = candidate_lines(
            energy, reach / 2, energy_range(ds), beam_energy=ds.attrs.get("beam_energy")
        )
        alphas = [f"{line['line']}?" for line in others if line["line"].endswith("a")]
        names[energy] = " ".join((own or alphas)[:_NAMES])
    return names


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

    Windows are one FWHM wide and overlap by half; the last one holds all channels. The detector's
    zero peak, which holds no X-rays, has none.

    Parameters
    ----------
    energy : array, shape (energy,)
        Evenly spaced, in keV.
    resolution : float
        FWHM at Mn K alpha in eV.

    Examples
    --------
    >>> scan_windows(0.05 + 0.01 * np.arange(12), 130.0).tolist()
    [[4, 8], [6, 10], [8, 12], [0, 12]]
    """
    width = energy[1] - energy[0]
    half = fwhm(np.maximum(energy, _LOWEST), resolution) / 2000 / width
    edges = [0]
    while edges[-1] < len(energy):
        edges.append(min(edges[-1] + max(1, round(float(half[edges[-1]]))), len(energy)))
    pairs = [
        (start, stop)
        for start, stop in zip(edges, edges[2:])
        if energy[start] + energy[stop - 1] > 2 * LOWEST_ENERGY or energy[-1] < LOWEST_ENERGY
    ]
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


def scaled(
    residual: np.ndarray, expected: np.ndarray, variance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Counts seen and expected of the Poisson variable that stands for a residual.

    Parameters
    ----------
    residual : array
        n - m.
    expected, variance : array
        m and V, above 0; residuals are above -m.
    """
    phi = np.maximum(variance / expected, 1)
    return np.maximum(residual + expected, 0) / phi, expected / phi


def deviance_root(seen: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Signed root of twice the log likelihood ratio: a z-score that holds for few counts too.

    Examples
    --------
    >>> np.round(deviance_root(np.array([1.0, 110.0, 0.0]), np.array([1e-5, 100.0, 8.0])), 2)
    array([ 4.59,  0.98, -4.  ])
    """
    half = xlogy(seen, seen / mean) - (seen - mean)
    return np.sign(seen - mean) * np.sqrt(2 * np.maximum(half, 0))


def tail_probability(seen: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Twice the probability of Poisson counts as far from their mean, or farther, on that side.

    Examples
    --------
    >>> np.round(tail_probability(np.array([3.0, 0.0]), np.array([0.1, 8.0])), 6)
    array([0.000309, 0.000671])
    """
    above = np.where(seen > 0, gammainc(np.maximum(seen, 1e-300), mean), 1.0)
    return np.minimum(2 * np.where(seen > mean, above, gammaincc(seen + 1, mean)), 1.0)
