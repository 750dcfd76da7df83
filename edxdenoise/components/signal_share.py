"""Kept score maps weighted by their signal over signal plus noise, each map as a whole.

Neighbouring pixels show components whose variance is below that of their noise: kept whole, such a
component adds more noise than signal. With t the scores and Var(t) the variance of their noise
(`edxdenoise.score_noise`), the weight with the least squared error is

    sum_i (t_i^2 - Var(t_i)) / sum_i t_i^2

(N. Wiener, Extrapolation, Interpolation, and Smoothing of Stationary Time Series, 1949). Denoised
counts remain a fixed filter of the raw ones, and no pixel is averaged with another.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from edxdenoise.cube import add_history
from edxdenoise.schema import (
    COMPONENT_KEEP,
    COMPONENT_MAP,
    COMPONENT_MAP_SHRUNK,
    COMPONENT_SIGNAL_KEPT,
    validate,
)
from edxdenoise.score_noise import score_noise


def weight_by_signal(ds: xr.Dataset) -> xr.Dataset:
    """Weight every kept component but the total by its signal over signal plus noise.

    Parameters
    ----------
    ds : Dataset
        Poisson-weighted, with computed components and ``component_keep``.

    Returns
    -------
    Dataset
        With ``component_map_shrunk`` (NaN for dropped components) and the weights as
        ``component_signal_kept``. The total, component 1, has the weight 1.
    """
    validate(ds, COMPONENT_MAP, COMPONENT_KEEP)
    noise, maps = score_noise(ds), ds[COMPONENT_MAP.name].values
    shares = np.full(len(maps), np.nan, np.float32)
    for k in map(int, np.flatnonzero(ds[COMPONENT_KEEP.name].values)):
        square = float(np.vdot(maps[k], maps[k]))
        left = square - float(noise.variance(k).sum(dtype=float))
        shares[k] = 1 if k == 0 else max(left, 0) / square if square > 0 else 0
    shrunk = maps * shares[:, np.newaxis, np.newaxis]
    result = ds.assign(
        {
            COMPONENT_MAP_SHRUNK.name: COMPONENT_MAP_SHRUNK.array(shrunk),
            COMPONENT_SIGNAL_KEPT.name: COMPONENT_SIGNAL_KEPT.array(shares),
        }
    )
    return add_history(result, "weight_by_signal")
