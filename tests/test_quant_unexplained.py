"""Peaks that No listed element explains, on phantoms and on a real file."""

import numpy as np
import pytest

from edxdenoise.errors import EdxdenoiseWarning
from edxdenoise.quantification import check_explained, unexplained_peaks
from edxdenoise.simulation import PRESETS, simulate


def counts(preset, dose=1000.0):
    return simulate(preset, shape=(64, 64), counts_per_pixel=dose)[["counts"]].compute()


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("dose", [50.0, 2000.0])
def test_a_phantom_is_explained_by_its_own_elements(preset, dose):
    ds = counts(preset, dose)
    assert unexplained_peaks(ds, ds.attrs["elements"]) == []


@pytest.mark.parametrize(
    ("preset", "missing", "energy", "line"),
    [
        ("solar-cell", "Cu", 8.04, "Cu_Ka"),
        ("core-shell", "O", 0.525, "O_Ka"),
        ("mineral", "Si", 1.74, "Si_Ka"),
        ("nanoparticles", "Ce", 4.84, "Ce_La"),
    ],
)
def test_an_element_left_out_is_named(preset, missing, energy, line):
    ds = counts(preset)
    listed = [element for element in ds.attrs["elements"] if element != missing]
    found = min(unexplained_peaks(ds, listed), key=lambda peak: abs(peak.energy - energy))
    assert found.energy == pytest.approx(energy, abs=0.03)
    assert line in found.candidates
    with pytest.warns(EdxdenoiseWarning, match=f"No listed element explains .*{line}"):
        check_explained(ds, listed)


def test_a_flat_spectrum_has_no_peaks():
    ds = counts("mineral")
    flat = np.random.default_rng(0).poisson(5, ds.counts.shape).astype(np.uint8)
    assert unexplained_peaks(ds.assign(counts=(ds.counts.dims, flat)), []) == []


def test_fept_with_iron_and_platinum_alone(shared_data):
    from edxdenoise.io import read_cube

    ds = read_cube(shared_data / "fept_core_shell.hspy")
    found = {line for peak in unexplained_peaks(ds, ["Fe", "Pt"]) for line in peak.candidates}
    assert {"C_Ka", "Cu_Ka"} <= found
