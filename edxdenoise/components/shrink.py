"""Smoothing of the kept score maps: the stage, from and to a Dataset.

`weight_by_signal` weights each kept map as a whole instead. Neighbouring pixels show components
whose variance is below that of their noise: kept whole, such a component adds more noise than
signal. With t the scores and Var(t) the variance of their noise
(`edxdenoise.components.score_noise`), the weight with the least squared error is

    sum_i (t_i^2 - Var(t_i)) / sum_i t_i^2

(N. Wiener, Extrapolation, Interpolation, and Smoothing of Stationary Time Series, 1949). Denoised
counts remain a fixed filter of the raw ones, and no pixel is averaged with another.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.blocks import as_planes, trim_memory
from edxdenoise.components.guide import Gain, channel, judged
from edxdenoise.components.neighbour import detector_smoothing, found_by_neighbours, search_width
from edxdenoise.components.overfitting import (
    marchenko_pastur_eigenvalue,
    noise_inflation,
    overfit_shares,
)
from edxdenoise.components.pca import channel_counts
from edxdenoise.components.score_noise import score_noise
from edxdenoise.components.smoothing import (
    Mixed,
    Profiles,
    gaussian_line,
    local_mean,
    profiles,
    risk_window,
    smooth,
    spikes,
)
from edxdenoise.cube import (
    add_history,
    detector_resolution,
    guide_images,
    is_lazy,
    is_poisson_weighted,
    measured_pixels,
    pixel_counts,
)
from edxdenoise.errors import DataError

# Counts that the variance of a total is no less than, and pixels that it is looked for in: of few
# counts the noise is that of what was expected, not of what came.
_LEAST_COUNTS, _TOTAL_WEIGHT = 0.02, 8.0
# Mean counts per pixel from which the scale of the noise is measured.
_FEWEST_COUNTS = 100.0
# Draws of the bootstrap, and the Gaussian in pixels over which they are averaged.
_DRAWS, _WIDTH = 2, 3.0
# Windows, in pixels, in which the risk is compared with the error that the bootstrap states; and by
# how many standard deviations of the risk's noise it must exceed that error.
_RISK_WIDTHS, _RISK_SURE = (1.0, 2.0, 4.0), 4.0


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
        components; lazy where the counts are), ``total_stddev`` and ``component_signal_kept``.
        What each image gains is said in the attribute ``image_gain``
        (`edxdenoise.components.guide`).

    Raises
    ------
    DataError
        If the counts are not Poisson-weighted, or component 1 is not kept.

    Notes
    -----
    The method is in `edxdenoise.components.smoothing`. Its errors are those of a parametric
    bootstrap (B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap, 1993, section 6.5):
    the smoothed map is taken for the truth, noise of the known variance is added, and the sum is
    smoothed by the whole estimator, the choice of weights included. What smoothing has lost
    already is not lost again: where Stein's risk around a pixel is surely above that error, the
    difference is added. So is the share of each map that is the noise its component was found in
    (`edxdenoise.components.overfitting`).
    """
    v.validate(
        ds, v.COMPONENT_MAP, v.COMPONENT_SPECTRUM, v.COMPONENT_KEEP, v.WEIGHT_PIXEL, v.WEIGHT_ENERGY
    )
    if not is_poisson_weighted(ds):
        raise DataError("smoothing needs Poisson weights; use weighting='poisson' or --no-shrink")
    kept = np.flatnonzero(ds[v.COMPONENT_KEEP].values)
    if not len(kept) or kept[0] != 0:
        raise DataError("smoothing needs component 1, the total; keep it or use --no-shrink")
    measured = measured_pixels(ds).astype(np.float32)
    counts = (pixel_counts(ds) * measured).astype(np.float32)
    scale = noise_scale(ds) if len(kept) > 1 else 1.0
    g, h = ds[v.WEIGHT_PIXEL].values, ds[v.WEIGHT_ENERGY].values.astype(float)
    maps, spectra = (
        ds[spec].isel({v.DIM_COMPONENT: kept}).values
        for spec in (v.COMPONENT_MAP, v.COMPONENT_SPECTRUM)
    )
    by_neighbours = found_by_neighbours(ds)[kept[1:]]
    filled = int(np.count_nonzero(channel_counts(ds)))
    ratio = filled / counts.size
    variances = ds[v.COMPONENT_VARIANCE].values[kept[1:]] * counts.sum(dtype=float) / scale
    inflation = noise_inflation(variances, by_neighbours, ratio)
    noisy = profiles(maps, spectra, g, h, counts, scale, inflation)
    del maps
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
    if errors:
        energy, level = ds[v.DIM_ENERGY].values, counts.mean(dtype=float)
        smoothing = detector_smoothing(energy, detector_resolution(ds), search_width(level))
        directions = filled if smoothing is None else filled * smoothing.diagonal().mean()
        deviation = np.sqrt(counts / np.float32(scale))
        shares = overfit_shares(
            np.tensordot(noisy.rotation.astype(np.float32), noisy.values, axes=1) * deviation,
            found.profiles * deviation,
            by_neighbours,
            areas,
            ratio=ratio,
            directions=directions,
        )
        shares = shares.astype(np.float32)[:, np.newaxis, np.newaxis]
        found.stddev = np.hypot(found.stddev, found.profiles * shares)
    # Scores t = g c / sqrt(N) of the pixel's smoothed counts.
    inverse = (1 / (g * np.sqrt(counts.sum(dtype=float)))).astype(np.float32)
    factor = found.totals * inverse
    shrunk = np.concatenate([factor[np.newaxis], found.profiles * factor])
    stddev = np.concatenate([(found.total_stddev * inverse)[np.newaxis], found.stddev * factor])
    trim_memory()
    result = ds.assign(
        {
            v.COMPONENT_MAP_SHRUNK: v.COMPONENT_MAP_SHRUNK.array(_maps_of_kept(ds, shrunk)),
            v.COMPONENT_MAP_SHRUNK_STDDEV: v.COMPONENT_MAP_SHRUNK_STDDEV.array(
                _maps_of_kept(ds, stddev)
            ),
            v.COMPONENT_ERROR_CORRELATION: v.COMPONENT_ERROR_CORRELATION.array(
                _of_pairs(ds, found.correlation)
            ),
            v.TOTAL_STDDEV: v.TOTAL_STDDEV.array(found.total_stddev),
            v.COMPONENT_SIGNAL_KEPT: v.COMPONENT_SIGNAL_KEPT.array(
                _of_kept(ds, signal_kept(noisy, found))
            ),
        }
    )
    if said:
        result = result.assign_attrs({v.IMAGE_GAIN: said})
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
    correlation : array, shape (k, k)
        Of the errors of the profiles in a pixel.
    """

    profiles: np.ndarray
    stddev: np.ndarray
    own: np.ndarray
    totals: np.ndarray
    total_stddev: np.ndarray
    correlation: np.ndarray

    @classmethod
    def empty(cls, noisy: Profiles) -> Smoothed:
        """Room for the maps of `noisy`."""
        first, second, third = (np.empty_like(noisy.values) for _ in range(3))
        totals, stddev = (np.empty_like(noisy.counts) for _ in range(2))
        return cls(first, second, third, totals, stddev, np.zeros((len(noisy.values),) * 2))

    def put(self, rows: slice, part: Smoothed) -> None:
        """Write the maps of some rows, and take their part in the correlation."""
        for name in ("profiles", "stddev", "own", "totals", "total_stddev"):
            vars(self)[name][..., rows, :] = vars(part)[name]
        self.correlation += part.correlation * (part.totals.size / self.totals.size)


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
    square, total_square = np.zeros_like(noisy.values), np.zeros_like(noisy.counts)
    expected = np.maximum(totals.values[0], _LEAST_COUNTS)
    for draw in range(draws):
        counts = np.maximum(poisson_like(expected, noisy.scale, random), 0) * measured
        deviation = np.sqrt(variance / np.maximum(counts, 1))
        values = random.standard_normal(variance.shape, np.float32) * deviation + found.values
        values *= counts > 0
        del deviation
        again, maps, _ = estimate(noisy, values, counts, measured, seed + draw + 1, image)
        total_square += (again.values[0] - totals.values[0]) ** 2 / draws
        square += (maps.values - found.values) ** 2 / draws
        del values, again, maps
    square = error_variance(square, noisy.values, noisy.counts, found, variance)
    rotation = noisy.rotation.astype(np.float32)
    stddev = np.sqrt(np.tensordot(rotation**2, square, axes=1))
    correlation = np.eye(len(stddev))
    # Errors of rotated profiles are uncorrelated.
    for at, row in enumerate(rotation):
        for other, column in enumerate(rotation[:at]):
            shared = np.tensordot(row * column, square, axes=1) / (stddev[at] * stddev[other])
            correlation[at, other] = correlation[other, at] = shared.mean(dtype=float)
    total_variance = (np.float32(noisy.scale) * expected)[np.newaxis]
    total_square = error_variance(
        total_square[np.newaxis], noisy.counts[np.newaxis], measured, totals, total_variance
    )
    smoothed = np.tensordot(rotation, found.values, axes=1)
    total_stddev = np.sqrt(total_square[0])
    return Smoothed(smoothed, stddev, found.own, totals.values[0], total_stddev, correlation)


def error_variance(
    square: np.ndarray,
    values: np.ndarray,
    weights: np.ndarray,
    found: Mixed,
    variance: np.ndarray,
) -> np.ndarray:
    """Mean squared error of smoothed maps.

    Parameters
    ----------
    square : array of float32, shape (k, y, x)
        Squared errors of the bootstrap.
    values, variance : array of float32, shape (k, y, x)
        What was smoothed, and the variance of its noise times the weights.
    weights : array of float32, shape (y, x)
    found : Mixed

    Returns
    -------
    array of float32, shape (k, y, x)
    """
    from edxdenoise.components import kernels

    # At least the noise of an average by a Gaussian, whose squared weights sum to half of the share
    # of its centre. Two draws tell little of a pixel. By how much they exceed that noise is alike
    # nearby, where the noise itself is not: errors of edges stay at the edges.
    own = found.own**2 / np.maximum(weights, np.float32(1))
    least = np.maximum(found.variance / 2, own) * variance
    np.maximum(least, np.finfo(np.float32).tiny, out=least)
    stated = least * np.maximum(nearby(square / least), 1)
    known = (weights > 0).astype(np.float32)
    beyond = weights * ((values - found.values) ** 2 - stated) / variance
    beyond += (2 * found.own - 1) * known
    missing = np.zeros_like(beyond)
    for width in _RISK_WIDTHS:
        line = gaussian_line(width)
        pixels = kernels.filtered(known[np.newaxis], line) * np.float32(4 * np.pi * width**2)
        mean = kernels.filtered(beyond, line) * np.float32(4 * np.pi * width**2)
        mean /= np.maximum(pixels, np.float32(1))
        # The square of a normal deviate has the variance 2.
        noise = np.sqrt(2 / np.maximum(pixels, np.float32(1)))
        np.maximum(missing, mean - np.float32(_RISK_SURE) * noise, out=missing)
    return stated + missing * variance / np.maximum(weights, np.float32(1))


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
    pilot = local_mean(values, counts)
    variance = noisy.variance(pilot)
    total_variance = total_noise(noisy, counts, measured)[np.newaxis]
    window = risk_window(counts)
    if not len(values):
        found = Mixed(*(np.empty_like(values) for _ in range(4)))
        others = None
    else:
        spike = spikes(values, counts, variance, noisy.carriers(pilot, variance))
        del pilot
        found = smooth(values, counts, variance, window=window, spike=spike, image=image, seed=seed)
        del spike
        others = found.values, found.variance * variance
    totals = smooth(
        counts[np.newaxis],
        measured,
        total_variance,
        window=window,
        spike=spikes(
            counts[np.newaxis], measured, total_variance, total_variance / np.float32(noisy.scale)
        ),
        others=others,
        image=image,
        seed=seed,
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


def nearby(values: np.ndarray) -> np.ndarray:
    """Means over pixels nearby, shape (k, y, x)."""
    from edxdenoise.components import kernels

    line = gaussian_line(_WIDTH)
    ones = np.ones((1, *values.shape[1:]), np.float32)
    return kernels.filtered(values.astype(np.float32), line) / kernels.filtered(ones, line)


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

    Those are fitted to their own noise, which raises their variance; components that hold signal
    are not. Whole counts have at least Poisson noise, and few of them too spiky a noise to tell
    more.
    """
    whole = v.COUNTS in ds and ds[v.COUNTS].dtype.kind == "u"
    if whole and pixel_counts(ds).mean() < _FEWEST_COUNTS:
        return 1.0
    pixels, channels = ds.sizes[v.DIM_Y] * ds.sizes[v.DIM_X], ds.sizes[v.DIM_ENERGY]
    # The scale is the median over the second half of the components.
    share = min(0.75 * ds.sizes[v.DIM_COMPONENT] / min(pixels, channels), 1.0)
    scale = float(score_noise(ds).scale / marchenko_pastur_eigenvalue(share, channels / pixels))
    return max(scale, 1.0) if whole else scale


