"""Net intensities: sources, laziness, variances, detection, bias of what was dropped."""

import warnings

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from helpers import nothing_computed, solar_cell

from edxdenoise import denoise
from edxdenoise.components.pca import pca
from edxdenoise.components.selection import select
from edxdenoise.components.shrink import shrink
from edxdenoise.config import Denoise
from edxdenoise.cube import make_cube, reconstruct
from edxdenoise.errors import EdxdenoiseWarning, ParameterError, SchemaError, recorded
from edxdenoise.preprocess import weight
from edxdenoise.quantification import LineSpec, line_intensity
from edxdenoise.quantification.bias import bias_table, check_bias, expected_square
from edxdenoise.quantification.estimators import line_weights
from edxdenoise.quantification.lines import record_lines
from edxdenoise.quantification.region_table import bin_ratio
from edxdenoise.quantification.regions import find_phases

LINES = {name: LineSpec() for name in ("C_Ka", "I_La", "Pb_La", "Cu_Ka")}
ELEMENTS = ["C", "N", "O", "In", "Sn", "I", "Pb", "Cu"]
METHODS = ("windows", "windows-linear", "fit")
pytestmark = pytest.mark.filterwarnings("ignore:.*overlaps")


def cell(**kwargs):
    ds = solar_cell(1000.0, shape=(33, 50), channels=650)[["counts", "expected_counts"]]
    return ds.assign_attrs(elements=ELEMENTS, beam_energy=200.0)


@pytest.fixture(scope="module")
def denoised():
    return select(pca(weight(cell()), components=30), keep="1-5")


@pytest.mark.parametrize("intensities", METHODS)
def test_denoised_intensities_are_those_of_the_denoised_counts(denoised, intensities):
    rebuilt = reconstruct(denoised)
    as_counts = rebuilt.assign(counts=rebuilt.counts_denoised)
    a, b = (
        line_intensity(ds, LINES, intensities=intensities, source=source)
        for ds, source in ((denoised, "denoised"), (as_counts, "counts"))
    )
    np.testing.assert_allclose(a.line_intensity, b.line_intensity, atol=2e-3)


@pytest.mark.parametrize(("width", "told"), [(0.02, ""), (0.08, "C_Ka (53 eV)")])
def test_channels_wider_than_a_peak_are_noted(width, told):
    ds = make_cube(np.ones((2, 2, 100), np.uint16), energy=0.2 + width * np.arange(100))
    with recorded(show=False) as notes:
        line_intensity(ds, {"C_Ka": LineSpec()}, source="counts", intensities="windows")
    found = [note.finding for note in notes if note.finding.startswith("Channels of")]
    assert found == ([f"Channels of 80 eV are wider than the peaks of {told}"] if told else [])


@pytest.mark.parametrize("intensities", METHODS)
@pytest.mark.parametrize("source", ["counts", "denoised"])
def test_lazy_stays_lazy(denoised, intensities, source):
    blocks = {"y": 10, "x": 32}
    large = ("counts", "component_map", "weight_pixel")
    lazy = denoised.assign({name: denoised[name].chunk(blocks) for name in large})
    with nothing_computed():
        result = line_intensity(lazy, LINES, intensities=intensities, source=source)
    expected = line_intensity(denoised, LINES, intensities=intensities, source=source)
    assert ("line_intensity_unbounded" in result) == (intensities == "fit")
    for name in result.data_vars:
        if name.startswith("line_") and name not in ("line_estimator", "line_window"):
            assert isinstance(result[name].data, da.Array)
            np.testing.assert_allclose(result[name], expected[name], rtol=1e-4, atol=1e-3)


def test_fit_is_bounded_and_tells_what_it_would_be(denoised):
    result = line_intensity(denoised, LINES, intensities="fit", source="counts")
    free, bounded = result.line_intensity_unbounded, result.line_intensity
    assert (bounded >= 0).all() and (free < 0).any()
    weights = line_weights(denoised, LINES, intensities="fit", elements=ELEMENTS)
    expected = np.einsum("le,yxe->lyx", weights.estimators, denoised.counts.values.astype(float))
    np.testing.assert_allclose(free, expected, atol=1e-3)


