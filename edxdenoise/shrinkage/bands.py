"""Bands of rows, so that no more than a part of a large map is worked on at a time."""

from __future__ import annotations

from collections.abc import Iterator

# Pixels of a band: with surroundings and all that is computed of them, some hundred megabytes.
_PIXELS = 2**19


def bands(rows: int, columns: int, halo: int = 0) -> Iterator[tuple[slice, slice, slice]]:
    """Rows of each band, the same with their surroundings, and where they lie in these.

    Examples
    --------
    >>> for each in bands(600, 2048, halo=48):
    ...     print(*((part.start, part.stop) for part in each))
    (0, 256) (0, 304) (0, 256)
    (256, 512) (208, 560) (48, 304)
    (512, 600) (464, 600) (48, 136)
    """
    height = max(_PIXELS // columns, 1)
    for first in range(0, rows, height):
        end = min(first + height, rows)
        start = max(first - halo, 0)
        around = slice(start, min(end + halo, rows))
        yield slice(first, end), around, slice(first - start, end - start)
