"""Open what this package wrote: .nc and .zarr."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.cluster import check_input
from edxdenoise.cube import REBUILT_FROM, reconstruct
from edxdenoise.errors import FormatError, Rank, warn
from edxdenoise.io.guard import check_file, guarded, named
from edxdenoise.io.store import memory_attrs

_SMALL = (v.MEASURED, v.IMAGE, v.EVENT_NUMBER)
# Attribute of a file with checksums of what no checksum of a chunk protects.
METADATA_CRC = "metadata_crc32"
_TEXTS = ("title", "source", "history", "recipe", "original_metadata", "edxdenoise_version")
_LISTS = ("elements", "elements_given", "area_label")


def open_dataset(path: str | Path) -> xr.Dataset:
    """Open a .nc or .zarr that this package wrote, or one with counts(y, x, energy).

    Parameters
    ----------
    path : str or Path
        The file or folder.

    Returns
    -------
    xarray.Dataset
        Maps and cubes are Dask arrays in the chunks stored; all else is loaded, ``measured`` and
        ``image`` too. ``counts_denoised`` that was left out is rebuilt when it is used. The events
        of frames that are kept apart are no part of it: see `edxdenoise.io.frame_events`.

    Raises
    ------
    FormatError
        If there is no such file, it is damaged, or is no spectrum image.
    ClusterError
        If a worker of the cluster in use does not see it.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".nc", ".zarr"):
        raise FormatError(f"{path} is not one of our files; allowed are .nc and .zarr")
    check_file(path)
    ds = guarded(path, lambda: open_checked(path, suffix))
    ds = _with_cube(ds.drop_dims(v.DIM_EVENT, errors="ignore"))
    ds = ds.drop_vars(v.EVENT_NUMBER, errors="ignore")
    if "edxdenoise_version" not in ds.attrs and not (
        v.COUNTS in ds and ds[v.COUNTS].dims == v.COUNTS.dims
    ):
        raise FormatError(
            f"{path} is not from edxdenoise and has no variable 'counts' with dims {v.COUNTS.dims}"
        )
    _check_attrs(path, ds.attrs)
    return check_input(ds, path)


def _check_attrs(path: Path, attrs: Mapping[Any, Any]) -> None:
    """Refuse attributes of a type that stages do not expect."""
    for names, kind, wanted in (
        (v.MEASUREMENT_NUMBERS, (int, float), "a number"),
        (_TEXTS, str, "text"),
        (_LISTS, list, "a list of texts"),
    ):
        for name in names:
            value = attrs.get(name)
            texts = not isinstance(value, list) or all(isinstance(item, str) for item in value)
            if value is not None and not (isinstance(value, kind) and texts):
                raise FormatError(
                    f"cannot read '{path}': its attribute '{name}' is {value!r}, must be {wanted}; "
                    "set or delete it"
                )


def _with_cube(ds: xr.Dataset) -> xr.Dataset:
    """Rebuild the denoised counts, lazily, of a file that was written without them."""
    was_rebuilt = re.search("^reconstruct ", str(ds.attrs.get("history", "")), re.MULTILINE)
    needed = {spec for spec in REBUILT_FROM}
    if v.COUNTS_DENOISED in ds or not was_rebuilt or not needed <= ds.variables.keys():
        return ds
    return reconstruct(ds).assign_attrs(ds.attrs)


def open_denoised(path: str | Path) -> xr.Dataset:
    """Open a file that ``edxdenoise denoise`` wrote, as `open_dataset` does.

    Raises
    ------
    FormatError
        If it holds no components.
    """
    ds = open_dataset(path)
    if v.COMPONENT_KEEP not in ds:
        remedy = "make them with edxdenoise denoise"
        if v.LINE_INTENSITY in ds:
            remedy = "name the denoised file it was quantified from, or use quantify --report"
        raise FormatError(f"{path} holds no components; {remedy}")
    return ds


def open_counts(path: Path) -> xr.Dataset:
    """Open a file that holds counts as `open_dataset` does; quantified maps have none."""
    ds = open_dataset(path)
    if v.COUNTS not in ds:
        raise FormatError(
            f"'{path}' holds no counts, such as a file of quantified maps; give the file that it "
            "was made from"
        )
    return ds


