"""Poisson weighting after Keenan & Kotula, so that PCA sees noise of one size everywhere.

Reference: M. R. Keenan and P. G. Kotula, Surf. Interface Anal. 36 (2004) 203-212, doi
10.1002/sia.1657, eqs. 5-7. With counts X (pixel i, channel j), g_i the root of the pixel's total
and h_j the root of the channel's total, the weighted data are D = X / (g_i h_j). HyperSpy's
``normalize_poissonian_noise`` does the same.
"""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from edxdenoise.blocks import (
    Block,
    SparseBlock,
    channel_totals,
    mapped,
    pixel_totals,
    stored_counts,
)
from edxdenoise.config import WEIGHTINGS
from edxdenoise.cube import add_history
from edxdenoise.errors import DataError, ParameterError
from edxdenoise.schema import (
    COUNTS,
    PIXEL_COUNTS,
    SUM_SPECTRUM,
    WEIGHT_ENERGY,
    WEIGHT_PIXEL,
    WEIGHTING,
    validate,
)


def weight(ds: xr.Dataset, *, weighting: str = "poisson") -> xr.Dataset:
    """Add ``weight_pixel`` (g) and ``weight_energy`` (h); the counts stay as they are.

    Parameters
    ----------
    ds : Dataset
        With ``counts``.
    weighting : {"poisson", "none"}
        ``none`` sets all weights to 1.

    Returns
    -------
    Dataset
        With ``pixel_counts`` and ``sum_spectrum`` too, which say what is empty: an empty pixel or
        channel is divided by 1. NumPy counts are checked as `check_weights` does.

    Raises
    ------
    ParameterError
        If the weighting is unknown.
    """
    validate(ds, COUNTS)
    if weighting not in WEIGHTINGS:
        raise ParameterError(f"weighting '{weighting}' must be one of {', '.join(WEIGHTINGS)}")
    counts = ds[COUNTS.name].data
    if counts.dtype.kind != "u" and weighting == "poisson":
        counts = _refused(counts)
    # 64 bits: the counts themselves are kept in types that a sum overflows.
    wide = np.uint64 if counts.dtype.kind == "u" else np.float64
    sums = pixel_totals(counts, wide), channel_totals(counts, wide)
    root = _root if weighting == "poisson" else _one
    pixel, energy = (root(each) for each in sums)
    result = ds.assign(
        {
            PIXEL_COUNTS.name: PIXEL_COUNTS.array(sums[0]),
            SUM_SPECTRUM.name: SUM_SPECTRUM.array(sums[1]),
            WEIGHT_PIXEL.name: WEIGHT_PIXEL.array(pixel).assign_attrs({WEIGHTING: weighting}),
            WEIGHT_ENERGY.name: WEIGHT_ENERGY.array(energy),
        }
    )
    if weighting == "poisson" and isinstance(counts, np.ndarray):
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


def weighted(ds: xr.Dataset) -> np.ndarray | da.Array:
    """The weighted data D = X / (g h), shape (y, x, energy), float64; lazy stays lazy."""
    validate(ds, COUNTS, WEIGHT_PIXEL, WEIGHT_ENERGY)
    pixel = ds[WEIGHT_PIXEL.name].data[:, :, np.newaxis]
    return ds[COUNTS.name].data / pixel / ds[WEIGHT_ENERGY.name].data


def unweighted(ds: xr.Dataset, data: np.ndarray | da.Array) -> np.ndarray | da.Array:
    """Inverse of `weighted`: counts from `data`, shape (y, x, energy), in the weighted space."""
    validate(ds, WEIGHT_PIXEL, WEIGHT_ENERGY)
    return data * ds[WEIGHT_PIXEL.name].data[:, :, np.newaxis] * ds[WEIGHT_ENERGY.name].data


def check_weights(ds: xr.Dataset) -> None:
    """Check counts by their sums, so that it costs no pass over them.

    Raises
    ------
    DataError
        If a count is negative or not finite, or there are no counts at all.
    """
    validate(ds, PIXEL_COUNTS, SUM_SPECTRUM)
    for spec, what in ((PIXEL_COUNTS, "pixels"), (SUM_SPECTRUM, "channels")):
        sums = ds[spec.name].values
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
