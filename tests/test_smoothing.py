"""Smoothing: against its formulas, against the truth of phantoms, and on noise alone."""

import sys
from functools import lru_cache

import numpy as np
import pytest
from helpers import cube, phases
from scipy import ndimage
from scipy.stats import chi2

from edxdenoise import LineSpec, denoise, quantify, simulate
from edxdenoise.components import shrink
from edxdenoise.components.neighbour import near_sums
from edxdenoise.components.overfitting import overfit_shares
from edxdenoise.components.pca import pca
from edxdenoise.components.selection import select
from edxdenoise.components.shrink import area_rows, error_variance, noise_scale
from edxdenoise.components.smoothing import (
    TOLERANCES,
    WIDTHS,
    Mixed,
    gaussian,
    gaussian_line,
    local_mean,
    mix_gaussians,
    non_local_means,
    offsets,
    profiles,
    smooth,
    spikes,
)
from edxdenoise.config import Denoise, Quantify
from edxdenoise.cube import kept_maps, reconstruct
from edxdenoise.errors import DataError, EdxdenoiseWarning
from edxdenoise.preprocess import weight
from edxdenoise.quantification.estimators import pixel_covariance

RNG = np.random.default_rng


@lru_cache
def phantom(counts=1000):
    ds = simulate("solar-cell", shape=(132, 200), channels=325, counts_per_pixel=counts)
    return ds.compute()


@lru_cache
def denoised(counts=1000, shrinking=True):
    ds = phantom(counts)
    given = ds[["counts"]].assign_coords(area=ds.area).assign_attrs(ds.attrs)
    return denoise(given, Denoise(select="spatial", shrink=shrinking))


# The estimators ---------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [0.7, 2.0, 4.0, 8.0, 16.0])
def test_gaussians_are_those_of_scipy(width):
    """Wide ones are applied to bins and interpolated: within a part of the noise that is left."""
    image = RNG(0).poisson(1.0, (1, 70, 83)).astype(np.float32)
    kernel = gaussian(width, 70, 83)
    ones = np.ones_like(image)
    ours = (kernel.sums(image) / kernel.sums(ones))[0]
    plain, below = (
        ndimage.gaussian_filter(part[0], width, mode="constant", truncate=6)
        for part in (image, ones)
    )
    # In standard deviations of the noise that the average has.
    noise = 1 / (2 * np.sqrt(np.pi) * width)
    assert np.sqrt(np.mean((ours - plain / below) ** 2)) < 0.25 * noise


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("place", [(0, 0), (13, 30), (22, 17)])
def test_own_share_is_the_response(width, place):
    """What a pixel has of its own value: the divergence that the risk needs, exactly."""
    image = np.zeros((1, 40, 50), np.float32)
    image[0][place] = 1
    kernel = gaussian(width, 40, 50)
    assert kernel.sums(image)[0][place] == pytest.approx(kernel.centre[place], rel=1e-4)


def plain_means(guide, noise, values, weights, alike):
    """The formula as it stands."""
    rows, columns = weights.shape
    half = list(zip(*offsets()))
    reach = np.abs(half).max()
    # Pixels outside have no weight.
    maps = np.concatenate([guide, noise, values, [weights]])
    around = np.pad(maps, ((0, 0), (reach, reach), (reach, reach)))
    above, below = np.zeros_like(values), np.zeros_like(weights)
    for dy, dx in [(0, 0), *half, *((-dy, -dx) for dy, dx in half)]:
        there = around[:, reach + dy :, reach + dx :][:, :rows, :columns]
        *others, weight = np.split(there, [len(guide), 2 * len(guide), 3 * len(guide)])
        d = ((guide - others[0]) ** 2 / (noise + others[1])).sum(axis=0)
        w = weight[0] * np.exp(-np.maximum(d - chi2.ppf(alike, len(guide)), 0) / 2)
        above, below = above + w * others[2], below + w
    return np.where(below > 0, above / np.where(below > 0, below, 1), 0)


