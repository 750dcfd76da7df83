"""Broadening of lines by the detector, measured from the peaks of the sum spectrum.

The squared FWHM of a silicon detector grows linearly with the energy: electronic noise plus the
Fano statistics of charge carriers. Both terms come from the widths of the clean peaks, and from a
fit of all lines to the sum spectrum: soft peaks overlap, or are narrower than two channels, so that
no width can be read from one of them. The fit also gives the depth of incomplete charge collection.
What the file states is a prior, as is the slope of silicon; the peaks outweigh both where they are
strong.

What remains uncertain of widths, tails and the energy scale shifts all fitted intensities together.
`systematic_weights` gives these shifts as weighted sums of counts, as intensities are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import xarray as xr
from scipy.interpolate import CubicSpline

from edxdenoise import schema as v
from edxdenoise.cube import (
    DETECTOR_RESPONSE,
    DETECTOR_RESPONSE_COVARIANCE,
    Resolution,
    add_history,
    detector_resolution,
    energy_range,
    sum_spectrum,
)
from edxdenoise.errors import Rank, warn
from edxdenoise.quantification.calibration import AxisError, axis_error, clean_lines, peak_shifts
from edxdenoise.quantification.fit import (
    LOWEST_FITTED,
    fit_spectrum,
    line_shapes,
    noticeable_families,
)
from edxdenoise.xray import DEFAULT_BEAM_ENERGY, find_peaks, fwhm
from edxdenoise.xray.detector import MN_KA_ENERGY
from edxdenoise.xray.families import Family, families

# Priors: standard deviations of the FWHM at Mn K alpha (eV) and of the slope of its square (eV),
# whose mean is 8 ln 2 times the Fano factor 0.115 and 3.8 eV per pair of carriers.
_STATED_STDDEV = 10.0
_SLOPE, _SLOPE_STDDEV = 2.43, 0.08
# A peak is used if its width is known to this share, and is within this share of the expected one.
_KNOWN, _NEAR = 0.05, 0.3
# Relative error of any measured width beside counting: neighbours and backgrounds are not exact.
_WIDTH_ERROR = 0.004
# Residuals beyond this many standard deviations have less weight (P. J. Huber, Ann. Math. Stat. 35
# (1964) 73).
_HUBER = 1.5
# Range of noises tried, in standard deviations of what the clean peaks leave of its square, and the
# error of the noise (FWHM in eV) beside counting.
_NOISES_TRIED = 3.0
_NOISE_ERROR = 1.0
# FWHM in eV that no detector has less of.
_LEAST_NOISE = 20.0
# Depths (nm) that are tried, and the scale of those that occur. The last one gives O K alpha a tail
# of a fifth of its counts: where more seems to be needed it is the background that does not fit.
_DEPTHS = np.array([0.0, 10.0, 20.0, 40.0, 70.0, 110.0])
_DEPTH_SCALE = 60.0
# Relative error of the depth beside counting: a real tail is no exact exponential.
_DEPTH_ERROR = 0.25
# Standard deviations by which a tail must improve the fit. One that cannot be seen changes the
# line of a standard as much as that of the specimen.
_TAIL_SEEN = 4.0
_ROUNDS = 2
# Measured and stated FWHM (eV) that differ by more are worth a note.
_NOTABLE = 4.0
# Steps of the numeric derivatives: eV, eV, nm, keV, 1.
_STEPS = np.array([0.5, 0.02, 2.0, 0.0005, 0.0002])
# Directions of the systematic errors that are kept: the others change next to nothing.
_DIRECTIONS = 2


def measure_response(ds: xr.Dataset, elements: Iterable[str]) -> xr.Dataset:
    """Measure the widths and tails of the peaks and what is uncertain of them.

    Parameters
    ----------
    ds : Dataset
        With counts, or what was made of them, on a corrected energy axis.
    elements : iterable of str
        Symbols of what the specimen holds.

    Returns
    -------
    Dataset
        With the attributes ``detector_response`` (FWHM at Mn K alpha in eV, slope of its square in
        eV, depth of the tail in nm) and ``detector_response_covariance``. `detector_resolution`
        reads them. Without a clean peak they are those of the priors.
    """
    # A response measured before is no prior.
    unmeasured = xr.Dataset(attrs={k: a for k, a in ds.attrs.items() if k != DETECTOR_RESPONSE})
    stated = detector_resolution(unmeasured)
    elements = list(elements)
    spectrum, energy = sum_spectrum(ds), ds[v.DIM_ENERGY].values
    beam = ds.attrs.get("beam_energy")
    span = energy_range(ds)
    beam_energy = DEFAULT_BEAM_ENERGY if beam is None else beam
    found = families(elements, (max(span[0], LOWEST_FITTED), span[1]), beam_energy=beam)
    if spectrum.sum() > 0:
        mean = np.maximum(spectrum, spectrum.mean() / 1000)
        found = noticeable_families(energy, mean, found, 1, stated, beam_energy)
    positions = [position for _, position in clean_lines(ds, elements)]
    response, covariance, used = Resolution(float(stated), _SLOPE), np.zeros((3, 3)), 0
    depth, depth_variance = 0.0, 0.0
    for _ in range(_ROUNDS):
        widths = _widths(energy, spectrum, found, beam_energy, positions, response)
        used = len(widths)
        law, law_covariance = width_law(widths, float(stated))
        if found and spectrum.sum() > 0:
            seen = energy, spectrum, found, beam_energy
            law, law_covariance = _fitted_law(*seen, law, law_covariance, depth)
            depth, depth_variance = _tail_depth(*seen, Resolution(law[0], law[1]))
        response = Resolution(law[0], law[1], depth)
        covariance[:2, :2], covariance[2, 2] = law_covariance, depth_variance
    errors = np.zeros((5, 5))
    errors[:3, :3] = covariance
    errors[3, 3], errors[4, 4] = _axis_variances(axis_error(peak_shifts(ds, elements)))
    stddev = float(np.sqrt(covariance[0, 0]))
    if used and abs(response - stated) > max(_NOTABLE, 2 * stddev):
        warn(
            f"The peaks are {float(response):.0f} ± {stddev:.0f} eV wide at Mn Ka, the file states "
            f"{float(stated):.0f} eV",
            "the measured width is used",
            rank=Rank.NOTE,
        )
    values = [float(response), float(law[1]), float(depth)]
    result = ds.assign_attrs(
        {DETECTOR_RESPONSE: values, DETECTOR_RESPONSE_COVARIANCE: errors.ravel().tolist()}
    )
    line = (
        f"measure_response peaks={used} fwhm_mn_ka={values[0]:.1f} eV slope={values[1]:.3f} eV "
        f"tail={values[2]:.0f} nm"
    )
    return add_history(result, line)


def _axis_variances(error: AxisError) -> tuple[float, float]:
    """Variances of a shift (keV) and a gain: what was found and not corrected, and its error."""
    if not np.isfinite(error.uncertainty):
        return 0.0, 0.0
    return error.shift**2 + error.uncertainty**2, error.gain**2


def width_law(
    widths: Sequence[tuple[float, float, float]], stated: float
) -> tuple[np.ndarray, np.ndarray]:
    """FWHM at Mn K alpha and slope of its square, from widths of peaks and the priors.

    Parameters
    ----------
    widths : sequence of (energy, fwhm, stddev)
        In keV, eV and eV.
    stated : float
        FWHM at Mn K alpha in eV, as the file states it.

    Returns
    -------
    law, covariance : array, shapes (2,) and (2, 2)
        In eV.

    Examples
    --------
    >>> law, _ = width_law([(1.74, 84.0, 0.2), (6.4, 140.0, 0.3), (8.05, 155.0, 0.4)], 130.0)
    >>> law.round(1)
    array([134.7,   2.7])
    """
    energies, fwhms, errors = np.array(widths, float).reshape(-1, 3).T
    rows = np.column_stack([np.ones(energies.size), 1000 * (energies - MN_KA_ENERGY)])
    squares = fwhms**2
    errors = 2 * fwhms * np.hypot(errors, _WIDTH_ERROR * fwhms)
    prior = np.diag([1 / (2 * stated * _STATED_STDDEV) ** 2, 1 / _SLOPE_STDDEV**2])
    mean = np.array([stated**2, _SLOPE])
    trust = np.ones(energies.size)
    for _ in range(20):
        weights = trust / errors**2
        normal = prior + (rows.T * weights) @ rows
        found = np.linalg.solve(normal, prior @ mean + (rows.T * weights) @ squares)
        residuals = np.abs(squares - rows @ found) / errors
        trust = np.minimum(1, _HUBER / np.maximum(residuals, 1e-9))
    scatter = 1.0
    if energies.size > 2:
        scatter = max(1.0, float((trust * residuals**2).sum() / (energies.size - 2)))
    covariance = np.linalg.inv(prior + (rows.T * weights) @ rows / scatter)
    value = np.sqrt(found[0])
    scale = np.array([1 / (2 * value), 1.0])
    return np.array([value, found[1]]), covariance * np.outer(scale, scale)


def _widths(
    energy: np.ndarray,
    spectrum: np.ndarray,
    found: Sequence[Family],
    beam_energy: float,
    positions: Sequence[float],
    response: Resolution,
) -> list[tuple[float, float, float]]:
    """Energy, FWHM and its error of the clean peaks.

    A fit of a Gaussian measures the tail, partners such as K alpha 2, flanks of neighbours and
    channels along with the width. By how much is seen in the spectrum that is expected.
    """
    if not found:
        return []
    resolution = float(response)
    shapes = line_shapes(energy, found, response)
    expected, _ = fit_spectrum(energy, spectrum, shapes, response, beam_energy)
    peaks = find_peaks(energy, spectrum, resolution)
    alike = find_peaks(energy, np.maximum(expected, 0), resolution)
    result = []
    for position in positions:
        width = float(fwhm(position, response))
        pair = [
            p
            for each in (peaks, alike)
            for p in each
            if 1000 * abs(p.energy - position) < 0.4 * width and p.fwhm_stddev < _KNOWN * width
        ]
        if len(pair) != 2:
            continue
        square = pair[0].fwhm ** 2 + width**2 - pair[1].fwhm ** 2
        if square > 0 and abs(np.sqrt(square) / width - 1) < _NEAR:
            result.append((position, float(np.sqrt(square)), pair[0].fwhm_stddev))
    return result


def _misfits(
    energy: np.ndarray,
    spectrum: np.ndarray,
    found: Sequence[Family],
    beam_energy: float,
    responses: Iterable[Resolution],
) -> np.ndarray:
    """Misfit of the spectrum with each response, in units of the least per channel."""
    misfits = np.array(
        [
            fit_spectrum(energy, spectrum, line_shapes(energy, found, each), each, beam_energy)[1]
            for each in responses
        ]
    )
    # The best model still is none: its misfit sets the scale of what is significant.
    return (misfits - misfits.min()) / max(misfits.min() / (energy >= LOWEST_FITTED).sum(), 1.0)


def _fitted_law(
    energy: np.ndarray,
    spectrum: np.ndarray,
    found: Sequence[Family],
    beam_energy: float,
    law: np.ndarray,
    covariance: np.ndarray,
    depth: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Law of `width_law` and its covariance, with what the fit of all lines adds.

    That is the electronic noise, to which the soft peaks owe their widths.
    """
    noise_square = law[0] ** 2 - 1000 * MN_KA_ENERGY * law[1]
    gradient = np.array([2 * law[0], -1000 * MN_KA_ENERGY])
    stddev = np.sqrt(gradient @ covariance @ gradient)
    direction = covariance @ gradient / stddev
    # No noise has a negative square.
    lowest = max(-_NOISES_TRIED, (_LEAST_NOISE**2 - noise_square) / stddev)
    steps = np.linspace(lowest, max(_NOISES_TRIED, lowest + 1), 6)
    tried = (law + step * direction for step in steps)
    laws = (Resolution(float(value), float(slope), depth) for value, slope in tried)
    misfits = _misfits(energy, spectrum, found, beam_energy, laws)
    fine = np.linspace(steps[0], steps[-1], 301)
    penalty = CubicSpline(steps, misfits)(fine) + fine**2
    chance = np.exp(-0.5 * (penalty - penalty.min()))
    chance /= chance.sum()
    mean = float(chance @ fine)
    error = 2 * _NOISE_ERROR * np.sqrt(noise_square + mean * stddev) / stddev
    variance = float(chance @ (fine - mean) ** 2) + error**2
    change = min(variance, 1.0) - 1
    return law + mean * direction, covariance + change * np.outer(direction, direction)


