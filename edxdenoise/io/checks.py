"""Checks of the counts themselves, which need the data and not only a header."""

from __future__ import annotations

import dask.array as da
import numpy as np
import xarray as xr

from edxdenoise.errors import DataError
from edxdenoise.schema import COUNTS, validate


def check_totals(totals: np.ndarray, *, name: str) -> None:
    """Check the totals over a map that a stage has at hand, so that no pass is made for it.

    Parameters
    ----------
    totals : array
        Channel totals or pixel totals, in a type that cannot overflow.
    name : str
        Of the file or data, for the message.

    Raises
    ------
    DataError
        If a total is negative or not finite, or all are zero.

    Examples
    --------
    >>> check_totals([0, 0], name="a.bcf")
    Traceback (most recent call last):
    ...
    edxdenoise.errors.DataError: 'a.bcf' holds no counts at all: a line scan read as a map, or an \
empty measurement; use another file
    """
    totals = np.asarray(totals)
    if not np.isfinite(totals).all():
        raise DataError(
            f"'{name}' holds NaN or infinite numbers, counts must be finite; replace or crop them"
        )
    if (totals < 0).any():
        raise DataError(
            f"'{name}' holds negative numbers, counts must be 0 or more; use the raw counts, "
            "without background subtraction"
        )
    if not totals.any():
        raise DataError(
            f"'{name}' holds no counts at all: a line scan read as a map, or an empty "
            "measurement; use another file"
        )


def check_counts(ds: xr.Dataset) -> None:
    """Check that the counts are finite, not negative and not all zero, in one pass over them.

    Parameters
    ----------
    ds : xarray.Dataset
        With the variable ``counts``.

    Raises
    ------
    DataError
        If they are not.
    """
    validate(ds, COUNTS)
    counts = ds[COUNTS.name].data
    name = str(ds.attrs.get("source") or ds.attrs.get("title") or COUNTS.name)
    wide = np.float64 if counts.dtype.kind == "f" else np.uint64
    results = [counts.sum(dtype=wide)]
    if counts.dtype.kind != "u":
        results.append(counts.min())
    check_totals(np.array(da.compute(*results), float), name=name.split(" sha256:")[0])
