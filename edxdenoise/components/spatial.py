"""The spatial statistic: real components look alike in neighbouring pixels, shot noise does not.

With e the score map without its mean, K_s a Gaussian of s pixels that sums to 1 and K0_s the same
without its centre, so that no pixel meets itself,

    Q_s = e' K0_s e,    h_s = Q_s / sqrt(2 v' (K0_s^2) v)

where v is the known variance of the noise (see `score_noise`) and the square is taken
element by element. For independent noise, even or not, Q_s has mean 0 and h_s variance 1 (a
quadratic form of independent numbers). The statistic is the largest h_s of several scales and of
the nearest neighbours alone (P. A. P. Moran, Biometrika 37 (1950) 17, with unequal variances).

A significant component can still be useless. Where the signal is smooth over s, Q_s sums its
energy, and

    r = sqrt(max_s Q_s / (e'e (1 - centre of K_s)))

estimates the correlation of the map with the map free of noise: the effect size.

Maps that were smoothed, interpolated or corrected for drift before have noise that is correlated,
and everything looks like signal. The later half of the components shows it, most of which is
noise: where its median neighbour statistic is far from 0, all statistics are centred on that half
and scaled by its spread (an empirical null: B. Efron, J. Am. Stat. Assoc. 99 (2004) 96).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy import fft
from scipy.special import expit, ndtr
from threadpoolctl import threadpool_limits

from edxdenoise import schema as v
from edxdenoise.components.score_noise import (
    ScoreNoise,
    neighbour_statistic,
    noise_correlated,
    score_noise,
)
from edxdenoise.resources import default_workers

# Attribute of the statistic in a Dataset: 1 where neighbouring pixels share their noise.
NOISE_CORRELATED = "noise_correlated"
SCALES = (0.6, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
# Wider kernels see the border more than the map, and average gradients away.
_EFFECT_SCALES = 8.0
# A kernel must fit: the statistic of one wider than this share of the map is hardly normal.
_WIDEST = 0.25
# Zeros around the map, in widths of the kernel, so that opposite borders do not meet.
_PAD, _LEAST_PAD = 4, 8
LEAST_STATISTIC, LEAST_EFFECT = 4.0, 0.1
_EFFECT_STEP = 0.02
_NORMAL_QUARTILE = 0.6745
_NULL_SPREADS = 3.0


@dataclass(frozen=True)
class SpatialEvidence:
    """Evidence of neighbouring pixels for every component.

    Parameters
    ----------
    statistic : array, shape (component,)
        Largest statistic of all scales, in standard deviations of noise.
    effect_size : array, shape (component,)
        Estimate of the correlation with the map free of noise, 0 to 1.
    correlated : bool
        Whether the noise itself is correlated between pixels.
    """

    statistic: np.ndarray
    effect_size: np.ndarray
    correlated: bool

    @property
    def signal(self) -> np.ndarray:
        """Significant and large enough to be of use, array of bool, shape (component,)."""
        return (self.statistic > LEAST_STATISTIC) & (self.effect_size > LEAST_EFFECT)

    @property
    def probability(self) -> np.ndarray:
        """Return the evidence as a number from 0 to 1, array, shape (component,)."""
        useful = expit((self.effect_size - LEAST_EFFECT) / _EFFECT_STEP)
        return useful * ndtr(self.statistic - LEAST_STATISTIC)


def spatial_evidence(ds: xr.Dataset, *, noise: ScoreNoise | None = None) -> SpatialEvidence:
    """Spatial statistic and effect size of every component.

    Parameters
    ----------
    ds : Dataset
        With computed components and weights.
    noise : ScoreNoise, optional
        What `score_noise` says of them, where it is known already.

    Returns
    -------
    SpatialEvidence
    """
    noise = score_noise(ds) if noise is None else noise
    count = len(noise.maps)
    scales = [s for s in SCALES if s <= max(_WIDEST * min(noise.filled.shape), SCALES[0])]
    # One BLAS thread each: two layers of threads would fight for the processors.
    with threadpool_limits(1), ThreadPoolExecutor(default_workers()) as pool:
        rows = list(
            pool.map(
                lambda k: spatial_sums(noise.maps[k], noise.variance(k), noise.filled, scales),
                range(count),
            )
        )
    heights = np.array([row[0] for row in rows])
    shares = np.array([row[1] for row in rows])
    correlated = noise_correlated(heights[:, 0])
    if correlated:
        middle, spread = _null(heights[count // 2 :])
        heights = (heights - middle) / np.maximum(spread, 1)
        # What noise alone may well show is no effect.
        middle, spread = _null(shares[count // 2 :])
        shares = shares - middle - _NULL_SPREADS * spread
    narrow = [i for i, s in enumerate(scales) if s <= _EFFECT_SCALES]
    effect = np.sqrt(np.clip(shares[:, narrow].max(axis=1), 0, 1))
    return SpatialEvidence(heights.max(axis=1), effect, correlated)


def evidence_of(ds: xr.Dataset, noise: ScoreNoise | None = None) -> SpatialEvidence:
    """The spatial evidence that `edxdenoise.select` wrote, or what is found where it has not."""
    if v.COMPONENT_SPATIAL_STATISTIC not in ds:
        return spatial_evidence(ds, noise=noise)
    statistic = ds[v.COMPONENT_SPATIAL_STATISTIC]
    return SpatialEvidence(
        statistic.values,
        ds[v.COMPONENT_EFFECT_SIZE].values,
        bool(statistic.attrs[NOISE_CORRELATED]),
    )


def _null(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median and robust standard deviation of components that are noise, most of them."""
    middle = np.median(rows, axis=0)
    return middle, np.median(np.abs(rows - middle), axis=0) / _NORMAL_QUARTILE


