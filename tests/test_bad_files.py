"""A file that cannot be read gives one clear line; none is read with fewer counts than it holds."""

import asyncio
import errno
import operator
import os
import pickle
import re
import shutil
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path

import dask
import dask.array as da
import h5py
import numpy as np
import pytest
import zarr
from test_read import unpacked, write_ripple  # noqa: F401  (a fixture)
from zarr.codecs import BloscCodec

from edxdenoise.blocks import load
from edxdenoise.cube import make_cube
from edxdenoise.errors import (
    DataError,
    EdxdenoiseError,
    EdxdenoiseWarning,
    FormatError,
    MemoryLimitError,
    Rank,
    recorded,
    warn,
)
from edxdenoise.io import save_dataset
from edxdenoise.io.child import isolated
from edxdenoise.io.guard import reading
from edxdenoise.io.read import read_cube
from edxdenoise.io.signals import list_signals
from edxdenoise.io.vendor import jeol
from edxdenoise.simulation import simulate
from edxdenoise.survey import check_survey, survey

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
import faults  # noqa: E402


def assert_one_line(error: BaseException, name: str) -> None:
    assert name in str(error)
    assert "\n" not in str(error)
    assert ";" in str(error), "a line must also say what to do"


BAD = {
    "Nope.bcf": "no Bruker .bcf map",
    "empty.bcf": "empty",
    "empty.emd": "empty",
    "empty.hspy": "empty",
    "empty.pts": "empty",
    "hspy_ext_missing.hspy": "no X-ray map",
    "no_raw.rpl": "no_raw.raw' is missing",
    "none_metadata.hdf5": "no X-ray map",
    "short_raw.raw": "name its .rpl",
    "short_raw.rpl": "10000 of 24576 bytes",
}


@pytest.mark.parametrize("name", BAD)
def test_bad_file(shared_data, name):
    with pytest.raises(FormatError) as caught:
        read_cube(shared_data / "bad" / name)
    assert_one_line(caught.value, name)
    assert BAD[name] in str(caught.value)


def test_all_bad_files_are_tested(shared_data):
    assert set(os.listdir(shared_data / "bad")) == set(BAD)


