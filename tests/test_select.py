"""Selection: one registry, one signature, component 1 kept, components chosen by hand."""

import inspect
import warnings

import numpy as np
import pytest
import xarray as xr
from helpers import phases
from hypothesis import given
from hypothesis import strategies as st

from edxdenoise import config, denoise, make_cube
from edxdenoise.components.pca import pca
from edxdenoise.components.selection import (
    SELECTORS,
    Verdict,
    component_outcomes,
    elbows,
    parse_keep,
    select,
)
from edxdenoise.config import Denoise
from edxdenoise.errors import EdxdenoiseWarning, ParameterError, SchemaError
from edxdenoise.preprocess import weight
from edxdenoise.schema import COMPONENT_KEEP, COMPONENT_SIGNAL_PROBABILITY, validate


@pytest.fixture(scope="module")
def components():
    return pca(weight(phases()), components=10)


def test_registry_is_what_users_are_offered():
    assert tuple(SELECTORS) == config.SELECTORS
    assert inspect.signature(select).parameters["selector"].default == config.SELECTORS[0]


def test_selectors_share_one_signature(components):
    signatures = {str(inspect.signature(selector)) for selector in SELECTORS.values()}
    assert len(signatures) == 1
    for selector in SELECTORS.values():
        verdict = selector(components, 0)
        assert isinstance(verdict, Verdict)
        assert verdict.keep.shape == (10,) and verdict.keep.dtype == bool


@pytest.mark.parametrize("selector", config.SELECTORS)
@pytest.mark.parametrize("lazy", [False, True])
def test_every_selector(components, selector, lazy):
    before = components.copy(deep=True)
    result = select(components.chunk({"y": 5}) if lazy else components, selector=selector)
    validate(result, COMPONENT_KEEP, COMPONENT_SIGNAL_PROBABILITY)
    assert result.component_keep.dtype == np.int8
    assert isinstance(result.component_keep.data, np.ndarray)
    assert result.component_keep[0] == 1
    # The network abstains from maps this small.
    decided = "spatial" if selector == "cnn" else selector
    assert result.history.endswith(f"select selector={decided} seed=0")
    given_by = np.isfinite(result.component_signal_probability)
    assert given_by.all() if selector in ("cnn", "spatial", "split") else not given_by.any()
    xr.testing.assert_identical(components, before)


@pytest.mark.parametrize("selector", config.SELECTORS)
def test_no_selector_drops_component_1(components, selector, monkeypatch):
    for name in SELECTORS:
        monkeypatch.setitem(SELECTORS, name, lambda ds, seed: Verdict(np.zeros(10, bool)))
    kept = select(components, selector=selector).component_keep
    np.testing.assert_array_equal(kept, [1] + [0] * 9)


def test_what_elbow_second_elbow_and_all_keep(components):
    first, second = elbows(components.component_variance_ratio.values)
    for selector, count in (("elbow", first), ("second-elbow", second), ("all", 10)):
        kept = select(components, selector=selector).component_keep
        np.testing.assert_array_equal(kept, np.arange(10) < count)


def test_unknown_selector(components):
    with pytest.raises(ParameterError, match="'magic' must be one of "):
        select(components, selector="magic")


def test_components_are_needed():
    with pytest.raises(SchemaError, match="component_variance"):
        select(weight(phases()))


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1", [1]),
        ("1-4,8,10,16", [1, 2, 3, 4, 8, 10, 16]),
        (" 3 , 1 - 2 ", [1, 2, 3]),
        ("5-5,1-3,2-4", [1, 2, 3, 4, 5]),
        ("20", [20]),
    ],
)
def test_keep_is_read(text, numbers):
    assert parse_keep(text, 20) == numbers


@pytest.mark.parametrize(
    "text", ["", ",", "1,", "0", "21", "1-21", "4-1", "a", "1..3", "-3", "1-2-3", "1.5", "1;2"]
)
def test_keep_that_makes_no_sense(text):
    with pytest.raises(ParameterError, match=f"keep '{text}'".replace(".", "[.]")):
        parse_keep(text, 20)


