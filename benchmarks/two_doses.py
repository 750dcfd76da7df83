"""A denoised map of few counts against a better measurement of the same place.

    python benchmarks/two_doses.py [DATA] [--figures FOLDER]

The dacite of the shared data was measured at 22 and at 122 counts per pixel, aligned to the pixel.
The first is denoised with the components that each selector keeps of PCA, and by the package as it
is, with neighbours and averages ("denoise"); its net line maps, scaled to the
dose of the second row by row (both measurements stopped within a sweep: some rows have more), are
compared with those of the second as it was measured, pixel by pixel. The second has noise of its
own, whose known variance is taken off the mean squared difference: what is left is the error of the
denoised map. "cnn over elbow" is the mean difference of the squared errors of elbow and cnn, in its
standard errors (pixels taken as independent); above 2 it is no chance.

With --figures, the components that the package keeps of real files are drawn into FOLDER.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import xarray as xr
from _measure import machine, markdown

from edxdenoise import denoise
from edxdenoise.config import Denoise, Prepare
from edxdenoise.errors import EdxdenoiseWarning
from edxdenoise.io import read_cube
from edxdenoise.pipeline import prepare
from edxdenoise.quantification import LineSpec, element_of, line_intensity

DATA = Path(__file__).parents[2] / "shared" / "data"
LOW, HIGH = "bruker_sem_dacite_22cpp.bcf", "bruker_sem_dacite_122cpp.bcf"
# 22 counts in 2048 channels are too sparse for Poisson weights.
PREPARE = Prepare(energy=(0.2, 10.0), rebin_energy=4)
LINES = ("O_Ka", "Na_Ka", "Mg_Ka", "Al_Ka", "Si_Ka", "K_Ka", "Ca_Ka", "Ti_Ka", "Fe_Ka")
TRACES = ("C", "P", "Cl")
SELECTORS = ("elbow", "second-elbow", "edge", "split", "spatial", "cnn")
# The choice among PCA's own components, without averages; and everything.
RECIPES = {name: Denoise(select=name, subspace="pixel", shrink=False) for name in SELECTORS}
RECIPES["denoise"] = Denoise()
# What is better than what.
PAIRS = (("cnn", "raw"), ("cnn", "elbow"), ("denoise", "elbow"))
# Files that show what is kept, and how each is prepared.
SHOWN = {
    "dacite, 22 counts per pixel": (LOW, PREPARE),
    "dacite, 122 counts per pixel": (HIGH, PREPARE),
    "dust particle": ("bruker_tem_dust_256x256.bcf", Prepare(energy=(0.1, 10.0), rebin_energy=4)),
    "FePt core-shell particles": ("fept_core_shell.hspy", Prepare(energy=(0.1, 19.0))),
}


def line_maps(ds: xr.Dataset, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Net counts and their standard deviation, each (line, y, x)."""
    maps = line_intensity(
        ds,
        {name: LineSpec() for name in LINES},
        intensities="fit",
        source=source,
        elements=TRACES,
    )
    return maps["line_intensity"].values, maps["line_intensity_stddev"].values


def compared(low: xr.Dataset, high: xr.Dataset) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Squared error of every pixel (line, y, x) by choice of components, and how many are kept."""
    of_rows = [each["counts"].sum(("x", "energy")).values.astype(float) for each in (high, low)]
    factor = (of_rows[0] / of_rows[1])[:, np.newaxis]
    measured, stddev = line_maps(high, "counts")
    noise = stddev.astype(float) ** 2

    def squares(maps: np.ndarray) -> np.ndarray:
        return (factor * maps.astype(float) - measured) ** 2 - noise

    errors, kept = {"raw": squares(line_maps(low, "counts")[0])}, {}
    for name, recipe in RECIPES.items():
        ds = denoise(low, recipe)
        errors[name] = squares(line_maps(ds, "denoised")[0])
        kept[name] = int(ds["component_keep"].sum())
    return errors, kept


def rows_of(errors: dict[str, np.ndarray], kept: dict[str, int]) -> list[list[str]]:
    """Root mean squared errors by element, and by how much one is better than another."""
    rows = []
    for i, line in enumerate(LINES):
        cells = [element_of(line)]
        for name in errors:
            # Noise taken off can leave less than nothing.
            mean = errors[name][i].mean()
            cells.append(f"{np.sign(mean) * np.sqrt(abs(mean)):.3f}")
        for name, other in PAIRS:
            gain = (errors[other][i] - errors[name][i]).ravel()
            error = gain.std() / np.sqrt(gain.size)
            cells.append(f"{gain.mean() / error:+.1f}" if error > 0 else "same")
        rows.append(cells)
    return rows


def draw(data: Path, folder: Path) -> list[list[str]]:
    """Pictures of the maps kept of real files; what was kept, in words."""
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for title, (file, steps) in SHOWN.items():
        ds = denoise(prepare([read_cube(data / file).compute()], steps))
        numbers = ds["component"].values[ds["component_keep"].values == 1]
        shown = numbers[:8]
        figure, axes = pyplot.subplots(2, 4, figsize=(8, 4.4), layout="constrained")
        for axis, number in zip(axes.flat, shown):
            one = ds.sel(component=number)
            score = one["component_map"].values
            low, high = np.percentile(score, [0.5, 99.5])
            axis.imshow(score, cmap="magma", vmin=low, vmax=high, interpolation="nearest")
            probability = float(one["component_signal_probability"])
            effect = float(one["component_effect_size"])
            axis.set_title(f"{number}: p {probability:.2f}, effect {effect:.2f}", fontsize=8)
        for axis in axes.flat:
            axis.set_axis_off()
        name = Path(file).stem
        figure.savefig(folder / f"kept-{name}.png", dpi=110)
        pyplot.close(figure)
        of = ds.sizes["component"]
        rows.append([title, f"{numbers.size} of {of}", ", ".join(map(str, numbers))])
    return rows


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("data", nargs="?", type=Path, default=DATA)
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="draw kept components")
    options = parser.parse_args()
    warnings.simplefilter("ignore", EdxdenoiseWarning)
    print(machine())
    low, high = (
        prepare([read_cube(options.data / name).compute()], PREPARE) for name in (LOW, HIGH)
    )
    errors, kept = compared(low, high)
    columns = ["element", "raw", *(f"{name} ({kept[name]})" for name in RECIPES)]
    columns += [f"{name} over {other}" for name, other in PAIRS]
    print("\n" + markdown(columns, rows_of(errors, kept)))
    if options.figures:
        columns = ["file", "kept", "components"]
        print("\n" + markdown(columns, draw(options.data, options.figures)))


if __name__ == "__main__":
    main()
