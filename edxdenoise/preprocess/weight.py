"""Poisson weighting after Keenan & Kotula, so that PCA sees noise of one size everywhere.

Reference: M. R. Keenan and P. G. Kotula, Surf. Interface Anal. 36 (2004) 203-212, doi
10.1002/sia.1657, eqs. 5-7. With counts X (pixel i, channel j), g_i the root of the pixel's total
and h_j the root of the channel's total, the weighted data are D = X / (g_i h_j). HyperSpy's
``normalize_poissonian_noise`` does the same.
"""

from __future__ import annotations

import dask.array as da
import numpy as np
import xarray as xr

from edxdenoise.cube import add_history
from edxdenoise.errors import DataError, ParameterError, Rank, warn
from edxdenoise.methods import WEIGHTINGS
from edxdenoise.schema import COUNTS, WEIGHT_ENERGY, WEIGHT_PIXEL, validate

# A weight is the root of a number of counts n and itself off by 1 / (2 root n): below ten counts
# by more than 16 %, and rare counts then weigh as much as real peaks.
_FEW_COUNTS = 10
# Share of weights that may be so uncertain before the user is told.
_SPARSE_SHARE = 0.2


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
        An empty pixel or channel has weight 1. NumPy counts are checked as `check_weights` does.

    Raises
    ------
    ParameterError
        If the weighting is unknown.
    """
    validate(ds, COUNTS)
    counts = ds[COUNTS.name].data
    if weighting == "poisson":
        if counts.dtype.kind != "u":
            # A negative count must show in the totals, however many others make up for it.
            where = da.where if isinstance(counts, da.Array) else np.where
            counts = where(counts < 0, np.nan, counts)
        # 64 bits: the counts themselves are kept in types that a sum overflows.
        wide = np.uint64 if counts.dtype.kind == "u" else np.float64
        pixel = _root(counts.sum(axis=2, dtype=wide))
        energy = _root(counts.sum(axis=(0, 1), dtype=wide))
    elif weighting == "none":
        ones = da.ones if isinstance(counts, da.Array) else np.ones
        kwargs = {"chunks": counts.chunks[:2]} if isinstance(counts, da.Array) else {}
        pixel = ones(counts.shape[:2], **kwargs)
        energy = np.ones(counts.shape[2])
    else:
        raise ParameterError(f"weighting '{weighting}' must be one of {', '.join(WEIGHTINGS)}")
    result = ds.assign(
        {
            WEIGHT_PIXEL.name: WEIGHT_PIXEL.array(pixel),
            WEIGHT_ENERGY.name: WEIGHT_ENERGY.array(energy),
        }
    )
    if weighting == "poisson" and isinstance(counts, np.ndarray):
        check_weights(result)
    return add_history(result, f"weight weighting={weighting}")


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
    """Check counts by their weights, and warn where they are too few to give weights.

    The weights hold the total of every pixel and channel, so that looking at them costs no pass
    over the counts.

    Raises
    ------
    DataError
        If a count is negative or not finite, or there are no counts at all.
    """
    validate(ds, WEIGHT_PIXEL, WEIGHT_ENERGY)
    shares = []
    for spec, what in ((WEIGHT_PIXEL, "pixels"), (WEIGHT_ENERGY, "channels")):
        root = ds[spec.name].values
        if not np.isfinite(root).all():
            raise DataError(
                f"{np.count_nonzero(~np.isfinite(root))} {what} hold negative or missing values; "
                "counts must be numbers from 0 up"
            )
        few = np.mean(root < np.sqrt(_FEW_COUNTS))
        if few > _SPARSE_SHARE:
            shares.append(f"{few:.0%} of the {what}")
    if all((ds[spec.name].values == 1).all() for spec in (WEIGHT_PIXEL, WEIGHT_ENERGY)):
        raise DataError("there are no counts at all: every pixel and every channel is empty")
    if shares:
        warn(
            f"{' and '.join(shares)} have fewer than {_FEW_COUNTS} counts",
            "Poisson weights are uncertain there and isolated counts are over-weighted",
            "crop with --energy or rebin with --rebin-energy or --rebin-xy",
            rank=Rank.WORSE,
        )


def _root(total: np.ndarray | da.Array) -> np.ndarray | da.Array:
    """Root of totals, 1 where there is nothing."""
    if isinstance(total, da.Array):
        return da.map_blocks(_root, total, dtype=np.float64)
    root = np.sqrt(total.astype(np.float64))
    return np.where(root == 0, 1.0, root)
