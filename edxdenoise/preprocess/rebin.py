"""Sum neighbouring channels and pixels."""

from __future__ import annotations

import dask.array as da
import numpy as np
import xarray as xr

from edxdenoise.cube import add_history, drop_needless, smallest_count_dtype
from edxdenoise.errors import ParameterError, Rank, warn
from edxdenoise.preprocess.stack import stack, unstack
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

_DIMS = (DIM_Y, DIM_X, DIM_ENERGY)


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
    validate(ds, COUNTS)
    factors = (xy, xy, energy)
    if factors == (1, 1, 1):
        return ds
    if xy > 1 and COORD_AREA in ds.coords and np.ptp(ds[COORD_AREA].values) > 0:
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

    counts = trimmed[COUNTS.name].data
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
    result = xr.Dataset({COUNTS.name: COUNTS.array(summed)}, coords=coords, attrs=ds.attrs)
    if COORD_AREA in trimmed.coords:
        area = trimmed[COORD_AREA]
        result = result.assign_coords({COORD_AREA: (DIM_Y, area.values[::xy], area.attrs)})
    bins = {DIM_Y: xy, DIM_X: xy}
    if MEASURED.name in trimmed:
        measured = trimmed[MEASURED.name]
        result[MEASURED.name] = MEASURED.array(measured.coarsen(bins).max().data)
        exposure = trimmed[EXPOSURE.name] if EXPOSURE.name in trimmed else np.float32(1)
        trimmed = trimmed.assign({EXPOSURE.name: measured * exposure})
    if EXPOSURE.name in trimmed:
        result[EXPOSURE.name] = EXPOSURE.array(trimmed[EXPOSURE.name].coarsen(bins).mean().data)
    if IMAGE.name in trimmed:
        image = trimmed[IMAGE.name]
        if xy > 1:
            image = image.astype(np.float32).coarsen(bins).mean()
        result[IMAGE.name] = IMAGE.array(image.data).assign_coords(
            {DIM_DETECTOR: trimmed[DIM_DETECTOR]}
        )
    return add_history(drop_needless(result), f"rebin energy={energy} xy={xy}")