CUT = [
    ("bruker_sem_dacite_22cpp.bcf", None, None),
    ("small/bruker_over16bit.bcf", None, None),
    ("jeol_tem_64x64.pts", None, None),
    ("fept_core_shell.hspy", None, None),
    ("velox_v11.zip/Test SI 16x16 215 kx.emd", None, None),
    ("edax_sem_256x231.zip/SEM_EDS_map.spd", None, None),
    ("small/phenom.elid", 4, None),
    ("small/tia_1.ser", None, None),
    ("small/tia.emi", None, "small/tia_1.ser"),
    ("small/ripple_uncalibrated.rpl", None, "small/ripple_uncalibrated.raw"),
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*no energy calibration")
@pytest.mark.parametrize(("name", "signal", "beside"), CUT, ids=[name for name, *_ in CUT])
def test_cut_file(unpacked, tmp_path, name, signal, beside):  # noqa: F811
    source = unpacked(name)
    whole = read_cube(source, signal=signal).counts.sum(dtype=np.uint64).compute()
    path = tmp_path / source.name
    shutil.copyfile(source, path)
    if beside:
        shutil.copyfile(unpacked(beside), tmp_path / unpacked(beside).name)
    size = path.stat().st_size
    lengths = [size * part // 13 for part in range(12, 0, -1)] + [1000, 300, 100, 7, 1]
    errors = 0
    for length in (size - 1, size - 100, *lengths):
        if not 0 < length < path.stat().st_size:
            continue
        os.truncate(path, length)
        try:
            counts = read_cube(path, signal=signal).counts.sum(dtype=np.uint64).compute()
        except EdxdenoiseError as error:
            assert_one_line(error, source.name)
            errors += 1
        else:
            # Some formats end in padding, or in what is not needed for the counts.
            assert counts == whole, f"{length} of {size} bytes lose counts silently"
            assert name.endswith((".bcf", ".emi", ".rpl"))
    assert errors >= 4


def test_cut_raw_data(tmp_path):
    counts = np.ones((3, 4, 6), np.uint16)
    path = write_ripple(tmp_path / "a.rpl", counts, ev_per_chan=10)
    for length in (143, 100, 1, 0):
        os.truncate(tmp_path / "a.raw", length)
        with pytest.raises(FormatError, match=f"a.rpl.* {length} of 144 bytes in 'a.raw'"):
            read_cube(path)


@pytest.mark.parametrize("name", [name for name, *_ in CUT[:1] + CUT[2:5] + CUT[6:7]])
def test_tail_of_zeros(unpacked, tmp_path, name):  # noqa: F811
    """As a copy over a broken line leaves it: the right length, the end empty."""
    content = unpacked(name).read_bytes()
    path = tmp_path / unpacked(name).name
    for part in (0.1, 0.5, 0.9):
        kept = int(part * len(content))
        path.write_bytes(content[:kept] + bytes(len(content) - kept))
        with pytest.raises(FormatError) as caught:
            read_cube(path, signal=4 if name.endswith(".elid") else None)
        assert_one_line(caught.value, path.name)


RUBBISH = ["bcf", "pts", "asw", "spd", "spc", "emd", "emi", "ser", "elid", "hspy", "rpl", "dm3"]
RUBBISH += ["dm4", "h5", "hdf5", "img", "xml", "csv", "mrc", "zspy", "msa", "tif", "nxs", "prz"]


@pytest.mark.parametrize("extension", [*RUBBISH, "nc", "BCF", "txt", "zip", ""])
def test_text_with_a_vendors_extension(tmp_path, extension):
    path = tmp_path / f"a.{extension}"
    path.write_text("This is text and no spectrum image.\n" * 30)
    with pytest.raises(FormatError) as caught:
        read_cube(path)
    assert_one_line(caught.value, path.name)


def test_unknown_extension_names_some_that_are_known(tmp_path):
    path = tmp_path / "a.xyz"
    path.write_text("text")
    for read in (read_cube, list_signals):
        with pytest.raises(FormatError, match=r"extension '\.xyz' is unknown; readable are \.bcf"):
            read(path)


def test_no_file_a_folder_no_right(tmp_path):
    with pytest.raises(FormatError, match="absent.bcf': it does not exist"):
        read_cube(tmp_path / "absent.bcf")
    (tmp_path / "folder.bcf").mkdir()
    with pytest.raises(FormatError, match="folder.bcf': it is a folder"):
        read_cube(tmp_path / "folder.bcf")
    for name in ("file.zarr", "empty.zarr"):
        (tmp_path / name).mkdir() if name == "empty.zarr" else (tmp_path / name).write_text("text")
        with pytest.raises(FormatError, match=f"{name}': it is no folder with a file zarr.json"):
            read_cube(tmp_path / name)
    ds = make_cube(np.ones((2, 3, 4), np.uint8), energy=np.arange(4.0))
    for suffix in (".bcf", ".nc", ".zarr", ".hspy"):
        path = tmp_path / f"locked{suffix}"
        path.write_bytes(b"AAMVHFSS") if suffix == ".bcf" else save_dataset(ds, path)
        path.chmod(0)
        with faults.unprivileged(), pytest.raises(FormatError, match="locked.*: no permission"):
            read_cube(path)
        path.chmod(0o700)


def test_chunk_without_permission_is_not_called_damaged(tmp_path):
    with pytest.raises(FormatError, match="a.zarr': no permission to read it"):
        with reading([tmp_path / "a.zarr"]):
            raise PermissionError(errno.EACCES, "Permission denied", "c/0/0/0")


def test_arrays_are_opened_one_by_one(tmp_path):
    """Zarr opens all at a time: what is left of that tells of itself when Python ends."""
    save_dataset(simulate("solar-cell", shape=(33, 50), channels=80), tmp_path / "a.zarr")
    (tmp_path / "a.zarr" / "counts" / "zarr.json").write_text('{"zarr')
    with pytest.raises(FormatError, match="a.zarr"):
        read_cube(tmp_path / "a.zarr")
    (loop,) = zarr.core.sync.loop
    assert asyncio.all_tasks(loop) == set()


@pytest.fixture(params=["alone", "beside a thread"])
def threads(request):
    """A process with and without another thread: children are then forked elsewhere."""
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    if request.param != "alone":
        thread.start()
    elif threading.active_count() > 1:
        pytest.skip("other threads run in this process")
    yield
    ended.set()
    if thread.ident:
        thread.join()


@pytest.mark.parametrize(
    ("work", "kind"),
    [
        (partial(next, iter(())), StopIteration),
        (partial(operator.getitem, {}, "Header"), KeyError),
        (partial(np.ones, (10**12,)), MemoryError),
        (partial(exec, "raise ZeroDivisionError('a\\nb')"), ZeroDivisionError),
        (partial(exec, "raise RuntimeError()"), RuntimeError),
    ],
)
def test_every_failure_of_a_reader_is_one_line(tmp_path, threads, work, kind):
    path = tmp_path / "a.bcf"
    path.write_text("text")
    with pytest.raises(FormatError) as caught:
        isolated(path, work)
    assert_one_line(caught.value, "a.bcf")
    assert isinstance(caught.value.__cause__, kind)


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (partial(signal.raise_signal, signal.SIGSEGV), "reader crashed .SIGSEGV.; the file"),
        (partial(time.sleep, 60), "reader has not ended after 0 s; .* --patience"),
        (partial(os._exit, 3), "reader crashed .exit status 3."),
    ],
)
def test_a_reader_that_crashes_or_never_ends_is_one_line(tmp_path, threads, work, words):
    path = tmp_path / "a.bcf"
    path.write_text("text")
    with dask.config.set({"edxdenoise.patience": 0.3}), pytest.raises(FormatError) as caught:
        isolated(path, work)
    assert_one_line(caught.value, "a.bcf")
    assert re.search(words, str(caught.value))


