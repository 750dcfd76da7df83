"""Estimates from held-out counts: right on average, and off by as much as they say."""

import numpy as np
import pytest

from edxdenoise import denoise, make_cube
from edxdenoise import schema as v
from edxdenoise import simulate
from edxdenoise.config import Denoise
from edxdenoise.errors import Rank
from edxdenoise.validation.holdout import (
    FLOOR,
    HeldOut,
    LineWindows,
    Scale,
    error_of_block,
    error_of_choice,
    floored,
    gains_of_block,
    held_out_error,
    heldout_sums,
    scale_of,
    true_sums,
)
from edxdenoise.validation.quantities import Quantities, quality, quantity_sums, true_quantity_sums

PIXELS, CHANNELS, FOLDS, DRAWS = 12, 15, 4, 3000


@pytest.fixture(scope="module")
def case():
    """Expected counts, three predictions (the last one negative in places), and many draws."""
    random = np.random.default_rng(0)
    expected = random.uniform(0.2, 6, (PIXELS, CHANNELS))
    predictions = expected * random.uniform(0.7, 1.4, (3, PIXELS, CHANNELS))
    predictions[2, ::3, ::4] = -0.3
    scale = Scale(expected.sum(axis=1) / expected.sum(), expected.sum(axis=0))
    regions = np.stack([np.ones(PIXELS), np.arange(PIXELS) < 5]).astype(float)
    net = random.normal(size=(2, CHANNELS))
    near = (random.uniform(size=(2, CHANNELS)) < 0.4).astype(float)
    lines = LineWindows(net, near)
    draws = random.poisson(expected / FOLDS, (DRAWS, PIXELS, CHANNELS)).astype(np.uint8)
    sums = [heldout_sums(draw, predictions, scale, FOLDS, regions, lines) for draw in draws]
    found = {name: np.stack([each[name] for each in sums]) for name in sums[0]}
    return expected, predictions, scale, regions, lines, draws, found


def assert_mean(values, truth, most=4.5):
    """Mean over draws within its own standard errors of the truth."""
    error = values.std(axis=0) / np.sqrt(len(values))
    assert (np.abs(values.mean(axis=0) - truth) <= most * error + 1e-9).all()


def assert_variance(values, stated, tolerance=0.15):
    np.testing.assert_allclose(stated, values.var(axis=0), rtol=tolerance, atol=1e-9)


def test_squared_error_is_unbiased_and_knows_its_variance(case):
    expected, predictions, scale, regions, _, _, found = case
    truth = true_sums(expected, predictions, scale, regions)["true_error"]
    by_hand = ((predictions - expected) ** 2 / scale.expected) @ np.ones(CHANNELS) @ regions.T
    np.testing.assert_allclose(truth, by_hand)
    assert_mean(found["error"], truth)
    assert_variance(found["error"], found["error_variance"].mean(axis=0))


def test_differences_of_squared_errors(case):
    found = case[-1]
    difference = found["error"][:, 0] - found["error"][:, 1]
    assert_variance(difference, found["error_pair"][:, 0, 1].mean(axis=0))
    # What paired differences are for.
    assert (found["error_pair"][:, 0, 1].mean() < 0.5 * found["error_variance"].mean()).all()


def test_differences_of_deviance(case):
    expected, predictions, scale, regions, _, _, found = case
    truth = true_sums(expected, predictions, scale, regions)["true_deviance"]
    for i, j in ((0, 1), (1, 2), (0, 2)):
        difference = found["deviance"][:, i] - found["deviance"][:, j]
        # Summed over all parts held out in turn, differences are those of the excess.
        assert_mean(difference, (truth[i] - truth[j]) / FOLDS)
        assert_variance(difference, found["deviance_pair"][:, i, j].mean(axis=0))


