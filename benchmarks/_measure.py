"""Wall time and peak memory of processes, and tables of them; what all benchmarks share."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "studies"))

from _study import RESULTS, write_csv  # noqa: E402

_INTERVAL = 0.05
_LONGEST_CELL = 60


@dataclass(frozen=True)
class Run:
    """One run of a command.

    Parameters
    ----------
    seconds : float
        Wall time from start to end.
    processor : float
        Seconds of processors, which say more where other programs run.
    peak : int
        Most bytes that the process and all its children held at a time.
    status : int
        Exit status.
    output, errors : str
        What it printed.
    """

    seconds: float
    processor: float
    peak: int
    status: int
    output: str
    errors: str

    def checked(self) -> Run:
        """This run, if it succeeded; else RuntimeError with what it said."""
        if self.status:
            raise RuntimeError(f"exit status {self.status}: {self.errors.strip()[-2000:]}")
        return self


def run(command: Sequence[str | Path]) -> Run:
    """Run a command to its end and watch the memory of its process tree.

    Resident memory is summed over the tree 20 times a second; the high-water mark that Linux keeps
    for the first process fills the gaps. Pages of the file cache do not count.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        start, before = time.perf_counter(), _processor_seconds()
        process = psutil.Popen([str(part) for part in command], stdout=output, stderr=errors)
        peak = 0
        while True:
            peak = max(peak, _tree_memory(process), high_water(process.pid))
            try:
                process.wait(_INTERVAL)
                break
            except psutil.TimeoutExpired:
                continue
        seconds = time.perf_counter() - start
        output.seek(0)
        errors.seek(0)
        used = _processor_seconds() - before
        return Run(seconds, used, peak, process.returncode, output.read(), errors.read())


def run_version(code: Path, *arguments: str | Path) -> Run:
    """Run a command of the package in the folder `code`, such as another version of edxdenoise."""
    # Not the package in the working directory, which comes first without -P.
    python = [sys.executable, "-P", "-m", "edxdenoise"]
    return run(["env", f"PYTHONPATH={code.resolve()}", *python, *arguments])


def _processor_seconds() -> float:
    """Of all children that have ended, and theirs."""
    times = os.times()
    return times.children_user + times.children_system


def _tree_memory(process: psutil.Process) -> int:
    total = 0
    try:
        for each in (process, *process.children(recursive=True)):
            total += each.memory_info().rss
    except psutil.NoSuchProcess:
        # One of them has just ended: the next look sees the others.
        pass
    return total


def high_water(pid: int | None = None) -> int:
    """Most bytes a process (this one by default) has held since `reset_high_water`; Linux only."""
    try:
        status = Path(f"/proc/{pid or os.getpid()}/status").read_text()
    except OSError:
        return 0
    lines = dict(line.split(":", 1) for line in status.splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024 if "VmHWM" in lines else 0


def reset_high_water() -> int:
    """Let `high_water` of this process start again at what it holds now, and return that."""
    Path("/proc/self/clear_refs").write_text("5")
    return high_water()


@contextmanager
def scratch(parent: Path | None):
    """A folder, below `parent` or where temporary files belong, that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="edxdenoise-", dir=parent) as folder:
        yield Path(folder)


def machine() -> str:
    """One line about the machine."""
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{len(psutil.Process().cpu_affinity())} cores, {memory:.0f} GB of memory, "
        f"{platform.system()}, Python {platform.python_version()}"
    )


def show(name: str, head: Sequence[str], rows: Sequence[Sequence[str]], write: bool) -> None:
    """Print a table, and write it for the documentation where asked."""
    print(f"\n{markdown(head, rows)}")
    if write:
        write_csv(RESULTS / f"{name}.csv", [head, *rows])


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others stand to the right.

    A last column of long remarks is not padded.
    """
    widths = [max(map(len, cells)) for cells in zip(columns, *rows)]
    if widths[-1] > _LONGEST_CELL:
        widths[-1] = len(columns[-1])

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join([line(columns), line(rule), *map(line, rows)])
