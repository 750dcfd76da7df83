"""Phantoms: dose, Poisson noise, truth, features of each preset, laziness, wrong input."""

import importlib
import tracemalloc
from types import ModuleType

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from edxdenoise.errors import ParameterError
from edxdenoise.schema import COUNTS, validate
from edxdenoise.simulation import (
    EXPECTED_COUNTS,
    PHASE_MAP,
    PHASE_SPECTRUM,
    PRESETS,
    STRAY_PHASE,
    TRUE_ATOMIC_PERCENT,
    TRUE_WEIGHT_PERCENT,
    simulate,
)
from edxdenoise.simulation.geometry import (
    add_spheres,
    boundaries,
    grains,
    layer_shares,
    scatter,
    smooth_field,
    split_rows,
)
from edxdenoise.simulation.phantom import count_dtype
from edxdenoise.simulation.spectrum import MATERIALS
from edxdenoise.xray import line_energy

SMALL = {"shape": (40, 48), "channels": 160}
ALL = sorted(PRESETS)


def test_public_names():
    # The package edxdenoise has a function of the same name.
    module = importlib.import_module("edxdenoise.simulation")
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert set(module.__all__) == public


@pytest.mark.parametrize("preset", ALL)
@pytest.mark.parametrize(("shape", "channels"), [((24, 33), 100), ((66, 100), 160)])
def test_preset_has_the_dose_and_a_consistent_truth(preset, shape, channels):
    ds = simulate(preset, shape=shape, channels=channels, counts_per_pixel=200, seed=3)
    validate(
        ds,
        COUNTS,
        EXPECTED_COUNTS,
        PHASE_MAP,
        PHASE_SPECTRUM,
        TRUE_ATOMIC_PERCENT,
        TRUE_WEIGHT_PERCENT,
    )
    pixels = shape[0] * shape[1]
    counts = ds.counts.values.astype(float)
    expected = ds.expected_counts.values.astype(float)
    assert ds.counts.dtype == np.uint8 or ds.counts.dtype == np.uint16
    assert counts.shape == (*shape, channels)

    # The dose, exactly in the expectation and within four standard deviations in the counts.
    assert expected.sum() / pixels == pytest.approx(200, rel=1e-5)
    assert counts.sum() == pytest.approx(200 * pixels, abs=4 * np.sqrt(200 * pixels))

    # The expectation is phases times spectra.
    rebuilt = np.einsum("pyx,pe->yxe", ds.phase_map.values, ds.phase_spectrum.values)
    np.testing.assert_allclose(expected, rebuilt, rtol=1e-4, atol=1e-6)

    # Poisson: the variance is the expectation, channel by channel and pixel by pixel.
    seen = expected > 0.05
    chi2 = (counts[seen] - expected[seen]) ** 2 / expected[seen]
    error = np.sqrt((2 + 1 / expected[seen]).sum()) / seen.sum()
    assert chi2.mean() == pytest.approx(1, abs=5 * error)
    # and noise of neighbours is independent.
    residual = (counts.sum(axis=2) - expected.sum(axis=2)) / np.sqrt(expected.sum(axis=2))
    for axis in (0, 1):
        lag = np.corrcoef(
            np.delete(residual, -1, axis).ravel(), np.delete(residual, 0, axis).ravel()
        )[0, 1]
        assert abs(lag) < 5 / np.sqrt(pixels)

    # Compositions add up wherever there is a specimen.
    for truth in (ds.true_atomic_percent.values, ds.true_weight_percent.values):
        there = np.isfinite(truth).all(axis=0)
        assert there.mean() > 0.5
        np.testing.assert_allclose(truth.sum(axis=0)[there], 100, rtol=1e-5)
        assert truth[:, there].min() >= 0
    assert (ds.phase_map.values >= 0).all()
    assert (ds.phase_spectrum.values >= 0).all()