@pytest.mark.parametrize("intensities", METHODS)
def test_of_raw_counts_only_the_sum_spectrum_is_read_before_time(intensities):
    """Windows keep clear of the peaks of the sum spectrum, and the fit models it."""
    options = {"intensities": intensities, "source": "counts"}
    result = line_intensity(cell()[["counts"]].chunk({"y": 10}), LINES, **options)
    assert isinstance(result.line_intensity.data, da.Array)
    expected = line_intensity(cell()[["counts"]], LINES, **options)
    np.testing.assert_allclose(result.line_intensity, expected.line_intensity, rtol=1e-5, atol=1e-3)


def test_variance_of_raw_counts_knows_thickness_and_not_noise():
    """One material, a wedge with a step: variances follow the expected counts of each pixel."""
    energy = (np.arange(650) + 0.5) * 0.02
    thickness = np.linspace(0.5, 2, 60) * np.where(np.arange(40) < 20, 1.0, 3.0)[:, np.newaxis]
    expected = thickness[..., np.newaxis] * (0.2 / energy)
    counts = np.random.default_rng(0).poisson(expected)
    ds = make_cube(counts, energy=energy, attrs={"beam_energy": 200.0})
    weights = line_weights(ds, LINES).estimators
    true = np.einsum("le,yxe->lyx", weights**2, expected)
    plain = np.einsum("le,yxe->lyx", weights**2, counts.astype(float))
    result = line_intensity(ds, LINES, source="counts")
    stated = result.line_intensity_stddev.values.astype(float) ** 2
    for line in range(len(LINES)):
        scatter = [np.std(part[line] / true[line]) for part in (stated, plain)]
        assert scatter[0] < 0.7 * scatter[1]
        assert np.median(stated[line] / true[line]) == pytest.approx(1, abs=0.1)
    diagonal = np.einsum("llyx->lyx", result.line_intensity_covariance.values)
    np.testing.assert_allclose(diagonal, stated, rtol=1e-5)


def test_variance_is_plain_where_all_pixels_are_alike():
    spectrum = np.random.default_rng(0).integers(3, 40, 650)
    counts = np.broadcast_to(spectrum.astype(np.uint8), (9, 12, 650))
    ds = make_cube(counts, energy=(np.arange(650) + 0.5) * 0.02, attrs={"beam_energy": 200.0})
    weights = line_weights(ds, LINES).estimators
    result = line_intensity(ds, LINES, source="counts")
    expected = np.sqrt(weights**2 @ spectrum)
    for stddev, value in zip(result.line_intensity_stddev.values, expected):
        np.testing.assert_allclose(stddev, value, rtol=1e-5)


@pytest.mark.parametrize("source", ["counts", "denoised"])
def test_covariances_can_be(denoised, source):
    result = line_intensity(denoised, LINES, intensities="fit", source=source)
    matrices = result.line_intensity_covariance.values.transpose(2, 3, 0, 1).astype(float)
    size = np.sqrt(np.einsum("yxll->yxl", matrices))
    smallest = np.linalg.eigvalsh(matrices / size[..., None, :] / size[..., None]).min(axis=-1)
    assert (smallest > -1e-4).mean() > 0.99


def test_variance_of_counts_drawn_again(denoised):
    """The scatter of intensities of fresh draws is the standard deviation stated."""
    weights = line_weights(denoised, LINES, elements=ELEMENTS).estimators
    pixels = denoised.expected_counts.values.reshape(-1, 650)[::97].astype(float)
    drawn = np.random.default_rng(0).poisson(pixels, (600, *pixels.shape)) @ weights.T
    stated = line_intensity(denoised, LINES, source="counts").line_intensity_stddev
    stated = stated.values.reshape(len(LINES), -1)[:, ::97].T
    strong = drawn.mean(axis=0) > 20
    assert strong.sum() > 10
    ratio = (stated / drawn.std(axis=0))[strong]
    # In so coarse a map most pixels lie at interfaces, where neighbours say too much.
    assert abs(np.median(ratio) - 1) < 0.06 and (np.abs(ratio - 1) < 0.35).all()


