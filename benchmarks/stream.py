"""Denoise a cube larger than the memory allowed, through the command line, from .zarr to .zarr.

    python benchmarks/stream.py
    python benchmarks/stream.py --whole --channels 1024 --side 512 2048 --select spatial \
        --components 20 --memory-limit 4GB --repeats 1

The second is of the whole method, the first of PCA without neighbours and averages. A small cube
and a large one of the same specimen are simulated and denoised. Peak memory is that of the whole
process tree. The large one must stay below the limit, and take no more time per pixel than the
small one, which is held in memory.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from _measure import Run, machine, markdown, run, scratch

PRESET = "nanoparticles"
CHANNEL_WIDTH = 0.01

_COMMAND = Path(sys.executable).with_name("edxdenoise")


def simulate(path: Path, side: int, channels: int, counts_per_pixel: float) -> None:
    """Write a phantom of `side` x `side` pixels."""
    run(
        [
            _COMMAND,
            "simulate",
            path,
            *("--preset", PRESET, "--shape", f"{side}x{side}", "--channels", str(channels)),
            *("--energy-width", str(CHANNEL_WIDTH), "--counts-per-pixel", str(counts_per_pixel)),
        ]
    ).checked()


def denoise(path: Path, out: Path, selector: str, options: argparse.Namespace) -> Run:
    """The command that is measured."""
    command = [_COMMAND, "-v", "denoise", path, "-o", out, "--select", selector, "--overwrite"]
    command += ["--memory-limit", options.memory_limit, "--components", str(options.components)]
    if not options.whole:
        command += ["--subspace", "pixel", "--no-shrink"]
    return run(command).checked()


def stages(result: Run) -> str:
    """Seconds of every stage, from what -v says."""
    found = re.findall(r"^(\w+): ([\d.]+) s$", result.errors, re.MULTILINE)
    return ", ".join(f"{name} {seconds}" for name, seconds in found)


def main() -> None:
    """Simulate, denoise, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--side", type=int, nargs=2, default=(256, 1024), metavar=("SMALL", "LARGE")
    )
    parser.add_argument("--channels", type=int, default=2048)
    parser.add_argument("--counts-per-pixel", type=float, default=200.0)
    parser.add_argument("--components", type=int, default=100)
    parser.add_argument("--memory-limit", default="2GB")
    parser.add_argument("--select", nargs="+", default=["edge", "split"], metavar="SELECTOR")
    parser.add_argument("--whole", action="store_true", help="neighbours and averages too")
    parser.add_argument("--repeats", type=int, default=2, help="the fastest run counts")
    parser.add_argument("--folder", type=Path, help="for 20 GB of scratch files")
    options = parser.parse_args()
    with scratch(options.folder) as folder:
        print(table(folder, options))


def table(folder: Path, options: argparse.Namespace) -> str:
    """The table of all runs."""
    rows = []
    for side in options.side:
        simulate(folder / f"{side}.zarr", side, options.channels, options.counts_per_pixel)
    for selector in options.select:
        per_pixel: list[float] = []
        for side in options.side:
            runs = [
                denoise(folder / f"{side}.zarr", folder / "out.zarr", selector, options)
                for _ in range(options.repeats)
            ]
            best = min(runs, key=lambda each: each.seconds)
            per_pixel.append(best.seconds / side**2)
            rows.append(
                [
                    f"{side} x {side} x {options.channels}",
                    selector,
                    f"{side**2 * options.channels * 4 / 1e9:.2f} GB",
                    f"{best.seconds:.1f} s",
                    f"{per_pixel[-1] * 1e6:.1f} us",
                    f"{per_pixel[-1] / per_pixel[0]:.2f}",
                    f"{max(each.peak for each in runs) / 1e9:.2f} GB",
                    stages(best),
                ]
            )
    head = (
        f"{PRESET}, {options.counts_per_pixel:g} counts per pixel, {options.components} "
        f"components, --memory-limit {options.memory_limit}, best of {options.repeats}; {machine()}"
    )
    columns = [
        *("cube", "selector", "as float32", "time", "time per pixel", "against small", "peak"),
        "stages in s",
    ]
    return f"{head}\n\n{markdown(columns, rows)}"


if __name__ == "__main__":
    main()
