"""A Dask cluster that runs elsewhere: whether it is there, fit for work, and what failed on it."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import dask

from edxdenoise._version import __version__
from edxdenoise.errors import ClusterError, EdxdenoiseError, ParameterError
from edxdenoise.resources import format_memory

# How many workers to wait for, and for how many seconds.
WAIT_FOR_WORKERS = (1, 60.0)
# Seconds without a worker after which the user is told so, and between two looks.
_PATIENCE, _LOOK = 3.0, 1.0
_ANSWER = "10s"


def client() -> Any | None:
    """The client of the cluster that Dask computes on; None where it computes in this process."""
    found = getattr(dask.base.get_scheduler(), "__self__", None)
    return found if hasattr(found, "scheduler_info") else None


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
        If there are too few workers, one has no or another edxdenoise, or scheduler or workers
        fail.
    """
    if name.endswith(".json") and not os.path.isfile(name):
        # The client would wait for the file to appear.
        raise ParameterError(f"scheduler file '{name}' does not exist; start the scheduler first")
    address = {"scheduler_file": name} if name.endswith(".json") else {"address": name}
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        connected = _client_class()(**address, timeout=_ANSWER)
    except (OSError, ValueError) as error:
        raise ParameterError(f"no Dask scheduler answers at '{name}': {error}") from error
    ended = threading.Event()
    try:
        _wait_for_workers(connected, wait, say)
        _check_versions(connected)
        watch = threading.Thread(target=_watch, args=(connected, wait, say, ended), daemon=True)
        watch.start()
        yield
    finally:
        ended.set()
        with suppress(OSError, RuntimeError, CancelledError):
            connected.close(timeout=5)


@lru_cache(maxsize=1)
def _client_class() -> type:
    from distributed import Client
    from distributed.comm import CommClosedError
    from distributed.scheduler import KilledWorker

    class ExplainingClient(Client):
        """A client whose failures name the scheduler or the worker, not the file being read."""

        # Why the watch has closed this client.
        given_up = ""

        def get(self, *args: Any, **kwargs: Any) -> Any:
            where = self.scheduler.address
            try:
                return super().get(*args, **kwargs)
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
                    f"a worker of {where} ran out of memory ({error}); give workers more memory "
                    "or fewer threads, or make blocks smaller with --memory-limit"
                ) from error
            except FileNotFoundError as error:
                raise ClusterError(
                    f"a worker of {where} does not see the files that this process sees ({error}); "
                    "put them where every worker sees them at the same path"
                ) from error
            except ModuleNotFoundError as error:
                raise ClusterError(
                    f"a worker of {where} lacks a package ({error}); install edxdenoise "
                    f"{__version__} there"
                ) from error
            except (CommClosedError, CancelledError, TimeoutError) as error:
                raise ClusterError(self.given_up or _gone(where)) from error

    return ExplainingClient


def _gone(where: str) -> str:
    return (
        f"the Dask scheduler at {where} no longer answers; start it and its workers again, then "
        "repeat the command"
    )


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
    where = connected.scheduler.address
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
        except (OSError, RuntimeError, CancelledError):
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
        If the scheduler or a worker stops meanwhile.
    """
    from distributed.comm import CommClosedError

    try:
        answers: dict[str, Any] = connected.run(function, *args, on_error="return")
    except (OSError, CancelledError, TimeoutError) as error:
        raise ClusterError(_gone(connected.scheduler.address)) from error
    for worker, answer in answers.items():
        if isinstance(answer, (CommClosedError, TimeoutError)):
            raise ClusterError(
                f"worker {worker} no longer answers ({answer}); see its log, start it again, then "
                "repeat the command"
            )
    return answers


def _check_versions(connected: Any) -> None:
    """Refuse workers that run other code."""
    expected = _versions()
    for worker, found in ask(connected, _versions).items():
        if isinstance(found, Exception):
            raise ClusterError(
                f"worker {worker} cannot run edxdenoise ({found}); install edxdenoise "
                f"{__version__} there, or stop it"
            )
        other = [f"{name} {found[name]}" for name in expected if found[name] != expected[name]]
        if other:
            ours = ", ".join(f"{name} {expected[name]}" for name in expected)
            raise ClusterError(
                f"worker {worker} has {', '.join(other)}, must have {ours} as here; install the "
                "same versions there, or stop it"
            )


def _versions() -> dict[str, str]:
    return {
        "edxdenoise": __version__,
        "Python": "{}.{}".format(*sys.version_info),
        **{name: version(name) for name in ("dask", "distributed")},
    }
