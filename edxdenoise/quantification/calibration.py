"""Whether the energy axis is right: known peaks of the sum spectrum against where they lie."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.optimize import OptimizeWarning, curve_fit
from scipy.stats import theilslopes

from edxdenoise import schema as v
from edxdenoise.cube import (
    add_history,
    detector_resolution,
    energy_axis,
    energy_range,
    sum_spectrum,
)
from edxdenoise.errors import Rank, warn
from edxdenoise.xray import fwhm
from edxdenoise.xray.families import strong_lines

# A peak is used if it has this many net counts, and no other listed line within this many FWHM that
# has more than this share of its photons.
_LEAST_COUNTS = 500
_CLEAR = 1.5
_NEGLIGIBLE = 0.05
# Lines of an element beside its strongest are too uncertain in strength to be relied on.
_LEAST_SHARE = 0.5
# Shifts in keV below which quantification does not suffer: a tenth of a light element's FWHM.
_HARMLESS = 0.005
# Nor below this share of a channel, whatever its width: the fit takes Gaussians at channel centres.
_HARMLESS_CHANNELS = 0.2
# A gain is told from peaks this far apart in keV, and from this many standard deviations.
_FEWEST_FOR_GAIN, _LEAST_SPAN, _SIGNIFICANT = 4, 2.0, 3.0


@dataclass(frozen=True)
class PeakShift:
    """Position of one peak.

    Parameters
    ----------
    name : str
        Line.
    energy : float
        Its energy in keV.
    shift, stddev : float
        Found minus known position, in keV.
    """

    name: str
    energy: float
    shift: float
    stddev: float


def peak_shifts(ds: xr.Dataset, elements: Iterable[str]) -> list[PeakShift]:
    """Shift of every strong, lonely peak of `elements` in the sum spectrum, by energy.

    A Gaussian of the detector's width on a straight line is fitted within one FWHM.

    Parameters
    ----------
    ds : Dataset
        With counts or what was made of them.
    elements : iterable of str
        Symbols of what the specimen holds.
    """
    spectrum, energy = sum_spectrum(ds), ds[v.DIM_ENERGY].values
    resolution = detector_resolution(ds)
    found: list[PeakShift] = []
    for name, centre in clean_lines(ds, elements):
        width = float(fwhm(centre, resolution)) / 1000
        peak = _fit_peak(name, centre, width, energy, spectrum)
        if peak is not None:
            found.append(peak)
    return found


def clean_lines(ds: xr.Dataset, elements: Iterable[str]) -> list[tuple[str, float]]:
    """Name and energy in keV of every strong line of `elements` with no other line close to it."""
    resolution = detector_resolution(ds)
    listed = strong_lines(elements, energy_range(ds), beam_energy=ds.attrs.get("beam_energy"))
    found = []
    for name, position, share in listed:
        width = float(fwhm(position, resolution)) / 1000
        near = 0.3 * width
        rivals = [
            other
            for other, where, strength in listed
            if near <= abs(where - position) < _CLEAR * width and strength > _NEGLIGIBLE * share
        ]
        # A line and its unresolved partners are one peak, at their centre.
        partners = np.array(
            [(where, strength) for _, where, strength in listed if abs(where - position) < near]
        )
        if share < _LEAST_SHARE or rivals or share < partners[:, 1].max():
            continue
        found.append((name, float(np.average(partners[:, 0], weights=partners[:, 1]))))
    return found


def _fit_peak(
    name: str, position: float, width: float, energy: np.ndarray, spectrum: np.ndarray
) -> PeakShift | None:
    near = np.abs(energy - position) < 1.2 * width
    if near.sum() < 6:
        return None
    x, counts = energy[near] - position, spectrum[near]
    sigma = width / 2.3548

    def model(x: np.ndarray, shift: float, height: float, level: float, slope: float) -> np.ndarray:
        return height * np.exp(-0.5 * ((x - shift) / sigma) ** 2) + level + slope * x

    start = (0.0, float(np.ptp(counts)), float(counts.min()), 0.0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", OptimizeWarning)
            values, covariance = curve_fit(
                model, x, counts, start, sigma=np.sqrt(np.maximum(counts, 1)), absolute_sigma=True
            )
    except (RuntimeError, OptimizeWarning):
        # No peak there to be fitted.
        return None
    step = energy[1] - energy[0]
    net = values[1] * sigma * np.sqrt(2 * np.pi) / step
    if net < _LEAST_COUNTS or abs(values[0]) > 0.75 * width:
        return None
    return PeakShift(name, position, float(values[0]), float(np.sqrt(covariance[0, 0])))


@dataclass(frozen=True)
class AxisError:
    """By how much the energy axis reads too high: ``shift + gain * (energy - reference)``.

    Parameters
    ----------
    shift : float
        In keV, at the reference.
    gain : float
        Further keV per keV; 0 where the peaks show none.
    reference : float
        Energy in keV.
    uncertainty : float
        Of the shift, in keV.
    """

    shift: float
    gain: float
    reference: float
    uncertainty: float

    def at(self, energy: np.ndarray) -> np.ndarray:
        """Error in keV at true energies in keV."""
        return self.shift + self.gain * (np.asarray(energy) - self.reference)

    def corrected(self, energy: np.ndarray) -> np.ndarray:
        """True energies of what the axis reads, in keV."""
        return self.reference + (energy - self.shift - self.reference) / (1 + self.gain)


def axis_error(peaks: list[PeakShift]) -> AxisError:
    """Shift of all peaks, and gain where it is significant.

    The gain is the median of the slopes between all pairs of peaks (H. Theil, Proc. Ned. Akad.
    Wet. 53 (1950) 386), which one misnamed peak does not turn. It counts from three standard
    deviations, told from the scatter about the line.
    """
    shift, uncertainty = energy_shift(peaks)
    energies = np.array([peak.energy for peak in peaks])
    shifts = np.array([peak.shift for peak in peaks])
    reference = float(np.median(energies)) if peaks else 0.0
    constant = AxisError(shift, 0.0, reference, uncertainty)
    if len(peaks) < _FEWEST_FOR_GAIN or np.ptp(energies) < _LEAST_SPAN:
        return constant
    gain = float(theilslopes(shifts, energies).slope)
    level = float(np.median(shifts - gain * (energies - reference)))
    residuals = shifts - level - gain * (energies - reference)
    errors = np.array([peak.stddev for peak in peaks])
    scatter = max(1.4826 * float(np.median(np.abs(residuals))), float(np.median(errors)))
    spread = np.sqrt(((energies - energies.mean()) ** 2).sum())
    if abs(gain) < _SIGNIFICANT * scatter / spread:
        return constant
    return AxisError(level, gain, reference, scatter / np.sqrt(len(peaks)))


def energy_shift(peaks: list[PeakShift]) -> tuple[float, float]:
    """Median shift in keV, which one misnamed peak does not move, and its uncertainty.

    The uncertainty is the scatter of the peaks over the root of their number, or the error of the
    single one.
    """
    if not peaks:
        return 0.0, float("inf")
    shifts = np.array([peak.shift for peak in peaks])
    middle = float(np.median(shifts))
    if len(peaks) == 1:
        return middle, peaks[0].stddev
    scatter = 1.4826 * float(np.median(np.abs(shifts - middle)))
    errors = np.array([peak.stddev for peak in peaks])
    return middle, max(scatter, float(np.median(errors))) / np.sqrt(len(peaks))


def check_calibration(
    ds: xr.Dataset, elements: Iterable[str], *, correct: bool = False
) -> xr.Dataset:
    """Warn if the energy axis is off by more than it may be, or correct it.

    Parameters
    ----------
    ds : Dataset
        With counts or what was made of them.
    elements : iterable of str
        Symbols of what the specimen holds.
    correct : bool
        Correct the energy axis by the shift, and gain, found instead of warning.

    Returns
    -------
    Dataset
        With the energy axis moved, or as it was.
    """
    peaks = peak_shifts(ds, elements)
    error = axis_error(peaks)
    ends = np.array(sorted({peak.energy for peak in peaks} or {0.0}))[[0, -1]]
    low, high = error.at(ends)
    harmless = max(_HARMLESS, _HARMLESS_CHANNELS * energy_axis(ds)[1], 3 * error.uncertainty)
    if max(abs(low), abs(high)) < harmless:
        return ds
    if correct:
        attrs = ds[v.DIM_ENERGY].attrs
        moved = ds.assign_coords({v.DIM_ENERGY: error.corrected(ds[v.DIM_ENERGY].values)})
        moved[v.DIM_ENERGY].attrs.update(attrs)
        how = f"shift={-error.shift:.4g} keV at {error.reference:.3g} keV gain={-error.gain:.3g}"
        return add_history(moved, f"check_calibration {how}")
    stddev = f"± {max(1000 * error.uncertainty, 0.1):.1f} eV"
    text = f"{1000 * error.shift:+.1f} {stddev}"
    if error.gain:
        text = (
            f"{1000 * low:+.0f} eV at {ends[0]:.2f} keV to {1000 * high:+.0f} eV at "
            f"{ends[1]:.2f} keV ({stddev})"
        )
    warn(
        f"The peaks are {text} from their tabulated energies",
        "windows and fits are misplaced, and at% can be wrong by more than their errors",
        "correct the energy axis with --correct-energy",
        rank=Rank.WRONG,
    )
    return ds
