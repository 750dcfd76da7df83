"""Every vendor's file gives the right counts, axes and attributes."""

import json
import math
import zipfile
from pathlib import Path
from typing import NamedTuple

import dask.array as da
import numpy as np
import pytest
import rsciio.emd
import rsciio.jeol

from edxdenoise.errors import EdxdenoiseWarning, FormatError, MemoryLimitError, ParameterError
from edxdenoise.io.metadata import file_source
from edxdenoise.io.read import frame_events, holds_frames, read_cube
from edxdenoise.io.signals import list_signals
from edxdenoise.io.vendor.base import check_loss
from edxdenoise.run import convert_file
from edxdenoise.schema import COUNTS, validate


class Known(NamedTuple):
    file: str
    shape: tuple[int, int, int]
    dtype: str
    total: int
    energy: tuple[float, float]
    pixel: tuple[float, float, str]
    beam_energy: float | None
    take_off_angle: float | None
    elements: str | None
    signal: int | None = None


# Totals of .bcf, .spd and .elid agree with the sum spectra in those files to 0.1 %.
KNOWN = [
    Known(
        "bruker_tem_dust_256x256.bcf",
        (256, 256, 2048),
        "uint8",
        886553,
        (-0.470891225, 0.010003),
        (0.0130814447573835, 0.0130814447573835, "µm"),
        200,
        18,
        "Al C Ca Cr Cu Fe Ga Mg N Na O Pt S Si Ti",
    ),
    Known(
        "bruker_sem_dacite_22cpp.bcf",
        (75, 100, 2048),
        "uint8",
        165941,
        (-0.472397235, 0.010001),
        (8.73678506197786, 8.73678506197786, "µm"),
        20,
        35,
        None,
    ),
    Known(
        "bruker_sem_dacite_122cpp.bcf",
        (75, 100, 2048),
        "uint8",
        915942,
        (-0.472397235, 0.010001),
        (8.73678506197786, 8.73678506197786, "µm"),
        20,
        35,
        "Al Ca Cl Fe K Mg Na O P Si Ti",
    ),
    Known(
        "small/bruker_over16bit.bcf",
        (3, 4, 4096),
        "uint32",
        176786251,
        (-1.90077006, 0.020006),
        (515.887176865564, 515.887176865564, "µm"),
        10,
        35,
        "C",
    ),
    Known(
        "jeol_tem_64x64.pts",
        (64, 64, 4096),
        "uint8",
        1436255,
        (-0.96128318, 0.0100006),
        (0.00515625, 0.00515625, "µm"),
        200,
        21.5,
        None,
    ),
    Known(
        "fept_core_shell.hspy",
        (64, 64, 992),
        "uint32",
        884071,
        (0.16, 0.02),
        (0.5, 0.5, "nm"),
        200,
        35,
        "Fe Pt",
    ),
    Known(
        "edax_sem_256x231.zip/SEM_EDS_map.spd",
        (231, 256, 2000),
        "uint16",
        442301,
        (0, 0.005),
        (0.022832725, 0.024405945, "µm"),
        5,
        30.5,
        "Al C Fe N Na O Si",
    ),
    Known(
        "velox_v11.zip/Test SI 16x16 215 kx.emd",
        (16, 16, 4096),
        "uint8",
        42097,
        (-0.25, 0.01),
        (3.5992492559614684, 3.5992492559614684, "nm"),
        300,
        18,
        "C O Ca Cu",
    ),
    Known(
        "velox_eels_eds.zip/example_velox_EELS_EDS.emd",
        (16, 20, 4096),
        "uint8",
        11093,
        (-0.2, 0.01),
        (0.15865803795969113, 0.15865803795969113, "µm"),
        300,
        32.06,
        "O Fe Co",
    ),
    Known(
        "small/phenom.elid",
        (16, 16, 2048),
        "uint8",
        32790,
        (-0.03634370080990722, 0.00988676802994421),
        (1.2197240748650153, 1.2197240748650153, "µm"),
        15,
        28.5,
        None,
        signal=4,
    ),
    # All counts of this file are zero, and its rows run downwards.
    Known(
        "small/tia.emi",
        (5, 5, 4000),
        "uint8",
        0,
        (0, 0.005),
        (-4.258193731308558, 1.985914203270287, "nm"),
        200,
        None,
        None,
    ),
    Known(
        "small/tia_1.ser",
        (5, 5, 4000),
        "uint8",
        0,
        (0, 0.005),
        (-4.258193731308558, 1.985914203270287, "nm"),
        None,
        None,
        None,
    ),
]


