"""Regions of a map and their sum spectra: the whole, areas, phases, a user's regions, profiles."""

from __future__ import annotations

from collections.abc import Mapping

import dask.array as da
import numpy as np
import xarray as xr

from edxdenoise.cube import is_lazy, kept_maps
from edxdenoise.errors import ParameterError
from edxdenoise.quantification.phases import Phases
from edxdenoise.schema import (
    COMPONENT_KEEP,
    COMPONENT_SPECTRUM,
    COORD_AREA,
    COORD_REGION_DISTANCE,
    COORD_REGION_KIND,
    COORD_REGION_SHARE,
    COUNTS,
    DIM_REGION,
    DIM_X,
    DIM_Y,
    MEAN_SPECTRUM,
    REGION_MASK,
    REGION_SPECTRUM,
    WEIGHT_ENERGY,
    WEIGHT_PIXEL,
)


def area_regions(ds: xr.Dataset) -> dict[str, np.ndarray]:
    """Masks (y, x) of the whole map and, where several were stacked, of each area by its name."""
    shape = (ds.sizes[DIM_Y], ds.sizes[DIM_X])
    regions = {"all": np.ones(shape, bool)}
    if COORD_AREA in ds.coords:
        numbers = ds[COORD_AREA].values
        names = ds[COORD_AREA].attrs.get("area_label", [])
        several = np.unique(numbers)
        for number in several if several.size > 1 else ():
            name = names[number - 1] if number <= len(names) else f"area {number}"
            regions[name] = np.broadcast_to((numbers == number)[:, np.newaxis], shape)
    return regions


def sum_regions(
    ds: xr.Dataset,
    regions: Mapping[str, np.ndarray] | None = None,
    *,
    phases: Phases | None = None,
    profiles: Mapping[str, tuple[float, np.ndarray]] | None = None,
) -> xr.Dataset:
    """Sum the counts of the whole map, its areas, phases, other regions and profiles.

    Parameters
    ----------
    ds : Dataset
        With ``counts``, or with the components that stand for them.
    regions : mapping of str to array of bool, shape (y, x)
        A user's regions, by name. They may overlap.
    phases : Phases, optional
        Their spectra are of the half of the counts that did not find them.
    profiles : mapping of str to (float, array of bool), optional
        Distance along the profile, and mask, of each of its steps.

    Returns
    -------
    Dataset
        `ds` with ``region_mask`` and ``region_spectrum``. Coordinates of ``region`` are its kind
        (``map``, ``area``, ``region``, ``phase`` or ``profile``), the share of the counts that the
        spectrum holds, and the distance along a profile. The spectra are lazy where the counts are.

    Raises
    ------
    ParameterError
        If a region has the name of another one.
    """
    steps = profiles or {}
    parts = [
        ("area", area_regions(ds)),
        ("region", dict(regions or {})),
        ("phase", {} if phases is None else phases.masks),
        ("profile", {name: mask for name, (_, mask) in steps.items()}),
    ]
    kinds: dict[str, str] = {}
    masks: dict[str, np.ndarray] = {}
    for kind, part in parts:
        for name, mask in part.items():
            if name in masks:
                raise ParameterError(f"region '{name}' is there twice; give it another name")
            kinds[name], masks[name] = kind, mask
    kinds["all"] = "map"
    stacked = np.stack(list(masks.values()))
    of_phases = np.array([kind == "phase" for kind in kinds.values()])
    fixed = _spectra(ds, stacked[~of_phases])
    if phases is not None:
        array = da if isinstance(fixed, da.Array) else np
        held_out = _spectra(phases.held_out, stacked[of_phases])
        # Phases stand before profiles.
        before = int(np.argmax(of_phases))
        fixed = array.concatenate([fixed[:before], held_out, fixed[before:]])
    distances = [steps[name][0] if name in steps else np.nan for name in masks]
    result = ds.drop_dims(DIM_REGION, errors="ignore").assign_coords(
        {
            DIM_REGION: list(masks),
            COORD_REGION_KIND: (DIM_REGION, list(kinds.values())),
            COORD_REGION_SHARE: (DIM_REGION, np.where(of_phases, 0.5, 1.0)),
            COORD_REGION_DISTANCE: (DIM_REGION, distances, {"units": str(_spatial_units(ds))}),
        }
    )
    return result.assign(
        {
            REGION_MASK.name: REGION_MASK.array(stacked.astype(np.int8)),
            REGION_SPECTRUM.name: REGION_SPECTRUM.array(fixed),
        }
    )


def _spatial_units(ds: xr.Dataset) -> str:
    return str(ds[DIM_X].attrs.get("units", "pixel")) if DIM_X in ds.coords else "pixel"


def _spectra(ds: xr.Dataset, masks: np.ndarray) -> np.ndarray | da.Array:
    """Sum spectra, shape (region, energy), of raw counts or else of what the model expects."""
    if COUNTS.name not in ds:
        h = ds[WEIGHT_ENERGY.name].values
        kept = np.flatnonzero(ds[COMPONENT_KEEP.name].values)
        g, maps = ds[WEIGHT_PIXEL.name].values, kept_maps(ds).values
        inside = masks.astype(np.float64) * g
        amounts = np.einsum("ryx,kyx->rk", inside, maps, optimize=True)
        spectra = amounts @ ds[COMPONENT_SPECTRUM.name].values[kept]
        spectra += inside.sum(axis=(1, 2))[:, np.newaxis] * ds[MEAN_SPECTRUM.name].values
        return np.maximum(spectra * h, 0)
    counts = ds[COUNTS.name].data
    if not is_lazy(ds):
        return _block_spectra(counts, masks)
    inside = da.from_array(masks, chunks=(-1, *counts.chunks[:2]))
    return da.blockwise(
        lambda block, part: _block_spectra(block, part)[np.newaxis, np.newaxis],
        "yxre",
        counts,
        "yxe",
        inside,
        "ryx",
        dtype=np.float64,
        adjust_chunks={"y": 1, "x": 1},
    ).sum(axis=(0, 1))


def _block_spectra(counts: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Sum spectra of one block, shape (region, energy)."""
    spectra = np.zeros((len(masks), counts.shape[-1]))
    for spectrum, mask in zip(spectra, masks):
        spectrum[:] = counts[mask].sum(axis=0, dtype=np.float64)
    return spectra
