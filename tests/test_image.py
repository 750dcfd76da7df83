"""Images recorded with the counts, and pixels that were not measured, through all stages."""

import json
import re

import h5py
import numpy as np
import pytest
import rsciio.jeol
import tifffile
import xarray as xr
from click.testing import CliRunner
from helpers import cube, nothing_computed, phases

from edxdenoise.cli import main
from edxdenoise.config import IMAGES, Denoise
from edxdenoise.cube import guide_images, make_cube, mark_missing, measured_pixels, named_images
from edxdenoise.errors import (
    DataError,
    EdxdenoiseWarning,
    FormatError,
    ParameterError,
    SchemaError,
)
from edxdenoise.io import list_signals, open_dataset, read_cube, read_mask, save_dataset
from edxdenoise.io.images import detector_images
from edxdenoise.io.vendor import VendorSignal
from edxdenoise.pipeline import denoise
from edxdenoise.preprocess import crop, rebin, stack, unstack
from edxdenoise.recipe import Recipe
from edxdenoise.simulation import simulate
from edxdenoise.thinning import thin


def a_map(
    rows: int = 4, columns: int = 6, detectors: str = "", missing: np.ndarray | None = None
) -> xr.Dataset:
    """Counts of 1 and up; images of these detectors that differ in every pixel."""
    counts = np.random.default_rng(rows).poisson(20, (rows, columns, 6)) + 1.0
    if missing is not None:
        counts[missing] = np.nan
    ds = cube(counts)
    names = detectors.split()
    if not names:
        return ds
    values = np.arange(len(names) * rows * columns, dtype=np.uint16)
    return ds.assign(image=named_images(values.reshape(len(names), rows, columns), names))


@pytest.mark.parametrize(
    ("name", "detectors"),
    [
        ("bruker_sem_dacite_22cpp.bcf", ["BSE", "SE"]),
        ("bruker_tem_dust_256x256.bcf", ["HAADF"]),
        ("jeol_tem_64x64.pts", ["STEM"]),
        ("fept_core_shell.hspy", []),
    ],
)
def test_images_of_a_file(shared_data, name, detectors):
    ds = read_cube(shared_data / name)
    found = ds["image"] if "image" in ds else None
    assert ([] if found is None else list(found.detector.values)) == detectors
    if found is not None:
        assert found.dims == ("detector", "y", "x") and found.shape[1:] == ds.counts.shape[:2]
        # Heavy elements show in both, as long as neither is turned or flipped.
        total = ds.counts.sel(energy=slice(3, 20)).sum("energy").values.ravel()
        image = found.values[0]
        right, *turned = (
            abs(np.corrcoef(each.ravel(), total)[0, 1])
            for each in (image, image[::-1], image[:, ::-1], image[::-1, ::-1])
        )
        assert right > 1.5 * max(turned)


class TestVelox:
    """Every frame of an image is stored, beside maps that Velox computed from the counts."""

    @pytest.fixture
    def path(self, shared_data, tmp_path):
        import zipfile

        with zipfile.ZipFile(shared_data / "velox_v11.zip") as archive:
            return archive.extract("Test SI 16x16 215 kx.emd", tmp_path)

    def test_mean_of_frames(self, path):
        ds = read_cube(path)
        assert list(ds.detector.values) == ["HAADF"]
        with h5py.File(path, "r") as file:
            frames = [group["Data"][:] for group in file["Data/Image"].values()]
        (stored,) = [data for data in frames if data.dtype == np.uint16]
        assert stored.shape == (16, 16, 2)
        np.testing.assert_allclose(ds.image.values[0], stored.mean(axis=2))

    def test_listed_as_an_image(self, path):
        kinds = {info.title: info.kind for info in list_signals(path)}
        assert kinds["HAADF"] == kinds["Ca"] == "image"


