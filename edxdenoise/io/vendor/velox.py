"""Velox .emd: many signals in one HDF5 file, the map as a stream of events."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np

from edxdenoise.blocks import Block, block_of_counts
from edxdenoise.errors import FormatError
from edxdenoise.io.vendor.base import VendorSignal, is_map, run_plugin, vendor_signal


def is_velox(path: Path) -> bool:
    """Whether an .emd is from Velox, and not of the older Berkeley kind."""
    import h5py

    with h5py.File(path, "r") as file:
        return "Version" in file and "Data" in file


@lru_cache(maxsize=1)
def compile_reader() -> None:
    """Let Numba compile what reads the stream of events here, and not in every child process."""
    from rsciio.utils._fei_stream_readers import stream_to_sparse_COO_array

    events = np.array([1, 65535], np.uint16)
    array = stream_to_sparse_COO_array(events, (1, 1), channels=4, last_frame=1)
    array.astype(np.uint8).max().compute()


def open_velox(path: Path) -> list[VendorSignal]:
    """Spectra, images and maps of a Velox file."""
    # Read together, the maps would get the shape of the last image of the file.
    items = []
    for kind in ("single_spectrum", "images", "spectrum_image"):
        items += run_plugin(
            "emd",
            path,
            lazy=True,
            select_type=kind,
            SI_dtype=np.uint32,
            load_SI_image_stack=kind == "images",
        )
        if kind == "images":
            items = [_mean_of_frames(item) for item in items]
    if _is_pruned(path) and not any(is_map(item) for item in items):
        raise FormatError(
            f"cannot read '{path}': Velox has pruned it, its spectrum image is gone; export it "
            "again without pruning"
        )
    for item in items:
        if is_map(item) and isinstance(item["data"], da.Array):
            item["data"] = _events_of(item["data"])
        else:
            # Nothing open is left: the signals are handed to another process.
            item["data"] = np.asarray(item["data"])
    return [vendor_signal(item) for item in items]


def _events_of(lazy: da.Array) -> Block:
    """The events behind a lazy map, which is a sum of sparse arrays, one for each detector."""
    import sparse

    events = [each for each in lazy.dask.values() if isinstance(each, sparse.COO)]
    row, column, channel = np.concatenate([each.coords for each in events], axis=1)
    counts = np.concatenate([each.data for each in events])
    rows, columns, channels = lazy.shape
    return block_of_counts((row * columns + column, channel), counts, (rows, columns, channels))


def _mean_of_frames(item: dict[str, Any]) -> dict[str, Any]:
    """An image of which every frame is stored, as the mean that belongs to the summed counts."""
    if not is_map(item):
        return item
    axes = [axis for axis in item["axes"] if not axis["navigate"]]
    return {**item, "data": item["data"].mean(axis=0, dtype=np.float32), "axes": axes}


def _is_pruned(path: Path) -> bool:
    import h5py

    with h5py.File(path, "r") as file:
        data = file["Data"]
        return "SpectrumImage" in data and not len(data.get("SpectrumStream", ()))