@given(st.sets(st.integers(1, 30), min_size=1))
def test_keep_reads_what_was_written(numbers):
    assert parse_keep(",".join(map(str, numbers)), 30) == sorted(numbers)


def test_keep_beats_the_selector(components):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = select(components, selector="all", keep="1-2,5")
    np.testing.assert_array_equal(np.flatnonzero(result.component_keep) + 1, [1, 2, 5])
    assert result.component_signal_probability.isnull().all()
    assert result.history.endswith("select keep=1-2,5")


def test_dropping_component_1_by_hand_raises_doubt(components):
    with pytest.warns(EdxdenoiseWarning, match="Component 1 is not kept"):
        result = select(components, keep="2-3")
    np.testing.assert_array_equal(np.flatnonzero(result.component_keep) + 1, [2, 3])


def test_evidence_is_given_beside_every_verdict_and_maps_stay_lazy(components):
    result = select(components, selector="elbow")
    assert result.component_effect_size.values[:3].min() > 0.4
    assert result.component_spatial_statistic.values[:3].min() > 10
    assert result.component_spatial_statistic.noise_correlated == 0
    lazy = components.chunk({"y": 5})
    untouched = select(lazy, selector="elbow")
    assert "component_effect_size" not in untouched
    assert untouched.component_map.chunks is not None
    looked_at = select(lazy, selector="spatial")
    np.testing.assert_allclose(
        looked_at.component_effect_size, result.component_effect_size, atol=1e-5
    )


def test_outcomes(components):
    ds = select(components, selector="spatial")
    probability = [0.1, 0.9, 0.9, 0.5, 0.1, 0.9, 0.05, np.nan, 0.3, 0.0]
    ds["component_signal_probability"] = ("component", probability)
    ds["component_spatial_statistic"] = ds.component_spatial_statistic.copy(
        data=[9.0, 9, 2, 9, 9, 9, 2, 9, 2, 2]
    )
    ds["component_effect_size"] = ("component", [0.5, 0.5, 0.5, 0.5, 0.5, 0.05, 0.5, 0.5, 0.5, 0])
    expected = ["signal", "signal"] + 4 * ["uncertain"] + ["noise", "", "uncertain", "noise"]
    assert component_outcomes(ds) == expected
    assert component_outcomes(ds.isel(component=[1, 2])) == expected[1:3]


def test_model_needs_the_network(components, tmp_path):
    with pytest.raises(ParameterError, match="model 'a.keras' is a network"):
        select(components, selector="edge", models=["a.keras"])
    with pytest.raises(ParameterError, match="is no file; give a network saved as .keras"):
        select(components, selector="cnn", models=[str(tmp_path / "a.keras")])


@pytest.mark.filterwarnings("ignore:.* fewer than 10 counts")
def test_no_variance_is_never_signal():
    """Three pixels with counts out of 64 are three components, whatever is asked for."""
    counts = np.zeros((8, 8, 30), np.uint8)
    for number, position in enumerate([(1, 1), (4, 6), (7, 2)]):
        counts[position][5 + 8 * number : 12 + 8 * number] = 9
    ds = denoise(make_cube(counts, energy=0.2 + 0.1 * np.arange(30)), Denoise(subspace="pixel"))
    assert ds.sizes["component"] == 3 and list(ds.component.values) == [1, 2, 3]
    null = pca(weight(make_cube(counts, energy=0.2 + 0.1 * np.arange(30))), components=20)
    for selector in ("cnn", "spatial", "all"):
        assert not select(null, selector=selector).component_keep.values[3:].any()


@pytest.mark.parametrize(("side", "decides"), [(30, "spatial"), (34, "cnn")])
def test_the_network_abstains_from_small_maps(side, decides):
    counts = np.random.default_rng(0).poisson(20, (side, side, 20))
    ds = pca(weight(make_cube(counts, energy=0.2 + 0.1 * np.arange(20))), components=10)
    assert f"selector={decides}" in select(ds, selector="cnn").history