@pytest.mark.parametrize("shape", [(2, 14, 23), (2, 14, 5), (1, 7, 1)])
def test_non_local_means_are_the_formula(shape):
    rng = RNG(0)
    guide, values = rng.normal(size=(2, *shape)).astype(np.float32)
    noise = rng.uniform(0.2, 1, shape).astype(np.float32)
    weights = rng.poisson(2, shape[1:]).astype(np.float32)
    found, own = non_local_means(guide, noise, values * weights, weights)
    impulse = np.zeros_like(values)
    impulse[:, 3, 0] = 1
    response, _ = non_local_means(guide, noise, impulse * weights, weights)
    np.testing.assert_allclose(response[:, 0, 3, 0], own[:, 0, 3, 0], rtol=1e-5)
    for mean, alike in zip(found, TOLERANCES):
        plain = plain_means(*(a.astype(float) for a in (guide, noise, values, weights)), alike)
        np.testing.assert_allclose(mean, plain, rtol=2e-4, atol=2e-5)


def test_offsets_hold_no_step_twice_nor_its_opposite():
    steps = list(zip(*(along.tolist() for along in offsets())))
    both = steps + [(-y, -x) for y, x in steps]
    assert len(set(both)) == 2 * len(steps) and (0, 0) not in both
    # All that is near is there.
    assert {(y, x) for y in range(-8, 9) for x in range(-8, 9)} <= {(0, 0), *both}


# The mixture ------------------------------------------------------------------------------------


def waves(period, rng, level=1.0):
    """A map, its noisy version, weights and variances; some pixels have no weight."""
    y, x = np.mgrid[:96, :110]
    truth = np.sin(2 * np.pi * y / period) + np.cos(2 * np.pi * x / period)
    weights = rng.poisson(4, truth.shape).astype(np.float32)
    variance = np.full((1, *truth.shape), level, np.float32)
    noise = rng.normal(size=truth.shape) * np.sqrt(level / np.maximum(weights, 1))
    values = np.where(weights > 0, truth + noise, 0).astype(np.float32)
    return truth, values[np.newaxis], weights, variance


@pytest.mark.parametrize("period", [8, 30, 1e9])
@pytest.mark.parametrize("level", [0.1, 10.0])
def test_as_good_as_the_best_gaussian(period, level):
    """Pixels without counts included."""
    truth, values, weights, variance = waves(period, RNG(1), level)

    def error(found):
        return float(np.sqrt(np.mean((found - truth) ** 2)))

    best = np.inf
    for width in WIDTHS:
        kernel = gaussian(width, *truth.shape)
        mean = kernel.sums(values * weights) / np.maximum(kernel.sums(weights[None]), 1e-9)
        best = min(best, error(mean[0]))
    least = 0.02 * np.sqrt(level)  # the constant does better than any of them
    assert error(smooth(values, weights, variance, window=8.0).values[0]) < 1.05 * best + least


@pytest.mark.parametrize("seed", range(3))
def test_strong_detail_and_empty_pixels_have_finite_results(seed):
    """Detail as strong as it gets, and empty pixels: each still has a result and a variance."""
    rng = RNG(seed)
    values = (100 * rng.integers(0, 2, (2, 40, 50))).astype(np.float32)
    weights = rng.integers(0, 3, (40, 50)).astype(np.float32)
    values[:, weights == 0] = 0
    found = smooth(values, weights, np.full_like(values, 0.05), window=8.0, seed=seed)
    assert np.isfinite(found.values).all() and (found.variance > 0).all()
    # Pixels without weight have values of those around them, not the 0 they were given.
    assert found.values[:, weights == 0].mean() > 20


def test_single_counts_are_no_detail_and_five_are():
    """A channel with 2 counts per 1000 pixels is flat, but for the one pixel that has many."""
    level = np.float32(0.002)
    counts = RNG(4).poisson(level, (60, 60)).astype(np.float32)
    counts[30, 30] = 0
    weights = np.ones_like(counts)
    variance = np.full((1, 60, 60), level, np.float32)

    def smoothed():
        values = counts[np.newaxis] - level
        spike = spikes(values, weights, variance, variance)
        return smooth(values, weights, variance, window=8.0, spike=spike).values[0]

    assert smoothed().max() < 0.1
    counts[30, 30] = 8
    assert smoothed()[30, 30] > 6


def test_each_place_has_its_own_width():
    """A flat half is averaged widely, a half with detail hardly."""
    rng = RNG(2)
    truth, values, weights, variance = waves(7, rng, 0.1)
    truth[:, 55:] = 0
    values = (truth + (values - waves(7, RNG(2), 0.1)[0]))[:1].astype(np.float32)
    values[:, weights == 0] = 0
    own = mix_gaussians(values, weights, variance, 8.0, np.zeros_like(values)).own[0]
    assert np.median(own[:, :40]) > 20 * np.median(own[:, 75:])