def test_byte_that_crashes_the_decoder(shared_data, tmp_path):
    content = bytearray((shared_data / "bruker_sem_dacite_22cpp.bcf").read_bytes())
    for bit in (0, 7):
        content[439065] ^= 1 << bit
        (tmp_path / "a.bcf").write_bytes(content)
        content[439065] ^= 1 << bit
        with pytest.raises(FormatError) as caught:
            read_cube(tmp_path / "a.bcf")
        assert_one_line(caught.value, "a.bcf")


@pytest.mark.parametrize(
    ("name", "place", "bit", "words"),
    [
        # A count in another channel, a pixel in another place, a count off the axis.
        ("bruker_sem_dacite_22cpp.bcf", 577074, 5, "1 of its 165941 counts are not where"),
        ("bruker_sem_dacite_22cpp.bcf", 424787, 2, "3 pixels are not in order"),
        ("bruker_sem_dacite_22cpp.bcf", 531792, 7, "1 pixels are not in order or not complete"),
        # The same with an event and a pixel; an event that becomes an image's, or nothing.
        ("jeol_tem_64x64.pts", 32768 + 2 * 2 + 1, 1, "1 of its 894349 counts are not where"),
        ("jeol_tem_64x64.pts", 32768 + 2 * 4, 7, "1 lines, pixels or events are not in"),
        ("jeol_tem_64x64.pts", 32768 + 2 * 2 + 1, 4, "1 lines, pixels or events are not in"),
        ("jeol_tem_64x64.pts", 32768 + 2 * 2 + 1, 7, "1 lines, pixels or events are not in"),
    ],
)
def test_changed_bit_is_noticed(shared_data, tmp_path, name, place, bit, words):
    content = bytearray((shared_data / name).read_bytes())
    content[place] ^= 1 << bit
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.warns(EdxdenoiseWarning, match=f"{name}': .*{words}") as caught:
        read_cube(path)
    assert [each.message.rank for each in caught] == [Rank.WRONG]


