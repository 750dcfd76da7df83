"""Outputs that appear whole or not at all: written under a hidden name, then renamed."""

from __future__ import annotations

import ctypes
import errno
import glob
import json
import os
import platform
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import psutil

from edxdenoise.errors import EdxdenoiseError, FormatError
from edxdenoise.io.guard import one_line
from edxdenoise.io.own import METADATA_CRC

# ENOSPC: disk full; EDQUOT: quota used up; EFBIG: the file may not grow further.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
# HDF5 and netCDF hide the system's reason; a disk with less than this left is the likely one.
_NEARLY_FULL = 1 << 20
# In every folder written here but a .zarr: the names of its files, one a line.
_LIST = ".edxdenoise"
# Ending of the name of what is written on the way to an output.
SCRATCH = ".scratch"
# From linux/fcntl.h and linux/fs.h.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2

T = TypeVar("T")


class atomic_output:
    """Give a hidden sibling of `path` to write to; rename it to `path` if all went well.

    Whatever ends the block early, Ctrl-C included, removes the sibling, and what stood at `path`
    before stays untouched. SIGINT and SIGTERM are heard within the block alone: those that arrive
    before or after it wait until all is in its place. A sibling left by a process that was killed
    is removed by the next one that writes the same `path`.

    Parameters
    ----------
    path : str or Path
        The file or folder to make.
    overwrite : bool
        Replace what stands at `path`. A folder is replaced only if it is empty or edxdenoise wrote
        all files in it.
    folder : bool
        The output is a folder, made empty for the block.

    Yields
    ------
    Path
        The empty file or folder to write to. What stands beside it with `SCRATCH` appended to its
        name is removed with it.

    Raises
    ------
    FormatError
        If `path` exists and may not be replaced, cannot be written, or the disk is full.
    """

    def __init__(self, path: str | Path, overwrite: bool = False, *, folder: bool = False) -> None:
        self.path, self.overwrite, self.folder = Path(path), overwrite, folder
        self.target = Path(os.path.realpath(path))
        self.partial = _sibling(self.target, "partial")
        # Not a generator with @contextmanager: a signal that arrives on the way between the block
        # and the generator would end neither.
        self._signals = _Signals(self.__enter__, self.__exit__)

    def __enter__(self) -> Path:
        self._signals.hold()
        try:
            check_output(self.path, self.overwrite, folder=self.folder)
            with writing(self.path):
                # Neither follows a link that somebody else put there.
                if self.folder:
                    self.partial.mkdir()
                else:
                    self.partial.touch(exist_ok=False)
        except BaseException:
            self._signals.release()
            raise
        return self.partial

    def __exit__(self, kind: type[BaseException] | None, error: Any, traceback: Any) -> None:
        try:
            with writing(self.path):
                if isinstance(error, OSError):
                    raise error
                if error is None:
                    if self.folder:
                        _list_files(self.partial)
                    _check_target(self.path, self.target, self.overwrite, self.folder)
                    _move_into_place(self.partial, self.target)
        finally:
            # Where a folder was replaced, this is the old one.
            remove(self.partial)
            remove(self.partial.with_name(self.partial.name + SCRATCH))
            self._signals.release()


def check_output(path: str | Path, overwrite: bool = False, *, folder: bool = False) -> None:
    """Check that `atomic_output` will be able to write `path`, before hours of work.

    Parameters are those of `atomic_output`.

    Raises
    ------
    FormatError
        As `atomic_output`.
    """
    path = Path(path)
    target = Path(os.path.realpath(path))
    if not os.path.isdir(target.parent):
        raise FormatError(
            f"{path} cannot be written: folder {target.parent} does not exist; make it first"
        )
    with writing(path):
        _clear_stale(target)
        _check_target(path, target, overwrite, folder)
        uninterrupted(lambda: _try_writing(_sibling(target, "partial")))


def _try_writing(probe: Path) -> None:
    probe.touch(exist_ok=False)
    probe.unlink()


