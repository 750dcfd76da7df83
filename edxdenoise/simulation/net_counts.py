"""The truth behind quantification: net counts of lines in a phantom, and the k-factors it has."""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np
import xarray as xr

from edxdenoise.errors import ParameterError
from edxdenoise.schema import DIM_LINE, DIM_PHASE
from edxdenoise.simulation.materials import MATERIALS
from edxdenoise.simulation.presets import PRESETS
from edxdenoise.simulation.spectrum import line_counts, material_spectra
from edxdenoise.simulation.truth import PHASE_MAP, PHASE_SPECTRUM, STRAY_PHASE
from edxdenoise.xray import counted_lines


def phase_line_counts(ds: xr.Dataset, lines: Iterable[str]) -> xr.DataArray:
    """Expected net counts of lines from one unit of each phase of a phantom.

    Parameters
    ----------
    ds : Dataset
        From `simulate`.
    lines : iterable of str
        By Siegbahn name; their counts are those of `counted_lines`.

    Returns
    -------
    DataArray, dims (phase, line)
        Times ``phase_map`` and summed over phases it gives net counts per pixel. Stray X-rays
        are no part of it.
    """
    names = list(lines)
    instrument = PRESETS[json.loads(ds.attrs["simulated"])["preset"]].instrument
    phases = [str(name) for name in ds[DIM_PHASE].values]
    table = np.zeros((len(phases), len(names)))
    for i, phase in enumerate(phases):
        if phase == STRAY_PHASE:
            continue
        spectrum = ds[PHASE_SPECTRUM.name].values[i]
        (unscaled,) = material_spectra([MATERIALS[phase]], instrument, ds["energy"].values)
        scale = spectrum.sum(dtype=float) / unscaled.sum()
        counts = line_counts(MATERIALS[phase], instrument)
        for j, name in enumerate(names):
            counted = counted_lines(name, instrument.detector.resolution)
            table[i, j] = scale * sum(counts.get(line, 0.0) for line in counted)
    return xr.DataArray(table, dims=(DIM_PHASE, DIM_LINE), coords={"phase": phases, "line": names})


def true_k_factors(ds: xr.Dataset, lines: Iterable[str]) -> dict[str, tuple[float, float]]:
    """k-factors by weight that a phantom has, against its first line, and their scatter.

    Absorption in the foil makes them differ between phases: mean and standard deviation are those
    over the element's mass in all phases.

    Parameters
    ----------
    ds : Dataset
        From `simulate`.
    lines : iterable of str
        By Siegbahn name.
    """
    names = list(lines)
    counts = phase_line_counts(ds, names).values
    amounts = ds[PHASE_MAP.name].mean(("y", "x")).values
    factors = {}
    for j, name in enumerate(names):
        element = name.partition("_")[0]
        weights = np.array(
            [
                MATERIALS[phase].weight_fractions().get(element, 0.0) if phase in MATERIALS else 0.0
                for phase in ds[DIM_PHASE].values
            ]
        )
        masses = weights * amounts
        holds = masses > 0
        if not holds.any():
            raise ParameterError(f"line '{name}': no phase of the phantom holds {element}")
        k = weights[holds] / counts[holds, j]
        mean = masses.sum() / (amounts @ counts[:, j])
        factors[name] = mean, np.sqrt(np.average((k - mean) ** 2, weights=masses[holds]))
    reference = factors[names[0]][0]
    return {name: (float(k / reference), float(s / reference)) for name, (k, s) in factors.items()}
