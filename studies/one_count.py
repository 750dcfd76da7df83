"""Draw three real maps at one count per pixel: raw, best blur, denoised, and all counts.

    python studies/one_count.py [--data FOLDER]

Files are thinned to one count per pixel and judged as in few_counts.py; the width of the Gaussian
is chosen by the counts left out. The figure is docs/one_count.png. Each row has one scale.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import matplotlib
import numpy as np
from few_counts import DATA, ENERGY, WIDTHS, split, windows
from scipy.ndimage import gaussian_filter

from edxdenoise import denoise
from edxdenoise.config import Denoise, Prepare
from edxdenoise.io import read_cube
from edxdenoise.pipeline import prepare

matplotlib.use("Agg")

FIGURE = Path(__file__).parents[1] / "docs" / "one_count.png"
MAPS = {
    "FePt particles, Fe": ("fept_core_shell.hspy", "Fe_Ka"),
    "dust particle, Si": ("bruker_tem_dust_256x256.bcf", "Si_Ka"),
    "minerals (JEOL), Si": ("jeol_tem_64x64.pts", "Si_Ka"),
}
COMPONENTS = 30
DOSE = 1.0


def pictures(path: Path, line: str) -> dict[str, tuple[np.ndarray, float]]:
    """Maps of one row, in counts of the thinned map, and their errors; by what they are."""
    ds = prepare([read_cube(path)], Prepare(energy=ENERGY, rebin_energy=2)).compute()
    window = windows(ds, [line])
    part, judge = split(ds, window, DOSE, 0)
    raw = part["counts"].values @ window
    blurred = [gaussian_filter(raw, (w, w, 0), mode="reflect") if w else raw for w in WIDTHS]
    best = min(blurred, key=lambda each: float(judge.errors(each)[0]))
    ours = denoise(part, Denoise(components=COMPONENTS))["counts_denoised"].values @ window
    found = {"raw": raw, "best Gaussian": best, "edxdenoise": ours}
    full = ds["counts"].values @ window
    full = full * (raw.sum() / full.sum())
    errors = {name: (each[..., 0], float(judge.errors(each)[0])) for name, each in found.items()}
    dose = float(ds["counts"].sum()) / (ds.sizes["y"] * ds.sizes["x"])
    return errors | {f"all {dose:.0f} counts per pixel": (full[..., 0], np.nan)}


def main() -> None:
    import matplotlib.pyplot as plt

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the real files")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    figure, axes = plt.subplots(len(MAPS), 4, figsize=(8.4, 6.6), layout="constrained")
    for row, (name, (file, line)) in zip(axes, MAPS.items()):
        maps = pictures(options.data / file, line)
        full = list(maps.values())[-1][0]
        top = float(np.percentile(gaussian_filter(full, 1), 99.5))
        for axis, (title, (values, error)) in zip(row, maps.items()):
            axis.imshow(values, vmin=0, vmax=top, cmap="magma", interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            said = title if np.isnan(error) else f"{title}: error {error:.2f}"
            axis.set_title(said, fontsize=9)
            print(name, said, sep=", ", flush=True)
        row[0].set_ylabel(name, fontsize=9)
    figure.savefig(FIGURE, dpi=90)


if __name__ == "__main__":
    sys.exit(main())
