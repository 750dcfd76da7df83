"""The networks' inputs: in units of the known noise, whatever the scale, size and sign."""

from functools import lru_cache

import numpy as np
import pytest
from helpers import phases, solar_cell
from scipy.ndimage import gaussian_filter

import edxdenoise
from edxdenoise.components.network_inputs import (
    BLOCKS,
    CHANNELS,
    SIGNED,
    compressed,
    empirical_null,
    network_input,
    picture,
    whitened_stack,
)
from edxdenoise.components.score_noise import score_noise
from edxdenoise.components.spatial import spatial_evidence
from edxdenoise.errors import ParameterError

INSIDE = 8  # channel of the share of pixels with counts


def decomposed(ds, components=24):
    return edxdenoise.pca(edxdenoise.weight(ds[["counts"]]), components=components).compute()


@lru_cache
def cell():
    return decomposed(solar_cell(300.0))


@pytest.mark.parametrize(
    ("shape", "blocks"),
    [((330, 500), 42 * 63), ((40, 30), 40 * 30), ((64, 64), 64 * 64), ((65, 3), 33 * 2)],
)
def test_blocks_hold_the_whole_map(shape, blocks):
    score = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    stack = whitened_stack(score, np.ones(shape, np.float32))
    assert stack.shape == (BLOCKS, BLOCKS, CHANNELS) and stack.dtype == np.float32
    assert np.count_nonzero(stack[..., INSIDE]) == blocks
    side = -(-max(shape) // BLOCKS)
    assert stack[..., INSIDE].sum() * side**2 == pytest.approx(score.size)
    assert stack[..., 9] == pytest.approx(np.log(score.size))
    assert (stack[..., 10:] == 0).all()


@pytest.mark.parametrize("uneven", [False, True])
def test_noise_alone_gives_units_of_noise(uneven):
    rng = np.random.default_rng(1)
    shape = (256, 256)
    variance = np.full(shape, 3.0, np.float32)
    if uneven:
        variance[:, :100] *= 20
    score = (rng.normal(size=shape) * np.sqrt(variance)).astype(np.float32)
    stack = whitened_stack(score, variance)
    # Inner blocks: those at the border have fewer neighbours, in the null as well.
    for channel in (0, 1, 2, 3, 5):
        values = stack[2:-2, 2:-2, channel]
        assert abs(values.mean()) < 5 * values.std() / values.size**0.5, channel
        assert 0.6 < values.std() < 1.3, channel
    assert abs(np.median(stack[..., 4])) < 2.5


def test_a_grain_of_five_pixels_in_a_large_map_is_seen():
    rng = np.random.default_rng(2)
    score = rng.normal(size=(1000, 1000)).astype(np.float32)
    score[500, 501:504] += 5
    score[499:502:2, 502] += 5
    stack = whitened_stack(score, np.ones(score.shape, np.float32))
    for channel in (1, 4):
        values = stack[..., channel]
        place = np.unravel_index(values.argmax(), values.shape)
        assert np.abs(np.subtract(place, (500 // 16, 502 // 16))).max() <= 1
        assert values.max() > 1.4 * np.sort(values.ravel())[-10]


def test_a_difference_between_areas_is_seen():
    rng = np.random.default_rng(3)
    score = rng.normal(size=(330, 500)).astype(np.float32)
    score[165:] += 0.3
    stack = whitened_stack(score, np.ones(score.shape, np.float32))
    above, below = stack[12:30, 5:60, 0], stack[36:50, 5:60, 0]
    assert below.mean() - above.mean() == pytest.approx(0.3 * 8, rel=0.15)


@pytest.mark.parametrize("factor", [0.1, 700.0])
def test_scaling_the_counts_changes_nothing(factor):
    ds = solar_cell(300.0)
    scaled = decomposed(ds.assign(counts=ds.counts.astype(np.float32) * np.float32(factor)), 8)
    first, other = network_input(decomposed(ds, 8)), network_input(scaled)
    # The components agree to the rounding of their solver.
    assert np.abs(other[:3] - first[:3]).max() < 0.02
    noise = score_noise(decomposed(ds, 8))
    score, variance = noise.maps[4], noise.variance(4)
    factor = np.float32(factor)
    assert whitened_stack(score * factor, variance * factor**2) == pytest.approx(
        whitened_stack(score, variance), rel=1e-3, abs=1e-3
    )


def test_the_sign_of_a_map_changes_signed_channels_only():
    noise = score_noise(cell())
    plus, minus = (
        compressed(whitened_stack(sign * noise.maps[6], noise.variance(6))) for sign in (1, -1)
    )
    plus[..., list(SIGNED)] *= -1
    assert minus == pytest.approx(plus, abs=1e-6)


def test_components_can_be_chosen():
    whole = network_input(cell())
    assert whole.shape == (24, BLOCKS, BLOCKS, CHANNELS) and np.isfinite(whole).all()
    some = network_input(cell(), components=[3, 20], noise=score_noise(cell()))
    assert (some == whole[[3, 20]]).all()
    pictures = network_input(cell(), "article")
    assert pictures.shape == (24, 100, 100, 3) and pictures.dtype == np.uint8
    assert (network_input(cell(), "article", components=[3]) == pictures[[3]]).all()


def test_pixels_without_counts_have_no_structure():
    ds = phases((40, 40, 30)).copy(deep=True)
    ds.counts[:, 10:20] = 0
    found = network_input(decomposed(ds, 5))
    empty = found[:, 12 : 12 + 40, 12 + 10 : 12 + 20]
    assert (empty[..., [0, 1, 2, 3, 5, 6, 7, 8]] == 0).all()
    # The smoothed map reaches 3 pixels over the edge, as it does at the border of the map.
    assert (empty[:, :, 3:-3, 4] == 0).all()
    assert (whitened_stack(np.ones((5, 5)), np.zeros((5, 5))) == 0).all()


def test_correlated_noise_is_centred_on_the_later_components():
    ds = solar_cell(300.0, (120, 160))
    smooth = gaussian_filter(ds.counts.values.astype(np.float32), (0.7, 0.7, 0))
    smoothed = decomposed(ds.assign(counts=(ds.counts.dims, smooth)))
    raw = decomposed(ds)
    assert not spatial_evidence(raw).correlated and spatial_evidence(smoothed).correlated
    mean, deviation = empirical_null(score_noise(smoothed))
    assert mean[1] > 1 and (deviation >= 1).all()
    for each in (raw, smoothed):
        found = network_input(each)
        later = found[12:, ..., 1:4][found[12:, ..., INSIDE] > 0]
        assert np.abs(later.mean(axis=0)).max() < 0.15
        # What is signal still is.
        assert found[1, ..., 1][found[1, ..., INSIDE] > 0].mean() > 1


def test_a_picture_goes_from_black_to_pale_yellow():
    score = np.tile(np.linspace(-3, 5, 200), (150, 1))
    found = picture(score)
    assert found.shape == (100, 100, 3) and found.dtype == np.uint8
    assert found[0, 0].max() < 10 and found[0, -1].min() > 180
    # Ends are the first and last colours of magma.
    from matplotlib import colormaps

    first, last = (np.array(colormaps["magma"](v)[:3]) * 255 for v in (0.0, 1.0))
    assert np.abs(found[:, 0] - first).max() <= 2 and np.abs(found[:, -1] - last).max() <= 2
    assert np.ptp(picture(np.full((20, 30), 4.0))) <= 4


def test_the_last_channels_say_what_the_spatial_statistic_says():
    ds = cell()
    found, evidence = network_input(ds, components=[0, 3]), spatial_evidence(ds)
    statistic, effect = evidence.statistic[[0, 3]], evidence.effect_size[[0, 3]]
    assert np.ptp(found[..., 10:], axis=(1, 2)).max() == 0
    np.testing.assert_allclose(np.expm1(found[:, 0, 0, 10]), statistic, rtol=1e-4)
    np.testing.assert_allclose(np.exp(found[:, 5, 7, 11]), effect + 0.02, rtol=1e-4)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ParameterError, match="'other' must be one of default, article"):
        network_input(cell(), "other")
