"""What the program says and does on a Dask cluster with faults.

    python studies/cluster_faults.py --csv

Each case starts a scheduler and workers as processes of this machine; a blind worker runs in a
mount namespace where the folder of the files is empty. "right" is the same result as without a
cluster, "message" one line and no output, "WRONG" another result without an error, "ENDLESS" one
that had to be ended, "LOST" an unfinished output, "UNEXPECTED" anything else. Seconds are the most
from the start of the command to the first thing it said and to its end, Python's imports included.
"""

from __future__ import annotations

import argparse
import collections
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from _study import RESULTS, kept_rows, write_csv

PATH = RESULTS / "cluster_faults.csv"
CASES = (
    "sound",
    "blind for input",
    "blind for output",
    "blind worker joins later",
    "another input",
    "no workers",
    "no edxdenoise",
    "other version",
    "worker killed",
    "all workers killed",
    "scheduler killed",
    "workers of 400 MB",
    "workers of 500 MB",
)
# How often a case is run, others `_RUNS` times: in some it matters when the fault comes.
REPEATS = {"worker killed": 20, "scheduler killed": 5}
_RUNS = 3
KILLED = ("worker killed", "all workers killed", "scheduler killed")
OUTCOMES = ("right", "message", "WRONG", "UNEXPECTED", "ENDLESS", "LOST")
# Seconds after which a case counts as endless.
_ENDLESS = 180
_DASK = (sys.executable, "-m", "dask")


def can_hide() -> bool:
    """Whether this user may start processes in a mount namespace."""
    return (
        shutil.which("unshare") is not None
        and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0
    )


class Cluster:
    """A scheduler and workers as processes, which can be killed one by one.

    Parameters
    ----------
    folder : Path
        For the scheduler's file and the workers' scratch.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "scheduler.json"
        self.workers: list[subprocess.Popen[bytes]] = []
        self.scheduler = self._start(
            [*_DASK, "scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", self.file]
        )
        while not self.file.exists():
            time.sleep(0.05)

    def add(
        self,
        *,
        hidden: Path | None = None,
        replaced: Path | None = None,
        memory: str = "2GB",
        environment: dict[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a worker for which `hidden` is empty, or holds what `replaced` does."""
        command = [*_DASK, "worker", "--scheduler-file", self.file, "--nthreads", "1"]
        command += ["--no-dashboard", "--nworkers", "1", "--memory-limit", memory]
        command += ["--local-directory", self.folder / f"scratch-{len(self.workers)}"]
        if hidden is not None:
            mount = (
                f"mount --bind {replaced} {hidden}" if replaced else f"mount -t tmpfs t {hidden}"
            )
            words = " ".join(map(str, command))
            command = ["unshare", "-m", "sh", "-c", f"{mount} && exec {words}"]
        self.workers.append(self._start(command, environment))
        return self.workers[-1]

    def wait(self, count: int) -> None:
        """Return once the scheduler knows `count` workers."""
        from distributed import Client

        with Client(scheduler_file=str(self.file)) as client:
            client.wait_for_workers(count, timeout=60)

    def _start(
        self, command: Sequence[object], environment: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            list(map(str, command)),
            cwd=self.folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def close(self) -> None:
        """End all processes that were started here."""
        for process in [*self.workers, self.scheduler]:
            kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its children, such as a worker below its nanny."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster that ends with the context."""
    started = Cluster(folder)
    try:
        yield started
    finally:
        started.close()


def run(case: str, folder: Path, seed: int = 0, usual: float = 0.0) -> dict[str, object]:
    """Denoise a small phantom on a cluster with one fault.

    Where something is killed, this is at a random moment of the `usual` time (s).

    Returns
    -------
    dict
        ``outcome``, ``said`` and ``seconds`` until the program said something and ended, and
        ``message``, its last line.
    """
    import numpy as np

    from edxdenoise import simulate
    from edxdenoise.config import Denoise, Input, Output
    from edxdenoise.io import open_dataset, save_dataset
    from edxdenoise.recipe import Recipe
    from edxdenoise.run import run_recipe

    data, out = folder / "data", folder / "out"
    data.mkdir()
    out.mkdir()
    # Large enough for small workers to spill.
    shape = (660, 500) if "MB" in case else (264, 200)
    phantom = simulate("solar-cell", shape=shape, channels=160, energy_width=0.08, seed=seed)
    save_dataset(phantom[["counts"]].chunk({"y": 33}), data / "map.zarr")
    options = ["--decomposition", "pca", "--components", "20", "--select", "elbow", "--no-shrink"]
    options += ["--subspace", "pixel", "--memory-limit", "1.5GB"]
    with cluster(folder) as started:
        expected, memory = 2, "2GB"
        match case:
            case "blind for input":
                started.add(hidden=data)
            case "blind for output":
                started.add(hidden=out)
            case "another input":
                other = folder / "other"
                other.mkdir()
                again = simulate("solar-cell", shape=shape, channels=160, energy_width=0.08, seed=9)
                save_dataset(again[["counts"]].chunk({"y": 33}), other / "map.zarr")
                started.add(hidden=data, replaced=other)
            case "no workers":
                expected = 0
            case "no edxdenoise":
                empty = folder / "empty"
                (empty / "edxdenoise").mkdir(parents=True)
                (empty / "edxdenoise" / "__init__.py").write_text("raise ImportError('absent')\n")
                started.add(environment={"PYTHONPATH": str(empty)})
            case "other version":
                started.add(environment={"PYTHONPATH": str(_other_version(folder))})
            case "workers of 400 MB" | "workers of 500 MB":
                memory = case.removeprefix("workers of ").replace(" ", "")
                started.add(memory=memory)
            case _:
                started.add()
        if expected:
            started.add(memory=memory)
            started.wait(expected)
        start = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "edxdenoise", "denoise", str(data / "map.zarr")]
            + ["-o", str(out / "map.zarr"), "--scheduler", str(started.file), *options]
            + (["--wait-for-workers", "1", "15"] if "workers" in case else []),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if case in KILLED:
            # Before, Python starts and the program connects.
            time.sleep(usual * (0.3 + 0.7 * np.random.default_rng(seed).random()))
            victims = {
                "worker killed": started.workers[:1],
                "scheduler killed": [started.scheduler],
            }
            for victim in victims.get(case, started.workers):
                kill(victim)
        elif case == "blind worker joins later":
            time.sleep(4)
            started.add(hidden=data)
        lines: list[str] = []
        said: list[float] = []

        def listen() -> None:
            for line in process.stderr:
                said.append(time.monotonic() - start)
                lines.append(line.strip())

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            outcome = "message" if process.wait(timeout=_ENDLESS) else "right"
        except subprocess.TimeoutExpired:
            process.kill()
            outcome = "ENDLESS"
        seconds = time.monotonic() - start
        listener.join()
    if outcome == "right":
        plain = Recipe(
            Input((str(data / "map.zarr"),)),
            denoise=Denoise(components=20, select="elbow", subspace="pixel", shrink=False),
            output=Output(str(folder / "plain.zarr")),
        )
        run_recipe(plain)
        result, truth = open_dataset(out / "map.zarr"), open_dataset(folder / "plain.zarr")
        same = bool((result["counts"] == truth["counts"]).all()) and np.allclose(
            result["component_variance"], truth["component_variance"], rtol=1e-6
        )
        outcome = "right" if same else "WRONG"
    elif os.listdir(out):
        outcome = "LOST"
    elif outcome == "message" and (
        sum(line.startswith("Error") for line in lines) != 1 or "unexpected" in lines[-1]
    ):
        outcome = "UNEXPECTED"
    message = re.sub(r"tcp://[\d.]+:\d+", "tcp://HOST:PORT", lines[-1] if lines else "")
    return {
        "outcome": outcome,
        "said": said[0] if said else seconds,
        "seconds": seconds,
        "message": message.replace(str(folder), ""),
    }