def _tail_depth(
    energy: np.ndarray,
    spectrum: np.ndarray,
    found: Sequence[Family],
    beam_energy: float,
    response: Resolution,
) -> tuple[float, float]:
    """Depth of incomplete charge collection in nm that describes the spectrum best; variance."""
    tried = (Resolution(float(response), response.slope, float(depth)) for depth in _DEPTHS)
    misfits = _misfits(energy, spectrum, found, beam_energy, tried)
    if misfits[0] < _TAIL_SEEN**2:
        return 0.0, 0.0
    fine = np.linspace(0, _DEPTHS[-1], 111)
    penalty = np.interp(fine, _DEPTHS, misfits) + (fine / _DEPTH_SCALE) ** 2
    chance = np.exp(-0.5 * (penalty - penalty.min()))
    chance /= chance.sum()
    mean = float(chance @ fine)
    return mean, float(chance @ (fine - mean) ** 2) + (_DEPTH_ERROR * mean) ** 2


def systematic_weights(
    ds: xr.Dataset,
    found: Sequence[Family],
    estimators: np.ndarray,
    lines: int,
    shares: np.ndarray | float = 1.0,
) -> np.ndarray:
    """Shifts of net counts by one standard deviation of the detector's response, as weights.

    Parameters
    ----------
    ds : Dataset
        With a measured response (`measure_response`); without one there are no shifts.
    found : sequence of Family
        The first terms of a model.
    estimators : array, shape (term, energy)
        Rows whose product with a spectrum is the amplitude of each term.
    lines : int
        How many of the first families are quantified.
    shares : array, shape (term, 1), optional
        What the estimators make of one count of each term.

    Returns
    -------
    array, shape (direction, line, energy)
        Rows whose product with a spectrum is the shift of each line. The directions are
        independent: covariances are sums of their products.
    """
    energy = ds[v.DIM_ENERGY].values
    if DETECTOR_RESPONSE_COVARIANCE not in ds.attrs:
        return np.zeros((0, lines, energy.size))
    response = detector_resolution(ds)
    covariance = np.array(ds.attrs[DETECTOR_RESPONSE_COVARIANCE], float).reshape(5, 5)
    values, axes = np.linalg.eigh(covariance)
    roots = axes * np.sqrt(np.maximum(values, 0))
    amplitudes = estimators[: len(found)] / shares
    derivatives = np.zeros((5, lines, len(found)))
    for i, step in enumerate(_STEPS):
        change = _changed(energy, found, response, i, step) - _changed(
            energy, found, response, i, 0.0
        )
        # Counts that the model does not expect there are given to the terms by the same fit.
        derivatives[i] = -estimators[:lines] @ change.T / step
    rows = np.einsum("id,ilt,te->dle", roots, derivatives, amplitudes)
    # Directions by their effect on the sum spectrum, in standard deviations of its net counts.
    spectrum = sum_spectrum(ds)
    noise = np.sqrt(np.maximum(estimators[:lines] ** 2 @ spectrum, 1e-12))
    _, _, turn = np.linalg.svd(((rows @ spectrum) / noise).T, full_matrices=True)
    return np.einsum("kd,dle->kle", turn[:_DIRECTIONS], rows)


def _changed(
    energy: np.ndarray, found: Sequence[Family], response: Resolution, which: int, step: float
) -> np.ndarray:
    """Shapes of families after a step of one parameter of the response."""
    values = [float(response), float(response.slope or _SLOPE), response.tail_depth, 0.0, 0.0]
    values[which] += step
    moved = [
        Family(
            family.name,
            family.element,
            tuple(values[3] + (1 + values[4]) * e for e in family.energies),
            family.weights,
        )
        for family in found
    ]
    return line_shapes(energy, moved, Resolution(*values[:3]))
