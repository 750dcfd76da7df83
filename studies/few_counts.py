"""Errors of line maps at few counts per pixel: real files, thinned, and phantoms.

    python studies/few_counts.py [--maps dacite mineral] [--doses 1 3 10] [--seeds 3] [--csv]

A file is split at random into a part with the dose wanted and the rest, which is an independent
Poisson measurement of the same map. The error of a line map is

    sqrt(mean((estimate - scaled rest)^2) - noise of the scaled rest) / std(scaled rest):

1 is what a map without contrast has. Phantoms are judged by their expected counts. Line maps are
sums over the window of the line, E +- 1 FWHM; figures are medians over the lines of a map, then
means over seeds.

Rows: the raw counts; Gaussians whose width is chosen for every line, by the answer (nobody can do
that) or by the risk that Stein's formula estimates; principal components chosen by the network,
without smoothing; `denoise` as it is by default.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from _study import RESULTS, kept_rows, unpacked, write_csv
from scipy.ndimage import gaussian_filter

from edxdenoise import LineSpec, denoise, simulate
from edxdenoise.config import Denoise, Prepare
from edxdenoise.io import read_cube
from edxdenoise.pipeline import prepare
from edxdenoise.quantification.estimators import line_weights
from edxdenoise.thinning import thin

DATA = Path(__file__).parents[2] / "shared" / "data"
FILES = {
    "dacite": ("bruker_sem_dacite_122cpp.bcf", "O Na Al Si K Ca"),
    "dust": ("bruker_tem_dust_256x256.bcf", "O Mg Si Fe"),
    "JEOL": ("jeol_tem_64x64.pts", "C O Al Si"),
    "FePt": ("fept_core_shell.hspy", "C O Fe Pt"),
    "EDAX": ("edax_sem_256x231.zip", "C O Al Si"),
}
DOSES = (1.0, 3.0, 8.0, 10.0, 30.0)
# Preset, shape and lines; of several areas the first.
PHANTOMS = {
    "mineral, simulated": ("mineral", (96, 96), "O Na Al Si Ca Fe"),
    "solar cell, simulated": ("solar-cell", (264, 100), "N In I Pb"),
}
PHANTOM_DOSES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 4000.0)
LINES = {"In": "In_La", "I": "I_La", "Pb": "Pb_La", "Pt": "Pt_La"}
ENERGY = (0.2, 10.0)  # keV
WIDTHS = (0.0, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0, 11.0, 16.0, 23.0, 32.0)  # pixels
COMPONENTS = 30
# The rest must hold at least as much as the part.
LARGEST_SHARE = 0.8


@dataclass(frozen=True)
class Judge:
    """The counts left out, as line maps.

    Parameters
    ----------
    maps : array, shape (y, x, line)
        Scaled to the dose of the part.
    noise : array, shape (line,)
        Mean variance of their Poisson noise.
    """

    maps: np.ndarray
    noise: np.ndarray

    def errors(self, estimate: np.ndarray) -> np.ndarray:
        """Error of each line, shape (line,)."""
        square = ((estimate - self.maps) ** 2).mean(axis=(0, 1)) - self.noise
        return np.sqrt(np.maximum(square, 0)) / self.maps.std(axis=(0, 1))


def windows(ds: xr.Dataset, lines: list[str]) -> np.ndarray:
    """Which channels the window of each line has, shape (energy, line)."""
    specs = {name: LineSpec(1.0) for name in lines}
    weights = line_weights(ds[["counts"]], specs, intensities="windows").estimators
    return (weights > 0).astype(np.float32).T


def split(ds: xr.Dataset, rows: np.ndarray, dose: float, seed: int) -> tuple[xr.Dataset, Judge]:
    """The part with the dose wanted, and the rest as judge."""
    share = dose / float(ds["counts"].sum()) * ds.sizes["y"] * ds.sizes["x"]
    part, rest = thin(ds, fraction=share, seed=seed)
    scale = share / (1 - share)
    maps = scale * (rest["counts"].values @ rows)
    return part, Judge(maps, scale * maps.mean(axis=(0, 1)))


def models(
    part: xr.Dataset, rows: np.ndarray, judge: Judge, seed: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Errors by line of every row of the table."""
    raw = part["counts"].values @ rows
    blurred = np.array(
        [
            gaussian_filter(raw, (width, width, 0), mode="reflect") if width else raw
            for width in WIDTHS
        ]
    )
    errors = np.array([judge.errors(each) for each in blurred])
    yield "raw", errors[0]
    yield "Gaussian, width by the answer", errors.min(axis=0)
    # Stein's risk of a linear smoother of Poisson counts: the noise of a pixel is its count.
    own = np.array([1.0] + [kernel_centre(width) for width in WIDTHS[1:]])
    risk = ((blurred - raw) ** 2).mean(axis=(1, 2)) + 2 * own[:, None] * raw.mean(axis=(0, 1))
    yield "Gaussian, width by risk", errors[risk.argmin(axis=0), np.arange(len(errors[0]))]
    recipes = {
        "PCA, selected by the network": Denoise(
            components=COMPONENTS, subspace="pixel", shrink=False, seed=seed
        ),
        "denoise": Denoise(components=COMPONENTS, seed=seed),
    }
    for name, recipe in recipes.items():
        yield name, judge.errors(denoise(part, recipe)["counts_denoised"].values @ rows)