def test_local_means_reach_as_far_as_counts_ask_for():
    counts = np.full((40, 60), 300, np.float32)
    counts[:, 30:] = 0.5
    image = RNG(0).normal(size=(1, 40, 60)).astype(np.float32)
    spread = local_mean(image, counts)[0]
    assert spread[:, :20].std() > 3 * spread[:, 45:].std()
    assert np.isfinite(local_mean(image, np.zeros_like(counts))).all()


def three_components(ds):
    """Maps, spectra and weights (pixels, energy) of three components, and their profiles."""
    first = select(pca(weight(ds), components=6), keep="1-3")
    maps, spectra = first.component_map.values[:3], first.component_spectrum.values[:3]
    g, h = first.weight_pixel.values, first.weight_energy.values
    return maps, spectra, g, h, profiles(maps, spectra, g, h, ds.counts.values.sum(2))


def test_profiles_have_the_noise_they_say():
    """Over many draws of one specimen: the spread of every rotated profile."""
    ds = phases((20, 22, 40), counts=800)
    maps, spectra, g, h, model = three_components(ds)
    expected = np.maximum(np.einsum("kyx,ke->yxe", maps, spectra) * g[..., None] * h, 0)
    variance = model.variance(local_mean(model.values, model.counts)) / model.counts
    draws, rng = [], RNG(3)
    total = ds.counts.values.sum()
    for _ in range(200):
        counts = rng.poisson(expected)
        means = counts / h @ spectra[1:].T / counts.sum(axis=2, keepdims=True)
        draws.append(np.sqrt(total) * means @ model.rotation)
    ratio = np.moveaxis(np.var(draws, axis=0), -1, 0) / variance
    assert ratio.mean() == pytest.approx(1, abs=0.08)
    phase = maps[1] > 0
    for where in (phase, ~phase):
        assert ratio[:, where].mean() == pytest.approx(1, abs=0.2)


def test_counts_that_a_pixel_and_its_neighbours_lack_are_still_rare():
    """Where no neighbour has any counts that carry a profile, one of them is no detail."""
    ds = phases((20, 22, 40), counts=2)
    *_, model = three_components(ds)
    known = model.counts > 0
    for k, slope in enumerate(model.fourth_slope):
        lowest = -model.fourth_constant[k] * slope / (slope @ slope)
        pilot = lowest[:, np.newaxis, np.newaxis] + np.zeros_like(model.values)
        carriers = model.carriers(pilot.astype(np.float32), np.ones_like(model.values))
        assert (carriers[k, known] < 0.5 * model.counts[known]).all()


# The stage --------------------------------------------------------------------------------------


@lru_cache
def few_counts(counts=2.0, seed=0):
    """Three phases and vacuum at few counts per pixel; most of the pixels of the last are empty."""
    y, x = np.mgrid[:80, :90]
    phase = (np.hypot(y - 30, x - 35) < 22) + 2 * (np.hypot(y - 60, x - 70) < 12)
    energy = 0.2 + 0.02 * np.arange(120)
    spectra = 1 + 20 * np.exp(
        -0.5 * ((energy - np.array([[0.5], [1.2], [2.0], [2.0]])) / 0.03) ** 2
    )
    spectra /= spectra.sum(axis=1, keepdims=True)
    thickness = np.where(x > 80, 0.05, 1 + 0.3 * np.sin(y / 20))
    expected = counts * thickness[..., None] * spectra[phase]
    drawn = RNG(seed).poisson(expected).astype(np.uint8)
    return cube(drawn).assign_coords(energy=("energy", energy, {"units": "keV"})), expected


@pytest.mark.parametrize("counts", [1.0, 3.0, 10.0])
def test_few_counts_are_enough(counts):
    """Maps of windows against their truth: as good as the Gaussian chosen by the answer."""
    ds, expected = few_counts(counts)
    found = denoise(ds, Denoise(components=20, select="spatial")).counts_denoised.values
    channels = [slice(10, 20), slice(45, 55), slice(85, 95)]
    for window in channels:
        truth, raw = (part[..., window].sum(axis=2) for part in (expected, ds.counts.values))
        best = min(
            np.sqrt(np.mean((ndimage.gaussian_filter(raw.astype(float), width) - truth) ** 2))
            for width in (1, 1.4, 2, 2.8, 4, 5.6, 8)
        )
        assert np.sqrt(np.mean((found[..., window].sum(axis=2) - truth) ** 2)) < 1.1 * best
    # Nothing is lost, and no pixel is left out for having no counts.
    assert found.sum() == pytest.approx(ds.counts.values.sum(), rel=0.02)
    empty = ds.counts.values.sum(axis=2) == 0
    assert empty.any() and (found.sum(axis=2)[empty] > 0).all()


