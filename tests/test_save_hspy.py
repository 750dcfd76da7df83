"""The .hspy file as HyperSpy and eXSpy see it."""

import json

import h5py
import numpy as np
import pytest
import xarray as xr

from edxdenoise import quantify, simulate
from edxdenoise.cube import make_cube, named_images
from edxdenoise.errors import FormatError, SchemaError, recorded
from edxdenoise.io import read_cube, save_dataset, to_hyperspy
from edxdenoise.run import describe_cube
from edxdenoise.schema import COUNTS_DENOISED

hs = pytest.importorskip("hyperspy.api")
exspy = pytest.importorskip("exspy")

ORIGINAL = {
    "Acquisition": {"Dwell/µs": 5.0, "": 1, "on": True, "off": None, "mixed": [1, "a", {"b": 2}]},
    "numbers": [1.5, 2.5],
    "words": ["a", "é"],
    "empty": [],
    "null\0text": "a\0b",
    "long": "x" * 200_000,
    "huge": 2**70,
}


@pytest.fixture
def cube() -> xr.Dataset:
    return make_cube(
        np.random.default_rng(0).poisson(2, (7, 5, 40)),
        energy=np.arange(40) * 0.1 - 0.2,
        y=np.arange(7) * 2.5 + 10,
        x=np.arange(5) * 2.5,
        spatial_units="nm",
        attrs={
            "title": "Control 1/2",
            "instrument": "TEM",
            "beam_energy": 200.0,
            "live_time": 12.5,
            "real_time": 14.0,
            "take_off_angle": 22.0,
            "azimuth_angle": 45.0,
            "stage_tilt": 10.0,
            "detector_resolution": 132.0,
            "elements": ["Pb", "I"],
            "source": "a.emd sha256:00",
            "original_metadata": json.dumps(ORIGINAL),
        },
    )


@pytest.mark.parametrize("chunks", [None, {"y": 3, "x": 2}])
@pytest.mark.parametrize("lazy", [False, True])
def test_axes_metadata_and_counts(cube, tmp_path, chunks, lazy, caplog):
    save_dataset(cube if chunks is None else cube.chunk(chunks), tmp_path / "out.hspy")
    signal = hs.load(tmp_path / "out.hspy", lazy=lazy)
    assert type(signal).__name__ == ("LazyEDSTEMSpectrum" if lazy else "EDSTEMSpectrum")
    data = signal.data.compute() if lazy else signal.data
    assert data.dtype == np.uint8
    np.testing.assert_array_equal(data, cube["counts"])
    x, y, energy = signal.axes_manager["x"], signal.axes_manager["y"], signal.axes_manager["Energy"]
    assert (y.scale, y.offset, y.units, x.scale, x.offset) == (2.5, 10, "nm", 2.5, 0)
    np.testing.assert_allclose(energy.axis, cube["energy"], atol=1e-12)
    assert energy.units == "keV" and energy.is_binned
    assert signal.metadata.General.title == "Control 1/2"
    microscope = signal.metadata.Acquisition_instrument.TEM
    assert microscope.beam_energy == 200 and microscope.Stage.tilt_alpha == 10
    detector = microscope.Detector.EDS
    assert (detector.live_time, detector.real_time) == (12.5, 14)
    assert (detector.azimuth_angle, detector.energy_resolution_MnKa) == (45, 132)
    # Ours is that of the untilted specimen; eXSpy adds the tilt.
    assert detector.elevation_angle == 22
    assert signal.get_take_off_angle() == pytest.approx(28.866, abs=1e-3)
    assert list(signal.metadata.Sample.elements) == ["Pb", "I"]
    assert signal.metadata.edxdenoise.source == "a.emd sha256:00"
    # eXSpy can work with it.
    signal.add_lines(["Pb_Ma"])
    assert signal.metadata.Sample.xray_lines == ["Pb_Ma"]
    assert caplog.records == []


def test_original_metadata(cube, tmp_path, caplog):
    save_dataset(cube, tmp_path / "out.hspy")
    tree = hs.load(tmp_path / "out.hspy").original_metadata.as_dictionary()
    assert tree["Acquisition"]["Dwell-µs"] == 5 and tree["Acquisition"]["_"] == 1
    assert tree["Acquisition"]["on"] is True and tree["Acquisition"]["off"] is None
    assert tree["Acquisition"]["mixed"][2] == {"b": 2}
    assert tree["words"] == ["a", "é"] and tree["empty"] == []
    assert tree["nulltext"] == "ab" and len(tree["long"]) == 200_000
    assert tree["huge"] == str(2**70)
    assert caplog.records == []


def test_denoised_counts_come_first(cube, tmp_path):
    cube["counts_denoised"] = COUNTS_DENOISED.array(cube["counts"].values * np.float32(0.5))
    save_dataset(cube.chunk({"y": 2}), tmp_path / "out.hspy")
    signal = hs.load(tmp_path / "out.hspy")
    assert signal.data.dtype == np.float32
    np.testing.assert_array_equal(signal.data, cube["counts_denoised"])


@pytest.mark.slow
def test_denoised_counts_below_zero_are_told_without_a_warning(cube, tmp_path):
    cube["counts_denoised"] = COUNTS_DENOISED.array(cube["counts"].values - np.float32(1))
    save_dataset(cube, tmp_path / "out.hspy")
    with recorded() as issued:
        assert describe_cube(tmp_path / "out.hspy")["result"] == "counts are denoised"
    assert not [each for each in issued if "negative" in str(each)]


