"""Width law of the peaks and coverage of at%, on phantoms of known detectors.

    python studies/peak_width.py [--seeds N] [--csv]

Maps of one composition at 1000 counts per pixel, whose detectors have 125 to 145 eV at Mn K alpha,
slopes of 2.35 to 2.5 eV and tails of 0 to 100 nm, while the file states 130 eV. One row per element
of a specimen: the largest errors, over its phantoms, of the measured FWHM at Mn K alpha and at the
line of the element, in eV, and of the depth of the tail, in nm; the worst whole-map at%; and the
least and the largest share of a phantom's pixels whose at% +- 1.96 standard deviations hold the
truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import xarray as xr
from _study import run

from edxdenoise import LineSpec, make_cube
from edxdenoise.config import Quantify
from edxdenoise.cube import Resolution, detector_resolution
from edxdenoise.pipeline import quantify
from edxdenoise.simulation.presets import PRESETS
from edxdenoise.simulation.spectrum import Material, line_counts, line_spectrum, material_spectra
from edxdenoise.xray import atomic_number, counted_lines, fwhm, line_energy
from edxdenoise.xray.families import element_of

# Materials by their atoms, and the lines they are quantified by.
SPECIMENS = {
    "SrTiO3": (Material({"Sr": 1, "Ti": 1, "O": 3}, 5.1), ("Sr_Ka", "Ti_Ka", "O_Ka")),
    "GaAs": (Material({"Ga": 1, "As": 1}, 5.3), ("Ga_Ka", "As_Ka")),
    "FePt": (Material({"Fe": 1, "Pt": 1}, 14.8), ("Fe_Ka", "Pt_La")),
    "steel": (Material({"Fe": 0.7, "Cr": 0.2, "Ni": 0.1}, 7.9), ("Fe_Ka", "Cr_Ka", "Ni_Ka")),
    "olivine": (Material({"Mg": 1.8, "Fe": 0.2, "Si": 1, "O": 4}, 3.3),)
    + (("Mg_Ka", "Fe_Ka", "Si_Ka", "O_Ka"),),
}
ENERGY = (np.arange(2000) + 0.5) * 0.01
COUNTS = 1000.0


def phantom(
    specimen: str,
    response: Resolution,
    seed: int,
    shape: tuple[int, int] = (40, 40),
    *,
    lowest: float = 0.0,
    artefacts: Mapping[str, float] | None = None,
) -> tuple[xr.Dataset, dict[str, LineSpec], dict[str, float]]:
    """Dataset of one composition, its lines with their true k-factors, and its true at%.

    `artefacts` are photons of elements of grid, film and detector, which together are a third of
    the counts of the specimen; the axis starts at `lowest` keV.
    """
    material, names = SPECIMENS[specimen]
    instrument = PRESETS["core-shell"].instrument
    instrument = replace(instrument, detector=replace(instrument.detector, resolution=response))
    (spectrum,) = material_spectra([material], instrument, ENERGY)
    counts = line_counts(material, instrument)
    weights, atoms = material.weight_fractions(), material.atomic_fractions()
    net = {
        name: sum(counts.get(line, 0.0) for line in counted_lines(name, response)) for name in names
    }
    factors = {name: weights[element_of(name)] / number for name, number in net.items()}
    lines = {name: LineSpec(factor / factors[names[0]]) for name, factor in factors.items()}
    if artefacts:
        spectrum = spectrum / spectrum.sum() + line_spectrum(artefacts, instrument, ENERGY) / 3
    seen = ENERGY > lowest
    spectrum = spectrum[seen] / spectrum[seen].sum()
    rng = np.random.default_rng(seed)
    cube = rng.poisson(spectrum * COUNTS, (*shape, int(seen.sum())))
    attrs = {
        "beam_energy": instrument.beam_energy,
        "detector_resolution": 130.0,
        "elements": sorted(material.atoms, key=atomic_number),
    }
    truth = {element_of(name): 100 * atoms[element_of(name)] for name in names}
    return make_cube(cube, energy=ENERGY[seen], attrs=attrs), lines, truth


def rows(seeds: int, specimens: Sequence[str] = tuple(SPECIMENS)) -> list[dict[str, object]]:
    """One row per phantom and element."""
    found = []
    for seed in range(seeds):
        rng = np.random.default_rng([11, seed])
        response = Resolution(rng.uniform(125, 145), rng.uniform(2.35, 2.5), rng.uniform(0, 100))
        specimen = specimens[seed % len(specimens)]
        ds, lines, truth = phantom(specimen, response, seed)
        maps = quantify(ds, lines, Quantify(intensities="fit", source="counts"))
        law = detector_resolution(maps)
        for name, (element, true) in zip(lines, truth.items()):
            value = maps.atomic_percent.sel(element=element).values
            stddev = maps.atomic_percent_stddev.sel(element=element).values
            energy = line_energy(name)
            found.append(
                {
                    "specimen": specimen,
                    "line": name,
                    "at Mn Ka": float(law) - float(response),
                    "at its line": float(fwhm(energy, law) - fwhm(energy, response)),
                    "tail": law.tail_depth - response.tail_depth,
                    "at%": float(value.mean()) - true,
                    "coverage": float((np.abs(value - true) < 1.96 * stddev).mean()),
                }
            )
    return found


def study(seeds: int) -> list[list[str]]:
    """Rows of the table, one per specimen and line."""
    table = pd.DataFrame(rows(seeds))
    cells = []
    for (specimen, line), own in table.groupby(["specimen", "line"], sort=False):
        largest = own[["at Mn Ka", "at its line", "tail", "at%"]].abs().max()
        covered = own["coverage"]
        cells.append(
            [
                *(specimen, line, str(len(own))),
                *(f"{largest[name]:.1f}" for name in ("at Mn Ka", "at its line", "tail")),
                f"{largest['at%']:.2f}",
                *(f"{100 * share:.1f}" for share in (covered.min(), covered.max())),
            ]
        )
    return cells


HEAD = (
    *("specimen", "line", "phantoms", "FWHM at Mn Ka (eV)", "FWHM at the line (eV)", "tail (nm)"),
    *("at% of the map", "least coverage (%)", "most (%)"),
)


if __name__ == "__main__":
    run(__file__, __doc__, HEAD, study, seeds=30)
