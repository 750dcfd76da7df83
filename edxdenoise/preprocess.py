"""From counts as measured to what is decomposed: crop, rebin, stack, weight.

Weights make the noise that PCA sees the same everywhere. Reference: M. R. Keenan and P. G. Kotula,
Surf. Interface Anal. 36 (2004) 203-212, doi 10.1002/sia.1657, eqs. 5-7. With counts X (pixel i,
channel j), g_i the root of the pixel's total and h_j the root of the channel's total, the weighted
data are D = X / (g_i h_j). HyperSpy's ``normalize_poissonian_noise`` does the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.blocks import (
    Block,
    SparseBlock,
    channel_totals,
    mapped,
    pixel_totals,
    stored_counts,
)
from edxdenoise.config import WEIGHTINGS
from edxdenoise.cube import add_history, drop_needless, measured_pixels, smallest_count_dtype
from edxdenoise.errors import DataError, ParameterError, Rank, SchemaError, warn


def crop(
    ds: xr.Dataset,
    *,
    energy: tuple[float | None, float | None] | None = None,
    y: tuple[int | None, int | None] | None = None,
    x: tuple[int | None, int | None] | None = None,
) -> xr.Dataset:
    """Keep the channels and pixels inside the ranges given.

    What is outside is lost; inside, nothing changes. Images recorded with the counts are cropped
    along.

    Parameters
    ----------
    ds : Dataset
        With ``counts``.
    energy : (low, high), optional
        In keV: channels with low <= centre < high are kept, as by HyperSpy's ``isig``.
        None for an open end.
    y, x : (first, end), optional
        Pixel numbers as Python counts them, from 0, `end` not included; negative ones count
        from the end.

    Raises
    ------
    ParameterError
        If nothing would be left.

    Examples
    --------
    >>> crop(ds, energy=(0.1, 13.0), y=(0, 100))  # doctest: +SKIP
    """
    v.validate(ds, v.COUNTS)
    steps = []
    if energy is not None:
        low, high = energy
        centres = ds[v.DIM_ENERGY].values
        inside = np.ones(centres.size, bool)
        # Centres come from offset + i * width: a limit that names a channel must not miss it by
        # the last bit.
        slack = 1e-6 * np.ptp(centres) / max(centres.size - 1, 1)
        if low is not None:
            inside &= centres >= low - slack
        if high is not None:
            inside &= centres < high - slack
        if not inside.any():
            raise ParameterError(
                f"energy {_range(low, high)} keV leaves no channel; the axis runs from "
                f"{centres[0]:.4g} to {centres[-1]:.4g} keV"
            )
        first, last = np.flatnonzero(inside)[[0, -1]]
        ds = ds.isel({v.DIM_ENERGY: slice(int(first), int(last) + 1)})
        steps.append(f"energy={_range(low, high)}")
    for dim, limits in ((v.DIM_Y, y), (v.DIM_X, x)):
        if limits is None:
            continue
        size = ds.sizes[dim]
        if len(range(*slice(*limits).indices(size))) == 0:
            raise ParameterError(
                f"crop {dim} {_range(*limits)} leaves no pixel; the map has {size} along {dim}"
            )
        ds = ds.isel({dim: slice(*limits)})
        steps.append(f"{dim}={_range(*limits)}")
    return add_history(drop_needless(ds), "crop " + " ".join(steps)) if steps else ds


def _range(low: float | None, high: float | None) -> str:
    return f"{'' if low is None else low}:{'' if high is None else high}"


_DIMS = (v.DIM_Y, v.DIM_X, v.DIM_ENERGY)


def rebin_counts(counts: np.ndarray, factors: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Sum blocks of ``factors`` elements of an array whose shape they divide.

    One axis at a time and one offset at a time: NumPy adds long strided slices several times
    faster than it sums over short axes.

    Examples
    --------
    >>> rebin_counts(np.arange(6, dtype=np.uint8).reshape(1, 1, 6), (1, 1, 3), np.uint16)
    array([[[ 3, 12]]], dtype=uint16)
    """
    for axis, factor in enumerate(factors):
        if factor == 1:
            continue
        index: list[slice] = [slice(None)] * counts.ndim
        index[axis] = slice(0, None, factor)
        total = counts[tuple(index)].astype(dtype)
        for offset in range(1, factor):
            index[axis] = slice(offset, None, factor)
            total += counts[tuple(index)]
        counts = total
    return counts.astype(dtype, copy=False)