@pytest.mark.parametrize("preset", ALL)
def test_dataset_describes_itself(preset):
    ds = simulate(preset)
    definition = PRESETS[preset]
    assert ds.counts.shape == (*definition.shape, definition.channels)
    for dim, units in (("y", "nm"), ("x", "nm"), ("energy", "keV")):
        assert ds[dim].attrs["units"] == units
    assert ds.attrs["instrument"] in ("TEM", "SEM")
    assert ds.attrs["beam_energy"] in (20.0, 200.0)
    assert 10 < ds.attrs["take_off_angle"] < 50
    assert 120 < ds.attrs["detector_resolution"] < 140
    assert ds.attrs["live_time"] > 0
    assert set(ds.element.values) <= set(ds.attrs["elements"])
    # Every phase, every element is somewhere.
    assert (ds.phase_map.max(("y", "x")) > 0).all()
    # Attributes are the keywords that make the same again.
    small = simulate(preset, shape=(24, 24), channels=110, counts_per_pixel=7, seed=3)
    keywords = {
        name.removeprefix("simulated_"): value
        for name, value in small.attrs.items()
        if name.startswith("simulated_")
    }
    xr.testing.assert_identical(simulate(**keywords), small)


def test_composition_is_that_of_the_phase():
    ds = simulate("mineral", shape=(64, 64), channels=100)
    share = ds.phase_map / ds.phase_map.sum("phase")
    quartz = share.sel(phase="quartz").values > 0.9999
    assert quartz.sum() > 5
    atoms = ds.true_atomic_percent.sel(element="Si").values[quartz]
    np.testing.assert_allclose(atoms, 100 / 3, rtol=1e-3)
    mass = ds.true_weight_percent.sel(element="Si").values[quartz]
    np.testing.assert_allclose(mass, 46.74, rtol=1e-3)


def test_line_intensity_follows_the_composition():
    ds = simulate("solar-cell", shape=(66, 100), counts_per_pixel=1e5)
    window = np.abs(ds.energy.values - line_energy("Pb_La")) < 0.17
    lead = ds.expected_counts.values[:, :, window].sum(axis=2)
    mass = (
        ds.phase_map.values
        * np.array(
            [
                MATERIALS[name].weight_fractions().get("Pb", 0) if name in MATERIALS else 0
                for name in ds.phase.values
            ]
        )[:, None, None]
    ).sum(axis=0)
    assert np.corrcoef(lead.ravel(), mass.ravel())[0, 1] > 0.995


@pytest.mark.parametrize("blocks", [(1, 32), (7, 64), (40, 500), (3, 70), (5, 10)])
def test_counts_do_not_depend_on_the_blocks(blocks):
    reference = simulate("solar-cell", shape=(40, 100), channels=60, seed=5)
    ds = simulate("solar-cell", shape=(40, 100), channels=60, seed=5, blocks=blocks)
    assert ds.counts.chunks[:2] != reference.counts.chunks[:2] or blocks == (40, 500)
    np.testing.assert_array_equal(ds.expected_counts.values, reference.expected_counts.values)
    np.testing.assert_array_equal(ds.counts.values, reference.counts.values)
    np.testing.assert_array_equal(
        ds.counts[11:13, 40:50, ::7].values, reference.counts.values[11:13, 40:50, ::7]
    )


def test_seed_gives_geometry_and_noise():
    first, same, other = (
        simulate("solar-cell", **SMALL, seed=seed).compute() for seed in (1, 1, 2)
    )
    xr.testing.assert_identical(first, same)
    assert not np.array_equal(first.phase_map, other.phase_map)
    brighter = simulate("solar-cell", **SMALL, seed=1, counts_per_pixel=4000)
    np.testing.assert_array_equal(first.phase_map, brighter.phase_map)
    np.testing.assert_allclose(4 * first.phase_spectrum, brighter.phase_spectrum, rtol=1e-5)


def test_energy_axis_follows_what_is_given():
    default = simulate("solar-cell", shape=(16, 16))
    np.testing.assert_allclose(default.energy.values[[0, -1]], [0.01, 12.99])
    coarse = simulate("solar-cell", shape=(16, 16), channels=130)
    np.testing.assert_allclose(coarse.energy.values[[0, -1]], [0.05, 12.95])
    fine = simulate("solar-cell", shape=(16, 16), energy_width=0.005)
    assert fine.sizes["energy"] == 2600
    both = simulate("solar-cell", shape=(16, 16), energy_width=0.01, channels=2048)
    np.testing.assert_allclose(both.energy.values[-1], 20.475)
    # Channels summed by four are the wider channels, but for the rounding of the discriminator.
    summed = fine.phase_spectrum.values.reshape(-1, 650, 4).sum(axis=2)
    np.testing.assert_allclose(summed[:, 20:], default.phase_spectrum.values[:, 20:], rtol=2e-2)


