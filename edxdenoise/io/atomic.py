"""Outputs that appear whole or not at all: written under a hidden name, then renamed."""

from __future__ import annotations

import errno
import glob
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from edxdenoise.errors import EdxdenoiseError, FormatError
from edxdenoise.io.guard import one_line

# ENOSPC: disk full; EDQUOT: quota used up; EFBIG: the file may not grow further.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# HDF5 and netCDF hide the system's reason; a disk with less than this left is the likely one.
_NEARLY_FULL = 1 << 20


@contextmanager
def atomic_output(
    path: str | Path, overwrite: bool = False, *, folder_marker: str | None = None
) -> Iterator[Path]:
    """Give a hidden sibling of `path` to write to; rename it to `path` if all went well.

    Whatever ends the block early, Ctrl-C included, removes the sibling, and what stood at `path`
    before stays untouched. A sibling left by a process that was killed is removed by the next one
    that writes the same `path`.

    Parameters
    ----------
    path : str or Path
        The file, or with `folder_marker` the folder, to make.
    overwrite : bool
        Replace what stands at `path`.
    folder_marker : str, optional
        The output is a folder, made empty for the block. An existing folder is replaced only if it
        is empty or holds an entry of this name: a folder of other things is never deleted.

    Yields
    ------
    Path
        The empty file or folder to write to.

    Raises
    ------
    FormatError
        If `path` exists and may not be replaced, cannot be written, or the disk is full.
    """
    path = Path(path)
    target = Path(os.path.realpath(path))
    check_output(path, overwrite, folder_marker=folder_marker)
    partial = _sibling(target, "partial")
    with _errors_in_one_line(path):
        if folder_marker is None:
            partial.touch()
        else:
            partial.mkdir()
    try:
        with _errors_in_one_line(path):
            yield partial
            _check_target(path, target, overwrite, folder_marker)
            _move_into_place(partial, target)
    finally:
        remove(partial)


def check_output(
    path: str | Path, overwrite: bool = False, *, folder_marker: str | None = None
) -> None:
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
    with _errors_in_one_line(path):
        _clear_stale(target)
        _check_target(path, target, overwrite, folder_marker)
        probe = _sibling(target, "partial")
        probe.touch()
        probe.unlink()


@contextmanager
def _errors_in_one_line(path: Path) -> Iterator[None]:
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
    return FormatError(f"{path} was not written: {one_line(reason) or type(error).__name__}")


def remove(path: Path) -> None:
    """Delete a file or a folder; nothing happens if there is none."""
    for _ in range(10):
        if not os.path.lexists(path):
            return
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        # Zarr's own threads do not hear of an interrupt: one that is writing makes the folder anew.
        time.sleep(0.2)


def _sibling(target: Path, role: str) -> Path:
    # The host is part of the name since another machine's processes cannot be asked for.
    return target.with_name(f".{target.name}.{role}-{os.getpid()}-{platform.node()}")


def _clear_stale(target: Path) -> None:
    """Remove what killed processes of this host left beside `target`."""
    for role in ("partial", "replaced"):
        for name in glob.glob(f".{glob.escape(target.name)}.{role}-*", root_dir=target.parent):
            match = re.fullmatch(
                rf"-(\d+)-{re.escape(platform.node())}(\.scratch)?",
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


def _check_target(path: Path, target: Path, overwrite: bool, folder_marker: str | None) -> None:
    if not target.exists():
        return
    if folder_marker is None and target.is_dir():
        raise FormatError(f"{path} is a folder; name a file in it")
    if not overwrite:
        raise FormatError(f"{path} exists; add --overwrite to replace it")
    if folder_marker is None:
        return
    if not target.is_dir():
        raise FormatError(f"{path} is a file, must be a folder; choose another name")
    if any(target.iterdir()) and not (target / folder_marker).exists():
        raise FormatError(
            f"{path} is a folder without '{folder_marker}', not an output of edxdenoise, and is "
            "not replaced; choose another name"
        )


def _move_into_place(partial: Path, target: Path) -> None:
    if not (partial.is_dir() and target.exists()):
        os.replace(partial, target)
        return
    # A folder cannot be replaced in one step.
    old = _sibling(target, "replaced")
    target.rename(old)
    try:
        partial.rename(target)
    except BaseException:
        old.rename(target)
        raise
    remove(old)
