"""The report: which files it writes, and that its pictures show what the data say."""

import gc
import weakref
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from edxdenoise.components.pca import pca
from edxdenoise.components.selection import elbows, select, weighted_noise_edge
from edxdenoise.config import Denoise, Input, Output
from edxdenoise.cube import make_cube, named_images, reconstruct, result_name
from edxdenoise.errors import EdxdenoiseWarning, FormatError, SchemaError, recorded
from edxdenoise.io import open_dataset, save_dataset
from edxdenoise.preprocess import stack, weight
from edxdenoise.quantification import LineSpec, line_intensity
from edxdenoise.recipe import Recipe
from edxdenoise.report import write, write_report
from edxdenoise.report.findings import gather, on_law
from edxdenoise.report.frame import colour_range, draw_map, frame_of
from edxdenoise.report.maps import component_figures, element_figures
from edxdenoise.report.scree import noise_edge_ratio, scree_figure
from edxdenoise.report.spectra import label_peaks, spectra_figure
from edxdenoise.report.style import add_axes, new_figure
from edxdenoise.report.sums import denoised_amounts, denoised_spectrum, line_sums, pixel_spectra
from edxdenoise.report.text import component_list, decision, facts, keeps_totals
from edxdenoise.run import run_recipe
from edxdenoise.schema import MEASURED
from edxdenoise.xray import Peak, channel_response, find_peaks, identified, line_energy, name_peaks

pytestmark = pytest.mark.slow

CHANNELS, WIDTH = 200, 0.05
ENERGY = (np.arange(CHANNELS) + 0.5) * WIDTH
PICTURES = {"scree.png", "components_01.png", "spectra.png", "elements_01.png", "audit.png"}
FILES = PICTURES | {"index.html", "elements.csv", "audit.csv", "spectra"}


def phantom(shape: tuple[int, int] = (18, 24), mean: float = 4.0) -> xr.Dataset:
    """Fe at the left, Ca at the right, on a background; a few hundred counts per pixel."""
    lines = channel_response(np.array([line_energy("Fe_Ka"), line_energy("Ca_Ka")]), ENERGY)
    left = np.linspace(1, 0, shape[1])[np.newaxis, :, np.newaxis] * np.ones((shape[0], 1, 1))
    expected = mean * (0.2 + 40 * left * lines[0] + 30 * (1 - left) * lines[1])
    counts = np.random.default_rng(1).poisson(expected)
    attrs = {"beam_energy": 200.0, "elements": ["Ca", "Fe"], "detector_resolution": 130.0}
    return make_cube(counts, energy=ENERGY, spatial_units="nm", attrs=attrs)


def denoised(ds: xr.Dataset, weighting: str = "poisson", components: int = 30, **kwargs):
    return select(pca(weight(ds, weighting=weighting), components=components), **kwargs)


@pytest.fixture(scope="module")
def result() -> xr.Dataset:
    return denoised(phantom())


def kept_of(ds: xr.Dataset) -> xr.Dataset:
    return ds.isel(component=np.flatnonzero(ds.component_keep.values))


def names(folder: Path) -> set[str]:
    """Names in a folder, without the hidden list of what edxdenoise wrote there."""
    return {path.name for path in folder.iterdir()} - {".edxdenoise"}


def without_pictures(monkeypatch):
    """Make empty files in place of pictures and page, for tests of what surrounds them."""
    monkeypatch.setattr(write, "_save", lambda figure, path: path.touch())
    monkeypatch.setattr(write, "write_page", lambda found, path: path.touch())


# Numbers behind the pictures


@pytest.mark.parametrize("weighting", ["poisson", "none"])
@pytest.mark.parametrize("side", [1, 5])
def test_denoised_spectra_of_cells_are_those_of_the_rebuilt_cube(weighting, side):
    ds = denoised(phantom(), weighting, keep="1,5")
    ds = ds.assign(mean_spectrum=ds.mean_spectrum + 0.01)
    cube = reconstruct(ds).counts_denoised
    scale = float(np.abs(cube).sum(["y", "x"]).max())
    amounts, parts = denoised_amounts(kept_of(ds), side)
    cells = np.einsum("pyx,pe->yxe", amounts, parts)
    np.testing.assert_allclose(cells, cell_sums(cube.values, side), atol=1e-5 * scale)
    np.testing.assert_allclose(
        denoised_spectrum(kept_of(ds)), cube.sum(["y", "x"]), atol=1e-5 * scale
    )


