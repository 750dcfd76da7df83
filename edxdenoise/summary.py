"""Contents of a file and needs of a job on it, for people and for scripts."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from edxdenoise.cube import energy_axis, measured_pixels, result_name
from edxdenoise.errors import DataError, Rank, warn
from edxdenoise.io import SignalInfo, read_cube
from edxdenoise.report.text import component_name
from edxdenoise.resources import memory_needed
from edxdenoise.schema import (
    COMPONENT_EFFECT_SIZE,
    COMPONENT_KEEP,
    COMPONENT_SIGNAL_KEPT,
    COMPONENT_SIGNAL_PROBABILITY,
    COMPONENT_SPATIAL_STATISTIC,
    COMPONENT_VARIANCE,
    COMPONENT_VARIANCE_RATIO,
    COORD_AREA,
    COORD_COMPONENT_NAME,
    COORD_COMPONENT_NOTE,
    COUNTS,
    DIM_COMPONENT,
    DIM_DETECTOR,
    DIM_ENERGY,
    DIM_X,
    DIM_Y,
    IMAGE,
    MEASUREMENT_NUMBERS,
)
from edxdenoise.selection import component_outcomes
from edxdenoise.survey import check_survey, naming, reading, survey
from edxdenoise.xray import find_elements

_EVIDENCE = (
    COMPONENT_VARIANCE,
    COMPONENT_VARIANCE_RATIO,
    COMPONENT_SIGNAL_PROBABILITY,
    COMPONENT_SPATIAL_STATISTIC,
    COMPONENT_EFFECT_SIZE,
    COMPONENT_SIGNAL_KEPT,
)
_MEASUREMENT = ("title", "instrument", *MEASUREMENT_NUMBERS, "elements", "source")


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
        (rows, columns, channels),
        itemsize,
        components=components,
        workers=workers,
        neighbours=True,
        shrink=True,
    )
    return {"cube": need.cube, "at_least": need.streamed, "at_best": need.in_memory}


def component_table(ds: xr.Dataset) -> pd.DataFrame:
    """Tabulate the components of a Dataset: variances, evidence, outcome and decision.

    Parameters
    ----------
    ds : Dataset
        From `edxdenoise.select` or `edxdenoise.denoise`.

    Returns
    -------
    pandas.DataFrame
        One row per component: ``component``, ``name`` (where components have names), ``variance``,
        ``variance_ratio``, ``signal_probability``, ``spatial_statistic``, ``effect_size``,
        ``signal_kept`` (NaN where there is none), ``outcome``, ``note`` (where a
        person wrote any) and ``keep``.
    """
    numbers = ds[DIM_COMPONENT].values
    table = pd.DataFrame({"component": numbers})
    if COORD_COMPONENT_NAME in ds.coords:
        table["name"] = [component_name(ds, number) for number in numbers]
    for spec in _EVIDENCE:
        # Files of earlier versions have no spatial statistic.
        values = ds[spec.name].values if spec.name in ds else np.full(len(numbers), np.nan)
        table[spec.name.removeprefix("component_")] = values.astype(float)
    table["outcome"] = component_outcomes(ds)
    if COORD_COMPONENT_NOTE in ds.coords:
        table["note"] = ds[COORD_COMPONENT_NOTE].values
    table["keep"] = ds[COMPONENT_KEEP.name].values == 1
    return table


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

    Warns
    -----
    EdxdenoiseWarning
        If the counts are such that they cannot be decomposed.
    """
    files = [Path(path)]
    with naming(files), reading(files):
        ds = read_cube(path, signal=signal, memory_limit=memory_limit)
        offset, width = energy_axis(ds)
        looked = survey(ds)
        try:
            check_survey(looked, name=files[0].name)
        except DataError as error:
            warn(str(error), "this file cannot be denoised", rank=Rank.WRONG)
    counts = ds[COUNTS.name]
    missing = int(np.count_nonzero(~measured_pixels(ds)))
    pixels = ds.sizes[DIM_Y] * ds.sizes[DIM_X]
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
        # JSON has no NaN.
        "total_counts": looked.total if np.isfinite(looked.total) else None,
        "counts_per_pixel": looked.total / pixels if np.isfinite(looked.total) else None,
        "largest_count": looked.largest if np.isfinite(looked.largest) else None,
        "empty_pixels": (looked.empty_pixels - missing) / pixels,
        "missing_pixels": missing / pixels,
        "images": _describe_images(ds),
        "measurement": {name: ds.attrs[name] for name in _MEASUREMENT if name in ds.attrs},
    }
    if COMPONENT_KEEP.name in ds:
        result["result"] = result_name(ds)
    found = find_elements(ds)
    result["elements"] = found[["element", "line", "net_counts", "significance", "where"]].to_dict(
        "records"
    )
    factors = vendor_k_factors(json.loads(ds.attrs.get("original_metadata") or "{}"))
    if factors:
        result["k_factors"] = factors
    if COORD_AREA in ds.coords:
        result["areas"] = list(ds[COORD_AREA].attrs.get("area_label", []))
    return result


def _describe_images(ds: xr.Dataset) -> list[dict[str, Any]]:
    """The images recorded with the counts as records, ready for JSON."""
    if IMAGE.name not in ds:
        return []
    records = []
    for name, image in zip(ds[DIM_DETECTOR].values, ds[IMAGE.name].values):
        values = image[np.isfinite(image)]
        records.append(
            {
                "name": str(name),
                "dtype": str(image.dtype),
                "smallest": float(values.min()),
                "largest": float(values.max()),
                "mean": float(values.mean(dtype=float)),
            }
        )
    return records


def vendor_k_factors(metadata: Any, path: str = "") -> dict[str, Any]:
    """Entries of a vendor's metadata that are called k-factors, by their path.

    What they count, an alpha line or its whole family, the vendor's manual says.

    Examples
    --------
    >>> vendor_k_factors({"Results": {"Fe": {"K-factor": 1.45, "Z": 26}}})
    {'Results.Fe.K-factor': 1.45}
    """
    if not isinstance(metadata, dict):
        return {}
    found = {}
    for key, value in metadata.items():
        full = f"{path}.{key}" if path else str(key)
        if re.search(r"k[\W_]?factor", str(key), re.IGNORECASE):
            found[full] = value
        else:
            found |= vendor_k_factors(value, full)
    return found
