"""Time and memory of reading vendors' maps, and whether RosettaSciIO's counts are the same.

    python benchmarks/reading.py ../shared/data
    python benchmarks/reading.py ../shared/data --csv

Each reader runs in its own process; time and memory of its imports are not counted.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
from _measure import high_water, machine, reset_high_water, run, scratch, show

from edxdenoise.blocks import SparseBlock, dense
from edxdenoise.io.vendor import open_signals

ROOT = Path(__file__).resolve().parents[1]
PLUGINS = {".bcf": "bruker", ".pts": "jeol", ".emd": "emd"}
HEAD = ("file", "map", "filled cells", "time", "RosettaSciIO", "memory", "RosettaSciIO's", "counts")


def ours(path: Path) -> np.ndarray | SparseBlock:
    """Counts of the X-ray map as they are read here, in this process and not in a child of it."""
    signals = [each for each in open_signals(path) if len(each.axes) == 3]
    signal = next(each for each in signals if each.metadata["Signal"]["signal_type"][:3] == "EDS")
    return (signal.load() if signal.load else signal).data


def theirs(path: Path) -> np.ndarray:
    """Counts of the X-ray map as RosettaSciIO gives them."""
    from importlib import import_module

    options = {} if path.suffix == ".pts" else {"select_type": "spectrum_image"}
    reader = import_module(f"rsciio.{PLUGINS[path.suffix]}").file_reader
    items = reader(str(path), **options)
    kind = [str(item["metadata"]["Signal"].get("signal_type", "")) for item in items]
    return next(item["data"] for item, name in zip(items, kind) if name.startswith("EDS"))


def measured(name: str, path: Path) -> dict[str, object]:
    """What one reader takes on its second reading: the first compiles and imports."""
    read = {"ours": ours, "theirs": theirs}[name]
    read(path)
    before, start = reset_high_water(), time.perf_counter()
    read(path)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "bytes": high_water() - before}


def row(path: Path) -> list[str]:
    """One row of the table."""
    runs = []
    for name in ("ours", "theirs"):
        found = run([sys.executable, __file__, "--one", name, str(path)]).checked()
        runs.append(json.loads(found.output.splitlines()[-1]))
    counts, other = dense(ours(path)), theirs(path)
    return [
        path.name,
        " x ".join(map(str, counts.shape)),
        f"{np.count_nonzero(counts) / counts.size:.2%}",
        *(f"{each['seconds']:.2f} s" for each in runs),
        *(f"{each['bytes'] / 1e6:.0f} MB" for each in runs),
        "equal" if np.array_equal(counts, other) else "DIFFER",
    ]


def main() -> None:
    """Read all files of a folder, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("data", type=Path, help="folder with .pts, .bcf, .emd, or .zip of them")
    parser.add_argument("--csv", action="store_true", help="write studies/results/reading.csv")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(measured(chosen.one, chosen.data)))
        return
    with scratch(None) as folder:
        for archive in sorted(chosen.data.glob("*.zip")):
            zipfile.ZipFile(archive).extractall(folder)
        found = [*chosen.data.rglob("*"), *folder.rglob("*")]
        files = sorted(p for p in found if p.suffix in PLUGINS and p.parent.name != "bad")
        # Velox has left no map in the file that it reduced.
        rows = [row(path) for path in files if "ReducedData" not in path.name]
    print(machine())
    show("reading", HEAD, rows, chosen.csv)


if __name__ == "__main__":
    main()
