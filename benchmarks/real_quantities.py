"""At% of the real files that have recipes in ``data/``, whole and by phases.

    python benchmarks/real_quantities.py [DATA]

Each file of DATA is run by its recipe in a scratch folder. Standard deviations include those stated
for the k-factors. The k-factors of the dacite are theoretical, and printed.
"""

from __future__ import annotations

import argparse
import shutil
import warnings
from pathlib import Path

import numpy as np
from _measure import machine, markdown, scratch

from edxdenoise.errors import EdxdenoiseWarning
from edxdenoise.jobs import run_recipe
from edxdenoise.quantification import element_of, region_table
from edxdenoise.recipe import Recipe
from edxdenoise.report.text import region_words
from edxdenoise.simulation.materials import Material
from edxdenoise.simulation.presets import PRESETS
from edxdenoise.simulation.spectrum import line_counts
from edxdenoise.xray import atomic_weight, fwhm, line_energy

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
RECIPES = ("fept", "dacite")
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
    """Rows of one file: at% of the whole map and of its phases."""
    recipe = Recipe.from_file(ROOT / "data" / f"{name}.toml")
    for file in recipe.input.files:
        shutil.copy(data / file, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EdxdenoiseWarning)
        ds = run_recipe(recipe, folder=folder)
    table = region_table(ds, recipe.lines, k_factor_unit=recipe.quantify.k_factor_unit)
    rows = []
    for region, mask in zip(ds.region.values, ds.region_mask.values):
        own = table[(table.region == region) & table.quantity.str.endswith(" at%")]
        cells = [
            f"{row['quantity'].removesuffix(' at%')} {region_words(row)}"
            for _, row in own.iterrows()
        ]
        rows.append([name, region, f"{np.mean(mask):.1%}", f"{own.value.sum():.1f}", *cells])
        if name == "dacite":
            rows[-1].insert(
                4, f"{stoichiometric(dict(zip(own.quantity, own.value.fillna(0)))):.1f}"
            )
    return rows


def stoichiometric(percents: dict[str, float]) -> float:
    """At% of oxygen that the others would need as oxides."""
    cations = {name.removesuffix(" at%"): value for name, value in percents.items()}
    del cations["O"]
    oxygen = sum(OXYGEN[element] * value for element, value in cations.items())
    return 100 * oxygen / (oxygen + sum(cations.values()))


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("data", nargs="?", type=Path, default=DATA)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES)
    options = parser.parse_args()
    print(machine())
    for name in options.recipes:
        with scratch(None) as folder:
            rows = regions(name, options.data, folder)
        head = ["recipe", "region", "pixels", "total"]
        if name == "dacite":
            head.append("O if all were oxide")
        head += [f"at% {i + 1}" for i in range(len(rows[0]) - len(head))]
        print(f"\n{markdown(head, rows)}")
    if "dacite" in options.recipes:
        lines = Recipe.from_file(ROOT / "data" / "dacite.toml").lines
        factors = bulk_k_factors(mean_dacite(), list(lines))
        atoms = mean_dacite().atomic_fractions()
        rows = [
            [name, f"{factor:.3f}", f"{100 * atoms[element_of(name)]:.2f}"]
            for name, factor in factors.items()
        ]
        print(f"\n{markdown(['line', 'k-factor', 'at% of the mean dacite'], rows)}")


if __name__ == "__main__":
    main()
