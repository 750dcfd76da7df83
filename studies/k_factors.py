"""Estimated k-factors against vendors' tables, between beam energies, and in compositions.

    python studies/k_factors.py --csv --table \
        "Thermo 200 kV=k_factors_Thermo_200keV.json:200:family" \
        "Thermo 60 kV=k_factors_Thermo_60keV.json:60:family"
    python studies/k_factors.py --seeds 5

Tables are JSON files {"Fe": {"Ka1": 0.43}, ...}, such as pyTEMlib (MIT licence) ships, with their
beam energy and whether a value counts the alpha line or its whole family. They are no part of this
repository; of them only medians and scatters are kept.

Phantoms of FePt, GaAs and SrTiO3 have the counts that the k-factors of a vendor give (Thermo
Fisher, 200 kV, of whole families, as pyTEMlib quotes them), so that their truth shares nothing with
the estimates but the shapes of the families. Lines of Cu, Si, C and O overlie them; the axis of
GaAs starts at 0.8 keV.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from _study import run

import edxdenoise as ed
from edxdenoise.config import Quantify
from edxdenoise.quantification import region_table
from edxdenoise.quantification.k_factors import convert_k_factors, estimate_k_factors
from edxdenoise.xray import (
    Detector,
    atomic_number,
    atomic_weight,
    counted_lines,
    efficiency,
    element_spectrum,
    emission,
)

BEAM = 200.0
# Thermo Fisher, 200 kV, of whole families, against Si K; as quoted by pyTEMlib.
VENDOR = {"Fe": 1.333, "Pt": 2.340, "Ga": 1.847, "As": 2.214, "Sr": 4.308, "Ti": 1.168, "O": 1.145}
SPECIMENS = {
    "FePt": ({"Fe_Ka": 1, "Pt_La": 1}, ("Cu", "C", "Si"), 0.1),
    "GaAs": ({"Ga_Ka": 1, "As_Ka": 1}, ("Cu", "Si"), 0.8),
    "SrTiO3 (Sr, Ti)": ({"Sr_Ka": 1, "Ti_Ka": 1}, ("Cu", "C", "O", "Si"), 0.1),
}


def alpha_share(name: str, beam_energy: float) -> float:
    """Share of an alpha line in the counts of its family."""
    element, shell = name.split("_")[0], name.split("_")[1][0]
    lines = {k: v for k, v in emission(element, beam_energy).items() if k.family == shell}
    seen = efficiency(Detector(), np.array([line.energy for line in lines]))
    counts = dict(zip(lines, np.array(list(lines.values())) * seen))
    return sum(counts.get(line, 0.0) for line in counted_lines(name)) / sum(counts.values())


def vendor_table(path: Path, beam_energy: float, counted: str) -> dict[str, float]:
    """k-factors of alpha lines against Si K alpha."""
    table = json.loads(path.read_text())
    found: dict[str, float] = {}
    for element, lines in table.get("table", table).items():
        for shell in "KL":
            value = lines.get(f"{shell}a1")
            name = f"{element}_{shell}a"
            try:
                share = alpha_share(name, beam_energy) if counted == "family" else 1.0
            except (ed.EdxdenoiseError, ZeroDivisionError):
                continue
            if value is not None and share > 0:
                found[name] = float(value) / share
    return {name: value / found["Si_Ka"] for name, value in found.items()}


def table_rows(title: str, known: dict[str, float], beam_energy: float) -> list[dict[str, object]]:
    """Ratio of a table's k-factors to the estimates: median, scatter, worst, by group."""
    groups = {
        "K, Z 11-13": lambda name, z: name.endswith("Ka") and 11 <= z <= 13,
        "K, Z 14-53": lambda name, z: name.endswith("Ka") and 14 <= z <= 53,
        "L alpha, Z 38-83": lambda name, z: name.endswith("La") and 38 <= z <= 83,
    }
    rows = []
    for group, belongs in groups.items():
        names = [name for name in known if belongs(name, atomic_number(name.split("_")[0]))]
        estimates = estimate_k_factors(names, beam_energy=beam_energy)
        ratios = np.array([known[name] / estimates[name].value for name in names])
        off = np.abs(ratios / np.median(ratios) - 1)
        rows.append(
            {
                "what": title,
                "of": group,
                "number": len(names),
                "value": np.median(ratios),
                "error": 1.4826 * np.median(off),
                "worst": off.max(),
            }
        )
    return rows


def transfer_row(
    title: str, known: dict[str, float], other: dict[str, float], energies: tuple[float, float]
) -> dict[str, object]:
    """Ratio of a table to what another one becomes at its beam energy."""
    names = [
        name
        for name in known
        if name in other
        and (11 if name.endswith("Ka") else 38) <= atomic_number(name.split("_")[0])
        and (40 if name.endswith("Ka") else 83) >= atomic_number(name.split("_")[0])
    ]
    converted = convert_k_factors(
        {name: known[name] for name in names}, from_energy=energies[0], to_energy=energies[1]
    )
    ratios = np.array([other[name] / converted[name] for name in names])
    return {
        "what": title,
        "of": f"{energies[0]:.0f} to {energies[1]:.0f} kV",
        "number": len(names),
        "value": np.median(ratios),
        "error": ratios.std(),
        "worst": np.abs(ratios - 1).max(),
    }