class TestJeol:
    def test_as_rosettasciio_reads_it(self, shared_data):
        path = shared_data / "jeol_tem_64x64.pts"
        items = rsciio.jeol.file_reader(str(path), read_em_image=True)
        np.testing.assert_array_equal(read_cube(path).image.values[0], items[1]["data"])

    @pytest.mark.parametrize("size", ["64x32", "32x64"])
    def test_image_that_is_not_square(self, shared_data, tmp_path, size):
        """The same scan in fewer columns or rows: counts and image are sums of two pixels."""
        content = (shared_data / "jeol_tem_64x64.pts").read_bytes()
        (tmp_path / "a.pts").write_bytes(content.replace(b"64x64", size.encode()))
        part, whole = read_cube(tmp_path / "a.pts"), read_cube(shared_data / "jeol_tem_64x64.pts")
        pair = {"y" if size == "64x32" else "x": 2}
        for name in ("image", "counts"):
            sums = [ds[name].astype(np.uint64) for ds in (part, whole)]
            if name == "counts":
                sums = [each.sum("energy") for each in sums]
            np.testing.assert_array_equal(sums[0], sums[1].coarsen(pair).sum())


def _image(
    title="BSE", shape=(4, 6), step=1.0, units="µm", dtype=np.uint8, **extra
) -> VendorSignal:
    axes = [{"size": size, "scale": step, "offset": 3.0, "units": units} for size in shape]
    return VendorSignal(np.ones(shape, dtype), axes, {"General": {"title": title}, **extra}, {})


class TestWhichImages:
    """What is an image of the same pixels, by shape, size of a pixel and name."""

    ds = make_cube(
        np.ones((4, 6, 5), np.uint8),
        energy=np.arange(5.0),
        y=np.arange(4.0),
        x=np.arange(6.0),
        spatial_units="µm",
    )

    def names(self, *signals: VendorSignal) -> list[str]:
        found = detector_images("a.bcf", self.ds, signals)
        return [] if found is None else list(found.detector.values)

    @pytest.mark.parametrize(
        "title", ["HAADF", "BF", "DF4", "SE", "InLens", "DF-S", "Img 1", "iDPC"]
    )
    def test_detectors(self, title):
        assert self.names(_image(title)) == [title]

    @pytest.mark.parametrize("title", ["Fe", "C", "Fe-EELS", "Si K", "Pt_La", "O Kα1", "Fe K EDX"])
    def test_maps_of_elements_are_left_out(self, title):
        assert self.names(_image(title)) == []

    @pytest.mark.parametrize(
        ("change", "taken"),
        [
            ({"shape": (6, 4)}, False),
            ({"shape": (4, 6, 2)}, False),
            ({"step": 1.01}, True),
            ({"step": 2.0}, False),
            ({"step": 1000.0, "units": "nm"}, True),
            ({"step": 1.0, "units": "nm"}, False),
            ({"step": 2.0, "units": ""}, True),
            ({"dtype": np.complex64}, False),
            ({"Sample": {"xray_lines": ["Fe_Ka"]}}, False),
        ],
    )
    def test_same_pixels(self, change, taken):
        assert self.names(_image(**change)) == ["BSE"] * taken

    def test_names_are_unique(self):
        titles = ["SE", "BSE", "SE", "", ""]
        assert self.names(*map(_image, titles)) == ["SE", "BSE", "SE 2", "image", "image 2"]

    def test_damaged_image_costs_no_counts(self):
        import dask.array as da

        def fail(block):
            raise OSError("bad block")

        bad = da.map_blocks(fail, da.ones((4, 6)), dtype=float, meta=np.ones((0, 0)))
        signal = VendorSignal(bad, _image().axes, {"General": {"title": "SE"}}, {})
        with pytest.warns(EdxdenoiseWarning, match="Image 'SE' is left out: .*bad block"):
            assert self.names(signal, _image("BSE")) == ["BSE"]


