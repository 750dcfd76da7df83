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

from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg

from edxdenoise.score_noise import MOST_SCALE, noise_scale, smoothed_profiles
from edxdenoise.shrinkage.bands import bands

# A smoothed model can fall to nothing between counts; no pixel is as sure as that.
_LEAST_VARIANCE = 0.05
# Share of the noise that a mean square is taken to hold, at most: pixels of two counts.
_MOST_TAKEN = 0.5


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

    def rows(self, rows: slice) -> Profiles:
        """The same of some rows."""
        return replace(
            self,
            values=self.values[rows],
            variance=self.variance[rows],
            counts=self.counts[rows],
        )


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
        By how much the noise of later components exceeds that of Poisson counts.
    """
    rows, columns = filled.shape
    counts = np.where(filled, g**2, 0).astype(np.float32)
    total = counts.sum(dtype=float)
    others, inverse = spectra[1:], np.where(filled, 1 / g, 0).astype(np.float32)
    values = np.empty((rows, columns, len(others)), np.float32)
    first, second = np.zeros(len(others)), np.zeros((len(others), len(others)))
    for band, *_ in bands(rows, columns):
        part = np.moveaxis(maps[1:, band] * inverse[band], 0, -1).astype(float)
        weighted = part * counts[band, :, np.newaxis]
        first += weighted.sum(axis=(0, 1))
        second += np.tensordot(weighted, part, axes=((0, 1), (0, 1)))
        values[band] = part
    variation = (second - np.outer(first, first) / total) / filled.sum()
    rotation = scipy.linalg.eigh(variation)[1][:, ::-1] * np.sqrt(total)
    for band, *_ in bands(rows, columns):
        values[band] = values[band] @ rotation
    transfer = np.einsum("mj,kj,lj->mkl", spectra / h, others, others, optimize=True)
    own = np.einsum("mkl,kq,lq->mq", transfer, rotation, rotation).astype(np.float32)
    model = smoothed_profiles(maps.astype(np.float32, copy=False), g, filled)
    # The mean square of c has 1/n of its noise in it, with n that of the pixels nearby.
    taken = smoothed_profiles(inverse[np.newaxis], g, filled)[0]
    taken = 1 - np.minimum(taken, _MOST_TAKEN)
    variance = np.empty_like(values)
    for k in range(len(others)):
        square = (values[..., k] ** 2 * np.where(filled, g, 0))[np.newaxis]
        per_count = np.tensordot(own[:, k], model, axes=1)
        per_count -= smoothed_profiles(square, g, filled)[0]
        per_count = np.maximum(per_count / taken, _LEAST_VARIANCE)
        variance[..., k] = per_count * inverse**2
    # Kept components may have a little less noise than later ones; steps of the signal raise it.
    seen = [noise_scale(values[..., k], variance[..., k]) for k in range(len(others))]
    scale *= float(np.clip(min(seen) / scale, 1 / MOST_SCALE, 1))
    variance *= np.float32(scale)
    return Profiles(values, variance, counts, np.linalg.inv(rotation), scale)