@pytest.mark.parametrize("suffix", [".zarr", ".nc"])
def test_changed_bit_of_ours_is_noticed(tmp_path, suffix):
    """Wherever in the file: in a chunk, the metadata or a label. Most of a small .nc is padding."""
    truth = cube(np.random.default_rng(0).poisson(3, (8, 9, 40)), lazy=False)
    path = tmp_path / f"a{suffix}"
    save_dataset(truth, path)
    parts = sorted(part for part in path.rglob("*") if part.is_file()) or [path]
    rng = np.random.default_rng(1)
    noticed = 0
    for part in np.repeat(parts, -(-60 // len(parts))):
        content = part.read_bytes()
        part.write_bytes(faults.flipped(content, rng))
        with recorded(show=False) as issued:
            try:
                ds = load(read_cube(path))
            except EdxdenoiseError as error:
                assert "\n" not in str(error)
                noticed += 1
            else:
                assert issued or (ds.counts.values == truth.counts.values).all()
                assert issued or (ds.energy.values == truth.energy.values).all()
                noticed += bool(issued)
        part.write_bytes(content)
    assert noticed > 3


@pytest.mark.parametrize("length", [0, 3, 15, 16, 100, -1])
def test_chunk_without_checksum_that_is_cut_short(tmp_path, length):
    """As other programs write them; the decoder would read past its end."""
    path = tmp_path / "a.zarr"
    ds = cube(np.random.default_rng(0).poisson(3, (8, 9, 40)).astype(np.uint16), lazy=False)
    ds.to_zarr(path, encoding={"counts": {"compressors": [BloscCodec()]}}, zarr_format=3)
    chunk = path / "counts" / "c" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:length])
    with pytest.raises(FormatError, match="a.zarr.* chunk 'counts/c/0/0/0' is damaged"):
        load(read_cube(path))


def test_changed_bit_of_an_edax_map_is_noticed(unpacked, tmp_path):  # noqa: F811
    """By the sum spectrum that lies beside the map, if it is that of the map."""
    source = unpacked("edax_sem_256x231.zip/SEM_EDS_map.spd")
    path = tmp_path / "a.spd"
    with open(source, "rb") as file:
        path.write_bytes(file.read(4 << 20))
    shutil.copyfile(source.with_suffix(".spc"), path.with_suffix(".spc"))
    faults.keep_lines(path, 2)
    content = path.read_bytes()
    counts = read_cube(path).counts
    counts = counts.values.astype(int)
    # Its last pixel: 2000 channels of 2 bytes.
    for place, bit, words in ((-3000, 3, "8 of its"), (-2999, 0, "256 of its")):
        changed = bytearray(content)
        changed[place] ^= 1 << bit
        path.write_bytes(changed)
        with pytest.warns(EdxdenoiseWarning, match=f"a.spd': {words} {counts.sum()} counts"):
            read_cube(path)
    shutil.copyfile(source.with_suffix(".spc"), path.with_suffix(".spc"))
    read_cube(path)


def test_below_its_zero_peak_a_pts_has_no_sum_spectrum_to_compare(shared_data):
    """Why changed bits go unnoticed there, where more than a third of the counts are."""
    path = shared_data / "jeol_tem_64x64.pts"
    header = jeol._header(path)
    spectrum = header["EDS Data"]["AnalyzableMap MeasData"]["Data"]["EDXRF"]
    sums = read_cube(path).counts.sum(["y", "x"], dtype=np.int64).values
    sums = sums[jeol._zero_channel(header) :]
    differing = np.flatnonzero(sums != spectrum[: len(sums)])
    assert (len(differing), differing.max()) == (48, 51)
    assert jeol._above_zero_peak(sums != spectrum[: len(sums)]) == 52
    assert sums[:52].sum() / sums.sum() == pytest.approx(0.37, abs=0.01)
    assert sums[:52].sum() - spectrum[:52].sum() == 16809