def test_pixel_size_keeps_the_field_of_view():
    full, small = simulate("solar-cell"), simulate("solar-cell", shape=(66, 100))
    assert full.y.values[1] == 10.0
    assert small.y.values[1] == small.x.values[1] == 50.0


# --- the solar cell -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def solar():
    return simulate("solar-cell", seed=0)


def amount(ds, phase):
    return ds.phase_map.sel(phase=phase)


def test_solar_cell_is_a_stack_of_two_control_and_two_treated_areas(solar):
    labels = solar.area.attrs["area_label"]
    assert solar.area.dims == ("y",)
    assert solar.area.dtype.kind == "i"
    assert [label.split()[0] for label in labels] == ["control"] * 2 + ["treated"] * 2
    rows = np.bincount(solar.area.values)[1:]
    assert rows.sum() == 330 and set(rows) == {82, 83}
    assert (np.diff(solar.area.values) >= 0).all()
    # In each: copper over PCBM over perovskite over ITO.
    film = solar.phase_map.sel(phase=[p for p in solar.phase.values if "MAPbI3" in p]).sum("phase")
    for _, part in solar.assign(film=film).groupby("area"):
        depths = [
            np.average(np.arange(part.sizes["y"]), weights=layer.sum("x"))
            for layer in (amount(part, "Cu"), amount(part, "PCBM"), part.film, amount(part, "ITO"))
        ]
        assert depths == sorted(depths)


def test_lead_iodide_is_in_the_control_only_as_small_grains(solar):
    from scipy import ndimage

    lead_iodide = amount(solar, "PbI2")
    per_area = lead_iodide.groupby("area").sum(("y", "x")).values
    assert (per_area[:2] > 0).all() and (per_area[2:] == 0).all()
    labels, number = ndimage.label(lead_iodide.values > 0)
    radii = np.sqrt(np.bincount(labels.ravel())[1:] / np.pi)
    assert number > 20
    assert np.median(radii) < 5 and radii.min() < 3
    # It lies in the film, where iodine per lead falls.
    atoms = solar.true_atomic_percent.sel(element=["I", "Pb"]).compute()
    ratio = (atoms.sel(element="I") / atoms.sel(element="Pb")).values
    assert np.nanmedian(ratio[lead_iodide.values > lead_iodide.values.max() * 0.7]) < 2.6


def test_nitrogen_is_poor_under_the_pcbm_of_the_control(solar):
    poor = amount(solar, "MAPbI3 N-poor")
    assert (poor.where(solar.area > 2, drop=True) == 0).all()
    thick = (poor > 0.3 * poor.max()).where(solar.area == 1, drop=True).sum("y")
    assert 2 <= thick.median() <= 8
    depth = np.arange(330)[:, None]
    for area in (1, 2):
        here = (solar.area == area).values[:, None]
        strip = np.average(depth + 0 * poor.values, weights=poor.values * here)
        pcbm = np.average(depth + 0 * poor.values, weights=amount(solar, "PCBM").values * here)
        film = np.average(
            depth + 0 * poor.values, weights=amount(solar, "MAPbI3 control").values * here
        )
        assert pcbm < strip < film
    atoms = solar.true_atomic_percent.sel(element=["N", "Pb"]).compute()
    ratio = (atoms.sel(element="N") / atoms.sel(element="Pb")).where(solar.area <= 2, drop=True)
    share = (poor / solar.phase_map.isel(phase=slice(0, -1)).sum("phase")).where(
        solar.area <= 2, drop=True
    )
    assert np.nanmedian(ratio.where(share > 0.7)) < 0.75 * 0.89


def test_treated_film_has_more_carbon_and_nitrogen(solar):
    film = solar.phase_map.sel(phase=["MAPbI3 control", "MAPbI3 treated"]).sum("phase")
    inside = film / solar.phase_map.isel(phase=slice(0, -1)).sum("phase") > 0.999
    atoms = solar.true_atomic_percent.where(inside).compute()
    per_lead = (atoms / atoms.sel(element="Pb")).groupby("area").mean(("y", "x"))
    for element in ("C", "N"):
        control = per_lead.sel(element=element, area=[1, 2])
        treated = per_lead.sel(element=element, area=[3, 4])
        assert 1.1 < (treated.mean() / control.mean()) < 1.25


