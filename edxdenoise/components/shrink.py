"""Smoothing of the kept score maps: the stage, from and to a Dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from edxdenoise.components.guide import Gain, channel, judged
from edxdenoise.components.profiles import Profiles, profiles
from edxdenoise.components.smoothing import Mixed, gaussian_line, local_mean, smooth
from edxdenoise.cube import (
    add_history,
    guide_images,
    is_poisson_weighted,
    measured_pixels,
    pixel_counts,
)
from edxdenoise.errors import DataError
from edxdenoise.schema import (
    COMPONENT_KEEP,
    COMPONENT_MAP,
    COMPONENT_MAP_SHRUNK,
    COMPONENT_MAP_SHRUNK_STDDEV,
    COMPONENT_SIGNAL_KEPT,
    COMPONENT_SPECTRUM,
    COORD_AREA,
    COUNTS,
    DIM_COMPONENT,
    DIM_Y,
    IMAGE_GAIN,
    TOTAL_STDDEV,
    WEIGHT_ENERGY,
    WEIGHT_PIXEL,
    validate,
)
from edxdenoise.score_noise import score_noise

# Counts that the variance of a total is no less than, and pixels that it is looked for in: of few
# counts the noise is that of what was expected, not of what came.
_LEAST_COUNTS, _TOTAL_WEIGHT = 0.02, 8.0
# Mean counts per pixel from which the scale of the noise is measured.
_FEWEST_COUNTS = 100.0
# Draws of the bootstrap, and pixels over which their squares are averaged.
_DRAWS, _WIDTH = 2, 1.5


def shrink(
    ds: xr.Dataset, *, image: str = "auto", seed: int = 0, errors: bool = True
) -> xr.Dataset:
    """Smooth the kept score maps as far as their known noise asks for, place by place.

    Parameters
    ----------
    ds : Dataset
        Poisson-weighted, with computed components and ``component_keep``. Pixels that were not
        measured (``measured``) are filled from those around them; stacked maps (coordinate
        ``area``) are smoothed one by one.
    image : str
        Which images of the Dataset are tried as guides; see `guide_images`.
    seed : int
        Of the perturbations by which non-local means are judged, and of the bootstrap.
    errors : bool
        Whether to bootstrap; without it errors are the noise that averaging leaves, and no more.

    Returns
    -------
    Dataset
        With ``component_map_shrunk`` and ``component_map_shrunk_stddev`` (NaN for dropped
        components), ``total_stddev`` and ``component_signal_kept``, in memory. What each image
        gains is said in the attribute ``image_gain`` (`edxdenoise.components.guide`).

    Raises
    ------
    DataError
        If the counts are not Poisson-weighted, or component 1 is not kept.

    Notes
    -----
    The method is in `edxdenoise.components.smoothing`. Its errors are those of a parametric
    bootstrap (B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap, 1993, section 6.5):
    the smoothed map is taken for the truth, noise of the known variance is added, and the sum is
    smoothed by the whole estimator, the choice of weights included.
    """
    validate(ds, COMPONENT_MAP, COMPONENT_SPECTRUM, COMPONENT_KEEP, WEIGHT_PIXEL, WEIGHT_ENERGY)
    if not is_poisson_weighted(ds):
        raise DataError("smoothing needs Poisson weights; use weighting='poisson' or --no-shrink")
    kept = np.flatnonzero(ds[COMPONENT_KEEP.name].values)
    if not len(kept) or kept[0] != 0:
        raise DataError("smoothing needs component 1, the total; keep it or use --no-shrink")
    measured = measured_pixels(ds).astype(np.float32)
    counts = (pixel_counts(ds) * measured).astype(np.float32)
    scale = noise_scale(ds) if len(kept) > 1 else 1.0
    g, h = ds[WEIGHT_PIXEL.name].values, ds[WEIGHT_ENERGY.name].values.astype(float)
    maps, spectra = (ds[spec.name].values[kept] for spec in (COMPONENT_MAP, COMPONENT_SPECTRUM))
    noisy = profiles(maps, spectra, g, h, counts, scale)
    found = Smoothed.empty(noisy)
    images = guide_images(ds, image)
    areas = area_rows(area_numbers(ds))
    draws = _DRAWS if errors else 0
    said = []
    for number, rows in enumerate(areas, start=1):
        part, inside = noisy.rows(rows), measured[rows]
        guides = {name: each[rows] for name, each in images.items()}
        gains = []
        if guides:
            noise = total_noise(part, part.counts, inside)
            gains = judged(part, inside, noise, guides, seed)
        used = channels(guides, gains)
        found.put(rows, smooth_area(part, inside, seed, image=used, draws=draws))
        said += [str(gain) if len(areas) == 1 else f"area {number}: {gain}" for gain in gains]
    # Scores t = g c / sqrt(N) of the pixel's smoothed counts.
    inverse = (1 / (g * np.sqrt(counts.sum(dtype=float)))).astype(np.float32)
    factor = found.totals * inverse
    shrunk = np.concatenate([factor[np.newaxis], found.profiles * factor])
    stddev = np.concatenate([(found.total_stddev * inverse)[np.newaxis], found.stddev * factor])
    result = ds.assign(
        {
            COMPONENT_MAP_SHRUNK.name: COMPONENT_MAP_SHRUNK.array(_of_kept(ds, shrunk)),
            COMPONENT_MAP_SHRUNK_STDDEV.name: COMPONENT_MAP_SHRUNK_STDDEV.array(
                _of_kept(ds, stddev)
            ),
            TOTAL_STDDEV.name: TOTAL_STDDEV.array(found.total_stddev),
            COMPONENT_SIGNAL_KEPT.name: COMPONENT_SIGNAL_KEPT.array(
                _of_kept(ds, signal_kept(noisy, found))
            ),
        }
    )
    if said:
        result = result.assign_attrs({IMAGE_GAIN: said})
    return add_history(result, f"shrink image={image} seed={seed}")


def channels(images: dict[str, np.ndarray], gains: list[Gain]) -> np.ndarray | None:
    """Channels of the images that gain, shape (p, y, x); None where none does."""
    used = [channel(images[gain.detector], gain.shift) for gain in gains if gain.used]
    return np.concatenate(used) if used else None


@dataclass
class Smoothed:
    """Smoothed maps and their standard deviations.

    Parameters
    ----------
    profiles, stddev : array of float32, shape (k, y, x)
        Of the kept components beside the first, not rotated, in units of `Profiles`.
    own : array of float32, shape (k, y, x)
        Share of each pixel in its own smoothed, rotated profile.
    totals, total_stddev : array of float32, shape (y, x)
        Counts.
    """

    profiles: np.ndarray
    stddev: np.ndarray
    own: np.ndarray
    totals: np.ndarray
    total_stddev: np.ndarray

    @classmethod
    def empty(cls, noisy: Profiles) -> Smoothed:
        """Room for the maps of `noisy`."""
        maps = [np.empty_like(noisy.values) for _ in range(3)]
        return cls(*maps, *(np.empty_like(noisy.counts) for _ in range(2)))

    def put(self, rows: slice, part: Smoothed) -> None:
        """Write the maps of some rows."""
        for name, values in vars(part).items():
            vars(self)[name][..., rows, :] = values


def smooth_area(
    noisy: Profiles,
    measured: np.ndarray,
    seed: int,
    *,
    image: np.ndarray | None = None,
    draws: int = _DRAWS,
) -> Smoothed:
    """Smooth profiles and totals of one map, and bootstrap their errors.

    Parameters
    ----------
    noisy : Profiles
    measured : array of float32, shape (y, x)
        1 where a pixel was measured, else 0.
    seed : int
    image : array of float32, shape (p, y, x), optional
        Channels of the images that guide.
    draws : int
        Of the bootstrap.
    """
    totals, found, variance = estimate(noisy, noisy.values, noisy.counts, measured, seed, image)
    random = np.random.default_rng([seed, 2])
    rotation = noisy.rotation.astype(np.float32)
    square, total_square = np.zeros_like(noisy.values), np.zeros_like(noisy.counts)
    expected = np.maximum(totals.values[0], _LEAST_COUNTS)
    for draw in range(draws):
        counts = np.maximum(poisson_like(expected, noisy.scale, random), 0) * measured
        deviation = np.sqrt(variance / np.maximum(counts, 1))
        values = random.standard_normal(variance.shape, np.float32) * deviation + found.values
        values *= counts > 0
        again, maps, _ = estimate(noisy, values, counts, measured, seed + draw + 1, image)
        total_square += (again.values[0] - totals.values[0]) ** 2 / draws
        error = np.tensordot(rotation, maps.values - found.values, axes=1)
        square += error**2 / draws
    # Two draws may be low by chance: no less than the noise of the average.
    least = np.tensordot(rotation**2, found.variance * variance, axes=1)
    stddev = np.sqrt(np.maximum(nearby(square), least))
    total_least = totals.variance[0] * noisy.scale * expected
    total_stddev = np.sqrt(np.maximum(nearby(total_square[np.newaxis])[0], total_least))
    smoothed = np.tensordot(rotation, found.values, axes=1)
    return Smoothed(smoothed, stddev, found.own, totals.values[0], total_stddev)


def estimate(
    noisy: Profiles,
    values: np.ndarray,
    counts: np.ndarray,
    measured: np.ndarray,
    seed: int,
    image: np.ndarray | None = None,
) -> tuple[Mixed, Mixed, np.ndarray]:
    """Smoothed totals and profiles, and the variance v of the profiles.

    Parameters
    ----------
    noisy : Profiles
        What is known of the noise.
    values, counts : array of float32, shape (k, y, x), (y, x)
        Profiles and totals that are smoothed.
    measured : array of float32, shape (y, x)
    seed : int
    image : array of float32, shape (p, y, x), optional
        Channels of the images that guide.
    """
    counts = np.ascontiguousarray(counts, np.float32)
    variance = noisy.variance(local_mean(values, counts))
    total_variance = total_noise(noisy, counts, measured)[np.newaxis]
    if not len(values):
        found = Mixed(*(np.empty_like(values) for _ in range(4)))
        others = None
    else:
        found = smooth(values, counts, variance, image=image, seed=seed)
        others = found.values, found.variance * variance
    totals = smooth(
        counts[np.newaxis], measured, total_variance, others=others, image=image, seed=seed
    )
    np.maximum(totals.values, 0, out=totals.values)
    return totals, found, variance


def total_noise(noisy: Profiles, counts: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Variance of the noise of totals, shape (y, x)."""
    expected = local_mean(counts[np.newaxis], _TOTAL_WEIGHT * measured)[0]
    return np.float32(noisy.scale) * np.maximum(expected, np.float32(_LEAST_COUNTS))