@pytest.fixture(scope="module")
def unpacked(shared_data, tmp_path_factory):
    """Give the path of a file, taken out of its zip where its name has one."""
    folders = {}

    def find(name: str) -> Path:
        if ".zip/" not in name:
            return shared_data / name
        archive, member = name.split("/", 1)
        if archive not in folders:
            folders[archive] = tmp_path_factory.mktemp(archive.removesuffix(".zip"))
            with zipfile.ZipFile(shared_data / archive) as file:
                file.extractall(folders[archive])
        return next(folders[archive].rglob(member))

    return find


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.file)
def test_known_file(unpacked, known):
    path = unpacked(known.file)
    ds = read_cube(path, signal=known.signal)
    validate(ds, COUNTS)
    assert isinstance(ds.counts.data, da.Array)
    assert type(ds.counts.data._meta) is np.ndarray
    assert ds.counts.shape == known.shape
    assert ds.counts.dtype == known.dtype
    counts = ds.counts.values
    assert counts.dtype == known.dtype
    assert counts.sum(dtype=np.uint64) == known.total
    energy = ds.energy.values
    np.testing.assert_allclose([energy[0], energy[1] - energy[0]], known.energy, atol=1e-9)
    assert ds.energy.attrs["units"] == "keV"
    steps = (np.diff(ds.y.values)[0], np.diff(ds.x.values)[0])
    np.testing.assert_allclose(steps, known.pixel[:2], rtol=1e-6)
    assert ds.y.attrs["units"] == ds.x.attrs["units"] == known.pixel[2]
    assert ds.attrs.get("beam_energy") == known.beam_energy
    assert ds.attrs.get("take_off_angle") == pytest.approx(known.take_off_angle, abs=1e-3)
    assert ds.attrs.get("elements") == (known.elements.split() if known.elements else None)
    assert all(
        type(ds.attrs[name]) is float
        for name in ("beam_energy", "take_off_angle", "live_time", "real_time", "stage_tilt")
        if name in ds.attrs
    )
    assert isinstance(json.loads(ds.attrs["original_metadata"]), dict)
    assert ds.attrs["source"] == file_source(path)
    assert ds.attrs["title"]


def test_attributes_the_readers_leave_out(unpacked):
    jeol = read_cube(unpacked("jeol_tem_64x64.pts")).attrs
    assert jeol["live_time"] == pytest.approx(993.85)
    assert jeol["real_time"] == pytest.approx(1023.8)
    assert jeol["detector_resolution"] == 133
    assert jeol["instrument"] == "TEM"
    velox = read_cube(unpacked("velox_v11.zip/Test SI 16x16 215 kx.emd")).attrs
    assert velox["live_time"] == pytest.approx(0.2493, abs=1e-4)
    # Four detectors have no one azimuth.
    assert "azimuth_angle" not in velox
    dacite = read_cube(unpacked("bruker_sem_dacite_22cpp.bcf")).attrs
    assert dacite["instrument"] == "SEM"
    assert dacite["stage_tilt"] == 0.5
    assert "detector_resolution" not in dacite