def test_pixels_that_were_not_measured_are_filled():
    ds, expected = few_counts(10.0)
    errors = []
    for seed in (5, 6, 7):
        missing = RNG(seed).random(ds.counts.shape[:2]) < 0.3
        holes = ds.assign(
            counts=ds.counts.where(~missing[..., None], 0).astype(np.uint8),
            measured=(("y", "x"), (~missing).astype(np.int8)),
        )
        found = denoise(holes, Denoise(components=20, select="spatial")).counts_denoised.values
        square = (found - expected).sum(axis=2) ** 2
        errors.append([square[missing].mean(), square[~missing].mean()])
    of_missing, of_known = np.sqrt(np.mean(errors, axis=0))
    assert of_missing < 1.5 * of_known


@pytest.mark.slow
@pytest.mark.parametrize("counts", [300, 1000])
def test_error_falls(counts):
    """Root mean square error of the rebuilt counts, in units of Poisson noise."""
    expected = phantom(counts).expected_counts.values
    scale = np.sqrt(np.maximum(expected, 1e-6 * expected.max()))
    errors = []
    for shrinking in (False, True):
        rebuilt = denoised(counts, shrinking).counts_denoised.values
        errors.append(np.sqrt((((rebuilt - expected) / scale) ** 2).mean()))
    assert errors[1] < 0.75 * errors[0]


@pytest.mark.slow
def test_what_the_result_says():
    ds = denoised()
    kept = ds.component_keep.values == 1
    shrunk = ds.component_map_shrunk.values
    assert np.isnan(shrunk[~kept]).all() and np.isfinite(shrunk[kept]).all()
    assert kept_maps(ds).identical(ds.component_map_shrunk.isel(component=np.flatnonzero(kept)))
    share = ds.component_signal_kept.values
    assert share[0] == 1 and (share[kept][:3] > 0.5).all() and np.isnan(share[~kept]).all()
    noise = ds.component_map.values.std(axis=(1, 2))[kept]
    stddev = ds.component_map_shrunk_stddev.values[kept]
    assert np.isfinite(stddev).all()
    assert (np.median(stddev, axis=(1, 2))[3:] < 0.3 * noise[3:]).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
def test_errors_of_intensities_are_what_they_say():
    """Pulls of net counts against what the same estimator gives on the expected counts."""
    lines = {"Pb_La": LineSpec(4.374), "Cu_Ka": LineSpec(1.7)}
    shrunk, plain = (quantify(denoised(1000, shrinking), lines) for shrinking in (True, False))
    rows = shrunk.line_estimator.values
    true = np.moveaxis(phantom().expected_counts.values @ rows.T, -1, 0)
    pulls = ((shrunk.line_intensity - true) / shrunk.line_intensity_stddev).values
    covered = (np.abs(pulls) < 1.96).mean(axis=(1, 2))
    assert (covered > 0.9).all()
    ratio = shrunk.line_intensity_stddev / plain.line_intensity_stddev
    assert (ratio.median(dim=("y", "x")) < 0.9).all()


@pytest.mark.parametrize("counts", [3.0, 30.0])
def test_errors_of_totals_cover(counts):
    ds, expected = few_counts(counts)
    found = denoise(ds, Denoise(components=20, select="spatial"))
    total = found.counts_denoised.sum("energy").values
    pulls = (total - expected.sum(axis=2)) / found.total_stddev.values
    assert 0.88 < np.mean(np.abs(pulls) < 1.96) < 0.995


@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
def test_no_percent_is_sure_by_chance():
    """Covariances of averaged pixels are covariances, whatever the counts of the pixel are."""
    ds = few_counts(30.0)[0].isel(y=slice(36, 64), x=slice(48, 84))
    found = denoise(ds, Denoise(components=10, keep="1-3", image="none"))
    lines = {name: LineSpec(1.0) for name in ("O_Ka", "Mg_Ka", "P_Ka")}
    maps = quantify(found, lines, Quantify(intensities="windows"))
    covariance = np.moveaxis(pixel_covariance(maps, maps.line_intensity).values, (0, 1), (2, 3))
    least = np.linalg.eigvalsh(covariance.astype(float))
    assert (least[..., 0] > -1e-5 * least[..., -1]).all()
    np.testing.assert_allclose(
        np.diagonal(covariance, axis1=2, axis2=3).transpose(2, 0, 1),
        maps.line_intensity_stddev.values**2,
        rtol=1e-4,
    )