@pytest.mark.parametrize(("level", "most"), [(2.0, 0.01), (20.0, 0.003)])
def test_false_alarms_of_detection(level, most):
    energy = (np.arange(650) + 0.5) * 0.02
    counts = np.random.default_rng(1).poisson(level, (120, 120, 650))
    ds = make_cube(counts, energy=energy, attrs={"beam_energy": 200.0})
    lines = {"Fe_Ka": LineSpec(), "Pb_La": LineSpec(), "Ca_Ka": LineSpec()}
    rate = float(line_intensity(ds, lines, source="counts").line_detected.mean())
    # Three sigma one-sided is 0.135 %; few counts are skewed, and low backgrounds go with high
    # net counts: 0.7 % at 30 counts in a window.
    assert 0.0004 < rate < most


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        (
            {"intensities": "peaks"},
            ParameterError,
            "intensities 'peaks' must be one of fit, windows",
        ),
        ({"source": "raw"}, ParameterError, "source 'raw' must be one of denoised, counts"),
        ({"source": "denoised"}, SchemaError, "holds no components; denoise it, or use source"),
    ],
)
def test_impossible_options_are_named(kwargs, error, message):
    with pytest.raises(error, match=message):
        line_intensity(cell(), LINES, **kwargs)


def thirds(ds):
    rows = np.arange(ds.sizes["y"])[:, np.newaxis] + 0 * np.arange(ds.sizes["x"])
    return {f"third {i}": rows % 3 == i for i in range(3)}


@pytest.mark.parametrize("intensities", ["windows-linear", "fit"])
def test_nothing_dropped_no_bias(denoised, intensities):
    table = bias_table(line_intensity(denoised, LINES, intensities=intensities), thirds(denoised))
    assert len(table) == 12
    assert 0.3 < table.z.std() < 1.8 and table.z.abs().max() < 4


def test_bias_of_a_component_dropped(denoised):
    # Component 2 separates the copper electrode from the rest: its loss shows in the phases.
    dropped = select(denoised, keep="1,3-5")
    phases = find_phases(denoised)
    assert sum(mask.sum() for mask in phases.masks.values()) == 33 * 50
    honest, biased = (
        bias_table(line_intensity(ds, LINES), phases.masks, held_out=phases.held_out)
        for ds in (denoised, dropped)
    )
    assert honest.z.abs().max() < 4
    assert biased.z.abs().max() > 20
    np.testing.assert_allclose(honest.raw, biased.raw)


def test_bias_of_a_dropped_component_is_in_the_error(denoised):
    """Errors of pixels hold the difference to raw counts over similar pixels, and no more."""
    honest, dropped = (
        line_intensity(select(denoised, keep=keep), LINES) for keep in ("1-5", "1,3-5")
    )
    name = list(LINES)[0]
    shift = [np.abs(ds.line_intensity_bias.sel(line=name)).mean() for ds in (honest, dropped)]
    assert shift[1] > 3 * shift[0]
    for ds in (honest, dropped):
        variance = ds.line_intensity_stddev**2 - ds.line_intensity_bias**2
        own = np.stack([ds.line_intensity_covariance[i, i] for i in range(len(LINES))])
        np.testing.assert_allclose(variance, own, rtol=1e-3, atol=1e-4)


def test_bias_is_that_of_the_place():
    """With the total alone all pixels are alike: where they lie tells what they lost."""
    energy = 0.2 + 0.02 * np.arange(500)
    peaks = np.exp(-0.5 * ((energy - np.array([[6.4], [8.05]])) / 0.06) ** 2)
    left = np.arange(32) < 16
    expected = np.where(left[:, None], peaks[0] + 0.2 * peaks[1], 0.2 * peaks[0] + peaks[1]) + 0.01
    expected = 300 * np.broadcast_to(expected / expected.sum(axis=-1, keepdims=True), (16, 32, 500))
    ds = make_cube(np.random.default_rng(0).poisson(expected), energy=energy)
    dropped = shrink(select(pca(weight(ds), components=4), keep="1"))
    found = line_intensity(dropped, {"Fe_Ka": LineSpec(), "Cu_Ka": LineSpec()})
    net = np.moveaxis(expected @ found.line_estimator.values.T, -1, 0)
    lost = net - found.line_intensity.values
    for half in (left, ~left):
        shift = found.line_intensity_bias.values[..., half].mean(axis=(1, 2))
        np.testing.assert_allclose(shift, lost[..., half].mean(axis=(1, 2)), rtol=0.1)


