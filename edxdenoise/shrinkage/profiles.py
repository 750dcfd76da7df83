"""Kept score maps as profiles whose noise is known, independent and of size one on average.

The profile c = t / g of a pixel does not depend on its thickness. Its noise has the covariance

    Cov(c_k, c_l) = sum_m (s_m / g) W_mkl / n,    W_mkl = sum_j p_mj p_kj p_lj / h_j

(`edxdenoise.score_noise`, with the products of two loadings). Averaged over all counts N, n Cov is
1/N, white whatever the components, since Poisson weights are the roots of totals. A rotation within
the kept components makes the signal uncorrelated as well (A. A. Green et al., IEEE Trans. Geosci.
Remote Sens. 26 (1988) 65): what is noise in one rotated profile is none in another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from edxdenoise.score_noise import noise_scale, smoothed_profiles

# A smoothed model can fall to nothing between counts; no pixel is as sure as that.
_LEAST_VARIANCE = 0.05
# Share of the largest noise seen, that of steps included, below which a profile is empty.
_EMPTY = 1e-6


@dataclass(frozen=True)
class Profiles:
    """Rotated profiles of the kept components beside the first.

    Parameters
    ----------
    values, variance : array of float32, shape (y, x, k)
        Rotated profiles, and the variance of their noise.
    counts : array of float32, shape (y, x)
        Counts n of the pixels, 0 where there are none.
    back : array, shape (k, k)
        Profiles are ``values @ back``.
    scale : float
        By how much the noise seen exceeds that of Poisson counts; it is in the variance.
    """

    values: np.ndarray
    variance: np.ndarray
    counts: np.ndarray
    back: np.ndarray
    scale: float


def profiles(
    maps: np.ndarray, spectra: np.ndarray, g: np.ndarray, h: np.ndarray, filled: np.ndarray
) -> Profiles:
    """Profiles of components, of which the first, the total, has a constant one.

    Parameters
    ----------
    maps : array, shape (1 + k, y, x)
        Scores.
    spectra : array, shape (1 + k, energy)
        Loadings.
    g, h : array, shape (y, x), (energy,)
        Weights.
    filled : array of bool, shape (y, x)
        Pixels that hold counts.
    """
    counts = np.where(filled, g**2, 0)
    total = counts.sum()
    model = smoothed_profiles(maps.astype(np.float32), g, filled)
    others = spectra[1:]
    transfer = np.einsum("mj,kj,lj->mkl", spectra / h, others, others, optimize=True)
    values = np.moveaxis(np.where(filled, maps[1:] / g, 0), 0, -1).astype(np.float64)
    # n Cov(c) averaged over all counts is P P' / N = 1 / N, since h^2 are totals of channels.
    centred = values - np.tensordot(counts, values, axes=2) / total
    weighted = centred * counts[..., np.newaxis]
    variation = np.tensordot(weighted, centred, axes=((0, 1), (0, 1))) / filled.sum()
    rotation = scipy.linalg.eigh(variation)[1][:, ::-1] * np.sqrt(total)
    values = values @ rotation
    own = np.einsum("mkl,kq,lq->mq", transfer, rotation, rotation)
    per_count = np.tensordot(model, own, axes=(0, 0))
    per_count = np.maximum(per_count, _LEAST_VARIANCE)
    variance = np.divide(
        per_count, counts[..., np.newaxis], out=np.zeros_like(per_count), where=filled[..., None]
    )
    # Steps of the signal raise that of strong components; the least shows the noise. Components
    # of a rare channel have hardly a count, and show nothing.
    seen = np.array([noise_scale(values[..., k], variance[..., k]) for k in range(len(others))])
    scale = float(seen[seen > _EMPTY * seen.max()].min())
    return Profiles(
        values.astype(np.float32),
        (variance * scale).astype(np.float32),
        counts.astype(np.float32),
        np.linalg.inv(rotation),
        scale,
    )
