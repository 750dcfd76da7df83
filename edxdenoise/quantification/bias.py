"""Whether denoising moved anything: net counts of raw minus denoised, summed over regions.

A dropped component takes its signal along, and no variance tells. But raw counts are unbiased: with
a and b as in `intensity`, their difference is sum_j (a_j - b_j) X_j, again a weighted sum of
Poisson counts, so that its variance is known and its z-score is near 0 where nothing was lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
import xarray as xr

from edxdenoise.compute import compute
from edxdenoise.cube import kept_maps
from edxdenoise.quantification.estimators import (
    behind_projection,
    line_weights,
    sums_counts,
    sums_denoised,
)
from edxdenoise.quantification.lines import LineSpec
from edxdenoise.schema import WEIGHT_PIXEL

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
    lost = weights.estimators - behind_projection(ds, weights.estimators)
    raw, denoised, variance = compute(
        sums_counts(ds, weights.estimators),
        sums_denoised(ds, weights.estimators),
        sums_denoised(ds, lost**2),
    )
    rows = []
    for region, mask in regions.items():
        for i, name in enumerate(lines):
            sums = [float(part.values[..., i][mask].sum()) for part in (raw, denoised, variance)]
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


def kmeans_regions(ds: xr.Dataset, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Masks of pixels alike in their kept components, as many regions as components.

    Scores are divided by the pixel weight, so that thickness does not count.
    """
    from sklearn.cluster import KMeans

    maps = kept_maps(ds).values / ds[WEIGHT_PIXEL.name].values
    pixels = maps.reshape(len(maps), -1).T.astype(float)
    pixels /= np.maximum(pixels.std(axis=0), np.finfo(float).tiny)
    sample = np.random.default_rng(seed).permutation(len(pixels))[:_SAMPLE]
    count = min(max(len(maps), 2), len(sample))
    clusters = KMeans(count, n_init=3, random_state=seed).fit(pixels[sample])
    labels = clusters.predict(pixels).reshape(maps.shape[1:])
    return {f"cluster {i + 1}": labels == i for i in range(count)}
