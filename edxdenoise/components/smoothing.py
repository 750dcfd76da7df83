"""Smoothing of maps of known noise: a mixture of estimators, weighted by their estimated risk.

A map c (y, x) has a weight n and a variance v / n in every pixel: a profile of a component with the
counts of the pixel for weight, or the totals of the pixels with weight 1. Its estimators a_m are

- averages over Gaussians of .5 to 32 pixels, sum_j K_ij n_j c_j / sum_j K_ij n_j,
- the mean of the map, and the map as it is,
- non-local means of two tolerances (`non_local_means`), guided by the mixture of the others.

Each has a standardised risk in every pixel, known without the truth (C. M. Stein, Ann. Stat. 9
(1981) 1135),

    R_m = n (c - a_m)^2 / v + 2 w_m - 1,

with w_m the share of the pixel in its own estimate: n K(0) / (K*n) for a Gaussian; for non-local
means, whose weights were chosen by the noise, the response to a small random perturbation of the
data (S. Ramani, T. Blu and M. Unser, IEEE Trans. Image Process. 17 (2008) 1540). Where noise is
single counts, a share costs more (`spikes`). With S_m the sum
of R_m over a window of 5 to 16 pixels, the estimate is the mean of a_m with the weights
exp(-S_m / 2) (G. Leung and A. R. Barron, IEEE Trans. Inf. Theory 52 (2006) 3396). What is averaged
over how many pixels is thus decided locally, map by map, and nothing is all or nothing.

Wide Gaussians are applied to sums over bins of pixels and interpolated, so that the time does not
depend on their width.

Vector non-local means average a pixel with those nearby that are alike within their noise, after A.
Buades, B. Coll and J.-M. Morel (Multiscale Model. Simul. 4 (2005) 490), with the vector of all
profiles in place of patches, and its known noise in place of a parameter. With u the guide and v
the variance of its noise, q = 1..Q,

    d_ij = sum_q (u_iq - u_jq)^2 / (v_iq + v_jq),    w_ij = n_j exp(-max(d_ij - D, 0) / 2).

For two pixels of the same material d follows a chi-square distribution with Q degrees of freedom. D
is one of its quantiles, the tolerance: at .99 hardly any neighbour is chosen for its noise, at .5
the average keeps finer detail.

`profiles` makes kept score maps of uncorrelated signal, whose noise is known. The profile of a
pixel, c_k = t_k / g times the root of all counts N, does not depend on the thickness: it is a mean
over the n counts of the pixel, sum_j X_j p_kj / h_j / n. How n counts fall upon channels is
multinomial. With s_j = h_j sum_m c_m p_mj / sqrt(N) the spectrum of the pixel, m = 1 the total,
whose profile is 1,

    n Var(c_k) = sum_j s_j N p_kj^2 / h_j^2 - c_k^2,

which for the mean spectrum is 1 for every component, and no two of them are correlated: profiles
are white, and stay so under rotation. They are rotated so that their signal, the covariance between
neighbouring pixels, is uncorrelated too (A. A. Green et al., IEEE Trans. Geosci. Remote Sens. 26
(1988) 65). A pixel without counts has no profile and the weight 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import scipy.linalg
from scipy.stats import chi2

WIDTHS = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0, 11.0, 16.0, 23.0, 32.0)  # pixels
_TRUNCATE = 3.5
# Bins are at most this part of a width.
_FINEST = 2.0
# Window of the risk at one count per pixel and at many, and the bins it is summed over first, in
# pixels. With more counts fewer pixels tell which estimator is better.
_WIDEST, _NARROWEST, _BIN = 16.0, 5.0, 4
# Counts that it takes to make a feature of a single pixel.
_FEWEST_CARRIERS = 5.0
# Perturbation for the response of non-local means, in standard deviations of the noise; the
# response of single pixels is averaged over so many pixels.
_STEP, _RESPONSE = 0.3, 3.0
# The noise is judged from means over this weight, such as counts, so that it does not depend on the
# noise of single pixels.
_PILOT = 200.0
# Where the sum of the weights nearby is no more than this, nothing is known.
_LEAST_WEIGHT = 1e-9
PILOT_WIDTHS = (1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0, 11.0, 16.0, 23.0, 32.0)


@dataclass(frozen=True)
class Mixed:
    """Smoothed maps.

    Parameters
    ----------
    values, variance : array of float32, shape (k, y, x)
        The estimates, and a bound on the variance of their noise per unit of v.
    own : array of float32, shape (k, y, x)
        Share that each pixel has in its own estimate.
    evidence : array of float32, shape (k, bin, bin)
        log mean_m exp(-S_m / 2), by bins of pixels: many estimators are no evidence.
    """

    values: np.ndarray
    variance: np.ndarray
    own: np.ndarray
    evidence: np.ndarray


@dataclass(frozen=True)
class Gaussian:
    """One Gaussian: how it is applied to a map of a given shape.

    Parameters
    ----------
    factor : int
        Bins of so many pixels.
    line : array of float32
        The Gaussian over bins along one axis.
    centre_y, centre_x : array of float32, shape (y,), (x,)
        What a pixel has of its own value, along each axis.
    square : float
        Sum of the squared weights over that share.
    """

    factor: int
    line: np.ndarray
    centre_y: np.ndarray
    centre_x: np.ndarray
    square: float

    def sums(self, planes: np.ndarray) -> np.ndarray:
        """Sums over neighbours, shape (k, y, x) as `planes` have."""
        from edxdenoise.components import kernels

        if self.factor == 1:
            return kernels.filtered(planes, self.line)
        coarse = kernels.filtered(kernels.binned(planes, self.factor), self.line)
        return kernels.enlarged(coarse, self.factor, *planes.shape[1:])

    @property
    def centre(self) -> np.ndarray:
        """K(0) of every pixel, shape (y, x)."""
        return np.outer(self.centre_y, self.centre_x)


@cache
def gaussian(width: float, rows: int, columns: int) -> Gaussian:
    """The Gaussian of `width` pixels on a map of rows x columns."""
    factor = 1
    while width / (2 * factor) >= _FINEST:
        factor *= 2
    line = gaussian_line(coarse_width(width, factor))
    along_y, along_x = (_centre(size, factor, line) for size in (rows, columns))
    # Widths over bins are such that the sum of squares is that of a continuous Gaussian.
    square = 0.5 if factor > 1 else float(((line**2).sum() / line.max()) ** 2)
    return Gaussian(factor, line, along_y, along_x, square)


def coarse_width(width: float, factor: int) -> float:
    """Width over bins, for `width` pixels after binning and interpolation have added theirs.

    Examples
    --------
    >>> coarse_width(1.0, 1), round(coarse_width(8.0, 4), 3)
    (1.0, 1.938)
    """
    if factor == 1:
        return width
    added = (1 - factor**-2) / 12 + 1 / 6
    return float(np.sqrt((width / factor) ** 2 - added))


def gaussian_line(width: float) -> np.ndarray:
    """Gaussian of one dimension that sums to 1.

    Examples
    --------
    >>> gaussian_line(0.5).round(3)
    array([0.   , 0.106, 0.787, 0.106, 0.   ], dtype=float32)
    """
    reach = int(_TRUNCATE * width + 0.5)
    line = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    return (line / line.sum()).astype(np.float32)


def _centre(size: int, factor: int, line: np.ndarray) -> np.ndarray:
    """Response of a pixel to its own value along one axis, bins and interpolation included."""
    if factor == 1:
        return np.full(size, line.max(), np.float32)
    pixel = np.arange(size)
    last = -(-size // factor) - 1
    place = np.clip((pixel + 0.5) / factor - 0.5, 0, last)
    left = np.minimum(place.astype(int), max(last - 1, 0))
    right, part = np.minimum(left + 1, last), place - left
    middle, own = len(line) // 2, pixel // factor
    near, far = (line[middle + each - own] for each in (left, right))
    return ((1 - part) * near + part * far).astype(np.float32)


def risk_window(counts: np.ndarray) -> float:
    """Window of the risk for a map of these counts per pixel.

    Examples
    --------
    >>> [round(risk_window(np.full((2, 2), n)), 1) for n in (1, 16, 60, 1000)]
    [16.0, 6.3, 5.0, 5.0]
    """
    mean = max(float(counts.mean(dtype=float)), 1.0)
    return float(np.clip(_WIDEST * mean ** (-1 / 3), _NARROWEST, _WIDEST))


def spikes(
    values: np.ndarray, weights: np.ndarray, variance: np.ndarray, carriers: np.ndarray
) -> np.ndarray:
    """By how much single counts make a pixel's own value look better than it is, shape (k, y, x).

    A pixel that keeps its own value gains its squared deviate, z^2 = n (c - pilot)^2 / v. Normal
    noise gains 1 on average and hardly ever 20, but one count in a channel that hardly any other
    pixel has gains hundreds. Where m counts are found and l expected, m - l = z l^(1/2), the gain
    that chance explains is the deviance 2 (m log(m / l) - m + l). What z^2 has beyond is returned,
    where a feature is carried by fewer than `_FEWEST_CARRIERS`.

    Parameters
    ----------
    values, variance : array of float32, shape (k, y, x)
        c and v of the module.
    weights : array of float32, shape (y, x)
        n.
    carriers : array of float32, shape (k, y, x)
        l: the expected number of counts that make each value.
    """
    square = weights * (values - local_mean(values, weights)) ** 2 / variance
    expected = np.maximum(carriers, np.float32(_LEAST_WEIGHT))
    found = expected + np.sqrt(square * expected)
    deviance = 2 * (found * np.log(found / expected) - found + expected)
    beyond = np.where(found < _FEWEST_CARRIERS, square - deviance, 0)
    return np.maximum(beyond, 0).astype(np.float32)


def own_risk(own: np.ndarray, spike: np.ndarray) -> np.ndarray:
    """What a pixel pays for its share w in its own mean: w, and half of what single counts gain.

    Of z^2, an estimate with the share w gains z^2 - (1 - w)^2 z^2.
    """
    return own + (own - own**2 / 2) * spike


def mix_gaussians(
    values: np.ndarray,
    weights: np.ndarray,
    variance: np.ndarray,
    window: float,
    spike: np.ndarray,
) -> Mixed:
    """The mixture of the Gaussians, the mean of each map and the map as it is.

    Parameters
    ----------
    values, variance : array of float32, shape (k, y, x)
        c and v of the module.
    weights : array of float32, shape (y, x)
        n; 0 where nothing is known.
    window : float
        Of the risk, in pixels.
    spike : array of float32, shape (k, y, x)
        See `spikes`; 0 where noise is normal.
    """
    from edxdenoise.components import kernels

    shape = weights.shape
    bank = [gaussian(width, *shape) for width in WIDTHS if width <= max(shape)]
    below, own, spread = [], [], []
    for each in bank:
        sums = each.sums(weights[np.newaxis])
        sums = np.maximum(sums, np.float32(_LEAST_WEIGHT))
        share = (each.centre / sums[0]).astype(np.float32)
        below.append(sums)
        own.append((share * weights)[np.newaxis])
        spread.append(np.sqrt(each.square * share)[np.newaxis])
    total = max(float(weights.sum(dtype=float)), 1.0)
    own.append((weights / np.float32(total))[np.newaxis])
    spread.append(np.full((1, *shape), total**-0.5, np.float32))
    known = weights > 0
    own.append(known.astype(np.float32)[np.newaxis])
    with np.errstate(divide="ignore"):
        spread.append(np.where(known, weights**-0.5, spread[0]).astype(np.float32))
    mixed = [np.zeros_like(values) for _ in range(3)]
    evidence = []
    for k in range(len(values)):
        plane, noise = values[k : k + 1], variance[k : k + 1]
        product = plane * weights
        means = [each.sums(product) / sums for each, sums in zip(bank, below)]
        level = product.sum(dtype=float) / total
        # The map as it is does not exist in pixels without weight: the narrowest Gaussian is.
        means += [np.full((1, *shape), level, np.float32), np.where(known, plane, means[0])]
        risks = (
            kernels.binned_risk(mean, plane, weights, noise, own_risk(share, spike[k]), _BIN)
            for mean, share in zip(means, own)
        )
        scores = [-0.5 * _windowed(risk, window) for risk in risks]
        shares, logs = softmax(np.concatenate(scores))
        evidence.append(logs - np.float32(np.log(len(means))))
        for share, *terms in zip(shares, means, spread, own):
            part = kernels.enlarged(share[np.newaxis], _BIN, *shape)[0]
            for target, term in zip(mixed, terms):
                target[k] += part * term[0]
    mixed[1] **= 2
    return Mixed(mixed[0], mixed[1], mixed[2], np.stack(evidence))


def local_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted means over as many pixels nearby as it takes to reach a weight of `_PILOT`.

    Parameters
    ----------
    values : array of float32, shape (k, y, x)
    weights : array of float32, shape (y, x)

    Returns
    -------
    array of float32, shape (k, y, x)
    """
    total = max(float(weights.sum(dtype=float)), 1.0)
    product = values * weights
    level = product.sum(axis=(1, 2), dtype=float) / total
    result = np.empty_like(product)
    result[:] = level[:, np.newaxis, np.newaxis]
    missing = np.ones(weights.shape, bool)
    for width in PILOT_WIDTHS:
        if width > max(weights.shape) or not missing.any():
            break
        kernel = gaussian(width, *weights.shape)
        below = kernel.sums(weights[np.newaxis])[0]
        now = missing & (below * np.float32(4 * np.pi * width**2) >= _PILOT)
        if now.any():
            result[:, now] = kernel.sums(product)[:, now] / below[now]
            missing &= ~now
    return result


