"""Cliff-Lorimer and ratios: values by hand, errors against Monte Carlo, pixels without counts."""

import numpy as np
import pytest
import xarray as xr
from helpers import nothing_computed, solar_cell
from hypothesis import given, settings
from hypothesis import strategies as st

from edxdenoise.errors import EdxdenoiseWarning, ParameterError
from edxdenoise.quantification import (
    LineSpec,
    check_composition,
    cliff_lorimer,
    fractions,
    line_intensity,
    ratio,
)
from edxdenoise.xray import atomic_weight

FACTORS = np.array([1.0, 2.0, 3.0])
LINES = {"I_La": LineSpec(3.413, 0.1), "Pb_La": LineSpec(4.374, 0.1), "O_Ka": LineSpec(2.0, 0.1)}
pytestmark = pytest.mark.filterwarnings("ignore:.*overlaps")


def test_negative_intensities_enter_as_they_are():
    value, _ = fractions(np.array([-3.0, 5, 8]), np.eye(3), FACTORS, np.zeros(3))
    np.testing.assert_allclose(value, [-3 / 31, 10 / 31, 24 / 31])


def test_no_counts_no_composition():
    intensity = np.array([[0.0, 0, 0], [-1, -2, 0], [5, -10, 1], [1, 0, 0]])
    covariance = np.repeat(np.eye(3)[..., None], 4, axis=2)
    value, stddev = fractions(intensity.T, covariance, FACTORS, FACTORS)
    assert np.isnan(value[:, :3]).all() and np.isnan(stddev[:, :3]).all()
    np.testing.assert_allclose(value[:, 3], [1, 0, 0])


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.floats(200, 5000), min_size=3, max_size=3),
    st.floats(-0.8, 0.8),
    st.floats(0, 0.05),
    st.integers(0, 2**31),
)
def test_errors_are_those_of_monte_carlo(intensity, correlation, k_error, seed):
    rng = np.random.default_rng(seed)
    intensity = np.array(intensity)
    stddev = np.sqrt(intensity)
    covariance = np.diag(intensity)
    covariance[0, 1] = covariance[1, 0] = correlation * stddev[0] * stddev[1]
    spread = k_error * FACTORS
    drawn = rng.multivariate_normal(intensity, covariance, 40_000)
    amounts = drawn * (FACTORS + spread * rng.normal(size=(40_000, 3)))
    expected = (amounts / amounts.sum(axis=1, keepdims=True)).std(axis=0)
    found = fractions(intensity, covariance, FACTORS, spread)[1]
    np.testing.assert_allclose(found, expected, rtol=0.05)
    expected = (amounts[:, 0] / amounts[:, 1]).std()
    assert ratio(intensity, covariance, FACTORS, spread, (0, 1))[1] == pytest.approx(expected, 0.06)


def test_ratio_without_divisor():
    value, stddev = ratio(np.array([3.0, 0.0]), np.eye(2), np.ones(2), np.zeros(2), (0, 1))
    assert np.isnan(value) and np.isnan(stddev)


@pytest.fixture(scope="module")
def quantified():
    ds = solar_cell(1000.0, shape=(20, 30), channels=650)[["counts"]]
    with pytest.warns(EdxdenoiseWarning):
        return line_intensity(ds, LINES, intensities="windows-linear", source="counts")


def test_percents(quantified):
    result = cliff_lorimer(quantified, ratios=["I/Pb"])
    total = result.atomic_percent.sum("element", skipna=False)
    np.testing.assert_allclose(total.values[np.isfinite(total)], 100, rtol=1e-5)
    moles = result.weight_percent / xr.DataArray(
        [atomic_weight(e) for e in ("I", "Pb", "O")], dims="element"
    )
    from_weight = (100 * moles / moles.sum("element", skipna=False)).values
    both = np.isfinite(from_weight) & np.isfinite(result.atomic_percent.values)
    # A pixel has a composition where a line is detected and their sum exceeds its noise.
    seen = (quantified.line_detected == 1).any("line").values
    assert (both <= seen).all() and both[:, seen].mean() > 0.9
    # No pixel of noise over noise sets the scale.
    assert np.nanmax(np.abs(result.atomic_percent)) < 300
    np.testing.assert_allclose(
        result.atomic_percent.values[both], from_weight[both], rtol=1e-4, atol=1e-3
    )
    detected = quantified.line_detected.sel(line="Pb_La") == 1
    assert 0 < detected.mean() < 1
    assert (result.ratio_map[0].notnull() == detected).all()
    iodine, lead = (result.atomic_percent.sel(element=e) for e in ("I", "Pb"))
    both = (detected & total.notnull()).values
    np.testing.assert_allclose(
        result.ratio_map[0].values[both], (iodine / lead).values[both], rtol=1e-3
    )


def test_lazy_stays_lazy(quantified):
    maps = {name: part for name, part in quantified.items() if "y" in part.dims}
    lazy = quantified.assign({name: part.chunk({"y": 7}) for name, part in maps.items()})
    with nothing_computed():
        result = cliff_lorimer(lazy, ratios=["I/Pb"])
    xr.testing.assert_allclose(result.compute(), cliff_lorimer(quantified, ratios=["I/Pb"]))


def test_quantifying_again_by_other_lines(quantified):
    first = cliff_lorimer(quantified, ratios=["I/Pb"])
    lines = {name: LINES[name] for name in ("Pb_La", "I_La")}
    with pytest.warns(EdxdenoiseWarning):
        again = line_intensity(first, lines, intensities="windows-linear", source="counts")
        again = cliff_lorimer(again)
    assert again.element.values.tolist() == ["Pb", "I"] and "ratio_map" not in again


@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
def test_missing_k_factor_is_named():
    ds = solar_cell(1000.0, shape=(8, 8), channels=650)[["counts"]]
    found = line_intensity(ds, {"O_Ka": LineSpec()}, source="counts")
    with pytest.raises(ParameterError, match="no k-factor for O_Ka"):
        cliff_lorimer(found)


def test_doubtful_pixels_are_counted(quantified):
    empty = quantified.copy()
    empty["line_intensity"] = quantified.line_intensity.where(quantified.y > quantified.y[1], -1.0)
    result = cliff_lorimer(empty)
    with pytest.warns(EdxdenoiseWarning) as caught:
        check_composition(result)
    missing = int(np.isnan(result.atomic_percent[0]).sum())
    assert missing >= 60
    assert f"of the pixels ({missing}); they have no composition" in str(caught[0].message)
    assert "Net counts are negative" in str(caught[1].message)


def test_error_where_one_line_is_nearly_all():
    intensity = np.array([1e6, 30.0, 20.0])[:, None]
    covariance = np.diag(intensity[:, 0])[..., None]
    spread = 0.1 * FACTORS
    exact = fractions(intensity, covariance, FACTORS, spread)[1]
    stored = fractions(intensity, covariance.astype(np.float32), FACTORS, spread)[1]
    np.testing.assert_allclose(stored, exact, rtol=0.02)
