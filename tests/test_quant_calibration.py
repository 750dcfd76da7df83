"""The energy axis against known peaks, on phantoms and on real files."""

import numpy as np
import pytest

from edxdenoise.errors import EdxdenoiseWarning
from edxdenoise.quantification.calibration import (
    PeakShift,
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
    with pytest.warns(EdxdenoiseWarning, match=r"the peaks lie [+-]2\d ± \d eV from where"):
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