def cell_sums(values, side):
    """Sums over squares of `side` pixels, those at the edges smaller."""
    rows = [values[y : y + side] for y in range(0, values.shape[0], side)]
    cells = [
        [row[:, x : x + side].astype(float) for x in range(0, row.shape[1], side)] for row in rows
    ]
    return np.array([[cell.sum(axis=(0, 1)) for cell in row] for row in cells])


@pytest.mark.parametrize("chunks", [None, (18, 24, 200), (5, 7, 200), (18, 10, 33), (1, 24, 7)])
@pytest.mark.parametrize("side", [1, 4])
def test_raw_sums_equal_direct_sums_whatever_the_chunks(chunks, side):
    ds = phantom()
    counts = ds.counts.values.astype(int)
    if chunks is not None:
        ds = ds.assign(counts=ds.counts.copy(data=da.from_array(ds.counts.values, chunks)))
    weights = np.random.default_rng(2).normal(size=(3, CHANNELS))
    maps, cells = line_sums(ds, weights, side)
    np.testing.assert_allclose(
        maps, np.einsum("le,yxe->lyx", weights, counts), rtol=1e-4, atol=1e-3
    )
    assert cells.side == side
    np.testing.assert_array_equal(cells.counts, cell_sums(counts, side))


def test_sums_of_bytes_do_not_overflow():
    cube = make_cube(np.full((4, 5, 50), 250, np.uint8), energy=ENERGY[:50])
    maps, cells = line_sums(cube, np.ones((1, 50)), 5)
    assert maps.min() == 12500 and cells.counts.min() == 5000


def test_pixel_spectra_are_those_of_the_two_cubes(result):
    raw, rebuilt = pixel_spectra(result, kept_of(result), 3, 20)
    np.testing.assert_array_equal(raw, result.counts.values[3, 20])
    expected = reconstruct(result).counts_denoised.values[3, 20]
    np.testing.assert_allclose(rebuilt, expected, rtol=1e-4, atol=1e-4)


def test_structure_dropped_is_warned_of_and_listed(tmp_path, monkeypatch):
    without_pictures(monkeypatch)
    ds = denoised(phantom(mean=20.0), keep="1")
    with pytest.warns(
        EdxdenoiseWarning, match="residuals show .* that the model does not describe"
    ):
        write_report(ds, tmp_path / "report")
    rows = (tmp_path / "report" / "audit.csv").read_text(encoding="utf-8").splitlines()
    assert "Fe_Ka" in "".join(rows) and len(rows) > 1


def test_a_report_of_counts_that_are_not_whole_has_no_audit(tmp_path, monkeypatch):
    without_pictures(monkeypatch)
    ds = phantom()
    ds = denoised(ds.assign(counts=ds.counts * 1.2))
    with pytest.warns(EdxdenoiseWarning, match="No residual audit"):
        write_report(ds, tmp_path / "report")
    assert names(tmp_path / "report") >= FILES - {"audit.png", "audit.csv"}
    assert not (tmp_path / "report" / "audit.png").exists()


def test_counts_are_read_block_by_block_and_once():
    small = denoised(phantom())
    alive, most, read = set(), [0], []
    values = small.counts.values

    def block(block_info=None):
        (y0, y1), (x0, x1), _ = block_info[None]["array-location"]
        array = values[y0:y1, x0:x1].copy()
        alive.add(id(array))
        weakref.finalize(array, alive.discard, id(array))
        most[0] = max(most[0], len(alive))
        read.append((y0, x0))
        return array

    chunks = ((3,) * 6, (6,) * 4, (CHANNELS,))
    lazy = da.map_blocks(block, chunks=chunks, dtype=values.dtype, meta=np.empty((0, 0, 0), "u1"))
    ds = small.assign(counts=small.counts.copy(data=lazy))
    gc.collect()
    with dask.config.set(scheduler="synchronous"):
        line_sums(ds, np.ones((1, CHANNELS)), 4)
    assert len(set(read)) == 24 and len(read) == 24
    assert most[0] <= 2


