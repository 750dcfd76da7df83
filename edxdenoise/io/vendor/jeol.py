"""JEOL .pts: a stream of X-ray events, sweep after sweep."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np

from edxdenoise.blocks import block_of_counts, channel_sums
from edxdenoise.errors import FormatError
from edxdenoise.io.events import Events
from edxdenoise.io.vendor.base import (
    Frames,
    VendorSignal,
    check_channels,
    check_loss,
    cut_short,
    frame_limits,
    is_map,
    run_plugin,
    vendor_signal,
    warn_moved,
)

_MAGIC = 304
_CHANNELS = 4096
# Where the start of the events is stated.
_EVENTS = 28
# Upper 4 of 16 bits of an event that is the place of a pixel or a line, a value of an image or an
# X-ray count; and the places along each side of a scan.
_COLUMN, _ROW, _IMAGE, _COUNT = 8, 9, 10, 11
_SCAN = 4096
# Bytes that a byte of events takes while it is sorted.
_SORTING = 15
# Kinds that are a smaller share of all events are none.
_RARE = 1e-5
# Below this channel of the sum spectrum, at about 0.6 keV, the zero peak need not be that of the
# map; so many channels that differ, one after the other, are no changed bits.
_ABOVE_ZERO_PEAK, _DIFFERING = 60, 4


def open_pts(path: Path, frames: Frames | None = None) -> list[VendorSignal]:
    """The map of a .pts; its events, all or those of some sweeps, are read by `load`."""
    header = _header(path)
    width, height = _sizes(header)
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
    needed = _SORTING * path.stat().st_size
    return [
        VendorSignal(counts, axes, metadata, header, partial(_load, path, frames), needed=needed)
    ]


def open_asw(path: Path, frames: Frames | None = None) -> list[VendorSignal]:
    """Everything in the files that a .asw names."""
    signals = []
    for item in run_plugin("jeol", path, lazy=True, frame_list=[0]):
        if is_map(item):
            named = item["original_metadata"]["asw_viewdata"]["Filename"]
            signals += open_pts(path.parent.joinpath(*named.split("\\")), frames)
        else:
            signals.append(vendor_signal(item))
    return signals


def _sizes(header: dict[str, Any]) -> tuple[int, int]:
    """Columns and rows of the map."""
    pixels = header["PTTD Data"]["AnalyzableMap MeasData"]["Meas Cond"]["Pixels"]
    width, height = (int(number) for number in pixels.split("x"))
    return width, height


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


def pts_events(path: Path) -> Events:
    """Events of every whole sweep within the map."""
    header = _header(path)
    events, bounds = _sweeps(path, header)
    width, height = _sizes(header)
    image = np.zeros((height, width), np.uint32)
    sweeps = [_places(events[start:end], image) for start, end in zip(bounds, bounds[1:])]
    pixel, channel = (np.concatenate(parts) for parts in zip(*sweeps))
    frame = np.repeat(np.arange(len(sweeps)), [len(each[0]) for each in sweeps])
    return Events.of_places(pixel, channel, frame, (height, width, _CHANNELS), len(sweeps))


def _load(path: Path, frames: Frames | None) -> VendorSignal:
    header = _header(path)
    measured = header["EDS Data"]["AnalyzableMap MeasData"]
    events, bounds = _sweeps(path, header)
    sweeps = _stated_sweeps(header)
    first, last = 0, len(bounds) - 1
    if frames is not None:
        first, last = frame_limits(path, frames, last)
    signal = _counts_of(path, header, events[bounds[first] : bounds[last]])
    spectrum = measured["Data"].get("EDXRF") if frames is None else None
    sums = channel_sums(signal.data, np.uint64)
    check_loss(path, int(sums.sum()), spectrum, allowed=1 / sweeps)
    zero = _zero_channel(header)
    if spectrum is not None and zero is not None:
        size = min(len(sums) - zero, len(spectrum))
        own, stated = sums[zero:][:size], np.asarray(spectrum)[:size]
        above = _above_zero_peak(own != stated)
        check_channels(path, own[above:], stated[above:])
    _check_order(path, events, signal.data.shape[1])
    return replace(signal, frames=last - first)


def _counts_of(path: Path, header: dict[str, Any], events: np.ndarray) -> VendorSignal:
    """The counts of whole sweeps, and the image among the events.

    The events are sorted here and not by RosettaSciIO, which writes images of a map that is higher
    than wide past their end, gives all cells, and lazily loses the lines of such a map. It sums all
    pixels to one, for the axes and metadata.
    """
    width, height = _sizes(header)
    (item,) = run_plugin("jeol", path, downsample=(width, height), SI_dtype=np.uint32)
    for axis, size in zip(item["axes"], (height, width)):
        axis.update(size=size, scale=axis["scale"] / size)
    image = np.zeros((height, width), np.uint32)
    places = _places(events, image)
    ones = np.ones(len(places[0]), np.uint32)
    counts = block_of_counts(places, ones, (height, width, _CHANNELS))
    signal = vendor_signal({**item, "data": counts})
    if not image.any():
        return signal
    # The file does not say which detector it was.
    title = "SEM" if "SEM" in signal.metadata["Acquisition_instrument"] else "STEM"
    axes = [{**axis, "navigate": False} for axis in signal.axes[:2]]
    found = VendorSignal(image, axes, {"General": {"title": title}}, {})
    return replace(signal, images=(found,))


def _places(events: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixel and channel of every count within the map; values of the image are added to `image`."""
    from edxdenoise.io.kernels import jeol_events

    number = np.count_nonzero(events >> 12 == _COUNT)
    pixel, channel = np.empty(number, np.int32), np.empty(number, np.int32)
    inside = jeol_events(events, pixel, channel, image)
    return pixel[:inside], channel[:inside]


