"""Components found by their neighbours: against the plain formula, and against known ranks."""

import dask.array as da
import numpy as np
import pytest
from helpers import cube, nothing_computed, phases, solar_cell, weighted

from edxdenoise.blocks import known_sparse, load
from edxdenoise.components import neighbour
from edxdenoise.components.neighbour import neighbours
from edxdenoise.components.pca import pca
from edxdenoise.cube import make_cube
from edxdenoise.errors import ParameterError
from edxdenoise.preprocess import weight
from edxdenoise.simulation import simulate


def decomposed(ds, components=30, **kwargs):
    return neighbours(pca(weight(ds), components=components), **kwargs)


def plain_covariance(data, area, signs):
    """The formula as it stands, pixel by pixel."""
    rows, columns, channels = data.shape
    flat = (data * signs[..., None]).reshape(-1, channels)
    y, x = np.divmod(np.arange(rows * columns), columns)
    dy, dx = y[:, None] - y, x[:, None] - x
    total = 0
    for s in (1.0, 4.0):
        reach = int(3 * s + 0.5)
        near = (np.abs(dy) <= reach) & (np.abs(dx) <= reach)
        kernel = np.exp(-0.5 * (dy**2 + dx**2) / s**2) * near
        line = np.exp(-0.5 * (np.arange(-reach, reach + 1) / s) ** 2)
        kernel /= np.sqrt((line**2).sum() ** 2 - 1)
        np.fill_diagonal(kernel, 0)
        total = total + flat.T @ (kernel * (area[y][:, None] == area[y])) @ flat
    return total


@pytest.mark.parametrize("mean", [3, 300])
@pytest.mark.parametrize("filled", [0, None], ids=["pairs", "tiles"])
@pytest.mark.parametrize("shape", [(5, 7), (30, 26), (1, 40)])
def test_covariance_is_the_formula(monkeypatch, shape, filled, mean):
    """By pairs of counts as nearly empty maps are, and with all cells, tile by tile."""
    monkeypatch.setattr(neighbour, "TILE_VALUES", 1000)
    ds = weight(phases((*shape, 12), counts=mean))
    counts, g = da.from_array(ds.counts.values, (4, 5, -1)), ds.weight_pixel.values
    counts = known_sparse(counts, counts.size if filled is None else filled)
    area = (np.arange(shape[0]) > 2).astype(int)
    found = neighbour.neighbour_covariance(counts, da.asarray(g), da.asarray(area), 3).compute()
    data = ds.counts.values / g[..., None]
    plain = plain_covariance(data, area, np.ones(shape))
    np.testing.assert_allclose(found[0], plain, rtol=2e-5, atol=2e-5 * np.abs(plain).max())
    signs = np.random.default_rng(3).integers(0, 2, shape, np.int8) * 2 - 1
    plain = plain_covariance(data, area, signs)
    np.testing.assert_allclose(found[1], plain, rtol=2e-5, atol=2e-5 * np.abs(plain).max())


@pytest.mark.parametrize("subspace", ["union", "neighbour"])
def test_contract(subspace):
    ds = weight(solar_cell(1000))
    plain = pca(ds, components=30)
    found = neighbours(plain, subspace=subspace)
    spectra, maps = found.component_spectrum.values, found.component_map.values
    np.testing.assert_allclose(spectra @ spectra.T, np.eye(30), atol=1e-12)
    # Scores are projections of the weighted data, largest entry positive, variance theirs.
    scores = np.moveaxis(weighted(ds) @ spectra.T, -1, 0)
    np.testing.assert_allclose(maps, scores, atol=2e-6)
    flat = maps.reshape(30, -1)
    assert (flat.max(axis=1) >= -flat.min(axis=1)).all()
    variance = (flat.astype(float) ** 2).mean(axis=1)
    np.testing.assert_allclose(found.component_variance, variance, rtol=1e-5)
    # The first is the total of every pixel and channel, as PCA's.
    np.testing.assert_allclose(maps[0], plain.component_map[0], rtol=1e-5)
    total = plain.component_variance / plain.component_variance_ratio
    np.testing.assert_allclose(
        found.component_variance / found.component_variance_ratio, total, rtol=1e-10
    )
    flags = found.component_neighbour.values
    number = flags.sum()
    assert flags.dtype == np.int8 and number >= 3
    assert flags[1 : number + 1].all() and flags[0] == 0


def test_pixel_leaves_all_as_it_is():
    ds = pca(weight(phases()), components=5)
    assert neighbours(ds, subspace="pixel").identical(ds)
    with pytest.raises(ParameterError, match="'both' must be one of union, neighbour, pixel"):
        neighbours(ds, subspace="both")


def test_lazy_stays_lazy_and_chunks_change_nothing():
    ds = solar_cell(1000)
    plain = decomposed(ds)
    for chunks in ({"y": 13, "x": 100}, {"y": 30, "x": 31}):
        with nothing_computed():
            lazy = decomposed(ds.chunk(chunks))
        assert isinstance(lazy.component_map.data, da.Array)
        found = load(lazy)
        np.testing.assert_array_equal(found.component_neighbour, plain.component_neighbour)
        seen = np.abs(found.component_spectrum.values @ plain.component_spectrum.values.T)
        np.testing.assert_allclose(np.diag(seen)[:4], 1, atol=1e-6)