def once(case: str, seed: int, usual: float = 0.0) -> dict[str, object]:
    """Do `run` in a temporary folder."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return run(case, Path(folder), seed, usual)


def _other_version(folder: Path) -> Path:
    import edxdenoise

    package = Path(edxdenoise.__file__).parent
    shutil.copytree(package, folder / "version" / "edxdenoise")
    (folder / "version" / "edxdenoise" / "_version.py").write_text('__version__ = "0.0.1"\n')
    return folder / "version"


def main() -> None:
    """Run all cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", choices=CASES, help="only these")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--csv", action="store_true", help=f"write {PATH.name}")
    arguments = parser.parse_args()
    head = ["case", "runs", *OUTCOMES, "first word (s)", "end (s)", "message"]
    print(*head, sep=", ")
    rows = {}
    usual = 0.0
    for case in arguments.case or CASES:
        found = []
        if case in KILLED and not usual:
            usual = float(once("sound", arguments.seed)["seconds"])
        for number in range(REPEATS.get(case, _RUNS)):
            found.append(once(case, arguments.seed + number, usual))
        ended = collections.Counter(each["outcome"] for each in found)
        longest = [f"{max(each[name] for each in found):.0f}" for name in ("said", "seconds")]
        # That of the first run which gave one.
        said = [each["message"] for each in found if each["outcome"] != "right"]
        numbers = [str(ended[outcome]) for outcome in OUTCOMES]
        rows[case] = [str(len(found)), *numbers, *longest, *(said or [""])[:1]]
        print(case, *rows[case], sep=", ", flush=True)
    if arguments.csv:
        # Cases that were not run this time stay.
        kept = kept_rows(PATH, [[case, *row] for case, row in rows.items()])
        write_csv(PATH, [head, *sorted(kept, key=lambda row: CASES.index(row[0]))])


if __name__ == "__main__":
    main()
