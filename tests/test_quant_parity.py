"""Windows and Cliff-Lorimer against the installed eXSpy."""

import warnings

import numpy as np
import pytest
from helpers import solar_cell

from edxdenoise.cube import make_cube
from edxdenoise.quantification import LineSpec, cliff_lorimer, line_intensity
from edxdenoise.quantification.windows import rounded_weights
from edxdenoise.schema import ATOMIC_PERCENT, WEIGHT_PERCENT

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def exspy():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("exspy")


def as_cube(signal):
    """Our Dataset of an eXSpy signal of any navigation dimension."""
    axis = signal.axes_manager.signal_axes[0]
    counts = signal.data.reshape((1,) * (3 - signal.data.ndim) + signal.data.shape)
    attrs = {"detector_resolution": 130.0, "beam_energy": 200.0}
    return make_cube(counts, energy=np.asarray(axis.axis, float), attrs=attrs)


def as_signal(exspy, ds):
    signal = exspy.signals.EDSTEMSpectrum(ds.counts.values)
    axis = signal.axes_manager.signal_axes[0]
    axis.units, axis.offset = "keV", float(ds.energy[0])
    axis.scale = float(ds.energy[1] - ds.energy[0])
    signal.set_microscope_parameters(beam_energy=200, energy_resolution_MnKa=130)
    return signal


def compare(signal, ds, windows, backgrounds, factors):
    """Intensities and percents of both must agree where all intensities exceed 0.1."""
    names = sorted(windows)
    signal.set_elements([name.partition("_")[0] for name in names])
    signal.set_lines(names)
    theirs = signal.get_lines_intensity(
        names,
        integration_windows=[list(windows[name]) for name in names],
        background_windows=[[edge for w in backgrounds[name] for edge in w] for name in names],
    )
    lines = {
        name: LineSpec(factors[name], 0.0, windows[name], tuple(backgrounds[name]))
        for name in names
    }
    ours = line_intensity(ds, lines, intensities="windows", source="counts")
    expected = np.array([each.data.reshape(ds.counts.shape[:2]) for each in theirs])
    scale = ds.counts.values.sum(axis=2).max()
    np.testing.assert_allclose(ours.line_intensity, expected, rtol=1e-6, atol=1e-7 * scale)
    above = (expected > 0.1).all(axis=0)
    assert above.any()
    ours = cliff_lorimer(ours)
    for units, spec in (("weight", WEIGHT_PERCENT), ("atomic", ATOMIC_PERCENT)):
        parts = signal.quantification(
            theirs, "CL", factors=[factors[name] for name in names], composition_units=units
        )
        percents = np.array([each.data.reshape(ds.counts.shape[:2]) for each in parts])
        # Where the lines together are within their noise, ours have no composition.
        percent = ours[spec].values
        known = above & np.isfinite(percent).all(axis=0)
        assert known.sum() > 0.5 * above.sum()
        np.testing.assert_allclose(percent[:, known], percents[:, known], rtol=1e-6)
    return expected


def fept_windows(exspy, signal, ds):
    signal.set_lines(["Fe_Ka", "Pt_La"])
    estimated = signal.estimate_background_windows(line_width=[5.0, 2.0])
    backgrounds = {
        name: ((float(row[0]), float(row[1])), (float(row[2]), float(row[3])))
        for name, row in zip(("Fe_Ka", "Pt_La"), estimated)
    }
    windows = {
        name: tuple(map(float, row))
        for name, row in zip(
            ("Fe_Ka", "Pt_La"), signal.estimate_integration_windows(xray_lines=["Fe_Ka", "Pt_La"])
        )
    }
    return windows, backgrounds


def test_reference_spectrum_of_fept(exspy):
    signal = exspy.data.EDS_TEM_FePt_nanoparticles()
    ds = as_cube(signal)
    windows, backgrounds = fept_windows(exspy, signal, ds)
    factors = {"Fe_Ka": 1.450226, "Pt_La": 5.075602}
    intensities = compare(signal, ds, windows, backgrounds, factors)
    # The values of eXSpy's own documentation.
    assert intensities.ravel().tolist() == [2754.0, 15090.0]


def test_core_shell_map_of_fept(exspy, shared_data):
    import hyperspy.api as hs

    signal = hs.load(shared_data / "fept_core_shell.hspy")
    signal.set_signal_type("EDS_TEM")
    signal.axes_manager.signal_axes[0].units = "keV"
    ds = as_cube(signal)
    windows, backgrounds = fept_windows(exspy, signal, ds)
    compare(signal, ds, windows, backgrounds, {"Fe_Ka": 1.450226, "Pt_La": 5.075602})


def test_simulated_cube(exspy):
    ds = solar_cell(1000.0, shape=(24, 30), channels=650)[["counts"]]
    ds = ds.assign_attrs(beam_energy=200.0)
    # Elements whose atomic weights both have alike: those of C and I differ by 3e-5 and 4e-6.
    windows = {"In_La": (3.185, 3.389), "Pb_La": (10.38, 10.72), "Sn_La": (3.34, 3.548)}
    light = ((2.8155, 2.925), (5.272, 5.3815))
    backgrounds = {
        "In_La": light,
        "Pb_La": ((10.0452, 10.224), (10.82, 10.9889)),
        "Sn_La": light,
    }
    factors = {"In_La": 2.620, "Pb_La": 4.374, "Sn_La": 2.653}
    compare(as_signal(exspy, ds), ds, windows, backgrounds, factors)


@pytest.mark.parametrize("shift", [0.0, 0.125, 0.25, 0.375, 0.5, 0.625])
def test_rounding_of_edges_at_half_channels(exspy, shift):
    # Channels of 1/4 keV are exact in binary: edges meet the halves, not their neighbours.
    energy = 0.25 * np.arange(40)
    counts = np.random.default_rng(0).integers(1, 1000, (2, 3, 40))
    signal = as_signal(exspy, make_cube(counts, energy=energy))
    window = [4.0 + shift / 2, 5.0 + shift]
    background = [2.0 + shift, 3.0 + shift / 2, 7.0 + shift, 8.0 + shift]
    (theirs,) = signal.get_lines_intensity(
        ["I_La"], integration_windows=[window], background_windows=[background]
    )
    weights = rounded_weights(energy, tuple(window), (tuple(background[:2]), tuple(background[2:])))
    np.testing.assert_allclose(counts @ weights, theirs.data, rtol=1e-12, atol=1e-9)