def test_maps_of_components_not_shown_are_not_read(tmp_path, monkeypatch, result):
    read = []

    def one(value, number):
        read.append(number)
        return value

    maps = da.stack(
        [
            da.from_delayed(dask.delayed(one)(part, k + 1), part.shape, part.dtype)
            for k, part in enumerate(result.component_map.values)
        ]
    )
    # Without probabilities nothing is uncertain, and so nothing shown out of turn.
    ds = select(result, selector="elbow")
    ds = ds.assign(component_map=ds.component_map.copy(data=maps))
    without_pictures(monkeypatch)
    write_report(ds, tmp_path / "report")
    kept = int(ds.component_keep.sum())
    assert sorted(read) == list(range(1, kept + 13))


# Peaks and windows


def test_peaks_are_named_for_their_lines_strongest_first():
    ds = phantom()
    peaks = name_peaks(find_peaks(ENERGY, ds.counts.values.sum(axis=(0, 1))), identified(ds))
    assert [peak.name for peak in peaks[:2]] == ["Fe Kα", "Ca Kα"]
    assert peaks[0].label in ("Fe Kα 6.40 keV", "Fe Kα 6.41 keV")
    nameless = find_peaks(ENERGY, ds.counts.values.sum(axis=(0, 1)))
    assert nameless[0].name == "" and abs(nameless[0].energy - 6.4) < WIDTH


# Figures


def test_scree_shows_both_elbows_the_edge_and_what_was_kept(result):
    ds = result.assign_attrs(warnings=["20% of the channels are $empty"])
    figure = scree_figure(ds)
    ratio = ds.component_variance_ratio.values
    first, second = elbows(ratio)
    singular_edge = weighted_noise_edge(ds)
    pixels = ds.sizes["y"] * ds.sizes["x"]
    total = ds.component_variance.values[0] / ratio[0]
    kept = ds.component.values[ds.component_keep.values == 1]
    for axes, end in zip(figure.axes[:2], (30, 20)):
        lines = {line.get_label().split(":")[0]: line for line in axes.lines}
        assert lines["elbow"].get_xdata()[0] == first + 0.5
        assert lines["second elbow"].get_xdata()[0] == second + 0.5
        edge = lines["noise edge of random matrices"]
        np.testing.assert_allclose(edge.get_ydata()[0], 100 * singular_edge**2 / pixels / total)
        marked, open_ = axes.collections
        np.testing.assert_array_equal(marked.get_offsets()[:, 0], kept[kept <= end])
        np.testing.assert_allclose(marked.get_offsets()[:, 1], 100 * ratio[kept[kept <= end] - 1])
        assert len(marked.get_offsets()) + len(open_.get_offsets()) == end
    texts = [text.get_text() for text in figure.texts]
    assert decision(ds) in texts
    assert "Warning: 20% of the channels are $empty" in texts
    heights = [bar.get_height() for bar in figure.axes[2].patches]
    np.testing.assert_allclose(heights, ds.component_signal_probability)


def test_names_of_peaks_neither_overlap_nor_stray():
    axes = add_axes(new_figure(7, 3), 0, 0, 7, 3)
    axes.set_xlim(0, 20)
    energy = np.arange(200) / 10
    peaks = [
        Peak(n, energy[n], 0.01, 1, 1, 60, 1, f"peak {n}") for n in (20, 21, 22, 23, 24, 25, 100)
    ]
    label_peaks(axes, energy, np.ones(200), peaks, 99)
    shown = {text.get_text(): text for text in axes.texts}
    assert {"peak 20", "peak 21", "peak 100"} <= set(shown) and len(shown) < len(peaks)
    points = 72 * 7 / 20
    x = np.sort([text.xy[0] * points + text.get_position()[0] for text in shown.values()])
    assert np.diff(x).min() > 6.5
    assert max(abs(text.get_position()[0]) for text in shown.values()) < 7


def test_scree_without_weights_has_no_edge_and_without_probability_no_bars():
    ds = denoised(phantom(), "none", components=2, selector="elbow")
    assert noise_edge_ratio(ds) is None
    figure = scree_figure(ds)
    assert len(figure.axes) == 1
    assert not any("noise edge" in line.get_label() for line in figure.axes[0].lines)


