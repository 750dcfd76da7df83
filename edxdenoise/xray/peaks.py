"""Peaks of a spectrum: where they are, how many counts they hold, how wide they are.

A zero-area filter finds them. A Gaussian on a straight line, fitted to each with its neighbours
subtracted, gives centroid, net counts and width with their errors.

`local_peaks` finds those of a few pixels, which the spectrum of the whole map hides.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import dask.array as da
import numpy as np
import xarray as xr
from scipy.ndimage import label, uniform_filter, uniform_filter1d
from scipy.signal import find_peaks as local_maxima
from scipy.special import erf

from edxdenoise import schema as v
from edxdenoise.blocks import Block, SparseBlock, compact_blocks, compute
from edxdenoise.cube import detector_resolution
from edxdenoise.xray.detector import FWHM_PER_SIGMA, channel_response, fwhm

LOWEST_PEAK = 0.1  # keV; below are the zero peak and the edge of the discriminator
# A net height must exceed its counting error, or the usual height of a component's noise, by this.
_SIGNIFICANT = 5.0
# Scatter of the channels of a peak over its net height: .3 for a Gaussian, over 1 for a spike.
_EVEN = 0.6
# Share of the highest peak of a component below which a peak is not visible in its picture.
_VISIBLE = 0.02
# A fit spans this many FWHM either side of the peak, and subtracts neighbours this near.
_FITTED, _NEIGHBOUR = 1.2, 4.0
# Passes over all peaks: in each, neighbours are subtracted as the pass before found them.
_PASSES, _STEPS = 3, 12
# Limits of centroid and width in a fit, in nominal FWHM from, and times, the expected ones.
_FARTHEST, _NARROWEST, _WIDEST = 0.5, 0.6, 1.8
# Channels for a fit at all, and for one of the width as well.
_FEWEST_CHANNELS, _FEWEST_FOR_WIDTH = 5, 7


@dataclass(frozen=True)
class Peak:
    """A peak of a spectrum.

    Parameters
    ----------
    channel : int
        Where it is highest.
    energy, energy_stddev : float
        Centroid in keV.
    net_counts, net_stddev : float
        Counts above the background; below 0 for a dip in the spectrum of a component.
    fwhm, fwhm_stddev : float
        Full width at half maximum in eV. The standard deviations are those of counting; they are
        NaN where the peak has too few channels for a fit.
    name : str
        The line, ``"Cu Kα"``, or what else the peak is; empty where it is not known.
    artefact : bool
        Whether it is an escape or sum peak.
    """

    channel: int
    energy: float
    energy_stddev: float
    net_counts: float
    net_stddev: float
    fwhm: float
    fwhm_stddev: float
    name: str = ""
    artefact: bool = False

    @property
    def label(self) -> str:
        """Name and energy, ``"Cu Kα 8.05 keV"``."""
        return f"{self.name} {self.energy:.2f} keV".lstrip()


def find_peaks(
    energy: np.ndarray,
    spectrum: np.ndarray,
    resolution: float = 130.0,
    *,
    least: float = _SIGNIFICANT,
) -> list[Peak]:
    """Find the peaks of a spectrum of counts, most net counts first.

    A peak is a local maximum of the top-hat filtered spectrum (`top_hat`) that exceeds its counting
    error `least` times and has no larger one within one FWHM.

    Parameters
    ----------
    energy : array, shape (energy,)
        Centres of evenly spaced channels in keV.
    spectrum : array, shape (energy,)
        Counts, such as those of all pixels.
    resolution : float
        FWHM at Mn K alpha in eV, for the width to look for; that of each peak is fitted.
    least : float
        Standard deviations of counting that a peak exceeds.

    Returns
    -------
    list of Peak

    Examples
    --------
    >>> from edxdenoise.xray import channel_response
    >>> energy = np.arange(0.2, 12, 0.01)
    >>> spectrum = 100 + 1e6 * channel_response(np.array([6.4]), energy)[0]
    >>> peak, = find_peaks(energy, spectrum)
    >>> round(peak.energy, 3), round(peak.net_counts, -4)
    (6.4, 1000000.0)
    """
    spectrum = np.asarray(spectrum, float)
    net = top_hat(energy, spectrum, resolution)
    half, wing, _ = _filter_sizes(energy, resolution)
    # The mean of n channels with y counts each has the variance y / n.
    variance = np.maximum(spectrum, 1)
    error = np.sqrt(variance * (1 / (2 * half + 1) + 0.5 / wing))
    where = _maxima(energy, net, net > least * error, resolution)
    return _measured(energy, spectrum, where, net, error, resolution)


def component_peaks(
    energy: np.ndarray, loading: np.ndarray, weight: np.ndarray, resolution: float = 130.0
) -> list[Peak]:
    """Find the peaks of a component's spectrum, upwards and downwards, largest in counts first.

    Parameters
    ----------
    energy : array, shape (energy,)
        In keV.
    loading : array, shape (energy,)
        In the weighted space, where noise is the same in all channels.
    weight : array, shape (energy,)
        h, which turns it into counts.
    resolution : float
        FWHM at Mn K alpha in eV.
    """
    net = top_hat(energy, loading, resolution)
    height = np.abs(net)
    noise = np.median(height[height > 0]) / 0.6745 if height.any() else 0.0
    counts = height * weight
    significant = (height > _SIGNIFICANT * noise) & _broad(energy, loading, net, resolution)
    significant &= counts > _VISIBLE * np.abs(loading * weight).max()
    where = _maxima(energy, counts, significant, resolution)
    return _measured(energy, loading * weight, where, net * weight, noise * weight, resolution)


def top_hat(energy: np.ndarray, spectra: np.ndarray, resolution: float) -> np.ndarray:
    """Mean height of each channel's surroundings, 1 FWHM wide, above those on either side.

    The zero-area rectangular filter of P. J. Statham, Anal. Chem. 49 (1977) 2149: a straight
    background gives 0 and a peak its net height. It is 0 where the filter does not fit.

    Parameters
    ----------
    energy : array, shape (energy,)
        Evenly spaced, in keV.
    spectra : array, shape (..., energy)
    resolution : float
        FWHM at Mn K alpha in eV.
    """
    half, wing, fits = _filter_sizes(energy, resolution)
    centre = np.flatnonzero(fits)
    half, wing = half[fits], wing[fits]
    sums = np.concatenate(
        [np.zeros((*spectra.shape[:-1], 1)), np.cumsum(spectra, axis=-1, dtype=np.float64)], -1
    )

    def between(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        return (sums[..., stop] - sums[..., start]) / (stop - start)

    low, high = centre - half, centre + half + 1
    result = np.zeros(spectra.shape)
    sides = between(low - wing, low) + between(high, high + wing)
    result[..., centre] = between(low, high) - sides / 2
    return result


def _filter_sizes(
    energy: np.ndarray, resolution: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Channels either side of the centre, channels of a wing, and where all of them exist."""
    width = energy[1] - energy[0]
    channels = fwhm(np.maximum(energy, LOWEST_PEAK), resolution) / 1000 / width
    half = np.maximum(np.rint((channels - 1) / 2).astype(int), 0)
    wing = np.maximum(np.rint(channels / 2).astype(int), 1)
    index = np.arange(len(energy))
    fits = (index - half - wing >= 0) & (index + half + wing < len(energy))
    return half, wing, fits


