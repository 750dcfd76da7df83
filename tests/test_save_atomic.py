"""Outputs appear whole or not at all."""

import asyncio
import errno
import itertools
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from xarray.backends.locks import CombinedLock
from zarr.storage import LocalStore

from edxdenoise.cube import make_cube
from edxdenoise.errors import FormatError
from edxdenoise.io import atomic as atomic_module
from edxdenoise.io import atomic_output, check_apart, open_dataset, read_cube, save_dataset

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
from faults import forked, unprivileged  # noqa: E402

SUFFIXES = [".zarr", ".nc", ".hspy"]


def lazy_cube(function=None, shape=(64, 64, 512), chunks=(8, 64, 512)) -> xr.Dataset:
    counts = da.random.default_rng(0).integers(0, 255, shape, chunks=chunks, dtype=np.uint8)
    if function is not None:
        counts = counts.map_blocks(function, meta=np.empty((0, 0, 0), np.uint8))
    return make_cube(counts, energy=np.arange(float(shape[2])))


def fail_late(block, block_info=None):
    if block_info and block_info[0]["chunk-location"][0] >= 5:
        raise ValueError("a block that cannot be computed")
    time.sleep(0.01)
    return block


def write_folder(path: Path, text: str) -> None:
    with atomic_output(path, overwrite=True, folder=True) as partial:
        (partial / "index.html").write_text(text)