def check_apart(inputs: Iterable[str | Path], outputs: Iterable[str | Path | None]) -> None:
    """Check that no output changes an input or another output.

    Parameters
    ----------
    inputs, outputs : iterable of path
        Files and folders; None stands for an output that is not wanted. The first output may
        replace an input.

    Raises
    ------
    FormatError
        If one is inside another, or two outputs are the same.
    """
    sources = [Path(os.path.realpath(path)) for path in inputs]
    before: list[Path] = []
    for number, path in enumerate(outputs):
        if path is None:
            continue
        place = Path(os.path.realpath(path))
        for other in [*sources, *before]:
            if other in place.parents or place in other.parents or (number and other == place):
                kind = "input" if other in sources else "output"
                raise FormatError(
                    f"the output {place} and the {kind} {other} are the same or one is inside the "
                    "other; choose another place for the output"
                )
        before.append(place)


class _Signals:
    """SIGINT and SIGTERM, held back while one of `functions` runs in the main thread."""

    def __init__(self, *functions: Any) -> None:
        self._codes = {function.__code__ for function in functions}
        self._before: dict[int, Any] = {}
        self._waiting: list[int] = []

    def hold(self) -> None:
        """Begin; nothing happens in other threads, which hear of no signals."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if handler not in (None, signal.SIG_IGN):
                self._before[number] = handler
                signal.signal(number, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        caller = frame
        while caller is not None:
            if caller.f_code in self._codes:
                self._waiting.append(number)
                return
            caller = caller.f_back
        handler = self._before[number]
        if callable(handler):
            handler(number, frame)
        else:
            signal.signal(number, handler)
            signal.raise_signal(number)

    def release(self) -> None:
        """End; the first signal that was held back is heard now."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        for number in self._waiting[:1]:
            signal.raise_signal(number)


def uninterrupted(work: Callable[[], T]) -> T:
    """Run `work`; SIGINT and SIGTERM are heard once it has ended."""
    signals = _Signals(uninterrupted)
    signals.hold()
    try:
        return work()
    finally:
        signals.release()


