"""Whether shrinkage helps on these data: its error on counts that it has not seen.

The counts are thinned into halves A and B, independent Poisson measurements (see
`edxdenoise.thin`). Scores are linear in the counts, so that profiles c_A and c_B follow without a
new decomposition, each with twice the variance of c, which is known. With c^_A the profiles of A
after shrinkage,

    sum_i n_i ((c^_iA - c_iB)^2 - var_iB)

is an unbiased estimate of the error of c^_A, whatever the truth, and that of c_A itself is known:
sum_i n_i var_iA. Their ratio is below 1 where shrinkage helps. Counts that are not whole cannot be
thinned; normal noise of the known variance, added to c for A and taken off for B, does the same (N.
L. Oliveira, J. Lei and R. J. Tibshirani, arXiv:2111.09447).
"""

from __future__ import annotations

from dataclasses import replace

import dask.array as da
import numpy as np
import xarray as xr

from edxdenoise.compute import chunk, compute
from edxdenoise.cube import is_lazy
from edxdenoise.decompose.gram import project
from edxdenoise.preprocess import thin
from edxdenoise.schema import (
    COMPONENT_KEEP,
    COMPONENT_SPECTRUM,
    COUNTS,
    WEIGHT_ENERGY,
    WEIGHT_PIXEL,
)
from edxdenoise.shrinkage.estimate import (
    Shrunk,
    area_numbers,
    shrink_profiles,
    shrink_totals,
)
from edxdenoise.shrinkage.profiles import Profiles

# Blocks of rows whose scatter gives the error of the ratio.
_PARTS = 20


def held_out_ratio(ds: xr.Dataset, noisy: Profiles, *, seed: int = 0) -> tuple[float, float]:
    """Error of shrunk profiles over that of the profiles as they are, and its standard deviation.

    Parameters
    ----------
    ds : Dataset
        With ``counts``, weights, kept components and, where maps are stacked, ``area``.
    noisy : Profiles
        Of the kept components of `ds`.
    seed : int
        Of the split.
    """
    values = noisy.values.astype(float)
    if ds[COUNTS.name].dtype.kind == "u":
        found = _half(ds, noisy, seed)
    else:
        random = np.random.default_rng(seed)
        found = values + np.sqrt(noisy.variance) * random.standard_normal(values.shape)
    held_out = 2 * values - found
    half = replace(
        noisy,
        values=found.astype(np.float32),
        variance=2 * noisy.variance,
        counts=noisy.counts / 2,
    )
    shrunk = shrink_profiles(half, area_numbers(ds))
    weights = noisy.counts[..., None].astype(float)
    error = weights * ((shrunk.values - held_out) ** 2 - half.variance)
    plain = weights * half.variance
    parts = [
        (part.sum(), whole.sum())
        for part, whole in zip(
            np.array_split(error, min(_PARTS, len(error))),
            np.array_split(plain, min(_PARTS, len(plain))),
        )
    ]
    above, below = np.array(parts).T
    ratio = above.sum() / below.sum()
    # Of a ratio of sums over parts (W. G. Cochran, Sampling Techniques, 1977, eq. 6.13).
    scatter = np.sqrt(((above - ratio * below) ** 2).sum()) / below.sum()
    return float(ratio), float(scatter)


def held_out_totals(noisy: Profiles, shrunk: Shrunk, area: np.ndarray, *, seed: int = 0) -> float:
    """Error of shrunk totals over that of the totals as they are.

    Totals are counts enough for normal noise: see the module.
    """
    random = np.random.default_rng([seed, 1])
    noise = np.sqrt(noisy.scale * noisy.counts) * random.standard_normal(noisy.counts.shape)
    found, held_out = noisy.counts + noise, noisy.counts - noise
    totals = shrink_totals(noisy, shrunk, area, found, spread=2)[0]
    variance = 2 * noisy.scale * noisy.counts.sum(dtype=float)
    error = ((totals - held_out) ** 2)[noisy.counts > 0].sum(dtype=float) - variance
    return float(error / variance)


def _half(ds: xr.Dataset, noisy: Profiles, seed: int) -> np.ndarray:
    """Rotated profiles of half of the counts, twice, shape (y, x, k)."""
    blocks = ds if is_lazy(ds) else chunk(ds)
    counts = thin(blocks[[COUNTS.name]], seed=seed)[0][COUNTS.name].data
    g, h = ds[WEIGHT_PIXEL.name].values, ds[WEIGHT_ENERGY.name].values
    kept = np.flatnonzero(ds[COMPONENT_KEEP.name].values)[1:]
    loadings = np.linalg.inv(noisy.back).T @ ds[COMPONENT_SPECTRUM.name].values[kept] / h
    weights = da.asarray(g).rechunk(counts.chunks[:2])
    (scores,) = compute(project(counts, weights, da.asarray(loadings)))
    return 2 * np.moveaxis(scores, 0, -1) / g[..., None]
