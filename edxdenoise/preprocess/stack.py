"""Put several maps one below the other, as areas of one, and take them apart again."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import xarray as xr

from edxdenoise.cube import add_history, drop_needless, measured_pixels
from edxdenoise.errors import ParameterError, Rank, SchemaError, warn
from edxdenoise.schema import (
    COORD_AREA,
    COUNTS,
    DIM_DETECTOR,
    DIM_ENERGY,
    DIM_X,
    DIM_Y,
    EXPOSURE,
    IMAGE,
    MEASURED,
    validate,
)

# Attributes that belong to one map and are collected when maps become one.
_COLLECTED = ("title", "source")


def stack(
    maps: Sequence[xr.Dataset],
    *,
    exposure: Sequence[float] | None = None,
    labels: Sequence[str] | None = None,
) -> xr.Dataset:
    """Stack maps along y as areas 1..m, so that they are decomposed together.

    Counts are left as they are: multiplying them, as is often done to bring maps to the same
    level, would make them something else than Poisson. The factor is kept as a relative exposure.

    Parameters
    ----------
    maps : sequence of Dataset
        With ``counts``; equal energy axes and equal numbers of pixels along x. A map that is
        itself stacked contributes all its areas.
    exposure : sequence of float, optional
        Relative exposure of each map: 1/1.2 for one to be brought up by 1.2. By default what
        the maps say, else 1.
    labels : sequence of str, optional
        Name of each map; by default its title, else its number.

    Returns
    -------
    Dataset
        With ``counts``, ``exposure`` and the coordinate ``area``; with ``measured`` where a map has
        it. ``image`` has every detector of any map, as float32 with NaN in the areas that were
        recorded without it. `unstack` is the inverse.

    Raises
    ------
    ParameterError
        If the number of exposures or labels differs from that of maps, or an exposure is not
        positive.
    SchemaError
        If the maps do not fit together.
    """
    if not maps:
        raise ParameterError("no map to stack")
    for name, values in (("exposure", exposure), ("labels", labels)):
        if values is not None and len(values) != len(maps):
            raise ParameterError(f"{name}: {len(values)} given for {len(maps)} maps")
    for value in exposure or ():
        if not (np.isfinite(value) and value > 0):
            raise ParameterError(f"exposure {value} must be a positive number")
    for ds in maps:
        validate(ds, COUNTS)
    _check_fit(maps)
    incomplete = any(MEASURED.name in ds for ds in maps)
    detectors = list(
        dict.fromkeys(name for ds in maps if IMAGE.name in ds for name in ds[DIM_DETECTOR].values)
    )

    parts: list[xr.Dataset] = []
    area: list[np.ndarray] = []
    names: list[str] = []
    shifts: list[float] = []
    next_y = float(maps[0][DIM_Y].values[0])
    for number, ds in enumerate(maps):
        positions = ds[DIM_Y].values
        step = float(positions[1] - positions[0]) if positions.size > 1 else 1.0
        own_area, own_names, own_shifts = _areas_of(
            ds, labels[number] if labels is not None else ds.attrs.get("title", "")
        )
        area.append(own_area + len(names))
        names += [name or str(len(names) + i + 1) for i, name in enumerate(own_names)]
        shift = next_y - float(positions[0])
        shifts += [own + shift for own in own_shifts]
        part = ds[[COUNTS.name]].drop_vars(COORD_AREA, errors="ignore")
        part = part.assign_coords({DIM_Y: (DIM_Y, positions + shift)})
        next_y = float(part[DIM_Y].values[-1]) + step
        part[EXPOSURE.name] = _exposure_of(ds, None if exposure is None else exposure[number])
        if incomplete:
            part[MEASURED.name] = MEASURED.array(measured_pixels(ds).astype(np.int8))
        if detectors:
            part[IMAGE.name] = _images_of(ds, detectors)
        # The axes agree within the tolerance checked above; alignment must not split hairs.
        shared = {dim: maps[0][dim] for dim in (DIM_X, DIM_ENERGY)}
        parts.append(part.assign_coords(shared))

    stacked = xr.concat(parts, dim=DIM_Y, join="override", combine_attrs="override")
    stacked[COUNTS.name].attrs = COUNTS.array(np.zeros((1, 1, 1))).attrs
    stacked[DIM_Y].attrs = maps[0][DIM_Y].attrs
    stacked = stacked.assign_coords(
        {
            COORD_AREA: (
                DIM_Y,
                np.concatenate(area).astype(np.int32),
                {"long_name": "stacked map", "area_label": names, "area_shift": shifts},
            )
        }
    )
    stacked.attrs = _collect_attrs(maps)
    return add_history(stacked, f"stack maps={len(maps)}") if len(maps) > 1 else stacked


def unstack(ds: xr.Dataset) -> list[xr.Dataset]:
    """Inverse of `stack`: one Dataset per area, in order, with its own y coordinate."""
    validate(ds, COUNTS)
    if COORD_AREA not in ds.coords:
        return [ds]
    coord = ds[COORD_AREA]
    names = coord.attrs.get("area_label", [])
    shifts = coord.attrs.get("area_shift", [])
    maps = []
    for number in np.unique(coord.values):
        rows = np.flatnonzero(coord.values == number)
        part = ds.isel({DIM_Y: slice(int(rows[0]), int(rows[-1]) + 1)}).drop_vars(COORD_AREA)
        if number <= len(names):
            part = part.assign_attrs(title=names[number - 1])
        if number <= len(shifts):
            own_y = part[DIM_Y] - shifts[number - 1]
            part = part.assign_coords({DIM_Y: own_y.assign_attrs(ds[DIM_Y].attrs)})
        maps.append(drop_needless(part))
    return maps


def _areas_of(ds: xr.Dataset, label: str) -> tuple[np.ndarray, list[str], list[float]]:
    """Area numbers from 1 per row, names and shifts along y of the areas a map consists of."""
    if COORD_AREA not in ds.coords:
        return np.ones(ds.sizes[DIM_Y], int), [label], [0.0]
    # Cropping may have left only some of the areas that are named.
    numbers, area = np.unique(ds[COORD_AREA].values, return_inverse=True)
    names = ds[COORD_AREA].attrs.get("area_label", [])
    shifts = ds[COORD_AREA].attrs.get("area_shift", [])
    return (
        area + 1,
        [names[n - 1] if n <= len(names) else "" for n in numbers],
        [float(shifts[n - 1]) if n <= len(shifts) else 0.0 for n in numbers],
    )


def _exposure_of(ds: xr.Dataset, value: float | None) -> xr.DataArray:
    if value is None and EXPOSURE.name in ds:
        return EXPOSURE.array(ds[EXPOSURE.name].data)
    shape = (ds.sizes[DIM_Y], ds.sizes[DIM_X])
    return EXPOSURE.array(np.full(shape, 1.0 if value is None else value, np.float32))


def _images_of(ds: xr.Dataset, detectors: Sequence[str]) -> xr.DataArray:
    """Images of these detectors, NaN where the map has none."""
    if IMAGE.name in ds:
        images = ds[IMAGE.name].drop_vars((DIM_Y, DIM_X, COORD_AREA), errors="ignore")
        if set(detectors) - set(images[DIM_DETECTOR].values):
            images = images.astype(np.float32)
        return images.reindex({DIM_DETECTOR: detectors})
    shape = (len(detectors), ds.sizes[DIM_Y], ds.sizes[DIM_X])
    images = IMAGE.array(np.full(shape, np.nan, np.float32))
    return images.assign_coords({DIM_DETECTOR: (DIM_DETECTOR, detectors)})


def _check_fit(maps: Sequence[xr.Dataset]) -> None:
    first = maps[0]
    energy = first[DIM_ENERGY].values
    width = (energy[-1] - energy[0]) / max(energy.size - 1, 1)
    for number, ds in enumerate(maps[1:], start=2):
        other = ds[DIM_ENERGY].values
        if other.size != energy.size or np.abs(other - energy).max() > 0.1 * width:
            raise SchemaError(
                f"map {number} has {other.size} channels from {other[0]:.4g} to {other[-1]:.4g} "
                f"keV, map 1 has {energy.size} from {energy[0]:.4g} to {energy[-1]:.4g}; crop or "
                "rebin them to the same axis"
            )
        if ds.sizes[DIM_X] != first.sizes[DIM_X]:
            raise SchemaError(
                f"map {number} is {ds.sizes[DIM_X]} pixels wide, map 1 {first.sizes[DIM_X]}; "
                "crop x so that they agree"
            )
        if first.sizes[DIM_X] > 1:
            ours, theirs = (np.diff(m[DIM_X].values[:2])[0] for m in (first, ds))
            if abs(ours - theirs) > 0.01 * abs(ours) or (
                ds[DIM_X].attrs.get("units") != first[DIM_X].attrs.get("units")
            ):
                warn(
                    f"Map {number} has pixels of {theirs:.4g} {ds[DIM_X].attrs.get('units', '')}, "
                    f"map 1 of {ours:.4g} {first[DIM_X].attrs.get('units', '')}",
                    "the stack has those of map 1: at% are right, lengths in other maps are not",
                    rank=Rank.NOTE,
                )


def _collect_attrs(maps: Sequence[xr.Dataset]) -> dict[str, object]:
    attrs = dict(maps[0].attrs)
    if len(maps) == 1:
        return attrs
    for name in _COLLECTED:
        values = [str(ds.attrs[name]) for ds in maps if name in ds.attrs]
        if values:
            attrs[name] = "; ".join(values)
    elements = [symbol for ds in maps for symbol in ds.attrs.get("elements", [])]
    if elements:
        attrs["elements"] = list(dict.fromkeys(elements))
    originals = [json.loads(ds.attrs.get("original_metadata", "null")) for ds in maps]
    if any(original is not None for original in originals):
        attrs["original_metadata"] = json.dumps(originals)
    return attrs
