"""Parse a file in a child process, so that a crash or an endless loop becomes one clear line."""

from __future__ import annotations

import faulthandler
import mmap
import os
import pickle
import resource
import signal
import struct
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import dask

from edxdenoise.errors import FormatError, issue, recorded
from edxdenoise.io.guard import guarded
from edxdenoise.resources import default_memory_limit

# Seconds that a reader may take whatever the file, and bytes that the slowest reads in a second.
_PATIENCE, _SLOWEST = 60.0, 1e5
# Bytes beyond the memory limit, for what Python and libraries take while they read.
_MARGIN = 1 << 30

T = TypeVar("T")


def isolated(path: Path, work: Callable[[], T], *, memory_limit: int | None = None) -> T:
    """Run `work`, which reads `path`, in a forked child and hand its result over.

    Compiled readers trust what a file says: one wrong byte may crash them or let them run for ever.
    Where the system knows no fork, `work` runs in this process.

    Parameters
    ----------
    path : Path
        For the messages; its size sets the time limit, unless the configuration of Dask has
        ``edxdenoise.patience`` in seconds.
    work : callable
        Gives what can be pickled; arrays are handed over without a copy.
    memory_limit : int, optional
        Bytes that the child may allocate, twice over since readers decode into wider types; by
        default half of what is free.

    Raises
    ------
    FormatError
        If `work` fails in any way, crashes or does not end.
    """
    if not hasattr(os, "fork"):
        return guarded(path, work)
    limit = dask.config.get("edxdenoise.patience", None)
    limit = _PATIENCE + path.stat().st_size / _SLOWEST if limit is None else limit
    memory = default_memory_limit() if memory_limit is None else memory_limit
    with tempfile.TemporaryFile() if not hasattr(os, "memfd_create") else _memory() as file:
        with warnings.catch_warnings():
            # Python warns of a fork beside other threads, none of which the child needs.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            _be_child(path, work, file, 2 * memory + _MARGIN)
        status = _wait(path, child, limit)
        if status != 0:
            number = -status if status < 0 else 0
            name = signal.Signals(number).name if number else f"exit status {status}"
            raise FormatError(
                f"cannot read '{path}': its reader crashed ({name}); the file is damaged, copy or "
                "export it again"
            )
        result, cause, issued = _load(file)
    issue(*issued)
    if isinstance(result, BaseException):
        raise result from cause
    return result


def _memory() -> BinaryIO:
    return open(os.memfd_create("edxdenoise"), "w+b")


def _be_child(path: Path, work: Callable[[], Any], file: BinaryIO, memory: int) -> None:
    """Do the work and end the process; nothing of the parent's runs in it."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _limit_memory(memory)
        # Of the threads of a pool, none is left in a fork.
        with dask.config.set(scheduler="synchronous"), recorded(show=False) as issued:
            try:
                result = guarded(path, work)
            except Exception as error:
                result = error
        _dump((result, _picklable(getattr(result, "__cause__", None)), issued), file)
        status = 0
    finally:
        os._exit(status)


def _picklable(error: BaseException | None) -> BaseException | None:
    """`error` itself, or None where it cannot travel; the message stands without it."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever the classes of the readers' libraries raise
        return None
    return error


def _limit_memory(memory: int) -> None:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return
    allowed = pages * mmap.PAGESIZE + memory
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY or allowed < most:
        resource.setrlimit(resource.RLIMIT_AS, (allowed, most))


def _wait(path: Path, child: int, limit: float) -> int:
    """Exit status of the child, negative where a signal ended it."""
    end = time.monotonic() + limit
    pause = 0.001
    try:
        while True:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                child = 0
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > end:
                raise FormatError(
                    f"cannot read '{path}': its reader has not ended after {limit:.0f} s; the file "
                    "is damaged, or allow more seconds with --patience"
                )
            time.sleep(pause)
            pause = min(1.5 * pause, 0.05)
    finally:
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _dump(value: Any, file: BinaryIO) -> None:
    """Pickle with the contents of arrays behind it, aligned, so that they can be mapped."""
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    sizes = [len(content), *(view.nbytes for view in views)]
    file.write(struct.pack(f"<{1 + len(sizes)}Q", len(sizes), *sizes))
    for part in (memoryview(content), *views):
        file.seek(-file.tell() % mmap.PAGESIZE, os.SEEK_CUR)
        file.write(part)
    file.flush()


def _load(file: BinaryIO) -> Any:
    mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    (count,) = struct.unpack_from("<Q", mapped)
    sizes = struct.unpack_from(f"<{count}Q", mapped, 8)
    position, parts = 8 * (1 + count), []
    for size in sizes:
        position += -position % mmap.PAGESIZE
        parts.append(mapped[position : position + size])
        position += size
    return pickle.loads(parts[0], buffers=parts[1:])
