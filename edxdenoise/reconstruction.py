"""From kept components back to counts: undo the weighting and add the mean."""

from __future__ import annotations

import dask.array as da
import numpy as np
import xarray as xr

from edxdenoise.compute import as_blocks
from edxdenoise.cube import add_history, kept_maps
from edxdenoise.schema import (
    COMPONENT_KEEP,
    COMPONENT_MAP,
    COMPONENT_SPECTRUM,
    COUNTS,
    COUNTS_DENOISED,
    MEAN_SPECTRUM,
    WEIGHT_ENERGY,
    WEIGHT_PIXEL,
    validate,
)

# All that the denoised counts follow from.
REBUILT_FROM = (
    COUNTS,
    COMPONENT_MAP,
    COMPONENT_SPECTRUM,
    COMPONENT_KEEP,
    MEAN_SPECTRUM,
    WEIGHT_PIXEL,
    WEIGHT_ENERGY,
)


def rebuild_block(
    maps: np.ndarray, weight_pixel: np.ndarray, spectra: np.ndarray, mean: np.ndarray
) -> np.ndarray:
    """g (mean + sum of map * spectrum) of one block, shape (y, x, energy), float32.

    `spectra` and `mean` have the channel weight in them already.
    """
    scores = maps.reshape(len(maps), -1).T
    rows = scores @ spectra
    rows += mean
    rows *= weight_pixel.reshape(-1, 1)
    return rows.reshape(*maps.shape[1:], -1)


def kept_spectra(
    ds: xr.Dataset,
) -> tuple[np.ndarray | da.Array, np.ndarray | da.Array]:
    """Spectra of the components kept and the mean, with the channel weight in them."""
    kept = np.flatnonzero(ds[COMPONENT_KEEP.name].values)
    h = ds[WEIGHT_ENERGY.name].data
    return ds[COMPONENT_SPECTRUM.name].data[kept] * h, ds[MEAN_SPECTRUM.name].data * h


def reconstruct(ds: xr.Dataset) -> xr.Dataset:
    """Rebuild the cube from the components kept.

    ``counts_denoised`` = g h (mean + sum over kept k of map_k spectrum_k), shrunk maps where
    there are: expected counts in the units of the counts measured, so that any quantification
    that takes counts takes them.
    A model that contains component 1 keeps the total of every pixel and of every channel, unless
    totals were shrunk.

    Parameters
    ----------
    ds : Dataset
        With ``counts``, ``component_map``, ``component_spectrum``, ``component_keep``,
        ``mean_spectrum`` and the weights.

    Returns
    -------
    Dataset
        With ``counts_denoised``, float32; lazy where the counts or the maps are, in blocks of
        the counts.
    """
    validate(ds, *REBUILT_FROM)
    maps = kept_maps(ds).data
    spectra, mean = (each.astype(np.float32) for each in kept_spectra(ds))
    g = ds[WEIGHT_PIXEL.name].data.astype(np.float32)
    counts = ds[COUNTS.name].data
    if isinstance(counts, da.Array) or isinstance(maps, da.Array):
        blocks = counts.chunks[:2] if isinstance(counts, da.Array) else maps.chunks[1:]
        if isinstance(maps, da.Array):
            maps = maps.rechunk((-1, *blocks))
        else:
            maps = as_blocks(maps, (-1, *blocks))
        rebuilt = da.blockwise(
            rebuild_block,
            "yxe",
            maps.astype(np.float32),
            "kyx",
            da.asarray(g).rechunk(blocks),
            "yx",
            da.asarray(spectra).rechunk(-1),
            "ke",
            da.asarray(mean).rechunk(-1),
            "e",
            concatenate=True,
            dtype=np.float32,
        )
    else:
        rebuilt = rebuild_block(maps.astype(np.float32), g, spectra, mean)
    result = ds.assign({COUNTS_DENOISED.name: COUNTS_DENOISED.array(rebuilt)})
    return add_history(result, f"reconstruct components={len(spectra)}")
