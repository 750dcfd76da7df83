"""At% of the real files that have recipes in ``data/``, whole and by phases.

    python benchmarks/real_quantities.py [DATA] [--csv]

Each file of DATA is run by its recipe in a scratch folder. Standard deviations include those stated
for the k-factors. The k-factors of the dacite are theoretical, and printed.

``--phantoms`` compares the ways to take net counts on phantoms of known composition, with peaks of
grid, film and detector that the file does not list; ``--windows`` looks for background windows that
hold a peak, for every line with a peak in every file of DATA. ``--csv`` writes the tables that the
documentation shows.
"""

from __future__ import annotations

import argparse
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
from _measure import machine, scratch, show
from peak_width import SPECIMENS, phantom

from edxdenoise import LineSpec
from edxdenoise.config import Output, Quantify
from edxdenoise.cube import Resolution, detector_resolution, energy_range, sum_spectrum
from edxdenoise.errors import EdxdenoiseError, EdxdenoiseWarning, ParameterError
from edxdenoise.io import read_cube
from edxdenoise.pipeline import quantify
from edxdenoise.quantification import background_windows, element_of, region_table
from edxdenoise.quantification.windows import place_windows
from edxdenoise.recipe import Recipe
from edxdenoise.report.text import region_words
from edxdenoise.run import run_recipe
from edxdenoise.simulation.presets import PRESETS
from edxdenoise.simulation.spectrum import Material, line_counts
from edxdenoise.xray import SYMBOLS, atomic_weight, find_peaks, fwhm, line_energy

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
RECIPES = ("fept", "dacite")
# What grids, films and detectors add to a spectrum.
ARTEFACTS = ("Cu", "C", "O", "Si")
# The mean dacite of R. W. Le Maitre, J. Petrology 17 (1976) 589, in weight percent, with the atoms
# of each oxide.
DACITE = {
    "SiO2": (65.01, {"Si": 1, "O": 2}),
    "TiO2": (0.58, {"Ti": 1, "O": 2}),
    "Al2O3": (15.91, {"Al": 2, "O": 3}),
    "Fe2O3": (2.43, {"Fe": 2, "O": 3}),
    "FeO": (2.30, {"Fe": 1, "O": 1}),
    "MgO": (1.78, {"Mg": 1, "O": 1}),
    "CaO": (4.32, {"Ca": 1, "O": 1}),
    "Na2O": (3.79, {"Na": 2, "O": 1}),
    "K2O": (2.17, {"K": 2, "O": 1}),
    "P2O5": (0.15, {"P": 2, "O": 5}),
}
# Atoms of oxygen per atom where all is oxide, iron half and half.
OXYGEN = {"Si": 2, "Ti": 2, "Al": 1.5, "Fe": 1.25, "Mg": 1, "Ca": 1, "Na": 0.5, "K": 0.5}
_DENSITY = 2.6  # g/cm^3; of no matter where electrons stop in the specimen


def mean_dacite() -> Material:
    """The mean dacite as a material."""
    atoms: dict[str, float] = {}
    for percent, formula in DACITE.values():
        mass = sum(number * atomic_weight(element) for element, number in formula.items())
        for element, number in formula.items():
            atoms[element] = atoms.get(element, 0.0) + number * percent / mass
    return Material(atoms, _DENSITY)


def bulk_k_factors(material: Material, lines: list[str]) -> dict[str, float]:
    """k-factors by weight, relative to Si, that a bulk material would have at 20 kV.

    Ionisation is summed along the slowing-down of the electrons, absorption is that of the material
    itself, the detector has a polymer window: the model of the ``mineral`` phantom.
    """
    instrument = PRESETS["mineral"].instrument
    counts = line_counts(material, instrument)
    weights = material.weight_fractions()
    factors = {}
    for name in dict.fromkeys([*lines, "Si_Ka"]):
        element, energy = element_of(name), line_energy(name)
        near = 0.5e-3 * float(fwhm(energy, instrument.detector.resolution))
        factors[name] = weights[element] / sum(
            number
            for line, number in counts.items()
            if element_of(line.name) == element and abs(line.energy - energy) < near
        )
    return {name: factors[name] / factors["Si_Ka"] for name in lines}


def regions(name: str, data: Path, folder: Path) -> list[list[str]]:
    """Head and rows of one file: at% of the whole map and of its phases."""
    recipe = Recipe.from_file(ROOT / "data" / f"{name}.toml")
    for file in recipe.input.files:
        shutil.copy(data / file, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EdxdenoiseWarning)
        ds = run_recipe(replace(recipe, output=Output("out.zarr")), folder=folder)
    table = region_table(ds)
    elements = [element_of(line) for line in recipe.lines]
    head = ["region", "pixels", *(f"{element} at%" for element in elements)]
    if name == "dacite":
        head.append("O if all were oxide")
    rows = [head]
    for region, mask in zip(ds.region.values, ds.region_mask.values):
        own = table[(table.region == region) & table.quantity.str.endswith(" at%")]
        cells = [region_words(row) for _, row in own.iterrows()]
        rows.append([str(region), f"{np.mean(mask):.1%}", *cells])
        if name == "dacite":
            percents = dict(zip(own.quantity, own.value.fillna(0)))
            rows[-1].append(f"{stoichiometric(percents):.1f}")
    return rows


