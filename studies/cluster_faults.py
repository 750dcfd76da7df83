"""What the program says and does on a Dask cluster with faults.

    python studies/cluster_faults.py --csv

Each case starts a scheduler and workers as processes of this machine; a blind worker runs in a
mount namespace where the folder of the files is empty. "right" is the same result as without a
cluster, "message" one line and no output, "WRONG" another result without an error, "ENDLESS" one
that had to be ended, "LOST" an unfinished output, "UNEXPECTED" anything else. Seconds are the most
from the start of the command to the first thing it said and to its end, Python's imports included.

What is killed gets SIGKILL: a worker and its nanny within each stage, all else at any time from the
first stage on. A command that was killed itself is typed again; then the result, or the one that it
had written before, must be right, and nothing else may lie beside it.
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
from typing import TYPE_CHECKING

from _study import RESULTS, kept_rows, write_csv

if TYPE_CHECKING:
    import xarray as xr

PATH = RESULTS / "cluster_faults.csv"
# Stages as -v tells them; others take no time.
STAGES = ("reading", "held-out counts", "components", "shrinkage", "writing")
CASES = (
    "sound",
    "blind for input",
    "blind for output",
    "blind worker joins later",
    "another input",
    "no workers",
    "no edxdenoise",
    "other version",
    *(f"worker killed, {stage}" for stage in STAGES),
    "all workers killed",
    "scheduler killed",
    "client killed, --resume",
    "workers of 400 MB",
    "workers of 500 MB",
)
# How often a case is run, others `_RUNS` times: in some it matters when the fault comes.
REPEATS = {f"worker killed, {stage}": 10 for stage in STAGES}
REPEATS |= {"scheduler killed": 5, "client killed, --resume": 20}
_RUNS = 3
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


class Command:
    """A command whose words on stderr are heard as they come.

    Parameters
    ----------
    words : sequence
        What is typed after ``edxdenoise``.
    """

    def __init__(self, words: Sequence[object]) -> None:
        self.lines: list[str] = []
        self.times: list[float] = []
        self.start = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edxdenoise", *map(str, words)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def _listen(self) -> None:
        for line in self.process.stderr:
            self.times.append(time.monotonic() - self.start)
            self.lines.append(line.strip())

    def wait_for(self, stage: str) -> None:
        """Return once -v tells that a stage has ended, or the command has."""
        while self.process.poll() is None and stage not in self.stages():
            time.sleep(0.01)

    def stages(self) -> dict[str, tuple[float, float]]:
        """When the stages that have ended did so, and how long they took, in s."""
        found = {}
        for moment, line in zip(self.times, self.lines):
            if match := re.fullmatch(r"([a-z -]+): ([\d.]+) s", line):
                found[match[1]] = moment, float(match[2])
        return found

    def end(self, out: Path) -> dict[str, object]:
        """Wait for the end; see `run` for what is returned, of a result not yet looked at."""
        try:
            outcome = "message" if self.process.wait(timeout=_ENDLESS) else "right"
        except subprocess.TimeoutExpired:
            self.process.kill()
            outcome = "ENDLESS"
        seconds = time.monotonic() - self.start
        self._listener.join()
        errors = [line for line in self.lines if line.startswith("Error")]
        if outcome != "right" and os.listdir(out):
            outcome = "LOST"
        elif outcome == "message" and (len(errors) != 1 or "unexpected" in errors[0]):
            outcome = "UNEXPECTED"
        message = "" if outcome == "right" else (errors or self.lines or [""])[-1]
        message = re.sub(r"tcp://[\d.]+:\d+", "tcp://HOST:PORT", message)
        return {
            "outcome": outcome,
            "said": self.times[0] if self.times else seconds,
            "seconds": seconds,
            "message": message.replace(str(out.parent), ""),
        }


def run(case: str, folder: Path, seed: int = 0) -> dict[str, object]:
    """Denoise a small phantom on a cluster with one fault.

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
        command = Command(
            ["denoise", data / "map.zarr", "-o", out / "map.zarr", "--scheduler", started.file]
            + options
            + (["--wait-for-workers", "1", "15"] if "workers" in case else [])
        )
        if case == "blind worker joins later":
            time.sleep(4)
            started.add(hidden=data)
        found = command.end(out)
    if found["outcome"] == "right":
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
        found["outcome"] = "right" if same else "WRONG"
    return found