def test_map_in_chunks_is_not_read_as_a_whole(unpacked):
    for name in ("fept_core_shell.hspy", "edax_sem_256x231.zip/SEM_EDS_map.spd"):
        assert read_cube(unpacked(name)).counts.data.npartitions > 1


def test_two_doses_show_the_same_rock(unpacked):
    """Rows, columns and energies lie where they belong: the iron of both maps is at one place."""
    noisy, better = (
        read_cube(unpacked(f"bruker_sem_dacite_{dose}cpp.bcf"))
        .counts.sel(energy=slice(6.3, 6.5))
        .sum("energy", dtype=int)
        .values
        for dose in (22, 122)
    )

    def alike(image):
        return np.corrcoef(image.ravel(), better.ravel())[0, 1]

    assert alike(noisy) > 0.4
    assert max(alike(noisy[::-1]), alike(noisy[:, ::-1]), alike(noisy[::-1, ::-1])) < 0.2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("bruker_sem_dacite_22cpp.bcf", {"select_type": "spectrum_image"}),
        ("fept_core_shell.hspy", {}),
        ("jeol_tem_64x64.pts", {}),
        ("small/tia.emi", {}),
        ("velox_v11.zip/Test SI 16x16 215 kx.emd", {"select_type": "spectrum_image"}),
    ],
)
def test_parity_with_hyperspy(unpacked, name, options):
    hs = pytest.importorskip("hyperspy.api")
    path = unpacked(name)
    theirs = hs.load(str(path), **options)
    ours = read_cube(path)
    np.testing.assert_array_equal(ours.counts.values, theirs.data)
    to_kev = {"keV": 1, "eV": 1e-3}[theirs.axes_manager[-1].units]
    np.testing.assert_allclose(ours.energy, theirs.axes_manager[-1].axis * to_kev, atol=1e-9)
    np.testing.assert_allclose(ours.x, theirs.axes_manager[0].axis, rtol=1e-9)
    np.testing.assert_allclose(ours.y, theirs.axes_manager[1].axis, rtol=1e-9)
    assert ours.x.attrs["units"] == theirs.axes_manager[0].units


def test_bruker_pixel_far_above_the_mean_does_not_overflow(shared_data, monkeypatch):
    from rsciio.bruker._api import HyperHeader

    monkeypatch.setattr(HyperHeader, "estimate_map_depth", lambda self, **_: np.uint16)
    path = shared_data / "small" / "bruker_over16bit.bcf"
    counts = read_cube(path).counts.values
    assert counts.max() == 2455131
    assert counts.sum(dtype=np.uint64) == 176786251


@pytest.mark.parametrize(("size", "dtype"), [("64x64", np.uint8), ("08x08", np.uint16)])
def test_jeol_counts_are_those_of_rosettasciio(shared_data, tmp_path, size, dtype):
    """Fewer pixels are sums of those that there are, and hold more counts than 8 bits do."""
    path = tmp_path / "a.pts"
    path.write_bytes(
        (shared_data / "jeol_tem_64x64.pts").read_bytes().replace(b"64x64", size.encode())
    )
    (item,) = rsciio.jeol.file_reader(str(path), SI_dtype=np.uint32)
    ds = read_cube(path)
    assert ds.counts.dtype == dtype
    np.testing.assert_array_equal(ds.counts, item["data"])
    for name, axis in zip("yx", item["axes"]):
        np.testing.assert_allclose(ds[name], axis["scale"] * np.arange(axis["size"]))


def jeol_file(source, out, change, size=b"64x64"):
    """Write a .pts whose events are changed."""
    start = int(np.fromfile(source, "<u4", 1, offset=28)[0])
    content = source.read_bytes()
    events = np.frombuffer(content[start:], "<u2").copy()
    change(events)
    out.write_bytes(content[:start].replace(b"64x64", size) + events.tobytes())
    return out


