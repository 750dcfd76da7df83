"""Cut a spectrum image to a range of energies and pixels."""

from __future__ import annotations

import numpy as np
import xarray as xr

from edxdenoise.cube import add_history, drop_needless
from edxdenoise.errors import ParameterError
from edxdenoise.schema import COUNTS, DIM_ENERGY, DIM_X, DIM_Y, validate


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
        In keV: channels whose centre lies in low <= E < high, as HyperSpy's ``isig`` cuts.
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
    validate(ds, COUNTS)
    steps = []
    if energy is not None:
        low, high = energy
        centres = ds[DIM_ENERGY].values
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
        ds = ds.isel({DIM_ENERGY: slice(int(first), int(last) + 1)})
        steps.append(f"energy={_range(low, high)}")
    for dim, limits in ((DIM_Y, y), (DIM_X, x)):
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
