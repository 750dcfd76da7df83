"""Phenom .elid, TIA .emi and .ser, and the sizes of the raw files of ripple and EDAX."""

from __future__ import annotations

import bz2
import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from edxdenoise.errors import FormatError, Rank, warn
from edxdenoise.io.vendor.base import (
    VendorSignal,
    check_channels,
    cut_short,
    is_map,
    run_plugin,
    vendor_signal,
)

# Share of channels in which a .spc agrees with the map beside it if it is its sum spectrum.
_SAME = 0.5


def open_phenom(path: Path) -> list[VendorSignal]:
    """Images, spectra and maps of a .elid."""
    # The reader waits for ever for the end of a stream that is cut short.
    decompressor = bz2.BZ2Decompressor()
    with open(path, "rb") as file:
        while not decompressor.eof:
            block = file.read(1 << 20)
            if not block:
                raise cut_short(path, "its compressed stream has no end")
            decompressor.decompress(block)
    return [vendor_signal(item) for item in run_plugin("phenom", path)]


def open_tia(path: Path) -> list[VendorSignal]:
    """The signals of a .emi in its .ser files, or of one .ser."""
    try:
        # Lazy or not, the reader goes through the whole file when it opens it.
        items = run_plugin("tia", path)
    except (ValueError, TypeError, IndexError) as error:
        raise cut_short(path, "or a .ser file that belongs to it is") from error
    if not items:
        raise FormatError(
            f"cannot read '{path}': no data file '{path.stem}_1.ser' that can be read lies beside "
            "it; copy .emi and .ser files together"
        )
    signals = []
    for item in items:
        signal = vendor_signal(item)
        header = item["original_metadata"]["ser_header_parameters"]
        planned, done = header["TotalNumberElements"], header["ValidNumberElements"]
        if done < planned and is_map(item):
            warn(
                f"'{path}': the map was stopped after {done} of {planned} pixels",
                "the rest is marked as not measured",
                "crop it off with --crop-y",
                rank=Rank.WORSE,
            )
            rows, columns = item["data"].shape[:2]
            # Pixels are stored row by row.
            missing = np.arange(rows * columns).reshape(rows, columns) >= done
            signal = replace(signal, missing=missing)
        signals.append(signal)
    return signals


def check_ripple(path: Path) -> None:
    """Refuse a .rpl whose .raw is missing or smaller than it says."""
    from rsciio.ripple._api import parse_ripple

    candidates = (path.with_suffix(suffix) for suffix in (".raw", ".RAW"))
    raw = next((candidate for candidate in candidates if candidate.exists()), None)
    if raw is None:
        raise FormatError(
            f"cannot read '{path}': its data file '{path.stem}.raw' is missing; copy both together"
        )
    with open(path, encoding="latin-1") as file:
        header = parse_ripple(file)
    sizes = (header["width"], header["height"], header["depth"], int(header["data-length"]))
    _check_size(path, raw, header["offset"] + math.prod(sizes))


def check_edax(path: Path) -> None:
    """Refuse a .spd smaller than its header says, and compare it with the sum spectrum beside it.

    Of the file that we know each channel has the counts of the .spc, and a few that came later.
    """
    from rsciio.edax._api import get_spd_dtype_list

    header = np.fromfile(path, dtype=get_spd_dtype_list(), count=1)[0]
    *sizes, bytes_each = (
        int(header[name]) for name in ("nLines", "nPoints", "nChannels", "countBytes")
    )
    start = int(header["dataOffset"])
    _check_size(path, path, start + math.prod(sizes) * bytes_each)
    if path.with_suffix(".spc").is_file():
        (item,) = run_plugin("edax", path.with_suffix(".spc"))
        spectrum = item["data"][: sizes[-1]]
        lines = np.memmap(path, f"<u{bytes_each}", "r", start, tuple(sizes))
        sums = sum(line.sum(axis=0, dtype=np.uint64) for line in lines)
        # The spectrum of another place differs in nearly all channels that hold counts.
        if spectrum.shape == sums.shape:
            same = (spectrum == sums)[(spectrum > 0) | (sums > 0)]
            if same.size and same.mean() > _SAME:
                check_channels(path, sums, spectrum, more=True)


def _check_size(path: Path, data: Path, expected: int) -> None:
    size = data.stat().st_size
    if size < expected:
        raise cut_short(path, f"{size} of {expected} bytes in '{data.name}'")