@pytest.mark.parametrize("suffix", [".hspy", ".nc"])
def test_damaged_block_names_the_file_once_it_is_read(tmp_path, suffix):
    path, other = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    save_dataset(cube(np.random.default_rng(0).poisson(3, (8, 9, 40)), lazy=False), path)
    content = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        group = file if suffix == ".nc" else next(iter(file["Experiments"].values()))
        chunk = group["counts" if suffix == ".nc" else "data"].id.get_chunk_info(0)
    content[chunk.byte_offset + chunk.size // 3] ^= 1
    whole = read_cube(path)
    copied = pickle.loads(pickle.dumps(whole.counts.data))
    assert (copied.compute(scheduler="sync") == whole.counts.values).all()
    other.write_bytes(content)
    with pytest.raises(FormatError) as caught:
        read_cube(other).counts.sum().compute()
    assert_one_line(caught.value, other.name)


def test_arrays_come_out_of_the_child_whole(tmp_path, threads):
    (tmp_path / "a.bcf").write_text("text")
    arrays = [np.arange(7.0), np.ones((3, 5), np.uint8)[:, ::2], np.zeros(0)]
    result = isolated(tmp_path / "a.bcf", partial(np.broadcast_arrays, *arrays[:1], 2.0))
    assert len(result) == 2 and (result[1] == 2).all()
    for array in arrays:
        np.testing.assert_array_equal(isolated(tmp_path / "a.bcf", partial(np.copy, array)), array)


def test_warnings_come_out_of_the_child(tmp_path, threads):
    (tmp_path / "a.bcf").write_text("text")
    with pytest.warns(EdxdenoiseWarning, match="a; b"):
        isolated(tmp_path / "a.bcf", partial(warn, "a", "b", rank=Rank.NOTE))


def test_lock_that_another_thread_holds_does_not_stop_the_child(tmp_path):
    (tmp_path / "a.bcf").write_text("text")
    held, ended = threading.Event(), threading.Event()

    def hold():
        with dask.config.config_lock:
            held.set()
            ended.wait()

    thread = threading.Thread(target=hold)
    with dask.config.set({"edxdenoise.patience": 20}):
        thread.start()
        held.wait()
        try:
            assert isolated(tmp_path / "a.bcf", partial(operator.add, 1, 1)) == 2
        finally:
            ended.set()
            thread.join()


@pytest.mark.parametrize(
    ("shape", "chunks", "words"),
    [
        ((10**4, 10**4, 10**5), (10, 10, 100), "declares 10 TB of counts, which its .* hold"),
        ((16, 16, 2**13), (16, 16, 2**13), "each takes 2.1 MB, the limit is 1 MB; raise --mem"),
    ],
)
def test_declared_sizes_are_refused_before_anything_is_read(tmp_path, shape, chunks, words):
    path = tmp_path / "a.hspy"
    save_dataset(cube(np.ones((2, 2, 4), np.uint8), lazy=False), path)
    with h5py.File(path, "r+") as file:
        (group,) = file["Experiments"].values()
        del group["data"]
        data = group.create_dataset("data", shape, np.uint8, chunks=chunks, compression="gzip")
        if words.startswith("each"):
            data[:] = np.random.default_rng(0).integers(0, 2, shape, np.uint8)
        for number, size in enumerate(shape):
            group[f"axis-{number}"].attrs["size"] = size
    with pytest.raises(EdxdenoiseError) as caught:
        read_cube(path, memory_limit=10**6)
    assert_one_line(caught.value, "a.hspy")
    assert re.search(words, str(caught.value))


@pytest.mark.parametrize("suffix", [".zarr", ".nc"])
def test_blocks_of_our_own_files_that_do_not_fit_are_refused(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    save_dataset(cube(np.ones((8, 10, 100), np.uint8), lazy=False), path)
    assert read_cube(path, memory_limit=8000).counts.shape == (8, 10, 100)
    with pytest.raises(MemoryLimitError, match="each takes 8 kB, the limit is 7.99 kB; raise"):
        read_cube(path, memory_limit=7990)


def cube(counts, lazy):
    counts = np.asarray(counts)
    data = da.from_array(counts, chunks=(1, 2, 2)) if lazy else counts
    energy = np.arange(counts.shape[2]) * 0.01
    return make_cube(data, energy=energy, attrs={"source": "a.bcf sha256:00"})


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize(
    ("value", "words"),
    [(0.0, "no counts at all"), (-1.0, "negative"), (np.nan, "NaN"), (np.inf, "infinite")],
)
def test_counts_that_cannot_be_worked_with(lazy, value, words):
    counts = np.zeros((2, 3, 4))
    counts[1, 2, 3] = value
    if value != 0:
        counts[0] = 5
    with pytest.raises(DataError, match=words) as caught:
        check_survey(survey(cube(counts, lazy)), name="a.bcf")
    assert_one_line(caught.value, "'a.bcf'")


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32])
def test_sound_counts_pass_and_do_not_overflow(dtype):
    found = survey(cube(np.full((16, 16, 2), 128, dtype), lazy=True))
    check_survey(found, name="a")
    assert found.total == 16 * 16 * 2 * 128


def test_empty_measurement_is_read_but_refused(shared_data):
    with pytest.raises(DataError, match="tia.emi' holds no counts"):
        check_survey(survey(read_cube(shared_data / "small" / "tia.emi")), name="tia.emi")
