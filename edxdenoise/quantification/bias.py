"""Whether denoising moved anything: net counts of raw minus denoised, summed over regions.

A dropped component takes its signal along, and no variance tells. But raw counts are unbiased: with
a and b as in `intensity`, their difference is sum_j (a_j - b_j) X_j, again a weighted sum of
Poisson counts, so that its variance is known and its z-score is near 0 where nothing was lost.

Over all pixels that are alike in their kept components the difference has next to no noise. Its
square, for the counts of one pixel, is the bias of each of them squared, with the error of
knowing it: raw counts vouch for a material no better than that.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping

import dask
import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from edxdenoise.compute import compute
from edxdenoise.cube import kept_maps
from edxdenoise.errors import EdxdenoiseWarning
from edxdenoise.quantification.estimators import (
    behind_projection,
    line_weights,
    sums_counts,
    sums_denoised,
)
from edxdenoise.quantification.lines import LineSpec
from edxdenoise.quantification.shrunk import is_shrunk
from edxdenoise.schema import DIM_LINE, DIM_X, DIM_Y, WEIGHT_PIXEL

# Groups of pixels that are alike, and pixels in one on average, at least.
_ALIKE = 64
_FEWEST = 200
# Steps of k-means that are enough for them.
_ROUGH = 20
# Standard deviations beyond which one of some hundred differences is no chance, and the share of
# the counts from which it matters.
_SURELY, _MUCH = 5.0, 0.05
# K-means looks at no more pixels than these: enough for centres, whatever the map.
_SAMPLE = 20_000


def bias_table(
    ds: xr.Dataset,
    lines: Mapping[str, LineSpec],
    regions: Mapping[str, np.ndarray],
    *,
    intensities: str = "windows-linear",
    elements: Iterable[str] = (),
) -> pd.DataFrame:
    """Net counts of raw minus denoised by region and line, with z-scores.

    Parameters
    ----------
    ds : Dataset
        Denoised, with its ``counts``.
    lines : mapping of str to LineSpec
        As `line_intensity` takes them.
    regions : mapping of str to array of bool, shape (y, x)
        By name; see `area_regions` and `kmeans_regions`.
    intensities, elements
        As `line_intensity` takes them, the file's elements by default; a fit is compared without
        the bound at 0, which is not linear.

    Returns
    -------
    pandas.DataFrame
        One row per region and line: ``region``, ``line``, ``raw``, ``denoised``, ``difference``,
        ``stddev`` and ``z``.
    """
    elements = tuple(elements) or tuple(ds.attrs.get("elements", ()))
    weights = line_weights(ds, lines, intensities=intensities, elements=elements)
    maps = [part.values for part in compute(*_both(ds, weights.estimators))]
    rows = []
    for region, mask in regions.items():
        for i, name in enumerate(lines):
            sums = [float(part[..., i][mask].sum()) for part in maps]
            stddev = float(np.sqrt(max(sums[2], 0.0)))
            difference = sums[0] - sums[1]
            rows.append(
                {
                    "region": region,
                    "line": name,
                    "raw": sums[0],
                    "denoised": sums[1],
                    "difference": difference,
                    "stddev": stddev,
                    "z": difference / stddev if stddev > 0 else np.nan,
                }
            )
    return pd.DataFrame(rows)


def moved(ds: xr.Dataset, lines: Mapping[str, LineSpec], estimators: np.ndarray) -> xr.DataArray:
    """Raw less denoised net counts of pixels like each, for its counts: dims (y, x, line).

    Warns of lines where that is much, and far beyond the noise. Lazy where the maps or counts are.

    Parameters
    ----------
    ds : Dataset
        Denoised, with its ``counts``.
    lines : mapping of str to LineSpec
    estimators : array, shape (line, energy)
        What each channel of the raw counts weighs.
    """
    kept, g = kept_maps(ds), ds[WEIGHT_PIXEL.name]
    arrays = [part.data for part in (kept, g, *_both(ds, estimators))]
    found: np.ndarray | da.Array
    if any(isinstance(array, da.Array) for array in arrays):
        later = dask.delayed(_moved)(list(lines), *arrays)
        found = da.from_delayed(later, (*g.shape, len(lines)), np.float32)
    else:
        found = _moved(list(lines), *arrays)
    return xr.DataArray(found, dims=(DIM_Y, DIM_X, DIM_LINE))


def _moved(
    names: list[str],
    kept: np.ndarray,
    g: np.ndarray,
    raw: np.ndarray,
    denoised: np.ndarray,
    variance: np.ndarray,
) -> np.ndarray:
    # Any groups of like pixels will do, and need not be the best there are.
    count = max(min(_ALIKE, g.size // _FEWEST), 1)
    labels = _alike(kept / g, count, seed=0, steps=_ROUGH)
    counts, flat = g.astype(float) ** 2, labels.ravel()

    def by_label(values: np.ndarray) -> np.ndarray:
        return np.bincount(flat, values.ravel())

    total, pixels = by_label(counts), np.bincount(flat)
    found = np.empty(raw.shape, np.float32)
    told = []
    for i, name in enumerate(names):
        before, after, spread = (by_label(part[..., i]) for part in (raw, denoised, variance))
        difference, noise = before - after, np.sqrt(np.maximum(spread, 0))
        share = np.divide(difference, total, out=np.zeros_like(total), where=total > 0)
        found[..., i] = share[labels] * counts
        much = (np.abs(difference) > _MUCH * np.abs(before)) & (noise > 0)
        z = np.divide(np.abs(difference), noise, out=np.zeros_like(total), where=much)
        worst = int(np.argmax(z))
        if z[worst] > _SURELY:
            told.append(
                f"{name} {after[worst]:.3g} for {before[worst]:.3g} in {pixels[worst]} pixels "
                f"({z[worst]:.0f} standard deviations)"
            )
    if told:
        warnings.warn(
            "over pixels alike in their components denoised net counts differ from raw ones: "
            f"{', '.join(told)}; errors of pixels include it. More components, or no shrinkage, "
            "lessen it",
            EdxdenoiseWarning,
            stacklevel=3,
        )
    return found


def _both(ds: xr.Dataset, estimators: np.ndarray) -> list[xr.DataArray]:
    """Raw and denoised net counts and the variance of their difference, dims (y, x, row).

    Shrunk maps have next to none of the noise of their pixels, which the raw counts have in full.
    """
    lost = estimators if is_shrunk(ds) else estimators - behind_projection(ds, estimators)
    rows = np.vstack([estimators, lost**2])
    denoised = sums_denoised(ds, rows).astype(np.float32)
    parts = np.split(np.arange(len(rows)), 2)
    raw = sums_counts(ds, estimators).astype(np.float32)
    return [raw, *(denoised.isel(row=part) for part in parts)]


def kmeans_regions(ds: xr.Dataset, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Masks of pixels alike in their kept components, as many regions as components."""
    maps = kept_maps(ds).values / ds[WEIGHT_PIXEL.name].values
    labels = _alike(maps, max(len(maps), 2), seed=seed)
    return {f"cluster {i + 1}": labels == i for i in range(labels.max() + 1)}


def _alike(profiles: np.ndarray, count: int, *, seed: int, steps: int = 300) -> np.ndarray:
    """Number from 0 of the cluster that each pixel is of, shape (y, x).

    By scores over the pixel weight, shape (component, y, x), so that thickness does not count.
    """
    from sklearn.cluster import KMeans

    pixels = profiles.reshape(len(profiles), -1).T.astype(float)
    pixels /= np.maximum(pixels.std(axis=0), np.finfo(float).tiny)
    sample = np.random.default_rng(seed).permutation(len(pixels))[:_SAMPLE]
    means = KMeans(min(count, len(sample)), n_init=3, max_iter=steps, random_state=seed)
    return means.fit(pixels[sample]).predict(pixels).reshape(profiles.shape[1:])