def test_decision_says_what_was_kept_and_why(result):
    assert decision(result) == "2 of 30 components kept (selected by the spatial statistic): 1-2"
    by_hand = select(result, keep="1-3,8,10")
    assert decision(by_hand) == "5 of 30 components kept (chosen by hand): 1-3, 8, 10"
    assert decision(result.assign_attrs(history="")) == "2 of 30 components kept: 1-2"
    assert len(component_list(np.arange(1, 200, 2))) < 60


def spectra(ds: xr.Dataset):
    kept = kept_of(ds)
    raw, model = ds.counts.values.sum(axis=(0, 1)).astype(float), denoised_spectrum(kept)
    return raw, model, spectra_figure(ds, raw, model, [], (2, 3), pixel_spectra(ds, kept, 2, 3))


def test_spectra_show_raw_denoised_and_residual():
    with pytest.warns(match="Component 1 is not kept"):
        ds = denoised(phantom(), keep="2-3")
    raw, model, figure = spectra(ds.assign_attrs(warnings="cut short"))
    top, middle, bottom = figure.axes
    assert top.get_yscale() == "log"
    np.testing.assert_array_equal(top.lines[0].get_ydata(), raw)
    shown = top.lines[1].get_ydata()
    np.testing.assert_array_equal(shown[model > 0], model[model > 0])
    assert np.isnan(shown[model <= 0]).all()
    residual = (raw - model) / np.sqrt(raw)
    np.testing.assert_allclose(middle.lines[0].get_ydata(), residual)
    assert "none" not in middle.get_title(loc="left")
    assert any(text.get_text() == "Warning: cut short" for text in figure.texts)


def test_a_residual_that_must_vanish_is_said_to(result):
    assert keeps_totals(result)
    _, _, figure = spectra(result)
    middle = figure.axes[1]
    assert np.abs(middle.lines[0].get_ydata()).max() < 0.01
    assert "component 1 carries the total" in middle.get_title(loc="left")
    assert not keeps_totals(denoised(phantom(), "none", components=3, selector="all"))


@pytest.fixture(scope="module")
def found(result):
    shape = result.sizes["y"], result.sizes["x"]
    images = np.random.default_rng(0).uniform(size=(3, *shape)).astype(np.float32)
    measured = np.ones(shape, np.int8)
    measured[0, :3] = 0
    ds = result.assign(
        image=named_images(images, ["HAADF", "BF", "DF"]), measured=MEASURED.array(measured)
    )
    return gather(ds)


def test_elements_have_one_map_each_raw_and_denoised_in_the_same_colours(found):
    assert [str(line) for line in found.elements["line"]] == ["Fe_Ka", "Ca_Ka"]
    (figure,) = element_figures(found)
    drawn = [axes.images[0] for axes in figure.axes if axes.images]
    names = [text.get_text() for text in figure.texts[1:]]
    assert names == [
        *("HAADF image", "BF image", "DF image", "all X-rays"),
        *("Fe Kα, raw", "Fe Kα, denoised", "Ca Kα, raw", "Ca Kα, denoised"),
    ]
    for number in range(2):
        raw, denoised = drawn[4 + 2 * number : 6 + 2 * number]
        assert raw.get_clim() == denoised.get_clim()
        np.testing.assert_array_equal(denoised.get_array(), found.denoised[number])
        # What was not measured has no raw counts to show.
        assert np.ma.getmaskarray(raw.get_array()).sum() == 3
    for image, expected in zip(drawn[:3], found.ds.image.values):
        np.testing.assert_array_equal(image.get_array(), expected)
        assert image.get_cmap().name == "gray"


def test_maps_of_elements_are_the_net_counts_of_one_fit_of_all(found):
    lines = {"Fe_Ka": LineSpec(), "Ca_Ka": LineSpec()}
    measured = on_law(found.ds)
    for source, maps in (("counts", found.raw), ("denoised", found.denoised)):
        expected = line_intensity(measured, lines, source=source).line_intensity_unbounded
        np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-3)
    assert found.noise[0] == pytest.approx(found.raw[0].std(axis=0).mean(), rel=0.2)


