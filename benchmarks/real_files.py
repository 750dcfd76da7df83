"""Every real vendor file through ``edxdenoise info`` and ``edxdenoise denoise``.

    python benchmarks/real_files.py [DATA]

Each command is a process of its own, imports included. Archives are unpacked first. What the
program refuses belongs to the table, with its reason.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import zipfile
from pathlib import Path

from _measure import Run, machine, markdown, run, scratch

DATA = Path(__file__).parents[2] / "shared" / "data"
# Files of these kinds are opened by themselves; the others belong to one of them.
SUFFIXES = (".bcf", ".pts", ".spd", ".emd", ".emi", ".elid", ".hspy", ".rpl")

_COMMAND = Path(sys.executable).with_name("edxdenoise")
_COLUMNS = [
    *("file", "y, x, energy", "counts", "per pixel", "info", "denoise", "peak memory", "kept"),
    "remarks",
]


def find(data: Path, unpacked: Path) -> list[tuple[str, Path]]:
    """Name and path of every file to open; archives are unpacked into `unpacked`."""
    found = []
    for path in sorted([*data.iterdir(), *(data / "small").glob("*")]):
        name = str(path.relative_to(data))
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                archive.extractall(unpacked / path.stem)
            inside = sorted((unpacked / path.stem).rglob("*"))
            found += [(f"{name}: {each.name}", each) for each in inside]
        else:
            found.append((name, path))
    return [(name, path) for name, path in found if path.suffix.lower() in SUFFIXES]


def row(name: str, path: Path, folder: Path) -> list[str]:
    """One row of the table."""
    remarks = []
    options: list[str] = []
    info = run([_COMMAND, "info", path, "--json"])
    several = re.search(r"--signal NUMBER: (\d+)", info.errors)
    if several:
        options = ["--signal", several[1]]
        remarks.append(f"several maps, refused without --signal; here --signal {several[1]}")
        info = run([_COMMAND, "info", path, "--json", *options])
    if info.status:
        return [name, "", "", "", f"{info.seconds:.1f} s", "", "", "", _refused(info)]
    cube = json.loads(info.output)
    out = folder / "out.zarr"
    denoised = run([_COMMAND, "denoise", path, "-o", out, "--overwrite", *options])
    cells = [
        name,
        ", ".join(map(str, cube["shape"])),
        f"{cube['total_counts']:,.0f}",
        f"{cube['counts_per_pixel']:.3g}",
        f"{info.seconds:.1f} s",
        f"{denoised.seconds:.1f} s",
    ]
    if denoised.status:
        return [*cells, "", "", "; ".join([*remarks, _refused(denoised)])]
    components = json.loads(run([_COMMAND, "components", out, "--json"]).checked().output)
    kept = sum(each["keep"] for each in components)
    # A warning goes on with what to do about it.
    warned = re.findall(r"^Warning: (.*?)(?:[:;] .*)?$", denoised.errors, re.MULTILINE)
    remarks += map(_without_folders, warned)
    peak = max(info.peak, denoised.peak)
    return [*cells, f"{peak / 1e9:.2f} GB", f"{kept} of {len(components)}", "; ".join(remarks)]


def _without_folders(text: str) -> str:
    return re.sub(r"(?<![^\s'])/(?:[^\s/']+/)+", "", text)


def _refused(failed: Run) -> str:
    line = failed.errors.strip().splitlines()[-1].removeprefix("Error: ")
    verdict = "FAILED" if line.startswith("unexpected ") else "refused"
    return f"{verdict} (status {failed.status}): {_without_folders(line)}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("data", type=Path, nargs="?", default=DATA, help="folder of the files")
    options = parser.parse_args()
    with scratch(None) as folder:
        rows = [row(name, path, folder) for name, path in find(options.data, folder / "zip")]
    print(f"{machine()}\n\n{markdown(_COLUMNS, rows)}")


if __name__ == "__main__":
    main()