def poisson_like(expected: np.ndarray, scale: float, random: np.random.Generator) -> np.ndarray:
    """Counts of this mean whose variance is `scale` times it."""
    return (scale * random.poisson(expected / scale)).astype(np.float32)


def nearby(squares: np.ndarray) -> np.ndarray:
    """Means over pixels nearby: the square of a single one says little."""
    from edxdenoise.components import kernels

    line = gaussian_line(_WIDTH)
    ones = np.ones((1, *squares.shape[1:]), np.float32)
    return kernels.filtered(squares.astype(np.float32), line) / kernels.filtered(ones, line)


def signal_kept(noisy: Profiles, found: Smoothed) -> np.ndarray:
    """Share of the signal's energy that is left in every component, 1 for the first.

    <c^, c> less the noise that both share, over <c, c> less all noise: for a linear smoother of
    signal s that is <S s, s> / <s, s> on average (Stein's degrees of freedom).

    Returns
    -------
    array, shape (1 + k,)
        NaN where no signal is seen.
    """
    rotation, weights = noisy.rotation.astype(np.float32), noisy.counts
    total = weights.sum(dtype=float)
    shares = [1.0]
    variance = noisy.variance(local_mean(noisy.values, weights))
    for row, smooth_map in zip(rotation, found.profiles):
        raw = np.tensordot(row, noisy.values, axes=1)
        noise = np.tensordot(row**2, variance, axes=1)
        shared = np.tensordot(row**2, variance * found.own, axes=1)
        known = weights > 0
        means = [(weights * each).sum(dtype=float) / total for each in (raw, smooth_map)]
        both = (weights * raw * smooth_map)[known].sum(dtype=float)
        both -= shared[known].sum(dtype=float) + total * means[0] * means[1]
        energy = (weights * raw**2 - noise)[known].sum(dtype=float) - total * means[0] ** 2
        shares.append(float(np.clip(both / energy, 0, 1)) if energy > 0 else np.nan)
    return np.array(shares)


