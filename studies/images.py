"""Whether images are accepted as guides rightly, and what they do to real maps and phantoms.

    python studies/images.py [--seeds 1] [--csv]

Real files are thinned, the dust cropped. Each map is denoised with five images at once, each of
which is judged by itself: the one recorded with the counts, the same shifted by up to 3 pixels, the
same turned, the same shifted by a third of the map, and an unrelated one. The first two should
guide the smoothing, the others not.

``images.csv`` counts the right decisions. ``images_gain.csv`` has the error with and without the
image: of real files as in few_counts.py, the 22-count dacite against its measurement at 122 counts,
of phantoms the root mean square difference of counts and of totals from the truth, in units of
their Poisson noise.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr
from _study import RESULTS, write_csv
from few_counts import DATA, ENERGY, FILES, Judge, first_area, split, windows

from edxdenoise import denoise, simulate
from edxdenoise.config import Denoise, Prepare
from edxdenoise.cube import named_images
from edxdenoise.io import read_cube
from edxdenoise.pipeline import prepare
from edxdenoise.simulation.phantom import unrelated_image

COMPONENTS = 20
DOSES = {"dacite": (3.0, 10.0, 30.0), "JEOL": (3.0, 10.0, 30.0), "dust": (3.0,)}
# Part of a file that is as much as it takes.
CROPS = {"dust": (64, 160)}
# Of a phantom of several areas the first one.
PHANTOMS = {
    "solar-cell": ((160, 80), (30.0, 300.0)),
    "mineral": ((64, 64), (10.0, 100.0)),
    "core-shell": ((64, 64), (10.0, 100.0)),
}
RIGHT = ("right", "shifted by 2 and 1 pixels")
WRONG = ("turned", "shifted by a third", "unrelated")


def candidates(image: np.ndarray, seed: int) -> xr.DataArray:
    """The five images of the module."""
    rows, columns = image.shape
    other = unrelated_image(np.random.default_rng([seed, 7]), image.shape)
    places = (np.clip(np.arange(n) + step, 0, n - 1) for n, step in ((rows, 2), (columns, -1)))
    images = [
        image,
        image[np.ix_(*places)],
        image[::-1, ::-1],
        np.roll(image, (rows // 3, columns // 3), (0, 1)),
        (other - other.mean()) / other.std() * image.std() + image.mean(),
    ]
    return named_images(np.array(images, np.float32), [*RIGHT, *WRONG])


def guides(ds: xr.Dataset) -> dict[str, bool]:
    """Which of the five images guide."""
    texts = ds.attrs["image_gain"]
    return {
        name: " does not guide " not in next(t for t in texts if t.startswith(f"image {name} "))
        for name in (*RIGHT, *WRONG)
    }


def real_maps(data: Path, seeds: int) -> Iterator[tuple[str, xr.Dataset, np.ndarray, Judge]]:
    """Name, thinned map, windows of lines and judge of every trial on real files."""
    for name, doses in DOSES.items():
        path, elements = FILES[name]
        crop = CROPS.get(name)
        recipe = Prepare(energy=ENERGY, rebin_energy=2, crop_y=crop, crop_x=crop)
        ds = prepare([read_cube(data / path)], recipe).compute()
        rows = windows(ds, [f"{element}_Ka" for element in elements.split()])
        for dose in doses:
            for seed in range(seeds):
                part, judge = split(ds, rows, dose, seed)
                yield f"{name}, {dose:g} counts per pixel", part, rows, judge
    few, many = (
        prepare(
            [read_cube(data / f"bruker_sem_dacite_{n}cpp.bcf")],
            Prepare(energy=ENERGY, rebin_energy=2),
        ).compute()
        for n in (22, 122)
    )
    rows = windows(many, [f"{element}_Ka" for element in FILES["dacite"][1].split()])
    maps, own = (ds["counts"].values @ rows for ds in (many, few))
    scale = own.sum(axis=(0, 1)) / maps.sum(axis=(0, 1))
    noise = scale**2 * maps.mean(axis=(0, 1))
    yield "dacite at 22 against that at 122", few, rows, Judge(scale * maps, noise)


def phantoms(seeds: int) -> Iterator[tuple[str, xr.Dataset, np.ndarray]]:
    """Name, map and expected counts of every trial on phantoms."""
    for name, (shape, doses) in PHANTOMS.items():
        for dose in doses:
            for seed in range(seeds):
                ds = simulate(
                    name,
                    shape=shape,
                    channels=160,
                    energy_width=0.08,
                    counts_per_pixel=dose,
                    seed=seed,
                    images=["specimen"],
                ).compute()
                ds = first_area(ds)
                given = ds[["counts", "image"]].assign_attrs(ds.attrs)
                yield f"{name}, {dose:g} counts per pixel", given, ds["expected_counts"].values


def with_and_without(ds: xr.Dataset) -> list[xr.Dataset]:
    """Denoised without the image, then with the first one."""
    name = str(ds["detector"].values[0])
    return [denoise(ds, Denoise(components=COMPONENTS, image=each)) for each in ("none", name)]


def trials(ds: xr.Dataset, seed: int) -> dict[str, bool]:
    """Decisions on the five images."""
    five = candidates(ds["image"].values[0].astype(np.float32), seed)
    found = denoise(
        ds.drop_dims("detector").assign(image=five), Denoise(components=COMPONENTS, seed=seed)
    )
    return guides(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the real files")
    parser.add_argument("--seeds", type=int, default=1, help="number of random splits")
    parser.add_argument("--csv", action="store_true", help="write the results too")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    decisions: dict[str, list[dict[str, bool]]] = {}
    errors: dict[str, list[np.ndarray]] = {}

    def say(name: str, ds: xr.Dataset, figures: list[np.ndarray]) -> None:
        found = trials(ds, len(decisions.get(name, [])))
        decisions.setdefault(name, []).append(found)
        errors.setdefault(name, []).append(np.array(figures))
        print(name, np.round(figures, 4).tolist(), found, sep="; ", flush=True)

    for name, ds, rows, judge in real_maps(options.data, options.seeds):
        results = with_and_without(ds)
        lines = [judge.errors(each["counts_denoised"].values @ rows) for each in results]
        say(name, ds, [np.array([np.median(each), each.max()]) for each in lines])
    for name, ds, expected in phantoms(options.seeds):
        noise = np.sqrt(expected.mean(axis=(0, 1)).clip(1e-9))
        figures = []
        for each in with_and_without(ds):
            step = each["counts_denoised"].values - expected
            total = step.sum(axis=2) / np.sqrt(expected.sum(axis=2).mean())
            figures.append([np.sqrt(np.mean((step / noise) ** 2)), np.sqrt(np.mean(total**2))])
        say(name, ds, [np.array(each) for each in figures])
    table = [["map", "trials", *RIGHT, *WRONG]]
    for name, each in decisions.items():
        cells = [sum(one[kind] for one in each) for kind in RIGHT]
        cells += [sum(not one[kind] for one in each) for kind in WRONG]
        table.append([name, *map(str, [len(each), *cells])])
    sums = [sum(int(row[i]) for row in table[1:]) for i in range(1, len(table[0]))]
    table.append(["all", *map(str, sums)])
    gain = [["map", "error without", "with", "largest, or of totals: without", "with"]]
    for name, each in errors.items():
        gain.append([name, *(f"{value:.3f}" for value in np.mean(each, axis=0).T.ravel())])
    for text in (table, gain):
        print(*map(", ".join, text), sep="\n")
    right = sum(sums[1:]) / (sums[0] * len(RIGHT + WRONG))
    print(f"right: {100 * right:.1f} %")
    if options.csv:
        for name, text in (("images", table), ("images_gain", gain)):
            write_csv(RESULTS / f"{name}.csv", text)


if __name__ == "__main__":
    sys.exit(main())