def test_component_pages_show_kept_ones_first_and_all_of_them(result):
    picked = select(result, keep="1-2,5,20-26")
    found = gather(picked)
    figures = list(component_figures(found.ds, found.components, found.peaks))
    texts = [text.get_text() for figure in figures for text in figure.texts]
    numbers = [int(text) for text in texts if text.isdigit()]
    assert numbers[:10] == [1, 2, 5, *range(20, 27)] and len(numbers) == 22
    assert "Components kept" in figures[0].texts[0].get_text()
    images = [axes.images[0] for figure in figures for axes in figure.axes if axes.images]
    for image, number in zip(images, numbers, strict=True):
        expected = result.component_map.sel(component=number)
        np.testing.assert_array_equal(image.get_array(), expected)
    spectrum = figures[0].axes[2].lines[1].get_ydata()
    # What component 1 adds to channel j of pixel i is g_i t_i1 p_1j h_j.
    added = result.weight_pixel * result.component_map[0] * result.component_spectrum[0]
    rms = np.sqrt(((added * result.weight_energy) ** 2).mean(["y", "x"]))
    np.testing.assert_allclose(np.abs(spectrum), rms, rtol=1e-5)


@pytest.mark.parametrize(
    "columns, step, units, length, label",
    [
        (500, 10.0, "nm", 100, "1 µm"),
        (64, 0.5, "nm", 20, "10 nm"),
        (100, 0.0131, "µm", 0.2 / 0.0131, "200 nm"),
        (3, 1.0, "pixel", 1, "1 pixel"),
        (1, 1.0, "pixel", 1, "1 pixel"),
    ],
)
def test_scale_bar_is_a_nice_length_in_units_of_the_map(columns, step, units, length, label):
    cube = make_cube(
        np.ones((4, columns, 2), np.uint8),
        energy=ENERGY[:2],
        x=np.arange(columns) * step,
        y=np.arange(4) * step,
        spatial_units=units,
    )
    figure = new_figure(5, 5)
    frame = frame_of(cube)
    axes = draw_map(figure, np.ones((4, columns)), frame, (0, 0, 4, 4), ("gray", 0, 1))
    (bar,) = [line for line in axes.get_children() if line.get_label() == "scale bar"]
    np.testing.assert_allclose(np.diff(bar.get_xdata()), length)
    assert any(text.get_text().startswith(label) for text in axes.texts)


def test_pixels_are_drawn_in_their_true_shape():
    cube = make_cube(
        np.ones((10, 10, 2), np.uint8), energy=ENERGY[:2], y=np.arange(10) * 2.0, x=np.arange(10.0)
    )
    frame = frame_of(cube)
    assert frame.ratio == 2 and frame.to_scale
    figure = new_figure(5, 5)
    axes = draw_map(figure, np.ones((10, 10)), frame, (0, 0, 4, 4), ("gray", 0, 1))
    np.testing.assert_allclose(axes.bbox.height / axes.bbox.width, 2)


def test_stacked_areas_are_divided_and_named():
    ds = stack([phantom((5, 8)), phantom((7, 8))], labels=["con$\\x$trol", "treated"])
    figure = new_figure(5, 5)
    axes = draw_map(figure, np.ones((12, 8)), frame_of(ds), (1, 0, 4, 4), ("gray", 0, 1))
    borders = [line for line in axes.lines if line.get_label() != "scale bar"]
    assert {line.get_ydata()[0] for line in borders} == {4.5}
    figure.draw_without_rendering()
    assert {"con$\\x$trol", "treated"} <= {text.get_text() for text in axes.texts}
    assert frame_of(phantom()).areas == ()


def test_colours_are_symmetric_about_zero_and_robust():
    image = np.random.default_rng(0).normal(size=(100, 100))
    image[0, 0] = 1e6
    _, low, high = colour_range(image)
    assert low == -high and high < 5
    assert colour_range(np.abs(image))[1] == 0
    assert colour_range(np.zeros((3, 3)))[1:] == (0.0, 1.0)


# The folder


def test_report_from_a_file_has_all_pictures(tmp_path, result):
    file = tmp_path / "map.zarr"
    save_dataset(reconstruct(result).assign_attrs(warnings=["doubt"]), file)
    write_report(open_dataset(file), tmp_path / "report")
    assert names(tmp_path / "report") >= FILES | {"overlay.png"}
    assert all((tmp_path / "report" / name).read_bytes()[:4] == b"\x89PNG" for name in PICTURES)
    assert names(tmp_path) == {"map.zarr", "report"}


