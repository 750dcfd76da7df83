"""The command line of a study: how many seeds, a table to print, a CSV for the documentation."""

from __future__ import annotations

import argparse
import csv
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edxdenoise.errors import EdxdenoiseWarning

RESULTS = Path(__file__).parent / "results"


def run(
    module: str,
    description: str,
    head: Sequence[str],
    study: Callable[..., Sequence[Sequence[object]]],
    *,
    seeds: int,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Run a study as the command line says, without the package's warnings.

    Parameters
    ----------
    module : str
        Path of the study: its name is that of the CSV.
    description : str
        Docstring of the study; its first paragraph is the help.
    head : sequence of str
        Columns of the table.
    study : callable
        Gives the rows; called with ``seeds`` and the other options by name.
    seeds : int
        Default of ``--seeds``.
    options : mapping of str to mapping, optional
        Others, with the arguments of ``ArgumentParser.add_argument``.
    """
    path = RESULTS / f"{Path(module).stem}.csv"
    parser = argparse.ArgumentParser(description=description.split("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=seeds)
    for name, arguments in (options or {}).items():
        parser.add_argument(name, **arguments)
    parser.add_argument("--csv", action="store_true", help=f"write studies/results/{path.name}")
    chosen = vars(parser.parse_args())
    write = chosen.pop("csv")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EdxdenoiseWarning)
        rows = study(**chosen)
    table = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) + 2 for column in zip(*table)]
    for row in table:
        print("".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    if write:
        write_csv(path, table)


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """A file as it is, or the EDAX map of a zip archive."""
    with tempfile.TemporaryDirectory() as folder:
        if path.suffix == ".zip":
            zipfile.ZipFile(path).extractall(folder)
            (path,) = Path(folder).rglob("*.spd")
        yield path


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write rows, headings first, for the documentation."""
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def kept_rows(path: Path, rows: Iterable[Sequence[str]], *, key: int = 1) -> list[list[str]]:
    """Add the rows of a CSV that are not replaced: those whose first `key` cells are others."""
    old = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            old = list(csv.reader(file))[1:]
    return list({tuple(row[:key]): list(row) for row in [*old, *rows]}.values())