def test_deviance_is_the_one_of_textbooks(case):
    expected, predictions, scale, regions, _, draws, found = case
    mean = floored(predictions, scale) / FOLDS
    counts = draws[0].astype(float)
    terms = np.where(counts > 0, counts * np.log(np.maximum(counts, 1) / mean), 0) - counts + mean
    np.testing.assert_allclose(found["deviance"][0], 2 * terms.sum(axis=2) @ regions.T)
    assert true_sums(expected, expected[np.newaxis], scale, regions)[
        "true_deviance"
    ] == pytest.approx(0, abs=1e-9)


def test_deviance_near_lines(case):
    _, _, _, _, lines, _, found = case
    whole = LineWindows(lines.net, np.ones((1, CHANNELS)))
    expected, predictions, scale, regions, _, draws, _ = case
    sums = heldout_sums(draws[0], predictions, scale, FOLDS, regions, whole)
    np.testing.assert_allclose(sums["line_deviance"][:, 0], sums["deviance"][:, 0])
    np.testing.assert_allclose(sums["line_deviance_pair"][..., 0], sums["deviance_pair"][..., 0])
    difference = found["line_deviance"][:, 0] - found["line_deviance"][:, 1]
    assert_variance(difference, found["line_deviance_pair"][:, 0, 1].mean(axis=0))


def test_residuals(case):
    expected, predictions, _, regions, lines, _, found = case
    truth = np.stack([regions @ ((expected - own) @ lines.net.T) for own in predictions]) / FOLDS
    assert_mean(found["residual"], truth.transpose(0, 2, 1))
    assert_variance(found["residual"][:, 0], found["residual_variance"].mean(axis=0))


def test_floor(case):
    _, predictions, scale, regions, _, _, found = case
    low = predictions < FLOOR * scale.expected
    assert low[2].sum() >= (predictions[2] < 0).sum() > 0
    np.testing.assert_array_equal(found["below_floor"][0], low.sum(axis=2) @ regions.T)
    assert (floored(predictions, scale) > 0).all()


def test_a_channel_without_counts_has_a_deviance(case):
    predictions = np.ones((2, 3, 4))
    scale = Scale(np.full(3, 0.3), np.array([1.0, 1.0, 2.0, 3.0]))
    held_out = np.ones((3, 4), np.uint8)
    predictions[0, :, 0] = 0.0
    lines = LineWindows(*np.zeros((2, 0, 4)))
    sums = heldout_sums(held_out, predictions, scale, 4, np.ones((1, 3)), lines)
    assert np.isfinite(sums["deviance"]).all() and sums["deviance"][0] > sums["deviance"][1]
    assert sums["residual"].shape == (2, 0, 1)


@pytest.fixture(scope="module")
def quantified(case):
    expected, predictions, _, _, _, draws, _ = case
    random = np.random.default_rng(1)
    above, below = random.uniform(-0.2, 1, (2, 2, CHANNELS))
    mean = expected.mean(axis=0)
    quantities = Quantities(("a", "b"), above, below, above @ mean, below @ mean)
    values, meaningful = quantities.values(predictions)
    regions = np.stack([np.ones(PIXELS), np.arange(PIXELS) < 5]) * meaningful.T[:, np.newaxis]
    truth = true_quantity_sums(expected, values, quantities, regions)
    sums = [quantity_sums(draw, predictions, values, quantities, FOLDS, regions) for draw in draws]
    found = {name: np.stack([each[name] for each in sums]) for name in sums[0]}
    return quantities, values, truth, found


@pytest.mark.parametrize("name", ["n2", "nd", "d2", "u_d2", "u2_d2", "u_nd"])
def test_moments_of_quantities_are_unbiased(quantified, name):
    _, _, truth, found = quantified
    assert_mean(found[name], truth[f"true_{name}"])


def test_squared_error_of_quantities_knows_its_variance(quantified):
    _, _, _, found = quantified
    error = found["u2_d2"] - 2 * found["u_nd"] + found["n2"][:, np.newaxis]
    # The predictions stand for the truth in it, and the third is far from it.
    assert_variance(error[:, :2], found["u_variance"].mean(axis=0)[:2], tolerance=0.35)


