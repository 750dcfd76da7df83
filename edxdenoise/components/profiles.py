"""Kept score maps as profiles of uncorrelated signal, whose noise is known.

The profile of a pixel, c_k = t_k / g times the root of all counts N, does not depend on the
thickness: it is a mean over the n counts of the pixel, sum_j X_j p_kj / h_j / n. How n counts fall
upon channels is multinomial. With s_j = h_j sum_m c_m p_mj / sqrt(N) the spectrum of the pixel,
m = 1 the total, whose profile is 1,

    n Var(c_k) = sum_j s_j N p_kj^2 / h_j^2 - c_k^2,

which for the mean spectrum is 1 for every component, and no two of them are correlated: profiles
are white, and stay so under rotation. They are rotated so that their signal, the covariance between
neighbouring pixels, is uncorrelated too (A. A. Green et al., IEEE Trans. Geosci. Remote Sens. 26
(1988) 65). A pixel without counts has no profile and the weight 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg

from edxdenoise.components.smoothing import gaussian

# Pixels over which the signal is looked for, in two scales.
_SCALES = (1.0, 4.0)
# Variance over that of the mean spectrum; no pixel is known better than that.
_LEAST_VARIANCE = 0.05


@dataclass(frozen=True)
class Profiles:
    """Rotated profiles of the kept components beside the first.

    Parameters
    ----------
    values : array of float32, shape (k, y, x)
        0 where there are no counts.
    counts : array of float32, shape (y, x)
        n, the weight.
    rotation : array, shape (k, k)
        Profiles of the components are ``rotation @ values``.
    constant, slope : array, shape (k,), (k, k)
        n Var(c) is ``constant + slope @ c - c^2``.
    scale : float
        Variance of the noise over that of Poisson counts.
    """

    values: np.ndarray
    counts: np.ndarray
    rotation: np.ndarray
    constant: np.ndarray
    slope: np.ndarray
    scale: float

    def rows(self, rows: slice) -> Profiles:
        """Return the profiles of some rows."""
        values, counts = self.values[:, rows], self.counts[rows]
        return replace(self, values=np.ascontiguousarray(values), counts=counts)

    def variance(self, smoothed: np.ndarray) -> np.ndarray:
        """v: n times the variance of the noise where the profiles are `smoothed`, like `values`."""
        result = np.tensordot(self.slope.astype(np.float32), smoothed, axes=1)
        result += self.constant.astype(np.float32)[:, np.newaxis, np.newaxis]
        result -= smoothed**2
        np.maximum(result, np.float32(_LEAST_VARIANCE), out=result)
        result *= np.float32(self.scale)
        return result


def profiles(
    maps: np.ndarray,
    spectra: np.ndarray,
    g: np.ndarray,
    h: np.ndarray,
    counts: np.ndarray,
    scale: float = 1.0,
) -> Profiles:
    """Profiles of components, of which the first is the total.

    Parameters
    ----------
    maps : array, shape (1 + k, y, x)
        Scores.
    spectra : array, shape (1 + k, energy)
        Loadings.
    g, h : array, shape (y, x), (energy,)
        Weights.
    counts : array, shape (y, x)
        Counts of the pixels.
    scale : float
        Variance of the noise over that of Poisson counts.
    """
    counts = np.asarray(counts, np.float32)
    total = counts.sum(dtype=float)
    others = spectra[1:].astype(float)
    known = counts > 0
    inverse = np.where(known, np.sqrt(total) / np.where(known, g, 1), 0).astype(np.float32)
    values = maps[1:] * inverse
    rotation = signal_directions(values, counts)
    values = np.tensordot(rotation.T.astype(np.float32), values, axes=1)
    rotated = rotation.T @ others
    square = total * rotated**2 / h**2
    first = spectra[0].astype(float) * h
    # The first profile is 1: its spectrum is that of all counts.
    constant = square @ first / first.sum()
    slope = square @ (rotated * h).T / np.sqrt(total)
    return Profiles(values, counts, rotation, constant, slope, scale)


def signal_directions(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Rotation (k, k) that makes the covariance between neighbours diagonal, strongest first."""
    depth = len(values)
    product = values * counts
    total = np.zeros((depth, depth))
    for scale in _SCALES:
        kernel = gaussian(scale, *counts.shape)
        below = np.maximum(kernel.sums(counts[np.newaxis]), np.finfo(np.float32).tiny)
        near = (kernel.sums(product) - kernel.centre.astype(np.float32) * product) / below
        total += _products(product, near)
    mean = product.sum(axis=(1, 2), dtype=float)
    total -= len(_SCALES) * np.outer(mean, mean) / max(counts.sum(dtype=float), 1)
    directions = scipy.linalg.eigh((total + total.T) / 2)[1][:, ::-1]
    if not depth:
        return directions
    # The sign is arbitrary, and perturbations of the data have signs as well.
    largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=0)[np.newaxis], axis=0)
    return directions * np.sign(largest)


def _products(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Sums over pixels of the products of two stacks of maps, in 64 bits row by row."""
    return sum(
        a.astype(float) @ b.astype(float).T
        for a, b in zip(np.moveaxis(first, 1, 0), np.moveaxis(second, 1, 0))
    )
