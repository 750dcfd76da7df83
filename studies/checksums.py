"""What checksums cost: time and size of .zarr and .nc with them, relative to those without.

    python studies/checksums.py --csv

The same counts are written in the same chunks and with the same compression, in turn with
checksums and without, ``--seeds`` times; each number is the median of the ratios of neighbouring
runs. With them, files are opened as the program does, which also checks their metadata; without,
by xarray.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import dask
import numpy as np
import xarray as xr
from _study import run
from zarr.codecs import BloscCodec, Crc32cCodec

from edxdenoise import simulate
from edxdenoise.io import open_dataset

HEAD = ["format", "writing", "opening", "reading", "size"]
_CHUNKS = (33, 200, 640)


def study(seeds: int) -> list[list[str]]:
    """Rows of the table: each format with checksums, relative to it without."""
    phantom = simulate("solar-cell", shape=(264, 200), channels=640, energy_width=0.02, seed=0)
    ds = phantom[["counts"]].compute().drop_encoding()
    ds.attrs["edxdenoise_version"] = "study"
    rows = []
    with (
        tempfile.TemporaryDirectory() as folder,
        dask.config.set(scheduler="threads", num_workers=1),
    ):
        for suffix in (".zarr", ".nc"):
            ratios = []
            for number in range(seeds):
                both = [
                    _measured(ds, Path(folder) / f"{number}-{checked}{suffix}", checked)
                    for checked in (True, False)
                ]
                ratios.append(np.divide(*both))
            rows.append([suffix, *(f"{ratio:.2f}" for ratio in np.median(ratios, axis=0))])
    return rows


def _measured(ds: xr.Dataset, path: Path, checked: bool) -> tuple[float, ...]:
    """Seconds of writing, opening and reading, and bytes."""
    if path.suffix == ".zarr":
        blosc = BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")
        compressors = [blosc, Crc32cCodec()] if checked else [blosc]
        encoding = {"counts": {"chunks": _CHUNKS, "compressors": compressors}}
        write = lambda: ds.to_zarr(path, encoding=encoding, consolidated=False)  # noqa: E731
        plain = lambda: xr.open_zarr(path, chunks={}, consolidated=False)  # noqa: E731
    else:
        packing = {"chunksizes": _CHUNKS, "zlib": True, "complevel": 1, "shuffle": True}
        encoding = {"counts": packing | {"fletcher32": checked}}
        write = lambda: ds.to_netcdf(path, engine="netcdf4", encoding=encoding)  # noqa: E731
        plain = lambda: xr.open_dataset(path, engine="netcdf4", chunks={})  # noqa: E731
    writing = _seconds(write)
    opened = []
    opening = _seconds(lambda: opened.append(open_dataset(path) if checked else plain()))
    reading = _seconds(lambda: opened[0]["counts"].values)
    parts = [part for part in path.rglob("*") if part.is_file()] or [path]
    size = sum(part.stat().st_size for part in parts)
    shutil.rmtree(path, ignore_errors=True)
    return writing, opening, reading, float(size)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    run(__file__, __doc__, HEAD, study, seeds=9)
