"""Spatial shrinkage: against its formulas, against the truth of phantoms, and on noise alone."""

import json
import sys
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from helpers import cube, phases
from scipy.stats import chi2

from edxdenoise import Denoise, LineSpec, denoise, quantify, simulate
from edxdenoise.cube import kept_maps
from edxdenoise.decompose import pca
from edxdenoise.errors import DataError, EdxdenoiseWarning
from edxdenoise.preprocess import weight
from edxdenoise.quantification.estimators import line_weights
from edxdenoise.reconstruction import reconstruct
from edxdenoise.schema import COMPONENT_KEEP
from edxdenoise.selection import select
from edxdenoise.shrinkage import shrink, shrink_report
from edxdenoise.shrinkage.bootstrap import profile_errors
from edxdenoise.shrinkage.estimate import area_rows, shrink_profiles, shrink_totals
from edxdenoise.shrinkage.means import means, offsets
from edxdenoise.shrinkage.pilot import pilot, pilot_scale
from edxdenoise.shrinkage.profiles import profiles
from edxdenoise.shrinkage.trust import held_out

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


def plain_means(guide, noise, values, weights, area):
    """The formula as it stands."""
    rows, columns, depth = guide.shape
    result = values.copy()
    for y in range(rows):
        for x in range(columns):
            above, below = 0, 0
            for dy, dx in zip(*offsets()):
                j, i = y + dy, x + dx
                if not (0 <= j < rows and 0 <= i < columns) or area[j] != area[y]:
                    continue
                if weights[j, i] == 0:
                    continue
                d = ((guide[y, x] - guide[j, i]) ** 2 / (noise[y, x] + noise[j, i])).sum()
                w = weights[j, i] * np.exp(-max(d - chi2.ppf(0.99, depth), 0) / 2)
                above, below = above + w * values[j, i], below + w
            if weights[y, x] > 0:
                result[y, x] = above / below
    return result


@pytest.mark.parametrize("shape", [(14, 23, 2), (14, 5, 2), (7, 1, 1)])
def test_means_are_the_formula(shape):
    rng = RNG(0)
    guide, values = rng.normal(size=(2, *shape)).astype(np.float32)
    noise = rng.uniform(0.2, 1, shape).astype(np.float32)
    weights = rng.poisson(2, shape[:2]).astype(np.float32)
    area = (np.arange(shape[0]) > 5).astype(np.int64)
    found, variance, own = means(guide, noise, values, noise, weights, area, 0.99)
    plain = plain_means(*(a.astype(float) for a in (guide, noise, values, weights)), area)
    np.testing.assert_allclose(found, plain, rtol=2e-4, atol=2e-5)
    empty = weights == 0
    np.testing.assert_array_equal(found[empty], values[empty])
    assert (own[~empty] <= 1).all() and (variance[~empty] <= noise[~empty].max()).all()


def test_offsets_are_symmetric():
    y, x = offsets()
    assert (y[0], x[0]) == (0, 0)
    steps = set(zip(y.tolist(), x.tolist()))
    assert len(steps) == len(y) and {(-a, -b) for a, b in steps} == steps


@pytest.mark.parametrize("waves", [0, 3])
def test_pilot_has_the_least_true_error(waves):
    """Stein's estimate chooses a width as good as the best, to within a tenth."""
    module = sys.modules[pilot.__module__]
    rng = RNG(1)
    y, x = np.mgrid[:80, :90]
    truth = np.sin(y / 80 * waves * 6) + np.cos(x / 90 * waves * 6)
    counts = rng.poisson(40, truth.shape).astype(float)
    variance = 20.0 / counts
    noisy = truth + rng.normal(size=truth.shape) * np.sqrt(variance)
    areas = area_rows(np.arange(80) > 30)

    def error(smooth):
        return float((counts * (smooth - truth) ** 2).mean())

    smooth, _ = pilot(noisy, variance, counts, areas)
    with pytest.MonkeyPatch.context() as patch:
        errors = []
        for scale in module.SCALES[1:]:
            patch.setattr(module, "SCALES", (0.0, scale))
            errors.append(error(pilot(noisy, variance, counts, areas)[0]))
    assert error(smooth) <= 1.1 * min(errors) < error(noisy)


