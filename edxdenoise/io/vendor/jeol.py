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
    check_channels,
    check_loss,
    cut_short,
    run_plugin,
    vendor_signal,
    warn_moved,
)

_MAGIC = 304
_CHANNELS = 4096
# Where the start of the events is stated.
_EVENTS = 28
# Upper 4 of 16 bits of an event that is the place of a pixel or a line, or a value of an image.
_COLUMN, _ROW, _IMAGE = 8, 9, 10
# Kinds that are a smaller share of all events are none.
_RARE = 1e-5
# Channels of the sum spectrum, about 10 eV each, in which the zero peak is not that of the map.
_ABOVE_ZERO_PEAK = 60
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
    header = _header(path)
    measured = header["EDS Data"]["AnalyzableMap MeasData"]
    spectrum = measured["Data"].get("EDXRF")
    # An interrupted measurement ends in a part of a sweep, which the reader leaves out.
    sweeps = max(int(measured["Doc"].get("Sweep", 1)), 1)
    check_loss(path, signal.data, spectrum, allowed=1 / sweeps)
    first = _zero_channel(header)
    if spectrum is not None and first is not None:
        sums = signal.data.sum(axis=(0, 1), dtype=np.uint64)[first:]
        above = slice(_ABOVE_ZERO_PEAK, min(len(sums), len(spectrum)))
        check_channels(path, sums[above], np.asarray(spectrum)[above])
    _check_order(path, signal.data.shape[1])
    return signal


def _zero_channel(header: dict[str, Any]) -> int | None:
    """Channel of the map that is the first of the file's sum spectrum."""
    try:
        name = header["PTTD Data"]["AnalyzableMap MeasData"]["Meas Cond"]["Tpl"]
        return int(header["PTTD Param"]["Params"]["PARAMPAGE1_EDXRF"]["Tpl"][name]["DigZ"])
    except KeyError:
        return None


def _check_order(path: Path, width: int) -> None:
    """Warn where lines, pixels or events are not in the order of the scan.

    Sum spectra do not show that a pixel was moved.
    """
    with open(path, "rb") as file:
        file.seek(_EVENTS)
        (start,) = np.fromfile(file, "<u4", 1)
    events = np.fromfile(path, "<u2", offset=int(start))
    kinds = events >> 12
    found = np.bincount(kinds, minlength=16)
    odd = int(found[found < _RARE * len(events)].sum())
    markers = np.flatnonzero((kinds == _COLUMN) | (kinds == _ROW))
    places = (events[markers] & 0xFFF).astype(np.int32)
    rows = np.flatnonzero(kinds[markers] == _ROW)
    within = np.ones(len(markers), bool)
    # The marker of a line, and its first pixel.
    within[rows] = within[(rows + 1)[rows + 1 < len(within)]] = False
    odd += int((np.diff(places)[within[1:]] <= 0).sum())
    lines = places[rows]
    # A sweep that ends goes back to the first line.
    steps = np.diff(lines)[lines[1:] != lines[:1]]
    for numbers, usual in ((np.diff(rows) - 1, width), (steps, None), (_images(kinds), 1)):
        if len(numbers) and usual in (None, np.median(numbers)):
            odd += int((numbers != np.median(numbers)).sum())
    if odd:
        warn_moved(path, f"{odd} lines, pixels or events are not in the order of the scan")


def _images(kinds: np.ndarray) -> np.ndarray:
    """How many values of an image belong to each pixel but the last."""
    return np.diff(np.cumsum(kinds == _IMAGE)[kinds == _COLUMN])


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