def test_report_leaves_its_input_and_matplotlib_as_they_were(tmp_path, monkeypatch, result):
    import matplotlib

    without_pictures(monkeypatch)
    before, settings = result.copy(deep=True), dict(matplotlib.rcParams)
    write_report(result, tmp_path / "report")
    xr.testing.assert_identical(result, before)
    assert dict(matplotlib.rcParams) == settings


@pytest.mark.parametrize(
    "shape, weighting, components, kwargs",
    [
        ((4, 3), "poisson", 12, {}),
        ((5, 5), "none", 2, {"selector": "elbow"}),
        ((1, 40), "poisson", 2, {"selector": "all"}),
        ((40, 1), "poisson", 3, {}),
        ((3, 2), "none", 6, {"selector": "all"}),
    ],
)
# So few components of so small a map leave much, and the audit says so.
@pytest.mark.filterwarnings("ignore:The residuals show")
def test_small_and_narrow_maps_draw(tmp_path, shape, weighting, components, kwargs):
    ds = denoised(phantom(shape, mean=20.0), weighting, components, **kwargs)
    write_report(ds, tmp_path / "report")
    assert names(tmp_path / "report") >= FILES


def test_two_channels_and_hardly_any_counts_draw(tmp_path):
    counts = np.zeros((4, 5, 2), np.uint8)
    counts[0, 0, 1] = counts[3, 4, 0] = 2
    ds = denoised(make_cube(counts, energy=np.array([1.0, 2.0])), components=2, selector="all")
    write_report(ds, tmp_path / "report")
    assert names(tmp_path / "report") == FILES


def test_existing_report_is_replaced_only_when_asked(tmp_path, monkeypatch, result):
    without_pictures(monkeypatch)
    folder = tmp_path / "report"
    write_report(result, folder)
    with pytest.raises(FormatError, match="--overwrite"):
        write_report(result, folder)
    (folder / "scree.png").write_text("old")
    write_report(result, folder, overwrite=True)
    assert names(folder) >= FILES and (folder / "scree.png").read_bytes() == b""


def test_a_report_with_a_file_of_others_is_not_replaced(tmp_path, monkeypatch, result):
    without_pictures(monkeypatch)
    folder = tmp_path / "report"
    write_report(result, folder)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FormatError, match="notes.txt"):
        write_report(result, folder, overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine" and names(folder) >= FILES


def test_a_folder_of_other_things_is_never_replaced(tmp_path, result):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").touch()
    with pytest.raises(FormatError, match="edxdenoise did not write"):
        write_report(result, tmp_path / "thesis", overwrite=True)
    assert names(tmp_path / "thesis") == {"chapter.txt"}


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch, result):
    def fail(figure, path):
        path.touch()
        if path.name == "spectra.png":
            raise OSError("no more ink")

    monkeypatch.setattr(write, "_save", fail)
    with pytest.raises(FormatError, match="no more ink"):
        write_report(result, tmp_path / "report")
    assert names(tmp_path) == set()


def test_a_data_set_without_components_is_refused(tmp_path):
    with pytest.raises(SchemaError, match="neither components"):
        write_report(phantom(), tmp_path / "report")
    assert names(tmp_path) == set()


def test_a_report_of_a_replaced_result_is_told(tmp_path):
    save_dataset(phantom(), tmp_path / "map.zarr")
    out, page = tmp_path / "out.zarr", tmp_path / "report" / "index.html"
    page.parent.mkdir()

    def told(seed):
        recipe = Recipe(
            Input((str(tmp_path / "map.zarr"),)),
            denoise=Denoise(select="elbow", shrink=False, subspace="pixel", seed=seed),
            output=Output(str(out)),
        )
        with recorded(show=False) as issued:
            run_recipe(recipe, overwrite=out.exists())
        return [each for each in issued if "held before" in each.finding]

    assert told(0) == []
    page.write_text(f"<p>result {result_name(open_dataset(out))}</p>")
    # The same result again is no other.
    assert told(0) == []
    (warning,) = told(1)
    assert str(page.parent) in warning.finding and "edxdenoise report" in warning.remedy


@pytest.mark.parametrize("width, said", [(0.04, False), (0.08, True)])
def test_facts_say_where_channels_hide_elements(width, said):
    ds = make_cube(np.ones((2, 2, 30), np.uint8), energy=width * np.arange(1, 31))
    assert ("missed in channels of 80 eV" in facts(ds, ["Fe"])["elements found"][1]) == said
