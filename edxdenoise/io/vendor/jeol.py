"""JEOL .pts: a stream of X-ray events, sweep after sweep."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
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
_PATCHING = threading.Lock()


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
    counts = da.zeros(tuple(sizes.values()), dtype=np.uint8, chunks=-1)
    return [VendorSignal(counts, axes, metadata, header, partial(_load, path))]


def open_asw(path: Path) -> list[VendorSignal]:
    """Everything in the files that a .asw names."""
    return _read(path)


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
    (signal,) = _read(path)
    measured = _header(path)["EDS Data"]["AnalyzableMap MeasData"]
    # An interrupted measurement ends in a part of a sweep, which the reader leaves out.
    unfinished = 1 / max(int(measured["Doc"].get("Sweep", 1)), 1)
    check_loss(path, signal.data, measured["Data"].get("EDXRF"), allowed=unfinished)
    return signal


def _read(path: Path) -> list[VendorSignal]:
    # Not lazily: that loses rows of maps that are higher than wide. The reader refuses a type that
    # is too small, so the first that passes is the smallest.
    for dtype in (np.uint8, np.uint16):
        try:
            return _read_as(path, dtype)
        except ValueError as error:
            if "SI_dtype" not in str(error):
                raise
    return _read_as(path, np.uint32)


def _read_as(path: Path, dtype: type) -> list[VendorSignal]:
    """Signals with counts of this type, each with the image among its events."""
    with _images_of_any_shape() as images:
        items = run_plugin("jeol", path, SI_dtype=dtype)
    signals = []
    for item in items:
        signal = vendor_signal(item)
        image = images.get(signal.data.ctypes.data)
        if image is not None and image.any():
            # The file does not say which detector it was.
            title = "SEM" if "SEM" in signal.metadata["Acquisition_instrument"] else "STEM"
            axes = [{**axis, "navigate": False} for axis in signal.axes[:2]]
            found = VendorSignal(image, axes, {"General": {"title": title}}, {})
            signal = replace(signal, images=(found,))
        signals.append(signal)
    return signals


@contextmanager
def _images_of_any_shape() -> Iterator[dict[int, np.ndarray]]:
    """Let the reader sum images in arrays from here, by the address of the counts they belong to.

    Its own have height and width exchanged: rows of an image that is wider than high are mixed up,
    and one that is higher than wide is written past the end of the array.
    """
    from rsciio.jeol import _api

    images: dict[int, np.ndarray] = {}

    def read_with_image(
        events: np.ndarray,
        countup: int,
        counts: np.ndarray,
        _: np.ndarray,
        width: int,
        height: int,
        *rest: Any,
    ) -> Any:
        blank = np.zeros((height, width), np.uint32)
        image = images.setdefault(counts.ctypes.data, blank)
        return read_frame(events, countup, counts, image, width, height, *rest)

    with _PATCHING:
        read_frame = _api._readframe_dense
        _api._readframe_dense = read_with_image
        try:
            yield images
        finally:
            _api._readframe_dense = read_frame
