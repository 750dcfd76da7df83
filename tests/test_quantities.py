"""Pictures of quantities show the numbers they claim to show."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.colors import to_hex
from test_export import LINES, counts_of

from edxdenoise.pipeline import check_quantify
from edxdenoise.quantification import LineSpec, cliff_lorimer, line_intensity
from edxdenoise.quantification.estimators import line_weights
from edxdenoise.quantification.region_table import bin_ratio, compare_groups, region_table
from edxdenoise.quantification.regions import sum_regions
from edxdenoise.recipe import Recipe
from edxdenoise.report.checks import bias_figure
from edxdenoise.report.frame import end_labels, map_figure, value_range, well_known
from edxdenoise.report.integration import background_level, background_line, integration_figure
from edxdenoise.report.quantities import (
    binned_ratio,
    binned_regions,
    distribution,
    group_values,
    percent_figure,
    ratios_figure,
)
from edxdenoise.report.style import BLUE, ORANGE, style
from edxdenoise.report.text import with_error


@pytest.fixture(scope="module")
def quantified() -> xr.Dataset:
    found = line_intensity(counts_of(), LINES, source="counts")
    return sum_regions(cliff_lorimer(found, ratios=["Pt/Fe"]))


def tables(ds: xr.Dataset) -> tuple[pd.DataFrame, pd.DataFrame]:
    table = region_table(ds)
    return table, compare_groups(table)


@pytest.mark.parametrize("sloped", [True, False])
def test_background_level_and_window_weights_agree(sloped: bool) -> None:
    """Net counts are those of the window less the line drawn."""
    energy = 0.01 + 0.02 * np.arange(600)
    spectrum = 5000 / energy + 1000 * np.exp(-(((energy - 10.5) / 0.07) ** 2))
    windows = ((8.0, 8.2), (10.8, 11.0))
    # Edges between channels, so that none is cut.
    spec = LineSpec(window=(10.4, 10.7), background=windows)
    ds = xr.Dataset(coords={"energy": energy})
    how = "windows-linear" if sloped else "windows"
    ds = ds.assign(counts=(("y", "x", "energy"), spectrum[np.newaxis, np.newaxis]))
    (estimator,) = line_weights(ds, {"Pb_La": spec}, intensities=how).estimators
    level = (
        background_line(energy, spectrum, windows)
        if sloped
        else background_level(spectrum, estimator)
    )
    inside = estimator > 0
    assert estimator @ spectrum == pytest.approx((spectrum - level)[inside].sum(), rel=1e-3)


def test_one_background_window_gives_a_level() -> None:
    energy = np.arange(6.0)
    level = background_line(energy, np.array([0, 4, 8, 50, 60, 70.0]), [(0.5, 2.5)])
    np.testing.assert_allclose(level, 6)


@pytest.mark.parametrize("how", ["windows", "windows-linear", "fit"])
def test_integration_figure_says_the_net_counts(how: str) -> None:
    ds = counts_of()
    with style():
        figure = integration_figure(line_intensity(ds, LINES, source="counts", intensities=how))
    weights = line_weights(ds, LINES, intensities=how, elements=["Fe", "Pt"])
    net = weights.estimators @ ds.counts.values.sum((0, 1))
    captions = [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]
    panels = [text for text in captions if "net" in text]
    for text, name, value in zip(panels, ("Fe Kα", "Pt Lα"), net, strict=True):
        said = float(text.split(":")[1].split(" net")[0].replace(",", ""))
        assert text.startswith(name)
        assert said == pytest.approx(value, rel=1e-3, abs=0.6)
    (curve,) = [line for line in figure.axes[0].get_lines() if len(line.get_ydata()) == 300][:1]
    shown = np.asarray(curve.get_ydata())
    np.testing.assert_array_equal(
        np.nan_to_num(shown[np.isfinite(shown)]),
        ds.counts.values.sum((0, 1))[np.isfinite(shown)],
    )


def test_windows_are_shaded_where_they_are() -> None:
    spec = LineSpec(1.0, window=(6.2, 6.6), background=((5.6, 5.8), (7.4, 7.6)))
    with style():
        figure = integration_figure(
            line_intensity(
                counts_of(), {"Fe_Ka": spec}, source="counts", intensities="windows-linear"
            )
        )
    overview, panel = figure.axes
    for axes in (overview, panel):
        spans = {
            (round(patch.get_x(), 6), round(patch.get_x() + patch.get_width(), 6)): to_hex(
                patch.get_facecolor()
            ).upper()
            for patch in axes.patches
        }
        assert spans == {(6.2, 6.6): BLUE, (5.6, 5.8): ORANGE, (7.4, 7.6): ORANGE}
    low, high = panel.get_xlim()
    assert low < 5.6 and high > 7.6


def test_percent_figure_shows_maps_and_their_errors(quantified: xr.Dataset) -> None:
    with style():
        figure = percent_figure(quantified, *tables(quantified))
    images = [
        np.ma.filled(axes.images[0].get_array(), np.nan) for axes in figure.axes if axes.images
    ]
    expected = [
        quantified[name].values[number]
        for number in range(2)
        for name in ("atomic_percent", "atomic_percent_stddev")
    ]
    for image, values in zip(images, expected, strict=True):
        np.testing.assert_array_equal(image, values)
    labels = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert {"at%", "control 1", "treated 1", "10 nm"} <= labels
    bold = [
        part.get_text()
        for axes in figure.axes
        if axes.get_legend()
        for part in axes.get_legend().get_texts()
    ]
    table, _ = tables(quantified)
    assert bold[0] == f"control: {group_values(table, 'Fe at%')['control']}"


def test_only_pixels_below_the_limit_are_hatched(quantified: xr.Dataset) -> None:
    from matplotlib.contour import ContourSet

    half = quantified.copy()
    detected = np.ones((2, 12, 16), np.int8)
    detected[1, :, :8] = 0
    half["line_detected"] = (half.line_detected.dims, detected)
    with style():
        figure = percent_figure(half, *tables(half))
    hatched = [
        part for axes in figure.axes for part in axes.collections if isinstance(part, ContourSet)
    ]
    (only,) = hatched
    (path,) = only.get_paths()
    assert path.vertices[:, 0].max() == pytest.approx(7.5, abs=1)
    assert "Pt 50" in " ".join(text.get_text() for text in figure.texts)


def test_pixels_without_a_value_are_grey(quantified: xr.Dataset) -> None:
    image = quantified.atomic_percent.values[0].copy()
    image[3:6, 4:9] = np.nan
    with style():
        figure = map_figure(quantified, image, ("inferno", 0, 100), "Fe", "at%")
        figure.canvas.draw()
    axes = figure.axes[0]
    pixels = np.asarray(figure.canvas.buffer_rgba())  # type: ignore[attr-defined]
    x, y = axes.transData.transform((6, 4))
    np.testing.assert_allclose(pixels[pixels.shape[0] - int(y), int(x), :3], 191, atol=1)


def test_even_maps_use_their_whole_range_of_colours() -> None:
    image = 3.5 + 0.1 * np.random.default_rng(0).standard_normal((12, 16))
    known = np.ones(image.shape, bool)
    _, low, high = value_range(image, known, "I/Pb", stddev=np.full(image.shape, 0.1))
    assert 3.1 < low < 3.4 and 3.6 < high < 3.9
    assert value_range(image, known, "counts")[1] == 0


@pytest.mark.parametrize("level, error", [(48.0, 0.0), (48.0, 3.0), (0.0, 0.5), (100.0, 0.0)])
def test_colours_are_never_narrower_than_the_error(level: float, error: float) -> None:
    image = np.full((5, 6), level)
    known = np.ones(image.shape, bool)
    _, low, high = value_range(image, known, "at%", stddev=np.full(image.shape, error))
    assert high > low and high - low >= 2 * error
    assert low <= level <= high
    assert len(set(end_labels(low, high))) == 2


def test_binned_ratio_is_a_ratio_of_sums(quantified: xr.Dataset) -> None:
    value, stddev = binned_ratio(quantified, "Pt/Fe", 2)
    plain, plain_stddev = bin_ratio(quantified, "Pt/Fe", factor=2)
    assert value.shape == (6, 8)
    filled = np.isfinite(value)
    assert filled.sum() > 40
    np.testing.assert_array_equal(value[filled], plain[filled])
    np.testing.assert_array_equal(stddev[filled], plain_stddev[filled])


def test_bins_in_two_areas_belong_to_none() -> None:
    ds = counts_of()
    number = 1 + (np.arange(12) >= 5)
    ds = ds.assign_coords(area=("y", number, ds.area.attrs))
    regions = binned_regions(ds, 2)
    np.testing.assert_array_equal(regions["control 1"][:, 0], [1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(regions["treated 1"][:, 0], [0, 0, 0, 1, 1, 1])
    assert regions["all"].all()


def test_ratio_figure_has_the_distributions_of_the_areas(quantified: xr.Dataset) -> None:
    with style():
        figure = ratios_figure(quantified, *tables(quantified))
    (axes,) = [axes for axes in figure.axes if axes.get_legend()]
    value, stddev = binned_ratio(quantified, "Pt/Fe", 2)
    shown = np.where(well_known(value, stddev, np.isfinite(value)), value, np.nan)
    regions = binned_regions(quantified, 2)
    for patch, name in zip(axes.patches, ("control 1", "treated 1"), strict=True):
        edges, share = distribution(shown[regions[name]], 0.05)
        np.testing.assert_allclose(patch.get_data().values, share)
        np.testing.assert_allclose(patch.get_data().edges, edges)
    texts = " ".join(text.get_text() for text in figure.texts)
    assert "treated − control" in texts and "2 × 2" in texts


@given(
    hnp.arrays(float, st.integers(1, 60), elements=st.floats(-50, 150) | st.just(np.nan)),
    st.sampled_from([1.0, 0.05]),
)
def test_distribution_shares_out_all_values(values: np.ndarray, width: float) -> None:
    edges, share = distribution(values, width)
    finite = values[np.isfinite(values)]
    assert share.sum() == pytest.approx(100 if finite.size else 0)
    np.testing.assert_allclose(edges / width, np.round(edges / width), atol=1e-6)
    if finite.size:
        assert edges[0] <= finite.min() + 1e-5 and finite.max() <= edges[-1] + 1e-5


def test_distribution_puts_edges_into_the_upper_bin() -> None:
    _, share = distribution(np.array([0.05, 0.1, 0.15, 0.3]), 0.05)
    np.testing.assert_allclose(share, [25, 25, 25, 0, 0, 25])


def test_well_known_leaves_out_vacuum() -> None:
    stddev = np.array([[1.0, 1.2, 0.9], [40.0, 500.0, np.nan]])
    value = np.array([[50.0, 0.0, -1.0], [300.0, 600.0, np.nan]])
    specimen = np.array([[True, True, True], [False, False, False]])
    np.testing.assert_array_equal(
        well_known(value, stddev, specimen), [[True, True, True], [True, False, False]]
    )


@pytest.mark.parametrize(
    ("value", "stddev", "text"),
    [(9.1234, 0.0345, "9.12 ± 0.03"), (-0.5, 0.02, "−0.50 ± 0.02"), (1234.0, 30.0, "1234 ± 30")],
)
def test_numbers_have_the_digits_of_their_error(value: float, stddev: float, text: str) -> None:
    assert with_error(value, stddev) == text


def test_bias_figure_has_a_cell_per_region_and_line() -> None:
    rows = [
        {"region": region, "line": line, "z": z}
        for region, scores in {"all": (0.0, -0.04), "cluster 1": (4.2, np.nan)}.items()
        for line, z in zip(("Pb_La", "C_Ka"), scores)
    ]
    with style():
        figure = bias_figure(pd.DataFrame(rows))
    axes = figure.axes[0]
    np.testing.assert_array_equal(
        np.ma.filled(axes.images[0].get_array(), np.nan), [[0.0, -0.04], [4.2, np.nan]]
    )
    assert [text.get_text() for text in axes.texts] == ["0.0", "0.0", "4.2"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["Pb Lα", "C Kα"]
    assert "1 of 3 beyond 3 σ" in figure.texts[0].get_text()


ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("path", sorted((ROOT / "data").glob("*.toml")), ids=lambda path: path.stem)
def test_recipes_in_the_repository_are_valid(path: Path) -> None:
    recipe = Recipe.from_file(path)
    check_quantify(recipe.lines, recipe.quantify)
    named = [*recipe.input.files, recipe.output.file, recipe.output.report]
    assert all(name and Path(name).name == name for name in named)


@pytest.fixture
def real_quantities(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("real_quantities")


def test_k_factors_of_the_dacite_are_those_computed(real_quantities: ModuleType) -> None:
    lines = Recipe.from_file(ROOT / "data" / "dacite.toml").lines
    dacite = real_quantities.mean_dacite()
    factors = real_quantities.bulk_k_factors(dacite, list(lines))
    assert {name: spec.k_factor for name, spec in lines.items()} == pytest.approx(factors, abs=6e-4)
    assert factors["Si_Ka"] == 1
    # A mean dacite is electrically neutral but for its water.
    percents = {f"{e} at%": 100 * v for e, v in dacite.atomic_fractions().items() if e != "P"}
    assert real_quantities.stoichiometric(percents) == pytest.approx(percents["O at%"], abs=0.3)


@pytest.mark.slow
def test_cores_of_fept_are_one_to_one(
    real_quantities: ModuleType, shared_data: Path, tmp_path: Path
) -> None:
    _, _, *phases = real_quantities.regions("fept", shared_data, tmp_path)
    percents = [row[-1].split()[0] for row in phases]
    (platinum,) = [float(each) for each in percents if each != "<" and float(each) > 30]
    assert 42 < platinum < 55


@pytest.mark.slow
def test_article_recipe_finds_more_nitrogen_in_treated_cells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    rows = importlib.import_module("recovery").article_rows((99, 150))
    for method in ("windows-linear", "fit"):
        own = {row["region"]: row for row in rows if row["method"] == method}
        control, treated = own["MAPbI3 control, control"], own["MAPbI3 treated, treated"]
        assert control["N/Pb true"] < treated["N/Pb true"]
        difference = treated["N/Pb"][0] - control["N/Pb"][0]
        assert difference > 5 * np.hypot(treated["N/Pb"][1], control["N/Pb"][1])
