"""What is written is read back by the tools it is written for, and appears whole or not at all."""

from pathlib import Path

import hyperspy.api as hs
import numpy as np
import pandas as pd
import pytest
import tifffile
import xarray as xr
from helpers import cube
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from rsciio.msa import file_reader as read_msa
from rsciio.tiff import file_reader as read_tiff

import edxdenoise.report.write as write_module
from edxdenoise.components.pca import pca
from edxdenoise.components.selection import select
from edxdenoise.errors import FormatError, SchemaError
from edxdenoise.io import (
    PixelSize,
    file_name,
    open_dataset,
    pixel_size,
    save_dataset,
    write_msa,
    write_table,
    write_tiff,
)
from edxdenoise.preprocess import weight
from edxdenoise.quantification import LineSpec, cliff_lorimer, line_intensity
from edxdenoise.report import write_report
from edxdenoise.xray import channel_response, line_energy

pytestmark = pytest.mark.slow

LINES = {"Fe_Ka": LineSpec(1.45, 0.02), "Pt_La": LineSpec(5.08)}


def counts_of(shape: tuple[int, int] = (12, 16), *, seed: int = 0) -> xr.Dataset:
    """Iron everywhere, platinum at the right, in two areas of two groups; pixels of 2 x 3 nm."""
    energy = 0.02 + 0.04 * np.arange(300)
    lines = channel_response(np.array([line_energy(name) for name in LINES]), energy)
    y, x = np.mgrid[: shape[0], : shape[1]]
    amounts = np.stack([300 + 0 * x, 200.0 * (x > shape[1] / 2)])
    expected = np.einsum("lyx,le->yxe", amounts, lines) + 0.5
    expected[0, 0] = 0
    ds = cube(np.random.default_rng(seed).poisson(expected))
    units = {"units": "nm"}
    return ds.assign_coords(
        energy=("energy", energy, {"units": "keV"}),
        y=("y", 2.0 * np.arange(shape[0]), units),
        x=("x", 3.0 * np.arange(shape[1]), units),
        area=(
            "y",
            1 + (np.arange(shape[0]) >= shape[0] // 2),
            {"area_label": ["control 1", "treated 1"]},
        ),
    ).assign_attrs(elements=["Fe", "Pt"], beam_energy=200.0, live_time=12.5)


@pytest.fixture(scope="module")
def denoised() -> xr.Dataset:
    return select(pca(weight(counts_of()), components=6), keep="1-2")


@pytest.fixture(scope="module")
def quantified(denoised: xr.Dataset) -> xr.Dataset:
    return cliff_lorimer(line_intensity(denoised, LINES), ratios=["Pt/Fe"])


@pytest.fixture(scope="module")
def written(quantified: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantified") / "out"
    write_report(quantified, folder)
    return folder


IMAGE = np.array([[1.5, np.nan, -2.0], [1e-7, 3e6, 0.1]], np.float32)


@pytest.mark.parametrize(
    ("pixel", "microns"),
    [
        (PixelSize(2.0, 3.0, "nm"), (2e-3, 3e-3)),
        (PixelSize(0.25, 0.25, "µm"), (0.25, 0.25)),
        (PixelSize(0.0131578, 0.0131578, "µm"), (0.0131578, 0.0131578)),
        (PixelSize(1.5e-3, 1.5e-3, "mm"), (1.5, 1.5)),
    ],
)
def test_tiff_comes_back_with_values_scale_and_unit(
    tmp_path: Path, pixel: PixelSize, microns: tuple[float, float]
) -> None:
    path = tmp_path / "map.tif"
    write_tiff(path, IMAGE, pixel, info="Pb: share of the atoms (at%)")
    np.testing.assert_array_equal(tifffile.imread(path), IMAGE)
    with tifffile.TiffFile(path) as file:
        assert file.is_imagej
        assert file.pages[0].dtype == np.float32
        assert file.imagej_metadata["unit"] == "micron"
        assert file.imagej_metadata["Info"] == "Pb: share of the atoms (at%)"
        for tag, size in zip(("YResolution", "XResolution"), microns):
            above, below = file.pages[0].tags[tag].value
            assert below / above == pytest.approx(size, rel=1e-6)
    (signal,) = read_tiff(str(path))
    assert [axis["units"] for axis in signal["axes"]] == ["µm", "µm"]
    assert [axis["scale"] for axis in signal["axes"]] == pytest.approx(microns, rel=1e-6)
    image = hs.load(path)
    np.testing.assert_array_equal(image.data, IMAGE)
    assert image.axes_manager["width"].scale == pytest.approx(microns[1], rel=1e-6)


def test_tiff_without_a_known_pixel_size_has_none(tmp_path: Path) -> None:
    write_tiff(tmp_path / "map.tif", IMAGE, PixelSize(1.0, 1.0, "pixel"))
    with tifffile.TiffFile(tmp_path / "map.tif") as file:
        assert "unit" not in file.imagej_metadata
    (signal,) = read_tiff(str(tmp_path / "map.tif"))
    assert [axis["scale"] for axis in signal["axes"]] == [1.0, 1.0]


@pytest.mark.parametrize("image", [np.full((2, 3), np.nan), np.zeros((1, 1)), np.ones((1, 5))])
def test_tiff_of_maps_without_contrast(tmp_path: Path, image: np.ndarray) -> None:
    write_tiff(tmp_path / "map.tif", image, PixelSize(1.0, 1.0, "nm"))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "map.tif").reshape(image.shape), image)


