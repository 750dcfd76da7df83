"""Components weighted by their signal over signal plus noise, where no pixels are averaged."""

from functools import lru_cache

import numpy as np
import pytest
from helpers import cube

from edxdenoise import denoise
from edxdenoise.components import weight_by_signal
from edxdenoise.components.pca import pca
from edxdenoise.components.selection import select
from edxdenoise.config import Denoise
from edxdenoise.cube import reconstruct
from edxdenoise.preprocess import weight
from edxdenoise.quantification.estimators import behind_projection

UNION = Denoise(components=10, keep="1-4", shrink=False)


@lru_cache
def weak_phases(counts=50.0):
    """Three smooth phases in a matrix, of spectra that differ by little: expected counts, cube."""
    y, x = np.mgrid[:60, :60] / 60
    shares = 0.4 * np.stack([np.sin(3 * x) ** 2, np.cos(4 * y) ** 2, np.sin(5 * (x + y)) ** 2])
    channels = np.arange(50)
    peaks = np.exp(-0.5 * ((channels - np.array([[10], [22], [35]])) / 2) ** 2)
    expected = 1 + np.tensordot(shares, 6 * peaks, axes=(0, 0))
    expected *= counts / expected.sum(axis=2).mean()
    return expected, cube(np.random.default_rng(0).poisson(expected).astype(np.uint8))


def weights_of(ds):
    return ds.component_signal_kept.values[ds.component_keep.values == 1]


def test_weak_components_beat_those_kept_whole_and_those_left_out():
    expected, ds = weak_phases(50.0)

    def error(found):
        return float(np.mean((found.counts_denoised.values - expected) ** 2))

    union = denoise(ds, UNION)
    whole = reconstruct(union.drop_vars(["component_map_shrunk", "component_signal_kept"]))
    first = denoise(ds, Denoise(components=10, keep="1", shrink=False))
    assert error(union) < 0.75 * min(error(whole), error(first))


@pytest.mark.parametrize("counts", [12.0, 50.0, 200.0])
def test_weights_are_those_of_the_least_error(counts):
    """The best that could be chosen by the answer, component by component."""
    expected, ds = weak_phases(counts)
    found = denoise(ds, UNION)
    kept = found.component_keep.values == 1
    spectra = found.component_spectrum.values[kept]
    g, h = found.weight_pixel.values[..., np.newaxis], found.weight_energy.values
    true = np.moveaxis((expected / (g * h)) @ spectra.T, -1, 0)
    noisy = found.component_map.values[kept]
    best = (true * noisy).sum(axis=(1, 2)) / (noisy**2).sum(axis=(1, 2))
    assert weights_of(found)[0] == 1 and len(best) > 1
    np.testing.assert_allclose(weights_of(found)[1:], best[1:], atol=0.12)


def test_noise_gets_next_to_no_weight():
    ds = cube(np.random.default_rng(1).poisson(5.0, (50, 50, 20)))
    found = weight_by_signal(select(pca(weight(ds), components=6), keep="1-4"))
    assert (weights_of(found)[1:] < 0.15).all() and np.isnan(found.component_signal_kept[4:]).all()


def test_totals_stay_and_intensities_are_a_filter_of_the_counts():
    _, ds = weak_phases()
    found = denoise(ds, UNION)
    rebuilt, counts = found.counts_denoised.values, ds.counts.values
    for axes in (2, (0, 1)):
        np.testing.assert_allclose(rebuilt.sum(axis=axes), counts.sum(axis=axes), rtol=2e-3)
    window = np.zeros((1, counts.shape[2]))
    window[0, 18:27] = 1
    filtered = counts @ behind_projection(found, window)[0]
    np.testing.assert_allclose(filtered, rebuilt @ window[0], rtol=1e-3, atol=1e-3)


def test_the_article_s_components_are_kept_whole():
    """Those of single pixels are as the article has them."""
    _, ds = weak_phases()
    found = denoise(ds, Denoise(components=10, keep="1-3", shrink=False, subspace="pixel"))
    assert "component_signal_kept" not in found
