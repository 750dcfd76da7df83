"""NMF: known factors found again, as low as scikit-learn and HyperSpy, the same everywhere."""

import numpy as np
import pytest
import xarray as xr
from helpers import cube, nothing_computed, phases, solar_cell, weighted
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edxdenoise.blocks import scheduler
from edxdenoise.components.nmf import (
    Compressed,
    descend,
    descend_closed,
    is_nmf,
    nmf,
    nndsvda,
    onto_simplex,
    poisson_block,
)
from edxdenoise.components.pca import pca
from edxdenoise.components.selection import select
from edxdenoise.cube import reconstruct
from edxdenoise.errors import EdxdenoiseWarning, ParameterError
from edxdenoise.preprocess import weight
from edxdenoise.schema import SPECS, validate

LOSSES = ("frobenius", "poisson")


@pytest.fixture(scope="module")
def ds():
    return weight(phases())


@pytest.fixture(scope="module")
def exact():
    """Expected counts, no noise, of three spectra each alone in some channels and pixels."""
    rng = np.random.default_rng(3)
    maps, spectra = rng.uniform(0.2, 1, (3, 12, 15)), rng.uniform(0.2, 1, (3, 30))
    for k in range(3):
        spectra[k, 10 * k : 10 * k + 5] = 0
        maps[k, :, 5 * k : 5 * k + 3] = 0
    for k in range(3):
        others = [j for j in range(3) if j != k]
        spectra[others, 9 - k + 10 * k] = 0
        maps[others, 2 * k, :] = 0
    counts = 1000 * np.einsum("kyx,ke->yxe", maps, spectra)
    return weight(cube(counts)), spectra / spectra.sum(axis=1, keepdims=True)


def divergence(ds, result, loss):
    """The objective, from its definition."""
    model = np.einsum("kyx,ke->yxe", result.component_map.values, result.component_spectrum.values)
    if loss == "frobenius":
        return float(((weighted(ds) - model) ** 2).sum())
    x = ds.counts.values.astype(float)
    y = model * ds.weight_pixel.values[:, :, None] * ds.weight_energy.values
    some = x > 0
    return float((x[some] * np.log(x[some] / y[some])).sum() - x.sum() + y.sum())


def spectra_in_counts(result):
    spectra = result.component_spectrum.values * result.weight_energy.values
    return spectra / spectra.sum(axis=1, keepdims=True)


def objectives(ds, **options):
    """Of every iteration on the data."""
    seen = []

    def watch(label, done, most):
        if label.startswith("nmf"):
            seen.append(float(label.split()[-1]))

    nmf(ds, progress=watch, **options)
    return np.array(seen)


