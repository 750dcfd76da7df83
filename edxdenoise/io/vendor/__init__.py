"""Contents of vendors' files as RosettaSciIO gives them, with the traps of each format mended.

`open_signals` reads headers and as little else as the reader allows. Bruker's and JEOL's maps can
only be parsed as a whole: `VendorSignal.load` does, and compares the counts with the sum spectrum
in the file.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from edxdenoise.errors import FormatError
from edxdenoise.io.child import isolated
from edxdenoise.io.events import Events
from edxdenoise.io.guard import guarded, named
from edxdenoise.io.vendor.base import (
    Frames,
    VendorSignal,
    frame_limits,
    no_frames,
    run_plugin,
    vendor_signal,
)
from edxdenoise.io.vendor.bruker import open_bruker
from edxdenoise.io.vendor.jeol import open_asw, open_pts, pts_events
from edxdenoise.io.vendor.others import check_edax, check_ripple, open_phenom, open_tia
from edxdenoise.io.vendor.velox import compile_reader, is_velox, open_velox, velox_events

__all__ = [
    "Frames",
    "VendorSignal",
    "frame_limits",
    "keeps_frames",
    "no_frames",
    "open_isolated",
    "open_signals",
    "plugins",
    "read_events",
]

# Extensions for which RosettaSciIO's plugins, in its own order, are not likeliest first.
_PLUGINS: dict[str, tuple[str, ...]] = {
    "hdf5": ("hspy", "usid", "delmic"),
    "h5": ("hspy", "usid", "delmic", "tofwerk", "arina"),
    "img": ("jeol", "hamamatsu"),
}
# What their readers parse when they open them, if with images alone.
_PARSED_WHOLE = {"bcf", "pts", "asw", "elid", "emi", "ser"}
_COMMON = ".bcf .pts .asw .spd .emd .emi .ser .elid .hspy .rpl .dm3 .dm4 .nc .zarr"
_HINTS = {
    "zip": "unpack it and name the file inside",
    "raw": "name its .rpl file instead",
    "ipr": "name its .spd file instead",
}


def open_isolated(path: Path, frames: Frames | None = None) -> list[VendorSignal]:
    """All signals of a file as `open_signals` gives them, from a child process.

    Files that are read block by block later on are opened once more here.
    """
    prepare = compile_reader if path.suffix.lower() == ".emd" else None
    work = partial(_open_once, path, frames)
    signals = isolated(path, work, prepare=prepare)
    return guarded(path, lambda: open_signals(path, frames)) if signals is None else signals


def keeps_frames(path: Path) -> bool:
    """Whether a file is of a kind that holds frames apart."""
    return path.suffix.lower() == ".pts" or _is_velox(path)


def read_events(path: Path) -> Events:
    """Events of a map and their frames, from a child process.

    Raises
    ------
    ParameterError
        If the file does not hold frames apart.
    """
    if path.suffix.lower() == ".pts":
        return isolated(path, partial(pts_events, path))
    if _is_velox(path):
        return isolated(path, partial(velox_events, path), prepare=compile_reader)
    raise no_frames(path)


def _open_once(path: Path, frames: Frames | None) -> list[VendorSignal] | None:
    """All signals of a file; None where blocks of it are read later on."""
    signals = open_signals(path, frames)
    whole = path.suffix[1:].lower() in _PARSED_WHOLE or _is_velox(path)
    return signals if whole else None


def open_signals(path: Path, frames: Frames | None = None) -> list[VendorSignal]:
    """All signals of a file, in its order; of some `frames` alone where they are given.

    To be called within `guard.guarded`: readers fail in many ways.

    Raises
    ------
    FormatError
        If the extension is unknown, or the file is known to be cut short.
    ParameterError
        If it does not hold frames apart, or not those.
    """
    suffix = path.suffix[1:].lower()
    if frames is not None and suffix not in ("pts", "asw") and not _is_velox(path):
        raise no_frames(path)
    match suffix:
        case "bcf":
            return open_bruker(path)
        case "pts":
            return open_pts(path, frames)
        case "asw":
            return open_asw(path, frames)
        case "elid":
            return open_phenom(path)
        case "emi" | "ser":
            return open_tia(path)
        case "emd" if is_velox(path):
            return open_velox(path, frames)
        case "rpl":
            check_ripple(path)
        case "spd":
            check_edax(path)
    return _open_with_plugins(path)


def _is_velox(path: Path) -> bool:
    return path.suffix.lower() == ".emd" and is_velox(path)


def _open_with_plugins(path: Path) -> list[VendorSignal]:
    failures = []
    for plugin in plugins(path):
        try:
            signals = guarded(path, lambda: _open_lazily(plugin, path))
        except FormatError as error:
            failures.append(error)
            continue
        if signals:
            return signals
    if failures:
        raise failures[0]
    return []


def _open_lazily(plugin: str, path: Path) -> list[VendorSignal]:
    try:
        items = run_plugin(plugin, path, lazy=True)
    except NotImplementedError:
        items = run_plugin(plugin, path)
    return [vendor_signal({**item, "data": named(path, item["data"])}) for item in items]


def plugins(path: Path) -> tuple[str, ...]:
    """Names of the RosettaSciIO modules that may read a file, likeliest first.

    Raises
    ------
    FormatError
        If none knows the extension.
    """
    extension = path.suffix[1:].lower()
    if extension in _PLUGINS:
        return _PLUGINS[extension]
    from rsciio import IO_PLUGINS

    found = tuple(
        plugin["api"].removeprefix("rsciio.")
        for plugin in IO_PLUGINS
        if extension in (known.lower() for known in plugin["file_extensions"])
    )
    if not found:
        hint = _HINTS.get(extension, f"readable are {_COMMON} and what else RosettaSciIO reads")
        raise FormatError(f"cannot read '{path}': the extension '.{extension}' is unknown; {hint}")
    return found
