"""Tables of regions and differences between areas."""

import numpy as np
import pandas as pd
import pytest

from edxdenoise.cube import make_cube
from edxdenoise.quantification import LineSpec, cliff_lorimer
from edxdenoise.quantification.regions import (
    area_regions,
    bin_ratio,
    compare_groups,
    region_table,
)
from edxdenoise.schema import LINE_DETECTED, LINE_INTENSITY, LINE_INTENSITY_COVARIANCE

LINES = {"I_La": LineSpec(2.0, 0.1), "Pb_La": LineSpec(3.0, 0.1)}


def quantified(iodine, lead, *, rows=40, columns=50, seed=0, areas=None):
    """Maps of Poisson intensities with the means given, and their composition."""
    rng = np.random.default_rng(seed)
    means = np.broadcast_to(np.array([iodine, lead], float).reshape(2, -1, 1), (2, rows, columns))
    counts = rng.poisson(means).astype(np.float32)
    covariance = np.zeros((2, 2, rows, columns), np.float32)
    covariance[0, 0], covariance[1, 1] = means
    ds = make_cube(np.ones((rows, columns, 2), np.uint8), energy=np.array([1.0, 2.0]))
    ds = ds.assign(
        {
            LINE_INTENSITY.name: LINE_INTENSITY.array(counts),
            LINE_INTENSITY_COVARIANCE.name: LINE_INTENSITY_COVARIANCE.array(covariance),
            LINE_DETECTED.name: LINE_DETECTED.array((counts > 0).astype(np.int8)),
        }
    ).assign_coords(line=list(LINES))
    if areas is not None:
        numbers, labels = areas
        ds = ds.assign_coords(area=("y", numbers, {"area_label": labels}))
    return cliff_lorimer(ds, LINES, ratios=["I/Pb"])


def row(table, region, quantity):
    (found,) = table[(table.region == region) & (table.quantity == quantity)].to_dict("records")
    return found


def test_ratio_of_sums_is_right_where_the_mean_of_ratios_is_not():
    ds = quantified(30.0, 6.0)
    found = row(region_table(ds, LINES, area_regions(ds), ratios=["I/Pb"]), "all", "I/Pb")
    true = (2.0 * 30 / 126.905) / (3.0 * 6 / 207.2)
    assert abs(found["value"] - true) < 4 * found["stddev_counting"]
    # Jensen: E[1/x] exceeds 1/E[x] by a sixth of it and more at six counts.
    assert found["mean_of_pixels"] > 1.1 * true
    assert found["stddev"] > found["stddev_counting"] > 0
    assert found["pixels"] <= 2000


def test_stated_error_of_a_region_is_its_scatter():
    values, errors = [], []
    for seed in range(60):
        ds = quantified(30.0, 12.0, rows=6, columns=8, seed=seed)
        found = row(region_table(ds, LINES, area_regions(ds)), "all", "Pb at%")
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
        regions = area_regions(ds)
        assert list(regions) == ["all", "control 1", "control 2", "treated 1", "treated 2"]
        compared = compare_groups(region_table(ds, LINES, regions, ratios=["I/Pb"]))
        found = row(compared.rename(columns={"groups": "region"}), "treated - control", "I/Pb")
        assert (abs(found["z"]) > 4) == differs
        assert (found["p_counting"] < 1e-4) == differs
        assert 0 < found["p_areas"] <= 1
        if differs:
            true = 2 * difference / 126.905 / (3 * 20 / 207.2)
            assert abs(found["difference"] - true) < 4 * found["stddev"]


def test_one_area_of_each_has_no_test_between_areas():
    table = region_table(stacked(0.0), LINES, area_regions(stacked(0.0)))
    two = table[table.region.isin(["control 1", "treated 2"])]
    assert compare_groups(two).p_areas.isna().all()
    assert compare_groups(table[table.region == "all"]).empty
    assert isinstance(compare_groups(two), pd.DataFrame)


def test_binned_ratio_is_the_ratio_of_sums():
    ds = quantified(30.0, 6.0, rows=9, columns=11)
    value, stddev = bin_ratio(ds, LINES, "I/Pb", factor=2)
    assert value.shape == stddev.shape == (4, 5)
    intensity = ds.line_intensity.values[:, :2, :2].sum(axis=(1, 2))
    true = (2.0 * intensity[0] / 126.905) / (3.0 * intensity[1] / 207.2)
    assert value[0, 0] == pytest.approx(true, rel=1e-5)