@pytest.mark.parametrize("loss", LOSSES)
class TestFit:
    def test_known_factors(self, exact, loss):
        ds, true = exact
        found = nmf(ds, components=3, loss=loss, tolerance=1e-9, max_iterations=3000)
        spectra = spectra_in_counts(found)
        match = np.abs(true[:, None] - spectra).sum(axis=2)
        assert sorted(match.argmin(axis=1)) == [0, 1, 2]
        assert match.min(axis=1).max() < 0.02

    def test_variables(self, ds, loss):
        found = nmf(ds, components=3, loss=loss)
        names = ("component_map", "component_spectrum", "component_variance", "mean_spectrum")
        validate(found, *(SPECS[name] for name in names))
        assert is_nmf(found) and not is_nmf(pca(ds, components=3))
        assert found.component.values.tolist() == [1, 2, 3]
        assert (found.component_map >= 0).all() and (found.component_spectrum >= 0).all()
        np.testing.assert_allclose((found.component_spectrum**2).sum("energy"), 1)
        np.testing.assert_allclose(
            found.component_variance, (found.component_map**2).mean(("y", "x")), rtol=1e-5
        )
        assert (found.component_variance.diff("component") <= 0).all()
        assert not found.mean_spectrum.any()

    @pytest.mark.slow
    def test_objective_is_what_it_says_and_never_rises(self, ds, loss):
        values = objectives(ds, components=4, loss=loss, init="random", seed=1)
        assert (np.diff(values) <= 1e-6 * values[0]).all() and len(values) > 2
        found = nmf(ds, components=4, loss=loss, init="random", seed=1)
        assert float(found.history.rsplit("=", 1)[1]) == pytest.approx(
            divergence(ds, found, loss), rel=1e-6
        )

    def test_as_low_as_scikit_learn_from_the_same_start(self, loss):
        from sklearn.decomposition import NMF

        ds = weight(solar_cell(1000.0, shape=(33, 50)))
        base = pca(ds, components=4)
        scores = base.component_map.values.reshape(4, -1)
        total = float((weighted(ds) ** 2).sum())
        maps, spectra = nndsvda(Compressed(scores, base.component_spectrum.values, total), 4)
        matrix, kwargs = weighted(ds).reshape(-1, spectra.shape[1]), {}
        if loss == "poisson":
            g, h = ds.weight_pixel.values.ravel(), ds.weight_energy.values
            matrix, maps, spectra = ds.counts.values.reshape(matrix.shape), maps * g, spectra * h
            kwargs = {"solver": "mu", "beta_loss": "kullback-leibler"}
        model = NMF(4, init="custom", tol=1e-5, max_iter=300, **kwargs)
        model.fit(matrix.astype(float), W=np.ascontiguousarray(maps.T, float), H=np.array(spectra))
        # Its error is the root of twice the divergence, or of the squares.
        theirs = model.reconstruction_err_**2 / (2 if loss == "poisson" else 1)
        ours = divergence(ds, nmf(ds, components=4, loss=loss), loss)
        assert ours < theirs * (1 + 1e-4)

    @pytest.mark.slow
    def test_held_spectra_stay(self, exact, loss):
        ds, true = exact
        found = nmf(ds, components=3, loss=loss, fixed=7 * true[1:2], tolerance=1e-8)
        (held,) = np.atleast_1d(found.component_spectrum.attrs["held"])
        np.testing.assert_allclose(spectra_in_counts(found)[held - 1], true[1], atol=1e-12)
        assert divergence(ds, found, loss) < 1e-2 * divergence(ds, nmf(ds, components=1), loss)

    @pytest.mark.slow
    def test_all_spectra_held_gives_their_abundances(self, exact, loss):
        ds, true = exact
        found = nmf(ds, fixed=true, components=3, loss=loss, tolerance=1e-12, max_iterations=2000)
        denoised = reconstruct(select(found, selector="all")).counts_denoised
        np.testing.assert_allclose(denoised, ds.counts, rtol=0.02, atol=2)

    @pytest.mark.slow
    def test_closure(self, loss):
        ds = weight(solar_cell(1000.0, shape=(33, 50)))
        found = nmf(ds, components=4, loss=loss, closure=True)
        spectra = found.component_spectrum * found.weight_energy
        np.testing.assert_allclose(spectra.sum("energy"), 1, rtol=1e-9)
        shares = found.component_map * found.weight_pixel / ds.counts.sum("energy")
        assert (shares >= 0).all()
        np.testing.assert_allclose(shares.sum("component"), 1, rtol=1e-5)
        values = objectives(ds, components=4, loss=loss, closure=True)
        assert (np.diff(values) <= 1e-6 * values[0]).all()

    @pytest.mark.slow
    def test_lazy_counts_stay_lazy_and_give_the_same(self, ds, loss):
        eager = nmf(ds, components=3, loss=loss)
        lazy_counts = ds.chunk({"y": 5, "x": 7, "energy": 11})
        lazy = nmf(lazy_counts, components=3, loss=loss)
        with nothing_computed():
            denoised = reconstruct(select(lazy, selector="all")).counts_denoised
        assert denoised.chunks is not None and lazy.component_map.chunks is not None
        assert lazy.counts.chunks == lazy_counts.counts.chunks
        for name in ("component_map", "component_spectrum"):
            largest = float(eager[name].max())
            np.testing.assert_allclose(lazy[name], eager[name], atol=1e-5 * largest)

    @pytest.mark.slow
    def test_goes_on_from_an_earlier_result(self, ds, loss):
        with pytest.warns(EdxdenoiseWarning, match="not converged.*start from this result"):
            first = nmf(ds, components=3, loss=loss, init="random", tolerance=0, max_iterations=2)
        start = first.component_spectrum.values * first.weight_energy.values
        second = nmf(ds, loss=loss, start=start)
        assert second.sizes["component"] == 3
        assert divergence(ds, second, loss) < divergence(ds, first, loss)

    def test_without_weights(self, loss):
        ds = weight(phases(), weighting="none")
        found = nmf(ds, components=3, loss=loss, tolerance=1e-4)
        assert float(found.history.rsplit("=", 1)[1]) == pytest.approx(
            divergence(ds, found, loss), rel=1e-6
        )

    def test_empty_pixels_and_channels(self, loss):
        counts = phases().counts.values.copy()
        counts[3], counts[:, :, 7] = 0, 0
        found = nmf(weight(cube(counts)), components=3, loss=loss)
        assert np.isfinite(found.component_map).all()
        assert not found.component_map[:, 3].any()
        np.testing.assert_allclose(found.component_spectrum[:, 7], 0, atol=1e-9)


