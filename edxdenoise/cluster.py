"""A Dask cluster that runs elsewhere: whether it is there, fit for work, and what failed on it.

All workers must read and write the same files as this process. The same path may be absent on
another machine, or be another file. Zarr takes an absent chunk for one of zeros, so that such a
worker would lose counts without an error.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import math
import os
import platform
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr

from edxdenoise._version import __version__
from edxdenoise.errors import ClusterError, EdxdenoiseError, ParameterError
from edxdenoise.resources import format_memory

# Bytes that every thread of a worker needs beside what Python and the libraries take.
_ROOM = 80_000_000
# How many workers to wait for, and for how many seconds.
WAIT_FOR_WORKERS = (1, 60.0)
# Seconds without a worker after which the user is told so, and between two looks.
_PATIENCE, _LOOK = 3.0, 1.0
# How often workers are asked that do not answer.
_TRIES = 3
_ANSWER = "10s"
# How distributed says it, in a plain OSError.
_NO_CONNECTION = "Timed out trying to connect to"


def client() -> Any | None:
    """The client of the cluster that Dask computes on; None where it computes in this process."""
    found = getattr(dask.base.get_scheduler(), "__self__", None)
    return found if hasattr(found, "scheduler_info") else None


def room() -> float:
    """Bytes that each thread of a cluster's workers has for blocks; infinite without a cluster."""
    connected = client()
    return math.inf if connected is None else connected.room