def noise_scale(ds: xr.Dataset) -> float:
    """Variance of the noise over that of Poisson counts, as later components show it.

    Whole counts have at least Poisson noise, and few of them too spiky a noise to tell more.
    """
    if COUNTS.name not in ds or ds[COUNTS.name].dtype.kind != "u":
        return score_noise(ds).scale
    if pixel_counts(ds).mean() < _FEWEST_COUNTS:
        return 1.0
    return max(score_noise(ds).scale, 1.0)


def area_numbers(ds: xr.Dataset) -> np.ndarray:
    """Stacked map that each row belongs to."""
    if COORD_AREA in ds.coords:
        return np.asarray(ds[COORD_AREA].values, dtype=np.int64)
    return np.zeros(ds.sizes[DIM_Y], np.int64)


def area_rows(area: np.ndarray) -> list[slice]:
    """Rows of each stacked map.

    Examples
    --------
    >>> area_rows(np.array([1, 1, 2]))
    [slice(0, 2, None), slice(2, 3, None)]
    """
    ends = [0, *(np.flatnonzero(np.diff(area)) + 1).tolist(), len(area)]
    return [slice(first, end) for first, end in zip(ends, ends[1:])]


def _of_kept(ds: xr.Dataset, values: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """One value or map for every component, NaN for those dropped."""
    kept = np.flatnonzero(ds[COMPONENT_KEEP.name].values)
    every = np.full((ds.sizes[DIM_COMPONENT], *np.shape(values[0])), np.nan, np.float32)
    for number, value in zip(kept, values):
        every[number] = value
    return every
