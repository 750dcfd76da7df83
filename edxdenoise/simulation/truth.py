"""The truth of a phantom: its variables, compositions, net counts of lines and k-factors."""

from __future__ import annotations

from collections.abc import Iterable

import dask.array as da
import numpy as np
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.errors import ParameterError
from edxdenoise.simulation.presets import PRESETS
from edxdenoise.simulation.spectrum import MATERIALS, line_counts, material_spectra
from edxdenoise.xray import counted_lines
from edxdenoise.xray.lines import atomic_number, atomic_weight

EXPECTED_COUNTS = v.Variable(
    "expected_counts",
    (v.DIM_Y, v.DIM_X, v.DIM_ENERGY),
    "f",
    "counts",
    "truth: expectation of the Poisson counts",
)
PHASE_MAP = v.Variable(
    "phase_map",
    (v.DIM_PHASE, v.DIM_Y, v.DIM_X),
    "f",
    "ug cm-2",
    "truth: amount of each phase",
)
PHASE_SPECTRUM = v.Variable(
    "phase_spectrum",
    (v.DIM_PHASE, v.DIM_ENERGY),
    "f",
    "counts",
    "truth: expected counts of one unit of phase_map",
)
TRUE_ATOMIC_PERCENT = v.Variable(
    "true_atomic_percent",
    (v.DIM_ELEMENT, v.DIM_Y, v.DIM_X),
    "f",
    "percent",
    "truth: atoms of the specimen, hydrogen and stray X-rays left out; NaN where there is none",
)
TRUE_WEIGHT_PERCENT = v.Variable(
    "true_weight_percent",
    (v.DIM_ELEMENT, v.DIM_Y, v.DIM_X),
    "f",
    "percent",
    "truth: mass of the specimen, hydrogen and stray X-rays left out; NaN where there is none",
)

STRAY_PHASE = "stray"
# Attribute of a phantom.
SIMULATED_PRESET = "simulated_preset"


def composition_tables(names: list[str]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the composition of the phases.

    Parameters
    ----------
    names : list of str
        Of the phases; `STRAY_PHASE` is made of nothing.

    Returns
    -------
    elements : list of str
        Symbols by atomic number.
    weight, atoms : array, shape (phase, element)
        Mass and moles of each element per mass of a phase.
    """
    materials = {name: MATERIALS[name] for name in names if name != STRAY_PHASE}
    found = {element for material in materials.values() for element in material.atoms}
    elements = sorted(found, key=atomic_number)
    weight = np.zeros((len(names), len(elements)), np.float32)
    for i, name in enumerate(names):
        if name in materials:
            for element, share in materials[name].weight_fractions().items():
                weight[i, elements.index(element)] = share
    atoms = weight / np.array([atomic_weight(element) for element in elements], np.float32)
    return elements, weight, atoms


def region_atoms(ds: xr.Dataset, elements: list[str]) -> xr.DataArray | None:
    """Sum the atoms of elements over the regions of a phantom.

    Parameters
    ----------
    ds : Dataset
        With ``region_mask``, and what `simulate` says of the phases.
    elements : list of str
        Symbols.

    Returns
    -------
    DataArray, dims (region, element), or None
        In an arbitrary common unit; None where `ds` is no phantom.
    """
    if PHASE_MAP not in ds or v.REGION_MASK not in ds:
        return None
    found, _, atoms = composition_tables([str(name) for name in ds[v.DIM_PHASE].values])
    table = xr.DataArray(atoms, dims=(v.DIM_PHASE, v.DIM_ELEMENT), coords={v.DIM_ELEMENT: found})
    inside = ds[v.REGION_MASK].astype(float)
    amounts = xr.dot(inside, ds[PHASE_MAP].drop_vars(v.DIM_PHASE), dim=(v.DIM_Y, v.DIM_X))
    summed = xr.dot(amounts, table, dim=v.DIM_PHASE)
    return summed.reindex({v.DIM_ELEMENT: elements}, fill_value=0.0).compute()


def percent_maps(phase_map: da.Array, table: np.ndarray) -> da.Array:
    """Percent of each element, lazily.

    Parameters
    ----------
    phase_map : dask array, shape (phase, y, x)
    table : array, shape (phase, element)

    Returns
    -------
    dask array of float32, shape (element, y, x)
        NaN where there is no phase.
    """
    return da.map_blocks(
        _percent_block,
        phase_map,
        table=table,
        dtype=np.float32,
        chunks=((table.shape[1],), *phase_map.chunks[1:]),
        meta=np.empty((0, 0, 0), np.float32),
    )


def _percent_block(phase_map: np.ndarray, *, table: np.ndarray) -> np.ndarray:
    amounts = np.tensordot(table, phase_map, axes=(0, 0))
    total = amounts.sum(axis=0)
    return 100 * amounts / np.where(total > 0, total, np.nan)


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

    Raises
    ------
    ParameterError
        If `ds` does not say which preset it is of.
    """
    names = list(lines)
    if SIMULATED_PRESET not in ds.attrs:
        raise ParameterError(
            f"the Dataset has no attribute '{SIMULATED_PRESET}', as phantoms of this version have; "
            "simulate it again"
        )
    instrument = PRESETS[ds.attrs[SIMULATED_PRESET]].instrument
    phases = [str(name) for name in ds[v.DIM_PHASE].values]
    table = np.zeros((len(phases), len(names)))
    for i, phase in enumerate(phases):
        if phase == STRAY_PHASE:
            continue
        spectrum = ds[PHASE_SPECTRUM].values[i]
        (unscaled,) = material_spectra([MATERIALS[phase]], instrument, ds["energy"].values)
        scale = spectrum.sum(dtype=float) / unscaled.sum()
        counts = line_counts(MATERIALS[phase], instrument)
        for j, name in enumerate(names):
            counted = counted_lines(name, instrument.detector.resolution)
            table[i, j] = scale * sum(counts.get(line, 0.0) for line in counted)
    return xr.DataArray(
        table, dims=(v.DIM_PHASE, v.DIM_LINE), coords={"phase": phases, "line": names}
    )


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
    amounts = ds[PHASE_MAP].mean(("y", "x")).values
    factors = {}
    for j, name in enumerate(names):
        element = name.partition("_")[0]
        weights = np.array(
            [
                MATERIALS[phase].weight_fractions().get(element, 0.0) if phase in MATERIALS else 0.0
                for phase in ds[v.DIM_PHASE].values
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