def test_pilot_tells_its_noise():
    rng = RNG(2)
    counts = rng.poisson(40, (120, 120)).astype(float)
    variance = 20.0 / counts
    noisy = rng.normal(size=counts.shape) * np.sqrt(variance)
    areas = [slice(0, 120)]
    assert pilot_scale(noisy, variance, counts, areas) == 4.0
    smooth, noise = pilot(noisy, variance, counts, areas)
    assert np.mean(smooth**2 / noise) == pytest.approx(1, abs=0.25)


def test_profiles_have_the_noise_they_say():
    """Over many draws of one specimen: the spread of every rotated profile."""
    ds = phases((20, 22, 40), counts=800)
    first = select(pca(weight(ds), components=6), keep="1-3")
    spectra = first.component_spectrum.values[:3]
    g, h = first.weight_pixel.values, first.weight_energy.values
    expected = np.maximum(
        np.einsum("kyx,ke->yxe", first.component_map.values[:3], spectra) * g[..., None] * h, 0
    )
    filled = np.ones(g.shape, bool)
    model = profiles(first.component_map.values[:3], spectra, g, h, filled)
    draws = []
    rng = RNG(3)
    for _ in range(200):
        counts = rng.poisson(expected)
        means = counts / h @ spectra[1:].T / counts.sum(axis=2, keepdims=True)
        draws.append(means @ np.linalg.inv(model.back))
    spread = np.var(draws, axis=0) * model.scale
    ratio = spread / model.variance
    assert ratio.mean() == pytest.approx(1, abs=0.06)
    # Each phase has its own: the smoothed model follows.
    phase = first.component_map.values[1] > 0
    for where in (phase, ~phase):
        assert ratio[where].mean() == pytest.approx(1, abs=0.15)


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
    report = shrink_report(ds)
    assert report == json.loads(ds.attrs["shrinkage"]) and report["used"]
    assert report["held_out_ratio"] < 0.3
    share = ds.component_signal_kept.values
    assert share[0] == 1 and (share[kept] > 0.5).all() and np.isnan(share[~kept]).all()
    noise = ds.component_map.values.std(axis=(1, 2))[kept]
    stddev = ds.component_map_shrunk_stddev.values[kept]
    assert (
        np.isfinite(stddev).all() and (np.median(stddev, axis=(1, 2))[3:] < 0.3 * noise[3:]).all()
    )
    if not report["totals_shrunk"]:
        totals = ds.counts_denoised.values.sum(axis=2)
        np.testing.assert_allclose(totals, ds.counts.values.sum(axis=2), rtol=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:Net counts are negative", "ignore:Possible bias", "ignore:No line is detected"
)
def test_errors_of_intensities_are_what_they_say():
    """Pulls of net counts against what the same windows give on the expected counts."""
    lines = {"Pb_La": LineSpec(4.374), "Cu_Ka": LineSpec(1.7)}
    shrunk, plain = (quantify(denoised(1000, shrinking), lines) for shrinking in (True, False))
    rows = line_weights(shrunk, lines).estimators
    true = np.moveaxis(phantom().expected_counts.values @ rows.T, -1, 0)
    pulls = ((shrunk.line_intensity - true) / shrunk.line_intensity_stddev).values
    covered = (np.abs(pulls) < 1.96).mean(axis=(1, 2))
    assert (covered > 0.9).all() and (covered < 0.99).all()
    ratio = shrunk.line_intensity_stddev / plain.line_intensity_stddev
    assert (ratio.median(dim=("y", "x")) < 0.9).all()
    # Sums over regions rest on the counts of the region, whatever was averaged within it.
    sums = [each.line_intensity_covariance.sum(("y", "x")).values for each in (shrunk, plain)]
    np.testing.assert_allclose(np.diag(sums[0]), np.diag(sums[1]), rtol=0.1)


