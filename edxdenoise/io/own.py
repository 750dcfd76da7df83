"""Open what this package wrote: .nc and .zarr."""

from __future__ import annotations

import re
from pathlib import Path

import dask
import numpy as np
import xarray as xr

from edxdenoise.errors import FormatError
from edxdenoise.io.attrs import memory_attrs
from edxdenoise.io.guard import guarded
from edxdenoise.reconstruction import REBUILT_FROM, reconstruct
from edxdenoise.schema import COUNTS, COUNTS_DENOISED, DIM_X, DIM_Y, IMAGE, MEASURED, SPECS
from edxdenoise.shared_files import check_input

_SMALL = (MEASURED.name, IMAGE.name)


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
        ``image`` too. ``counts_denoised`` that was left out is rebuilt when it is used.

    Raises
    ------
    FormatError
        If there is no such file, it is damaged, or is no spectrum image.
    ClusterError
        If a worker of the cluster in use does not see it.
    """
    path = Path(path)
    if not path.exists():
        raise FormatError(f"{path} does not exist")
    if path.suffix.lower() == ".zarr":
        ds = guarded(path, lambda: open_zarr(path))
    elif path.suffix.lower() == ".nc":
        ds = guarded(path, lambda: _open_netcdf(path))
    else:
        raise FormatError(f"{path} is not one of our files; allowed are .nc and .zarr")
    ds = _with_cube(ds)
    if "edxdenoise_version" not in ds.attrs and not (
        COUNTS.name in ds and ds[COUNTS.name].dims == COUNTS.dims
    ):
        raise FormatError(
            f"{path} is not from edxdenoise and has no variable 'counts' with dims {COUNTS.dims}"
        )
    return check_input(ds, path)


def _with_cube(ds: xr.Dataset) -> xr.Dataset:
    """Rebuild the denoised counts, lazily, of a file that was written without them."""
    was_rebuilt = re.search("^reconstruct ", str(ds.attrs.get("history", "")), re.MULTILINE)
    needed = {spec.name for spec in REBUILT_FROM}
    if COUNTS_DENOISED.name in ds or not was_rebuilt or not needed <= ds.variables.keys():
        return ds
    return reconstruct(ds).assign_attrs(ds.attrs)


def open_counts(path: Path) -> xr.Dataset:
    """Open a file that holds counts as `open_dataset` does; quantified maps have none."""
    ds = open_dataset(path)
    if COUNTS.name not in ds:
        raise FormatError(
            f"'{path}' holds no counts, such as a file of quantified maps; give the file that it "
            "was made from"
        )
    return ds


def open_zarr(path: Path) -> xr.Dataset:
    """Open a .zarr folder as `open_dataset` does, whatever it holds."""
    from edxdenoise.io.store import whole_store

    return _as_in_memory(
        xr.open_zarr(whole_store(path), chunks={}, consolidated=False, decode_times=False)
    )


def _open_netcdf(path: Path) -> xr.Dataset:
    return _as_in_memory(
        xr.open_dataset(path.absolute(), engine="netcdf4", chunks={}, decode_times=False)
    )


def _as_in_memory(ds: xr.Dataset) -> xr.Dataset:
    loaded = {}
    for name, array in ds.variables.items():
        if name in _SMALL or not {DIM_Y, DIM_X} <= set(array.dims):
            # Here, also where a cluster computes: a worker may not see the file.
            with dask.config.set(scheduler="synchronous"):
                array = array.load()
        if array.dtype.kind in "OT":
            array = array.astype(object).astype(str)
        array.attrs = memory_attrs(array.attrs)
        if name in SPECS:
            for key, value in SPECS[str(name)].extra.items():
                if isinstance(value, np.ndarray) and key in array.attrs:
                    array.attrs[key] = np.asarray(array.attrs[key], value.dtype)
        loaded[name] = array
    coords = {name: loaded.pop(name) for name in ds.coords}
    ds = ds.assign_coords(coords).assign(loaded)
    ds.attrs = memory_attrs(ds.attrs)
    return ds
