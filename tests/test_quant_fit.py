"""The fit: bounded least squares against SciPy's, the background, overlapping lines."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from edxdenoise.errors import ParameterError
from edxdenoise.quantification import LineSpec, line_intensity
from edxdenoise.quantification.fit import (
    LOWEST_FITTED,
    fit_model,
    smooth_background,
    solve_both,
    solve_nonnegative,
)
from edxdenoise.xray import channel_response, fwhm
from edxdenoise.xray.families import families

ENERGY = (np.arange(650) + 0.5) * 0.02
CROWDED = ("In", "Sn", "I", "Pb", "Cu")


def shapes(elements, energy=ENERGY):
    found = families(elements, (LOWEST_FITTED, energy[-1]))
    rows = [np.array(f.weights) @ channel_response(np.array(f.energies), energy) for f in found]
    return found, np.array(rows)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 30), st.floats(0, 0.97), st.integers(0, 2**32 - 1))
def test_bounded_solution_is_that_of_scipy(terms, count, alike, seed):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(terms, 25)) * (1 - alike) + rng.normal(size=25) * alike
    data = rng.normal(size=(25, count)) + rows.T @ rng.uniform(-1, 2, (terms, count))
    free, bounded = solve_both(rows @ rows.T, rows @ data)
    for i in range(count):
        expected = nnls(rows.T, data[:, i])[0]
        np.testing.assert_allclose(bounded[:, i], expected, atol=1e-7 * (1 + expected.max()))
        expected = np.linalg.lstsq(rows.T, data[:, i])[0]
        np.testing.assert_allclose(free[:, i], expected, atol=1e-6 * (1 + np.abs(expected).max()))
    assert (bounded >= 0).all()


def test_bounded_solution_of_spectra():
    found, lines = shapes(CROWDED)
    mean = 5 * lines.sum(axis=0) + 0.1 / ENERGY
    model = fit_model(ENERGY, mean, found, pixels=1000)
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.uniform(0, 1, (300, 1)) * mean)
    bounded = solve_nonnegative(model.gram, model.filters @ counts.T)
    root = np.linalg.cholesky(model.gram)
    for i in range(0, 300, 10):
        right = np.linalg.solve(root, model.filters @ counts[i])
        expected = nnls(root.T, right)[0]
        np.testing.assert_allclose(bounded[:, i], expected, atol=1e-8 * counts.sum(axis=1).max())


@pytest.mark.parametrize("noise", [False, True])
def test_background_below_crowded_lines(noise):
    _, lines = shapes(CROWDED)
    # Of another shape than the one it is modelled by, with 300 counts in each strong family.
    truth = 0.3 * np.exp(-0.25 * ENERGY) / np.sqrt(ENERGY)
    mean = truth + 300 * lines.sum(axis=0) / 20
    if noise:
        mean = np.random.default_rng(0).poisson(4000 * mean) / 4000
    found = smooth_background(ENERGY, np.maximum(mean, 1e-3), lines, pixels=4000)
    crowded = (ENERGY > 3.0) & (ENERGY < 5.0)
    np.testing.assert_allclose(found[crowded], truth[crowded], rtol=0.12)
    clear = (ENERGY > 5.3) & (ENERGY < 12.0)
    np.testing.assert_allclose(found[clear], truth[clear], rtol=0.12)


@given(st.floats(0.2, 50.0), st.floats(0.2, 3.0))
@settings(max_examples=10, deadline=None)
def test_fit_is_exact_on_its_own_model(strength, factor):
    found, lines = shapes(CROWDED)
    mean = 5 * lines.sum(axis=0) + 0.2 / ENERGY
    model = fit_model(ENERGY, mean, found, pixels=1000)
    amplitudes = np.linspace(0, strength, len(found))
    spectrum = amplitudes @ lines + factor * model.background
    np.testing.assert_allclose(
        (model.estimators @ spectrum)[: len(found)], amplitudes, atol=1e-7 * (1 + strength)
    )
    assert model.names == tuple(family.name for family in found)


def test_fit_ignores_what_lies_below_its_start():
    found, lines = shapes(["Fe", "O"])
    model = fit_model(ENERGY, lines.sum(axis=0) + 0.1, found, pixels=100)
    assert (model.filters[:, ENERGY < LOWEST_FITTED] == 0).all()
    assert (model.weights[ENERGY > LOWEST_FITTED] > 0).all()
    assert fwhm(LOWEST_FITTED) > 20


@pytest.fixture(scope="module")
def particles(shared_data):
    from edxdenoise.io import read_cube

    return read_cube(shared_data / "fept_core_shell.hspy").isel(y=slice(20, 40))


def net_sums(ds):
    options = {"intensities": "fit", "source": "counts", "elements": ["C", "O", "Si", "Cu"]}
    fitted = line_intensity(ds, {"Fe_Ka": LineSpec(), "Pt_La": LineSpec()}, **options)
    assert (fitted.line_intensity_stddev > 0).all()
    return fitted.line_intensity_unbounded.sum(("y", "x")).values


@pytest.fixture(scope="module")
def whole_axis(particles):
    return net_sums(particles)


@pytest.mark.filterwarnings("ignore:Rebin by", "ignore:Channels of")
@pytest.mark.parametrize(
    ("lowest", "rebin_energy"), [(0.5, 1), (0.8, 1), (1.5, 1), (0.1, 8), (0.8, 8), (0.2, 25)]
)
def test_fit_runs_whatever_the_axis(particles, whole_axis, lowest, rebin_energy):
    """Axes that start above the carbon line, and channels up to half a keV wide."""
    from edxdenoise.preprocess import crop, rebin

    ds = rebin(crop(particles, energy=(lowest, 15.0)), energy=rebin_energy)
    np.testing.assert_allclose(net_sums(ds), whole_axis, rtol=0.07)


def test_lines_that_no_channel_separates_are_named():
    energy = 0.4 + 0.8 * np.arange(15)
    found = families(["N", "O", "Fe"], (0.1, 12.0), names=["N_Ka", "O_Ka"])
    with pytest.raises(ParameterError, match="line 'O_Ka' cannot be separated from N_Ka"):
        fit_model(energy, np.ones(15), found, pixels=100, needed=2)
    model = fit_model(energy, np.ones(15), found, pixels=100, needed=1)
    assert model.names[0] == "N_Ka" and "O_Ka" not in model.names
    assert np.isfinite(model.estimators).all()


def test_more_families_than_channels_are_refused():
    energy = 1.0 + 1.0 * np.arange(6)
    found = families(["Si", "Ca", "Fe", "Ti", "K", "Cr"], (0.5, 6.5))
    with pytest.raises(ParameterError, match="6 channels cannot separate"):
        fit_model(energy, np.ones(6), found, pixels=100)


@pytest.mark.parametrize("vanadium, listed", [(100.0, False), (50_000.0, True)])
def test_trace_under_a_far_stronger_peak_takes_none_of_it(vanadium, listed):
    """V L alpha lies under O K alpha, which is 4 eV off."""
    found = families(["O", "V"], (LOWEST_FITTED, ENERGY[-1]), names=["O_Ka", "V_Ka"])
    amounts = [60_000.0, vanadium, vanadium / 2]
    moved = [np.array(f.energies) - 0.004 * (f.element == "O") for f in found]
    lines = [np.array(f.weights) @ channel_response(e, ENERGY, 125) for f, e in zip(found, moved)]
    spectrum = amounts @ np.array(lines) + 150 / ENERGY
    model = fit_model(ENERGY, spectrum, found, pixels=1, resolution=125.0, needed=2)
    assert ("V_La" in model.names) == listed
    if not listed:
        assert abs(model.estimators[0] @ spectrum / 60_000 - 1) < 0.04