def test_one_damaged_spot(solar):
    from scipy import ndimage

    damaged = amount(solar, "MAPbI3 damaged")
    assert (damaged.where(solar.area < 4, drop=True) == 0).all()
    core = damaged.values > 0.5 * damaged.values.max()
    assert ndimage.label(core)[1] == 1
    atoms = solar.true_atomic_percent.compute()
    bottom = amount(solar, "MAPbI3 treated").where(solar.area == 4)
    around = ((bottom > 0.9 * bottom.quantile(0.9)) & (damaged < 1e-6)).values
    spot, film = (
        {element: atoms.sel(element=element).values[where].mean() for element in ("C", "N", "I")}
        for where in (core, around)
    )
    assert spot["C"] > 1.5 * film["C"]
    assert spot["N"] < 0.5 * film["N"]
    assert spot["I"] < 0.8 * film["I"]


def test_stray_copper_is_everywhere(solar):
    spectrum = solar.phase_spectrum.sel(phase=STRAY_PHASE)
    assert (amount(solar, STRAY_PHASE) > 0).all()
    assert solar.energy.values[spectrum.values.argmax()] == pytest.approx(8.046, abs=0.02)
    share = float(spectrum.sum()) * float(amount(solar, STRAY_PHASE).mean()) / 1000
    assert share == pytest.approx(0.06, abs=0.002)


@pytest.mark.slow
def test_signal_hides_behind_noise_of_high_variance():
    """The article's finding: after the four layers come noise components, then weak signal."""
    ds = simulate("solar-cell", counts_per_pixel=1000, seed=0)
    counts = ds.counts.values.reshape(-1, 650).astype(np.float32)
    weights = np.sqrt(counts.sum(axis=1))[:, None] * np.maximum(np.sqrt(counts.sum(axis=0)), 1)
    weighted = counts / weights
    _, vectors = np.linalg.eigh((weighted.T @ weighted).astype(float))
    leading = vectors[:, ::-1][:, :14].astype(np.float32)
    del weighted
    expected = ds.expected_counts.values.reshape(-1, 650)
    truth, scores = (expected / weights) @ leading, (counts / weights) @ leading
    agreement = [abs(np.corrcoef(truth[:, k], scores[:, k])[0, 1]) for k in range(14)]
    assert min(agreement[:4]) > 0.98
    assert max(agreement[4:6]) < 0.2
    assert 0.3 < max(agreement[6:12]) < 0.9


# --- the other presets --------------------------------------------------------------------------


def test_core_is_inside_its_shell():
    ds = simulate("core-shell", channels=64)
    core, shell = amount(ds, "FePt").values, amount(ds, "Fe3O4").values
    assert (shell[core > 0] > 0).all()
    assert (shell > 0).sum() > 1.3 * (core > 0).sum()


def test_nanoparticles_have_vacuum_and_rare_small_particles():
    ds = simulate("nanoparticles", channels=64)
    empty = np.isnan(ds.true_atomic_percent.values).all(axis=0)
    assert 0.01 < empty.mean() < 0.2
    assert 0 < (amount(ds, "Pd") > 0).mean() < 0.01


def test_gradient_falls_steadily():
    ds = simulate("layers-gradient", channels=64)
    germanium = ds.true_atomic_percent.sel(element="Ge").mean("x").values
    ramp = germanium[85:165]
    assert (np.diff(ramp) < 0).all()
    assert ramp[0] > 30 and ramp[-1] < 6
    arsenic = ds.true_atomic_percent.sel(element="As")
    assert 0.3 < arsenic.max() < 2


def test_feldspar_is_zoned():
    ds = simulate("mineral", channels=64)
    both = amount(ds, "albite") + amount(ds, "anorthite")
    share = (amount(ds, "anorthite") / both).where(both > 0.9)
    assert share.std() > 0.1


# --- laziness -----------------------------------------------------------------------------------


def test_nothing_of_the_size_of_the_cube_is_made():
    simulate("solar-cell", shape=(16, 16), channels=32)
    tracemalloc.start()
    ds = simulate("solar-cell", shape=(512, 512), channels=2048)
    block = ds.counts[:2].compute()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    for name in ("counts", "expected_counts", "true_atomic_percent", "true_weight_percent"):
        assert isinstance(ds[name].data, da.Array)
    assert ds.counts.chunks[2] == (2048,)
    assert block.shape == (2, 512, 2048)
    # The cube as float32 is 2.1 GB.
    assert peak < 300e6


