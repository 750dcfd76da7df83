"""Widths and tails of peaks, measured on phantoms of known detectors, and the errors they cause."""

import sys
from pathlib import Path

import numpy as np
import pytest

from edxdenoise import simulate
from edxdenoise.config import Quantify
from edxdenoise.cube import Resolution, detector_resolution
from edxdenoise.pipeline import quantify
from edxdenoise.quantification import measure_response
from edxdenoise.quantification.region_table import region_table
from edxdenoise.quantification.response import width_law
from edxdenoise.simulation.truth import true_k_factors
from edxdenoise.xray import channel_response, fwhm

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))

import peak_width  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")


@pytest.mark.slow
@pytest.mark.parametrize("specimen", ["SrTiO3", "olivine"])
@pytest.mark.parametrize("width", [125.0, 145.0])
def test_law_of_a_known_detector(specimen, width):
    truth = Resolution(width, 2.4, 60.0)
    ds, lines, _ = peak_width.phantom(specimen, truth, 3, (20, 20))
    found = detector_resolution(measure_response(ds, ds.attrs["elements"]))
    for energy in (1.0, 2.0, 6.0, 10.0):
        assert fwhm(energy, found) == pytest.approx(float(fwhm(energy, truth)), abs=2.5)
    assert abs(found.tail_depth - 60) < 40


@pytest.mark.slow
def test_at_percent_where_the_file_states_a_wrong_width():
    """Width and tail of the file are wrong by 12 eV: at% are right and their errors cover it."""
    ds, lines, truth = peak_width.phantom("olivine", Resolution(142.0, 2.4, 80.0), 1, (24, 24))
    maps = quantify(ds, lines, Quantify(intensities="fit", source="counts"))
    for element, true in truth.items():
        pull = (maps.atomic_percent - true) / maps.atomic_percent_stddev
        assert 0.9 < float((np.abs(pull.sel(element=element)) < 1.96).mean()) < 0.985
    table = region_table(maps)
    whole = table[table.region == "all"].set_index("quantity")
    for element, true in truth.items():
        row = whole.loc[f"{element} at%"]
        assert abs(row.value - true) < 3.5 * row.stddev
        # What is uncertain of the detector does not average out.
        assert row.stddev > row.stddev_counting


@pytest.mark.parametrize("specimen", ["GaAs", "steel"])
def test_soft_lines_measure_the_noise(specimen):
    """Clean peaks lie above 5 keV alone; the widths of L lines come from the fit of them all."""
    truth = Resolution(138.0, 2.5, 0.0)
    ds, lines, _ = peak_width.phantom(specimen, truth, 4, (20, 20))
    found = detector_resolution(measure_response(ds, ds.attrs["elements"]))
    assert fwhm(1.0, found) == pytest.approx(float(fwhm(1.0, truth)), abs=1.5)
    assert found.tail_depth == 0, "no tail where there is none"


@pytest.mark.parametrize("seed", [0, 1])
def test_nitrogen_between_carbon_and_oxygen_in_wide_channels(seed):
    """In channels of 40 eV an error of 5 eV in the widths of soft peaks gives 30 % more N."""
    ds = simulate("solar-cell", shape=(44, 66), channels=325, energy_width=0.04, seed=seed)
    names = ["Pb_La", "I_La", "N_Ka", "C_Ka", "In_La", "Sn_La"]
    lines = true_k_factors(ds, names)
    recipe = Quantify(ratios=("I/Pb", "N/Pb"), intensities="fit", source="counts")
    maps = quantify(ds.compute(), lines, recipe)
    found = detector_resolution(maps)
    assert found.tail_depth == 0
    assert fwhm(0.4, found) == pytest.approx(float(fwhm(0.4, 130.0)), abs=2.0)
    table = region_table(maps)
    whole = table[table.region == "all"].set_index("quantity")
    assert (np.abs(whole.value - whole.true) < 3 * whole.stddev).all()
    assert whole.loc["N/Pb"].stddev < 0.1 * whole.loc["N/Pb"].value


def test_no_peaks_leave_the_priors():
    law, covariance = width_law([], 133.0)
    np.testing.assert_allclose(law, [133.0, 2.43])
    assert np.sqrt(covariance[0, 0]) == pytest.approx(10.0)


def test_one_wrong_width_does_not_bend_the_law():
    truth = Resolution(135.0, 2.43)
    widths = [(e, float(fwhm(e, truth)), 0.3) for e in (0.5, 1.5, 3.0, 6.4, 8.0, 10.0)]
    widths[2] = (3.0, 1.25 * widths[2][1], 0.3)
    law, _ = width_law(widths, 130.0)
    assert law[0] == pytest.approx(135.0, abs=2.0)


def test_tail_is_lost_charge():
    energy = (np.arange(1000) + 0.5) * 0.01
    lines = np.array([0.525, 1.74, 2.01, 6.4])
    plain, tailed = (
        channel_response(lines, energy, each)
        for each in (Resolution(130.0), Resolution(130.0, None, 100.0))
    )
    np.testing.assert_allclose(tailed.sum(axis=1), 1, atol=0.02)
    shares = [row[energy < e - 0.1].sum() for row, e in zip(tailed - plain, lines)]
    # Much at O, little at Si below the K edge of silicon, more above it, next to none at Fe.
    assert shares[0] > 0.03 and shares[2] > 3 * shares[1] and shares[3] < 0.005


@pytest.mark.slow
def test_response_is_stated_and_travels(tmp_path):
    from edxdenoise.io import open_dataset, save_dataset

    ds, _, _ = peak_width.phantom("FePt", Resolution(138.0, 2.4, 20.0), 0, (12, 12))
    found = measure_response(ds, ds.attrs["elements"])
    assert "measure_response peaks=" in found.attrs["history"]
    for name in ("a.nc", "a.zarr"):
        save_dataset(found, tmp_path / name)
        again = detector_resolution(open_dataset(tmp_path / name))
        assert float(again) == pytest.approx(float(detector_resolution(found)))
        assert again.slope == pytest.approx(detector_resolution(found).slope)