def test_pixel_size_of_maps_and_of_a_single_row() -> None:
    ds = counts_of()
    assert pixel_size(ds) == PixelSize(2.0, 3.0, "nm")
    assert pixel_size(ds.isel(y=[0])) == PixelSize(3.0, 3.0, "nm")
    assert pixel_size(cube(np.ones((1, 1, 4)))) == PixelSize(1.0, 1.0, "pixel")


@pytest.mark.parametrize("beam_energy", [15.0, 200.0])
def test_msa_comes_back_with_counts_and_header(tmp_path: Path, beam_energy: float) -> None:
    ds = counts_of().assign_attrs(beam_energy=beam_energy, detector_resolution=131.0)
    spectrum = ds.counts.sum(("y", "x")).values + 0.125
    write_msa(tmp_path / "sum.msa", ds, spectrum, title="sum of all pixels")
    (signal,) = read_msa(str(tmp_path / "sum.msa"))
    np.testing.assert_allclose(signal["data"], spectrum, rtol=0, atol=1e-6)
    (axis,) = signal["axes"]
    assert (axis["offset"], axis["scale"], axis["units"]) == (0.02, 0.04, "keV")
    header = signal["original_metadata"]
    assert (header["BEAMKV"], header["LIVETIME"], header["FWHMMNKA"]) == (beam_energy, 12.5, 131.0)
    kind = "EDS_SEM" if beam_energy < 30 else "EDS_TEM"
    assert signal["metadata"]["Signal"]["signal_type"] == kind
    assert signal["metadata"]["General"]["title"] == "sum of all pixels"
    opened = hs.load(tmp_path / "sum.msa")
    (along,) = opened.axes_manager.signal_axes
    assert (along.offset, along.scale, along.units) == (0.02, 0.04, "keV")
    np.testing.assert_allclose(opened.data, spectrum, rtol=0, atol=1e-6)


def test_msa_follows_the_standard(tmp_path: Path) -> None:
    ds = counts_of()
    write_msa(tmp_path / "sum.msa", ds, np.arange(300.0), title="µ" * 100)
    lines = (tmp_path / "sum.msa").read_bytes().decode("latin-1").split("\r\n")
    assert lines[0] == "#FORMAT      : EMSA/MAS Spectral Data File"
    header = {line[1:13].strip(): line[15:] for line in lines if line.startswith("#")}
    assert list(header)[-2:] == ["SPECTRUM", "ENDOFDATA"]
    assert (header["NPOINTS"], header["NCOLUMNS"], header["DATATYPE"]) == ("300", "1", "Y")
    assert (header["XUNITS"], header["YUNITS"], header["SIGNALTYPE"]) == ("keV", "counts", "EDS")
    assert header["OWNER"].startswith("edxdenoise") and "RosettaSciIO" not in "".join(lines)
    assert len(lines) - 1 - sum(line.startswith("#") for line in lines) == 299


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1))
def test_table_keeps_six_digits(values: list[float]) -> None:
    import io

    text = io.StringIO()
    write_table(text, pd.DataFrame({"größe (µm)": values}))  # type: ignore[arg-type]
    text.seek(0)
    back = pd.read_csv(text)
    assert list(back.columns) == ["größe (µm)"]
    np.testing.assert_allclose(back["größe (µm)"], values, rtol=1e-5)