def _broad(
    energy: np.ndarray, spectrum: np.ndarray, net: np.ndarray, resolution: float
) -> np.ndarray:
    """Return where all channels of a peak contribute to it.

    This fails where single channels stick out, as in noise, and next to a peak, where the filter
    swings to the other side.
    """
    half, _, _ = _filter_sizes(energy, resolution)
    broad = np.zeros(len(energy), bool)
    for size in np.unique(half):
        mean = uniform_filter1d(spectrum, 2 * size + 1)
        variance = uniform_filter1d(spectrum**2, 2 * size + 1) - mean**2
        even = variance < (_EVEN * net) ** 2
        broad |= (half == size) & even & (mean * net > 0)
    return broad


def _maxima(
    energy: np.ndarray, size: np.ndarray, significant: np.ndarray, resolution: float
) -> list[int]:
    """Channels of the local maxima of `size` at least 1 FWHM apart, largest first."""
    where, _ = local_maxima(size)
    where = where[significant[where] & (energy[where] > LOWEST_PEAK)]
    found: list[int] = []
    for channel in where[np.argsort(-size[where], kind="stable")]:
        width = float(fwhm(energy[channel], resolution)) / 1000
        if all(abs(energy[channel] - energy[other]) > width for other in found):
            found.append(int(channel))
    return found