def test_jeol_sweep_that_was_interrupted_is_left_out(shared_data, tmp_path):
    def interrupt(events):
        # The last line of the last sweep is none any more.
        events[np.flatnonzero(events == 0x9000 + 4096 - 64)[-1] :] = 0

    source = shared_data / "jeol_tem_64x64.pts"
    path = jeol_file(source, tmp_path / "a.pts", interrupt)
    (item,) = rsciio.jeol.file_reader(str(path))
    with pytest.warns(EdxdenoiseWarning):
        ds = read_cube(path)
    np.testing.assert_array_equal(ds.counts, item["data"])
    assert 0.97 < ds.counts.sum() / read_cube(source).counts.sum() < 0.99


def frames_of_rosettasciio(path, number):
    if path.suffix == ".pts":
        return rsciio.jeol.file_reader(str(path), frame_list=[number])[0]["data"]
    options = {"lazy": True, "first_frame": number, "last_frame": number + 1}
    return rsciio.emd.file_reader(str(path), select_type="spectrum_image", **options)[0]["data"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "frames"),
    [("jeol_tem_64x64.pts", 50), ("velox_v11.zip/Test SI 16x16 215 kx.emd", 2)],
)
def test_frames(unpacked, tmp_path, name, frames):
    path = unpacked(name)
    convert_file(path, tmp_path / "kept.zarr", frames="keep")
    kept = read_cube(tmp_path / "kept.zarr")
    assert kept.attrs["frames"] == frames
    assert not {"event_number", "event_frame"} & kept.variables.keys()
    whole = kept["counts"].values
    by_frame = frame_events(tmp_path / "kept.zarr").by_frame()
    assert by_frame.shape == (frames, whole.shape[2])
    np.testing.assert_array_equal(by_frame.sum(axis=0), whole.sum(axis=(0, 1)))
    last = read_cube(path, frames=(-1, math.inf))
    assert not {"live_time", "real_time"} & last.attrs.keys()
    last = last["counts"].values
    np.testing.assert_array_equal(last, frames_of_rosettasciio(path, frames - 1))
    np.testing.assert_array_equal(by_frame[-1], last.sum(axis=(0, 1)))
    others = read_cube(tmp_path / "kept.zarr", frames=(0, frames - 1))["counts"].values
    np.testing.assert_array_equal(others.astype(int) + last, whole)
    with pytest.raises(ParameterError, match=f"frames 1:{frames + 1} of .*from 0:{frames}"):
        read_cube(tmp_path / "kept.zarr", frames=(1, frames + 1))
    part = read_cube(tmp_path / "kept.zarr", frames=(-1, math.inf))
    assert part.attrs["frames"] == 1 and "live_time" in kept.attrs.keys() - part.attrs.keys()
    np.testing.assert_array_equal(part.counts, last)
    convert_file(tmp_path / "kept.zarr", tmp_path / "summed.zarr")
    assert not holds_frames(tmp_path / "summed.zarr")
    with pytest.raises(ParameterError, match="summed.zarr' does not hold frames apart.*keep"):
        read_cube(tmp_path / "summed.zarr", frames=(0, 1))
    with pytest.raises(ParameterError, match="a.hspy' cannot keep frames apart; name a .zarr"):
        convert_file(path, tmp_path / "a.hspy", frames="keep")


@pytest.mark.parametrize("name", ["bruker_sem_dacite_22cpp.bcf", "fept_core_shell.hspy"])
def test_files_without_frames(shared_data, name):
    for read in (lambda path: read_cube(path, frames=(0, 1)), frame_events):
        with pytest.raises(ParameterError, match="does not hold frames apart.*--frames"):
            read(shared_data / name)


@pytest.mark.slow
def test_rosettasciio_loses_lines_of_high_maps_lazily(shared_data, tmp_path):
    """Once it does not, events need not be sorted in `edxdenoise.io.vendor.jeol`."""

    def halve_columns(events):
        events[events >> 12 == 8] &= 0xFFFF - 64

    source = shared_data / "jeol_tem_64x64.pts"
    high = jeol_file(source, tmp_path / "a.pts", halve_columns, b"32x64")
    items = [
        rsciio.jeol.file_reader(str(path), lazy=True, frame_list=[0])[0] for path in (source, high)
    ]
    totals = [int(item["data"].sum().compute()) for item in items]
    assert totals[1] < 0.9 * totals[0]