class TestStages:
    def test_crop_is_that_of_the_counts(self):
        ds = a_map(detectors="HAADF BF")
        part = crop(ds, y=(1, 3), x=(2, 6), energy=(0, 0.3))
        np.testing.assert_array_equal(part.image, ds.image[:, 1:3, 2:6])

    def test_rebin_averages(self):
        ds = a_map(detectors="HAADF")
        coarse = rebin(ds, xy=2).image
        blocks = ds.image.values[0].reshape(2, 2, 3, 2)
        np.testing.assert_allclose(coarse.values[0], blocks.mean(axis=(1, 3)))
        assert coarse.dtype == np.float32 and list(coarse.detector.values) == ["HAADF"]

    def test_rebin_of_channels_leaves_images(self):
        ds = a_map(detectors="HAADF")
        xr.testing.assert_identical(rebin(ds, energy=2).image, ds.image)

    def test_stack_has_every_detector_and_unstack_gives_back_what_was(self):
        maps = [a_map(3, detectors="SE BSE"), a_map(4), a_map(5, detectors="BSE")]
        stacked = stack(maps)
        assert list(stacked.detector.values) == ["SE", "BSE"] and stacked.image.dtype == np.float32
        missing = np.isnan(stacked.image.values).all(axis=2)
        np.testing.assert_array_equal(missing, [[0] * 3 + [1] * 9, [0] * 3 + [1] * 4 + [0] * 5])
        for part, ds in zip(unstack(stacked), maps):
            assert ("image" in part) == ("image" in ds)
            if "image" in ds:
                np.testing.assert_array_equal(part.image, ds.image)
                assert list(part.detector.values) == list(ds.detector.values)
        assert "image" not in crop(stacked, y=(3, 7))

    def test_stack_of_equal_detectors_keeps_the_type(self):
        assert stack([a_map(3, detectors="SE"), a_map(4, detectors="SE")]).image.dtype == np.uint16

    def test_rebin_of_a_stack(self):
        maps = [a_map(4, detectors="SE"), a_map(6)]
        coarse = rebin(stack(maps), xy=2)
        expected = stack([rebin(ds, xy=2) for ds in maps])
        xr.testing.assert_equal(coarse.image, expected.image)

    def test_thinning_keeps_image_and_measured(self):
        missing = np.zeros((4, 6), bool)
        missing[0, 1] = True
        ds = a_map(detectors="SE", missing=missing)
        for part in thin(ds):
            xr.testing.assert_identical(part.image, ds.image)
            xr.testing.assert_identical(part.measured, ds.measured)

    @pytest.mark.parametrize("suffix", [".zarr", ".nc", ".hspy"])
    @pytest.mark.parametrize("lazy", [False, True])
    def test_saved_and_read_again(self, tmp_path, suffix, lazy):
        missing = np.zeros((4, 6), bool)
        missing[2, 1:3] = True
        ds = a_map(detectors="SE BSE", missing=missing)
        save_dataset(ds.chunk({"y": 2}) if lazy else ds, tmp_path / f"a{suffix}")
        again = read_cube(tmp_path / f"a{suffix}")
        np.testing.assert_array_equal(again.counts, ds.counts)
        np.testing.assert_array_equal(again.measured, ~missing)
        assert again.measured.dtype == np.int8 and again.image.dtype == ds.image.dtype
        for name in ds.detector.values:
            np.testing.assert_array_equal(
                again.image.sel(detector=name), ds.image.sel(detector=name)
            )

    def test_stays_lazy(self):
        ds = a_map(detectors="SE").chunk({"y": 2})
        ds = ds.assign(image=ds.image.compute())
        with nothing_computed():
            stack([rebin(crop(ds, y=(0, 4)), xy=2)] * 2)


