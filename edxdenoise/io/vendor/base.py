"""Signals in RosettaSciIO's terms, common to all vendors' formats, and their check."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from edxdenoise.errors import FormatError, Rank, warn
from edxdenoise.io.metadata import apply_mapping

# The sum spectrum a file holds and the sum over its map differ by up to 1 % in sound files.
_TOLERANCE = 0.03
# Where they have the same channels, by less than this.
_SUSPECT = 0.002


@dataclass(frozen=True)
class VendorSignal:
    """One signal of a file in RosettaSciIO's terms.

    Parameters
    ----------
    data : array-like
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
    """

    data: Any
    axes: list[dict[str, Any]]
    metadata: dict[str, Any]
    original_metadata: dict[str, Any]
    load: Callable[[], VendorSignal] | None = None
    images: tuple[VendorSignal, ...] = ()
    missing: np.ndarray | None = None


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


def cut_short(path: Path, detail: str) -> FormatError:
    """The error for a file that lacks its end."""
    return FormatError(
        f"cannot read '{path}': the file is cut short or damaged, {detail}; copy or export it again"
    )


def check_loss(
    path: Path,
    counts: np.ndarray,
    spectrum: np.ndarray | None,
    *,
    allowed: float = 0.0,
    channels: bool = False,
) -> None:
    """Compare the sum over a map with the sum spectrum its file holds.

    Parameters
    ----------
    path : Path
        For the messages.
    counts : array, shape (y, x, energy)
        The map.
    spectrum : array, shape (energy,), optional
        The file's own sum spectrum, where it has one.
    allowed : float
        Share of the counts that the reader may rightly leave out.
    channels : bool
        The spectrum has the channels of the map, so that each can be compared.

    Raises
    ------
    FormatError
        If more is missing, or there are counts too many or in other channels.

    Warns
    -----
    EdxdenoiseWarning
        If some of what may be missing is missing, or some channels differ.
    """
    if spectrum is None:
        return
    expected, found = int(np.sum(spectrum, dtype=np.uint64)), int(counts.sum(dtype=np.uint64))
    excess = found - expected
    if channels and len(spectrum) == counts.shape[2]:
        sums = counts.sum(axis=(0, 1), dtype=np.uint64)
        excess = max(excess, int(np.abs(sums.astype(float) - spectrum).sum()) - abs(excess))
    if excess > _TOLERANCE * expected:
        raise FormatError(
            f"cannot read '{path}': its map and its own sum spectrum differ by {excess} of "
            f"{expected} counts, it is damaged; copy or export it again"
        )
    if channels and excess > _SUSPECT * expected:
        warn(
            f"'{path}': its map and its own sum spectrum differ by {excess} of {expected} counts",
            "some counts may be in wrong channels or pixels",
            "copy the file again",
            rank=Rank.WRONG,
        )
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
