"""The energy axis against known peaks, on phantoms and on real files."""

import numpy as np
import pytest

from edxdenoise.errors import EdxdenoiseWarning
from edxdenoise.quantification.calibration import (
    PeakShift,
    axis_error,
    check_calibration,
    energy_shift,
    peak_shifts,
)
from edxdenoise.simulation import simulate

ELEMENTS = ["O", "Na", "Al", "Si", "K", "Ca", "Fe"]


@pytest.fixture(scope="module")
def mineral():
    ds = simulate("mineral", shape=(32, 32), counts_per_pixel=300.0)
    return ds[["counts"]].compute()


@pytest.mark.parametrize("put_in", [0.0, 0.025, -0.025])
def test_shift_put_in_is_found(mineral, put_in):
    moved = mineral.assign_coords(energy=mineral.energy + put_in)
    moved.energy.attrs.update(mineral.energy.attrs)
    # The axis reads too high: so do the peaks.
    shift, uncertainty = energy_shift(peak_shifts(moved, ELEMENTS))
    assert 0 < uncertainty < 0.003
    assert abs(shift - put_in) < 4 * uncertainty + 0.001
    if put_in == 0:
        assert check_calibration(moved, ELEMENTS) is moved
        return
    with pytest.warns(EdxdenoiseWarning, match=r"peaks are [+-]2\d\.\d ± 0\.\d eV from their"):
        check_calibration(moved, ELEMENTS)
    corrected = check_calibration(moved, ELEMENTS, correct=True)
    np.testing.assert_allclose(corrected.energy, mineral.energy, atol=0.003)
    assert corrected.energy.attrs == mineral.energy.attrs
    assert "check_calibration shift" in corrected.attrs["history"]


def test_one_misnamed_peak_does_not_move_the_median():
    peaks = [PeakShift("a", 1.0, shift, 0.001) for shift in (0.0, 0.001, -0.001, 0.001, 0.09)]
    shift, uncertainty = energy_shift(peaks)
    assert abs(shift) <= 0.001 and uncertainty < 0.002
    assert energy_shift([])[1] == np.inf
    assert energy_shift(peaks[:1]) == (0.0, 0.001)


@pytest.mark.parametrize(
    ("file", "elements", "least", "most"),
    [
        ("bruker_sem_dacite_122cpp.bcf", ELEMENTS, -0.01, 0.04),
        (
            "bruker_tem_dust_256x256.bcf",
            ["O", "Mg", "Si", "S", "Fe", "Cu", "Ga", "Pt"],
            -0.01,
            0.04,
        ),
        ("fept_core_shell.hspy", ["C", "Fe", "Cu", "Pt"], -0.01, 0.04),
    ],
)
def test_real_detectors(shared_data, file, elements, least, most):
    from edxdenoise.io import read_cube

    peaks = peak_shifts(read_cube(shared_data / file), elements)
    shift, uncertainty = energy_shift(peaks)
    assert len(peaks) >= 2
    assert uncertainty < 0.01
    assert least < shift < most


def test_gain_put_in_is_found_and_corrected(mineral):
    moved = mineral.assign_coords(energy=0.01 + 1.003 * mineral.energy)
    moved.energy.attrs.update(mineral.energy.attrs)
    error = axis_error(peak_shifts(moved, ELEMENTS))
    assert error.gain == pytest.approx(0.003, abs=0.0006)
    assert error.at(0.0) == pytest.approx(0.01, abs=0.002)
    with pytest.warns(EdxdenoiseWarning, match=r"peaks are [+]1\d eV at .* keV to [+]\d\d eV at"):
        check_calibration(moved, ELEMENTS)
    corrected = check_calibration(moved, ELEMENTS, correct=True)
    np.testing.assert_allclose(corrected.energy[:700], mineral.energy[:700], atol=0.004)


def test_no_gain_is_seen_where_there_is_none(mineral):
    assert axis_error(peak_shifts(mineral, ELEMENTS)).gain == 0


def test_one_misnamed_peak_does_not_turn_the_axis():
    peaks = [PeakShift("a", e, 0.001 * e, 0.0003) for e in (1.0, 2.0, 4.0, 6.0, 8.0)]
    peaks[2] = PeakShift("b", 4.0, 0.09, 0.0003)
    assert axis_error(peaks).gain == pytest.approx(0.001, abs=1e-4)


def test_gain_of_a_real_detector(shared_data):
    """Peaks of this file lie 11 eV high at Mg and 19 at Cu: one shift for all leaves errors."""
    from edxdenoise.io import read_cube

    ds = read_cube(shared_data / "bruker_tem_dust_256x256.bcf")
    elements = ["O", "Mg", "Si", "S", "Ca", "Ti", "Fe", "Cu", "Ga", "Pt"]
    before = axis_error(peak_shifts(ds, elements))
    assert 0.0005 < before.gain < 0.002
    after = check_calibration(ds, elements, correct=True)
    strong = [peak for peak in peak_shifts(after, elements) if peak.stddev < 0.001]
    assert len(strong) >= 4 and max(abs(peak.shift) for peak in strong) < 0.004
