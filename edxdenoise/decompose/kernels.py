"""Compiled loops over counts. Import it inside functions: numba takes a second to load."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

# In a pixel with more neighbouring counts per channel than this, they are summed up by channel
# first; where there are fewer, they are met one by one. Measured on 2048 channels.
_CROWDED = 2


@numba.njit(nogil=True, cache=True)
def neighbour_sums(
    starts: Any, channel: Any, value: Any, columns: int, own: int, sign: Any, area: Any, table: Any,
    channels: int,
) -> Any:  # fmt: skip
    """Sums over pairs of counts of nearby pixels, each pair once, as they are and with signs.

    Parameters
    ----------
    starts : array of int, shape (y * columns + 1,)
        Where the counts of each pixel begin.
    channel, value : array, shape (count,)
        Channels, and weighted counts.
    columns : int
        Of the map.
    own : int
        Rows whose pixels are the first of a pair; the rows below them are only the second.
    sign : array, shape (y * columns,)
    area : array of int, shape (y,)
        Only rows of the same area make pairs.
    table : array, shape (r + 1, 2 r + 1)
        Weights of pairs by rows down and columns to the right, the own pixel at (0, r).

    Returns
    -------
    array of float64, shape (2, channels, channels)
        From the channel of the first to that of the second.
    """
    rows, reach = area.size, table.shape[1] // 2
    sums = np.zeros((2, channels, channels))
    pixel_of = np.empty(channel.size, np.int32)
    signed = np.empty(channel.size)
    for pixel in range(rows * columns):
        for n in range(starts[pixel], starts[pixel + 1]):
            pixel_of[n] = pixel
            signed[n] = value[n] * sign[pixel]
    depth = np.zeros(own, np.int64)
    for y in range(own):
        while depth[y] < min(reach, rows - 1 - y) and area[y + depth[y] + 1] == area[y]:
            depth[y] += 1
    near = np.zeros((2, channels))
    alone = np.zeros(starts[own * columns], np.bool_)
    for pixel in range(own * columns):
        begin, stop = starts[pixel], starts[pixel + 1]
        if begin == stop:
            continue
        y, x = pixel // columns, pixel % columns
        left, right = max(x - reach, 0), min(x + reach + 1, columns)
        pairs = 0
        for down in range(depth[y] + 1):
            row = (y + down) * columns
            pairs += starts[row + right] - starts[row + (left if down else x + 1)]
        if stop - begin == 1 or pairs < _CROWDED * channels:
            alone[begin:stop] = True
            continue
        near[:] = 0
        for down in range(depth[y] + 1):
            row = (y + down) * columns
            for n in range(starts[row + (left if down else x + 1)], starts[row + right]):
                weight = table[down, pixel_of[n] - row - x + reach]
                near[0, channel[n]] += weight * value[n]
                near[1, channel[n]] += weight * signed[n]
        for m in range(begin, stop):
            plain, flipped = sums[0, channel[m]], sums[1, channel[m]]
            for j in range(channels):
                plain[j] += value[m] * near[0, j]
                flipped[j] += signed[m] * near[1, j]
    # Channel by channel, so that the rows that are added to stay in the cache.
    for m in np.argsort(channel[: alone.size], kind="mergesort"):
        if not alone[m]:
            continue
        y, x = pixel_of[m] // columns, pixel_of[m] % columns
        left, right = max(x - reach, 0), min(x + reach + 1, columns)
        plain, flipped = sums[0, channel[m]], sums[1, channel[m]]
        for down in range(depth[y] + 1):
            row = (y + down) * columns
            for n in range(starts[row + (left if down else x + 1)], starts[row + right]):
                weight = table[down, pixel_of[n] - row - x + reach]
                plain[channel[n]] += weight * value[m] * value[n]
                flipped[channel[n]] += weight * signed[m] * signed[n]
    return sums