def strontium_titanate() -> dict[str, object]:
    """Ti K over Sr K of SrTiO3, measured as 1.546 and 1.582."""
    photons = {
        element: sum(p for line, p in emission(element, BEAM).items() if line.family == "K")
        for element in ("Ti", "Sr")
    }
    predicted = photons["Ti"] / photons["Sr"]
    return {
        "what": "SrTiO3, measured",
        "of": "Ti K / Sr K",
        "number": 2,
        "value": 1.564 / predicted,
        "error": 0.018 / predicted,
        "worst": 1.582 / predicted - 1,
    }


def phantom(specimen: str, seed: int, counts: float) -> xr.Dataset:
    """A map of one composition with the counts that a vendor's k-factors give."""
    atoms, stray, start = SPECIMENS[specimen]
    energy = np.arange(start, 20.0, 0.02)
    silicon = alpha_share("Si_Ka", BEAM)
    spectrum = np.zeros(energy.size)
    for name, number in atoms.items():
        element = name.split("_")[0]
        alpha = VENDOR[element] * silicon / alpha_share(name, BEAM)
        shape = element_spectrum(element, energy, beam_energy=BEAM)
        spectrum += number * atomic_weight(element) / alpha * shape / line_share(name, energy)
    spectrum *= counts / spectrum.sum()
    for element in stray:
        spectrum += 0.1 * counts * element_spectrum(element, energy, beam_energy=BEAM)
    spectrum += 0.2 * counts * (1 / energy) / (1 / energy).sum()
    drawn = np.random.default_rng(seed).poisson(spectrum, size=(16, 16, energy.size))
    attrs = {"beam_energy": BEAM, "detector_resolution": 130.0}
    return ed.make_cube(drawn.astype(np.uint16), energy=energy, attrs=attrs)


def line_share(name: str, energy: np.ndarray) -> float:
    """Share of an alpha line in the counts of its element within the channels."""
    lines = emission(name.split("_")[0], BEAM)
    inside = [line for line in lines if energy[0] <= line.energy <= energy[-1]]
    seen = efficiency(Detector(), np.array([line.energy for line in inside]))
    counts = {line: lines[line] * share for line, share in zip(inside, seen)}
    return sum(counts.get(line, 0.0) for line in counted_lines(name)) / sum(counts.values())


def phantom_rows(seeds: int, counts: float) -> list[dict[str, object]]:
    """At% of the first element of each specimen by estimated k-factors."""
    rows = []
    for specimen, (atoms, stray, _) in SPECIMENS.items():
        lines = dict.fromkeys(atoms, "estimate")
        recipe = Quantify(source="counts", intensities="fit", elements=stray)
        found = []
        for seed in range(seeds):
            maps = ed.quantify(phantom(specimen, seed, counts), lines, recipe)
            row = region_table(maps).iloc[0]
            found.append((row["value"], row["stddev"]))
        value, stddev = np.mean(found, axis=0)
        first = next(iter(atoms)).split("_")[0]
        rows.append(
            {
                "what": f"phantom {specimen}",
                "of": f"{first} at%, true 50",
                "number": seeds,
                "value": value,
                "error": stddev,
                "worst": max(abs(v - 50) for v, _ in found),
            }
        )
    return rows


HEAD = ("what", "of", "number", "value", "error", "worst")


def study(seeds: int, counts: float = 500.0, table: Sequence[str] = ()) -> list[list[str]]:
    """Rows of the table: those of vendors' tables first, then measurements and phantoms."""
    rows, tables = [], []
    for text in table:
        title, _, rest = text.partition("=")
        path, kilovolts, counted = rest.rsplit(":", 2)
        known = vendor_table(Path(path), float(kilovolts), counted)
        rows += table_rows(title, known, float(kilovolts))
        tables.append((title, known, float(kilovolts)))
    for (title, known, start), (other, second, end) in zip(tables, tables[1:]):
        if title.split()[0] == other.split()[0]:
            rows.append(transfer_row(title, known, second, (start, end)))
    rows.append(strontium_titanate())
    rows += phantom_rows(seeds, counts)
    return [
        [
            *(str(row[name]) for name in HEAD[:3]),
            *(f"{float(str(row[name])):.4g}" for name in HEAD[3:]),
        ]
        for row in rows
    ]


if __name__ == "__main__":
    run(
        __file__,
        __doc__,
        HEAD,
        study,
        seeds=20,
        options={
            "--table": {"nargs": "+", "default": (), "metavar": "TITLE=FILE:KV:COUNTED"},
            "--counts": {"type": float, "default": 500.0, "help": "per pixel"},
        },
    )
