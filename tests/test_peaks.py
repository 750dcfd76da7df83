"""The peak finder: centroids, counts and widths with errors that hold, and nothing in noise."""

import numpy as np
import pytest

from edxdenoise.xray import channel_response, component_peaks, find_peaks, fwhm
from edxdenoise.xray.peaks import top_hat

ENERGY = np.arange(0.0, 20.0, 0.01)
LINES = np.array([0.277, 0.525, 1.25, 1.49, 1.74, 6.40, 7.06, 8.05])
COUNTS = np.array([1e4, 1e5, 2e4, 3e4, 1e5, 1e5, 1.3e4, 2e4])


def test_errors_of_centroids_counts_and_widths_hold():
    rng = np.random.default_rng(1)
    pulls = []
    for _ in range(12):
        peaks = find_peaks(ENERGY, rng.poisson(50 + COUNTS @ channel_response(LINES, ENERGY)))
        assert len(peaks) == len(LINES)
        for line, counts in zip(LINES, COUNTS):
            peak = min(peaks, key=lambda peak: abs(peak.energy - line))
            pulls.append(
                [
                    (peak.energy - line) / peak.energy_stddev,
                    (peak.net_counts - counts) / peak.net_stddev,
                    (peak.fwhm - fwhm(line)) / peak.fwhm_stddev,
                ]
            )
    scatter = np.std(pulls, axis=0)
    # 96 pulls of each kind: the standard deviation itself is known to 7 %.
    assert (np.abs(np.mean(pulls, axis=0)) < 0.4).all() and (np.abs(scatter - 1) < 0.25).all()


@pytest.mark.parametrize("width", [0.005, 0.02, 0.04])
def test_width_and_place_are_measured_whatever_the_resolution_assumed(width):
    energy = np.arange(0.1, 12.0, width)
    spectrum = 100 + 1e6 * channel_response(np.array([6.4]), energy, 145.0)[0]
    (peak,) = find_peaks(energy, spectrum, 125.0)
    assert peak.energy == pytest.approx(6.4, abs=1e-3)
    assert peak.fwhm == pytest.approx(fwhm(6.4, 145.0), abs=1)


def test_few_channels_in_a_peak_leave_it_as_it_was_found():
    energy = np.arange(0.2, 12.0, 0.16)
    spectrum = 100 + 1e6 * channel_response(np.array([6.4]), energy)[0]
    (peak,) = find_peaks(energy, spectrum)
    assert abs(peak.energy - 6.4) < 0.08 and np.isnan(peak.fwhm_stddev)


def test_flat_noise_and_empty_spectra_have_no_peaks():
    assert find_peaks(ENERGY, np.random.default_rng(0).poisson(1000, ENERGY.size)) == []
    assert find_peaks(ENERGY, np.zeros(ENERGY.size)) == []


def test_top_hat_of_a_straight_line_is_zero_and_of_a_peak_positive():
    line = 5 + 2 * ENERGY
    assert np.abs(top_hat(ENERGY, line, 130.0)).max() < 1e-9
    peak = channel_response(np.array([6.4]), ENERGY)[0]
    assert abs(ENERGY[np.argmax(top_hat(ENERGY, line + 100 * peak, 130.0))] - 6.4) <= 0.01


def test_component_peaks_point_both_ways_without_ghosts_beside_them():
    energy = np.arange(0.0, 12.0, 0.05)
    response = channel_response(np.array([3.0, 6.0]), energy)
    noise = np.random.default_rng(3).normal(0, 1e-3, energy.size)
    loading = response[0] - 0.6 * response[1] + noise
    flat = np.ones(energy.size)
    up, down = component_peaks(energy, loading, flat)
    assert (round(up.energy, 1), round(down.energy, 1)) == (3.0, 6.0)
    assert up.net_counts > 0 > down.net_counts
    spike = noise.copy()
    spike[100] = 1.0
    assert component_peaks(energy, spike, flat) == []