def kernel_centre(width: float) -> float:
    """Weight of the centre of the Gaussian that scipy applies."""
    impulse = np.zeros(8 * int(np.ceil(width)) + 9)
    impulse[len(impulse) // 2] = 1
    return float(gaussian_filter(impulse, width).max() ** 2)


def line_names(elements: str) -> list[str]:
    """Lines of elements, K where it is in the range."""
    return [LINES.get(element, f"{element}_Ka") for element in elements.split()]


def real_parts(
    name: str, doses: list[float], seeds: int, data: Path
) -> Iterator[tuple[float, int, xr.Dataset, np.ndarray, Judge]]:
    """Dose, seed, thinned map, windows and judge of a real file."""
    path, elements = FILES[name]
    with unpacked(data / path) as file:
        ds = prepare([read_cube(file)], Prepare(energy=ENERGY, rebin_energy=2)).compute()
    window = windows(ds, line_names(elements))
    full = float(ds["counts"].sum()) / ds.sizes["y"] / ds.sizes["x"]
    for dose in doses:
        if dose <= LARGEST_SHARE * full:
            for seed in range(seeds):
                part, judge = split(ds, window, dose, seed)
                yield dose, seed, part, window, judge


def first_area(ds: xr.Dataset) -> xr.Dataset:
    """Return the first area of a stack of maps; a single map as it is."""
    if "area" not in ds.coords:
        return ds
    return ds.isel(y=ds["area"].values == 1).drop_vars("area")


def phantom_parts(
    name: str, doses: list[float], seeds: int
) -> Iterator[tuple[float, int, xr.Dataset, np.ndarray, Judge]]:
    """Dose, seed, map, windows and judge of a phantom; the seed changes its geometry too."""
    preset, shape, elements = PHANTOMS[name]
    for dose in doses:
        for seed in range(seeds):
            ds = simulate(
                preset,
                shape=shape,
                channels=325,
                energy_width=0.04,
                counts_per_pixel=dose,
                seed=seed,
            ).compute()
            ds = first_area(ds)
            part = ds[["counts"]].assign_attrs(ds.attrs)
            window = windows(part, line_names(elements))
            truth = ds["expected_counts"].values @ window
            yield dose, seed, part, window, Judge(truth, np.zeros(truth.shape[2]))


def table(
    maps: list[str], doses: list[float] | None, seeds: int, data: Path
) -> list[dict[str, str]]:
    """One row per map and dose, one column per model; printed as they come."""
    found: dict[tuple[str, float], dict[str, list[float]]] = {}
    for name in maps:
        parts = (
            real_parts(name, doses or list(DOSES), seeds, data)
            if name in FILES
            else phantom_parts(name, doses or list(PHANTOM_DOSES), seeds)
        )
        for dose, seed, part, window, judge in parts:
            row = found.setdefault((name, dose), {})
            for model, errors in models(part, window, judge, seed):
                row.setdefault(model, []).append(float(np.median(errors)))
            print(name, dose, *(f"{m}: {v[-1]:.3f}" for m, v in row.items()), sep=", ", flush=True)
    return [
        {"map": name, "counts per pixel": f"{dose:g}"}
        | {model: f"{np.mean(each):.3f}" for model, each in row.items()}
        for (name, dose), row in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the real files")
    every = [*FILES, *PHANTOMS]
    parser.add_argument("--maps", nargs="+", default=every, choices=every)
    parser.add_argument("--doses", nargs="+", type=float, help="counts per pixel")
    parser.add_argument("--seeds", type=int, default=3, help="number of random splits")
    parser.add_argument("--csv", action="store_true", help="write them to few_counts.csv too")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = table(options.maps, options.doses, options.seeds, options.data)
    if options.csv:
        path = RESULTS / "few_counts.csv"
        # Maps and doses that were not run this time stay.
        kept = kept_rows(path, [list(row.values()) for row in rows], key=2)
        kept.sort(key=lambda row: (every.index(row[0]), float(row[1])))
        write_csv(path, [list(rows[0]), *kept])


if __name__ == "__main__":
    sys.exit(main())