@pytest.mark.parametrize(("by_neighbours", "strength"), [(True, 0.35), (True, 2.0), (False, 1.0)])
def test_share_of_overfitting_is_that_of_the_truth(by_neighbours, strength):
    """Of components above the edge of the noise; at the edge it is up to twice as much."""
    shape, channels = (40, 50), 150
    rng = RNG(0)
    found, true = [], []
    for _ in range(4):
        # A smooth component, or one whose pixels are independent, in noise of variance 1.
        signal = rng.standard_normal(shape)
        if by_neighbours:
            signal = ndimage.gaussian_filter(signal, 4, mode="wrap")
        signal *= strength / signal.std()
        loading = rng.standard_normal(channels)
        loading /= np.linalg.norm(loading)
        data = signal[..., None] * loading + rng.standard_normal((*shape, channels))
        rows = data.reshape(-1, channels)
        meets = (
            np.stack([near_sums(plane) for plane in np.moveaxis(data, -1, 0)], axis=-1)
            if by_neighbours
            else data
        )
        vector = np.linalg.eigh(rows.T @ meets.reshape(rows.shape))[1][:, -1]
        scores = data @ vector
        smoothed = ndimage.gaussian_filter(scores, 3, mode="wrap") if by_neighbours else scores
        arguments = np.array([by_neighbours]), [slice(None)], channels / signal.size, channels
        found += list(overfit_shares(scores[None], smoothed[None], *arguments))
        # Noise in the smoothed map, less what each pixel contributes to itself.
        own = gaussian_line(3.0).max() ** 2 if by_neighbours else 1
        noise = np.vdot(smoothed, scores - signal * (loading @ vector)) - own * signal.size
        true.append(noise / np.vdot(smoothed, smoothed))
    assert np.mean(found) == pytest.approx(np.mean(true), rel=0.3)


def test_what_smoothing_lost_is_part_of_the_error():
    """Grains that were averaged away: the risk around them shows what the bootstrap does not."""
    rng = RNG(0)
    noisy = rng.normal(size=(1, 60, 60)).astype(np.float32)
    grains = np.zeros((60, 60), bool)
    grains[10:13, 10:13] = grains[40:43, 30:33] = True
    noisy[0, grains] += 6
    zero, one = np.zeros_like(noisy), np.ones_like(noisy)
    flat = Mixed(zero, one / 3600, one / 3600, np.zeros((1, 1, 1)))
    found = np.sqrt(error_variance(one / 3600, noisy, one[0], flat, one))[0]
    assert found[grains].mean() > 3
    far = ndimage.distance_transform_edt(~grains) > 14
    assert np.mean(found[far] > 0.02) < 0.01


@pytest.mark.parametrize("factor", [1, 3])
def test_noise_is_that_of_the_counts_however_small_the_map(factor):
    """Later components of few pixels are fitted to their noise: it is no larger for that."""
    ds = phases((22, 24, 60), counts=400)
    ds = ds.assign(counts=ds.counts * np.uint16(factor))
    assert noise_scale(pca(weight(ds), components=20)) == pytest.approx(factor, rel=0.15)


def test_errors_of_components_are_correlated():
    ds = denoise(phases((24, 30, 40), counts=400), Denoise(components=6, keep="1-3"))
    found = ds.component_error_correlation.values
    assert np.isnan(found[0]).all() and np.isnan(found[:, 3:]).all()
    part = found[1:3, 1:3]
    np.testing.assert_allclose(np.diagonal(part), 1, rtol=1e-4)
    assert part[0, 1] == pytest.approx(part[1, 0], abs=1e-6) and abs(part[0, 1]) <= 1


