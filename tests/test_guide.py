"""Images as guides of smoothing: the right one helps, and any other is found out."""

from functools import lru_cache

import numpy as np
import pytest
from helpers import cube

from edxdenoise import denoise
from edxdenoise.components.guide import Gain, best_shift, channel, halves, shifted, sum_and_stddev
from edxdenoise.config import Denoise
from edxdenoise.cube import named_images
from edxdenoise.preprocess import stack
from edxdenoise.report.text import warning_lines

RECIPE = Denoise(components=8, select="spatial")
RNG = np.random.default_rng


@lru_cache
def specimen():
    """Grains of two materials and two thicknesses: counts per channel, and an image of them."""
    y, x = np.mgrid[:40, :44]
    rng = RNG(0)
    centres = rng.uniform(0, 44, (2, 30))
    grain = np.hypot(*(p[..., None] - c for p, c in zip((y, x), centres))).argmin(axis=-1)
    kind = rng.integers(0, 2, 30)[grain]
    thickness = rng.uniform(0.5, 1.5, 30)[grain]
    channels = np.arange(40)
    spectra = 1 + 15 * np.exp(-0.5 * ((channels - np.array([[10], [25]])) / 2) ** 2)
    expected = 10 * thickness[..., None] * (spectra / spectra.sum(axis=1, keepdims=True))[kind]
    image = thickness * (1 + 0.5 * kind) + 0.02 * rng.standard_normal(kind.shape)
    return expected, image.astype(np.float32)


def measured(images=(), names=(), seed=1):
    ds = cube(RNG(seed).poisson(specimen()[0]).astype(np.uint8))
    return ds.assign(image=named_images(np.array(images), list(names))) if names else ds


def error(ds):
    return float(np.sqrt(np.mean((ds.counts_denoised.values - specimen()[0]) ** 2)))


def test_the_right_image_lowers_the_error_and_is_named():
    image = specimen()[1]
    with_image = denoise(measured([image], ["BSE"]), RECIPE)
    without = denoise(measured([image], ["BSE"]), Denoise(**{**vars(RECIPE), "image": "none"}))
    assert error(with_image) < 0.9 * error(without)
    (text,) = with_image.attrs["image_gain"]
    assert text.startswith("image BSE guides the smoothing: it takes ") and " ± " in text
    assert f"Note: {text}" in warning_lines(with_image)
    assert "image_gain" not in without.attrs and with_image.attrs.get("warnings", []) == []


@pytest.mark.slow
def test_wrong_images_change_nothing():
    """Turned, shifted too far, of something else, and of nothing."""
    image = specimen()[1]
    wrong = [image[::-1, ::-1], np.roll(image, (15, 15), (0, 1)), 0 * image]
    found = denoise(measured(wrong, ["a", "b", "c"]), RECIPE)
    assert [" does not guide " in text for text in found.attrs["image_gain"]] == [True] * 3
    plain = denoise(measured(), RECIPE)
    np.testing.assert_array_equal(found.component_map_shrunk, plain.component_map_shrunk)


def test_a_shift_is_found_and_undone():
    expected, image = specimen()
    counts = RNG(2).poisson(expected.sum(axis=2)).astype(np.float32)[np.newaxis]
    maps = [(counts, np.ones_like(counts[0]), np.full_like(counts, counts.mean()))]
    assert best_shift(maps, image) == (0, 0)
    assert best_shift(maps, shifted(image, (2, -3))) == (-2, 3)
    found = denoise(measured([shifted(image, (1, 2))], ["SE"]), RECIPE)
    assert "image SE shifted by -1 and -2 pixels guides" in found.attrs["image_gain"][0]


def test_maps_of_a_stack_are_judged_one_by_one():
    image = specimen()[1]
    both = stack([measured([each], ["BSE"]) for each in (image, image[::-1, ::-1])])
    first, second = denoise(both, RECIPE).attrs["image_gain"]
    assert first.startswith("area 1: image BSE guides")
    assert second.startswith("area 2: image BSE does not guide")


def test_brightness_and_contrast_do_not_matter():
    image = specimen()[1]
    np.testing.assert_allclose(channel(image), channel(3 + 7 * image), atol=1e-3)
    noise = RNG(0).standard_normal((80, 80))
    # An image of noise alone tells nothing: its unit is the noise.
    assert channel(noise).std() == pytest.approx(1, abs=0.05)


def test_halves_have_noise_of_their_own():
    rng = RNG(0)
    weights = rng.poisson(3, (200, 200)).astype(np.float32)
    values = np.where(weights > 0, rng.standard_normal((1, 200, 200)), 0)
    values = values * np.sqrt(2 / np.maximum(weights, 1))
    parts = halves(values, weights, np.full_like(values, 2), rng)
    known = weights > 0
    product = (parts.values * parts.judge * weights)[0][known]
    assert abs(product.mean()) < 4 * product.std() / np.sqrt(product.size)
    assert parts.losses(np.zeros_like(values))[known].mean() == pytest.approx(1, abs=0.03)
    assert parts.losses(np.zeros_like(values))[~known].sum() == 0


def test_an_image_must_be_sure_to_gain():
    assert Gain("a", (0, 0), 0.2, 0.05).used
    assert not Gain("a", (0, 0), 0.2, 0.1).used
    assert not Gain("a", (0, 0), 0.005, 0.0001).used
    assert str(Gain("a", (0, 0), 0.0, np.nan)).endswith("too few pixels judge it")
    total, stddev = sum_and_stddev(RNG(0).standard_normal((160, 160)))
    assert abs(total) < 4 * 160 and stddev == pytest.approx(160, rel=0.2)