class TestGuide:
    def test_choice(self):
        ds = a_map(detectors="HAADF BF")
        assert list(guide_images(ds)) == ["HAADF", "BF"]
        assert list(guide_images(ds, "BF")) == ["BF"]
        assert guide_images(ds, "none") == guide_images(a_map()) == {}
        np.testing.assert_array_equal(guide_images(ds, "BF")["BF"], ds.image[1])

    def test_unknown_name(self):
        with pytest.raises(ParameterError, match="'BSE' is not in the map, which has HAADF, BF;"):
            guide_images(a_map(detectors="HAADF BF"), "BSE")

    def test_image_of_some_areas(self):
        ds = stack([a_map(3, detectors="SE BSE"), a_map(4, detectors="BSE")])
        assert list(guide_images(ds)) == ["BSE"]
        with pytest.raises(ParameterError, match="'SE' was not recorded in every area"):
            guide_images(ds, "SE")

    def test_wrong_dims(self):
        ds = a_map(detectors="SE")
        with pytest.raises(SchemaError, match="'image' has dims"):
            guide_images(ds.assign(image=ds.image.transpose("y", "x", "detector")))


class TestMissing:
    def test_nan_marks_pixels(self):
        missing = np.zeros((4, 6), bool)
        missing[1, 2:5] = True
        ds = a_map(missing=missing)
        assert ds.counts.dtype == np.uint8
        np.testing.assert_array_equal(measured_pixels(ds), ~missing)
        assert not ds.counts.values[missing].any() and ds.counts.values[~missing].all()

    def test_pixel_without_counts_was_measured(self):
        counts = np.ones((3, 4, 5))
        counts[1, 1] = 0
        assert "measured" not in cube(counts) and measured_pixels(cube(counts)).all()

    def test_pixel_that_is_nan_in_part_is_an_error(self):
        counts = np.ones((3, 4, 5))
        counts[1, 1, 2] = np.nan
        with pytest.raises(DataError, match="NaN"):
            denoise(cube(counts), Denoise(select="all"))

    @pytest.mark.parametrize("lazy", [False, True])
    def test_mask(self, lazy):
        missing = np.zeros((4, 6), bool)
        missing[0, 0] = True
        ds = a_map()
        marked = mark_missing(ds.chunk({"y": 2}) if lazy else ds, missing)
        assert (marked.counts.chunks is not None) == lazy and marked.counts.dtype == ds.counts.dtype
        assert not marked.counts[0, 0].any() and "measured" not in ds
        missing[3, 5] = True
        again = mark_missing(marked, missing)
        np.testing.assert_array_equal(measured_pixels(again), ~missing)
        assert mark_missing(ds, np.zeros((4, 6), bool)) is ds

    @pytest.mark.parametrize(
        ("mask", "message"),
        [
            (np.zeros((6, 4), bool), "mask of missing pixels has 6 x 4 pixels, the map has 4 x 6"),
            (np.ones((4, 6), bool), "all pixels of the map are marked as missing"),
        ],
    )
    def test_wrong_mask(self, mask, message):
        with pytest.raises(ParameterError, match=message):
            mark_missing(a_map(), mask)

    def test_crop_rebin_and_stack(self):
        missing = np.zeros((4, 6), bool)
        missing[:2, :2] = missing[2, 5] = True
        ds = a_map(missing=missing)
        np.testing.assert_array_equal(crop(ds, y=(1, 4)).measured, ~missing[1:])
        assert "measured" not in crop(ds, x=(2, 5))
        coarse = rebin(ds, xy=2)
        np.testing.assert_array_equal(coarse.measured, [[0, 1, 1], [1, 1, 1]])
        np.testing.assert_allclose(coarse.exposure, [[0, 1, 1], [1, 1, 0.75]])
        stacked = stack([a_map(3), ds])
        np.testing.assert_array_equal(measured_pixels(stacked)[:3], True)
        np.testing.assert_array_equal(measured_pixels(stacked)[3:], ~missing)
        first, second = unstack(stacked)
        assert "measured" not in first
        xr.testing.assert_equal(second.measured, ds.measured)

    def test_option(self, tmp_path):
        """A mask by TIFF, one for each input, from the command line to the result."""
        phantom = phases((12, 14, 40))
        save_dataset(phantom, tmp_path / "a.zarr")
        mask = np.zeros((12, 14), np.uint8)
        mask[3, 4:8] = 255
        tifffile.imwrite(tmp_path / "mask.tif", mask)
        arguments = ["denoise", str(tmp_path / "a.zarr"), "-o", str(tmp_path / "out.nc")]
        arguments += ["--missing", str(tmp_path / "mask.tif"), "--select", "elbow"]
        result = CliRunner().invoke(main, [*arguments, "--components", "8"])
        assert result.exit_code == 0, result.output
        with xr.open_dataset(tmp_path / "out.nc") as out:
            np.testing.assert_array_equal(out.measured, mask == 0)
        recipe = CliRunner().invoke(main, [*arguments, "--print-recipe"]).output
        assert Recipe.from_toml(recipe).input.missing == (str(tmp_path / "mask.tif"),)
        again = CliRunner().invoke(main, [*arguments, "--missing", "b.tif", "--print-recipe"])
        assert again.exit_code == 2 and "2 masks for 1 files" in again.output

    def test_map_that_was_stopped(self, shared_data, tmp_path):
        """A .ser says how many pixels were planned and, at byte 18, how many are valid."""
        for path in (shared_data / "small").glob("tia*"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
        whole = read_cube(tmp_path / "tia.emi")
        with open(tmp_path / "tia_1.ser", "r+b") as file:
            file.seek(18)
            file.write((13).to_bytes(4, "little"))
        with pytest.warns(EdxdenoiseWarning, match="stopped after 13 of 25 pixels; the rest is"):
            ds = read_cube(tmp_path / "tia.emi")
        np.testing.assert_array_equal(measured_pixels(ds).ravel(), np.arange(25) < 13)
        kept = measured_pixels(ds)
        np.testing.assert_array_equal(ds.counts.values[kept], whole.counts.values[kept])

    def test_mask_files(self, tmp_path):
        path = tmp_path / "mask.tif"
        for dtype in (bool, np.uint16, np.float32):
            tifffile.imwrite(path, np.eye(5, 6).astype(dtype))
            np.testing.assert_array_equal(read_mask(path), np.eye(5, 6) != 0)
        tifffile.imwrite(path, np.zeros((5, 6, 3), np.uint8), photometric="rgb")
        with pytest.raises(FormatError, match="is no mask: it must hold one image"):
            read_mask(path)


class TestInfo:
    def test_images(self, tmp_path):
        missing = np.zeros((4, 6), bool)
        missing[0, :3] = True
        save_dataset(a_map(detectors="SE BSE", missing=missing), tmp_path / "a.nc")
        result = CliRunner().invoke(main, ["info", str(tmp_path / "a.nc"), "--json"])
        found = json.loads(result.stdout)
        assert found["missing_pixels"] == 3 / 24 and found["empty_pixels"] == 0
        assert found["images"][1] == {
            "name": "BSE",
            "dtype": "uint16",
            "smallest": 24,
            "largest": 47,
            "mean": 35.5,
        }
        text = CliRunner().invoke(main, ["info", str(tmp_path / "a.nc")]).stdout
        assert re.search(r"image BSE +uint16, from 24 to 47, mean 35\.5", text)
        assert re.search(r"not measured +12\.5% of pixels", text)


def test_unknown_image_is_one_line(tmp_path):
    save_dataset(a_map(12, 14, detectors="SE BSE"), tmp_path / "a.nc")
    arguments = ["denoise", str(tmp_path / "a.nc"), "-o", str(tmp_path / "b.nc")]
    result = CliRunner().invoke(main, [*arguments, "--image", "HAADF"])
    assert result.exit_code == 1 and not (tmp_path / "b.nc").exists()
    assert "'HAADF' is not in the map, which has SE, BSE; use auto, none or one" in result.output


class TestPhantom:
    def test_image_of_the_specimen_is_alike_in_like_pixels(self):
        for preset, name in (("core-shell", "HAADF"), ("mineral", "BSE")):
            ds = simulate(preset, shape=(48, 48), channels=64, images=["specimen"])
            assert list(ds.detector.values) == [name] and ds.image.dtype == np.uint16
            kind = ds.phase_map.values.reshape(ds.sizes["phase"], -1).T
            assert _explained(kind, ds.image.values[0].ravel()) > 0.98

    def test_unrelated_image(self):
        shares = []
        for seed in range(4):
            ds = simulate("core-shell", shape=(64, 64), channels=64, seed=seed, images=IMAGES)
            assert list(ds.detector.values) == ["HAADF", "unrelated"]
            kind = ds.phase_map.values.reshape(ds.sizes["phase"], -1).T
            shares.append(_explained(kind, ds.image.values[1].ravel()))
            # It has structure of its own: neighbours are alike.
            image = ds.image.values[1].astype(float)
            assert np.corrcoef(image[:, 1:].ravel(), image[:, :-1].ravel())[0, 1] > 0.7
        assert np.mean(shares) < 0.15

    def test_counts_do_not_depend_on_images(self):
        plain, with_images = (
            simulate("mineral", shape=(32, 32), channels=64, images=kinds)
            for kinds in ((), ("unrelated", "specimen"))
        )
        np.testing.assert_array_equal(plain.counts, with_images.counts)
        assert "image" not in plain
        alone = simulate("mineral", shape=(32, 32), channels=64, images=["specimen"])
        np.testing.assert_array_equal(
            alone.image.sel(detector="BSE"), with_images.image.sel(detector="BSE")
        )

    def test_unknown_kind(self):
        with pytest.raises(ParameterError, match="'HAADF' is not known; allowed are specimen,"):
            simulate("mineral", images=["HAADF"])


def _explained(predictors: np.ndarray, image: np.ndarray) -> float:
    """Share of an image's variance that a linear fit of the predictors explains."""
    design = np.column_stack([predictors, np.ones(len(image))])
    residual = image - design @ np.linalg.lstsq(design, image, rcond=None)[0]
    return float(1 - residual.var() / image.var())


@pytest.mark.slow
def test_from_simulation_to_report(tmp_path):
    """Image and mask go through crop, rebin and denoising to quantified maps and pictures."""
    phantom, mask = tmp_path / "phantom.zarr", tmp_path / "mask.tif"
    arguments = ["--preset", "core-shell", "--shape", "32x40", "--image", "specimen"]
    arguments += ["--counts-per-pixel", "400", "--channels", "250"]
    run("simulate", phantom, *arguments)
    missing = np.zeros((32, 40), np.uint8)
    missing[8:10, 10:14] = 1
    tifffile.imwrite(mask, missing)
    prepare = ["--rebin-xy", "2", "--crop-y", "4:32", "--select", "elbow", "--components", "12"]
    run("denoise", phantom, "-o", tmp_path / "a.zarr", "--missing", mask, *prepare)
    factors = ["--k-factor", "Fe_Ka=1.2", "--k-factor", "Pt_La=4"]
    output = ["-o", tmp_path / "maps.nc", "--report", tmp_path / "report"]
    run("quantify", tmp_path / "a.zarr", *output, *factors)
    expected = rebin(crop(read_cube(phantom), y=(4, 32)), xy=2).image
    for path in (tmp_path / "a.zarr", tmp_path / "maps.nc"):
        ds = open_dataset(path)
        np.testing.assert_allclose(ds.image, expected, rtol=1e-6)
        assert list(ds.detector.values) == ["HAADF"]
        np.testing.assert_array_equal(ds.measured, missing[4::2, ::2] == 0)
    pictures = {path.name for path in (tmp_path / "report" / "maps").iterdir()}
    assert {"HAADF_image.png", "HAADF_image.tif"} <= pictures


def run(*arguments: object) -> None:
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
