"""Elements found in random phantoms: recall and false discoveries by dose.

    python studies/elements.py [--seeds FIRST:LAST] [--csv]
    python studies/elements.py --files [DATA] [--csv]

Each phantom holds 2 to 12 elements in one to three phases and, often, stray elements of grid,
holder, film and detector, at 2 to 5000 counts per pixel; some elements are in a few pixels alone.
The detector has 125 to 145 eV where the file states 130, often a low-energy tail, escape and sum
peaks, and an axis that is off by some eV.

The true significance of an element is its net counts over their error in a fit of true shapes, to
the sum spectrum, of all families that are there and of a smooth background: elements that overlap
completely have none. ``--files`` compares what is found in real files with what is known of them.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from edxdenoise import find_elements, make_cube
from edxdenoise.cube import Resolution
from edxdenoise.io import read_cube
from edxdenoise.simulation.geometry import add_spheres, smooth_field
from edxdenoise.simulation.spectrum import (
    Instrument,
    Material,
    line_counts,
    line_spectrum,
    material_spectra,
    stray_photons,
)
from edxdenoise.xray import channel_response, fwhm
from edxdenoise.xray.detector import SI_KA_ENERGY, Detector, efficiency, escape_fraction

RESULTS = Path(__file__).parent / "results"
DATA = Path(__file__).parents[2] / "shared" / "data"
DOSES = (2, 10, 50, 250, 1000, 5000)
LEVELS = (3.0, 5.0, 10.0)
SHAPE, CHANNELS = (48, 48), 1024
# How often specimens hold them, roughly; the rest of the periodic table is rarer.
COMMON = "C N O F Na Mg Al Si P S Cl K Ca Ti V Cr Mn Fe Co Ni Cu Zn".split()
OTHERS = (
    "B Sc Ga Ge As Se Br Rb Sr Y Zr Nb Mo Ru Rh Pd Ag Cd In Sn Sb Te I Cs Ba La Ce Pr Nd Sm Eu Gd "
    "Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Th U"
).split()
STRAY = {"Cu": 1.0, "Al": 0.4, "Si": 0.2, "C": 0.5, "O": 0.2, "Fe": 0.05, "Co": 0.04}


@dataclass(frozen=True)
class Phantom:
    """A spectrum image and, by element, what is true of it.

    Parameters
    ----------
    ds : Dataset
        Of counts; its attributes say what a file would, but no elements.
    significance : dict of str to float
        True one of every element in the sum spectrum.
    local : dict of str to float
        True one of elements of a few pixels, in the spectrum of these.
    """

    ds: xr.Dataset
    significance: dict[str, float]
    local: dict[str, float]


def phantom(seed: int) -> Phantom:
    """Make the phantom of a seed."""
    rng = np.random.default_rng([17, seed])
    dose = float(DOSES[seed % len(DOSES)])
    bulk = rng.random() < 0.3
    beam = rng.choice([10.0, 15.0, 20.0, 30.0]) if bulk else rng.choice([80.0, 200.0, 300.0])
    tail = rng.uniform(0, 100) if rng.random() < 0.5 else 0.0
    response = Resolution(rng.uniform(125, 145), rng.uniform(2.35, 2.5), tail)
    detector = Detector(response, 35.0 if bulk else 18.0, bool(rng.random() < 0.5))
    instrument = Instrument("SEM" if bulk else "TEM", beam, detector, rng.uniform(20, 150))
    step = 0.01 if bulk and rng.random() < 0.5 else 0.02
    energy = (np.arange(CHANNELS) + 0.5) * step
    shift, gain = rng.normal(0, 0.003), rng.normal(0, 3e-4)
    true_energy = (energy - shift) / (1 + gain)

    number = int(rng.integers(2, 13))
    odds = np.concatenate([np.ones(len(COMMON)), np.full(len(OTHERS), 0.3)])
    pool = rng.choice([*COMMON, *OTHERS], number, replace=False, p=odds / odds.sum())
    phases, maps = _phases(rng, [str(element) for element in pool])
    materials = [Material(atoms, rng.uniform(2, 10)) for atoms in phases]
    density = np.array([1.0 if bulk else material.density for material in materials])
    weights = maps * density[:, None, None]
    spectra = material_spectra(materials, instrument, true_energy)
    # By phase and element: counts of every line, on the scale of the spectra.
    counts = [line_counts(material, instrument) for material in materials]

    if rng.random() < 0.6:
        names = [name for name in STRAY if rng.random() < 0.6] or ["Cu"]
        stray = {name: STRAY[name] * rng.uniform(0.3, 3) for name in names}
        total = (spectra.sum(1) * weights.mean((1, 2))).sum() * rng.uniform(0.02, 0.3)
        spectra = np.concatenate(
            [spectra, total * line_spectrum(stray, instrument, true_energy)[None]]
        )
        weights = np.concatenate([weights, np.ones((1, *SHAPE))])
        counts.append(_stray_counts(stray, instrument, total))
    # Differences of error functions leave -1e-20 far from a line.
    spectra = np.maximum(spectra, 0)
    scale = dose / (spectra.sum(1) * weights.mean((1, 2))).sum()
    spectra, counts = spectra * scale, [{k: v * scale for k, v in c.items()} for c in counts]

    mean = np.tensordot(weights.mean((1, 2)), spectra, 1) * weights[0].size
    artefacts = _escape(counts, weights.sum((1, 2)), true_energy, response)
    pile = rng.uniform(0, 0.01) * (rng.random() < 0.5)
    both = np.convolve(mean, mean)[:CHANNELS] / mean.sum()
    artefacts = artefacts + pile * np.interp(energy, energy + step / 2, both)
    share = artefacts / np.maximum(mean, 1e-12)
    cube = np.empty((*SHAPE, CHANNELS), np.uint16)
    pixels = np.moveaxis(weights, 0, -1)
    expected_sum = mean * (1 + share)
    for row in range(SHAPE[0]):
        expected = pixels[row] @ spectra
        cube[row] = rng.poisson(expected + expected.sum(1)[:, None] * artefacts / mean.sum())
    ds = make_cube(cube, energy=energy, attrs={"beam_energy": beam, "detector_resolution": 130.0})

    totals = weights.sum((1, 2))
    whole = _true_significance(counts, totals, expected_sum, true_energy, response)
    local = {}
    for phase, (atoms, places) in enumerate(zip(phases, maps)):
        if (places > 0).mean() > 0.03:
            continue
        mask = places > 0
        part = (weights * mask).sum((1, 2))
        inside = _true_significance(counts, part, part @ spectra, true_energy, response)
        elsewhere = {e for n, a in enumerate(phases) if n != phase for e in a}
        local |= {e: inside[e] for e in atoms if e not in elsewhere and e in inside}
    return Phantom(ds, whole, local)


def _phases(rng: np.random.Generator, pool: list[str]) -> tuple[list[dict[str, float]], np.ndarray]:
    """Atoms and amounts (phase, y, x) of phases that share the elements of the pool."""
    number = int(rng.integers(1, 4)) if len(pool) > 3 else 1
    parts: list[list[str]] = [[] for _ in range(number)]
    for place, element in enumerate(pool):
        parts[place % number].append(element)
    # Phases share some elements, as oxides do.
    for part in parts[1:]:
        part += [e for e in parts[0] if rng.random() < 0.3]
    phases = [{e: float(np.exp(rng.normal(0, 1.3))) for e in part} for part in parts]
    maps = []
    for place in range(number):
        field = smooth_field(rng, SHAPE, rng.uniform(3, 10))
        if place == 0:
            maps.append(1 + 0.3 * np.tanh(field))
        else:
            maps.append(1 / (1 + np.exp(-3 * (field - rng.uniform(-0.5, 1)))))
    if len(pool) > 2 and rng.random() < 0.5:
        # A few small particles of one or two elements, some of which occur nowhere else.
        last = phases[-1]
        taken = list(last)[:1] if len(last) < 3 else list(last)[:2]
        if len(last) > len(taken):
            phases.append({e: last.pop(e) for e in taken})
            particles = np.zeros(SHAPE)
            radii = rng.uniform(1, 2.5, int(rng.integers(1, 4)))
            add_spheres(particles, rng.uniform(4, SHAPE[0] - 4, (radii.size, 2)), radii)
            maps.append(particles / 2)
    return phases, np.array(maps)


def _stray_counts(stray: dict[str, float], instrument: Instrument, total: float) -> dict:
    """Counts of every line of the stray elements, of `total` counts."""
    photons = stray_photons(stray, instrument)
    seen = efficiency(instrument.detector, np.array([line.energy for line in photons]))
    counts = dict(zip(photons, seen * np.array(list(photons.values()))))
    everything = sum(counts.values())
    return {line: total * value / everything for line, value in counts.items()}


def _escape(
    counts: list[dict], amounts: np.ndarray, energy: np.ndarray, response: Resolution
) -> np.ndarray:
    """Escape peaks of the sum spectrum; each is as wide as a line of its energy."""
    lines = [(line.energy, n * a) for own, a in zip(counts, amounts) for line, n in own.items()]
    lines = [(e, n) for e, n in lines if e > SI_KA_ENERGY + 0.2]
    if not lines:
        return np.zeros(energy.size)
    energies, numbers = np.array(lines).T
    shapes = channel_response(energies - SI_KA_ENERGY, energy, response)
    return (numbers * escape_fraction(energies)) @ shapes


def _true_significance(
    counts: list[dict],
    amounts: np.ndarray,
    expected: np.ndarray,
    energy: np.ndarray,
    response: Resolution,
) -> dict[str, float]:
    """Net counts over their error, by element, of its clearest family."""
    families: dict[tuple[str, str], np.ndarray] = {}
    numbers: dict[tuple[str, str], float] = {}
    for lines, amount in zip(counts, amounts):
        kept = [line for line in lines if 0.2 < line.energy < energy[-1]]
        if not kept or not amount:
            continue
        shapes = channel_response(np.array([line.energy for line in kept]), energy, response)
        for line, shape in zip(kept, shapes):
            key = (line.name.partition("_")[0], line.family)
            add = lines[line] * amount * shape
            families[key] = families.get(key, 0) + add
            numbers[key] = numbers.get(key, 0.0) + lines[line] * amount
    if not families:
        return {}
    peaks = sum(families.values())
    used = energy > 0.16
    background = np.maximum(expected - peaks, 1e-9 * expected.max())
    # Free to bend over five widths, as the background of any fit must be.
    position = np.cumsum((energy[1] - energy[0]) * 1000 / fwhm(np.maximum(energy, 0.1), response))
    knots = np.arange(0, position[-1] + 5, 5.0)
    bends = [np.interp(position, knots, row) * background for row in np.eye(len(knots))]
    columns = np.array([*families.values(), *bends])[:, used]
    weight = 1 / np.maximum(expected[used], 1e-6)
    matrix = (columns * weight) @ columns.T
    scale = 1 / np.sqrt(np.maximum(np.diag(matrix), 1e-30))
    inverse = np.linalg.pinv(matrix * scale * scale[:, None], rcond=1e-10)
    errors = np.sqrt(np.maximum(np.diag(inverse), 1e-30)) * scale
    best: dict[str, float] = {}
    for (element, _), error in zip(families, errors):
        # The columns are the true counts themselves: their amplitude is 1.
        best[element] = max(best.get(element, 0.0), float(1 / error))
    return best


def rows(seed: int) -> list[dict[str, object]]:
    """One row per element that the phantom of a seed holds or that was found in it."""
    found = []
    made = phantom(seed)
    table = find_elements(made.ds).set_index("element")
    for element in sorted({*made.significance, *table.index}):
        seen = element in table.index
        found.append(
            {
                "seed": seed,
                "dose": DOSES[seed % len(DOSES)],
                "element": element,
                "true": element in made.significance,
                "sigma": made.significance.get(element, 0.0),
                "local sigma": made.local.get(element, 0.0),
                "found": seen,
                "significance": table.significance[element] if seen else 0.0,
                "line": table.line[element] if seen else "",
                "where": table["where"][element] if seen else "",
                "confused": table.confused_with[element] if seen else "",
                # Whether what it may be confused with is there and was not found.
                "right one": seen
                and any(
                    other in made.significance and other not in table.index
                    for other in table.confused_with[element].split(", ")
                ),
            }
        )
    return found


# What is known of the real files: certainly there, by what the specimen is or by clear lines that
# the vendor's list names too; possible, by the specimen, its preparation and the microscope.
KNOWN = {
    "fept_core_shell.hspy": ("Fe Pt Cu C O Si", "S Cl Co"),
    "bruker_sem_dacite_122cpp.bcf": ("O Na Mg Al Si K Ca Ti Fe", "C P Cl Mn S"),
    "bruker_sem_dacite_22cpp.bcf": ("O Na Mg Al Si K Ca Fe", "C P Cl Mn S Ti"),
    "bruker_tem_dust_256x256.bcf": (
        "O Mg Al Si Ca Ti Fe Cu Ga Pt C",
        "N Na S Cr K Cl Co Ni P Mn V F Zn",
    ),
    "jeol_tem_64x64.pts": ("C O Al Si Cu", "Fe Co Cr V F Au Na Ni Cl"),
}


def files(data: Path) -> pd.DataFrame:
    """One row per real file: what was found, missed, and found beyond what is possible."""
    lines = []
    for name, (certain, possible) in KNOWN.items():
        found = list(find_elements(read_cube(data / name)).element)
        known, allowed = certain.split(), possible.split()
        lines.append(
            {
                "file": name,
                "certain": " ".join(known),
                "found of these": f"{len(set(known) & set(found))} of {len(known)}",
                "found, possible": " ".join(e for e in found if e in allowed),
                "found, neither": " ".join(e for e in found if e not in known + allowed),
            }
        )
    return pd.DataFrame(lines)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Recall by true significance, and false discoveries, by dose and over all."""
    lines = []
    groups = [(f"{dose:g}", part) for dose, part in table.groupby("dose")] + [("all", table)]
    for name, part in groups:
        line: dict[str, object] = {"counts per pixel": name, "phantoms": part.seed.nunique()}
        for low, high in zip(LEVELS[::-1], (np.inf, *LEVELS[:0:-1])):
            there = part[part.true & (part.sigma >= low) & (part.sigma < high)]
            title = f"found above {low:g} sigma" if np.isinf(high) else f"{low:g} to {high:g}"
            line[title] = f"{there.found.sum()} of {len(there)}"
        local = part[(part["local sigma"] >= 10) & (part.sigma < 5)]
        line["local ones"] = f"{local.found.sum()} of {len(local)}"
        line["found"] = int(part.found.sum())
        false = part[part.found & ~part.true]
        line["false"] = len(false)
        line["the right one named"] = int(false["right one"].sum())
        lines.append(line)
    return pd.DataFrame(lines)


def main() -> None:
    """Print the table; write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", default="6000:6200", help="FIRST:LAST, without the last")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--list", action="store_true", help="print what was missed or is false")
    parser.add_argument("--csv", action="store_true", help="write the result")
    parser.add_argument("--files", type=Path, nargs="?", const=DATA, help="folder of real files")
    options = parser.parse_args()
    if options.files is not None:
        result = files(options.files)
        print(result.to_string(index=False))
        if options.csv:
            result.to_csv(RESULTS / "elements_files.csv", index=False)
        return
    first, last = map(int, options.seeds.split(":"))
    with ProcessPoolExecutor(options.jobs) as pool:
        made = pool.map(rows, range(first, last))
        table = pd.DataFrame([row for part in made for row in part])
    if options.list:
        wrong = table[(table.found & ~table.true) | (table.true & ~table.found)]
        print(wrong[wrong.found | (wrong.sigma >= 5) | (wrong["local sigma"] >= 10)].to_string())
    result = summary(table)
    print(result.to_string(index=False))
    if options.csv:
        result.to_csv(RESULTS / "elements.csv", index=False)


if __name__ == "__main__":
    main()