@pytest.fixture
def ctrl_c():
    """What SIGINT does in a program that a user started; workers of pytest-xdist ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@contextmanager
def interrupted(filename: str, moment: int) -> Iterator[list[int]]:
    """Send SIGINT when line number `moment` of those run in a source file is reached.

    Yields a list whose only number is that of the lines run so far.
    """
    passed = [0]

    def trace(frame, event, argument):
        if frame.f_code.co_filename != filename:
            return None
        passed[0] += 1
        if passed[0] == moment + 1:
            signal.raise_signal(signal.SIGINT)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with suppress(KeyboardInterrupt):
            yield passed
    finally:
        sys.settrace(before)


class TestAtomicOutput:
    def test_file_and_folder(self, tmp_path):
        with atomic_output(tmp_path / "a.txt") as partial:
            partial.write_text("new")
            assert not (tmp_path / "a.txt").exists() and partial.parent == tmp_path
        with atomic_output(tmp_path / "report", folder=True) as partial:
            (partial / "index.html").write_text("page")
        assert (tmp_path / "a.txt").read_text() == "new"
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.txt", "report"]

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
    @pytest.mark.parametrize("folder", [False, True])
    def test_nothing_is_left_by_an_error(self, tmp_path, error, folder):
        with pytest.raises(error), atomic_output(tmp_path / "a", folder=folder) as partial:
            (partial / "index.html" if folder else partial).write_text("half")
            raise error
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("folder", [False, True])
    def test_overwrite(self, tmp_path, folder):
        def write(text, overwrite):
            with atomic_output(tmp_path / "a", overwrite, folder=folder) as partial:
                (partial / "index.html" if folder else partial).write_text(text)

        target = tmp_path / "a" / "index.html" if folder else tmp_path / "a"
        write("old", False)
        with pytest.raises(FormatError, match="a exists; add --overwrite to replace it"):
            write("new", False)
        assert target.read_text() == "old"
        write("new", True)
        assert target.read_text() == "new"
        assert [entry.name for entry in tmp_path.iterdir()] == ["a"]

    def test_old_output_survives_an_error(self, tmp_path):
        write_folder(tmp_path / "a", "old")
        with pytest.raises(ValueError), atomic_output(tmp_path / "a", True, folder=True):
            raise ValueError
        assert (tmp_path / "a" / "index.html").read_text() == "old"

    @pytest.mark.parametrize("exchange", [True, False])
    def test_folder_is_replaced_with_and_without_an_exchange(self, tmp_path, monkeypatch, exchange):
        if not exchange:
            monkeypatch.setattr(atomic_module, "_exchanged", lambda one, other: False)
        write_folder(tmp_path / "a", "old")
        write_folder(tmp_path / "a", "new")
        assert (tmp_path / "a" / "index.html").read_text() == "new"
        assert [entry.name for entry in tmp_path.iterdir()] == ["a"]

    def test_old_output_survives_a_failed_rename(self, tmp_path, monkeypatch):
        write_folder(tmp_path / "a", "old")
        rename = Path.rename

        def refuse(self, target):
            if ".partial-" in self.name:
                raise OSError(errno.EIO, "Input/output error")
            return rename(self, target)

        monkeypatch.setattr(atomic_module, "_exchanged", lambda one, other: False)
        monkeypatch.setattr(Path, "rename", refuse)
        with pytest.raises(FormatError, match="was not written: Input/output error"):
            write_folder(tmp_path / "a", "new")
        assert (tmp_path / "a" / "index.html").read_text() == "old"
        assert [entry.name for entry in tmp_path.iterdir()] == ["a"]

    @pytest.mark.parametrize("folder", [True, False])
    @pytest.mark.parametrize("exchange", [True, False])
    def test_signal_at_every_line(self, tmp_path, monkeypatch, ctrl_c, folder, exchange):
        """The old or the new output stands there, whole, and nothing beside it."""
        if not exchange:
            monkeypatch.setattr(atomic_module, "_exchanged", lambda one, other: False)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)

        def write(text):
            with atomic_output(tmp_path / "a", True, folder=folder) as partial:
                (partial / "index.html" if folder else partial).write_text(text)

        result = tmp_path / "a" / "index.html" if folder else tmp_path / "a"
        write("0")
        found, moments = "0", 0
        for moment in itertools.count():
            with interrupted(atomic_module.__file__, moment) as passed:
                write(str(moment + 1))
            moments, before, found = passed[0], found, result.read_text()
            assert found in (before, str(moment + 1))
            assert os.listdir(tmp_path) == ["a"]
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            if moments <= moment:
                break
        assert moments > 100 and found == str(moment + 1)

    def test_target_that_appears_meanwhile_is_kept(self, tmp_path):
        with pytest.raises(FormatError, match="exists"):
            with atomic_output(tmp_path / "a"):
                (tmp_path / "a").write_text("by another")
        assert (tmp_path / "a").read_text() == "by another"
        assert [entry.name for entry in tmp_path.iterdir()] == ["a"]

    @pytest.mark.parametrize("name", ["thesis.tex", "sub/thesis.tex", ".hidden", "index.html~"])
    def test_foreign_file_is_never_removed(self, tmp_path, name):
        write_folder(tmp_path / "a", "old")
        foreign = tmp_path / "a" / name
        foreign.parent.mkdir(exist_ok=True)
        foreign.write_text("years")
        with pytest.raises(FormatError, match=f"edxdenoise did not write .*{name}; move that away"):
            write_folder(tmp_path / "a", "new")
        assert foreign.read_text() == "years"
        assert (tmp_path / "a" / "index.html").read_text() == "old"

    def test_folder_of_other_things_is_never_replaced(self, tmp_path):
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "index.html").write_text("years")
        with pytest.raises(
            FormatError, match="edxdenoise did not write .*home, which holds index.html"
        ):
            write_folder(tmp_path / "home", "new")
        assert (tmp_path / "home" / "index.html").read_text() == "years"

    def test_report_within_a_report_is_replaced_with_it(self, tmp_path):
        write_folder(tmp_path / "a", "old")
        write_folder(tmp_path / "a" / "quantification", "old")
        write_folder(tmp_path / "a", "new")
        assert not (tmp_path / "a" / "quantification").exists()

    def test_planted_link_is_not_followed(self, tmp_path):
        (tmp_path / "secret").write_text("keep")
        sibling = f".a.partial-{os.getpid()}-{platform.node()}"
        (tmp_path / sibling).symlink_to(tmp_path / "secret")
        with atomic_output(tmp_path / "a") as partial:
            partial.write_text("new")
        assert (tmp_path / "secret").read_text() == "keep"

    def test_folder_where_a_file_is_wanted_and_the_other_way(self, tmp_path):
        (tmp_path / "folder").mkdir()
        (tmp_path / "file").touch()
        with pytest.raises(FormatError, match="folder is a folder; name a file in it"):
            with atomic_output(tmp_path / "folder", True):
                pass
        with pytest.raises(FormatError, match="file is a file, must be a folder"):
            with atomic_output(tmp_path / "file", True, folder=True):
                pass

    def test_folder_missing(self, tmp_path):
        with pytest.raises(FormatError, match="folder .*nope does not exist"):
            with atomic_output(tmp_path / "nope" / "a"):
                pass

    def test_parent_is_a_file(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(FormatError, match="folder .*file does not exist"):
            with atomic_output(tmp_path / "file" / "a"):
                pass

    def test_name_too_long(self, tmp_path):
        with pytest.raises(FormatError, match="was not written: File name too long"):
            with atomic_output(tmp_path / ("a" * 254)):
                pass

    def test_link_is_followed(self, tmp_path):
        (tmp_path / "disk").mkdir()
        (tmp_path / "a").symlink_to(tmp_path / "disk" / "b")
        with atomic_output(tmp_path / "a") as partial:
            partial.write_text("new")
        assert (tmp_path / "a").is_symlink() and (tmp_path / "disk" / "b").read_text() == "new"

    def test_stale_partials(self, tmp_path):
        node = platform.node()
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        dead = tmp_path / f".a.partial-{ended.pid}-{node}"
        alive = tmp_path / f".a.partial-1-{node}"
        elsewhere = tmp_path / f".a.partial-{ended.pid}-not{node}"
        other = tmp_path / f".b.partial-{ended.pid}-{node}"
        for path in (dead, alive, elsewhere, other):
            path.mkdir()
            (path / "zarr.json").touch()
        with atomic_output(tmp_path / "a"):
            assert not dead.exists()
        assert alive.exists() and elsewhere.exists() and other.exists()

    def test_old_output_set_aside_by_a_killed_process_comes_back(self, tmp_path):
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        aside = tmp_path / f".a.replaced-{ended.pid}-{platform.node()}"
        aside.mkdir()
        (aside / "index.html").write_text("old")
        with pytest.raises(FormatError, match="exists"):
            with atomic_output(tmp_path / "a", folder=True):
                pass
        assert (tmp_path / "a" / "index.html").read_text() == "old"
        assert not aside.exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_failing_block_leaves_nothing(tmp_path, suffix):
    with pytest.raises(ValueError, match="a block that cannot be computed"):
        save_dataset(lazy_cube(fail_late), tmp_path / f"out{suffix}")
    time.sleep(0.1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_existing_target_is_refused_before_anything_is_computed(tmp_path, suffix):
    save_dataset(lazy_cube(), tmp_path / f"out{suffix}")
    computed = []
    ds = lazy_cube(lambda block: computed.append(1) or block)
    with pytest.raises(FormatError, match=f"out{suffix} exists; add --overwrite to replace it"):
        save_dataset(ds, tmp_path / f"out{suffix}")
    with pytest.raises(FormatError, match="nope does not exist"):
        save_dataset(ds, tmp_path / "nope" / f"out{suffix}")
    assert computed == []


@pytest.mark.parametrize("suffix", [".zarr", ".nc"])
def test_overwrite_keeps_the_old_until_the_new_is_whole(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    save_dataset(lazy_cube(), path)
    with pytest.raises(ValueError, match="cannot be computed"):
        save_dataset(lazy_cube(fail_late), path, overwrite=True)
    assert (open_dataset(path)["counts"] == lazy_cube()["counts"]).all()
    save_dataset(lazy_cube(lambda block: block // 2), path, overwrite=True)
    assert (open_dataset(path)["counts"] == lazy_cube()["counts"] // 2).all()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".zarr", ".nc"])
def test_a_file_can_be_replaced_by_what_is_made_from_it(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    save_dataset(lazy_cube(), path)
    ds = open_dataset(path)
    ds["counts"] = ds["counts"] // 2
    save_dataset(ds, path, overwrite=True)
    assert (open_dataset(path)["counts"] == lazy_cube()["counts"] // 2).all()


def test_foreign_zarr_folder_is_kept(tmp_path):
    (tmp_path / "out.zarr").mkdir()
    (tmp_path / "out.zarr" / "notes.txt").write_text("keep")
    with pytest.raises(FormatError, match="edxdenoise did not write .*out.zarr"):
        save_dataset(lazy_cube(), tmp_path / "out.zarr", overwrite=True)
    assert (tmp_path / "out.zarr" / "notes.txt").exists()


def test_foreign_zarr_and_foreign_file_in_ours_are_kept(tmp_path):
    lazy_cube().to_zarr(tmp_path / "other.zarr", consolidated=False)
    with pytest.raises(FormatError, match="edxdenoise did not write .*other.zarr"):
        save_dataset(lazy_cube(), tmp_path / "other.zarr", overwrite=True)
    save_dataset(lazy_cube(), tmp_path / "out.zarr")
    (tmp_path / "out.zarr" / "counts" / "notes.txt").write_text("keep")
    with pytest.raises(FormatError, match="edxdenoise did not write .*notes.txt"):
        save_dataset(lazy_cube(), tmp_path / "out.zarr", overwrite=True)
    assert (tmp_path / "out.zarr" / "counts" / "notes.txt").exists()
    save_dataset(lazy_cube(), tmp_path / "more.zarr")
    zarr.open_group(tmp_path / "more.zarr").create_array("theirs", data=np.ones(3))
    with pytest.raises(FormatError, match="edxdenoise did not write .*theirs"):
        save_dataset(lazy_cube(), tmp_path / "more.zarr", overwrite=True)
    assert (tmp_path / "more.zarr" / "theirs" / "zarr.json").exists()


def test_pipes_are_neither_read_nor_replaced(tmp_path):
    """Opening one would wait for ever."""
    for suffix in (*SUFFIXES, ".bcf"):
        os.mkfifo(tmp_path / f"pipe{suffix}")
        with pytest.raises(FormatError, match="is a pipe or a device"):
            read_cube(tmp_path / f"pipe{suffix}")
    for suffix in (".zarr", ".nc"):
        with pytest.raises(FormatError, match="is a pipe or a device"):
            open_dataset(tmp_path / f"pipe{suffix}")
        with pytest.raises(FormatError, match="is a pipe or a device"):
            save_dataset(lazy_cube(), tmp_path / f"pipe{suffix}", overwrite=True)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (["a.zarr"], ["a.zarr/out.zarr"]),
        (["a.zarr"], ["b.zarr", "a.zarr/report"]),
        (["a.zarr"], ["b.zarr", "a.zarr"]),
        (["report/a.zarr"], ["b.zarr", "report"]),
        (["a.zarr"], ["b.zarr", "b.zarr"]),
        (["a.zarr"], ["b.zarr", "b.zarr/report"]),
        (["a.zarr"], ["report/b.zarr", "report"]),
        (["a.zarr"], [None, "a.zarr"]),
    ],
)
def test_outputs_must_be_apart(tmp_path, monkeypatch, inputs, outputs):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FormatError, match="are the same or one is inside the other"):
        check_apart(inputs, outputs)
    check_apart(["a.zarr"], ["a.zarr", "report"])
    check_apart(["a.zarr"], ["a.zarr.2", None])


def _write_and_signal(path: Path, number: int) -> tuple[str, str, list[str]]:
    """Write in another process, which sends itself a signal while it computes the third block."""

    def signal_late(block, block_info=None):
        if block_info and block_info[0]["chunk-location"][0] == 2:
            os.kill(os.getpid(), number)
        return block

    return forked(lambda: save_dataset(lazy_cube(signal_late), path))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_killed_run_leaves_no_target_and_the_next_one_cleans_up(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    assert _write_and_signal(path, signal.SIGKILL)[0] == "crash"
    left = [entry.name for entry in tmp_path.iterdir()]
    assert not path.exists() and len(left) == 1 and left[0].startswith(".out")
    save_dataset(lazy_cube(), path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_leaves_nothing(tmp_path, suffix, number):
    assert _write_and_signal(tmp_path / f"out{suffix}", number)[0] == "stopped"
    assert list(tmp_path.iterdir()) == []


def test_signal_while_zarr_writes_in_its_own_thread(tmp_path, monkeypatch, ctrl_c):
    work, started, ended = LocalStore.set, threading.Event(), threading.Event()

    async def slow(self, *args, **kwargs):
        first = not started.is_set()
        if first:
            started.set()
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            await asyncio.sleep(0.3)
        await work(self, *args, **kwargs)
        if first:
            ended.set()

    monkeypatch.setattr(LocalStore, "set", slow)
    with pytest.raises(KeyboardInterrupt):
        save_dataset(lazy_cube(), tmp_path / "out.zarr")
    assert ended.wait(10)
    assert list(tmp_path.iterdir()) == []


def test_signal_while_a_lock_is_taken(tmp_path, monkeypatch):
    """What stays locked would make the closing of the file wait for ever."""
    monkeypatch.setattr("faults._ENDLESS", 20.0)

    def write():
        acquire, times = CombinedLock.acquire, itertools.count()

        def interrupted(self, *args):
            taken = acquire(self, *args)
            # The fifth time, xarray has opened the file and will close it.
            if threading.current_thread() is threading.main_thread() and next(times) == 4:
                signal.raise_signal(signal.SIGINT)
            return taken

        CombinedLock.acquire = interrupted
        save_dataset(lazy_cube(shape=(8, 8, 16)), tmp_path / "out.nc")

    assert forked(write)[0] == "stopped"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_unwritable_folder(tmp_path, suffix):
    tmp_path.chmod(0o500)
    with unprivileged(), pytest.raises(FormatError, match="Permission denied; change the access"):
        save_dataset(lazy_cube(), tmp_path / f"out{suffix}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_that_are_no_text(tmp_path, suffix):
    """Of the file that the counts are from, and of the output."""
    source = os.fsdecode(b"a\xff.bcf")
    ds = lazy_cube(shape=(8, 8, 16)).assign_attrs(title=source, source=source)
    save_dataset(ds, tmp_path / f"a{suffix}")
    assert read_cube(tmp_path / f"a{suffix}").attrs["title"] == "a?.bcf"
    path = tmp_path / os.fsdecode(b"\xff" + suffix.encode())
    if suffix == ".nc":
        with pytest.raises(FormatError, match="was not written: 'utf-8'"):
            save_dataset(ds, path)
        assert os.listdir(tmp_path) == ["a.nc"]
    else:
        save_dataset(ds, path)
        assert (read_cube(path).counts == ds.counts).all()


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_read_only_disk(tmp_path, suffix):
    with mounted(tmp_path / "disk", "ro") as disk:
        with pytest.raises(FormatError, match="was not written: Read-only file system"):
            save_dataset(lazy_cube(), disk / f"out{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("lazy", [True, False])
def test_full_disk(tmp_path, suffix, lazy):
    cube = lazy_cube(shape=(64, 64, 1024))
    with mounted(tmp_path / "disk", "size=2m") as disk:
        with pytest.raises(FormatError, match="no space left in .*disk; free some") as info:
            save_dataset(cube if lazy else cube.compute(), disk / f"out{suffix}")
        assert "\n" not in str(info.value)
        time.sleep(0.1)
        assert list(disk.iterdir()) == []


@pytest.fixture
def small_files():
    """No file may grow past 100 kB in this process."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_file_that_may_not_grow(tmp_path, suffix, small_files):
    with pytest.raises(FormatError, match="was not written") as info:
        save_dataset(lazy_cube(), tmp_path / f"out{suffix}")
    assert "\n" not in str(info.value)
    assert list(tmp_path.iterdir()) == []


def test_nearly_full_disk_explains_a_vague_error(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(atomic_module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(FormatError, match="no space left"), atomic_output(tmp_path / "a.nc"):
        raise OSError("NetCDF: HDF error")
