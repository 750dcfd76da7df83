"""Parse a file in a child process, so that a crash or an endless loop becomes one clear line."""

from __future__ import annotations

import faulthandler
import mmap
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import dask

from edxdenoise.errors import FormatError, issue, recorded
from edxdenoise.io.guard import guarded
from edxdenoise.resources import default_memory_limit, default_workers

# Seconds that a reader may take whatever the file, and bytes that the slowest reads in a second.
_PATIENCE, _SLOWEST = 60.0, 1e5
# Bytes beyond the memory limit, for what Python and libraries take while they read.
_MARGIN = 1 << 30
_NUMBER = struct.Struct("<q")

T = TypeVar("T")


def isolated(
    path: Path,
    work: Callable[[], T],
    *,
    memory_limit: int | None = None,
    prepare: Callable[[], None] | None = None,
) -> T:
    """Run `work`, which reads `path`, in a child process and hand its result over.

    Compiled readers trust what a file says: one wrong byte may crash them or let them run for ever.
    The child is forked from this process; from a server process where other threads run in this
    one, since a lock that a thread holds at that moment would never be released in the child. Where
    the system knows no fork, `work` runs in this process.

    Parameters
    ----------
    path : Path
        For the messages; its size sets the time limit, unless the configuration of Dask has
        ``edxdenoise.patience`` in seconds.
    work : callable
        Can be pickled, and gives what can be pickled; arrays are handed over without a copy.
    memory_limit : int, optional
        Bytes that the child may allocate, twice over since readers decode into wider types; by
        default half of what is free.
    prepare : callable, optional
        Called before the fork: what all children need, such as compiled code.

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
        task = _Task(path, work, limit, 2 * memory + _MARGIN, prepare)
        if threading.active_count() == 1:
            status = _wait(task, task.fork(file), _poll_child)
        else:
            status = _server(os.getpid()).run(task, file)
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


@dataclass(frozen=True)
class _Task:
    """What a child does: the parameters of `isolated`, seconds and bytes it may take."""

    path: Path
    work: Callable[[], Any]
    seconds: float
    memory: int
    prepare: Callable[[], None] | None

    def fork(self, file: BinaryIO) -> int:
        """Number of a child process that does the work and leaves its result in `file`."""
        if self.prepare is not None:
            self.prepare()
        with warnings.catch_warnings():
            # Python warns of a fork beside threads of compiled libraries, which the child does not
            # need.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            self._do(file)
        return child

    def _do(self, file: BinaryIO) -> None:
        """Do the work and end the process; nothing of the parent's runs in it."""
        status = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            faulthandler.disable()
            _limit_resources(self.memory, self.seconds)
            # Of the threads of a pool, none is left in a fork.
            with dask.config.set(scheduler="synchronous"), recorded(show=False) as issued:
                try:
                    result = guarded(self.path, self.work)
                except Exception as error:
                    result = error
            _dump((result, _picklable(getattr(result, "__cause__", None)), issued), file)
            status = 0
        finally:
            os._exit(status)


@lru_cache(maxsize=1)
def _server(owner: int) -> _Server:
    """The server of process `owner`, this one."""
    return _Server()


class _Server:
    """A process without other threads that forks children, one after the other.

    It ends with this process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from edxdenoise.io import child; child.serve({number})"],
                pass_fds=[number],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            )

    def run(self, task: _Task, file: BinaryIO) -> int:
        """Exit status of a child that does the task."""
        content = pickle.dumps(task)
        with self._lock:
            socket.send_fds(self._socket, [_NUMBER.pack(len(content))], [file.fileno()])
            self._socket.sendall(content)
            return _wait(task, self._number(), self._poll)

    def _number(self) -> int:
        return _NUMBER.unpack(_received(self._socket, _NUMBER.size))[0]

    def _poll(self, child: int, seconds: float) -> int | None:
        return self._number() if select.select([self._socket], [], [], seconds)[0] else None


def serve(number: int) -> None:
    """Fork children for the process at the other end of socket `number`, until it ends."""
    # All processes of a terminal hear Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=number) as connection, suppress(EOFError):
        while True:
            size, descriptors, *_ = socket.recv_fds(connection, _NUMBER.size, 1)
            if not size:
                return
            task = pickle.loads(_received(connection, *_NUMBER.unpack(size)))
            with open(descriptors[0], "w+b") as file:
                child = task.fork(file)
            connection.sendall(_NUMBER.pack(child))
            _, status = os.waitpid(child, 0)
            connection.sendall(_NUMBER.pack(os.waitstatus_to_exitcode(status)))


def _received(connection: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        part = connection.recv(size - len(content))
        if not part:
            raise EOFError("the process at the other end has ended")
        content += part
    return content


def _memory() -> BinaryIO:
    return open(os.memfd_create("edxdenoise"), "w+b")


def _picklable(error: BaseException | None) -> BaseException | None:
    """`error` itself, or None where it cannot travel; the message stands without it."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever the classes of the readers' libraries raise
        return None
    return error


def _limit_resources(memory: int, seconds: float) -> None:
    """Let no child outgrow its memory, leave a core or outlive a parent that was killed."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    longest = int((seconds + 1) * default_workers())
    limits = {resource.RLIMIT_CPU: longest}
    with suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limits[resource.RLIMIT_AS] = pages * mmap.PAGESIZE + memory
    for kind, allowed in limits.items():
        _, most = resource.getrlimit(kind)
        if most == resource.RLIM_INFINITY or allowed < most:
            resource.setrlimit(kind, (allowed, most))


def _poll_child(child: int, seconds: float) -> int | None:
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid:
        return os.waitstatus_to_exitcode(status)
    time.sleep(seconds)
    return None


def _wait(task: _Task, child: int, poll: Callable[[int, float], int | None]) -> int:
    """Exit status of the child, negative where a signal ended it."""
    end = time.monotonic() + task.seconds
    pause, status = 0.001, None
    try:
        while status is None:
            if time.monotonic() > end:
                raise FormatError(
                    f"cannot read '{task.path}': its reader has not ended after "
                    f"{task.seconds:.0f} s; the file is damaged, or allow more seconds with "
                    "--patience"
                )
            status = poll(child, pause)
            pause = min(1.5 * pause, 0.05)
        return status
    finally:
        if status is None:
            os.kill(child, signal.SIGKILL)
            while poll(child, pause) is None:
                pass


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