def stoichiometric(percents: dict[str, float]) -> float:
    """At% of oxygen that the others would need as oxides."""
    cations = {name.removesuffix(" at%"): value for name, value in percents.items()}
    del cations["O"]
    oxygen = sum(OXYGEN[element] * value for element, value in cations.items())
    return 100 * oxygen / (oxygen + sum(cations.values()))


def phantom_rows(seeds: int, shape: tuple[int, int] = (24, 24)) -> list[list[str]]:
    """Largest error of whole-map at% of phantoms by each method, in standard deviations and at%."""
    rows = []
    for specimen, lowest in (("GaAs", 0.8), ("FePt", 0.0), ("SrTiO3", 0.0), ("olivine", 0.0)):
        strange = {e: 1.0 for e in ARTEFACTS if e not in SPECIMENS[specimen][0].atoms}
        errors: dict[str, list[tuple[float, float]]] = {}
        for seed in range(seeds):
            ds, lines, truth = phantom(
                specimen,
                Resolution(137.0, 2.43, 50.0),
                seed,
                shape,
                lowest=lowest,
                artefacts=strange,
            )
            listed, beam = ds.attrs["elements"], ds.attrs["beam_energy"]
            old = background_windows(lines, energy_range(ds), elements=listed, beam_energy=beam)
            given = {name: replace(spec, background=old[name]) for name, spec in lines.items()}
            for way, intensities, specs in (
                ("fit", "fit", lines),
                ("windows clear of peaks", "windows-linear", lines),
                ("windows clear of listed lines", "windows-linear", given),
            ):
                maps = quantify(ds, specs, Quantify(intensities=intensities, source="counts"))
                table = region_table(maps)
                whole = table[table.region == "all"].set_index("quantity")
                for element, true in truth.items():
                    row = whole.loc[f"{element} at%"]
                    off = abs(row.value - true)
                    errors.setdefault(way, []).append((off / row.stddev, off))
        cells = [
            f"{max(found)[0]:.1f} ({max(off for _, off in found):.1f})" for found in errors.values()
        ]
        rows.append([specimen, *cells])
    return rows


def spectrum_images(data: Path, folder: Path) -> list[Path]:
    """Files of a folder that may hold spectrum images; archives are unpacked into `folder`."""
    for archive in sorted(data.glob("*.zip")):
        shutil.unpack_archive(archive, folder)
    found = [*data.iterdir(), *(data / "small").iterdir(), *folder.rglob("*")]
    return sorted(
        p for p in found if p.suffix in (".bcf", ".pts", ".hspy", ".emd", ".spd", ".elid")
    )


def window_rows(data: Path, folder: Path) -> list[list[str]]:
    """Lines with a peak in each file, how many have background windows, and peaks in those."""
    rows = []
    for path in spectrum_images(data, folder):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EdxdenoiseWarning)
            try:
                ds = read_cube(path, signal="4" if path.suffix == ".elid" else None)
            except EdxdenoiseError:
                # Pruned by the vendor: there is no spectrum image in it.
                continue
        energy, spectrum = ds["energy"].values, sum_spectrum(ds)
        peaks = find_peaks(energy, spectrum, detector_resolution(ds))
        seen = placed = hit = 0
        for symbol in SYMBOLS[1:]:
            for name in (f"{symbol}_Ka", f"{symbol}_La"):
                try:
                    position = line_energy(name)
                except ParameterError:
                    continue
                if not any(abs(peak.energy - position) < 0.03 for peak in peaks):
                    continue
                seen += 1
                try:
                    windows = place_windows(ds, {name: LineSpec()})[name]
                except ParameterError:
                    continue
                placed += 1
                hit += sum(low < peak.energy < high for low, high in windows for peak in peaks)
        rows.append([path.name, str(len(peaks)), str(seen), str(placed), str(hit)])
    return rows


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("data", nargs="?", type=Path, default=DATA)
    parser.add_argument("--phantoms", action="store_true", help="compare methods on phantoms")
    parser.add_argument("--seeds", type=int, default=5, help="phantoms of each specimen")
    parser.add_argument("--windows", action="store_true", help="check background windows")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES)
    parser.add_argument("--csv", action="store_true", help="write studies/results/real_*.csv")
    options = parser.parse_args()
    print(machine())
    if options.phantoms:
        head = [
            *("phantom", "fit (default)"),
            *("windows clear of all peaks", "windows clear of listed lines"),
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EdxdenoiseWarning)
            rows = phantom_rows(options.seeds)
        show("real_phantoms", head, rows, options.csv)
    if options.windows:
        head = ["file", "peaks", "lines on a peak", "with windows", "peaks in windows"]
        with scratch(None) as folder:
            show("real_windows", head, window_rows(options.data, folder), options.csv)
    if options.phantoms or options.windows:
        return
    for name in options.recipes:
        with scratch(None) as folder:
            head, *rows = regions(name, options.data, folder)
        show(f"real_{name}", head, rows, options.csv)
    if "dacite" in options.recipes:
        lines = Recipe.from_file(ROOT / "data" / "dacite.toml").lines
        factors = bulk_k_factors(mean_dacite(), list(lines))
        atoms = mean_dacite().atomic_fractions()
        rows = [
            [name, f"{factor:.3f}", f"{100 * atoms[element_of(name)]:.2f}"]
            for name, factor in factors.items()
        ]
        show("real_dacite_k", ["line", "k-factor", "at% of the mean dacite"], rows, options.csv)


if __name__ == "__main__":
    main()
