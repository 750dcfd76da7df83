"""Tables of regions and differences between areas."""

import numpy as np
import pandas as pd
import pytest
from helpers import nothing_computed

from edxdenoise import quantify, simulate
from edxdenoise.config import Quantify
from edxdenoise.cube import make_cube
from edxdenoise.errors import ParameterError
from edxdenoise.quantification import LineSpec, cliff_lorimer
from edxdenoise.quantification.lines import record_lines
from edxdenoise.quantification.region_table import bin_ratio, compare_groups, region_table
from edxdenoise.quantification.regions import area_regions, similar_pixels, sum_regions
from edxdenoise.schema import (
    LINE_DETECTED,
    LINE_ESTIMATOR,
    LINE_INTENSITY,
    LINE_INTENSITY_COVARIANCE,
)
from edxdenoise.simulation.truth import true_k_factors
from edxdenoise.xray import element_spectrum

LINES = {"I_La": LineSpec(2.0, 0.1), "Pb_La": LineSpec(3.0, 0.1)}


def quantified(iodine, lead, *, rows=40, columns=50, seed=0, areas=None):
    """Maps of Poisson intensities with the means given, and their composition."""
    rng = np.random.default_rng(seed)
    means = np.broadcast_to(np.array([iodine, lead], float).reshape(2, -1, 1), (2, rows, columns))
    counts = rng.poisson(means)
    covariance = np.zeros((2, 2, rows, columns), np.float32)
    covariance[0, 0], covariance[1, 1] = means
    # One channel per line, without background.
    ds = make_cube(np.moveaxis(counts, 0, -1), energy=np.array([1.0, 2.0]))
    ds = ds.assign(
        {
            LINE_ESTIMATOR: LINE_ESTIMATOR.array(np.eye(2)),
            LINE_INTENSITY: LINE_INTENSITY.array(counts.astype(np.float32)),
            LINE_INTENSITY_COVARIANCE: LINE_INTENSITY_COVARIANCE.array(covariance),
            LINE_DETECTED: LINE_DETECTED.array((counts > 0).astype(np.int8)),
        }
    ).assign_coords(line=list(LINES))
    ds = record_lines(ds, LINES, intensities="fit", elements=())
    if areas is not None:
        numbers, labels = areas
        ds = ds.assign_coords(area=("y", numbers, {"area_label": labels}))
    return sum_regions(cliff_lorimer(ds, ratios=["I/Pb"]))


def row(table, region, quantity):
    (found,) = table[(table.region == region) & (table.quantity == quantity)].to_dict("records")
    return found


def test_ratio_of_sums_is_right_where_the_mean_of_ratios_is_not():
    ds = quantified(30.0, 6.0)
    found = row(region_table(ds), "all", "I/Pb")
    true = (2.0 * 30 / 126.905) / (3.0 * 6 / 207.2)
    assert abs(found["value"] - true) < 4 * found["stddev_counting"]
    # Jensen: E[1/x] exceeds 1/E[x] by a sixth of it and more at six counts.
    assert found["mean_of_pixels"] > 1.1 * true
    assert found["stddev"] > found["stddev_counting"] > 0
    assert found["pixels"] == 2000 and found["counts"] == ds.counts.sum()


@pytest.mark.slow
def test_stated_error_of_a_region_is_its_scatter():
    values, errors = [], []
    for seed in range(60):
        ds = quantified(30.0, 12.0, rows=6, columns=8, seed=seed)
        found = row(region_table(ds), "all", "Pb at%")
        values.append(found["value"])
        errors.append(found["stddev_counting"])
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.25)


def stacked(difference):
    numbers = np.repeat([1, 2, 3, 4], 10)
    iodine = np.where(numbers > 2, 40.0 + difference, 40.0)
    labels = ["control 1", "control 2", "treated 1", "treated 2"]
    return quantified(iodine, np.full(40, 20.0), areas=(numbers, labels))


def test_groups_that_differ_and_groups_that_do_not():
    for difference, differs in ((0.0, False), (4.0, True)):
        ds = stacked(difference)
        assert list(area_regions(ds)) == ["all", "control 1", "control 2", "treated 1", "treated 2"]
        compared = compare_groups(region_table(ds))
        found = row(compared.rename(columns={"groups": "region"}), "treated - control", "I/Pb")
        assert (abs(found["z"]) > 4) == differs
        assert (found["p_counting"] < 1e-4) == differs
        assert 0 < found["p_areas"] <= 1
        if differs:
            true = 2 * difference / 126.905 / (3 * 20 / 207.2)
            assert abs(found["difference"] - true) < 4 * found["stddev"]


def test_one_area_of_each_has_no_test_between_areas():
    table = region_table(stacked(0.0))
    two = table[table.region.isin(["control 1", "treated 2"])]
    assert compare_groups(two).p_areas.isna().all()
    assert compare_groups(table[table.region == "all"]).empty
    assert isinstance(compare_groups(two), pd.DataFrame)


def test_binned_ratio_is_the_ratio_of_sums():
    ds = quantified(30.0, 6.0, rows=9, columns=11)
    value, stddev = bin_ratio(ds, "I/Pb", factor=2)
    assert value.shape == stddev.shape == (4, 5)
    intensity = ds.line_intensity.values[:, :2, :2].sum(axis=(1, 2))
    true = (2.0 * intensity[0] / 126.905) / (3.0 * intensity[1] / 207.2)
    assert value[0, 0] == pytest.approx(true, rel=1e-5)


