"""JEOL .pts: a stream of X-ray events, sweep after sweep."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from edxdenoise.errors import FormatError
from edxdenoise.io.vendor.base import (
    VendorSignal,
    check_loss,
    cut_short,
    run_plugin,
    vendor_signal,
)

_MAGIC = 304
_CHANNELS = 4096
# Kinds of event, and in how many steps a scan is divided.
_COLUMN, _ROW, _INTENSITY = 0x8000, 0x9000, 0xA000
_POSITIONS = 4096


def open_pts(path: Path) -> list[VendorSignal]:
    """The map of a .pts; its events are read by `VendorSignal.load`."""
    header = _header(path)
    pixels = header["PTTD Data"]["AnalyzableMap MeasData"]["Meas Cond"]["Pixels"]
    width, height = (int(number) for number in pixels.split("x"))
    sizes = {"y": height, "x": width, "Energy": _CHANNELS}
    axes = [
        {"name": name, "size": size, "navigate": name != "Energy"} for name, size in sizes.items()
    ]
    metadata = {
        "General": {"title": f"EDS extracted from {path.name}"},
        "Signal": {"signal_type": "EDS"},
    }
    # No memory behind it: the header tells the shape, and the reader would go through all events.
    counts = np.broadcast_to(np.uint8(0), tuple(sizes.values()))
    return [VendorSignal(counts, axes, metadata, header, lambda: _load(path))]


def open_asw(path: Path) -> list[VendorSignal]:
    """Everything in the files that a .asw names."""
    return [vendor_signal(item) for item in _read(path)]


def _header(path: Path) -> dict[str, Any]:
    from rsciio.jeol._api import _parsejeol

    with open(path, "rb") as file:
        magic = np.fromfile(file, "<u4", 1)
        if magic.size == 0 or magic[0] != _MAGIC:
            raise FormatError(
                f"cannot read '{path}': it is no JEOL .pts map; check the file or its extension"
            )
        file.seek(12)
        # ..., start of the header, its length, start of the events, end of the file
        places = np.fromfile(file, "<u4", 6)
        size = path.stat().st_size
        if places.size < 6 or size < places[5]:
            raise cut_short(path, f"it has only {size} bytes")
        file.seek(int(places[2]) + 12)
        return _parsejeol(file)


def _load(path: Path) -> VendorSignal:
    (item,) = _read(path)
    measured = _header(path)["EDS Data"]["AnalyzableMap MeasData"]
    # An interrupted measurement ends in a part of a sweep, which the reader leaves out.
    unfinished = 1 / max(int(measured["Doc"].get("Sweep", 1)), 1)
    check_loss(path, item["data"], measured["Data"].get("EDXRF"), allowed=unfinished)
    image = _image(path, item)
    return replace(vendor_signal(item), images=() if image is None else (image,))


def _image(path: Path, item: dict[str, Any]) -> VendorSignal | None:
    """The image among the events, summed over the whole sweeps that the counts are of.

    RosettaSciIO mixes up the rows of images that are not square.
    """
    with open(path, "rb") as file:
        file.seek(28)
        (start,) = np.fromfile(file, "<u4", 1)
    size = (path.stat().st_size - int(start)) // 2
    events = np.memmap(path, "<u2", "r", offset=int(start), shape=(size,))
    height, width, _ = item["data"].shape
    image = np.zeros(height * width)
    starts = item["original_metadata"]["jeol_pts_frame_start_index"]
    seen = False
    for begin, end in pairwise(starts[starts >= 0]):
        sweep = np.asarray(events[begin:end])
        kind, value = sweep & 0xF000, (sweep & 0x0FFF).astype(np.int64)
        (marked,) = np.nonzero(kind == _INTENSITY)
        # As the reader places the counts.
        y = _last(value, kind == _ROW)[marked] // (_POSITIONS // height)
        x = _last(value, kind == _COLUMN)[marked] // (_POSITIONS // width)
        inside = (y < height) & (x < width)
        pixel = (y * width + x)[inside]
        image += np.bincount(pixel, value[marked][inside], minlength=len(image))
        seen |= len(pixel) > 0
    if not seen:
        return None
    axes = [{**axis, "navigate": False} for axis in item["axes"][:2]]
    # The file does not say which detector it was.
    title = "SEM" if "SEM" in item["metadata"]["Acquisition_instrument"] else "STEM"
    metadata = {"General": {"title": title}}
    return VendorSignal(image.reshape(height, width).astype(np.uint32), axes, metadata, {})


def _last(values: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Of every event the last value given until then, 0 before the first."""
    place = np.maximum.accumulate(np.where(given, np.arange(len(values)), -1))
    return np.where(place < 0, 0, values[place])


def _read(path: Path) -> list[dict[str, Any]]:
    # Not lazily: that loses rows of maps that are higher than wide. The reader refuses a type that
    # is too small, so the first that passes is the smallest.
    for dtype in (np.uint8, np.uint16):
        try:
            return run_plugin("jeol", path, SI_dtype=dtype)
        except ValueError as error:
            if "SI_dtype" not in str(error):
                raise
    return run_plugin("jeol", path, SI_dtype=np.uint32)