def parsed(signals):
    """Counts of the map of a .pts, parsed in this process and not in a child of it."""
    (load,) = [signal.load for signal in signals if signal.load is not None]
    return np.asarray(load().data)


def test_map_that_lacks_counts_is_not_read_silently(shared_data, monkeypatch):
    from edxdenoise.io.vendor import jeol

    path = shared_data / "jeol_tem_64x64.pts"
    # One of the 50 sweeps may be unfinished; no more may be missing. No counts: a line scan.
    for share in (0.85, 0):
        monkeypatch.setattr(jeol, "_bounds", lambda events, *_: [0, int(share * len(events))])
        with pytest.raises(FormatError, match=f"{path.name}.* counts of its own sum spectrum"):
            parsed(jeol.open_pts(path))


@pytest.mark.parametrize(("found", "outcome"), [(98, "read"), (95, "warned"), (90, "refused")])
def test_share_of_counts_that_may_be_missing(found, outcome, recwarn):
    spectrum = np.array([50, 50])
    if outcome == "refused":
        with pytest.raises(FormatError, match="'a.pts': its map holds only 90 of the 100"):
            check_loss(Path("a.pts"), found, spectrum, allowed=0.05)
    elif outcome == "warned":
        with pytest.warns(EdxdenoiseWarning, match="'a.pts': its map holds only 95 of the 100"):
            check_loss(Path("a.pts"), found, spectrum, allowed=0.05)
    else:
        check_loss(Path("a.pts"), found, spectrum, allowed=0.05)
    check_loss(Path("a.pts"), found, None)
    assert not recwarn.list


def test_memory_limit_is_kept_before_anything_is_parsed(shared_data, monkeypatch):
    from edxdenoise.io.vendor import bruker, jeol

    monkeypatch.setattr(jeol, "run_plugin", None)
    monkeypatch.setattr(bruker, "check_loss", None)
    for name, needed in (
        ("jeol_tem_64x64.pts", "62 MB"),
        ("bruker_sem_dacite_22cpp.bcf", "15.4 MB"),
    ):
        with pytest.raises(MemoryLimitError, match=f"{name}.*{needed}.*limit is 1 MB"):
            read_cube(shared_data / name, memory_limit=10**6)


def test_nothing_reaches_the_terminal(unpacked, capfd):
    for name in ("velox_v11.zip/Test SI 16x16 ReducedData 215 kx.emd", "bad/Nope.bcf"):
        with pytest.raises(FormatError):
            read_cube(unpacked(name))
    read_cube(unpacked("velox_eels_eds.zip/example_velox_EELS_EDS.emd"))
    assert capfd.readouterr() == ("", "")


def write_ripple(path: Path, counts: np.ndarray, **header: object) -> Path:
    """Write counts (height, width, depth) and what the header should say besides."""
    rows = {"width": counts.shape[1], "height": counts.shape[0], "depth": counts.shape[2]}
    rows |= {"offset": 0, "data-length": counts.dtype.itemsize}
    rows["data-type"] = {"u": "unsigned", "i": "signed", "f": "float"}[counts.dtype.kind]
    rows |= {"byte-order": "little-endian", "record-by": "vector"}
    rows |= {key.replace("_", "-"): value for key, value in header.items()}
    if rows["record-by"] == "image":
        counts = counts.transpose(2, 0, 1)
    path.write_text("key\tvalue\n" + "".join(f"{key}\t{value}\n" for key, value in rows.items()))
    counts.tofile(path.with_suffix(".raw"))
    return path