def open_checked(path: Path, suffix: str) -> xr.Dataset:
    """Open a .zarr or .nc as `open_dataset` does, whatever it holds."""
    ds = _as_in_memory(_checked(path, open_stored(path, suffix)))
    if suffix == ".zarr":
        # Its store names what is damaged.
        return ds
    return ds.assign({name: array.copy(data=named(path, array.data)) for name, array in ds.items()})


def open_stored(path: Path, suffix: str) -> xr.Dataset:
    """Open a .zarr or .nc lazily, with attributes as they are stored."""
    if suffix == ".nc":
        return xr.open_dataset(path.absolute(), engine="netcdf4", chunks={}, decode_times=False)
    from edxdenoise.io.store import whole_store

    return xr.open_zarr(whole_store(path), chunks={}, consolidated=False, decode_times=False)


def metadata_crc(ds: xr.Dataset) -> str:
    """CRC-32 of the shape, attributes and text of each variable of a stored Dataset, as JSON.

    The attributes of the Dataset itself are under the empty name.

    Examples
    --------
    >>> metadata_crc(xr.Dataset(attrs={"title": "a"}))
    '{"": "f10141a1"}'
    """
    content: dict[str, list[Any]] = {"": [_plain(ds.attrs)]}
    for name, array in ds.variables.items():
        with dask.config.set(scheduler="synchronous"):
            text = list(map(str, np.ravel(array.values))) if array.dtype.kind in "OUT" else None
        content[str(name)] = [array.dims, array.shape, _plain(array.attrs), text]
    return json.dumps(
        {
            name: f"{zlib.crc32(json.dumps(part, sort_keys=True).encode()):08x}"
            for name, part in sorted(content.items())
        }
    )


def _plain(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes without differences between formats: one number or text is no list."""
    plain = {}
    for name, value in attrs.items():
        if name != METADATA_CRC:
            items = value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
            single = isinstance(items, (list, tuple)) and len(items) == 1
            plain[str(name)] = repr(items[0] if single else items)
    return plain


def _checked(path: Path, ds: xr.Dataset) -> xr.Dataset:
    """`ds` without its checksums of the metadata, with a warning where they do not agree.

    Raises
    ------
    FormatError
        If a variable is missing.
    """
    stated = ds.attrs.pop(METADATA_CRC, None)
    if stated is None:
        return ds
    found = json.loads(metadata_crc(ds))
    try:
        expected = dict(json.loads(stated))
    except (TypeError, ValueError):
        expected = {"": None}
    missing = sorted(expected.keys() - found.keys())
    if missing:
        raise FormatError(
            f"cannot read '{path}': variable '{missing[0]}' is missing; copy the file again, or "
            "write it once more"
        )
    changed = [name for name in expected if expected[name] != found[name]]
    if changed:
        where = f" of '{changed[0]}'" if changed[0] else ""
        warn(
            f"the attributes or labels{where} in '{path}' are not those that were written",
            "titles, units, axes or results may be wrong",
            "copy the file again; if another program has changed it, convert it once more",
            rank=Rank.WRONG,
        )
    return ds


def _as_in_memory(ds: xr.Dataset) -> xr.Dataset:
    loaded = {}
    for name, array in ds.variables.items():
        maps = {v.DIM_Y, v.DIM_X} <= set(array.dims)
        if name in _SMALL or not (maps or v.DIM_EVENT in array.dims):
            # Here, also where a cluster computes: a worker may not see the file.
            with dask.config.set(scheduler="synchronous"):
                array = array.load()
        if array.dtype.kind in "OT":
            array = array.astype(object).astype(str)
        array.attrs = memory_attrs(array.attrs)
        if name in v.SPECS:
            for key, value in v.SPECS[str(name)].extra.items():
                if isinstance(value, np.ndarray) and key in array.attrs:
                    array.attrs[key] = np.asarray(array.attrs[key], value.dtype)
        loaded[name] = array
    coords = {name: loaded.pop(name) for name in ds.coords}
    ds = ds.assign_coords(coords).assign(loaded)
    ds.attrs = memory_attrs(ds.attrs)
    return ds
