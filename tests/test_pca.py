"""PCA: every solver against NumPy's SVD, Keenan-Kotula identities, laziness, bounded memory.

Tolerances of the solvers, relative to NumPy's singular values of the float64 data:

covariance   1e-6 for the first 40, 1e-7 for components that stand out
full         1e-6, 1e-7: the vectors are exact, the score maps are float32
randomized   1e-6 (sparse counts: 1e-5) for components that stand out, 5 % for the first 40.
incremental  1e-4 (sparse counts: 5e-3) for components that stand out, 15 % for the first 40.

Maps and spectra of components that stand out: 1e-5, which is what float32 maps allow; incremental
5e-4, and with sparse counts randomized 1 % and incremental 3 %.
"""

import threading
import weakref
from collections import Counter
from importlib import import_module

import dask
import dask.array as da
import numpy as np
import pytest
import scipy.linalg
import xarray as xr
from helpers import cube, nothing_computed, phases, solar_cell, weighted
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from edxdenoise import blocks
from edxdenoise.blocks import DENSITY, load
from edxdenoise.components.pca import check_components, leading_eigenvectors, pca
from edxdenoise.components.selection import select
from edxdenoise.components.split import split_probability
from edxdenoise.cube import reconstruct
from edxdenoise.errors import DataError, ParameterError, SchemaError
from edxdenoise.preprocess import weight
from edxdenoise.schema import (
    COMPONENT_MAP,
    COMPONENT_SPECTRUM,
    COMPONENT_VARIANCE,
    COMPONENT_VARIANCE_RATIO,
    MEAN_SPECTRUM,
    validate,
)
from edxdenoise.thinning import thin

SOLVERS = ("covariance", "randomized", "full", "incremental")
LAZY_SOLVERS = ("covariance", "randomized", "full")
SPARSE = pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")


def svd(ds):
    """Singular values, score maps and spectra of the weighted data, in float64."""
    data = weighted(ds)
    u, singular, vectors = np.linalg.svd(data.reshape(-1, data.shape[2]), full_matrices=False)
    return singular, (u * singular).T.reshape(-1, *data.shape[:2]), vectors


def singular_values(result):
    pixels = result.sizes["y"] * result.sizes["x"]
    return np.sqrt(result.component_variance.values * pixels)


def assert_same_up_to_sign(ours, theirs, rtol):
    for one, other in zip(ours, theirs):
        sign = np.sign(np.vdot(one, other))
        np.testing.assert_allclose(sign * one, other, rtol=0, atol=rtol * np.abs(other).max())


@pytest.fixture(scope="module", params=["1000 counts/pixel", "20 counts/pixel"])
def weighted_and_svd(request):
    if request.param.startswith("1000"):
        ds = weight(solar_cell(1000)[["counts"]])
    else:
        ds = weight(solar_cell(20, shape=(40, 60), channels=640)[["counts"]])
    sparse = np.count_nonzero(ds.counts) / ds.counts.size < DENSITY
    assert sparse == request.param.startswith("20 ")  # so that both kernels are tested
    return ds, *svd(ds), sparse


@pytest.mark.parametrize(
    ("solver", "leading", "noise"),
    [
        ("covariance", 1e-7, 1e-6),
        ("full", 1e-7, 1e-6),
        ("randomized", 1e-6, 0.05),
        ("incremental", 1e-4, 0.15),
    ],
)
def test_solver_against_numpy(weighted_and_svd, solver, leading, noise):
    ds, singular, maps, spectra, sparse = weighted_and_svd
    # Vectors are off by more than values; maps are float32.
    vectors = max(5 * leading, 1e-5)
    if sparse and solver in ("randomized", "incremental"):
        leading, vectors = {"randomized": (1e-5, 1e-2), "incremental": (5e-3, 3e-2)}[solver]
    result = pca(ds, components=40, solver=solver)
    validate(
        result,
        COMPONENT_MAP,
        COMPONENT_SPECTRUM,
        COMPONENT_VARIANCE,
        COMPONENT_VARIANCE_RATIO,
        MEAN_SPECTRUM,
    )
    np.testing.assert_allclose(singular_values(result)[:4], singular[:4], rtol=leading)
    np.testing.assert_allclose(singular_values(result), singular[:40], rtol=noise)
    np.testing.assert_allclose(
        result.component_variance_ratio.values.sum(),
        (singular[:40] ** 2).sum() / (singular**2).sum(),
        rtol=max(noise, 1e-6),
    )
    assert_same_up_to_sign(result.component_map.values[:4], maps, vectors)
    assert_same_up_to_sign(result.component_spectrum.values[:4], spectra, vectors)
    loadings = result.component_spectrum.values
    np.testing.assert_allclose(loadings @ loadings.T, np.eye(40), atol=1e-8)