@pytest.mark.slow
def test_processes_give_what_threads_give(ds):
    lazy = ds.chunk({"y": 5, "x": 20})
    found = {}
    for name in ("threads", "processes"):
        with scheduler(name, workers=2, memory_limit=10**9):
            for loss in LOSSES:
                result = nmf(lazy, components=3, loss=loss, tolerance=1e-3).compute()
                for variable in ("component_map", "component_spectrum"):
                    found.setdefault((loss, variable), []).append(result[variable].values)
    for threads, processes in found.values():
        np.testing.assert_allclose(processes, threads, atol=1e-5 * threads.max())


@pytest.mark.filterwarnings("ignore")
def test_as_low_as_hyperspy():
    hs = pytest.importorskip("hyperspy.api")
    ds = weight(solar_cell(1000.0, shape=(33, 50)))
    signal = hs.signals.Signal1D(weighted(ds))
    signal.decomposition(algorithm="NMF", output_dimension=4, print_info=False, max_iter=500)
    results = signal.learning_results
    model = np.asarray(results.loadings) @ np.asarray(results.factors).T
    theirs = float(((weighted(ds).reshape(model.shape) - model) ** 2).sum())
    assert divergence(ds, nmf(ds, components=4), "frobenius") < theirs * (1 + 1e-4)


def test_random_starts_differ_and_repeat(ds):
    one, again, other = (
        nmf(ds, components=3, init="random", seed=seed).component_map.values for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_input_is_left_alone(ds):
    before = ds.copy(deep=True)
    nmf(ds, components=2)
    xr.testing.assert_identical(ds, before)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": "huber"}, "loss 'huber' must be one of frobenius, poisson"),
        ({"init": "svd"}, "init 'svd' must be one of nndsvda, random"),
        ({"components": 41}, "components 41 must be from 1 to 40"),
        ({"components": 0}, "components 0 must be from 1 to 40"),
        ({"fixed": np.ones((1, 3))}, r"fixed has shape \(1, 3\), must be \(spectra, 40\)"),
        ({"fixed": -np.ones((1, 40))}, "fixed must hold counts from 0 up"),
        ({"start": np.zeros((2, 40))}, "some in every spectrum"),
        ({"fixed": np.ones((3, 40)), "components": 2}, "components 2 must be at least 3"),
        ({"start": np.ones((3, 40)), "components": 2}, "start has 3 spectra, must have 2"),
    ],
)
def test_refused(ds, options, words):
    with pytest.raises(ParameterError, match=words):
        nmf(ds, **options)


def test_selectors_of_principal_components_are_refused(ds):
    found = nmf(ds, components=3)
    with pytest.raises(ParameterError, match="'cnn' judges principal components"):
        select(found)
    kept = select(found, keep="2-3")
    assert kept.component_keep.values.tolist() == [0, 1, 1]
    assert "component_spatial_statistic" not in kept


@given(
    hnp.arrays(float, (4, 3), elements=st.floats(-5, 5)),
    hnp.arrays(float, 4, elements=st.floats(0.2, 3)),
    hnp.arrays(float, 3, elements=st.floats(0, 9)),
)
def test_simplex(values, weights, totals):
    found = onto_simplex(values, weights, totals)
    assert (found >= 0).all()
    np.testing.assert_allclose(weights @ found, totals, atol=1e-9)
    # No point of the simplex lies farther along the way to the values (Kuhn and Tucker).
    slope = values - found
    best = (slope / weights[:, None]).max(axis=0)
    np.testing.assert_allclose((slope * found).sum(axis=0), best * totals, atol=1e-8)


def test_one_row_by_hand():
    factor = np.array([[1.0, 1.0]])
    descend(factor, np.array([[6.0, -1.0]]), np.array([[2.0]]), 1)
    np.testing.assert_array_equal(factor, [[3.0, 0.0]])


def test_closed_abundances_are_the_best_there_are():
    rng = np.random.default_rng(0)
    spectra, data = rng.uniform(size=(3, 9)), rng.uniform(size=(9, 5))
    totals = np.ones(5)
    found = descend_closed(np.ones((3, 5)), spectra @ data, spectra @ spectra.T, totals, 500)
    error = ((data - spectra.T @ found) ** 2).sum(axis=0)
    others = rng.dirichlet([0.5] * 3, 2000).T
    errors = ((data[:, :, None] - (spectra.T @ others)[:, None]) ** 2).sum(axis=0)
    assert (error <= errors.min(axis=1) + 1e-9).all()


def test_multiplicative_step_by_hand():
    counts = np.array([[[2.0, 4.0]]])
    maps, across, amounts, value = poisson_block(
        counts, np.ones((1, 1, 1)), np.array([[1.0, 1.0]]), 1
    )
    assert maps.item() == 3 and amounts.item() == 3
    np.testing.assert_allclose(across, [[2.0, 4.0]])
    assert value == pytest.approx(2 * np.log(2 / 3) + 4 * np.log(4 / 3))
