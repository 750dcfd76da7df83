"""What a file holds and what a job on it needs, for people and for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np

from edxdenoise.compute import compute, memory_needed
from edxdenoise.cube import energy_axis
from edxdenoise.io import SignalInfo, read_cube
from edxdenoise.schema import COORD_AREA, COUNTS, DIM_ENERGY, DIM_X, DIM_Y

_MEASUREMENT = (
    "title",
    "instrument",
    "beam_energy",
    "live_time",
    "real_time",
    "take_off_angle",
    "azimuth_angle",
    "stage_tilt",
    "detector_resolution",
    "elements",
    "source",
)


def describe_memory(signal: SignalInfo, *, workers: int | None = None) -> dict[str, int]:
    """Bytes that denoising a signal needs, told from its shape before anything is read.

    Returns
    -------
    dict
        ``cube`` as stored, ``at_least`` block by block and ``at_best`` with the cube in memory.
    """
    rows, columns, channels = signal.shape
    itemsize = np.dtype(signal.dtype).itemsize
    components = min(100, rows * columns, channels)
    need = memory_needed(
        (rows, columns, channels), itemsize, components=components, workers=workers
    )
    return {"cube": need.cube, "at_least": need.streamed, "at_best": need.in_memory}


def describe_signals(signals: Sequence[SignalInfo]) -> list[dict[str, Any]]:
    """The signals of a file as records, ready for JSON."""
    return [
        {
            "index": signal.index,
            "title": signal.title,
            "kind": signal.kind,
            "signal_type": signal.signal_type,
            "shape": list(signal.shape),
            "dtype": signal.dtype,
            "nbytes": signal.nbytes,
        }
        for signal in signals
    ]


def describe_cube(
    path: str | Path, *, signal: str | None = None, memory_limit: int | None = None
) -> dict[str, Any]:
    """Shape, axes, counts and measurement of the spectrum image of a file; reads the counts.

    Parameters
    ----------
    path : path
        Any readable file.
    signal : str, optional
        Number or title where there are several.
    memory_limit : int, optional
        Bytes.

    Returns
    -------
    dict
        Ready for JSON.
    """
    ds = read_cube(path, signal=signal, memory_limit=memory_limit)
    counts = ds[COUNTS.name]
    cube = da.asarray(counts.data)
    wide = np.float64 if cube.dtype.kind == "f" else np.uint64
    pixel_totals, largest = compute(cube.sum(axis=2, dtype=wide), cube.max())
    offset, width = energy_axis(ds)
    axes = {DIM_ENERGY: {"offset": offset, "scale": width, "units": ds[DIM_ENERGY].attrs["units"]}}
    for dim in (DIM_Y, DIM_X):
        values = ds[dim].values
        step = float(values[1] - values[0]) if values.size > 1 else 1.0
        axes[dim] = {
            "offset": float(values[0]),
            "scale": step,
            "units": ds[dim].attrs.get("units", ""),
        }
    result: dict[str, Any] = {
        "shape": list(counts.shape),
        "dtype": str(counts.dtype),
        "axes": axes,
        "total_counts": float(pixel_totals.sum()),
        "counts_per_pixel": float(pixel_totals.mean()),
        "largest_count": float(largest),
        "empty_pixels": float(np.mean(pixel_totals == 0)),
        "measurement": {name: ds.attrs[name] for name in _MEASUREMENT if name in ds.attrs},
    }
    if COORD_AREA in ds.coords:
        result["areas"] = list(ds[COORD_AREA].attrs.get("area_label", []))
    return result