@pytest.mark.parametrize("counts", [100, 400, 4000])
def test_uniform_specimen_has_rank_one(counts):
    """Of uneven thickness, so that the noise is uneven too."""
    y, x = np.mgrid[:64, :64]
    thickness = (1 + 0.8 * np.sin(y / 9)) * (1 + 0.5 * (x > 30))
    spectrum = np.exp(-np.arange(120) / 30) + 2 * np.exp(-0.5 * ((np.arange(120) - 40) / 3) ** 2)
    expected = thickness[..., None] * spectrum
    expected *= counts * 64 * 64 / expected.sum()
    for seed in range(5):
        ds = cube(np.random.default_rng(seed).poisson(expected))
        assert decomposed(ds).component_neighbour.values.sum() == 0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_line_is_found_where_counts_are_few(seed):
    """An element of one region, whose eigenvalue drowns in that of the noise of all channels."""
    energy = 0.2 + 0.02 * np.arange(400)
    lines = np.exp(-0.5 * ((energy - np.array([[0.5], [1.5], [3.7]])) / 0.035) ** 2)
    y, x = np.mgrid[:60, :60]
    inside = np.hypot(y - 30, x - 30) < 16
    expected = 0.02 + lines[0] + lines[1] + 0.3 * inside[..., None] * lines[2]
    expected *= 1.2 / expected.sum(axis=2).mean()
    ds = make_cube(np.random.default_rng(seed).poisson(expected), energy=energy)
    found = decomposed(ds, components=8)
    new = lines[2] / found.weight_energy.values
    new -= found.component_spectrum.values[0] * (found.component_spectrum.values[0] @ new)
    kept = found.component_spectrum.values[found.component_neighbour.values > 0]
    assert 1 <= len(kept) <= 2
    assert np.linalg.norm(kept @ new) > 0.7 * np.linalg.norm(new)


def test_noise_in_layers_is_no_component():
    """Two layers: noise of the one at its lines is what pixelwise PCA takes for components."""
    energy = np.arange(200)
    spectra = 0.2 + np.stack([np.exp(-0.5 * ((energy - at) / 3) ** 2) * 30 for at in (40, 120)])
    layers = np.stack([np.arange(60) < 20, np.arange(60) >= 20]).astype(float)
    expected = np.einsum("ly,le->ye", layers, spectra)[:, None, :] * np.ones((1, 80, 1))
    expected *= 300 / expected.sum(axis=2).mean()
    for seed in range(3):
        ds = cube(np.random.default_rng(seed).poisson(expected))
        assert decomposed(ds).component_neighbour.values.sum() == 1


@pytest.mark.slow
def test_finds_what_no_single_component_of_pca_shows():
    """The nitrogen-poor phase of the solar cell: by what it differs from the usual film."""
    phantom = simulate("solar-cell", shape=(132, 200), channels=325, counts_per_pixel=4000)
    phantom = phantom.compute()
    ds = weight(phantom[["counts"]].assign_coords(area=phantom.area))
    plain = pca(ds, components=30)
    found = neighbours(plain)
    names = list(phantom.phase.values)
    spectra = phantom.phase_spectrum.values / ds.weight_energy.values
    own = spectra[names.index("MAPbI3 N-poor")]
    layers = spectra[[names.index(name) for name in ("Cu", "PCBM", "ITO", "MAPbI3 control")]].T
    new = own - layers @ np.linalg.lstsq(layers, own, rcond=None)[0]
    new /= np.linalg.norm(new)
    number = int(found.component_neighbour.values.sum()) + 1
    assert 6 <= number <= 9
    assert np.linalg.norm(found.component_spectrum.values[:number] @ new) > 0.94
    assert np.linalg.norm(plain.component_spectrum.values[:number] @ new) < 0.88
    assert np.abs(plain.component_spectrum.values @ new).max() < 0.8


def test_a_grain_of_one_pixel_stays_in_the_union():
    """It has no neighbour of its kind, so that only pixelwise components hold it."""
    energy = np.arange(100)
    matrix = 2.0 + 20 * np.exp(-0.5 * ((energy - 30) / 2) ** 2)
    expected = np.tile(matrix, (40, 40, 1))
    expected[20, 20] += 200 * np.exp(-0.5 * ((energy - 70) / 2) ** 2)
    ds = cube(np.random.default_rng(0).poisson(expected))
    union = decomposed(ds, components=10)
    alone = decomposed(ds, components=10, subspace="neighbour")
    grain = np.zeros(100)
    grain[66:75] = 1
    seen = [np.linalg.norm(each.component_spectrum.values @ (grain / 3)) for each in (union, alone)]
    assert seen[0] > 0.9 and seen[1] < 0.7


def test_loadings_are_as_sharp_as_the_counts_allow():
    """What components leave out of the true spectra falls as counts grow: no blur remains."""
    lost = []
    for side in (32, 128):
        ds = simulate(
            "solar-cell", shape=(2 * side, side), channels=325, energy_width=0.04,
            counts_per_pixel=10, seed=1,
        ).compute()  # fmt: skip
        found = neighbours(pca(weight(ds[["counts"]]), components=12))
        kept = found["component_spectrum"].values[found["component_neighbour"].values == 1]
        basis = np.vstack([found["component_spectrum"].values[:1], kept])
        true = ds["expected_counts"].values.reshape(-1, 325)[:: side // 16]
        true = true / found["weight_energy"].values / np.sqrt(true.sum(axis=1, keepdims=True))
        mean = true @ basis[:1].T @ basis[:1]
        lost.append(((true - true @ basis.T @ basis) ** 2).sum() / ((true - mean) ** 2).sum())
    assert lost[1] < lost[0] / 4
    assert lost[1] < 0.01
