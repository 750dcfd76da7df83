"""Whether an image recorded with the counts may guide their smoothing, and how far it is shifted.

Gaussian noise of variance r v, with v that of the data, is added to the data, and the same noise
over r taken off them: two measurements of one map whose noise is uncorrelated (N. L. Oliveira, J.
Lei and R. J. Tibshirani, arXiv:2111.09447, 2021). The first is smoothed with the image and with one
without contrast, and the second judges. The gain is the part of the squared error that the image
takes off, in units of the noise and summed over profiles and totals; its standard deviation is that
of the sums over squares of pixels. An image must gain `_SURE` standard deviations.

Shifts are looked for by what the image alone tells: each pixel is judged by the mean of those
nearby that the image says are alike, without the pixel itself.

An image changes only which pixels are averaged with which: every value is one of X-ray counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import convolve

from edxdenoise.components.smoothing import Profiles, local_mean, offsets, risk_window, smooth

# Noise added, over that of the data, and how often.
_RATIO, _DRAWS = 0.7, 3
# Pixels by which an image may be shifted, and standard deviations that a shift must gain over none.
_FARTHEST, _SHIFT_SURE = 3, 1.0
# Standard deviations that an image must gain, and the least part of the squared error.
_SURE, _LEAST_GAIN = 3.0, 0.01
# Pixels of the squares, and around each pixel where shifts are looked for.
_SQUARE, _NEAR = 8, 4
# Differences that are no difference, in standard deviations of the image.
_FINEST = 0.1
# Second differences of an image of noise alone have 6 times its standard deviation (J. Immerkaer,
# Comput. Vis. Image Underst. 64 (1996) 300).
_SECOND = np.outer([1, -2, 1], [1, -2, 1])


@dataclass(frozen=True)
class Gain:
    """What an image gains.

    Parameters
    ----------
    detector : str
    shift : tuple of int
        Pixels along y and x from a pixel of the map to its place in the image.
    gain, stddev : float
        Part of the squared error that the image takes off, and its standard deviation.
    """

    detector: str
    shift: tuple[int, int]
    gain: float
    stddev: float

    def __str__(self) -> str:
        # The shift of an image that tells nothing means nothing.
        moved = self.used and self.shift != (0, 0)
        shift = " shifted by {} and {} pixels".format(*self.shift) if moved else ""
        word = "guides" if self.used else "does not guide"
        if not np.isfinite(self.stddev):
            return f"image {self.detector} {word} the smoothing: too few pixels judge it"
        return (
            f"image {self.detector}{shift} {word} the smoothing: it takes {100 * self.gain:.1f} ± "
            f"{100 * self.stddev:.1f} % off the squared error"
        )

    @property
    def used(self) -> bool:
        """Whether the image guides the smoothing."""
        return self.gain > max(_SURE * self.stddev, _LEAST_GAIN)


@dataclass(frozen=True)
class Halves:
    """Profiles and totals with uncorrelated noise.

    Parameters
    ----------
    values, judge : array of float32, shape (k, y, x)
    weights : array of float32, shape (k, y, x)
        Of the judge: one over its variance, 0 where nothing is known.
    """

    values: np.ndarray
    judge: np.ndarray
    weights: np.ndarray

    def losses(self, means: np.ndarray) -> np.ndarray:
        """Squared errors with the judge's noise in it, summed over maps, shape (y, x)."""
        return (self.weights * (self.judge - means) ** 2).sum(axis=0)


def channel(image: np.ndarray, shift: tuple[int, int] = (0, 0)) -> np.ndarray:
    """An image in units of the difference that matters, shape (1, y, x).

    That is a tenth of its standard deviation, or that of its noise where it is larger.
    """
    image = image.astype(np.float32)
    noise = np.abs(convolve(image, _SECOND)).mean() * np.sqrt(np.pi / 2) / 6
    unit = max(_FINEST * float(image.std()), float(noise))
    return (shifted(image - image.mean(), shift) / np.float32(unit or 1))[np.newaxis]


def shifted(image: np.ndarray, shift: tuple[int, int]) -> np.ndarray:
    """The image whose pixel (y, x) is (y, x) + shift of what it was, the nearest one at borders.

    Examples
    --------
    >>> shifted(np.array([[1, 2, 3]]), (0, 1))
    array([[2, 3, 3]])
    """
    places = (
        np.clip(np.arange(size) + step, 0, size - 1) for size, step in zip(image.shape, shift)
    )
    return image[np.ix_(*places)]