def spatial_sums(
    score: np.ndarray, variance: np.ndarray, filled: np.ndarray, scales: list[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Statistics of one map before any centring.

    Parameters
    ----------
    score, variance : array, shape (y, x)
        Scores and the variance of their noise.
    filled : array of bool, shape (y, x)
        Pixels that count.
    scales : list of float
        Widths s in pixels.

    Returns
    -------
    heights : array, shape (1 + scale,)
        Neighbour statistic, then h_s of every scale.
    shares : array, shape (scale,)
        Q_s / (e'e (1 - centre)).
    """
    e = np.where(filled, score - score[filled].mean() if filled.any() else 0, 0)
    neighbour = neighbour_statistic(e, variance)
    energy, square = float((e**2).sum(dtype=float)), float((variance**2).sum(dtype=float))
    if not (energy > 0 and square > 0):
        return np.zeros(1 + len(scales)), np.zeros(len(scales))
    # One transform gives the sums of all scales: e'Ke is a sum over the power spectrum.
    pad = max(_LEAST_PAD, int(_PAD * max(scales)))
    sizes = [fft.next_fast_len(n + pad, real=True) for n in e.shape]
    power = _power(e, sizes)
    power_variance = _power(variance, sizes)
    heights, shares = [neighbour], []
    for s in scales:
        rows, columns = (_kernel(n, s) for n in sizes)
        centre = rows[0] * columns[0]
        q = _form(power, rows, columns, sizes) - centre * energy
        null = _form(power_variance, rows**2, columns**2, sizes) - centre**2 * square
        heights.append(q / np.sqrt(2 * max(null, np.finfo(float).tiny)))
        shares.append(q / (energy * (1 - centre)))
    return np.array(heights), np.array(shares)


def _kernel(size: int, s: float) -> np.ndarray:
    """Gaussian that sums to 1, its centre at 0 and wrapped around."""
    distance = np.minimum(np.arange(size), size - np.arange(size))
    kernel = np.exp(-0.5 * (distance / s) ** 2)
    return kernel / kernel.sum()


def _power(image: np.ndarray, sizes: list[int]) -> np.ndarray:
    """Power spectrum of the zero-padded image, the half of it that holds all."""
    transform = fft.rfft2(image.astype(np.float32, copy=False), s=sizes)
    power = transform.real**2 + transform.imag**2
    # All columns but the first, and the last of an even number, stand for two.
    power[:, 1 : (sizes[1] + 1) // 2] *= 2
    return power


def _form(power: np.ndarray, rows: np.ndarray, columns: np.ndarray, sizes: list[int]) -> float:
    """Quadratic form of the separable kernel, from the power spectrum (Parseval)."""
    along_y = fft.fft(rows).real.astype(np.float32)
    along_x = fft.rfft(columns).real.astype(np.float32)
    return float((power @ along_x).astype(float) @ along_y) / (sizes[0] * sizes[1])
