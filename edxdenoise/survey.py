"""One pass over the counts before anything is done with them, and checks of what it finds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import dask.array as da
import numpy as np
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.blocks import (
    Block,
    channel_totals,
    compact_blocks,
    compute,
    known_sparse,
    pixel_totals,
    recast,
    stored_counts,
)
from edxdenoise.cube import is_lazy, smallest_count_dtype
from edxdenoise.errors import DataError, Rank, warn

# Energies in keV below which counts are the detector's strobe peak and electronic noise.
_ZERO_PEAK = 0.1
# Share of counts there of which the user is told.
_ZERO_PEAK_SHARE = 0.02
# What `survey_block` finds.
_NUMBERS = 4


@dataclass(frozen=True)
class Survey:
    """Counts of a map as a whole.

    Parameters
    ----------
    total, zero_peak : float
        Sum of all counts, and of those below 0.1 keV.
    smallest, largest : float
        Among all channels of all pixels; NaN where there is one.
    whole : bool
        Whether all are whole numbers.
    empty_pixels : int
        Pixels without a count.
    filled : int
        Channels of pixels that hold counts, over the whole map.
    pixels : array, shape (y, x)
        Counts of every pixel, over all channels.
    channels : array, shape (energy,)
        Counts of every channel, over all pixels.
    """

    total: float
    zero_peak: float
    smallest: float
    largest: float
    whole: bool
    empty_pixels: int
    filled: int
    pixels: np.ndarray
    channels: np.ndarray


def survey(ds: xr.Dataset) -> Survey:
    """Look at all counts once, block by block."""
    v.validate(ds, v.COUNTS)
    counts = da.asarray(ds[v.COUNTS].data)
    numbers = da.blockwise(
        survey_block,
        "yxn",
        compact_blocks(counts),
        "yx",
        new_axes={"n": _NUMBERS},
        adjust_chunks={"y": 1, "x": 1},
        dtype=np.float64,
    )
    wide = np.uint64 if counts.dtype.kind == "u" else np.float64
    found, pixels, channels = compute(
        numbers, pixel_totals(counts, wide), channel_totals(counts, wide)
    )
    return Survey(
        total=float(channels.sum()),
        zero_peak=float(channels[ds[v.DIM_ENERGY].values < _ZERO_PEAK].sum()),
        smallest=float(found[..., 0].min()),
        largest=float(found[..., 1].max()),
        whole=bool(found[..., 2].all()),
        empty_pixels=int((pixels == 0).sum()),
        filled=int(found[..., 3].sum()),
        pixels=pixels,
        channels=channels,
    )


def survey_block(counts: Block) -> np.ndarray:
    """Smallest and largest count of a block, whether all are whole, and filled cells, (1, 1, 4)."""
    values = stored_counts(counts)
    # Cells that are not stored hold 0.
    ends = [values.min(), values.max()] if values.size else [0.0, 0.0]
    if values.size < math.prod(counts.shape):
        ends = [np.minimum(ends[0], 0), np.maximum(ends[1], 0)]
    numbers = [
        *ends,
        values.dtype.kind in "ui" or (values == np.trunc(values)).all(),
        np.count_nonzero(values),
    ]
    return np.array(numbers, np.float64).reshape(1, 1, _NUMBERS)


def check_survey(found: Survey, *, name: str) -> None:
    """Check that the counts are finite, not negative and not all zero.

    Raises
    ------
    DataError
        Naming `name`, the file or data, and what to do.
    """
    if not np.isfinite([found.total, found.smallest]).all():
        raise DataError(
            f"'{name}' holds NaN or infinite numbers, counts must be finite; replace or crop them"
        )
    if found.smallest < 0:
        raise DataError(
            f"'{name}' holds negative numbers, counts must be 0 or more; use the raw counts, "
            "without background subtraction"
        )
    if found.total == 0:
        raise DataError(
            f"'{name}' holds no counts at all: a line scan read as a map, or an empty "
            "measurement; use another file"
        )


def warn_zero_peak(found: Survey) -> None:
    """Warn of counts that are no X-rays."""
    if _ZERO_PEAK_SHARE * found.total < found.zero_peak < found.total:
        warn(
            f"{found.zero_peak / found.total:.0%} of the counts are below {_ZERO_PEAK} keV, in the "
            "detector's zero peak",
            "they are no X-rays, but take part in weights and components",
            f"cut them off with --energy {_ZERO_PEAK}:",
            rank=Rank.WORSE,
        )


def with_density(ds: xr.Dataset, found: Survey) -> xr.Dataset:
    """Lazy counts that know whether they are nearly empty as a whole."""
    counts = ds[v.COUNTS]
    if not is_lazy(ds):
        return ds
    return ds.assign({v.COUNTS: counts.copy(data=known_sparse(counts.data, found.filled))})


def with_totals(ds: xr.Dataset, found: Survey) -> xr.Dataset:
    """Add the counts of every pixel and of every channel."""
    pixels, channels = v.PIXEL_COUNTS.array(found.pixels), v.SUM_SPECTRUM.array(found.channels)
    return ds.assign({v.PIXEL_COUNTS: pixels, v.SUM_SPECTRUM: channels})


def shrink_dtype(ds: xr.Dataset, found: Survey) -> xr.Dataset:
    """Whole counts in the smallest type that holds them, however they were stored; lazy."""
    counts = ds[v.COUNTS]
    if not found.whole or found.smallest < 0:
        return ds
    dtype = smallest_count_dtype(int(found.largest))
    if counts.dtype == dtype:
        return ds
    return ds.assign({v.COUNTS: counts.copy(data=recast(counts.data, dtype))})