def test_products_of_large_cubes_in_32_bits(weighted_and_svd, monkeypatch):
    """What `gram` does for cubes too large for these tests: values as exact, vectors nearly."""
    ds, singular, _, spectra, _ = weighted_and_svd
    monkeypatch.setattr(import_module("edxdenoise.components.pca"), "_SMALL", 0)
    result = pca(ds, components=40, solver="covariance")
    np.testing.assert_allclose(singular_values(result), singular[:40], rtol=1e-6)
    assert_same_up_to_sign(result.component_spectrum.values[:3], spectra[:3], 1e-5)


@pytest.mark.parametrize(
    ("solver", "rtol"), [("covariance", 1e-6), ("full", 1e-6), ("randomized", 2e-2)]
)
def test_solvers_agree_without_weights(solver, rtol):
    ds = weight(phases(), weighting="none")
    result = pca(ds, components=8, solver=solver)
    np.testing.assert_allclose(singular_values(result), svd(ds)[0][:8], rtol=rtol)
    assert_same_up_to_sign(result.component_map.values[:3], svd(ds)[1], 1e-5)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("shape", [(3, 4, 50), (20, 20, 12), (1, 30, 9), (30, 1, 9)])
def test_wide_and_tall(shape, solver):
    """All components of data with fewer pixels than channels, and with more."""
    ds = weight(phases(shape, counts=2000))
    singular, maps, spectra = svd(ds)
    result = pca(ds, solver=solver)
    count = min(shape[0] * shape[1], shape[2])
    assert result.sizes["component"] == count
    np.testing.assert_array_equal(result.component, np.arange(1, count + 1))
    # Squares add up; a value near the rounding of the largest is anything below that.
    np.testing.assert_allclose(singular_values(result) ** 2, singular**2, rtol=2e-5, atol=1e-7)
    assert float(result.component_variance_ratio.sum()) == pytest.approx(1, abs=1e-6)
    assert_same_up_to_sign(result.component_map.values[:1], maps[:1], 1e-5)


@pytest.mark.parametrize(("solver", "rtol"), [("full", 1e-7), ("covariance", 1e-7)])
def test_first_component_is_the_totals(solver, rtol):
    """Singular value 1, map g / sqrt(N), spectrum h / sqrt(N) (Keenan and Kotula 2004)."""
    ds = weight(phases(counts=300))
    result = pca(ds, components=5, solver=solver)
    root = np.sqrt(float(ds.counts.sum()))
    assert singular_values(result)[0] == pytest.approx(1, rel=rtol)
    # The map is stored as float32.
    np.testing.assert_allclose(result.component_map[0], ds.weight_pixel / root, rtol=1e-6)
    spectrum = result.component_spectrum[0]
    np.testing.assert_allclose(spectrum, ds.weight_energy / root, rtol=1e-6)
    rebuilt = reconstruct(select(result, keep="1")).counts_denoised
    product = ds.counts.sum("energy") * ds.counts.sum(["y", "x"]) / root**2
    np.testing.assert_allclose(rebuilt, product, rtol=3e-6)


