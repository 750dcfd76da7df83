"""Parity with installed HyperSpy: eager, full singular value decomposition, Poisson weights.

HyperSpy un-weights factors and loadings after its decomposition; they are weighted again here.
"""

import warnings

import numpy as np
import pytest
from helpers import phases, solar_cell

from edxdenoise.components.pca import pca
from edxdenoise.components.selection import elbow_position, elbows
from edxdenoise.errors import EdxdenoiseWarning
from edxdenoise.preprocess import crop, weight

COMPONENTS = 20


@pytest.fixture(scope="module")
def hyperspy():
    return pytest.importorskip("hyperspy.api", reason="parity is tested against HyperSpy")


@pytest.fixture(
    scope="module", params=["solar cell 1000", "solar cell 4000", "phases", "FePt file"]
)
def pair(request, hyperspy):
    """Our weighted Dataset and HyperSpy's decomposed signal of the same counts."""
    if request.param.startswith("solar"):
        ds = solar_cell(float(request.param.split()[-1]))[["counts"]]
    elif request.param == "phases":
        ds = phases((30, 40, 60))
    else:
        from edxdenoise.io import read_cube

        path = request.getfixturevalue("shared_data") / "fept_core_shell.hspy"
        # Without the end of the axis, where there is hardly a count.
        ds = crop(read_cube(path), energy=(0.2, 12.0)).compute()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EdxdenoiseWarning)  # sparse channels
        ds = weight(ds)
    signal = hyperspy.signals.Signal1D(ds.counts.values.astype(float))
    signal.decomposition(
        normalize_poissonian_noise=True, algorithm="SVD", svd_solver="full", print_info=False
    )
    return ds, signal


@pytest.fixture(scope="module")
def theirs(pair):
    """Singular values, maps and spectra of HyperSpy in the weighted space."""
    ds, signal = pair
    results = signal.learning_results
    pixels = ds.counts.shape[0] * ds.counts.shape[1]
    maps = results.loadings / ds.weight_pixel.values.reshape(-1, 1)
    spectra = results.factors / ds.weight_energy.values[:, np.newaxis]
    singular = np.sqrt(np.asarray(results.explained_variance) * pixels)
    return singular, maps.T.reshape(-1, *ds.counts.shape[:2]), spectra.T


def stands_out(singular):
    """Number of leading components before the first gap of less than 5 %.

    Within the noise, vectors of neighbouring components mix and mean little one by one.
    """
    return int(np.argmax(-np.diff(singular) / singular[:-1] < 0.05))


# Relative tolerance of singular values, and of maps and spectra against their largest entry.
VALUES, VECTORS = 1e-6, 1e-5


@pytest.mark.parametrize("solver", ["full", "covariance"])
def test_weighted_singular_values(pair, theirs, solver):
    ds, _ = pair
    result = pca(ds, components=COMPONENTS, solver=solver)
    ours = np.sqrt(result.component_variance.values * theirs[1][0].size)
    np.testing.assert_allclose(ours, theirs[0][: len(ours)], rtol=VALUES)


@pytest.mark.parametrize("solver", ["full", "covariance"])
def test_maps_and_spectra_of_leading_components(pair, theirs, solver):
    ds, _ = pair
    result = pca(ds, components=COMPONENTS, solver=solver)
    singular, maps, spectra = theirs
    leading = stands_out(singular)
    assert leading >= 1
    for k in range(leading):
        sign = np.sign(np.vdot(result.component_map.values[k], maps[k]))
        for ours, other in (
            (result.component_map.values[k], maps[k]),
            (result.component_spectrum.values[k], spectra[k]),
        ):
            np.testing.assert_allclose(sign * ours, other, rtol=0, atol=VECTORS * abs(other).max())


def test_weights_are_theirs(pair, theirs):
    """Component 1 in HyperSpy's own units: counts over pixel and channel totals."""
    ds, signal = pair
    results = signal.learning_results
    first = np.outer(results.loadings[:, 0], results.factors[:, 0])
    counts = ds.counts.values.astype(float).reshape(len(first), -1)
    product = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    np.testing.assert_allclose(first, product, rtol=1e-6, atol=1e-9)


def test_elbow_at_twenty_components(pair):
    ds, signal = pair
    result = pca(ds, components=COMPONENTS)
    ratio = result.component_variance_ratio.values
    theirs = signal.estimate_elbow_position(
        explained_variance_ratio=signal.learning_results.explained_variance_ratio[:COMPONENTS]
    )
    assert elbow_position(ratio) == int(theirs)
    # And of as many as HyperSpy computes, of which both look at twenty.
    many = pca(ds, components=40).component_variance_ratio.values
    assert elbow_position(many) == int(signal.estimate_elbow_position())
    assert elbows(many)[0] == int(signal.estimate_elbow_position()) + 1


def test_elbow_of_any_curve(hyperspy):
    signal = hyperspy.signals.Signal1D(np.ones((2, 3, 4)))
    rng = np.random.default_rng(0)
    for _ in range(50):
        ratio = np.sort(rng.lognormal(0, 4, rng.integers(3, 60)))[::-1]
        theirs = signal.estimate_elbow_position(explained_variance_ratio=ratio)
        assert elbow_position(ratio) == int(theirs)


def test_variance_ratio_is_total_where_theirs_is_not(pair):
    """Theirs is over the components computed, which for full SVD are all."""
    ds, signal = pair
    ours = pca(ds, components=5).component_variance_ratio.values
    theirs = signal.learning_results.explained_variance_ratio[:5]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
