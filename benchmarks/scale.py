"""Time and memory of `denoise` and `quantify` on maps of few counts, simulated block by block.

    python benchmarks/scale.py
    python benchmarks/scale.py --map 512x512x4096:1.2 --against ../older --csv
    python benchmarks/scale.py --map 256x256x2048:10 512x512x2048:10 1024x1024x2048:10 \
        --no-quantify --table scale_pixels --csv
    python benchmarks/scale.py --map 1024x1024x2048:10 --memory-limit 1GB 2GB 4GB --csv

Each map is rows x columns x channels : counts per pixel. Peak memory is that of the whole process
tree. With ``--against``, a folder with another version of edxdenoise works on the same files, one
after the other: only the ratios of one run mean something, and those of processor time alone where
other programs run. `denoise` has its defaults; `quantify` gets what this version denoised, and
estimates the k-factors, which early versions cannot. With ``--memory-limit``, `denoise` is run with
its report under each limit. A limit that is refused is tried once more with the options that the
refusal names.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path

from _measure import Run, machine, run, run_version, scratch, show

from edxdenoise import simulate
from edxdenoise.io import save_dataset

ROOT = Path(__file__).resolve().parents[1]
PRESET = "nanoparticles"
_RANGE = 20.0  # keV

Rows = list[list[str]]
HEAD = (
    "map",
    "counts per pixel",
    "command",
    "code",
    "time",
    "time per pixel",
    "processor time",
    "peak memory",
    "stages in s",
)


LIMITS_HEAD = (
    "map",
    "counts per pixel",
    "limit",
    "options",
    "foretold by plan",
    "peak memory",
    "time",
    "says",
)


@dataclass(frozen=True)
class Map:
    """A map that is simulated.

    Parameters
    ----------
    shape : tuple of int
        Rows, columns and channels.
    counts : float
        Per pixel.
    """

    shape: tuple[int, int, int]
    counts: float

    @classmethod
    def parse(cls, text: str) -> Map:
        """A map from text such as ``512x512x4096:1.2``."""
        sizes, counts = text.split(":")
        rows, columns, channels = map(int, sizes.split("x"))
        return cls((rows, columns, channels), float(counts))

    @property
    def name(self) -> str:
        """Its shape for people."""
        return " x ".join(map(str, self.shape))

    def write(self, path: Path) -> None:
        """Simulate the counts alone."""
        *shape, channels = self.shape
        phantom = simulate(
            PRESET,
            shape=tuple(shape),
            channels=channels,
            energy_width=_RANGE / channels,
            counts_per_pixel=self.counts,
        )
        save_dataset(phantom[["counts"]], path)


def under_limit(
    each: Map, path: Path, folder: Path, limit: str, options: list[str], *, report: bool = True
) -> list[str]:
    """One row of the table of limits."""
    options = [*options, "--memory-limit", limit]
    reports = ["--report", folder / "report"] if report else []
    outputs = ["-o", folder / "out.zarr", "--overwrite"]
    plan = run_version(ROOT, "plan", path, "--json", *reports, *options)
    result = run_version(ROOT, "denoise", path, *outputs, *reports, *options)
    said = options[:-2] + ([] if report else ["no report"])
    cells = [each.name, f"{each.counts:g}", limit, " ".join(said)]
    if result.status:
        says = result.errors.strip().split("\n")[-1].split(f"{path}: ")[-1]
        same = says in plan.errors
        return [*cells, "refused" if same else "no refusal", "", "", says]
    planned = json.loads(plan.checked().output)
    need = planned["memory"]["in_memory" if planned["held"] else "streamed"]
    peak = f"{result.peak / 1e9:.2f} GB"
    return [*cells, f"{need / 1e9:.2f} GB", peak, f"{result.seconds:.0f} s", "done"]


def limit_rows(each: Map, path: Path, folder: Path, limit: str, options: list[str]) -> Rows:
    """Rows of a limit: with these options, and where they are refused, with what is advised."""
    found = [under_limit(each, path, folder, limit, options)]
    advice = re.search(r"or use (--[a-z0-9 -]+?)( and leave out --report)?$", found[0][-1])
    if advice:
        options = [*options, *advice[1].split()]
        found.append(under_limit(each, path, folder, limit, options, report=not advice[2]))
    return found


def row(each: Map, command: str, name: str, result: Run, first: Run) -> list[str]:
    """One row of the table; the first version measured is what the others are compared with."""
    found = re.findall(r"^([\w -]+): ([\d.]+) s$", result.errors, re.MULTILINE)
    ratio = f", {result.processor / first.processor:.1f}x" if result is not first else ""
    return [
        each.name,
        f"{each.counts:g}",
        command,
        name,
        f"{result.seconds:.0f} s",
        f"{result.seconds / (each.shape[0] * each.shape[1]) * 1e6:.0f} us",
        f"{result.processor:.0f} s{ratio}",
        f"{result.peak / 1e9:.2f} GB",
        ", ".join(f"{stage} {float(seconds):.0f}" for stage, seconds in found),
    ]


def main() -> None:
    """Simulate, denoise, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--map", nargs="+", default=["512x512x4096:1.2"], metavar="YxXxE:COUNTS")
    parser.add_argument("--no-quantify", action="store_true", help="measure denoise alone")
    parser.add_argument("--against", type=Path, help="folder of another version")
    parser.add_argument("--options", nargs="*", default=[], help="of denoise, without the dashes")
    parser.add_argument("--folder", type=Path, help="for scratch files")
    parser.add_argument("--memory-limit", nargs="+", default=[], metavar="SIZE")
    parser.add_argument("--table", default="scale", help="its name in studies/results")
    parser.add_argument("--csv", action="store_true", help="write studies/results/TABLE.csv")
    chosen = parser.parse_args()
    versions = {"this": ROOT} | ({"before": chosen.against} if chosen.against else {})
    extra = [f"--{option}" for option in chosen.options]
    rows: Rows = []
    limits: Rows = []
    with scratch(chosen.folder) as folder:
        for each in map(Map.parse, chosen.map):
            counts, denoised = folder / "map.zarr", folder / "denoise this.zarr"
            each.write(counts)
            if chosen.memory_limit:
                for limit in chosen.memory_limit:
                    limits += limit_rows(each, counts, folder, limit, extra)
            jobs = (
                {}
                if chosen.memory_limit
                else {
                    "denoise": (counts, extra),
                    "quantify": (denoised, ["--k-factor", "estimate"]),
                }
            )
            if chosen.no_quantify:
                jobs.pop("quantify", None)
            for command, (source, options) in jobs.items():
                # One version may refuse to replace the output of another.
                runs = {
                    name: run_version(
                        *(code, "-v", command, source, "--overwrite"),
                        *("-o", folder / f"{command} {name}.zarr", *options),
                    ).checked()
                    for name, code in versions.items()
                }
                rows += [row(each, command, name, runs[name], runs["this"]) for name in versions]
            run(["rm", "-r", counts]).checked()
    print(f"{PRESET}; {machine()}")
    if limits:
        show("scale_limits", LIMITS_HEAD, limits, chosen.csv)
    else:
        show(chosen.table, HEAD, rows, chosen.csv)


if __name__ == "__main__":
    main()