@lru_cache
def two_phases(counts=300):
    """A disc in a matrix: profiles, their truth, and the Dataset they are of."""
    rng = RNG(5)
    y, x = np.mgrid[:60, :70]
    inside = ((y - 30) ** 2 + (x - 35) ** 2 < 300)[..., None]
    spectra = 1 + 10 * np.exp(-0.5 * ((np.arange(60) - np.array([[20], [24]])) / 3) ** 2)
    spectra *= counts / spectra.sum(axis=1, keepdims=True)
    expected = np.where(inside, spectra[0], spectra[1])
    ds = select(pca(weight(cube(rng.poisson(expected))), components=20), keep="1-2")
    g, h = ds.weight_pixel.values, ds.weight_energy.values
    loadings = ds.component_spectrum.values[:2]
    noisy = profiles(ds.component_map.values[:2], loadings, g, h, np.ones(g.shape, bool))
    truth = (expected / h @ loadings[1:].T) / counts @ np.linalg.inv(noisy.back)
    return ds, noisy, truth


def test_held_out_halves_tell_the_true_error():
    ds, noisy, truth = two_phases()
    shrunk = shrink_profiles(noisy, np.zeros(60, np.int64))
    true = np.mean((shrunk.values - truth) ** 2) / noisy.variance.mean()
    for counts in (ds.counts, ds.counts * 1.0):
        ratio, stddev = held_out([(ds.assign(counts=counts), noisy)])[0].ratio
        # Half of the counts are shrunk, which have more to gain.
        assert ratio == pytest.approx(true, abs=3 * stddev + 0.02)


def test_better_components_are_taken():
    """Component 2 tells the phases apart, 3 is noise: held-out counts see which is which."""
    ds, _, _ = two_phases()
    good, bad = (select(ds, keep=keep) for keep in ("1-2", "1,3"))
    taken = shrink(bad, instead=good)
    np.testing.assert_array_equal(taken.component_keep, good.component_keep)
    assert not shrink_report(taken)["gain_used"] and shrink_report(taken)["gain"] < 0
    stays = shrink(good, instead=bad)
    np.testing.assert_array_equal(stays.component_keep, good.component_keep)
    assert shrink_report(stays)["gain_used"] and shrink_report(stays)["gain"] > 0
    np.testing.assert_allclose(stays.component_map_shrunk, taken.component_map_shrunk)
    assert "gain" not in shrink_report(shrink(good))


def test_bootstrap_covers_the_truth():
    _, noisy, truth = two_phases()
    area = np.zeros(60, np.int64)
    shrunk = shrink_profiles(noisy, area)
    pulls = (shrunk.values - truth) / np.sqrt(profile_errors(noisy, shrunk, area))
    assert 0.9 < np.mean(np.abs(pulls) < 1.96)
    # A pixel at the edge may have moved by more than the noise of its mean.
    naive = (shrunk.values - truth) / np.sqrt(shrunk.variance)
    assert np.mean(pulls**2) < min(np.mean(naive**2), 2)


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
    report = shrink_report(found)
    assert report["totals_shrunk"] and report["chi2_totals"] <= 1
    truth = expected.sum(axis=2)
    totals = shrunk_totals(found)
    assert np.mean((totals - truth) ** 2) < 0.2 * np.mean((ds.counts.values.sum(2) - truth) ** 2)


def shrunk_totals(ds):
    return reconstruct(ds).counts_denoised.values.sum(axis=2)


@pytest.mark.parametrize("roughness", [0.05, 0.2])
def test_rough_specimen_keeps_its_totals(roughness):
    """Thickness that changes from pixel to pixel is no noise."""
    rng = RNG(0)
    thickness = np.exp(roughness * rng.normal(size=(60, 60)))
    spectrum = 1 + 10 * np.exp(-0.5 * ((np.arange(60) - 20) / 3) ** 2)
    ds = weight(cube(rng.poisson(10 * thickness[..., None] * spectrum)))
    found = shrink(select(pca(ds, components=4), keep="1-2"))
    report = shrink_report(found)
    assert max(report["chi2_totals"], report["held_out_ratio_totals"]) > 1
    assert not report["totals_shrunk"]
    np.testing.assert_allclose(shrunk_totals(found), ds.counts.values.sum(2), rtol=1e-3)