def test_pure_noise_becomes_flat():
    """A specimen of one composition: what is left of a noise component is next to nothing."""
    y, x = np.mgrid[:64, :64]
    thickness = 1 + 0.5 * np.sin(y / 9) * np.cos(x / 12)
    spectrum = 1 + 10 * np.exp(-0.5 * ((np.arange(60) - 20) / 3) ** 2)
    expected = 3 * thickness[..., None] * spectrum
    ds = weight(cube(RNG(0).poisson(expected)))
    ds = select(pca(ds, components=5), keep="1-3")
    found = shrink(ds)
    raw, shrunk = ds.component_map.values[1:3], found.component_map_shrunk.values[1:3]
    assert (shrunk.var(axis=(1, 2)) < 0.02 * raw.var(axis=(1, 2))).all()
    truth = expected.sum(axis=2)
    error, before = (
        np.mean((totals - truth) ** 2) for totals in (totals_of(found), ds.counts.values.sum(2))
    )
    assert error < 0.2 * before


def totals_of(ds):
    return reconstruct(ds).counts_denoised.values.sum(axis=2)


@pytest.mark.parametrize("roughness", [0.05, 0.2])
def test_rough_specimen_keeps_its_totals(roughness):
    """Thickness that changes from pixel to pixel is no noise."""
    rng = RNG(0)
    thickness = np.exp(roughness * rng.normal(size=(60, 60)))
    spectrum = 1 + 10 * np.exp(-0.5 * ((np.arange(60) - 20) / 3) ** 2)
    expected = 10 * thickness[..., None] * spectrum
    ds = weight(cube(rng.poisson(expected)))
    found = shrink(select(pca(ds, components=4), keep="1-2"))
    error, before = (
        np.mean((totals - expected.sum(2)) ** 2)
        for totals in (totals_of(found), ds.counts.values.sum(2))
    )
    assert error < 1.02 * before


def test_one_component_still_smooths_totals():
    ds, expected = few_counts(3.0)
    found = shrink(select(pca(weight(ds), components=4), keep="1"))
    raw = np.mean((ds.counts.values.sum(axis=2) - expected.sum(axis=2)) ** 2)
    assert np.mean((totals_of(found) - expected.sum(axis=2)) ** 2) < 0.1 * raw


def test_stacked_maps_do_not_mix(monkeypatch):
    """Each map of a stack is smoothed as if it were alone."""
    # But for the scale of the noise, which is that of all of them.
    monkeypatch.setattr(sys.modules[shrink.__module__], "noise_scale", lambda ds: 1.0)
    ds, _ = few_counts(30.0)
    stacked = weight(ds.assign_coords(area=("y", np.repeat([1, 2], [35, 45]))))
    chosen = select(pca(stacked, components=4), keep="1-2")
    other = chosen.copy(deep=True)
    other.component_map[1, 35:] *= -1
    first, second = (shrink(each).component_map_shrunk[:2, :35] for each in (chosen, other))
    np.testing.assert_allclose(first, second, rtol=1e-5)
    assert area_rows(chosen.area.values) == [slice(0, 35), slice(35, 80)]


def test_what_it_needs():
    ds = select(pca(weight(phases(), weighting="none"), components=4), keep="1-2")
    with pytest.raises(DataError, match="Poisson weights"):
        shrink(ds)
    ds = pca(weight(phases()), components=4)
    with pytest.warns(EdxdenoiseWarning, match="[Cc]omponent 1"):
        ds = select(ds, keep="2-3")
    with pytest.raises(DataError, match="component 1"):
        shrink(ds)


def test_lazy_counts_give_the_same():
    ds = phases((24, 30, 40), counts=400)
    plain = denoise(ds, Denoise(components=6, keep="1-3"))
    lazy = denoise(ds.chunk({"y": 5, "x": 7}), Denoise(components=6, keep="1-3"))
    np.testing.assert_allclose(
        lazy.component_map_shrunk, plain.component_map_shrunk, atol=1e-4, rtol=1e-3
    )


def test_another_choice_of_components_drops_smoothed_maps():
    ds = denoise(phases((24, 30, 40), counts=400), Denoise(components=6, keep="1-3"))
    again = reconstruct(select(ds, keep="1-4"))
    assert "component_map_shrunk" not in again and "total_stddev" not in again
    assert np.isfinite(again.counts_denoised).all() and "component_map_shrunk" in ds


@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
def test_components_of_rare_channels_are_no_error():
    """A zero peak and next to nothing else, as in two of the real files."""
    expected = np.full((16, 16, 60), 0.005)
    expected[..., 3:6] = 40
    ds = denoise(cube(RNG(0).poisson(expected)), Denoise(components=40, keep="1-30"))
    assert np.isfinite(ds.counts_denoised).all()
