"""The noise edge that random-matrix theory gives for Poisson-weighted counts."""

from __future__ import annotations

import numpy as np
import xarray as xr

from edxdenoise.cube import is_poisson_weighted, pixel_counts, sum_spectrum
from edxdenoise.errors import DataError


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
    """Singular value at the noise edge, from the counts of pixels and channels.

    Raises
    ------
    DataError
        If the counts are not Poisson-weighted.
    """
    if not is_poisson_weighted(ds):
        raise DataError("the noise edge needs Poisson weights; use weighting='poisson'")
    of_pixels, of_channels = pixel_counts(ds), sum_spectrum(ds)
    pixels, channels = (int(np.count_nonzero(each)) for each in (of_pixels, of_channels))
    return noise_edge(pixels, channels, float(of_pixels.sum()))