@pytest.mark.slow
@given(others=st.sets(st.integers(2, 12)), solver=st.sampled_from(["covariance", "full"]))
@settings(max_examples=25, deadline=None)
def test_any_model_with_component_1_keeps_every_total(others, solver):
    ds = weight(phases())
    result = pca(ds, components=12, solver=solver)
    keep = ",".join(map(str, [1, *others]))
    rebuilt = reconstruct(select(result, keep=keep)).counts_denoised.values.astype(float)
    # float32: parts in a million of the largest total.
    for axes in ((2,), (0, 1)):
        totals = ds.counts.values.sum(axis=axes, dtype=float)
        np.testing.assert_allclose(rebuilt.sum(axis=axes), totals, rtol=0, atol=5e-6 * totals.max())


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("weighting", ["poisson", "none"])
@pytest.mark.parametrize("shape", [(12, 12, 30), (4, 5, 30)])
def test_all_components_give_the_counts_back(shape, weighting, solver):
    ds = weight(phases(shape, counts=3000), weighting=weighting)
    result = reconstruct(select(pca(ds, solver=solver), selector="all"))
    largest = int(ds.counts.max())
    np.testing.assert_allclose(result.counts_denoised, ds.counts, rtol=0, atol=2e-5 * largest)
    np.testing.assert_array_equal(np.rint(result.counts_denoised), ds.counts)


@pytest.mark.parametrize("solver", SOLVERS)
def test_empty_pixels_and_channels_stay_empty(solver):
    counts = phases().counts.values.copy()
    counts[3, 4:9] = 0
    counts[:, :, [0, 17]] = 0
    ds = weight(cube(counts))
    result = pca(ds, components=6, solver=solver)
    assert (result.component_map.values[:, 3, 4:9] == 0).all()
    np.testing.assert_allclose(result.component_spectrum.values[:, [0, 17]], 0, atol=1e-12)
    rebuilt = reconstruct(select(result, keep="1-3")).counts_denoised.values
    np.testing.assert_allclose(rebuilt[3, 4:9], 0, atol=1e-9)
    np.testing.assert_allclose(rebuilt[:, :, [0, 17]], 0, atol=1e-9)
    assert singular_values(result)[0] == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("lazy", [False, True])
def test_largest_entry_of_each_map_is_positive(solver, lazy):
    ds = phases()
    ds = weight(ds.chunk({"y": 5, "x": 9}) if lazy else ds)
    result = load(pca(ds, components=10, solver=solver))
    for one in result.component_map.values.reshape(10, -1):
        assert one[np.abs(one).argmax()] > 0


def test_variance_ratio_is_against_the_total():
    ds = weight(phases())
    few, many = (pca(ds, components=n).component_variance_ratio for n in (3, 40))
    np.testing.assert_allclose(few, many[:3], rtol=1e-6)
    assert float(many.sum()) == pytest.approx(1, abs=1e-6)
    total = (weighted(ds) ** 2).sum() / (18 * 20)
    variance = pca(ds, components=3).component_variance
    np.testing.assert_allclose(variance / few, total, rtol=1e-6)


@pytest.mark.parametrize("components", [0, -1, 41, 1000])
def test_impossible_numbers_of_components(components):
    with pytest.raises(ParameterError, match=f"components {components} must be from 1 to 40"):
        pca(weight(phases()), components=components)


def test_default_number_of_components():
    assert check_components(None, (100, 100, 500)) == 100
    assert check_components(None, (5, 5, 500)) == 25


def test_unknown_solver_and_missing_weights():
    with pytest.raises(ParameterError, match="solver 'lanczos' must be one of auto, cov"):
        pca(weight(phases()), solver="lanczos")
    with pytest.raises(SchemaError, match="weight_pixel"):
        pca(phases())
    one = weight(phases()).isel(energy=[20])
    with pytest.raises(DataError, match="one channel"):
        pca(one)


def test_auto_is_covariance_and_says_so():
    ds = weight(phases())
    auto = pca(ds, components=3)
    assert auto.history.endswith("pca components=3 solver=covariance")
    xr.testing.assert_identical(auto, pca(ds, components=3, solver="covariance"))


def test_seed_repeats_and_input_is_unchanged():
    ds = weight(phases())
    before = ds.copy(deep=True)
    first, second = (pca(ds, components=5, solver="randomized", seed=3) for _ in range(2))
    xr.testing.assert_identical(first, second)
    xr.testing.assert_identical(ds, before)


