"""The noise edge against pure Poisson noise, whose mean is of rank one."""

import numpy as np
import pytest
from helpers import cube, phases, solar_cell

from edxdenoise.components.pca import pca
from edxdenoise.components.selection import noise_edge, select, weighted_noise_edge
from edxdenoise.errors import DataError
from edxdenoise.preprocess import weight


def pure_noise(shape, counts, seed, spread=0.3):
    """Poisson counts of one phase of uneven thickness."""
    rng = np.random.default_rng(seed)
    thickness = np.exp(spread * rng.standard_normal(shape[:2]))
    spectrum = 0.2 + rng.gamma(0.7, size=shape[2])
    expected = thickness[:, :, None] * spectrum
    return cube(rng.poisson(expected * counts * shape[0] * shape[1] / expected.sum()))


def singular_values(ds):
    return np.sqrt(ds.component_variance.values * ds.sizes["y"] * ds.sizes["x"])


def test_formula():
    """(sqrt(pixels) + sqrt(channels)) / sqrt(N)."""
    assert noise_edge(400, 100, 2500.0) == pytest.approx((20 + 10) / 50)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("counts", [50, 500])
@pytest.mark.parametrize("shape", [(50, 60, 100), (30, 40, 400), (40, 50, 80)])
def test_largest_noise_lies_at_the_edge(shape, counts, seed):
    # Tall, and wide; the edge is that of large matrices, smaller ones scatter by more than 2 %.
    ds = pca(weight(pure_noise(shape, counts, seed)), components=3)
    assert singular_values(ds)[1] == pytest.approx(weighted_noise_edge(ds), rel=0.02)


def test_edge_from_weights_is_that_from_counts():
    ds = phases()
    counts = ds.counts.values.copy()
    counts[2, 3:7] = 0
    counts[:, :, 5] = 0
    total = float(counts.sum())
    edge = weighted_noise_edge(weight(cube(counts)))
    assert edge == pytest.approx(noise_edge(18 * 20 - 4, 39, total), rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_one_phase_has_one_component(seed):
    # Five per cent more than the edge: the largest value of finite noise scatters about it.
    ds = pca(weight(pure_noise((50, 60, 100), 300, seed)), components=10)
    assert (singular_values(ds) > 1.05 * weighted_noise_edge(ds)).sum() == 1


@pytest.mark.parametrize("make", [phases, lambda: solar_cell(1000)[["counts"]]])
def test_edge_keeps_the_phases_and_uneven_noise_too(make):
    """Of several phases the noise is not of rank one, and some of it lies beyond the edge."""
    ds = select(pca(weight(make()), components=20), selector="edge")
    np.testing.assert_array_equal(ds.component_keep, singular_values(ds) > weighted_noise_edge(ds))
    assert ds.component_keep[:3].all()


def test_edge_needs_weights():
    ds = pca(weight(phases(), weighting="none"), components=5)
    with pytest.raises(DataError, match="needs Poisson weights"):
        select(ds, selector="edge")
