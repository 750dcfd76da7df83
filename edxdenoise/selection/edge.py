"""The noise edge that random-matrix theory gives for Poisson-weighted counts."""

from __future__ import annotations

import numpy as np
import xarray as xr

from edxdenoise.errors import DataError
from edxdenoise.schema import WEIGHT_ENERGY, WEIGHT_PIXEL


def noise_edge(pixels: int, channels: int, total_counts: float) -> float:
    """Largest singular value that pure Poisson noise of rank-one mean gives the weighted data.

    The weighted noise has variance 1/N in every entry, N the number of all counts, so that its
    singular values end at (sqrt(pixels) + sqrt(channels)) / sqrt(N) (V. A. Marchenko and L. A.
    Pastur, Math. USSR Sb. 1 (1967) 457). Specimens whose noise is not of rank one, those with
    layers, have noise beyond the edge.

    Parameters
    ----------
    pixels, channels : int
        Those that hold any counts.
    total_counts : float
        N.

    Examples
    --------
    >>> round(noise_edge(165_000, 650, 165e6), 4)
    0.0336
    """
    return float((np.sqrt(pixels) + np.sqrt(channels)) / np.sqrt(total_counts))


def weighted_noise_edge(ds: xr.Dataset) -> float:
    """Singular value at the noise edge, from the weights (the root of every total).

    Raises
    ------
    DataError
        If the counts are not Poisson-weighted.
    """
    g, h = ds[WEIGHT_PIXEL.name].values, ds[WEIGHT_ENERGY.name].values
    if (g == 1).all() and (h == 1).all():
        raise DataError("the noise edge needs Poisson weights; use weighting='poisson'")
    # Empty pixels and channels have weight 1, and so has the rare one with a single count.
    pixels, channels = int(np.count_nonzero(g != 1)), int(np.count_nonzero(h != 1))
    return noise_edge(pixels, channels, float((h[h != 1] ** 2).sum()))