def test_undetected_elements_have_a_limit_and_no_part_in_the_sum():
    ds = quantified(0.0, 20.0, rows=10, columns=10)
    percents = region_table(ds).set_index("quantity")
    assert percents.loc["Pb at%", "value"] == pytest.approx(100)
    assert np.isnan(percents.loc["I at%", ["value", "stddev"]].astype(float)).all()
    # Without any count the limit is that of one.
    counts = ds.counts.values.sum(axis=(0, 1))
    expected = 3 * (2 / 126.905) / (counts[1] * 3 / 207.2)
    assert percents.loc["I at%", "limit"] == pytest.approx(100 * expected, rel=0.01)
    weak = quantified(0.05, 20.0, rows=10, columns=10, seed=1)
    table = region_table(weak)
    found, ratio = row(table, "all", "I at%"), row(table, "all", "I/Pb")
    counts = weak.counts.values.sum(axis=(0, 1))
    assert 0 < counts[0] < 9
    expected = 3 * np.sqrt(counts[0] + 1) * (2 / 126.905) / (counts[1] * 3 / 207.2)
    assert found["limit"] == pytest.approx(100 * expected / (1 + expected), rel=1e-3)
    assert np.isnan(ratio["value"]) and ratio["limit"] == pytest.approx(expected, rel=1e-3)


def test_regions_of_two_names_and_lazy_sums():
    ds = quantified(30.0, 12.0, rows=8, columns=10)
    corner = np.zeros((8, 10), bool)
    corner[:3, 4:] = True
    eager = sum_regions(ds, {"corner": corner})
    assert eager.region.values.tolist() == ["all", "corner"]
    assert eager.region_kind.values.tolist() == ["map", "region"]
    np.testing.assert_array_equal(
        eager.region_spectrum.sel(region="corner"), ds.counts.values[corner].sum(axis=0)
    )
    lazy = ds.chunk({"y": 3, "x": 4})
    with nothing_computed():
        summed = sum_regions(lazy, {"corner": corner})
    np.testing.assert_array_equal(summed.region_spectrum, eager.region_spectrum)
    with pytest.raises(ParameterError, match="region 'all' is there twice"):
        sum_regions(ds, {"all": corner})


@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
@pytest.mark.parametrize(("counts", "wrong"), [(3e7, True), (3e4, False)])
def test_what_the_fit_misses_is_in_the_errors_of_regions(counts, wrong):
    """ITO holds no N: where counts are so many that the background is wrong, N is no finding."""
    cell = simulate("solar-cell", shape=(33, 50), channels=325, energy_width=0.04).compute()
    phases = ["ITO", "MAPbI3 control", "Cu", "PCBM"]
    spectra = cell.phase_spectrum.sel(phase=phases).values.astype(float)
    spectra *= counts / 50 / spectra.sum(axis=1, keepdims=True)
    means = np.repeat(spectra, 5, axis=0)[:, np.newaxis] * np.ones((1, 10, 1))
    attrs = {key: cell.attrs[key] for key in ("beam_energy", "detector_resolution", "elements")}
    cube = np.random.default_rng(0).poisson(means)
    ds = make_cube(cube, energy=cell.energy.values, attrs=attrs)
    factors = true_k_factors(cell, ("In_La", "Sn_La", "N_Ka", "C_Ka", "Pb_La", "I_La"))
    lines = {name: LineSpec(*factor) for name, factor in factors.items()}
    recipe = Quantify(intensities="fit", source="counts", regions=("ITO=0:5,0:10",))
    maps = quantify(ds, lines, recipe)
    missed = maps.region_misfit.sel(region="ITO").values
    assert (missed > 0).mean() < (0.3 if wrong else 0.02)
    found, plain = (
        row(region_table(each), "ITO", "N at%")
        for each in (maps, maps.drop_vars(["region_misfit", "region_background"]))
    )
    assert np.isnan(found["value"]) and found["limit"] > 0
    # Counting errors alone would have found it in so many counts.
    assert (plain["value"] > 3 * plain["stddev"]) == wrong


@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
def test_the_background_of_a_region_is_in_its_errors():
    """A hump below Fe K alpha in half of the map, too broad to stand out in any channel."""
    energy = np.arange(0.105, 10, 0.02)
    lines = sum(element_spectrum(element, energy) for element in ("Fe", "O"))
    background = 5000 / (energy + 0.5) / energy.size
    hump = np.exp(-0.5 * (np.log(energy / 6.4) / 0.25) ** 2)
    rows = 375 * lines + background * np.array([np.ones(energy.size), 1 + hump])
    means = np.repeat(rows, 5, axis=0)[:, np.newaxis] * np.ones((1, 10, 1))
    ds = make_cube(
        np.random.default_rng(0).poisson(means), energy=energy, attrs={"beam_energy": 200.0}
    )
    specs = {"Fe_Ka": LineSpec(1.0), "O_Ka": LineSpec(1.0)}
    recipe = Quantify(source="counts", regions=("humped=5:10,0:10",))
    maps = quantify(ds, specs, recipe)
    counting = np.sqrt(maps.line_estimator.astype(float) ** 2 @ maps.region_spectrum)
    part = (abs(maps.region_background) / counting).sel(line="Fe_Ka")
    assert part.sel(region="humped") > 1 > 0.5 > part.sel(region="all")
    without = maps.assign(region_background=0 * maps.region_background)
    stated, less = (
        row(region_table(each), "humped", "Fe at%")["stddev"] for each in (maps, without)
    )
    assert stated > 1.1 * less


@pytest.mark.filterwarnings("error")
def test_pixels_that_differ_by_rounding_are_one_group():
    features = np.ones((8, 9, 3)) + 1e-16 * np.arange(72).reshape(8, 9, 1)
    assert (similar_pixels(1000 * features, 5, seed=0) == 0).all()
