"""The spatial statistic against formulae written out, truth of phantoms, and noise of all kinds."""

import numpy as np
import pytest
from helpers import cube, phases, solar_cell
from scipy import ndimage
from test_split import truth

from edxdenoise.components.pca import pca
from edxdenoise.components.selection import select
from edxdenoise.components.spatial import spatial_evidence, spatial_sums
from edxdenoise.errors import EdxdenoiseWarning
from edxdenoise.preprocess import weight


def kernel_matrix(shape, s):
    """K_s between all pixels, as the docstring of the module has it."""
    y, x = (a.ravel() for a in np.indices(shape))
    square = (y[:, None] - y) ** 2 + (x[:, None] - x) ** 2
    norm = np.exp(-0.5 * (np.arange(-200, 201) / s) ** 2).sum() ** 2
    return np.exp(-0.5 * square / s**2) / norm


@pytest.mark.parametrize("s", [0.6, 1.0, 2.0])
def test_sums_are_those_of_the_definition(s):
    rng = np.random.default_rng(0)
    score, variance = rng.normal(1, 2, (9, 12)), rng.uniform(0.5, 3, (9, 12))
    filled = rng.random((9, 12)) > 0.1
    variance[~filled] = 0
    heights, shares = spatial_sums(score, variance, filled, [s])
    e = np.where(filled, score - score[filled].mean(), 0).ravel()
    kernel = kernel_matrix(score.shape, s)
    centre = kernel[0, 0]
    np.fill_diagonal(kernel, 0)
    q = e @ kernel @ e
    v = variance.ravel()
    assert heights[1] == pytest.approx(q / np.sqrt(2 * v @ kernel**2 @ v), rel=1e-3)
    assert shares[0] == pytest.approx(q / (e @ e) / (1 - centre), rel=1e-3)


def test_statistic_of_uneven_noise_has_variance_one():
    rng = np.random.default_rng(1)
    variance = np.where(np.arange(48) < 10, 30.0, 1.0) * np.ones((40, 48))
    filled = np.ones((40, 48), bool)
    heights = np.array(
        [
            spatial_sums(rng.normal(size=(40, 48)) * np.sqrt(variance), variance, filled, [1, 4])[0]
            for _ in range(300)
        ]
    )
    assert np.abs(heights.mean(axis=0)).max() < 0.25
    np.testing.assert_allclose(heights.std(axis=0), 1, atol=0.15)


@pytest.mark.parametrize("dose", [100, 1000, 4000])
def test_effect_size_estimates_the_true_correlation(dose):
    phantom = solar_cell(dose, shape=(132, 200))
    ds = pca(weight(phantom[["counts"]]), components=25)
    evidence, r = spatial_evidence(ds), truth(ds, phantom.expected_counts)
    assert not evidence.correlated
    real = (r > 0.15) & (np.arange(25) > 0)
    assert evidence.signal[real].all() and not evidence.signal[r < 0.05].any()
    np.testing.assert_allclose(evidence.effect_size[real], r[real], atol=0.15)


def test_sign_and_scale_change_nothing():
    ds = pca(weight(phases((40, 50, 40))), components=14)
    plain = spatial_evidence(ds)
    other = spatial_evidence(
        ds.assign(
            component_map=-3 * ds.component_map,
            component_spectrum=-ds.component_spectrum,
        )
    )
    np.testing.assert_allclose(other.effect_size, plain.effect_size, atol=1e-4)
    np.testing.assert_allclose(other.statistic, plain.statistic, rtol=0.05, atol=0.05)


def test_pure_noise_is_noise():
    flat = cube(np.random.default_rng(2).poisson(np.full((40, 50, 30), 3.0)))
    evidence = spatial_evidence(pca(weight(flat), components=25))
    assert not evidence.signal[1:].any() and evidence.probability[1:].max() < 0.5


def test_smoothed_counts_are_noticed_and_judged_against_their_own_noise():
    phantom = solar_cell(1000, shape=(132, 200))
    smooth = ndimage.gaussian_filter(phantom.counts.values.astype(np.float32), (0.6, 0.6, 0))
    ds = pca(
        weight(phantom[["counts"]].assign(counts=(phantom.counts.dims, smooth))), components=25
    )
    with pytest.warns(EdxdenoiseWarning, match="Neighbouring pixels share their noise"):
        result = select(ds, selector="spatial")
    assert result.component_spatial_statistic.noise_correlated == 1
    expected = ndimage.gaussian_filter(phantom.expected_counts.values, (0.6, 0.6, 0))
    r = truth(ds, phantom.expected_counts.copy(data=expected))
    kept = result.component_keep.values == 1
    assert kept[r > 0.3].all() and not kept[r < 0.05].any()


def test_an_empty_map_is_no_signal():
    nothing = np.zeros((12, 12))
    heights, shares = spatial_sums(nothing, nothing, np.zeros((12, 12), bool), [1.0])
    assert (heights == 0).all() and (shares == 0).all()
