"""Which signals a file holds, and which of them is the spectrum image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edxdenoise.errors import FormatError
from edxdenoise.io.guard import check_file
from edxdenoise.io.metadata import energy_values
from edxdenoise.io.vendor import Frames, VendorSignal, open_isolated

SPECTRUM_IMAGE = "spectrum image"
# Formats of ours that hold a Dataset.
OWN_SUFFIXES = (".nc", ".zarr")
# What `list_signals` opened last, for `read_cube`, which mostly follows.
_kept: dict[tuple[Path, int, int], list[VendorSignal]] = {}


@dataclass(frozen=True)
class SignalInfo:
    """One signal of a file.

    Parameters
    ----------
    index : int
        Number in the file, from 1, as `read_cube` and ``--signal`` take it.
    title : str
        The file's name for it.
    kind : str
        ``spectrum image``, ``image``, ``spectrum`` or ``other``.
    shape : tuple of int
        As stored; (y, x, energy) for a spectrum image.
    dtype : str
        Type of its numbers.
    signal_type : str
        ``EDS_TEM``, ``EDS_SEM``, ``EELS`` ...; empty where the file does not say.
    """

    index: int
    title: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    signal_type: str

    @property
    def nbytes(self) -> int:
        """Bytes of the whole signal in memory, which a compressed file does not show."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def __str__(self) -> str:
        shape = " x ".join(str(size) for size in self.shape)
        kind = f"{self.signal_type} {self.kind}".strip()
        return f"{self.index} '{self.title}' ({kind}, {shape})"


def list_signals(path: Path | str) -> list[SignalInfo]:
    """All signals of a file, without reading the counts where its format allows that.

    Raises
    ------
    FormatError
        If the file cannot be read.
    """
    path = check_file(path)
    if path.suffix.lower() in OWN_SUFFIXES:
        from edxdenoise import schema as v
        from edxdenoise.io.own import open_counts

        ds = open_counts(path)
        counts = ds[v.COUNTS]
        title, kind = str(ds.attrs.get("title", path.stem)), "EDS"
        return [SignalInfo(1, title, SPECTRUM_IMAGE, counts.shape, str(counts.dtype), kind)]
    return [describe(number, signal) for number, signal in enumerate(open_file(path, keep=True), 1)]


def open_file(
    path: Path, *, frames: Frames | None = None, keep: bool = False
) -> list[VendorSignal]:
    """Signals of a vendor's file, of some frames alone where they are given.

    Every failure of a reader is a FormatError. With `keep`, the next call for the same file gets
    them without parsing it again.
    """
    entry = path.stat()
    key = (path.absolute(), entry.st_mtime_ns, entry.st_size)
    kept = _kept.pop(key, None) if frames is None else None
    signals = kept or open_isolated(path, frames)
    _kept.clear()
    if keep:
        _kept[key] = signals
    if not signals:
        raise FormatError(
            f"cannot read '{path}': its reader finds no data in it; check that it is whole and "
            "what its name says"
        )
    return signals


def describe(number: int, signal: VendorSignal) -> SignalInfo:
    """The signal's `SignalInfo`."""
    shape = tuple(int(size) for size in signal.data.shape)
    energy = energy_position(signal)
    kind = "other"
    if signal.data.dtype.kind in "uif":
        if energy is not None and len(shape) == 3:
            kind = SPECTRUM_IMAGE
            shape = (*(size for i, size in enumerate(shape) if i != energy), shape[energy])
        elif energy is not None and len(shape) == 1:
            kind = "spectrum"
        elif energy is None and len(shape) == 2:
            kind = "image"
    return SignalInfo(
        number,
        str(_entry(signal, "General", "title")),
        kind,
        shape,
        str(signal.data.dtype) if signal.data.dtype.names is None else signal.data.dtype.str,
        str(_entry(signal, "Signal", "signal_type")),
    )


def _entry(signal: VendorSignal, group: str, name: str) -> Any:
    return (signal.metadata.get(group) or {}).get(name) or ""


def energy_position(signal: VendorSignal) -> int | None:
    """Which axis of the array is the energy; None where none is."""
    named = [
        i
        for i, axis in enumerate(signal.axes)
        if energy_values(axis) is not None or str(axis.get("name")).lower() in ("energy", "depth")
    ]
    if len(named) == 1:
        return named[0]
    spectral = [i for i, axis in enumerate(signal.axes) if not axis.get("navigate", False)]
    # Two axes that are no map axes are those of an image.
    return spectral[0] if len(spectral) == 1 else None


def pick_signal(
    path: Path | str, infos: Sequence[SignalInfo], wanted: int | str | None = None
) -> SignalInfo:
    """The spectrum image among the signals of a file.

    Parameters
    ----------
    path : Path
        For the messages.
    infos : sequence of SignalInfo
        From `list_signals`.
    wanted : int or str, optional
        Number (from 1) or title. By default the only X-ray map there is, or, where the file does
        not say what its maps are, the only map.

    Raises
    ------
    FormatError
        If there is none, several, or another one than asked for.
    """
    maps = [info for info in infos if info.kind == SPECTRUM_IMAGE]
    if wanted is not None:
        chosen = [info for info in infos if str(wanted) in (str(info.index), info.title)]
        problem = f"has no signal {wanted!r}" if not chosen else f"has several signals {wanted!r}"
        if len(chosen) == 1:
            if chosen[0].kind == SPECTRUM_IMAGE:
                return chosen[0]
            problem = f"holds no spectrum image in signal {chosen[0]}"
    else:
        chosen = [info for info in maps if info.signal_type.upper().startswith("EDS")]
        chosen = chosen or [info for info in maps if info.signal_type.upper() != "EELS"]
        if len(chosen) == 1:
            return chosen[0]
        problem = f"holds {len(chosen)} X-ray maps" if chosen else "holds no X-ray map"
        maps = chosen
    if maps:
        listing = ", ".join(str(info) for info in maps)
        raise FormatError(f"'{path}' {problem}; choose one with --signal NUMBER: {listing}")
    listing = ", ".join(str(info) for info in infos[:6]) + (", ..." if len(infos) > 6 else "")
    raise FormatError(f"'{path}' {problem}, only {listing}; name a file with a spectrum image")