def _windowed(risk: np.ndarray, window: float) -> np.ndarray:
    """Sums over the window, from sums over bins: shape (k, bin, bin)."""
    from edxdenoise.components import kernels

    line = gaussian_line(coarse_width(window, _BIN))
    return kernels.filtered(risk, line) * np.float32(4 * np.pi * (window / _BIN) ** 2)


def softmax(logs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """exp(logs) over their sum along the first axis, and the logarithm of that sum."""
    most = logs.max(axis=0)
    shares = np.exp(logs - most)
    total = shares.sum(axis=0)
    return shares / total, most + np.log(total)


def smooth(
    values: np.ndarray,
    weights: np.ndarray,
    variance: np.ndarray,
    *,
    window: float,
    spike: np.ndarray | None = None,
    others: tuple[np.ndarray, np.ndarray] | None = None,
    image: np.ndarray | None = None,
    seed: int = 0,
) -> Mixed:
    """The whole mixture.

    Parameters
    ----------
    values, variance : array of float32, shape (k, y, x)
        c and v of the module.
    weights : array of float32, shape (y, x)
        n.
    window : float
        Of the risk, in pixels; see `risk_window`.
    spike : array of float32, shape (k, y, x), optional
        See `spikes`; without it noise is normal.
    others : tuple of array, shape (q, y, x), optional
        Other maps that tell pixels apart, smoothed already, and the variance of their noise.
    image : array of float32, shape (p, y, x), optional
        Channels of images (`edxdenoise.components.guide`), which guide two estimators more.
    seed : int
        Of the perturbation.
    """
    from edxdenoise.components import kernels

    spike = np.zeros_like(values) if spike is None else spike
    # Maps are let go as soon as they can be: of a large map they are most of the memory.
    plain = mix_gaussians(values, weights, variance, window, spike)
    known = weights > 0
    unknown = plain.variance[:, ~known]
    guide, noise, own_shares, logs = plain.values, plain.variance, plain.own, plain.evidence
    del plain
    noise *= variance
    found, least = _alike(guide, noise, values * weights, weights, others, image)
    del noise
    sign = np.random.default_rng(seed).integers(0, 2, values.shape, np.int8) * np.int8(2)
    sign -= np.int8(1)
    moved = np.empty_like(values)
    for k, one in enumerate(values):
        moved[k] = one + _perturbation(weights, variance[k], sign[k])
    mixed = mix_gaussians(moved, weights, variance, window, spike)
    moved_guide, noise = mixed.values, mixed.variance
    del mixed
    noise *= variance
    moved *= weights
    again, _ = _alike(moved_guide, noise, moved, weights, others, image)
    del moved_guide, noise, moved
    line = gaussian_line(_RESPONSE)
    below = kernels.filtered(known.astype(np.float32)[np.newaxis], line)
    below = np.maximum(below, np.float32(1e-6))
    result = np.zeros((2, *values.shape), np.float32)
    evidence = []
    for k in range(len(values)):
        one = slice(k, k + 1)
        step = _perturbation(weights, variance[k], sign[k])
        inverse = np.where(step != 0, 1 / np.where(step != 0, step, 1), 0).astype(np.float32)
        risks, stack, shares = [logs[one]], [guide[one]], [own_shares[one]]
        for mean, changed, share in zip(found[:, one], again[:, one], least):
            own = kernels.filtered((changed - mean) * inverse, line) / below
            # A random response may be low, even negative, by chance.
            own = np.maximum(own, share) * known
            spiked = own_risk(own, spike[one])
            risk = kernels.binned_risk(mean, values[one], weights, variance[one], spiked, _BIN)
            risks.append(-0.5 * _windowed(risk, window))
            stack.append(mean)
            shares.append(own)
        parts, log = softmax(np.stack(risks))
        evidence.append(log)
        for part, mean, own in zip(parts, stack, shares):
            part = kernels.enlarged(part.astype(np.float32), _BIN, *weights.shape)
            result[0, one] += part * mean
            result[1, one] += part * own
    smoothed, own = result
    # The share of a pixel over its weight; where it has none, that of the Gaussians.
    per = own / np.where(known, weights, 1)
    per[:, ~known] = unknown
    return Mixed(smoothed, per, own, np.concatenate(evidence))


def _perturbation(weights: np.ndarray, variance: np.ndarray, sign: np.ndarray) -> np.ndarray:
    """Steps of one map by a part of the standard deviation of its noise, either way."""
    with np.errstate(divide="ignore"):
        deviation = np.where(weights > 0, np.sqrt(variance / weights), 0).astype(np.float32)
    return np.float32(_STEP) * deviation * sign


def _alike(
    maps: np.ndarray,
    noise: np.ndarray,
    products: np.ndarray,
    weights: np.ndarray,
    others: tuple[np.ndarray, np.ndarray] | None,
    image: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Non-local means without the image, then with it, shape (estimator, k, y, x); own shares."""
    if others is not None:
        maps, noise = (np.concatenate(pair) for pair in zip((maps, noise), others))
    found = non_local_means(maps, noise, products, weights)
    if image is None:
        return found
    maps = np.concatenate([maps, image])
    noise = np.concatenate([noise, np.ones_like(image)])
    both = found, non_local_means(maps, noise, products, weights)
    means, own = (np.concatenate(parts) for parts in zip(*both))
    return means, own


TOLERANCES = (0.5, 0.99)
# All pixels as near as this along y and x; beyond, as far as that, one of each square of so many.
_NEAR, _FAR, _SQUARE = 8, 19, 3


@cache
def offsets() -> tuple[np.ndarray, np.ndarray]:
    """Steps along y and x to the pixels that one is averaged with, nearest first.

    Of each step and its opposite the one downwards, or to the right. Pixels far away are at random
    places of their squares: a lattice would show in the maps.
    """
    random = np.random.default_rng(0)
    half = _SQUARE // 2
    centres = range(half - _FAR, _FAR - half + 1, _SQUARE)
    steps = {(y, x) for y in range(_NEAR + 1) for x in range(-_NEAR, _NEAR + 1) if (y, x) > (0, 0)}
    for centre in [(y, x) for y in centres for x in centres if (y, x) > (0, 0)]:
        y, x = centre + random.integers(-half, half + 1, 2)
        if max(np.abs(centre)) > _NEAR:
            # One that is near already is not taken twice.
            steps.add(max((int(y), int(x)), (-int(y), -int(x))))
    ordered = sorted(steps, key=lambda step: (step[0] ** 2 + step[1] ** 2, step))
    along_y, along_x = np.array(ordered).T
    return np.ascontiguousarray(along_y), np.ascontiguousarray(along_x)


def non_local_means(
    guide: np.ndarray, guide_variance: np.ndarray, products: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Average every pixel with those nearby whose guide is alike.

    Parameters
    ----------
    guide, guide_variance : array of float32, shape (q, y, x)
        u and v of the module. The first k are what is averaged, smoothed already.
    products : array of float32, shape (k, y, x)
        What is averaged times the weights.
    weights : array of float32, shape (y, x)
        n; 0 where nothing was measured.

    Returns
    -------
    means : array of float32, shape (tolerance, k, y, x)
        Weighted means; the guide in pixels that have no neighbour alike.
    own : array of float32, shape (tolerance, 1, y, x)
        Share that a pixel has in its own mean for the weights as they are.
    """
    from edxdenoise.components.kernels import alike_means

    tolerances = chi2.ppf(TOLERANCES, len(guide)).astype(np.float32)
    sums = alike_means(guide, guide_variance, products, weights, *offsets(), tolerances)
    # The pixel itself is alike.
    sums[:, 0] += weights
    below, means = sums[:, :1], sums[:, 1:]
    means += products
    alone = below < _LEAST_WEIGHT
    below[alone] = 1
    means /= below
    np.copyto(means, guide[: len(products)], where=alone)
    return means, weights / below


# Pixels over which the signal is looked for, in two scales.
_SCALES = (1.0, 4.0)
# Variance over that of the mean spectrum; no pixel is known better than that.
_LEAST_VARIANCE = 0.05
# Counts that the mean of the map stands for beside those around a pixel, where these carry little.
_PRIOR = 30.0


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
        Profiles of the components are ``rotation @ values``, whose noise is the same in all.
    constant, slope : array, shape (k,), (k, k)
        n Var(c) is ``constant + slope @ c - c^2``.
    scale : float
        Variance of the noise over that of Poisson counts.
    fourth_constant, fourth_slope : array, shape (k,), (k, k)
        As `constant` and `slope`, of what a count contributes to the fourth power; see `carriers`.
    """

    values: np.ndarray
    counts: np.ndarray
    rotation: np.ndarray
    constant: np.ndarray
    slope: np.ndarray
    scale: float
    fourth_constant: np.ndarray
    fourth_slope: np.ndarray

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

    def carriers(self, smoothed: np.ndarray, variance: np.ndarray) -> np.ndarray:
        """Expected number of counts that carry each profile, like `values`.

        With t what one count contributes to n c, that is n <t^2>^2 / <t^4>: the mean of a Poisson
        variable whose noise has the same kurtosis. Where the counts nearby that carry a profile are
        few, and may all be missing by chance, the mean of the map stands for `_PRIOR` of them.

        Parameters
        ----------
        smoothed, variance : array of float32, shape (k, y, x)
            Profiles, and their v.
        """
        fourth = np.tensordot(self.fourth_slope.astype(np.float32), smoothed, axes=1)
        mean = self.fourth_constant.astype(np.float32)[:, np.newaxis, np.newaxis]
        fourth += mean
        width = PILOT_WIDTHS[0]
        near = gaussian(width, *self.counts.shape).sums(self.counts[np.newaxis])
        near = np.maximum(near * np.float32(4 * np.pi * width**2), np.float32(_PILOT))
        doubt = _PRIOR / (_PRIOR + near / np.maximum(mean, np.float32(1)))
        np.maximum(fourth, fourth + doubt.astype(np.float32) * (mean - fourth), out=fourth)
        square = (variance / np.float32(self.scale)) ** 2
        return self.counts * square / np.maximum(fourth, square)


def profiles(
    maps: np.ndarray,
    spectra: np.ndarray,
    g: np.ndarray,
    h: np.ndarray,
    counts: np.ndarray,
    scale: float = 1.0,
    inflation: np.ndarray | None = None,
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
    inflation : array, shape (k,), optional
        By how much larger than that it is in each component (`overfitting.noise_inflation`).
    """
    counts = np.asarray(counts, np.float32)
    total = counts.sum(dtype=float)
    others = spectra[1:].astype(float)
    known = counts > 0
    inverse = np.where(known, np.sqrt(total) / np.where(known, g, 1), 0).astype(np.float32)
    root = np.ones(len(others)) if inflation is None else np.sqrt(inflation)
    values = maps[1:] * inverse / root.astype(np.float32)[:, np.newaxis, np.newaxis]
    directions = signal_directions(values, counts)
    values = np.tensordot(directions.T.astype(np.float32), values, axes=1)
    rotation = root[:, np.newaxis] * directions
    square = total * (directions.T @ others) ** 2 / h**2
    rotated = rotation.T @ others
    first = spectra[0].astype(float) * h
    # The first profile is 1: its spectrum is that of all counts.
    constant = square @ first / first.sum()
    slope = square @ (rotated * h).T / np.sqrt(total)
    fourth_constant = square**2 @ first / first.sum()
    fourth_slope = square**2 @ (rotated * h).T / np.sqrt(total)
    moments = constant, slope, scale, fourth_constant, fourth_slope
    return Profiles(values, counts, rotation, *moments)


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