@pytest.mark.parametrize(
    ("attrs", "kind"),
    [
        ({"instrument": "SEM", "beam_energy": 15.0}, "EDSSEMSpectrum"),
        ({"beam_energy": 15}, "EDSSEMSpectrum"),
        ({"beam_energy": 300.0}, "EDSTEMSpectrum"),
        ({}, "EDSTEMSpectrum"),
        ({"original_metadata": "no JSON", "title": ""}, "EDSTEMSpectrum"),
        ({"original_metadata": "[1, 2]", "elements": []}, "EDSTEMSpectrum"),
    ],
)
def test_little_is_known(cube, tmp_path, attrs, kind):
    cube.attrs = attrs
    save_dataset(cube, tmp_path / "out.hspy")
    assert type(hs.load(tmp_path / "out.hspy")).__name__ == kind


def test_stacked_areas_lie_below_each_other(cube, tmp_path):
    stacked = xr.concat([cube, cube], "y")
    save_dataset(stacked, tmp_path / "out.hspy")
    y = hs.load(tmp_path / "out.hspy").axes_manager["y"]
    assert (y.size, y.scale, y.offset) == (14, 2.5, 10)


def test_images_are_further_signals(cube, tmp_path):
    images = named_images(np.arange(70, dtype=np.uint16).reshape(2, 7, 5), ["HAADF", "A/B"])
    save_dataset(cube.assign(image=images), tmp_path / "out.hspy")
    found = {
        str(signal.metadata.General.title): signal for signal in hs.load(tmp_path / "out.hspy")
    }
    assert set(found) == {"HAADF", "A/B", "Control 1/2"}
    assert type(found["HAADF"]).__name__ == "Signal2D"
    np.testing.assert_array_equal(found["A/B"].data, images[1])
    y, x = found["HAADF"].axes_manager["y"], found["HAADF"].axes_manager["x"]
    assert (y.offset, y.scale, y.units, x.scale) == (10, 2.5, "nm", 2.5)
    assert not y.navigate and type(found["Control 1/2"]).__name__ == "EDSTEMSpectrum"


def test_maps_of_quantities_are_further_signals(tmp_path):
    phantom = simulate("core-shell", shape=(8, 9), channels=500, energy_width=0.02).compute()
    phantom = phantom.assign_coords(x=("x", 2.5 * np.arange(9), {"units": "nm"}))
    with recorded(show=False):
        maps = quantify(
            phantom, {"Fe_Ka": 1.2, "Pt_La": (4.0, 0.1)}, ratios=["Pt/Fe"], source="counts"
        )
    save_dataset(maps, tmp_path / "out.hspy")
    found = {str(s.metadata.General.title): s for s in hs.load(tmp_path / "out.hspy")}
    for title, expected, quantity in (
        ("Pt at%", maps.atomic_percent.sel(element="Pt"), "Atomic percent (at%)"),
        (
            "Fe at%, standard deviation",
            maps.atomic_percent_stddev.sel(element="Fe"),
            "Atomic percent (at%)",
        ),
        ("Pt/Fe", maps.ratio_map.sel(ratio="Pt/Fe"), "Ratio of atoms"),
        ("Fe_Ka net counts", maps.line_intensity.sel(line="Fe_Ka"), "X-rays (Counts)"),
    ):
        signal = found[title]
        np.testing.assert_array_equal(signal.data, expected)
        assert type(signal).__name__ == "Signal2D"
        assert signal.metadata.Signal.quantity == quantity
        x = signal.axes_manager["x"]
        assert (x.scale, x.units, x.navigate) == (2.5, "nm", False)
    assert list(found["Pt/Fe"].metadata.Sample.elements) == ["Pt", "Fe"]
    assert list(found["Fe_Ka net counts"].metadata.Sample.xray_lines) == ["Fe_Ka"]
    assert sum(s.data.ndim == 3 for s in found.values()) == 1 and len(found) == 11
    microscope = found["Pt/Fe"].metadata.Acquisition_instrument.TEM
    assert microscope.beam_energy == phantom.attrs["beam_energy"]
    # What `edxdenoise quantify` writes has no counts.
    save_dataset(maps.drop_vars("counts"), tmp_path / "maps.hspy")
    alone = {str(s.metadata.General.title) for s in hs.load(tmp_path / "maps.hspy")}
    assert alone == {title for title, s in found.items() if s.data.ndim == 2}
    with pytest.raises(SchemaError, match="no variable 'counts'"):
        to_hyperspy(maps.drop_vars("counts"))
    # Read again, they are no images that were recorded with the counts.
    assert "image" not in read_cube(tmp_path / "out.hspy")


def test_image_with_the_title_of_the_map(cube, tmp_path):
    image = named_images(np.zeros((1, 7, 5)), ["Control 1/2"])
    save_dataset(cube.assign(image=image), tmp_path / "out.hspy")
    assert sorted(signal.data.ndim for signal in hs.load(tmp_path / "out.hspy")) == [2, 3]


def test_changed_bit_of_the_counts_is_noticed(cube, tmp_path):
    path = tmp_path / "a.hspy"
    save_dataset(cube, path)
    with h5py.File(path) as file:
        (signal,) = file["Experiments"].values()
        chunk = signal["data"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(FormatError):
        read_cube(path).load()