def area_numbers(ds: xr.Dataset) -> np.ndarray:
    """Stacked map that each row belongs to."""
    if v.COORD_AREA in ds.coords:
        return np.asarray(ds[v.COORD_AREA].values, dtype=np.int64)
    return np.zeros(ds.sizes[v.DIM_Y], np.int64)


def area_rows(area: np.ndarray) -> list[slice]:
    """Rows of each stacked map.

    Examples
    --------
    >>> area_rows(np.array([1, 1, 2]))
    [slice(0, 2, None), slice(2, 3, None)]
    """
    ends = [0, *(np.flatnonzero(np.diff(area)) + 1).tolist(), len(area)]
    return [slice(first, end) for first, end in zip(ends, ends[1:])]


def _of_pairs(ds: xr.Dataset, correlation: np.ndarray) -> np.ndarray:
    """A number for every pair of components, NaN for the first and for those dropped."""
    kept = np.flatnonzero(ds[v.COMPONENT_KEEP].values)[1:]
    every = np.full((ds.sizes[v.DIM_COMPONENT],) * 2, np.nan, np.float32)
    every[np.ix_(kept, kept)] = correlation
    return every


def _of_kept(ds: xr.Dataset, values: np.ndarray) -> np.ndarray:
    """One value or map for every component, NaN for those dropped."""
    kept = np.flatnonzero(ds[v.COMPONENT_KEEP].values)
    every = np.full((ds.sizes[v.DIM_COMPONENT], *values.shape[1:]), np.nan, np.float32)
    every[kept] = values
    return every


