"""Quantification against eXSpy's: six lines of the solar cell on 330 x 500 pixels.

    python benchmarks/quantify.py

Both get the same counts and the same windows, one after the other in a process of its own each.
What is timed is intensities and composition, not reading; eXSpy gives no errors with its numbers.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from _measure import machine, markdown, run, scratch

LINES = {
    "C_Ka": (2.452, ((0.145, 0.201), (0.640, 0.696))),
    "N_Ka": (3.856, ((0.145, 0.201), (0.640, 0.696))),
    "In_La": (2.620, ((2.8155, 2.925), (5.272, 5.3815))),
    "Sn_La": (2.653, ((2.8155, 2.925), (5.272, 5.3815))),
    "I_La": (3.413, ((2.8155, 2.925), (5.272, 5.3815))),
    "Pb_La": (4.374, ((10.0452, 10.224), (10.82, 10.9889))),
}
COUNTS_PER_PIXEL = 1000.0


def make(folder: Path, shape: tuple[int, int]) -> None:
    """Counts of the phantom, and a denoised Dataset of them."""
    from edxdenoise.components.pca import pca
    from edxdenoise.components.selection import select
    from edxdenoise.preprocess import weight
    from edxdenoise.simulation import simulate

    ds = simulate("solar-cell", shape=shape, counts_per_pixel=COUNTS_PER_PIXEL).compute()
    np.save(folder / "counts.npy", ds.counts.values)
    ds = select(pca(weight(ds[["counts"]])), selector="edge")
    ds.attrs = {"elements": list(ds.attrs["elements"]), "beam_energy": ds.attrs["beam_energy"]}
    ds.to_netcdf(folder / "denoised.nc")


def ours(folder: Path, intensities: str, source: str) -> dict[str, float]:
    """Seconds of our two steps."""
    import xarray as xr

    from edxdenoise.quantification import LineSpec, cliff_lorimer, line_intensity

    ds = xr.open_dataset(folder / "denoised.nc").load()
    lines = {name: LineSpec(k, 0.0, None, windows) for name, (k, windows) in LINES.items()}
    start = time.perf_counter()
    quantified = line_intensity(ds, lines, intensities=intensities, source=source)
    middle = time.perf_counter()
    result = cliff_lorimer(quantified)
    end = time.perf_counter()
    assert np.isfinite(result.atomic_percent.values).any()
    return {"intensity": middle - start, "composition": end - middle}


def theirs(folder: Path) -> dict[str, float]:
    """Seconds of eXSpy's two steps."""
    import exspy
    import hyperspy.api as hs

    hs.preferences.General.show_progressbar = False
    signal = exspy.signals.EDSTEMSpectrum(np.load(folder / "counts.npy"))
    axis = signal.axes_manager.signal_axes[0]
    axis.units, axis.scale, axis.offset = "keV", 0.02, 0.01
    signal.set_microscope_parameters(beam_energy=200, energy_resolution_MnKa=130)
    # It wants the factors in the order of the lines' names.
    names = sorted(LINES)
    signal.set_elements([name.partition("_")[0] for name in names])
    signal.set_lines(names)
    windows = [[edge for window in LINES[name][1] for edge in window] for name in names]
    start = time.perf_counter()
    intensities = signal.get_lines_intensity(names, background_windows=windows)
    middle = time.perf_counter()
    signal.quantification(intensities, method="CL", factors=[LINES[name][0] for name in names])
    end = time.perf_counter()
    return {"intensity": middle - start, "composition": end - middle}


JOBS = {
    "eXSpy": theirs,
    "windows, counts": lambda folder: ours(folder, "windows", "counts"),
    "windows-linear, counts": lambda folder: ours(folder, "windows-linear", "counts"),
    "windows-linear, denoised": lambda folder: ours(folder, "windows-linear", "denoised"),
    "fit, counts": lambda folder: ours(folder, "fit", "counts"),
    "fit, denoised": lambda folder: ours(folder, "fit", "denoised"),
}


def main() -> None:
    """Run every job in a process of its own, in turn, and print the fastest of each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--shape", type=int, nargs=2, default=(330, 500), metavar=("ROWS", "COLS"))
    parser.add_argument("--repeats", type=int, default=3, help="the fastest run counts")
    parser.add_argument("--job", choices=list(JOBS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        warnings.simplefilter("ignore")
        print(json.dumps(JOBS[options.job](options.folder)))
        return
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in JOBS}
    with scratch(None) as folder:
        make(folder, tuple(options.shape))
        for _ in range(options.repeats):
            for name in JOBS:
                result = run([sys.executable, __file__, "--job", name, "--folder", folder])
                seconds[name].append(json.loads(result.checked().output.splitlines()[-1]))
    pixels = options.shape[0] * options.shape[1]
    best = {
        name: {key: min(each[key] for each in runs) for key in ("intensity", "composition")}
        for name, runs in seconds.items()
    }
    reference = best["eXSpy"]
    rows = []
    for name, each in best.items():
        total = each["intensity"] + each["composition"]
        rows.append(
            [
                name,
                f"{each['intensity']:.2f} s",
                f"{pixels / each['intensity']:,.0f}",
                f"{each['composition']:.2f} s",
                f"{reference['composition'] / each['composition']:.0f}x",
                f"{total:.2f} s",
                f"{sum(reference.values()) / total:.0f}x",
            ]
        )
    columns = [
        *("", "intensities", "pixels/s", "composition", "against eXSpy", "both", "against eXSpy")
    ]
    size = f"{options.shape[0]} x {options.shape[1]} x 650, {len(LINES)} lines"
    print(f"{size}, best of {options.repeats}; {machine()}\n\n{markdown(columns, rows)}")


if __name__ == "__main__":
    main()