def make_folder(path: Path) -> None:
    """Make a folder, and those that it is in, where there is none.

    Raises
    ------
    FormatError
        If that is not possible.
    """
    if path.is_file():
        raise FormatError(f"{path} is a file, must be a folder; choose another name")
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of the system into a FormatError that says why `path` was not written."""
    try:
        yield
    except EdxdenoiseError:
        raise
    except OSError as error:
        raise write_error(path, error) from error


def write_error(path: Path, error: Exception) -> FormatError:
    """The one-line reason why `path` could not be written."""
    parent = os.path.dirname(os.path.realpath(path))
    full = isinstance(error, OSError) and error.errno in _FULL
    # The folder itself may be gone by now.
    if full or (os.path.isdir(parent) and shutil.disk_usage(parent).free < _NEARLY_FULL):
        return FormatError(
            f"{path} was not written: no space left in {parent}; free some or choose another folder"
        )
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    denied = isinstance(error, OSError) and error.errno in _DENIED
    remedy = f"; change the access rights of {parent} or choose another folder" if denied else ""
    return FormatError(
        f"{path} was not written: {one_line(reason) or type(error).__name__}{remedy}"
    )


def remove(path: Path) -> None:
    """Delete a file or a folder; nothing happens if there is none."""
    for _ in range(10):
        if not os.path.lexists(path):
            return
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        # Zarr's threads do not hear of an interrupt: one that is writing makes the folder again.
        time.sleep(0.2)


def discard(path: Path, output: Path) -> None:
    """Delete a folder that is to be there whole or not at all, even if the process is killed.

    What a killed process leaves of it is removed by the next one that writes `output`.
    """
    gone = _sibling(output, "partial")
    path.rename(gone)
    remove(gone)


def _sibling(target: Path, role: str) -> Path:
    # The host is part of the name since another machine's processes cannot be asked for.
    return target.with_name(f".{target.name}.{role}-{os.getpid()}-{platform.node()}")


def _clear_stale(target: Path) -> None:
    """Remove what killed processes of this host left beside `target`."""
    for role in ("partial", "replaced"):
        for name in glob.glob(f".{glob.escape(target.name)}.{role}-*", root_dir=target.parent):
            match = re.fullmatch(
                rf"-(\d+)-{re.escape(platform.node())}({re.escape(SCRATCH)})?",
                name.removeprefix(f".{target.name}.{role}"),
            )
            if match is None or _is_alive(int(match[1])):
                continue
            stale = target.parent / name
            if role == "replaced" and not target.exists():
                # Killed between the two renames: the old output is the only whole one.
                stale.rename(target)
            else:
                remove(stale)


def _is_alive(pid: int) -> bool:
    return pid != os.getpid() and psutil.pid_exists(pid)


def _check_target(path: Path, target: Path, overwrite: bool, folder: bool) -> None:
    if not os.path.lexists(target):
        return
    if not target.is_dir() and not target.is_file():
        raise FormatError(f"{path} is a pipe or a device; name a file")
    if not folder and target.is_dir():
        raise FormatError(f"{path} is a folder; name a file in it")
    if not overwrite:
        raise FormatError(f"{path} exists; add --overwrite to replace it")
    if not folder:
        return
    if not target.is_dir():
        raise FormatError(f"{path} is a file, must be a folder; choose another name")
    foreign = _foreign(target)
    if foreign is not None:
        inside = next(iter(sorted(_files(target))), None) if foreign == target else None
        holds = f", which holds {inside.relative_to(target)}" if inside else ""
        raise FormatError(
            f"{path} is not replaced since edxdenoise did not write {foreign}{holds}; move that "
            "away, or choose another name"
        )


def _list_files(folder: Path) -> None:
    """Leave a list of the files of a folder in it; a .zarr of ours shows itself what is its own."""
    if not (folder / "zarr.json").exists():
        names = sorted(part.relative_to(folder).as_posix() for part in _files(folder))
        (folder / _LIST).write_text("\n".join([_LIST, *names]) + "\n", encoding="utf-8")


def _files(folder: Path) -> Iterator[Path]:
    return (part for part in folder.rglob("*") if part.is_symlink() or not part.is_dir())


def _foreign(folder: Path) -> Path | None:
    """A file in `folder` that edxdenoise did not write there, or `folder` if it wrote none."""
    known: set[str] = set()
    chunks = None
    if (folder / _LIST).is_file():
        known.update((folder / _LIST).read_text(encoding="utf-8", errors="replace").splitlines())
    elif (folder / "zarr.json").is_file():
        content = (folder / "zarr.json").read_bytes()
        if b'"edxdenoise_version"' not in content:
            return folder
        chunks = re.compile(rf"({_arrays(content)}/)?zarr\.json|{_arrays(content)}/c(/\d+)*")
    elif any(folder.iterdir()):
        return folder
    for part in sorted(_files(folder)):
        name = part.relative_to(folder).as_posix()
        if name in known or (chunks is not None and chunks.fullmatch(name)):
            continue
        # A report may hold another that was written into it later.
        inner = [parent for parent in part.parents if folder in parent.parents]
        nested = next((parent for parent in inner if (parent / _LIST).is_file()), None)
        if nested is None or _foreign(nested) is not None:
            return part
    return None


def _arrays(content: bytes) -> str:
    """Pattern of names of arrays that a zarr.json of ours states; of any, where it is damaged."""
    try:
        names = dict(json.loads(json.loads(content)["attributes"][METADATA_CRC]))
    except (ValueError, KeyError, TypeError):
        return "[^/]+"
    return "(" + "|".join(re.escape(name) for name in names if name) + ")"


def _move_into_place(partial: Path, target: Path) -> None:
    if not (partial.is_dir() and target.exists()):
        os.replace(partial, target)
    elif not _exchanged(partial, target):
        # Two steps where the system knows no exchange. Should this process be killed between them,
        # the next one that writes `target` brings the old folder back.
        old = _sibling(target, "replaced")
        target.rename(old)
        try:
            partial.rename(target)
        except BaseException:
            old.rename(target)
            raise
        remove(old)


def _exchanged(one: Path, other: Path) -> bool:
    """Whether two paths could be exchanged in one step, as Linux can on most file systems."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    names = os.fsencode(one), os.fsencode(other)
    return rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0
