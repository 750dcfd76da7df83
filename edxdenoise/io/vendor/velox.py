"""Velox .emd: many signals in one HDF5 file, the map as a stream of events."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np

from edxdenoise.blocks import Block, block_of_counts
from edxdenoise.errors import FormatError
from edxdenoise.io.events import Events
from edxdenoise.io.vendor.base import (
    Frames,
    VendorSignal,
    frame_limits,
    is_map,
    no_frames,
    run_plugin,
    vendor_signal,
)

# Mark in a stream of events: the pixel ends.
_NEXT_PIXEL = 65535


def is_velox(path: Path) -> bool:
    """Whether an .emd is from Velox, and not of the older Berkeley kind."""
    import h5py

    with h5py.File(path, "r") as file:
        return "Version" in file and "Data" in file


@lru_cache(maxsize=1)
def compile_reader() -> None:
    """Let Numba compile what reads the stream of events here, and not in every child process."""
    from rsciio.utils._fei_stream_readers import stream_to_sparse_COO_array

    # Two pixels, since the places of one are laid out otherwise and would be compiled apart.
    events = np.array([1, 65535, 2, 65535], np.uint16)
    array = stream_to_sparse_COO_array(events, (1, 2), channels=4, last_frame=1)
    array.astype(np.uint8).max().compute()


def open_velox(path: Path, frames: Frames | None = None) -> list[VendorSignal]:
    """Spectra, images and maps of a Velox file; the maps of all or some of their frames."""
    # Read together, the maps would get the shape of the last image of the file.
    items = _items(path, "single_spectrum")
    items += map(_mean_of_frames, _items(path, "images", load_SI_image_stack=True))
    maps = _items(path, "spectrum_image")
    summed = _stated_frames(maps)
    if frames is not None:
        if summed is None:
            raise no_frames(path)
        first, last = frame_limits(path, frames, summed)
        maps = _items(path, "spectrum_image", first_frame=first, last_frame=last)
        summed = last - first
    items += maps
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
    # Of several maps, nobody knows which events are whose.
    if len(_streamed(items)) > 1:
        summed = None
    return [
        replace(vendor_signal(item), frames=summed if _streamed([item]) else None) for item in items
    ]


def _items(path: Path, kind: str, **options: Any) -> list[dict[str, Any]]:
    return run_plugin("emd", path, lazy=True, select_type=kind, SI_dtype=np.uint32, **options)


def _streamed(maps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """X-ray maps, which alone are streams of events."""
    return [item for item in maps if item["original_metadata"].get("ImportedDataParameter")]


def _stated_frames(maps: list[dict[str, Any]]) -> int | None:
    for item in _streamed(maps):
        return int(item["original_metadata"]["ImportedDataParameter"]["Number_of_frames"])
    return None


def velox_events(path: Path) -> Events:
    """Events of all frames and detectors."""
    import h5py

    maps = _items(path, "spectrum_image")
    number, shapes = _stated_frames(maps), [item["data"].shape for item in _streamed(maps)]
    if number is None or len(shapes) != 1:
        raise no_frames(path)
    (shape,) = shapes
    rows, columns, channels = shape
    parts = []
    with h5py.File(path, "r") as file:
        for stream in file["Data/SpectrumStream"].values():
            events = stream["Data"][:, 0]
            counts = np.flatnonzero(events != _NEXT_PIXEL)
            # As many pixels have ended before a count as there are marks before it.
            frame, pixel = np.divmod(counts - np.arange(counts.size), rows * columns)
            inside = frame < number
            parts.append((pixel[inside], events[counts[inside]], frame[inside]))
    pixel, channel, frame = (np.concatenate(each) for each in zip(*parts))
    return Events.of_places(pixel, channel, frame, (rows, columns, channels), number)


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
