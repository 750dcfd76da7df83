"""JEOL .pts: a stream of X-ray events, sweep after sweep."""

from __future__ import annotations

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
    return vendor_signal(item)


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
