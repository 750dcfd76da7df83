"""Bruker .bcf: a small file system whose blocks the compiled decoder trusts blindly."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from struct import Struct
from typing import Any

import dask.array as da
import numpy as np

from edxdenoise.blocks import channel_sums, compact, in_smallest_type, pixel_sums
from edxdenoise.cube import smallest_count_dtype
from edxdenoise.errors import FormatError
from edxdenoise.io.vendor.base import (
    VendorSignal,
    check_channels,
    check_loss,
    cut_short,
    is_map,
    run_plugin,
    vendor_signal,
    warn_moved,
)

# Bytes before the first line of a map. Of a pixel: its place in the line, channels of the map and
# of the pixel, unknown, kind of packing, unknown, number of pulses, size of what follows.
_HEAD, _PIXEL = 0x1A0, Struct("<IHHIHHHI")
# Kinds of packing that list the channel of every count.
_PULSES = (0, 1)


def open_bruker(path: Path) -> list[VendorSignal]:
    """Images and maps of a .bcf; its counts are decoded by `VendorSignal.load`."""
    from rsciio.bruker._api import BCF_reader

    with open(path, "rb") as file:
        if file.read(8) != b"AAMVHFSS":
            raise FormatError(
                f"cannot read '{path}': it is no Bruker .bcf map; check the file or its extension"
            )
    reader = BCF_reader(str(path))
    _check_blocks(path, reader)
    numbers = iter(reader.available_indexes)
    signals = []
    for item in run_plugin("bruker", path, lazy=True, index="all"):
        if not is_map(item):
            signals.append(vendor_signal(item))
            continue
        # The reader gives both axes the height of a pixel.
        width = item["original_metadata"].get("Microscope", {}).get("DX")
        if width is not None:
            item["axes"][1]["scale"] = width
        data = item["data"]
        # No memory behind it, and nothing of the reader: the signal is handed to another process.
        item["data"] = da.zeros(data.shape, dtype=data.dtype, chunks=-1)
        signals.append(vendor_signal(item, partial(_load, path, item, next(numbers))))
    return signals


def _check_blocks(path: Path, reader: Any) -> None:
    """Refuse a file that lacks blocks: the decoder would read past its buffer."""
    size = path.stat().st_size
    for item in reader.vfs["EDSDatabase"].values():
        if isinstance(item, dict):
            continue
        ends = item.pointers + reader.usable_chunk
        if ends.size:
            ends[-1] = item.pointers[-1] + (item.size % reader.usable_chunk or reader.usable_chunk)
        if ends.size < item.size_in_chunks or (ends > size).any():
            raise cut_short(path, f"its {size} bytes do not hold all of '{item.name}'")


def _load(path: Path, item: Mapping[str, Any], number: int) -> VendorSignal:
    from rsciio.bruker._api import BCF_reader

    reader = BCF_reader(str(path))
    # The reader guesses the type from the mean of the strongest channel, and a pixel far above the
    # mean would overflow unseen: decode one size wider, shrink afterwards.
    guess = np.iinfo(reader.header.estimate_map_depth(index=number))
    wider = smallest_count_dtype(min(guess.max + 1, np.iinfo(np.uint32).max)).type
    reader.header.estimate_map_depth = lambda **_: wider
    counts = compact(reader.parse_hypermap(index=number, lazy=False))
    spectrum, sums = reader.header.spectra_data[number].data, channel_sums(counts, np.uint64)
    check_loss(path, int(sums.sum()), spectrum)
    if len(spectrum) == counts.shape[2]:
        check_channels(path, sums, spectrum)
    _check_pixels(
        path, pixel_sums(counts, np.uint64), reader.get_file(f"EDSDatabase/SpectrumData{number}")
    )
    # Small before it is handed over.
    return vendor_signal({**item, "data": in_smallest_type(counts)})


def _check_pixels(path: Path, totals: np.ndarray, stored: Any) -> None:
    """Warn where pixels are not in order, have other counts than stated, or do not end rightly.

    Sum spectra do not show that a pixel was moved, nor that a count left the energy axis.
    """
    content = b"".join(stored.get_iter_and_properties()[0])
    height, width = (int.from_bytes(content[i : i + 4], "little") for i in (0, 4))
    position, wrong = _HEAD, 0
    for line in range(height):
        pixels = int.from_bytes(content[position : position + 4], "little")
        position, before = position + 4, -1
        for _ in range(pixels):
            place, _, _, _, packing, _, pulses, size = _PIXEL.unpack_from(content, position)
            fits = before < place < width
            if fits and packing in _PULSES:
                fits = totals[line, place] == pulses
            wrong += not fits
            position, before = position + _PIXEL.size + size, place
    if wrong or position != len(content):
        warn_moved(path, f"{wrong or 'some'} pixels are not in order or not complete")