def _measured(
    energy: np.ndarray,
    spectrum: np.ndarray,
    where: list[int],
    net: np.ndarray,
    error: np.ndarray,
    resolution: float,
) -> list[Peak]:
    """Peaks at channels, fitted; what the filter says where a fit is impossible."""
    step = energy[1] - energy[0]
    rough, peaks = [], []
    for channel in where:
        width = float(fwhm(energy[channel], resolution))
        # What the filter makes of a single count of this width.
        unit = channel_response(energy[[channel]], energy, resolution)[0]
        counts = 1 / top_hat(energy, unit, resolution)[channel]
        rough.append(
            Peak(
                channel,
                float(energy[channel]),
                max(step, 1e-3 * width / 3) / np.sqrt(12),
                float(net[channel] * counts),
                float(error[channel] * counts),
                width,
                np.nan,
            )
        )
    peaks = list(rough)
    for _ in range(_PASSES):
        lone = [_gaussian(energy, peak) for peak in peaks]
        for number, peak in enumerate(rough):
            reach = _NEIGHBOUR * peak.fwhm / 1000
            rest = spectrum - sum(
                lone[other]
                for other in range(len(peaks))
                if other != number and abs(energy[where[other]] - peak.energy) < reach
            )
            peaks[number] = _fitted(energy, spectrum, rest, peak)
    return sorted(peaks, key=lambda peak: -abs(peak.net_counts))


def _gaussian(energy: np.ndarray, peak: Peak) -> np.ndarray:
    step = energy[1] - energy[0]
    edges = np.append(energy - step / 2, energy[-1] + step / 2)
    sigma = peak.fwhm / 1000 / FWHM_PER_SIGMA
    return peak.net_counts / 2 * np.diff(erf((edges - peak.energy) / (np.sqrt(2) * sigma)))


def _fitted(energy: np.ndarray, spectrum: np.ndarray, rest: np.ndarray, peak: Peak) -> Peak:
    """The peak after a fit of centroid, width, counts and a straight line (Gauss-Newton).

    `rest` is the spectrum less its other peaks; `peak` has the nominal width.
    """
    nominal = peak.fwhm / 1000
    near = np.flatnonzero(np.abs(energy - peak.energy) < _FITTED * nominal)
    if near.size < _FEWEST_CHANNELS:
        return peak
    unknowns = 5 if near.size >= _FEWEST_FOR_WIDTH else 4
    step = energy[1] - energy[0]
    x = energy[near] - peak.energy
    edges = np.append(x - step / 2, x[-1] + step / 2)
    data = rest[near]
    # Counts have the variance of their number; those of a component, the same in all channels.
    variance = np.maximum(spectrum[near], 1) if spectrum.min() >= 0 else np.ones(near.size)
    weight = 1 / np.sqrt(variance)
    centre, sigma = 0.0, nominal / FWHM_PER_SIGMA
    limits = sigma * _NARROWEST, sigma * _WIDEST
    linear = np.zeros(3)
    for turn in range(_STEPS):
        z = (edges - centre) / sigma
        density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
        shape = 0.5 * np.diff(erf(z / np.sqrt(2)))
        by_centre = -np.diff(density) / sigma
        by_sigma = -np.diff(density * z) / sigma
        flat = np.column_stack([shape, np.ones(near.size), x / nominal])
        if not turn:
            linear = np.linalg.lstsq(flat * weight[:, None], data * weight, rcond=None)[0]
        columns = np.column_stack([flat, linear[0] * by_centre, linear[0] * by_sigma])
        weighted = (columns * weight[:, None])[:, :unknowns]
        move, _, rank, _ = np.linalg.lstsq(weighted, (data - flat @ linear) * weight, rcond=1e-10)
        if rank < unknowns:
            return peak
        linear = linear + move[:3]
        centre = float(np.clip(centre + np.clip(move[3], -sigma, sigma), -nominal, nominal))
        if unknowns == 5:
            sigma = float(np.clip(sigma * np.clip(1 + move[4] / sigma, 0.7, 1.4), *limits))
        if (np.abs(move[3:]) < 1e-4 * sigma).all():
            break
    at_limit = not limits[0] < sigma < limits[1] or abs(centre) > _FARTHEST * nominal
    if at_limit or linear[0] * peak.net_counts <= 0:
        return peak
    errors = np.sqrt(np.diag(np.linalg.inv(weighted.T @ weighted)))
    if spectrum.min() < 0:
        scatter = (data - flat @ linear) * weight
        errors = errors * np.sqrt((scatter**2).sum() / max(near.size - unknowns, 1))
    return replace(
        peak,
        energy=peak.energy + centre,
        energy_stddev=float(errors[3]),
        net_counts=float(linear[0]),
        net_stddev=float(errors[0]),
        fwhm=1000 * FWHM_PER_SIGMA * sigma,
        fwhm_stddev=1000 * FWHM_PER_SIGMA * float(errors[4]) if unknowns == 5 else np.nan,
    )