def test_a_dropped_component_is_warned_of_and_none_otherwise(denoised):
    honest, dropped = (
        line_intensity(select(denoised, keep=keep), LINES) for keep in ("1-5", "1,3-5")
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_bias(honest)
    with pytest.warns(EdxdenoiseWarning, match="Possible bias: .* counts after denoising in a"):
        check_bias(dropped)


@pytest.mark.parametrize(
    ("moved", "pixel", "warned"),
    [(60.0, 0.1, True), (60.0, 1.0, False), (1.0, 0.001, False)],
    ids=["beyond", "within the errors of pixels", "next to nothing in at%"],
)
def test_a_bias_is_warned_of_where_it_matters(moved, pixel, warned):
    """A group of 100 pixels, 2000 counts; each difference is 10 standard deviations."""
    values = {
        "raw": [[1000.0, 1000.0]],
        "denoised": [[1000.0 + moved, 1000.0]],
        "stddev": [[moved / 10, 1.0]],
        "pixel_stddev": [[pixel, pixel]],
    }
    ds = xr.Dataset({f"group_{name}": (("group", "line"), v) for name, v in values.items()})
    ds = ds.assign(group_pixels=("group", [100])).assign_coords(line=["Fe_Ka", "Co_Ka"])
    ds["line_intensity"] = ("line", "y", "x"), np.zeros((2, 1, 1), np.float32)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for k_factor in (None, 1.0):
            lines = {name: LineSpec(k_factor) for name in ("Fe_Ka", "Co_Ka")}
            check_bias(record_lines(ds, lines, intensities="fit", elements=()))
    assert [("Fe_Ka" in str(each.message)) for each in caught] == [True] * 2 * warned


@pytest.mark.slow
def test_the_warning_is_not_lost_in_another_process(denoised):
    dropped = select(denoised, keep="1,3-5")
    large = ("counts", "component_map", "weight_pixel")
    lazy = line_intensity(dropped.assign({name: dropped[name].chunk() for name in large}), LINES)
    names = [name for name in lazy.data_vars if str(name).startswith("group_")]
    with dask.config.set(scheduler="processes", num_workers=1):
        with recorded(show=False) as caught:
            computed = lazy[names].compute()
    assert not caught
    with pytest.warns(EdxdenoiseWarning, match="Possible bias"):
        check_bias(computed)


def test_no_bias_check_without_whole_counts(denoised):
    scaled = denoised.assign(counts=denoised.counts * 0.5)
    assert "line_intensity_bias" not in line_intensity(scaled, LINES)


def test_raw_counts_of_a_shrunk_map_share_no_noise():
    """The same errors of binned ratios as before anything was denoised."""
    lines = {name: LineSpec(1.0) for name in ("I_La", "Pb_La")}
    plain = cell().drop_vars("expected_counts")
    shrunk = denoise(plain, Denoise(select="spatial"))
    assert "component_map_shrunk" in shrunk
    a, b = (bin_ratio(line_intensity(ds, lines, source="counts"), "I/Pb") for ds in (plain, shrunk))
    np.testing.assert_allclose(a[0], b[0], rtol=1e-5)
    np.testing.assert_allclose(a[1], b[1], rtol=1e-3)


@pytest.mark.parametrize("share", [0.0, 0.05, 1.0])
def test_expected_squares_are_those_of_the_biases(share):
    # Of 4000 parts, a share has a bias of four standard deviations of the noise.
    random = np.random.default_rng(0)
    stddev = random.uniform(1, 5, 4000)
    bias = np.where(np.arange(4000) < share * 4000, 4, 0) * random.standard_normal(4000) * stddev
    found = expected_square(bias + stddev * random.standard_normal(4000), stddev**2) / stddev**2
    np.testing.assert_allclose(found.mean(), np.mean((bias / stddev) ** 2), rtol=0.1, atol=0.05)
