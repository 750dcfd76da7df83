"""The noise of a score map is known: the counts are Poisson.

A score t_ik = sum_j p_kj X_ij / (g_i h_j) has the variance

    Var(t_ik) = sum_j p_kj^2 lambda_ij / (g_i h_j)^2

with lambda the expected counts. The components themselves are the model of lambda: with scores s_im
smoothed by a pixel, count-weighted, lambda_ij = g_i h_j sum_m s_im p_mj, so that the variance is

    Var(t_ik) = sum_m (s_im / g_i) W_mk,    W_mk = sum_j p_mj p_kj^2 / h_j

which needs no further pass over the counts. Components are fitted to their own noise, and counts
may have been scaled by others: the variance is scaled so that first differences of t / sd, from one
pixel to the next, have the variance that independent noise gives them. Steps of the signal itself
raise that of the strong components, whose scale is bounded by that of the later ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from edxdenoise import schema as v

# Later components add nothing to the expected counts but their noise.
_MODEL_COMPONENTS = 12
_SMOOTHING = 1.0  # pixels
# A smoothed model can fall to nothing between counts; no pixel is as sure as that.
_LEAST_VARIANCE = 0.05
# Overfitting differs from component to component by less than this.
MOST_SCALE = 1.25
_LATER = 12  # components looked at for the scale
# The median neighbour statistic of independent noise is 0 within .3; of smoothed maps, 200.
_CORRELATED = 3.0
_FEWEST_FOR_NULL = 12


@dataclass(frozen=True)
class ScoreNoise:
    """Score maps and the variance of their noise, one component at a time.

    Parameters
    ----------
    maps : array, shape (component, y, x)
        Scores t.
    model : array, shape (m, y, x)
        Smoothed profiles s / g of the components that expect the counts.
    transfer : array, shape (m, component)
        W of the module.
    filled : array of bool, shape (y, x)
        Pixels that hold counts; others have neither score nor noise.
    scale : float
        By how much the variance of the later components exceeds that of Poisson counts.
    """

    maps: np.ndarray
    model: np.ndarray
    transfer: np.ndarray
    filled: np.ndarray
    scale: float = np.inf

    def variance(self, index: int) -> np.ndarray:
        """Variance of the noise of score map `index` (from 0), shape (y, x), float32.

        Zero where there are no counts.
        """
        expected = self.poisson_variance(index)
        seen = noise_scale(self.maps[index], expected)
        return expected * np.float32(min(seen, MOST_SCALE * self.scale))

    def poisson_variance(self, index: int) -> np.ndarray:
        """Return the noise before it is scaled to what neighbouring pixels show."""
        raw = np.tensordot(self.transfer[:, index], self.model, axes=1)
        filled = self.filled
        if not filled.any():
            return np.zeros(filled.shape, np.float32)
        raw = np.maximum(raw, _LEAST_VARIANCE * max(raw[filled].mean(), 0))
        return np.where(filled, raw, 0).astype(np.float32)


def score_noise(ds: xr.Dataset) -> ScoreNoise:
    """Noise of the score maps of a decomposed map.

    Parameters
    ----------
    ds : Dataset
        With the computed components that `edxdenoise.pca` gives and the weights.

    Returns
    -------
    ScoreNoise
    """
    v.validate(
        ds, v.COMPONENT_MAP, v.COMPONENT_SPECTRUM, v.MEAN_SPECTRUM, v.WEIGHT_PIXEL, v.WEIGHT_ENERGY
    )
    maps = ds[v.COMPONENT_MAP].values
    loadings = ds[v.COMPONENT_SPECTRUM].values.astype(float)
    g, h = ds[v.WEIGHT_PIXEL].values, ds[v.WEIGHT_ENERGY].values.astype(float)
    # A pixel without counts has neither score nor noise.
    filled = np.zeros(g.shape, bool)
    for each in maps:
        filled |= np.abs(each) > 0
    first = loadings[:_MODEL_COMPONENTS]
    mean = ds[v.MEAN_SPECTRUM].values.astype(float)
    transfer = ((first / h) @ (loadings**2).T).astype(np.float32)
    constant = ((mean / h) @ (loadings**2).T).astype(np.float32)
    model = smoothed_profiles(maps[: len(first)], g, filled)
    if constant.any():
        # A mean that was taken off is one more component, with the same score everywhere.
        level = smoothed_profiles(np.ones((1, *g.shape), np.float32), g, filled)
        model = np.concatenate([model, level])
        transfer = np.concatenate([transfer, constant[None]])
    noise = ScoreNoise(maps, model, transfer, filled)
    count = len(maps)
    later = np.unique(np.linspace(count // 2, count - 1, min(_LATER, count)).astype(int))
    scales = [noise_scale(maps[k], noise.poisson_variance(k)) for k in later]
    return replace(noise, scale=float(np.median(scales)))


def smoothed_profiles(maps: np.ndarray, g: np.ndarray, filled: np.ndarray) -> np.ndarray:
    """Profiles t / g^2 smoothed with the counts g^2 as weights, so that thickness cancels.

    Parameters
    ----------
    maps : array, shape (m, y, x)
        Scores t, or what stands for them.
    g : array, shape (y, x)
    filled : array of bool, shape (y, x)

    Returns
    -------
    array of float32, shape (m, y, x)
        s / g of the module: what the variance multiplies with W.
    """
    from scipy import ndimage

    weights = np.where(filled, g.astype(np.float32) ** 2, 0)
    below = ndimage.gaussian_filter(weights, _SMOOTHING)
    below = np.where(below > 0, below, 1)
    # t is of the order of g: t = g c, so the weighted mean of c = t / g with weights g^2 is
    # K*(t g) / K*(g^2), and Var(t) = sum_m c_im W_mk.
    filled_g = np.where(filled, g, 0).astype(np.float32)
    profiles = np.empty(maps.shape, np.float32)
    for one, profile in zip(maps, profiles):
        ndimage.gaussian_filter(one * filled_g, _SMOOTHING, output=profile)
        profile /= below
    return profiles


def noise_scale(score: np.ndarray, variance: np.ndarray) -> float:
    """By how much the noise really seen, between neighbours, exceeds the variance expected.

    Parameters
    ----------
    score, variance : array, shape (y, x)

    Examples
    --------
    >>> score = np.random.default_rng(0).normal(scale=2, size=(100, 100))
    >>> round(noise_scale(score, np.ones((100, 100))), 1)
    4.0
    """
    valid = variance > 0
    z = score / np.sqrt(np.where(valid, variance, np.inf))
    total, number = 0.0, 0
    for first, second in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
        both = valid[first] & valid[second]
        step = (z[first] - z[second]) * both
        total += float(np.vdot(step, step))
        number += int(np.count_nonzero(both))
    # Not a median: the noise of few counts is spiky, and its variance lies in the spikes.
    return total / (2 * number) if total > 0 else 1.0


def neighbour_statistic(e: np.ndarray, variance: np.ndarray) -> float:
    """Sum of e_i e_j over neighbours, in standard deviations of independent noise.

    P. A. P. Moran, Biometrika 37 (1950) 17, with a variance for every pixel.

    Parameters
    ----------
    e, variance : array, shape (y, x)
        A map of mean 0 and the variance of its noise.
    """
    pairs = (np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])
    product = sum(float(np.vdot(e[i], e[j])) for i, j in pairs)
    null = sum(float(np.vdot(variance[i], variance[j])) for i, j in pairs)
    return product / np.sqrt(null) if null > 0 else 0.0


def noise_correlated(statistics: np.ndarray) -> bool:
    """Whether neighbouring pixels share their noise: later components, mostly noise, show it.

    Parameters
    ----------
    statistics : array, shape (component,)
        `neighbour_statistic` of every component. Too few of them say nothing.

    Examples
    --------
    >>> noise_correlated(np.array([900.0, 40.0] + [0.2] * 18))
    False
    >>> noise_correlated(np.array([900.0, 40.0] + [50.0] * 18))
    True
    """
    if len(statistics) < _FEWEST_FOR_NULL:
        return False
    return bool(np.median(statistics[len(statistics) // 2 :]) > _CORRELATED)