def test_table_is_utf8_with_empty_cells_for_nan(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", pd.DataFrame({"µ": ["a", "b"], "v": [np.nan, 1 / 3]}))
    assert (tmp_path / "t.csv").read_bytes() == "µ,v\na,\nb,0.333333\n".encode()


@pytest.mark.parametrize("text", ["I/Pb", "Pb_Lb2,15", "../x", "a b"])
def test_file_names_hold_no_separators(text: str) -> None:
    assert not set(file_name(text)) & set("/\\, :")


def test_everything_is_written(written: Path) -> None:
    assert {path.name for path in written.iterdir()} - {".edxdenoise"} == {
        "index.html",
        "elements_01.png",
        "elements.csv",
        "scree.png",
        "components_01.png",
        "components_02.png",
        "spectra.png",
        "audit.png",
        "audit.csv",
        "windows.png",
        "at_percent.png",
        "ratios.png",
        "bias.png",
        "bias.csv",
        "regions.csv",
        "groups.csv",
        "maps",
        "spectra",
    }
    tiffs = {path.stem for path in (written / "maps").glob("*.tif")}
    assert {"Pt_La_intensity", "Fe_atomic_percent", "Pt_weight_percent", "Pt-Fe_ratio"} <= tiffs
    assert {f"{name}_stddev" for name in tiffs if not name.endswith("stddev")} < tiffs
    pictures = {path.stem for path in (written / "maps").glob("*.png")}
    assert pictures == {name for name in tiffs if not name.endswith("stddev")}
    for path in written.rglob("*.png"):
        with Image.open(path) as image:
            assert np.asarray(image).std() > 5


def test_no_text_lies_outside_a_picture_or_is_told_twice_by_a_colour_bar(
    tmp_path: Path, quantified: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of areas and titles are long, and a warning is."""
    names = ["a control with a long name 1", "treated at 85 degrees for a thousand hours 1"]
    area = quantified.area.assign_attrs(area_label=names)
    ds = quantified.assign_coords(area=area)
    ds = ds.assign_attrs(title=60 * "long ", warnings=[40 * "a long warning "])
    cut = []

    def check(figure: Figure, path: Path) -> None:
        figure.canvas.draw()
        width, height = figure.get_size_inches()
        box = figure.get_tightbbox()
        if min(box.x0, box.y0, width - box.x1, height - box.y1) < -0.02:
            cut.append((path.name, (box.x0, box.y0, width - box.x1, height - box.y1)))
        for axes in figure.axes:
            ticks = [text.get_text() for text in axes.get_yticklabels()]
            if len(ticks) in (2, 3) and len(set(ticks)) < len(ticks):
                cut.append((path.name, "colour bar", ticks))
        path.touch()

    monkeypatch.setattr(write_module, "_save", check)
    monkeypatch.setattr(write_module, "write_page", lambda found, path: path.touch())
    write_report(ds, tmp_path / "out")
    assert not cut


def test_maps_are_those_of_the_dataset(written: Path, quantified: xr.Dataset) -> None:
    for name, values in (
        ("Pt_La_intensity", quantified.line_intensity.sel(line="Pt_La")),
        ("Fe_atomic_percent_stddev", quantified.atomic_percent_stddev.sel(element="Fe")),
        ("Pt-Fe_ratio", quantified.ratio_map.sel(ratio="Pt/Fe")),
    ):
        (signal,) = read_tiff(str(written / "maps" / f"{name}.tif"))
        np.testing.assert_array_equal(signal["data"], values.values)
        scales = [axis["scale"] for axis in signal["axes"]]
        assert scales == pytest.approx([0.002, 0.003], rel=1e-6)


def test_spectra_are_the_sums(written: Path, quantified: xr.Dataset) -> None:
    table = pd.read_csv(written / "spectra" / "sums.csv")
    assert list(table.columns) == ["energy (keV)", "raw (counts)", "denoised (counts)"]
    counts = quantified.counts.values.sum((0, 1))
    kept = quantified.isel(component=[0, 1])
    cells = kept.weight_pixel * kept.weight_energy
    rebuilt = (cells * xr.dot(kept.component_map, kept.component_spectrum, dim="component")).sum(
        ("y", "x")
    )
    filled = counts > 0
    np.testing.assert_allclose(table["energy (keV)"], quantified.energy)
    np.testing.assert_allclose(table["raw (counts)"][filled], counts[filled], rtol=1e-9)
    np.testing.assert_allclose(table["denoised (counts)"], rebuilt, rtol=1e-5, atol=1e-3)
    (signal,) = read_msa(str(written / "spectra" / "sum_denoised.msa"))
    np.testing.assert_allclose(signal["data"], table["denoised (counts)"], atol=1e-5)


def test_tables_name_units(written: Path) -> None:
    regions = pd.read_csv(written / "regions.csv").set_index(["region", "quantity"])
    assert regions.loc[("control 1", "Pt at%"), "unit"] == "at%"
    assert str(regions.loc[("all", "Pt/Fe"), "unit"]) == "1"
    total = sum(regions.loc[("all", f"{element} at%"), "value"] for element in ("Fe", "Pt"))
    assert total == pytest.approx(100, abs=1e-3)
    groups = pd.read_csv(written / "groups.csv")
    assert set(groups["groups"]) == {"treated - control"}
    bias = pd.read_csv(written / "bias.csv")
    assert "difference (counts)" in bias and {"all", "phase 1"} <= set(bias["region"])
    np.testing.assert_allclose(
        bias["z"], bias["difference (counts)"] / bias["stddev (counts)"], rtol=1e-3, atol=1e-6
    )


def test_a_report_of_a_file_says_what_that_in_memory_does(
    tmp_path: Path, written: Path, quantified: xr.Dataset
) -> None:
    file = tmp_path / "maps.zarr"
    save_dataset(quantified.drop_dims("line_other"), file)
    write_report(open_dataset(file), tmp_path / "out", pictures="svg")
    for name in ("regions.csv", "elements.csv", "bias.csv"):
        assert (tmp_path / "out" / name).read_text() == (written / name).read_text()
    stems = {path.stem for path in written.glob("*.png")}
    assert {path.stem for path in (tmp_path / "out").glob("*.svg")} == stems


@pytest.mark.parametrize("intensities", ["windows", "fit"])
def test_lazy_counts_without_components_or_ratios(tmp_path: Path, intensities: str) -> None:
    ds = counts_of().drop_vars("area").chunk({"y": 5})
    found = line_intensity(ds, LINES, source="counts", intensities=intensities)
    found = cliff_lorimer(found)
    before = found.copy(deep=True)
    write_report(found, tmp_path / "out")
    assert found.atomic_percent.chunks is not None
    xr.testing.assert_identical(found, before)
    names = {path.name for path in (tmp_path / "out").iterdir()} - {".edxdenoise"}
    pictures = {"windows.png", "at_percent.png", "elements_01.png"}
    tables = {"regions.csv", "elements.csv"}
    assert names == pictures | tables | {"index.html", "maps", "spectra"}
    image = tifffile.imread(tmp_path / "out" / "maps" / "Fe_atomic_percent.tif")
    np.testing.assert_array_equal(image, found.atomic_percent.sel(element="Fe").values)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)])
def test_small_maps(tmp_path: Path, shape: tuple[int, int]) -> None:
    ds = counts_of().isel(y=slice(3, 3 + shape[0]), x=slice(5, 5 + shape[1])).drop_vars("area")
    found = line_intensity(ds, LINES, source="counts")
    write_report(cliff_lorimer(found, ratios=["Pt/Fe"]), tmp_path / "out")
    image = tifffile.imread(tmp_path / "out" / "maps" / "Fe_Ka_intensity.tif")
    assert image.size == shape[0] * shape[1]


def test_map_without_any_composition(tmp_path: Path, quantified: xr.Dataset) -> None:
    names = [name for name in quantified if "percent" in str(name) or "ratio_map" in str(name)]
    ds = quantified.assign({name: quantified[name] * np.nan for name in names})
    ds["line_detected"] = ds.line_detected * 0
    write_report(ds, tmp_path / "out")
    assert np.isnan(tifffile.imread(tmp_path / "out" / "maps" / "Pt_atomic_percent.tif")).all()


def test_nothing_is_left_after_a_failure(
    tmp_path: Path, quantified: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(write_module, "_save", fail)
    with pytest.raises(KeyboardInterrupt):
        write_report(quantified, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_nothing_is_replaced_unasked(tmp_path: Path, quantified: xr.Dataset) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    for overwrite, reason in (
        (False, "--overwrite"),
        (True, "did not write .*out, which holds thesis.txt"),
    ):
        with pytest.raises(FormatError, match=reason):
            write_report(quantified, tmp_path / "out", overwrite=overwrite)
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


def test_datasets_without_results_are_named(tmp_path: Path, quantified: xr.Dataset) -> None:
    with pytest.raises(SchemaError, match="weight_percent"):
        write_report(quantified.drop_vars("weight_percent"), tmp_path / "out")
    with pytest.raises(SchemaError, match="neither components nor quantified lines"):
        write_report(counts_of(), tmp_path / "out")
    assert not list(tmp_path.iterdir())