def _maps_of_kept(ds: xr.Dataset, maps: np.ndarray) -> np.ndarray | da.Array:
    """A map for every component; of lazy counts lazy too, so that none of NaN takes memory."""
    if not is_lazy(ds):
        return _of_kept(ds, maps)
    shape = maps.shape[1:]
    nothing = partial(np.full, shape, np.nan, np.float32)
    planes: list[Any] = [nothing] * ds.sizes[v.DIM_COMPONENT]
    for number, one in zip(np.flatnonzero(ds[v.COMPONENT_KEEP].values), maps):
        planes[number] = one
    return as_planes(planes, shape)


def weight_by_signal(ds: xr.Dataset) -> xr.Dataset:
    """Weight every kept component but the total by its signal over signal plus noise.

    Parameters
    ----------
    ds : Dataset
        Poisson-weighted, with computed components and ``component_keep``.

    Returns
    -------
    Dataset
        With ``component_map_shrunk`` (NaN for dropped components) and the weights as
        ``component_signal_kept``. The total, component 1, has the weight 1.
    """
    v.validate(ds, v.COMPONENT_MAP, v.COMPONENT_KEEP)
    noise = score_noise(ds)
    maps, kept = noise.maps, np.flatnonzero(ds[v.COMPONENT_KEEP].values)
    shares = np.full(len(maps), np.nan, np.float32)
    for k in map(int, kept):
        square = float(np.vdot(maps[k], maps[k]))
        left = square - float(noise.variance(k).sum(dtype=float))
        shares[k] = 1 if k == 0 else max(left, 0) / square if square > 0 else 0
    shrunk = _maps_of_kept(ds, maps[kept] * shares[kept, np.newaxis, np.newaxis])
    result = ds.assign(
        {
            v.COMPONENT_MAP_SHRUNK: v.COMPONENT_MAP_SHRUNK.array(shrunk),
            v.COMPONENT_SIGNAL_KEPT: v.COMPONENT_SIGNAL_KEPT.array(shares),
        }
    )
    return add_history(result, "weight_by_signal")
