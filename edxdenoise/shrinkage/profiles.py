"""Kept score maps as profiles of uncorrelated signal, whose noise is known.

The profile c = t / g of a pixel does not depend on its thickness: it is a mean over the n counts of
the pixel, c_k = sum_j X_j p_kj / h_j / n. How n counts fall upon channels is multinomial, so that

    Cov(c_k, c_l) = (sum_m (s_m / g) W_mkl - c_k c_l) / n,    W_mkl = sum_j p_mj p_kj p_lj / h_j

(`edxdenoise.score_noise`, with the products of two loadings). What c_k c_l is without noise the
pixels nearby tell, their own squares averaged less their noise: squares of a smoothed profile would
take the step at an interface for noise. A rotation within the kept components
makes the signal uncorrelated (A. A. Green et al., IEEE Trans. Geosci. Remote Sens. 26 (1988) 65).
The first term is white whatever the rotation: averaged over all counts N it is 1/N, since Poisson
weights are the roots of totals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from edxdenoise.score_noise import noise_scale, smoothed_profiles

# A smoothed model can fall to nothing between counts; no pixel is as sure as that.
_LEAST_VARIANCE = 0.05
# Share of the noise that a mean square is taken to hold, at most: pixels of two counts.
_MOST_TAKEN = 0.5
# Share of the largest noise seen below which a profile is empty.
_EMPTY = 1e-6
# Standard deviations beyond which neighbours differ by more than noise.
_STEP = 4.0


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
    maps: np.ndarray,
    spectra: np.ndarray,
    g: np.ndarray,
    h: np.ndarray,
    filled: np.ndarray,
    scale: float = 1.0,
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
    scale : float
        By how much about the noise exceeds that of Poisson counts.
    """
    counts = np.where(filled, g**2, 0)
    total = counts.sum()
    model = smoothed_profiles(maps.astype(np.float32), g, filled)
    others = spectra[1:]
    transfer = np.einsum("mj,kj,lj->mkl", spectra / h, others, others, optimize=True)
    values = np.moveaxis(np.where(filled, maps[1:] / g, 0), 0, -1).astype(np.float64)
    centred = values - np.tensordot(counts, values, axes=2) / total
    weighted = centred * counts[..., np.newaxis]
    variation = np.tensordot(weighted, centred, axes=((0, 1), (0, 1))) / filled.sum()
    rotation = scipy.linalg.eigh(variation)[1][:, ::-1] * np.sqrt(total)
    values = values @ rotation
    own = np.einsum("mkl,kq,lq->mq", transfer, rotation, rotation)
    squares = np.moveaxis(values**2, -1, 0) * g
    *squares, below = smoothed_profiles(np.concatenate([squares, [1 / g]]), g, filled)
    # The mean square of c has 1/n of its noise in it, with n that of the pixels nearby.
    per_count = np.tensordot(model, own, axes=(0, 0)) - np.stack(squares, axis=-1)
    per_count /= 1 - np.minimum(below, _MOST_TAKEN)[..., np.newaxis]
    per_count = np.maximum(per_count, _LEAST_VARIANCE)
    variance = np.divide(
        per_count, counts[..., np.newaxis], out=np.zeros_like(per_count), where=filled[..., None]
    )
    # Small steps of the signal raise that of strong components; the least shows the noise.
    # Components of a rare channel have hardly a count, and show nothing.
    seen = np.array(
        [noise_scale(values[..., k], scale * variance[..., k], _STEP) for k in range(len(others))]
    )
    scale *= float(seen[seen > _EMPTY * seen.max()].min())
    return Profiles(
        values.astype(np.float32),
        (variance * scale).astype(np.float32),
        counts.astype(np.float32),
        np.linalg.inv(rotation),
        scale,
    )