def judged(
    noisy: Profiles,
    measured: np.ndarray,
    total_variance: np.ndarray,
    images: dict[str, np.ndarray],
    seed: int,
) -> list[Gain]:
    """What each image gains for the profiles and totals of one map.

    Parameters
    ----------
    noisy : Profiles
    measured : array of float32, shape (y, x)
    total_variance : array of float32, shape (y, x)
        Of the totals.
    images : dict of str to array, shape (y, x)
        By detector, free of NaN.
    seed : int
    """
    counts = noisy.counts
    variance = noisy.variance(local_mean(noisy.values, counts))
    maps = [
        (noisy.values, counts, variance),
        (counts[np.newaxis], measured, total_variance[np.newaxis]),
    ]
    shifts = {name: best_shift(maps, image) for name, image in images.items()}
    without = np.zeros(counts.shape)
    taken = {name: np.zeros(counts.shape) for name in images}
    random = np.random.default_rng([seed, 3])
    for draw in range(_DRAWS):
        parts = [halves(*each, random) for each in maps]
        # An image without contrast: the tolerance of one more channel alone is no gain.
        plain = _losses(maps, parts, np.zeros_like(counts)[np.newaxis], seed + draw)
        without += plain / _DRAWS
        for name, image in images.items():
            found = _losses(maps, parts, channel(image, shifts[name]), seed + draw)
            taken[name] += (plain - found) / _DRAWS
    # The judge's noise is no error; where that hides the error, it is no more than hidden.
    known = sum(np.sum(part.weights > 0, axis=0) for part in parts)
    scale = max(*sum_and_stddev(without - known), 1.0)
    gains = []
    for name, difference in taken.items():
        total, stddev = sum_and_stddev(difference)
        # What is left cannot be less than nothing.
        whole = max(scale, total)
        gains.append(Gain(name, shifts[name], total / whole, stddev / whole))
    return gains


Maps = list[tuple[np.ndarray, np.ndarray, np.ndarray]]


def _losses(maps: Maps, parts: list[Halves], image: np.ndarray, seed: int) -> np.ndarray:
    """Losses of profiles and totals that are smoothed with an image, shape (y, x)."""
    others, result = None, np.zeros(maps[0][1].shape)
    window = risk_window(maps[0][1])
    for (_, weights, variance), part in zip(maps, parts):
        if len(part.values):
            known = weights * np.float32(1 / (1 + _RATIO))
            found = smooth(
                part.values, known, variance, window=window, others=others, image=image, seed=seed
            )
            others = found.values, found.variance * variance
            result += part.losses(found.values)
    return result


def halves(
    values: np.ndarray, weights: np.ndarray, variance: np.ndarray, random: np.random.Generator
) -> Halves:
    """Data of the variance v / weights, twice, with uncorrelated noise."""
    known = weights > 0
    over = np.where(known, 1 / np.where(known, weights, 1), 0)
    noise = random.standard_normal(values.shape, np.float32) * np.sqrt(variance * over)
    first = values + np.sqrt(_RATIO) * noise
    judge = values - noise / np.sqrt(_RATIO)
    precision = weights / (variance * (1 + 1 / _RATIO))
    return Halves(*(part.astype(np.float32) for part in (first, judge, precision)))


def best_shift(maps: Maps, image: np.ndarray) -> tuple[int, int]:
    """The shift by which the image alone tells pixels apart best; none unless that is sure.

    Parameters
    ----------
    maps : list of tuple of array
        Values (k, y, x), weights (y, x) and variances (k, y, x).
    image : array, shape (y, x)
    """
    steps = range(-_FARTHEST, _FARTHEST + 1)
    none = _losses_by_neighbours(maps, channel(image))
    best, most = (0, 0), 0.0
    for shift in ((y, x) for y in steps for x in steps if (y, x) != (0, 0)):
        losses = _losses_by_neighbours(maps, channel(image, shift))
        gain, stddev = sum_and_stddev(none - losses)
        if gain > max(most, _SHIFT_SURE * stddev):
            best, most = shift, gain
    return best


def _losses_by_neighbours(maps: Maps, image: np.ndarray) -> np.ndarray:
    """Squared errors of what the pixels nearby say that the image says are alike."""
    from edxdenoise.components.kernels import alike_means

    along_y, along_x = offsets()
    near = (np.abs(along_y) <= _NEAR) & (np.abs(along_x) <= _NEAR)
    steps = along_y[near], along_x[near]
    unit, tolerance = np.ones_like(image), np.ones(1, np.float32)
    result = np.zeros(image.shape[1:], np.float32)
    for values, weights, variance in maps:
        product = values * weights
        below, *sums = alike_means(image, unit, product, weights, *steps, tolerance)[0]
        # A pixel with no neighbour alike is judged by the mean of the map.
        level = product.sum(axis=(1, 2)) / max(float(weights.sum()), 1.0)
        for k, above in enumerate(sums):
            mean = np.where(below > 1e-6, above / np.maximum(below, 1e-6), level[k])
            result += weights * (values[k] - mean) ** 2 / variance[k]
    return result


def sum_and_stddev(values: np.ndarray) -> tuple[float, float]:
    """Sum of a map, and its standard deviation as sums over squares of pixels show it."""
    rows, columns = (np.arange(0, size, _SQUARE) for size in values.shape)
    sums = np.add.reduceat(np.add.reduceat(values, rows, axis=0), columns, axis=1)
    number = sums.size
    spread = float(sums.std(ddof=1)) * np.sqrt(number) if number > 1 else np.inf
    return float(sums.sum(dtype=float)), spread