def test_bands_change_nothing(monkeypatch):
    _, noisy, _ = two_phases()
    area = np.repeat([1, 2], [25, 35])
    whole = shrink_profiles(noisy, area)
    totals = shrink_totals(noisy, whole, area, noisy.counts)
    monkeypatch.setattr(sys.modules["edxdenoise.shrinkage.bands"], "_PIXELS", 70 * 7)
    banded = shrink_profiles(noisy, area)
    for ours, theirs in zip((whole.values, whole.variance, whole.own), vars(banded).values()):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(totals, shrink_totals(noisy, whole, area, noisy.counts), rtol=1e-6)


@pytest.mark.slow
def test_stacked_maps_do_not_mix():
    """Two maps of other composition: shrunk as a stack or one without the other's pixels."""
    rng = RNG(0)
    spectra = 1 + 10 * np.exp(-0.5 * ((np.arange(60) - np.array([[20], [24]])) / 3) ** 2)
    expected = np.repeat(spectra[:, None], 20, axis=1)[:, :, None] * np.ones((2, 20, 40, 1))
    ds = cube(rng.poisson(3 * expected.reshape(40, 40, 60)))
    ds = ds.assign_coords(area=("y", np.repeat([1, 2], 20)))
    ds = select(pca(weight(ds), components=4), keep="1-2")
    noisy = profiles(
        ds.component_map.values[:2], ds.component_spectrum.values[:2], ds.weight_pixel.values,
        ds.weight_energy.values, np.ones((40, 40), bool),
    )  # fmt: skip
    area = np.repeat([1, 2], 20)
    other = noisy.values.copy()
    other[20:] += 1
    first = shrink_profiles(noisy, area).values
    second = shrink_profiles(replace(noisy, values=other), area).values
    # Only the width of the pilot, which is of the whole map, could tell.
    np.testing.assert_allclose(first[:20], second[:20], atol=0.05 * np.abs(first).max())


def test_what_it_needs():
    ds = select(pca(weight(phases(), weighting="none"), components=4), keep="1-2")
    with pytest.raises(DataError, match="Poisson weights"):
        shrink(ds)
    ds = pca(weight(phases()), components=4)
    with pytest.warns(EdxdenoiseWarning, match="component 1"):
        ds = select(ds, keep="2-3")
    with pytest.raises(DataError, match="component 1"):
        shrink(ds)
    assert COMPONENT_KEEP.name in ds


def test_lazy_counts_give_the_same():
    ds = phases((24, 30, 40), counts=400)
    plain = denoise(ds, Denoise(components=6, keep="1-3"))
    lazy = denoise(ds.chunk({"y": 5, "x": 7}), Denoise(components=6, keep="1-3"))
    np.testing.assert_allclose(
        lazy.component_map_shrunk, plain.component_map_shrunk, atol=1e-4, rtol=1e-3
    )


def test_counts_that_are_not_whole_are_judged_as_well():
    ds = phases((24, 30, 40), counts=400)
    scaled = ds.assign(counts=ds.counts * 1.5)
    found = denoise(scaled, Denoise(components=6, keep="1-3"))
    assert shrink_report(found)["used"]


def test_another_choice_of_components_starts_anew():
    ds = denoise(phases((24, 30, 40), counts=400), Denoise(components=6, keep="1-3"))
    before = ds.attrs["shrinkage"]
    again = reconstruct(select(ds, keep="1-4"))
    assert "component_map_shrunk" not in again and "shrinkage" not in again.attrs
    assert np.isfinite(again.counts_denoised).all()
    assert ds.attrs["shrinkage"] == before and "component_map_shrunk" in ds


@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
def test_components_of_rare_channels_are_no_error():
    """A zero peak and next to nothing else, as in two of the real files."""
    expected = np.full((16, 16, 60), 0.005)
    expected[..., 3:6] = 40
    ds = denoise(cube(RNG(0).poisson(expected)), Denoise(components=40, keep="1-30"))
    assert np.isfinite(ds.counts_denoised).all()
    assert np.isfinite(shrink_report(ds)["held_out_ratio"])