CHUNKS = [
    {"y": 7},
    {"y": 1},
    {"x": 6},
    {"y": 5, "x": 9, "energy": 11},
    {"y": -1, "x": -1, "energy": 1},
]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
def test_chunks_do_not_matter(solver, chunks):
    ds = phases()
    expected = pca(weight(ds), components=6, solver=solver)
    result = pca(weight(ds.chunk(chunks)), components=6, solver=solver)
    assert isinstance(result.component_map.data, da.Array)
    # Of noise, components 4 on, incremental and randomized find each time another part.
    count = 6 if solver in ("covariance", "full") else 3
    rtol = 1e-3 if solver == "incremental" else 1e-6
    result = result.compute()
    np.testing.assert_allclose(
        result.component_variance[:count], expected.component_variance[:count], rtol=rtol
    )
    for name in ("component_map", "component_spectrum"):
        for ours, theirs in zip(result[name].values[:3], expected[name].values):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=10 * rtol * abs(theirs).max())
    np.testing.assert_allclose(
        result.component_variance_ratio[:3], expected.component_variance_ratio[:3], rtol=rtol
    )


@pytest.mark.parametrize("solver", LAZY_SOLVERS)
def test_nothing_is_computed_before_it_is_asked_for(solver):
    ds = phases().chunk({"y": 6, "x": 10})
    with nothing_computed():
        result = pca(weight(ds), components=4, solver=solver)
        result = reconstruct(select_nothing(result))
    for name in ("component_map", "component_spectrum", "component_variance", "counts_denoised"):
        assert isinstance(result[name].data, da.Array)


def select_nothing(ds):
    keep = np.array([1, 1, 0, 0], np.int8)
    return ds.assign(component_keep=("component", keep))


class Source:
    """A store of counts that knows how often it was read and how many blocks are alive."""

    ndim = 3

    def __init__(self, counts):
        self.counts, self.shape, self.dtype = counts, counts.shape, counts.dtype
        self.reads = self.alive = self.peak = 0
        self.lock = threading.Lock()

    def __getitem__(self, where):
        block = self.counts[where].copy()
        with self.lock:
            self.reads += 1
            self.alive += 1
            self.peak = max(self.peak, self.alive)
        weakref.finalize(block, self._gone)
        return block

    def _gone(self):
        with self.lock:
            self.alive -= 1

    def lazy(self, rows, inline):
        meta = np.empty((0, 0, 0), self.dtype)
        return da.from_array(
            self, chunks=(rows, -1, -1), asarray=False, meta=meta, inline_array=inline
        )


BLOCKS = 40
SMALL = ("weight_pixel", "weight_energy", "component_map", "component_spectrum")


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
@pytest.mark.parametrize("inline", [False, True], ids=["graph with root", "inline"])
@pytest.mark.parametrize(
    ("solver", "reads"), [("covariance", 2), ("full", 3), ("randomized", 10), ("incremental", 8)]
)
def test_each_pass_reads_a_block_once_and_holds_few(scheduler, inline, solver, reads):
    """One pass for weights and Gram matrix, one for the maps; never the whole cube."""
    source = Source(phases((6 * BLOCKS, 8, 20)).counts.values)
    with dask.config.set(scheduler=scheduler, num_workers=2):
        result = pca(weight(cube(source.lazy(6, inline))), components=5, solver=solver)
        dask.compute(*(result[name].data for name in SMALL), result.component_variance_ratio.data)
    assert source.reads <= reads * BLOCKS
    assert source.peak <= 6
    assert source.alive == 0


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
@pytest.mark.parametrize("inline", [False, True], ids=["graph with root", "inline"])
def test_split_and_reconstruct_hold_few_blocks(scheduler, inline):
    source = Source(phases((6 * BLOCKS, 8, 20)).counts.values)
    lazy = pca(weight(cube(source.lazy(6, inline))), components=5)
    loaded = load(lazy.drop_vars("counts")).assign(counts=lazy.counts)
    source.reads = source.peak = 0
    with dask.config.set(scheduler=scheduler, num_workers=2):
        split_probability(loaded)
        assert (source.reads, source.alive) == (2 * BLOCKS, 0)
        # From lazy components as well: one decomposition and its two passes more.
        split_probability(lazy)
        assert source.reads == 6 * BLOCKS
        da.sum(reconstruct(select(loaded, keep="1-3")).counts_denoised.data).compute()
    assert source.peak <= 6


