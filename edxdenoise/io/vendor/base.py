"""Signals in RosettaSciIO's terms, common to all vendors' formats, and their check."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import poisson

from edxdenoise.errors import FormatError, ParameterError, Rank, warn
from edxdenoise.io.metadata import apply_mapping

# The sum spectrum a file holds and the sum over its map differ by up to 1 % in sound files.
_TOLERANCE = 0.03
# Probability that lost counts lie in one channel by chance, below which they were not lost by it.
_CHANCE = 1e-9

# The first frame and the one after the last, as Python counts them; infinite for an open end.
Frames = tuple[int, int | float]


@dataclass(frozen=True)
class VendorSignal:
    """One signal of a file in RosettaSciIO's terms.

    Parameters
    ----------
    data : array-like or SparseBlock
        Dask or NumPy array; only shape and dtype count where `load` is given.
    axes : list of dict
        In the order of the array's axes.
    metadata, original_metadata : dict
        As HyperSpy would show them; the vendor's own.
    load : callable, optional
        Parses the file as a whole and gives the signal again, with its counts in memory.
    images : tuple of VendorSignal
        Images that only `load` finds.
    missing : array of bool, shape (y, x), optional
        Pixels of a map that were not measured.
    needed : int, optional
        Bytes that `load` takes; by default those of all cells.
    frames : int, optional
        Frames of which the counts are the sum, where that is known.
    """

    data: Any
    axes: list[dict[str, Any]]
    metadata: dict[str, Any]
    original_metadata: dict[str, Any]
    load: Callable[[], VendorSignal] | None = None
    images: tuple[VendorSignal, ...] = ()
    missing: np.ndarray | None = None
    needed: int | None = None
    frames: int | None = None


def run_plugin(plugin: str, path: Path, **options: Any) -> list[dict[str, Any]]:
    """Return the signals that RosettaSciIO's `plugin` reads from a file."""
    # As text: some readers cut the name apart as a string.
    return import_module(f"rsciio.{plugin}").file_reader(str(path), **options)


def vendor_signal(
    item: Mapping[str, Any], load: Callable[[], VendorSignal] | None = None
) -> VendorSignal:
    """One item of what a plugin gives, its metadata filled in and its axes in order."""
    original = item.get("original_metadata") or {}
    metadata = apply_mapping(item["metadata"], original, item.get("mapping") or {})
    axes = list(item["axes"])
    # Readers list the axes in the order of the array or number them, not always rightly.
    if [int(axis["size"]) for axis in axes] != list(item["data"].shape):
        axes.sort(key=lambda axis: axis.get("index_in_array", 0))
    return VendorSignal(item["data"], axes, metadata, original, load)


def is_map(item: Mapping[str, Any]) -> bool:
    """Whether an item has three axes."""
    return item["data"].ndim == 3


def frame_limits(path: Path, frames: Frames, number: int) -> tuple[int, int]:
    """First frame and the one after the last, of so many.

    Raises
    ------
    ParameterError
        If a frame is not there.

    Examples
    --------
    >>> frame_limits(Path("a.pts"), (10, math.inf), 50)
    (10, 50)
    """
    first, end = frames
    last = number if end == math.inf else int(end)
    first, last = (each + number if each < 0 else each for each in (first, last))
    if not 0 <= first < last <= number:
        raise ParameterError(
            f"frames {frames[0]}:{'' if end == math.inf else end} of '{path}' are not all there; "
            f"choose from 0:{number} (--frames)"
        )
    return first, last


def no_frames(path: Path) -> ParameterError:
    """The error for a file without frames of which some are wanted."""
    return ParameterError(
        f"'{path}' does not hold frames apart, as Velox .emd and JEOL .pts files do and a .zarr "
        "made of one by convert --frames keep; leave out --frames and --by-frame"
    )


def cut_short(path: Path, detail: str) -> FormatError:
    """The error for a file that lacks its end."""
    return FormatError(
        f"cannot read '{path}': the file is cut short or damaged, {detail}; copy or export it again"
    )


def check_loss(
    path: Path, found: int, spectrum: np.ndarray | None, *, allowed: float = 0.0
) -> None:
    """Compare the total of a map with that of the sum spectrum its file holds.

    Parameters
    ----------
    path : Path
        For the messages.
    found : int
        Counts of the map.
    spectrum : array, shape (energy,), optional
        The file's own sum spectrum, where it has one.
    allowed : float
        Share of the counts that the reader may rightly leave out.

    Raises
    ------
    FormatError
        If more is missing, or there are counts too many.

    Warns
    -----
    EdxdenoiseWarning
        If some of what may be missing is missing.
    """
    if spectrum is None:
        return
    expected = int(np.sum(spectrum, dtype=np.uint64))
    if found > (1 + _TOLERANCE) * expected:
        raise _differing(path, found - expected, expected)
    if found >= (1 - _TOLERANCE) * expected:
        return
    message = f"its map holds only {found} of the {expected} counts of its own sum spectrum"
    if found == 0 or found < (1 - _TOLERANCE - allowed) * expected:
        raise FormatError(
            f"cannot read '{path}': {message}, it is a line scan or damaged; export a map again"
        )
    warn(
        f"'{path}': {message}",
        "an unfinished sweep is left out; at% are not affected",
        rank=Rank.NOTE,
    )


def check_channels(
    path: Path, sums: np.ndarray, spectrum: np.ndarray, *, more: bool = False
) -> None:
    """Compare each channel of a map with the sum spectrum its file holds.

    In sound files no channel of the map has more counts than that spectrum. Some have a few less,
    as if pixels had been measured and not stored: in proportion to the spectrum.

    Parameters
    ----------
    path : Path
        For the messages.
    sums, spectrum : array, shape (channel,)
        Sum over the map and the file's own, in channels that can be compared.
    more : bool
        Sound files are the other way round: no channel of the map has fewer counts.

    Raises
    ------
    FormatError
        If they differ by more than 3 % where they must not differ.

    Warns
    -----
    EdxdenoiseWarning
        If counts are in single channels too many or too few.
    """
    gone = spectrum.astype(float) - sums
    gone = -gone if more else gone
    expected = float(spectrum.sum())
    excess = int(-gone.clip(max=0).sum())
    if excess > _TOLERANCE * expected:
        raise _differing(path, excess, int(expected), "fewer" if more else "more")
    gone = gone.clip(min=0)
    chance = poisson.sf(gone - 1, gone.sum() * spectrum / max(expected, 1.0))
    if excess or (chance < _CHANCE).any():
        warn(
            f"'{path}': {excess or int(gone.sum())} of its {int(expected)} counts are not where "
            "its own sum spectrum has them",
            "a bit of the file has changed: some counts are in wrong channels or pixels",
            "copy or export it again",
            rank=Rank.WRONG,
        )


def warn_moved(path: Path, detail: str) -> None:
    """Warn of a file whose pixels are not in the order in which they were measured."""
    warn(
        f"'{path}': {detail}",
        "a bit of the file has changed: some counts are lost or in wrong pixels",
        "copy or export it again",
        rank=Rank.WRONG,
    )


def _differing(path: Path, number: int, expected: int, kind: str = "more") -> FormatError:
    return FormatError(
        f"cannot read '{path}': its map has {number} counts {kind} than its own sum spectrum of "
        f"{expected}, it is damaged; copy or export it again"
    )