@contextmanager
def connect(
    name: str,
    wait: tuple[int, float] = WAIT_FOR_WORKERS,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[None]:
    """Compute everything inside on a cluster that runs already.

    Parameters
    ----------
    name : str
        Address of the scheduler, or the path of its ``.json`` file.
    wait : tuple of int and float
        Workers to wait for, and for how many seconds, also where all are lost later on.
    say : callable
        Called with one line for the user while there is no worker.

    Raises
    ------
    ParameterError
        If the scheduler does not answer.
    ClusterError
        If there are too few workers, one has no or another edxdenoise or too little memory, or
        scheduler or workers fail.
    """
    if name.endswith(".json") and not os.path.isfile(name):
        # The client would wait for the file to appear.
        raise ParameterError(f"scheduler file '{name}' does not exist; start the scheduler first")
    address = {"scheduler_file": name} if name.endswith(".json") else {"address": name}
    for logger in ("distributed", "asyncio"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    try:
        # Not as Dask's default, which a client that is closed gives back: what is computed after
        # the watch has given up would be computed in this process.
        connected = _client_class()(**address, timeout=_ANSWER, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ParameterError(f"no Dask scheduler answers at '{name}': {error}") from error
    ended = threading.Event()
    try:
        _wait_for_workers(connected, wait, say)
        connected.room = _check_workers(connected)
        watch = threading.Thread(target=_watch, args=(connected, wait, say, ended), daemon=True)
        watch.start()
        with dask.config.set(scheduler=connected.get):
            yield
    finally:
        ended.set()
        with suppress(OSError, RuntimeError, CancelledError):
            connected.close(timeout=5)


@lru_cache(maxsize=1)
def _client_class() -> type:
    from distributed import Client
    from distributed.client import ClosedClientError
    from distributed.comm import CommClosedError
    from distributed.scheduler import KilledWorker

    class ExplainingClient(Client):
        """A client whose failures name the scheduler or the worker, not the file being read."""

        # Why the watch has closed this client.
        given_up = ""
        room = math.inf

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            # Kept, since a closed client has forgotten it.
            self.where = self.scheduler.address

        def get(self, *args: Any, **kwargs: Any) -> Any:
            with self.explaining():
                return super().get(*args, **kwargs)

        def persist(self, *args: Any, **kwargs: Any) -> Any:
            with self.explaining():
                return super().persist(*args, **kwargs)

        @contextmanager
        def explaining(self) -> Iterator[None]:
            """Raise ClusterError where scheduler or workers fail."""
            try:
                yield
            except KilledWorker as error:
                raise ClusterError(
                    f"worker {error.last_worker.address} died, as others before it, while it "
                    "worked on one block: most likely it ran out of memory; give workers more "
                    "memory or fewer threads, or make blocks smaller with --memory-limit"
                ) from error
            except MemoryError as error:
                if isinstance(error, EdxdenoiseError):
                    raise
                raise ClusterError(
                    f"a worker of {self.where} ran out of memory ({error}); give workers more "
                    "memory or fewer threads, or make blocks smaller with --memory-limit"
                ) from error
            except FileNotFoundError as error:
                raise ClusterError(
                    f"a worker of {self.where} does not see the files that this process sees "
                    f"({error}); put them where every worker sees them at the same path"
                ) from error
            except ModuleNotFoundError as error:
                raise ClusterError(
                    f"a worker of {self.where} lacks a package ({error}); install edxdenoise "
                    f"{__version__} there"
                ) from error
            except (ClosedClientError, CancelledError, OSError) as error:
                # An error of a file that a worker reads is a plain OSError as well.
                lost = isinstance(error, (CommClosedError, TimeoutError, CancelledError))
                if isinstance(error, OSError) and not (lost or _NO_CONNECTION in str(error)):
                    raise
                raise ClusterError(
                    self.given_up
                    or f"the Dask scheduler at {self.where} no longer answers; start it and its "
                    "workers again, then repeat the command"
                ) from error

    return ExplainingClient


def _wait_for_workers(connected: Any, wait: tuple[int, float], say: Callable[[str], None]) -> None:
    wanted, longest = wait
    start = told = time.monotonic()
    while (found := _count(connected)) < wanted:
        now = time.monotonic()
        if now - start >= longest:
            raise ClusterError(_lacking(connected, found, wanted, now - start))
        if now - told >= _PATIENCE:
            told = now
            say(f"waiting for workers, {found} of {wanted} so far, {now - start:.0f} s")
        time.sleep(0.1)


def _count(connected: Any) -> int:
    return len(_workers(connected))


def _workers(connected: Any) -> list[dict[str, Any]]:
    return list(connected.scheduler_info(n_workers=-1)["workers"].values())


def _is_stuck(worker: dict[str, Any]) -> bool:
    """Whether a worker takes no tasks since its memory is nearly full, and has none to end."""
    executing = worker.get("metrics", {}).get("task_counts", {}).get("executing", 0)
    return worker.get("status") == "paused" and not executing


def _lacking(connected: Any, found: int, wanted: int, seconds: float) -> str:
    where = connected.where
    return (
        f"the Dask scheduler at {where} has {found} of {wanted} workers after {seconds:.0f} s; "
        f"start some with 'dask worker {where}', or wait longer with --wait-for-workers "
        f"{wanted} SECONDS"
    )


def _watch(
    connected: Any, wait: tuple[int, float], say: Callable[[str], None], ended: threading.Event
) -> None:
    """Say that all workers are gone or stuck, and give up once that has lasted too long."""
    seen = told = time.monotonic()
    while not ended.wait(_LOOK):
        try:
            workers = _workers(connected)
        except (OSError, RuntimeError, CancelledError, KeyError):
            # The scheduler is gone, which the computation itself reports.
            return
        now = time.monotonic()
        if not all(map(_is_stuck, workers)):
            seen = now
        elif now - seen >= max(wait[1], _PATIENCE):
            connected.given_up = (
                _full(workers, now - seen) if workers else _lacking(connected, 0, 1, now - seen)
            )
            connected.close(timeout=1)
            return
        elif now - max(seen, told) >= _PATIENCE:
            told = now
            say(
                _full(workers, now - seen)
                if workers
                else f"all workers are gone; waiting for one, {now - seen:.0f} s"
            )


def _full(workers: list[dict[str, Any]], seconds: float) -> str:
    smallest = format_memory(min(worker["memory_limit"] for worker in workers))
    return (
        f"no worker has gone on for {seconds:.0f} s since their memory is full ({len(workers)} of "
        f"{smallest} or more); give workers more memory or fewer threads, or make blocks smaller "
        "with --memory-limit"
    )


def ask(connected: Any, function: Callable[..., Any], *args: Any) -> dict[str, Any]:
    """Return the result of `function` on each worker, by address; an exception where it fails.

    Raises
    ------
    ClusterError
        If the scheduler stops meanwhile, or a worker does not answer that the scheduler still has.
    """
    from distributed.comm import CommClosedError

    for _ in range(_TRIES):
        with connected.explaining():
            answers: dict[str, Any] = connected.run(function, *args, on_error="return")
        lost = [w for w, a in answers.items() if isinstance(a, (CommClosedError, TimeoutError))]
        if not lost:
            return answers
        # The scheduler soon knows of a worker that was killed, and asks the others alone.
        time.sleep(_LOOK)
    raise ClusterError(
        f"worker {lost[0]} no longer answers ({answers[lost[0]]}); see its log, start it again, "
        "then repeat the command"
    )


def _check_workers(connected: Any) -> float:
    """Refuse workers that run other code or have no memory to work in; return what they have."""
    expected, rooms = _versions(), [math.inf]
    for worker, found in ask(connected, _condition).items():
        if isinstance(found, Exception):
            raise ClusterError(
                f"worker {worker} cannot run edxdenoise ({found}); install edxdenoise "
                f"{__version__} there, or stop it"
            )
        versions, limit, share, used, threads = found
        other = [
            f"{name} {versions[name]}" for name in expected if versions[name] != expected[name]
        ]
        if other:
            ours = ", ".join(f"{name} {expected[name]}" for name in expected)
            raise ClusterError(
                f"worker {worker} has {', '.join(other)}, must have {ours} as here; install the "
                "same versions there, or stop it"
            )
        if limit:
            rooms.append((share * limit - used) / threads)
            if rooms[-1] < _ROOM:
                raise ClusterError(
                    f"worker {worker} has {format_memory(limit)} of memory, of which "
                    f"{format_memory(used)} are in use before any work; with {threads} threads it "
                    f"needs {format_memory((used + threads * _ROOM) / share)} (with --scheduler "
                    "processes: raise --memory-limit or lower --workers)"
                )
    return min(rooms)


def _condition(dask_worker: Any) -> tuple[dict[str, str], float, float, float, int]:
    """Versions of a worker, its memory, the share it can use, what is in use, and its threads."""
    # What a worker imports later on is in use before any block is. Nothing here calls it.
    importlib.import_module("edxdenoise.pipeline")
    manager = dask_worker.memory_manager
    return (
        _versions(),
        # None where there is no limit.
        manager.memory_limit or 0,
        # Beyond it a worker takes no more tasks; False where it always does.
        manager.memory_pause_fraction or 1,
        dask_worker.monitor.get_process_memory(),
        dask_worker.state.nthreads,
    )


def _versions() -> dict[str, str]:
    return {
        "edxdenoise": __version__,
        "Python": "{}.{}".format(*sys.version_info),
        **{name: version(name) for name in ("dask", "distributed")},
    }


# Files of a folder whose contents are compared, and bytes at each of three places of a file.
_SAMPLED_FILES, _SAMPLED_BYTES = 8, 1 << 16


def check_input(ds: xr.Dataset, path: Path) -> xr.Dataset:
    """Make sure that every worker reads the same file as this process.

    Workers there are now are asked at once; those that join later are asked by the first block that
    they read.

    Parameters
    ----------
    ds : Dataset
        Read lazily from `path`.
    path : Path
        The file or folder.

    Returns
    -------
    Dataset
        `ds` as it is where no cluster computes.

    Raises
    ------
    ClusterError
        If a worker sees no or another file; of a later worker, once a block is computed.
    """
    connected = client()
    if connected is None:
        return ds
    path = path.absolute()
    parts = _sampled_parts(path)
    expected = _fingerprint(path, parts)
    found = ask(connected, _fingerprint, path, parts)
    blind = {worker: seen for worker, seen in found.items() if seen != expected}
    if blind:
        worker, seen = next(iter(blind.items()))
        raise ClusterError(_unseen(worker, path, isinstance(seen, Exception), len(blind)))
    return ds.assign(
        {
            name: array.copy(
                data=array.data.map_blocks(
                    _same_block, path, parts, expected, dtype=array.dtype, meta=array.data._meta
                )
            )
            for name, array in ds.variables.items()
            if array.chunks
        }
    )


def _unseen(worker: str, path: Path, absent: bool, count: int = 1) -> str:
    others = f" and {count - 1} more" if count > 1 else ""
    what = "cannot read" if absent else "sees another file at"
    return (
        f"worker {worker}{others} {what} {path}; put the input where every worker sees it at the "
        "same path, or stop that worker"
    )


def _sampled_parts(path: Path) -> tuple[str, ...]:
    """Files of a folder to compare: all metadata and some chunks; '.' where it is a file."""
    if path.is_file():
        return (".",)
    files = sorted(part.relative_to(path).as_posix() for part in path.rglob("*") if part.is_file())
    metadata = [name for name in files if name.rsplit("/", 1)[-1].startswith((".z", "zarr.json"))]
    return tuple(dict.fromkeys(metadata + files[:: max(1, len(files) // _SAMPLED_FILES)]))


def _fingerprint(path: Path, parts: tuple[str, ...]) -> str:
    """SHA-256 over size, start, middle and end of files."""
    digest = hashlib.sha256()
    for part in parts:
        with open(path / part, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            digest.update(f"{part} {size}\0".encode())
            for start in sorted({0, size // 2, max(0, size - _SAMPLED_BYTES)}):
                file.seek(start)
                digest.update(file.read(_SAMPLED_BYTES))
    return digest.hexdigest()


def _same_block(block: np.ndarray, path: Path, parts: tuple[str, ...], expected: str) -> np.ndarray:
    _check_same(path, parts, expected)
    return block


@lru_cache(maxsize=64)
def _check_same(path: Path, parts: tuple[str, ...], expected: str) -> None:
    """Raise ClusterError where this worker does not see the file; asked once in a process."""
    try:
        found: str | None = _fingerprint(path, parts)
    except OSError:
        found = None
    if found != expected:
        raise ClusterError(_unseen(platform.node(), path, found is None))


def check_total(stage: str, found: float, expected: float, *, tolerance: float = 1e-9) -> None:
    """Check that a stage has read as many counts as the survey of the input did.

    Parameters
    ----------
    stage : str
        For the message.
    found, expected : float
        Sums, or what is proportional to them.
    tolerance : float
        Relative, for rounding.

    Raises
    ------
    ClusterError
        If they differ.

    Examples
    --------
    >>> check_total("weights", 99, 100)
    Traceback (most recent call last):
    ...
    edxdenoise.errors.ClusterError: the stage 'weights' found 99 counts where the input holds 100: \
a worker or disk has lost some; check that all workers see the same files, then repeat
    """
    if abs(found - expected) > tolerance * abs(expected):
        raise ClusterError(
            f"the stage '{stage}' found {found:.15g} counts where the input holds "
            f"{expected:.15g}: a worker or disk has lost some; check that all workers see the same "
            "files, then repeat"
        )


def check_folder(folder: Path) -> None:
    """Make sure that every worker writes into the same folder as this process reads.

    Raises
    ------
    ClusterError
        If a worker does not.
    """
    connected = client()
    if connected is None:
        return
    # A worker that is late finds no folder, and leaves nothing.
    proofs = Path(tempfile.mkdtemp(prefix=".edxdenoise-", dir=folder.absolute()))
    # Workers may be other users.
    proofs.chmod(0o777)
    try:
        found = ask(connected, _leave_proof, proofs)
        for worker, name in found.items():
            if isinstance(name, Exception) or not os.path.isfile(name):
                raise ClusterError(
                    f"worker {worker} does not write into the folder {folder} that is seen here; "
                    "choose an output folder that every worker sees at the same path"
                )
    finally:
        shutil.rmtree(proofs, ignore_errors=True)


def _leave_proof(proofs: Path) -> str:
    number, name = tempfile.mkstemp(dir=proofs)
    os.close(number)
    return name