# Larger maps are summed over squares of pixels to at most so many each way.
_LARGEST_MAP = 128
_SMALLEST_MAP = 8
_SIZES = (3, 5, 9)  # pixels, of the squares that are looked at
_LEAST = 4.5  # standard deviations
_LARGEST_SHARE = 0.25  # of the map: more is no small part
_MOST = 6
_SAME = 0.5  # share of common pixels from which two places are one
_CLEAR = 0.6  # FWHM, from lines that are known


def square_side(shape: tuple[int, ...]) -> int:
    """Pixels along the side of the squares that `local_peaks` sums a map (y, x) over."""
    return -(-max(shape) // _LARGEST_MAP)


def local_peaks(ds: xr.Dataset, known: Iterable[float]) -> list[np.ndarray]:
    """Find small parts of a map where a peak is higher than its surroundings in energy.

    Every other pixel is looked at, as on a chess board, so that the rest can test what is found.

    Parameters
    ----------
    ds : Dataset
        With ``counts``, in memory or lazy.
    known : iterable of float
        Energies in keV, on the axis of the map, of lines that are explained.

    Returns
    -------
    list of array of bool, shape (y, x)
        Most significant first. Of a large map they are of squares of pixels.
    """
    counts = da.asarray(ds[v.COUNTS].data)
    square = square_side(counts.shape[:2])
    if min(counts.shape[:2]) // square < _SMALLEST_MAP:
        return []
    energy = ds[v.DIM_ENERGY].values.astype(float)
    resolution = detector_resolution(ds)
    # Windows of half a FWHM.
    used = np.flatnonzero(energy > 0.2)
    step = energy[1] - energy[0]
    position = np.cumsum(1000 * step / fwhm(energy[used], resolution))
    starts = used[np.unique(np.floor(2 * position), return_index=True)[1]]
    bounds = np.append(starts, energy.size)
    windows = da.blockwise(
        _window_sums,
        "yxw",
        compact_blocks(counts),
        "yx",
        new_axes={"w": starts.size},
        starts=starts,
        meta=np.empty((0, 0, 0), np.float32),
    )
    windows = da.coarsen(np.sum, windows, {0: square, 1: square}, trim_excess=True)
    maps = np.moveaxis(np.asarray(compute(windows)[0]), 2, 0).astype(np.float32)
    maps *= chess_board(maps.shape[1:])
    centres = (energy[bounds[:-1]] + energy[bounds[1:] - 1]) / 2
    width = fwhm(centres, resolution) / 1000
    lines = np.array(sorted(known))
    free = np.array([not (np.abs(lines - c) < _CLEAR * w).any() for c, w in zip(centres, width)])

    found: list[tuple[float, np.ndarray]] = []
    for size in _SIZES:
        sums = np.array([uniform_filter(m, size, mode="constant") for m in maps]) * size**2
        sums = np.maximum(sums, 0)
        # A FWHM against as much on either side, half a FWHM away.
        inner = sums[3:-4] + sums[4:-3]
        outer = (sums[:-7] + sums[1:-6] + sums[6:-1] + sums[7:]) / 2
        z = (inner - outer) / np.sqrt(inner + outer / 2 + 1)
        for number in np.flatnonzero(free[3:-4] & free[4:-3]):
            best = float(z[number].max())
            if best < _LEAST:
                continue
            labels, _ = label(z[number] > best / 2)
            part = labels == labels.flat[z[number].argmax()]
            if part.mean() < _LARGEST_SHARE:
                found.append((best, part))
    found.sort(key=lambda pair: -pair[0])
    parts: list[np.ndarray] = []
    for _, part in found:
        if all((part & other).sum() < _SAME * (part | other).sum() for other in parts):
            parts.append(part)
        if len(parts) == _MOST:
            break
    return parts


def _window_sums(block: Block, starts: np.ndarray) -> np.ndarray:
    """Counts of every pixel from each start to the next, shape (y, x, window)."""
    if not isinstance(block, SparseBlock):
        return np.add.reduceat(block, starts, axis=2, dtype=np.float32)
    rows = block.rows
    window = np.searchsorted(starts, rows.indices, side="right") - 1
    inside = window >= 0
    sums = np.zeros((rows.shape[0], starts.size), np.float32)
    pixel = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    np.add.at(sums, (pixel[inside], window[inside]), rows.data[inside])
    return sums.reshape(*block.sides, starts.size)


def chess_board(shape: tuple[int, ...]) -> np.ndarray:
    """Every other pixel.

    Examples
    --------
    >>> chess_board((2, 3)).astype(int)
    array([[1, 0, 1],
           [0, 1, 0]])
    """
    rows, columns = np.indices(shape)
    return (rows + columns) % 2 == 0