def test_no_block_is_worked_on_twice(monkeypatch):
    calls = Counter()

    def count(module, name):
        module = import_module(f"edxdenoise.{module}")
        function = getattr(module, name)

        def counted(*args, **kwargs):
            calls[name] += 1
            return function(*args, **kwargs)

        counted.__name__ = name
        monkeypatch.setattr(module, name, counted)

    count("components.pca", "gram_block")
    count("components.pca", "project_block")
    count("components.pca", "leading_eigenvectors")
    count("thinning", "parts_of_block")
    count("components.split", "_block_sums")
    ds = phases((24, 20, 40)).chunk({"y": 3})
    with dask.config.set(scheduler="sync"):
        lazy = pca(weight(ds), components=5)
        calls.clear()  # Dask tries each function on an empty block first
        result = lazy.compute()
        assert calls == {"gram_block": 8, "project_block": 8, "leading_eigenvectors": 2}
        calls.clear()
        split_probability(result.chunk({"y": 3}))
    # Thinned once for each of two passes.
    assert calls == {
        "gram_block": 8,
        "leading_eigenvectors": 1,
        "_block_sums": 8,
        "parts_of_block": 16,
    }


@SPARSE
def test_sparse_and_dense_kernels_agree(monkeypatch):
    rare = thin(phases((20, 20, 60), counts=30))[0]
    ds = weight(rare)
    results = []
    for density in (0.0, 1.1):
        monkeypatch.setattr(blocks, "DENSITY", density)
        results.append(pca(ds, components=5))
    dense, sparse = results
    np.testing.assert_allclose(dense.component_variance, sparse.component_variance, rtol=1e-6)
    np.testing.assert_allclose(dense.component_map, sparse.component_map, atol=1e-5)


def test_component_1_is_the_total_however_few_the_counts():
    """A pixel of one count in a channel of one count is a singular vector of value 1 as well."""
    counts = np.random.default_rng(0).poisson(0.004, (40, 50, 120)).astype(np.uint8)
    ds = pca(weight(cube(counts)), components=10)
    total = counts.sum()
    spectrum = np.sqrt(counts.sum(axis=(0, 1)) / total)
    np.testing.assert_allclose(ds.component_spectrum[0], spectrum, atol=1e-12)
    np.testing.assert_allclose(
        ds.component_map[0], np.sqrt(counts.sum(axis=2) / total), rtol=1e-5, atol=1e-9
    )
    loadings = ds.component_spectrum.values
    np.testing.assert_allclose(loadings @ loadings.T, np.eye(10), atol=1e-9)


@pytest.mark.parametrize("h", [None, 0.7])
def test_few_counts_have_the_eigenvectors_of_lapack(monkeypatch, h):
    """By iterations; channels alone in their pixels and pairs, of equal eigenvalues, are there."""
    rng = np.random.default_rng(0)
    rows = sparse.random_array((2000, 300), density=0.004, rng=rng, dtype=float)
    pair = np.array([[2.0, 1.0], [1.0, 2.0]])
    alone = sparse.block_diag(
        [rows, *[pair] * 5, 3 * sparse.eye_array(4), np.zeros((1, 2))], format="csr"
    )
    gram = (alone.T @ alone).toarray()
    h = None if h is None else h + rng.random(len(gram))
    plain = leading_eigenvectors(gram, 30, h)
    monkeypatch.setattr(import_module("edxdenoise.components.pca"), "_LEAST_LANCZOS", 10)
    monkeypatch.setattr(import_module("edxdenoise.components.pca"), "_SPARSE_PRODUCT", 0.5)
    lapack = scipy.linalg.eigh

    def small(matrix, **options):
        assert len(matrix) < 180 and not options
        return lapack(matrix)

    monkeypatch.setattr(scipy.linalg, "eigh", small)
    singular, vectors = leading_eigenvectors(gram, 30, h)
    np.testing.assert_allclose(singular, plain[0], rtol=1e-10)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(30), atol=1e-10)
    np.testing.assert_allclose(np.linalg.svd(vectors @ plain[1].T)[1], 1, atol=1e-6)