def _sum_dtype(dtype: np.dtype, terms: int) -> np.dtype:
    """Type that holds the sum of `terms` numbers of type `dtype`.

    Examples
    --------
    >>> _sum_dtype(np.dtype("u1"), 4), _sum_dtype(np.dtype("i2"), 4), _sum_dtype(np.dtype("f4"), 4)
    (dtype('uint16'), dtype('int64'), dtype('float32'))
    """
    if dtype.kind == "u":
        # No measurement has 2^64 counts, whatever the type says.
        return smallest_count_dtype(min(np.iinfo(dtype).max * terms, np.iinfo(np.uint64).max))
    return np.dtype(np.int64) if dtype.kind == "i" else dtype


def rebin(ds: xr.Dataset, *, energy: int = 1, xy: int = 1) -> xr.Dataset:
    """Sum `energy` neighbouring channels and `xy` by `xy` neighbouring pixels.

    Counts are summed, never averaged, so that they stay Poisson and their total is kept;
    coordinates are the means of those summed. Stacked areas are rebinned one by one: no pixel
    holds counts of two areas. Channels or pixels at the end that do not fill a bin are dropped,
    with a warning. Kept with ``counts`` are ``exposure`` and ``image``, averaged, and ``measured``:
    a bin was measured where any of its pixels was, and its exposure is the less the fewer were.

    Parameters
    ----------
    ds : Dataset
        With ``counts``.
    energy, xy : int
        Number of channels, and of pixels along either side, that make one.

    Raises
    ------
    ParameterError
        If a factor is below 1 or above the number of channels or pixels.
    """
    v.validate(ds, v.COUNTS)
    factors = (xy, xy, energy)
    if factors == (1, 1, 1):
        return ds
    if xy > 1 and v.COORD_AREA in ds.coords and np.ptp(ds[v.COORD_AREA].values) > 0:
        areas = [rebin(area, energy=energy, xy=xy) for area in unstack(ds)]
        stacked = stack(areas).assign_attrs(ds.attrs)
        stacked.attrs["history"] = areas[0].attrs["history"]
        return stacked
    sizes = {dim: ds.sizes[dim] for dim in _DIMS}
    for dim, factor in zip(_DIMS, factors):
        if not 1 <= factor <= sizes[dim]:
            raise ParameterError(
                f"rebin factor {factor} along {dim} must be from 1 to {sizes[dim]}, its size"
            )
        rest = sizes[dim] % factor
        if rest:
            warn(
                f"Rebin by {factor} along {dim}: the last {rest} of {sizes[dim]} do not fill a bin",
                "they are dropped",
                "crop to choose which",
                rank=Rank.NOTE,
            )
    trimmed = ds.isel({dim: slice(0, n - n % f) for (dim, n), f in zip(sizes.items(), factors)})

    counts = trimmed[v.COUNTS].data
    dtype = _sum_dtype(counts.dtype, xy * xy * energy)
    if isinstance(counts, da.Array):
        aligned = counts.rechunk(
            {
                axis: max(factor, counts.chunksize[axis] // factor * factor)
                for axis, factor in enumerate(factors)
            }
        )
        chunks = tuple(
            tuple(size // factor for size in sizes)
            for sizes, factor in zip(aligned.chunks, factors)
        )
        summed = da.map_blocks(rebin_counts, aligned, factors, dtype, chunks=chunks, dtype=dtype)
    else:
        summed = rebin_counts(counts, factors, dtype)
        if summed.dtype.kind == "u":
            summed = summed.astype(smallest_count_dtype(int(summed.max(initial=0))), copy=False)

    coarse = {dim: factor for dim, factor in zip(_DIMS, factors)}
    coords = {}
    for dim, factor in coarse.items():
        centre = trimmed[dim].values.reshape(-1, factor).mean(axis=1)
        coords[dim] = (dim, centre, trimmed[dim].attrs)
    result = xr.Dataset({v.COUNTS: v.COUNTS.array(summed)}, coords=coords, attrs=ds.attrs)
    if v.COORD_AREA in trimmed.coords:
        area = trimmed[v.COORD_AREA]
        result = result.assign_coords({v.COORD_AREA: (v.DIM_Y, area.values[::xy], area.attrs)})
    bins = {v.DIM_Y: xy, v.DIM_X: xy}
    if v.MEASURED in trimmed:
        measured = trimmed[v.MEASURED]
        result[v.MEASURED] = v.MEASURED.array(measured.coarsen(bins).max().data)
        exposure = trimmed[v.EXPOSURE] if v.EXPOSURE in trimmed else np.float32(1)
        trimmed = trimmed.assign({v.EXPOSURE: measured * exposure})
    if v.EXPOSURE in trimmed:
        result[v.EXPOSURE] = v.EXPOSURE.array(trimmed[v.EXPOSURE].coarsen(bins).mean().data)
    if v.IMAGE in trimmed:
        image = trimmed[v.IMAGE]
        if xy > 1:
            image = image.astype(np.float32).coarsen(bins).mean()
        result[v.IMAGE] = v.IMAGE.array(image.data).assign_coords(
            {v.DIM_DETECTOR: trimmed[v.DIM_DETECTOR]}
        )
    return add_history(drop_needless(result), f"rebin energy={energy} xy={xy}")


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
        v.validate(ds, v.COUNTS)
    _check_fit(maps)
    incomplete = any(v.MEASURED in ds for ds in maps)
    detectors = list(
        dict.fromkeys(name for ds in maps if v.IMAGE in ds for name in ds[v.DIM_DETECTOR].values)
    )

    parts: list[xr.Dataset] = []
    area: list[np.ndarray] = []
    names: list[str] = []
    shifts: list[float] = []
    next_y = float(maps[0][v.DIM_Y].values[0])
    for number, ds in enumerate(maps):
        positions = ds[v.DIM_Y].values
        step = float(positions[1] - positions[0]) if positions.size > 1 else 1.0
        own_area, own_names, own_shifts = _areas_of(
            ds, labels[number] if labels is not None else ds.attrs.get("title", "")
        )
        area.append(own_area + len(names))
        names += [name or str(len(names) + i + 1) for i, name in enumerate(own_names)]
        shift = next_y - float(positions[0])
        shifts += [own + shift for own in own_shifts]
        part = ds[[v.COUNTS]].drop_vars(v.COORD_AREA, errors="ignore")
        part = part.assign_coords({v.DIM_Y: (v.DIM_Y, positions + shift)})
        next_y = float(part[v.DIM_Y].values[-1]) + step
        part[v.EXPOSURE] = _exposure_of(ds, None if exposure is None else exposure[number])
        if incomplete:
            part[v.MEASURED] = v.MEASURED.array(measured_pixels(ds).astype(np.int8))
        if detectors:
            part[v.IMAGE] = _images_of(ds, detectors)
        # The axes agree within the tolerance checked above; alignment must not split hairs.
        shared = {dim: maps[0][dim] for dim in (v.DIM_X, v.DIM_ENERGY)}
        parts.append(part.assign_coords(shared))

    stacked = xr.concat(parts, dim=v.DIM_Y, join="override", combine_attrs="override")
    stacked[v.COUNTS].attrs = v.COUNTS.array(np.zeros((1, 1, 1))).attrs
    stacked[v.DIM_Y].attrs = maps[0][v.DIM_Y].attrs
    stacked = stacked.assign_coords(
        {
            v.COORD_AREA: (
                v.DIM_Y,
                np.concatenate(area).astype(np.int32),
                {"long_name": "stacked map", "area_label": names, "area_shift": shifts},
            )
        }
    )
    stacked.attrs = _collect_attrs(maps)
    return add_history(stacked, f"stack maps={len(maps)}") if len(maps) > 1 else stacked


def unstack(ds: xr.Dataset) -> list[xr.Dataset]:
    """Inverse of `stack`: one Dataset per area, in order, with its own y coordinate."""
    v.validate(ds, v.COUNTS)
    if v.COORD_AREA not in ds.coords:
        return [ds]
    coord = ds[v.COORD_AREA]
    names = coord.attrs.get("area_label", [])
    shifts = coord.attrs.get("area_shift", [])
    maps = []
    for number in np.unique(coord.values):
        rows = np.flatnonzero(coord.values == number)
        part = ds.isel({v.DIM_Y: slice(int(rows[0]), int(rows[-1]) + 1)}).drop_vars(v.COORD_AREA)
        if number <= len(names):
            part = part.assign_attrs(title=names[number - 1])
        if number <= len(shifts):
            own_y = part[v.DIM_Y] - shifts[number - 1]
            part = part.assign_coords({v.DIM_Y: own_y.assign_attrs(ds[v.DIM_Y].attrs)})
        maps.append(drop_needless(part))
    return maps


def _areas_of(ds: xr.Dataset, label: str) -> tuple[np.ndarray, list[str], list[float]]:
    """Area numbers from 1 per row, names and shifts along y of the areas a map consists of."""
    if v.COORD_AREA not in ds.coords:
        return np.ones(ds.sizes[v.DIM_Y], int), [label], [0.0]
    # Cropping may have left only some of the areas that are named.
    numbers, area = np.unique(ds[v.COORD_AREA].values, return_inverse=True)
    names = ds[v.COORD_AREA].attrs.get("area_label", [])
    shifts = ds[v.COORD_AREA].attrs.get("area_shift", [])
    return (
        area + 1,
        [names[n - 1] if n <= len(names) else "" for n in numbers],
        [float(shifts[n - 1]) if n <= len(shifts) else 0.0 for n in numbers],
    )


def _exposure_of(ds: xr.Dataset, value: float | None) -> xr.DataArray:
    if value is None and v.EXPOSURE in ds:
        return v.EXPOSURE.array(ds[v.EXPOSURE].data)
    shape = (ds.sizes[v.DIM_Y], ds.sizes[v.DIM_X])
    return v.EXPOSURE.array(np.full(shape, 1.0 if value is None else value, np.float32))


def _images_of(ds: xr.Dataset, detectors: Sequence[str]) -> xr.DataArray:
    """Images of these detectors, NaN where the map has none."""
    if v.IMAGE in ds:
        images = ds[v.IMAGE].drop_vars((v.DIM_Y, v.DIM_X, v.COORD_AREA), errors="ignore")
        if set(detectors) - set(images[v.DIM_DETECTOR].values):
            images = images.astype(np.float32)
        return images.reindex({v.DIM_DETECTOR: detectors})
    shape = (len(detectors), ds.sizes[v.DIM_Y], ds.sizes[v.DIM_X])
    images = v.IMAGE.array(np.full(shape, np.nan, np.float32))
    return images.assign_coords({v.DIM_DETECTOR: (v.DIM_DETECTOR, detectors)})


def _check_fit(maps: Sequence[xr.Dataset]) -> None:
    first = maps[0]
    energy = first[v.DIM_ENERGY].values
    width = (energy[-1] - energy[0]) / max(energy.size - 1, 1)
    for number, ds in enumerate(maps[1:], start=2):
        other = ds[v.DIM_ENERGY].values
        if other.size != energy.size or np.abs(other - energy).max() > 0.1 * width:
            raise SchemaError(
                f"map {number} has {other.size} channels from {other[0]:.4g} to {other[-1]:.4g} "
                f"keV, map 1 has {energy.size} from {energy[0]:.4g} to {energy[-1]:.4g}; crop or "
                "rebin them to the same axis"
            )
        if ds.sizes[v.DIM_X] != first.sizes[v.DIM_X]:
            raise SchemaError(
                f"map {number} is {ds.sizes[v.DIM_X]} pixels wide, map 1 {first.sizes[v.DIM_X]}; "
                "crop x so that they agree"
            )
        if first.sizes[v.DIM_X] > 1:
            ours, theirs = (np.diff(m[v.DIM_X].values[:2])[0] for m in (first, ds))
            our_unit, their_unit = (m[v.DIM_X].attrs.get("units", "") for m in (first, ds))
            if abs(ours - theirs) > 0.01 * abs(ours) or their_unit != our_unit:
                warn(
                    f"Map {number} has pixels of {theirs:.4g} {their_unit}, map 1 of {ours:.4g} "
                    f"{our_unit}",
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


def weight(
    ds: xr.Dataset,
    *,
    weighting: str = "poisson",
    totals: tuple[np.ndarray, np.ndarray] | None = None,
) -> xr.Dataset:
    """Add ``weight_pixel`` (g) and ``weight_energy`` (h); the counts stay as they are.

    Parameters
    ----------
    ds : Dataset
        With ``counts``.
    weighting : {"poisson", "none"}
        ``none`` sets all weights to 1.
    totals : (array, array), optional
        Counts of every pixel, shape (y, x), and of every channel, where they are known: the counts
        are not read.

    Returns
    -------
    Dataset
        With ``pixel_counts`` and ``sum_spectrum`` too, which say what is empty: an empty pixel or
        channel is divided by 1. Totals in memory are checked as `check_weights` does.

    Raises
    ------
    ParameterError
        If the weighting is unknown.
    """
    v.validate(ds, v.COUNTS)
    if weighting not in WEIGHTINGS:
        raise ParameterError(f"weighting '{weighting}' must be one of {', '.join(WEIGHTINGS)}")
    counts = ds[v.COUNTS].data
    if totals is None:
        if counts.dtype.kind != "u" and weighting == "poisson":
            counts = _refused(counts)
        # 64 bits: the counts themselves are kept in types that a sum overflows.
        wide = np.uint64 if counts.dtype.kind == "u" else np.float64
        pixels, channels = pixel_totals(counts, wide), channel_totals(counts, wide)
    else:
        pixels, channels = totals
    root = _root if weighting == "poisson" else _one
    pixel, energy = (root(each) for each in (pixels, channels))
    result = ds.assign(
        {
            v.PIXEL_COUNTS: v.PIXEL_COUNTS.array(pixels),
            v.SUM_SPECTRUM: v.SUM_SPECTRUM.array(channels),
            v.WEIGHT_PIXEL: v.WEIGHT_PIXEL.array(pixel).assign_attrs({v.WEIGHTING: weighting}),
            v.WEIGHT_ENERGY: v.WEIGHT_ENERGY.array(energy),
        }
    )
    if weighting == "poisson" and isinstance(channels, np.ndarray):
        check_weights(result)
    return add_history(result, f"weight weighting={weighting}")


def _refused(counts: np.ndarray | da.Array) -> Any:
    """A negative count must show in the totals, however many others make up for it."""
    if isinstance(counts, da.Array):
        return mapped(_refused_block, counts, dtype=np.dtype(float))
    return _refused_block(counts)


def _refused_block(block: Block) -> Block:
    counts = stored_counts(block)
    marked = np.where(counts < 0, np.nan, counts)
    if isinstance(block, SparseBlock):
        return block.with_counts(marked)
    return marked.reshape(block.shape)


def check_weights(ds: xr.Dataset) -> None:
    """Check counts by their sums, so that it costs no pass over them.

    Raises
    ------
    DataError
        If a count is negative or not finite, or there are no counts at all.
    """
    v.validate(ds, v.PIXEL_COUNTS, v.SUM_SPECTRUM)
    for spec, what in ((v.PIXEL_COUNTS, "pixels"), (v.SUM_SPECTRUM, "channels")):
        sums = ds[spec].values
        if not np.isfinite(sums).all():
            raise DataError(
                f"{np.count_nonzero(~np.isfinite(sums))} {what} hold negative or missing values; "
                "counts must be numbers from 0 up"
            )
        if not sums.any():
            raise DataError("there are no counts at all: every pixel and every channel is empty")


def _one(total: np.ndarray | da.Array) -> np.ndarray | da.Array:
    """The weight of unweighted data."""
    if isinstance(total, da.Array):
        return da.ones_like(total, dtype=np.float64)
    return np.ones(total.shape)


def _root(total: np.ndarray | da.Array) -> np.ndarray | da.Array:
    """Root of totals; 1, which nothing is changed by, where there is nothing."""
    if isinstance(total, da.Array):
        return da.map_blocks(_root, total, dtype=np.float64)
    root = np.sqrt(total.astype(np.float64))
    return np.where(root == 0, 1.0, root)