def kills(case: str, folder: Path, runs: int, seed: int) -> Iterator[dict[str, object]]:
    """Kill something while a small phantom is denoised on two workers, at seeded moments.

    Parameters
    ----------
    case : str
        One of those that kill.
    folder : Path
        An empty one.
    runs, seed : int
        How often, and the seed of the moments.

    Yields
    ------
    dict
        As `run` gives.
    """
    import numpy as np

    from edxdenoise import simulate
    from edxdenoise.config import Denoise, Input, Output
    from edxdenoise.io import open_dataset, save_dataset
    from edxdenoise.recipe import Recipe
    from edxdenoise.run import run_recipe

    source, out = folder / "map.zarr", folder / "out"
    phantom = simulate("solar-cell", shape=(132, 100), channels=160, energy_width=0.08)
    save_dataset(phantom[["counts"]].chunk({"y": 11}), source)
    chosen = Denoise(components=20, select="elbow")
    run_recipe(Recipe(Input((str(source),)), denoise=chosen, output=Output(f"{folder}/plain.zarr")))
    truth = open_dataset(folder / "plain.zarr").load()
    words = ["-v", "denoise", source, "-o", out / "map.zarr", "--components", "20"]
    words += ["--select", "elbow", "--memory-limit", "1.5GB", "--wait-for-workers", "1", "15"]
    words += ["--resume"] if "--resume" in case else []
    random = np.random.default_rng(seed)
    usual = None
    started = None
    # Python's own files are read from the disk in the first of two undisturbed runs.
    for number in range(-1, runs + 1):
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        if started is None:
            (folder / f"cluster-{number}").mkdir()
            started = Cluster(folder / f"cluster-{number}")
        try:
            while sum(each.poll() is None for each in started.workers) < 2:
                started.add()
            started.wait(2)
            command = Command([*words, "--scheduler", started.file])
            if number > 0:
                _wait(command, case.partition(", ")[2], usual, random.random())
                _kill(case, command, started)
                if "--resume" in case:
                    command.process.wait()
                    command = Command([*words, "--scheduler", started.file])
            found = command.end(out)
            if "--resume" in case and "map.zarr exists" in str(found["message"]):
                # Killed when all was written.
                found["outcome"] = "right"
            if found["outcome"] == "right" and not _same(open_dataset(out / "map.zarr"), truth):
                found["outcome"] = "WRONG"
            if found["outcome"] == "right" and os.listdir(out) != ["map.zarr"]:
                found["outcome"], found["message"] = "LOST", " ".join(sorted(os.listdir(out)))
            if number > 0:
                yield found
            elif found["outcome"] != "right":
                raise RuntimeError(f"without a fault: {found}")
            else:
                usual = command.stages()
        finally:
            if number == runs or started.scheduler.poll() is not None:
                started.close()
                started = None


def _wait(
    command: Command, stage: str, usual: dict[str, tuple[float, float]], share: float
) -> None:
    """Wait for a random moment: in a stage, or from the first stage to the end of the last."""
    names = list(usual)
    if stage not in names:
        end, took = usual[names[0]]
        begin = end - took
        time.sleep(begin + share * (usual[names[-1]][0] - begin))
    elif names.index(stage):
        command.wait_for(names[names.index(stage) - 1])
        time.sleep(share * usual[stage][1])
    else:
        end, took = usual[stage]
        time.sleep(end - took + share * took)


def _kill(case: str, command: Command, started: Cluster) -> None:
    if case.startswith("client"):
        command.process.kill()
    elif case.startswith("scheduler"):
        kill(started.scheduler)
    else:
        living = [each for each in started.workers if each.poll() is None]
        for worker in living if case.startswith("all") else living[:1]:
            kill(worker)


def _same(result: xr.Dataset, truth: xr.Dataset) -> bool:
    """Whether two results agree to 1e-6 of the largest value of each variable.

    Denoised counts are stored rounded: where a value lies between two steps, either is right.
    """
    import numpy as np

    for name, expected in truth.data_vars.items():
        found, expected = result[name].values, expected.values
        if expected.dtype.kind == "f":
            step = 2.0**-4 if name == "counts_denoised" else 0.0
            close = 1e-6 * np.nan_to_num(np.abs(expected)).max() + step * np.abs(expected)
            same = (np.abs(found - expected) <= close) | np.isnan(found) & np.isnan(expected)
        else:
            same = found == expected
        if not np.all(same):
            return False
    return result.data_vars.keys() == truth.data_vars.keys()


def cases(case: str, seed: int) -> Iterator[dict[str, object]]:
    """What all runs of a case gave, in temporary folders."""
    runs = REPEATS.get(case, _RUNS)
    if "killed" in case:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            yield from kills(case, Path(folder), runs, seed)
        return
    for number in range(runs):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            yield run(case, Path(folder), seed + number)


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
    for case in arguments.case or CASES:
        found = list(cases(case, arguments.seed))
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
