"""The noise of score maps, against the expected counts of phantoms."""

import numpy as np
import pytest
import xarray as xr
from helpers import phases, solar_cell

from edxdenoise.components.pca import pca
from edxdenoise.components.score_noise import (
    neighbour_statistic,
    noise_correlated,
    noise_scale,
    score_noise,
)
from edxdenoise.preprocess import weight


def true_variance(ds, expected, k):
    p, h = ds.component_spectrum.values[k], ds.weight_energy.values
    return expected @ ((p / h) ** 2) / ds.weight_pixel.values**2


@pytest.mark.parametrize("weighting", ["poisson", "none"])
def test_variance_of_noise_components_is_that_of_the_expected_counts(weighting):
    phantom = solar_cell(1000, shape=(132, 200))
    ds = pca(weight(phantom[["counts"]], weighting=weighting), components=25)
    noise = score_noise(ds)
    for k in (15, 20, 24):
        known, true = noise.variance(k), true_variance(ds, phantom.expected_counts.values, k)
        assert np.corrcoef(known.ravel(), true.ravel())[0, 1] > 0.95
        assert known.mean() == pytest.approx(true.mean(), rel=0.15)


def test_variance_follows_scaled_counts():
    ds = weight(phases((40, 50, 40)))
    plain = score_noise(pca(ds, components=12))
    scaled = ds.assign(counts=ds.counts * 1.7, weight_pixel=ds.weight_pixel)
    other = score_noise(pca(scaled, components=12))
    for k in (0, 8, 11):
        np.testing.assert_allclose(other.variance(k), 1.7**2 * plain.variance(k), rtol=1e-3)


def test_empty_pixels_have_no_noise():
    ds = phases((20, 20, 30))
    ds["counts"] = ds.counts.copy()
    ds["counts"][:1] = 0
    noise = score_noise(pca(weight(ds), components=12))
    for k in (0, 6):
        variance = noise.variance(k)
        assert (variance[:1] == 0).all() and (variance[1:] > 0).all()


def test_components_are_needed():
    with pytest.raises(ValueError, match="component_map"):
        score_noise(weight(phases()))


def test_neighbour_statistic_of_even_and_uneven_noise_is_standard_normal():
    rng = np.random.default_rng(0)
    variance = np.where(np.arange(40)[:, None] < 20, 1.0, 25.0) * np.ones((40, 30))
    values = [
        neighbour_statistic(rng.normal(size=(40, 30)) * np.sqrt(variance), variance)
        for _ in range(400)
    ]
    assert abs(np.mean(values)) < 0.2 and np.std(values) == pytest.approx(1, abs=0.1)
    assert neighbour_statistic(np.ones((5, 5)), np.zeros((5, 5))) == 0


def test_noise_scale_sees_through_slow_signal():
    rng = np.random.default_rng(1)
    y = np.linspace(0, 3, 100)[:, None]
    score = np.sin(y) * 20 + rng.normal(scale=2, size=(100, 100))
    assert noise_scale(score, np.full((100, 100), 2.0)) == pytest.approx(2, rel=0.1)
    assert noise_scale(score, np.zeros((100, 100))) == 1


def test_few_components_say_nothing_of_correlation():
    assert not noise_correlated(np.full(11, 50.0))
    assert noise_correlated(np.full(12, 50.0))


def test_a_mean_taken_off_counts_towards_the_noise():
    ds = pca(weight(phases((40, 50, 40)), weighting="none"), components=12)
    mean = ds.component_map[0].mean().item() * ds.component_spectrum[0]
    centred = ds.assign(
        component_map=xr.where(
            ds.component == 1, ds.component_map - ds.component_map[0].mean(), ds.component_map
        ).transpose(*ds.component_map.dims),
        mean_spectrum=mean.drop_vars("component").astype(np.float32),
    )
    for k in (5, 11):
        np.testing.assert_allclose(
            score_noise(centred).poisson_variance(k),
            score_noise(ds).poisson_variance(k),
            rtol=1e-3,
        )