def test_quality_of_known_maps():
    """A map with half the contrast and noise of 0.3 beside it, by moments of the truth."""
    random = np.random.default_rng(2)
    v, d = random.uniform(1, 3, 20_000), random.uniform(5, 20, 20_000)
    u = np.stack([v, 2 + 0.5 * (v - 2) + random.normal(0, 0.3, v.size), np.full(v.size, 2.0)])
    quantities = Quantities(("q",), np.array([[1.0, 0]]), np.array([[0, 1.0]]), *np.ones((2, 1)))
    expected = np.stack([v * d, d], axis=1)
    sums = true_quantity_sums(expected, u[..., np.newaxis], quantities, np.ones((1, 1, v.size)))
    found = {name: part[..., 0, 0] for name, part in quality(sums, "true_").items()}
    np.testing.assert_allclose(found["contrast"], [1, 0.5, 0], atol=0.01)
    np.testing.assert_allclose(np.sqrt(np.abs(found["noise"])), [0, 0.3, 0], atol=0.01)
    weight = d**2 / (d**2).sum()
    spread = weight @ v**2 - (weight @ v) ** 2
    assert found["spread"] == pytest.approx(spread)
    assert found["error"][2] == pytest.approx(weight @ (v - 2) ** 2)


def test_values_where_there_is_next_to_no_divisor():
    quantities = Quantities(("q",), np.eye(2)[:1], np.eye(2)[1:], *np.ones((2, 1)))
    values, meaningful = quantities.values(np.array([[[1.0, 2.0], [1.0, 1e-9], [0.0, 1.0]]]))
    assert values[0, :, 0] == pytest.approx([0.5, 20.0, 0.0])
    assert meaningful[:, 0].tolist() == [True, False, False]


@pytest.mark.parametrize("seed", range(2))
def test_held_out_error_is_the_true_one(seed):
    """Estimated without the truth; the true ratio is that of the denoised counts themselves."""
    ds = simulate(
        "solar-cell",
        shape=(33, 40),
        channels=80,
        energy_width=0.16,
        counts_per_pixel=100,
        seed=seed,
    ).compute()
    expected, ds = ds["expected_counts"].values, ds.drop_vars("expected_counts")
    recipe = Denoise(components=20, select="spatial", seed=seed)
    judged = held_out_error(ds, recipe)
    estimate, stddev = judged.error.values
    scale = scale_of(ds)
    weights = 1 / (scale.pixel[..., np.newaxis] * scale.energy)
    made = denoise(ds, recipe)
    true = np.mean(weights * (made["counts_denoised"].values - expected) ** 2)
    assert abs(estimate - true) < 3 * stddev < 0.1
    # Raw counts would have 1, and half of the components' noise is more than nothing.
    assert 0 < true < 0.3
    check_gains(judged.of_components(made), weights, expected)


def check_gains(made, weights, expected):
    """What each component gains is what it takes off the true error, at three quarters of it.

    To within what the noise of one component costs, a share of one over the channels.
    """
    maps = made["component_map_shrunk"].where(made["component_keep"] == 1, made["component_map"])
    h = made["component_spectrum"] * made["weight_energy"]
    gain, stddev = made["component_gain"].values, made["component_gain_stddev"].values
    for number in range(made.sizes["component"]):
        part = made["weight_pixel"].values[..., np.newaxis] * np.multiply.outer(
            maps.values[number], h.values[number]
        )
        true = np.mean(weights * (2 * expected * part - part**2))
        # A signal is that much weaker beside the noise; noise is noise.
        share = 0.75 if true > 0 else 1.0
        one = 1 / made.sizes["energy"]
        assert abs(gain[number] - share * true) < max(4 * stddev[number], one), number
        assert abs(true) < one or (gain[number] > 0) == (true > 0), number
    kept = made["component"].values[made["component_keep"].values == 1]
    base = made["component_gain"].attrs["judged_error"]
    assert error_of_choice(made, kept) == pytest.approx(base)
    error, spread = error_of_choice(made, {*kept, 9} - {2})
    assert error == pytest.approx(base[0] - gain[8] + gain[1])
    assert spread == pytest.approx(np.sqrt(base[1] ** 2 + stddev[8] ** 2 + stddev[1] ** 2))
    assert error_of_choice(made.drop_vars("component_gain"), kept) is None


