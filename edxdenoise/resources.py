"""Cores and memory: how much there is, how much a job needs, how people write it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import psutil

from edxdenoise.errors import MemoryLimitError, ParameterError

# Large enough that Dask's bookkeeping is nothing beside the matrix product, small enough that a
# block as float32 (33 MB) leaves room for one per worker in a small memory.
_BLOCK_PIXELS, _BLOCK_VALUES = 4096, 1 << 23
# Copies of a block as float32 that one worker may hold at a time: read, weighted, product, and
# what the next stage makes of it.
BLOCK_COPIES = 4

# Maps held for the spatial statistic, and those a worker makes for one component.
_STATISTIC_MAPS, _TRANSFORMS = 14, 8
# Values of a tile and its surroundings where neighbours are looked at: 32 MB as float32, of which a
# worker holds a few copies.
TILE_VALUES = 8_000_000
_TILE_COPIES = 6
# Maps that smoothing of nine kept components works on, those kept included; measured on a map of
# 1024 x 1024 pixels.
_SHRINK_MAPS = 305
# Bytes of the sums over neighbours of all bands together, where few cells hold counts.
NEIGHBOUR_SUMS = 300_000_000
# What Python, the libraries and compiled code take by themselves.
_PROGRAM = 450_000_000
# What the pictures of a report and its audit take besides, and the maps that it holds; measured on
# 512 x 512 x 2048 and 1024 x 1024 x 2048 with two workers.
_REPORT, _REPORT_MAPS = 380_000_000, 205

_SIZE_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def block_pixels(channels: int) -> int:
    """Pixels of a block where memory does not ask for fewer.

    Examples
    --------
    >>> block_pixels(650), block_pixels(4096)
    (4096, 2048)
    """
    return max(min(_BLOCK_PIXELS, _BLOCK_VALUES // channels), 1)


def parse_memory(text: str) -> int:
    """Bytes from text such as ``4GB``, ``500 MiB`` or ``1e9``.

    Examples
    --------
    >>> parse_memory("4GB"), parse_memory("1 KiB")
    (4000000000, 1024)
    """
    match = re.fullmatch(
        r"\s*((?:[0-9]+[.]?[0-9]*|[.][0-9]+)(?:e[0-9]{1,2})?)\s*([kmgt]?)(i?)b?\s*", text.lower()
    )
    if match is None:
        raise ParameterError(f"memory '{text}' is not understood; write it as 4GB or 500MiB")
    number, prefix, binary = match.groups()
    unit = 1024 ** "kmgt".index(prefix) * 1024 if binary and prefix else _SIZE_UNITS[prefix]
    size = int(float(number) * unit)
    if size <= 0:
        raise ParameterError(f"memory '{text}' must be more than 0")
    return size


def format_memory(size: float) -> str:
    """Bytes for people.

    Examples
    --------
    >>> format_memory(1_072_693_248), format_memory(512)
    ('1.07 GB', '512 B')
    """
    for unit, width in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= width:
            number = size / width
            return f"{number:.0f} {unit}" if number >= 100 else f"{number:.3g} {unit}"
    return f"{int(size)} B"


def default_memory_limit() -> int:
    """Half of the memory that is free now, in bytes."""
    return psutil.virtual_memory().available // 2


def default_workers() -> int:
    """Number of processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes a denoising job needs.

    Parameters
    ----------
    cube : int
        The counts as they are stored.
    held : int
        What is held while blocks are worked on, whatever their size: score maps, or sums over
        pairs of channels.
    streamed : int
        The least the job can do with: one pixel per worker at a time, and what is held.
    in_memory : int
        With the whole cube in memory, which saves reading it several times.
    """

    cube: int
    held: int
    streamed: int
    in_memory: int


def memory_needed(
    shape: tuple[int, int, int],
    itemsize: int,
    *,
    components: int = 100,
    workers: int | None = None,
    neighbours: bool = False,
    shrink: bool = False,
    sparse: bool = False,
    report: bool = False,
) -> MemoryNeed:
    """Memory for denoising a cube of this shape (y, x, energy) and bytes per count.

    With `neighbours`, components are looked for in tiles with their surroundings; with `shrink`,
    maps are averaged over like pixels; `sparse` where few cells hold counts; with `report`, one is
    written. The need is that of the stage that needs most.

    Examples
    --------
    >>> format_memory(memory_needed((1024, 1024, 2048), 1, workers=2).held)
    '1.29 GB'
    """
    workers = default_workers() if workers is None else workers
    pixels, channels = shape[0] * shape[1], shape[2]
    cube = pixels * channels * itemsize
    square = 8 * channels**2
    # A Gram matrix for each worker, its running sum and the eigensolver's copy, in 64 bits.
    sums = (2 if sparse else workers + 2) * square
    if neighbours and sparse:
        # Two sums for every band.
        sums += 2 * square * max(1, min(workers, NEIGHBOUR_SUMS // (2 * square)))
    elif neighbours:
        # Two sums for every worker, and two while they are added up.
        tile = min(TILE_VALUES, 4 * pixels * channels)
        sums += workers * _TILE_COPIES * 4 * tile + (workers + 2) * 2 * square
    # The maps once as computed, once more until their signs are known.
    maps = 4 * pixels * 2 * components
    held = _PROGRAM + max(sums, maps)
    # Later no blocks are worked on; once components are selected, those dropped wait on the disk.
    selected = components + _STATISTIC_MAPS + _TRANSFORMS * workers
    later = _PROGRAM + 4 * pixels * max(selected, _SHRINK_MAPS if shrink else 0)
    if report:
        later = max(later, _PROGRAM + _REPORT + 4 * pixels * _REPORT_MAPS)
    per_worker = 4 * channels * BLOCK_COPIES
    blocks = workers * per_worker * min(block_pixels(channels), pixels)
    return MemoryNeed(
        cube=cube,
        held=held,
        streamed=max(held + workers * per_worker, later),
        in_memory=max(held + blocks, later) + cube,
    )


def check_memory(
    need: int, limit: int, what: str, way_out: str = "crop, rebin or ask for fewer components"
) -> None:
    """Raise MemoryLimitError if `what` needs more bytes than the limit."""
    if need > limit:
        raise MemoryLimitError(
            # Half a percent more than needed, so that the number as printed is enough.
            f"{what} needs {format_memory(1.005 * need)}, the limit is {format_memory(limit)}; "
            f"raise --memory-limit, or {way_out}"
        )
