"""The residual audit: one pass over the counts, and a table of what a model dropped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import dask
import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from edxdenoise.audit.scan import (
    BLOCK,
    CELL,
    EXTENT,
    SHOWN,
    SMALL_TILES,
    Cells,
    Scanned,
    larger,
    merged,
    scan_pixels,
    scan_tiles,
    scan_whole,
    scan_windows,
    tests_made,
)
from edxdenoise.blocks import delayed_blocks
from edxdenoise.compute import as_blocks, compute
from edxdenoise.cube import check_cube, detector_resolution, energy_axis, energy_range
from edxdenoise.errors import DataError, ParameterError
from edxdenoise.quantification.estimators import behind_projection
from edxdenoise.schema import (
    COMPONENT_KEEP,
    COMPONENT_SPECTRUM,
    COUNTS,
    COUNTS_DENOISED,
    DIM_ENERGY,
    DIM_X,
    DIM_Y,
    WEIGHT_ENERGY,
    validate,
)
from edxdenoise.xray import fwhm, identified
from edxdenoise.xray.families import candidate_lines

# Rows of the table.
_MOST = 1000
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
        if len(self.table) == _MOST:
            features = f"{_MOST} features or more"
        name = f" ({first.lines})" if first.lines else ""
        return (
            f"The residuals show {features} that the model does not describe, the strongest at "
            f"{first.energy_low:.2f}-{first.energy_high:.2f} keV{name}, y {first.y_start}:"
            f"{first.y_stop}, x {first.x_start}:{first.x_stop}: {first.counts:,.0f} counts where "
            f"{first.expected:,.0f} are expected (z {first.z:.1f})"
        )


def residual_audit(ds: xr.Dataset, *, false_alarm_rate: float = 0.01) -> pd.DataFrame:
    """Places and energies where the counts differ from the denoised ones by more than chance.

    Counts and denoised counts are summed over tiles of 1, 4, 8, 16 ... pixels and the whole map,
    overlapping by half, and over windows of one FWHM and all channels. Each sum is compared with
    the tail of a Poisson law (`edxdenoise.audit.tails`). The false-alarm rate is that of the whole
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
    pandas.DataFrame
        One row per find, strongest first, at most 1000; finds that overlap a stronger one in place
        and energy are left out. No rows where nothing was found. ``size`` (side of the tile, in
        pixels); ``y_start``, ``y_stop``, ``x_start``, ``x_stop`` (pixels, as `slice` takes them);
        ``y_low``, ``y_high``, ``x_low``, ``x_high`` (in units of the map); ``energy_low``,
        ``energy_high`` (keV); ``lines`` (of the elements found; else of any, with a ``?``);
        ``counts``, ``expected``; ``z`` (signed root of the deviance); ``p`` (two-sided) and
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
    >>> from edxdenoise import Denoise, denoise, simulate
    >>> phantom = simulate("solar-cell", shape=(33, 50), channels=160, energy_width=0.08)
    >>> poor = denoise(phantom.compute(), Denoise(keep="1"))
    >>> residual_audit(poor).lines[0]
    'In_La'
    """
    return audit(ds, false_alarm_rate=false_alarm_rate).table


def audit(ds: xr.Dataset, *, false_alarm_rate: float = 0.01) -> Audit:
    """Scan the residuals as `residual_audit` does, and give what its picture needs as well."""
    if not 0 < false_alarm_rate < 1:
        raise ParameterError(
            f"false_alarm_rate is {false_alarm_rate}, must be between 0 and 1, such as 0.01"
        )
    validate(ds, COUNTS, COUNTS_DENOISED)
    check_cube(ds)
    energy_axis(ds)
    resolution = detector_resolution(ds)
    windows = scan_windows(ds[DIM_ENERGY].values, resolution)
    shape = (ds.sizes[DIM_Y], ds.sizes[DIM_X])
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
    finds = finds[merged(finds, _MOST)]
    profile = np.zeros((3, 0))
    if len(finds):
        (profile,) = [
            scan.profile[:, :-1] for scan in scans if len(scan.finds) and scan.finds[0] == finds[0]
        ]
    corrected = finds["p"] * [len(tests) * tests[size] for size in finds["size"]]
    table = _table(ds, finds, np.minimum(corrected, 1), resolution)
    energy = ds[DIM_ENERGY].values
    middles = (energy[windows[:-1, 0]] + energy[windows[:-1, 1] - 1]) / 2
    return Audit(table, false_alarm_rate, sum(tests.values()), peaks, middles, profile)


def _scan_blocks(
    ds: xr.Dataset, windows: np.ndarray, limits: dict[int, float]
) -> tuple[Cells, list[Scanned], np.ndarray]:
    """Cells of the whole map, what small tiles found, and their picture, in one pass."""
    shape = (ds.sizes[DIM_Y], ds.sizes[DIM_X])
    inside = np.zeros((ds.sizes[DIM_ENERGY], len(windows)))
    for column, (first, last) in enumerate(windows):
        inside[first:last, column] = 1
    lost = inside
    if all(spec.name in ds for spec in (COMPONENT_SPECTRUM, COMPONENT_KEEP, WEIGHT_ENERGY)):
        lost = inside - behind_projection(ds, inside.T).T
    weights = dask.delayed(
        (inside.astype(np.float32), np.hstack([inside, lost**2]).astype(np.float32))
    )
    cubes = []
    for spec in (COUNTS, COUNTS_DENOISED):
        cube = ds[spec.name].data
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
        raise DataError("the denoised counts are not finite; denoise anew")
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
    for dim in (DIM_Y, DIM_X):
        positions = ds[dim].values
        step = (positions[-1] - positions[0]) / max(len(positions) - 1, 1) or 1.0
        table[f"{dim}_low"] = positions[finds[f"{dim}_start"]] - step / 2
        table[f"{dim}_high"] = positions[finds[f"{dim}_stop"] - 1] + step / 2
    low, high = (start + (finds[name] - 0.5) * width for name in ("first", "last"))
    table["energy_low"], table["energy_high"] = low, high
    narrow = finds["last"] - finds["first"] < ds.sizes[DIM_ENERGY]
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