@pytest.mark.slow
def test_held_out_error_is_never_clipped():
    """Of a flat map, whose totals are smoothed to next to no error, chance decides the sign."""
    flat = np.random.default_rng(0).poisson(1.0, (12, 12, 12, 8)).astype(np.uint8)
    recipe = Denoise(components=2, keep="1", subspace="pixel")
    cubes = [make_cube(part, energy=np.arange(1.0, 9.0)) for part in flat]
    found = np.array([held_out_error(cube, recipe).error.values for cube in cubes])
    assert (found[:, 0] < 0).any() and (found[:, 0] > 0).any()
    pulls = found[:, 0] / found[:, 1]
    assert pulls.std() < 2


@pytest.mark.parametrize("mean", [0.01, 3.0])
def test_error_from_components_is_that_of_all_cells(mean):
    """The judge of `held_out_error` looks at cells that hold counts alone, and finds the same."""
    rng = np.random.default_rng(0)
    maps, g = rng.normal(size=(3, 6, 7)), rng.uniform(0.5, 2, (6, 7))
    spectra = rng.normal(size=(4, 50)) * mean
    held_out = rng.poisson(mean, (6, 7, 50)).astype(np.uint8)
    scale = Scale(rng.uniform(0.1, 1, (6, 7)), rng.uniform(1, 9, 50))
    found = error_of_block(held_out, maps, g, spectra, scale)
    model = g[..., None] * (spectra[0] + np.einsum("kyx,ke->yxe", maps, spectra[1:]))
    predictions = 4 / 3 * model.reshape(1, -1, 50)
    flat = Scale(scale.pixel.reshape(-1), scale.energy)
    nothing = LineWindows(*np.zeros((2, 0, 50)))
    cells = held_out.reshape(-1, 50)
    sums = heldout_sums(cells, predictions, flat, 4, np.ones((1, 42)), nothing)
    np.testing.assert_allclose(found, [sums["error"].item(), sums["error_variance"].item()])


def test_gains_of_orthogonal_components_add_up():
    """The error of all is that of none less the gains, whatever the counts are."""
    rng = np.random.default_rng(1)
    scale = Scale(rng.uniform(0.1, 1, (6, 7)), rng.uniform(1, 9, 50))
    orthonormal = np.linalg.qr(rng.normal(size=(50, 4)))[0].T
    spectra = orthonormal * np.sqrt(scale.energy)
    maps, g = rng.normal(size=(4, 6, 7)), rng.uniform(0.5, 2, (6, 7))
    held_out = rng.poisson(0.3, (6, 7, 50)).astype(np.uint8)
    mean = np.zeros((1, 50))
    gains, variances = gains_of_block(held_out, maps, g, spectra, scale)
    nothing = error_of_block(held_out, maps[:0], g, mean, scale)[0]
    for keep in ([0, 1, 2, 3], [2]):
        found = error_of_block(held_out, maps[keep], g, np.vstack([mean, spectra[keep]]), scale)
        assert found[0] == pytest.approx(nothing - gains[keep].sum())
    assert (variances > 0).all()


@pytest.mark.parametrize("error, worse", [(1.95, True), (1.15, False), (0.02, False)])
def test_counts_that_denoising_makes_worse_are_warned_of(error, worse, recwarn):
    none = np.zeros(0)
    HeldOut(v.HELD_OUT_ERROR.array(np.array([error, 0.09])), none, none, none).check()
    assert [w.message.rank for w in recwarn] == [Rank.WRONG] * worse