# --- wrong input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "solarcell"}, "preset 'solarcell' is not known; allowed are solar-cell, nano"),
        ({"shape": (4, 100)}, r"shape is \(4, 100\), must be .* at least 8"),
        ({"shape": (64,)}, r"shape is \(64,\), must be"),
        ({"shape": (64.5, 64)}, "must be"),
        ({"channels": 3}, "channels is 3, must be .* at least 16"),
        ({"channels": 100.5}, "channels is 100.5"),
        ({"energy_width": 0.0}, "energy_width is 0.0 keV, must be more than 0"),
        ({"energy_width": 9.0}, "channels is 1, must be"),
        ({"channels": 16, "energy_width": 0.01}, "16 channels of 0.01 keV end at 0.16 keV, must"),
        ({"counts_per_pixel": 0}, "counts_per_pixel is 0, must be more than 0"),
        ({"counts_per_pixel": -5.0}, "counts_per_pixel is -5.0"),
        ({"counts_per_pixel": np.inf}, "counts_per_pixel is inf"),
        ({"seed": -1}, "seed is -1, must be"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"blocks": (0, 32)}, r"blocks are \(0, 32\)"),
    ],
)
def test_wrong_input_is_named_with_what_is_allowed(arguments, message):
    with pytest.raises(ParameterError, match=message) as caught:
        simulate(**arguments)
    assert "\n" not in str(caught.value)


# --- geometry -----------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(1, 5), st.floats(0.1, 10))
def test_layer_shares_fill_each_pixel(seed, rows, layers, roughness):
    rng = np.random.default_rng(seed)
    interfaces = rng.uniform(-2, rows + 2, (layers, 1)) + roughness * rng.standard_normal(
        (layers, 6)
    )
    shares = layer_shares(interfaces, rows)
    assert shares.shape == (layers + 1, rows, 6)
    assert shares.min() >= 0
    np.testing.assert_allclose(shares.sum(axis=0), 1)


def test_smooth_field_is_standard_and_smooth():
    field = smooth_field(np.random.default_rng(0), (128, 128), 5)
    assert field.mean() == pytest.approx(0, abs=1e-12)
    assert field.std() == pytest.approx(1)
    # Gaussian smoothing with s gives the autocorrelation exp(-d^2 / 4 s^2).
    lag = (field[5:] * field[:-5]).mean()
    assert lag == pytest.approx(np.exp(-25 / 100), abs=0.1)
    assert (smooth_field(np.random.default_rng(0), (8,), 100) == 0).all()


def test_grains_fill_the_map():
    labels, distance = grains(np.random.default_rng(0), (60, 80), 10)
    assert labels.shape == distance.shape == (60, 80)
    assert np.array_equal(np.unique(labels), np.arange(48))
    assert (distance == 0).sum() == 48
    assert 0.05 < boundaries(labels).mean() < 0.5


def test_sphere_has_its_volume():
    target = np.zeros((60, 60))
    add_spheres(target, np.array([[30.3, 29.6]]), np.array([12.0]))
    assert target.sum() == pytest.approx(4 / 3 * np.pi * 12**3, rel=0.01)
    assert target.max() == pytest.approx(24, rel=0.01)
    # One that lies half outside is cut, not wrapped.
    add_spheres(target := np.zeros((60, 60)), np.array([[0.0, 30.0]]), np.array([10.0]))
    assert target[40:].sum() == 0


def test_scattered_discs_keep_apart_where_there_is_room():
    radii = np.full(12, 5.0)
    centres = scatter(np.random.default_rng(0), (200, 200), radii)
    gaps = np.hypot(*(centres[:, None] - centres[None]).T)[np.triu_indices(12, 1)]
    assert gaps.min() > 10
    assert centres.min() >= 0 and centres.max() < 200


def test_rows_are_split_evenly():
    for rows, parts in ((330, 4), (8, 4), (9, 4)):
        sizes = np.bincount(split_rows(rows, parts))[1:]
        assert sizes.sum() == rows and len(sizes) == parts and np.ptp(sizes) <= 1


@given(st.floats(0.01, 1e6))
def test_counts_fit_their_type(largest):
    dtype = count_dtype(np.ones((1, 2, 2), np.float32), np.array([[largest, 0]], np.float32))
    assert largest + 9 * np.sqrt(largest) < np.iinfo(dtype).max