def _stated_sweeps(header: dict[str, Any]) -> int:
    return max(int(header["EDS Data"]["AnalyzableMap MeasData"]["Doc"].get("Sweep", 1)), 1)


def _sweeps(path: Path, header: dict[str, Any]) -> tuple[np.ndarray, list[int]]:
    """All events, and where each whole sweep begins and the last one ends.

    An interrupted measurement ends in a part of a sweep, which is left out.
    """
    events = _events(path)
    return events, _bounds(events, *_sizes(header), _stated_sweeps(header))


def _events(path: Path) -> np.ndarray:
    with open(path, "rb") as file:
        file.seek(_EVENTS)
        (start,) = np.fromfile(file, "<u4", 1)
    return np.fromfile(path, "<u2", offset=int(start))


def _bounds(events: np.ndarray, width: int, height: int, sweeps: int) -> list[int]:
    """Where whole sweeps begin and the last of them ends, as RosettaSciIO tells."""
    kinds = events >> 12
    lines, columns, image = (np.flatnonzero(kinds == kind) for kind in (_ROW, _COLUMN, _IMAGE))
    places = (events[lines] & 0xFFF).astype(np.int32)
    bounds = [0, *lines[1:][np.diff(places) < 0], len(events)]
    ends = [0]
    for begin, stop in zip(bounds[: sweeps + 1], bounds[1:]):
        last = [np.searchsorted(kind, stop) - 1 for kind in (lines, columns)]
        with_image = np.searchsorted(image, stop) > np.searchsorted(image, begin)
        whole = last[0] >= 0 and places[last[0]] >= _SCAN - _SCAN // height
        if whole and with_image:
            whole = last[1] >= 0 and (events[columns[last[1]]] & 0xFFF) >= _SCAN - _SCAN // width
        if not whole:
            break
        ends.append(int(stop))
    return ends


def _zero_channel(header: dict[str, Any]) -> int | None:
    """Channel of the map that is the first of the file's sum spectrum."""
    try:
        name = header["PTTD Data"]["AnalyzableMap MeasData"]["Meas Cond"]["Tpl"]
        return int(header["PTTD Param"]["Params"]["PARAMPAGE1_EDXRF"]["Tpl"][name]["DigZ"])
    except KeyError:
        return None


def _above_zero_peak(differing: np.ndarray) -> int:
    """First channel from which the sum spectrum is that of the map, but for changed bits."""
    below = differing[:_ABOVE_ZERO_PEAK]
    runs = np.convolve(below, np.ones(_DIFFERING, int))[: len(below)] == _DIFFERING
    return int(np.flatnonzero(runs)[-1]) + 1 if runs.any() else 0


def _check_order(path: Path, events: np.ndarray, width: int) -> None:
    """Warn where lines, pixels or events are not in the order of the scan.

    Sum spectra do not show that a pixel was moved.
    """
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