@pytest.fixture
def counts():
    return np.random.default_rng(0).poisson(2, (3, 4, 6)).astype(np.uint16)


def test_ripple_without_calibration_is_read_with_a_warning(shared_data):
    path = shared_data / "small" / "ripple_uncalibrated.rpl"
    with pytest.warns(EdxdenoiseWarning, match="no energy calibration"):
        ds = read_cube(path)
    assert ds.counts.shape == (3, 4, 1024)
    assert ds.counts.dtype == np.uint16
    assert ds.counts.values.sum(dtype=int) == 232786
    assert ds.energy.attrs["units"] == "channel"
    assert ds.x.attrs["units"] == "pixel"
    raw = np.fromfile(path.with_suffix(".raw"), "<u2").reshape(3, 4, 1024)
    np.testing.assert_array_equal(ds.counts, raw)


@pytest.mark.parametrize(
    ("header", "width"),
    [
        ({"ev_per_chan": 20.0}, 0.02),
        ({"depth_scale": 0.01, "depth_units": "keV"}, 0.01),
        ({"depth_scale": 5.0, "depth_units": "eV", "ev_per_chan": 5}, 0.005),
    ],
)
def test_ripple_calibration(tmp_path, counts, header, width):
    ds = read_cube(write_ripple(tmp_path / "a.rpl", counts, **header))
    np.testing.assert_allclose(ds.energy, width * np.arange(6))
    assert ds.energy.attrs["units"] == "keV"


def test_foreign_byte_order_is_turned(tmp_path, counts):
    foreign = counts.astype(">u2")
    ds = read_cube(
        write_ripple(tmp_path / "a.rpl", foreign, byte_order="big-endian", ev_per_chan=5)
    )
    np.testing.assert_array_equal(ds.counts, counts)
    assert ds.counts.dtype.byteorder == ds.counts.values.dtype.byteorder == "="
    little = read_cube(write_ripple(tmp_path / "b.rpl", counts, ev_per_chan=5))
    assert little.counts.dtype.byteorder == little.counts.values.dtype.byteorder == "="


def test_ripple_stack_of_images_is_turned(tmp_path, counts):
    path = write_ripple(tmp_path / "a.rpl", counts, record_by="image", ev_per_chan=10)
    ds = read_cube(path)
    np.testing.assert_array_equal(ds.counts, counts)
    (info,) = list_signals(path)
    assert info.shape == (3, 4, 6)


def test_units_of_the_map_are_made_one(tmp_path, counts):
    header = {"width_scale": 2.0, "width_units": "nm", "height_scale": 0.5, "height_units": "um"}
    ds = read_cube(write_ripple(tmp_path / "a.rpl", counts, ev_per_chan=10, **header))
    np.testing.assert_allclose(ds.x, [0, 2, 4, 6])
    np.testing.assert_allclose(ds.y, [0, 500, 1000])
    assert ds.y.attrs["units"] == "nm"


def test_own_file_is_opened(tmp_path, counts):
    ds = read_cube(write_ripple(tmp_path / "a.rpl", counts, ev_per_chan=10, title="sample"))
    ds.to_netcdf(tmp_path / "a.nc")
    ds.to_zarr(tmp_path / "a.zarr")
    for path in (tmp_path / "a.nc", tmp_path / "a.zarr"):
        again = read_cube(path)
        np.testing.assert_array_equal(again.counts, counts)
        assert isinstance(again.counts.data, da.Array)
        (info,) = list_signals(path)
        assert (info.title, info.kind, info.shape) == ("sample", "spectrum image", (3, 4, 6))


def test_hyperspy_file_by_another_extension(shared_data, tmp_path):
    for extension in (".hdf5", ".h5"):
        path = tmp_path / f"a{extension}"
        path.write_bytes((shared_data / "fept_core_shell.hspy").read_bytes())
        assert read_cube(path).counts.shape == (64, 64, 992)
