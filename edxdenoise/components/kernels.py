"""Compiled loops of neighbours and smoothing.

Import it inside functions: numba takes a second to load.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

_compiled: Any = numba.njit(parallel=True, fastmath=True, nogil=True, cache=True)


@_compiled
def filtered(planes: Any, line: Any) -> Any:
    """Convolve with `line` along y and x, zeros beyond the border.

    Parameters
    ----------
    planes : array of float32, shape (k, y, x)
    line : array of float32, shape (2 reach + 1,)
        Symmetric.
    """
    depth, rows, columns = planes.shape
    reach = line.size // 2
    result = np.empty_like(planes)
    for index in numba.prange(depth * rows):
        k, y = index // rows, index % rows
        along_y = np.zeros(columns + 2 * reach, np.float32)
        inside = along_y[reach : reach + columns]
        for step in range(max(-reach, -y), min(reach, rows - 1 - y) + 1):
            weight, row = line[step + reach], planes[k, y + step]
            for x in range(columns):
                inside[x] += weight * row[x]
        target = result[k, y]
        target[:] = 0
        for step in range(2 * reach + 1):
            weight, row = line[step], along_y[step : step + columns]
            for x in range(columns):
                target[x] += weight * row[x]
    return result


@_compiled
def enlarged(coarse: Any, factor: int, rows: int, columns: int) -> Any:
    """Interpolate maps of bins of `factor` pixels linearly between the centres of the bins.

    Parameters
    ----------
    coarse : array of float32, shape (k, ceil(rows / factor), ceil(columns / factor))
    """
    depth, high, wide = coarse.shape
    result = np.empty((depth, rows, columns), np.float32)
    left, part = np.empty(columns, np.int64), np.empty(columns, np.float32)
    for x in range(columns):
        place = min(max((x + 0.5) / factor - 0.5, 0.0), wide - 1.0)
        left[x] = min(int(place), max(wide - 2, 0))
        part[x] = place - left[x]
    right = np.minimum(left + 1, wide - 1)
    for index in numba.prange(depth * rows):
        k, y = index // rows, index % rows
        place = min(max((y + 0.5) / factor - 0.5, 0.0), high - 1.0)
        first = min(int(place), max(high - 2, 0))
        share = np.float32(place - first)
        low, up = coarse[k, first], coarse[k, min(first + 1, high - 1)]
        row = np.empty(wide, np.float32)
        for x in range(wide):
            row[x] = (np.float32(1) - share) * low[x] + share * up[x]
        target = result[k, y]
        for x in range(columns):
            target[x] = (np.float32(1) - part[x]) * row[left[x]] + part[x] * row[right[x]]
    return result


@_compiled
def binned(planes: Any, factor: int) -> Any:
    """Sums over bins of `factor` x `factor` pixels, the last ones smaller."""
    depth, rows, columns = planes.shape
    high, wide = -(-rows // factor), -(-columns // factor)
    result = np.zeros((depth, high, wide), np.float32)
    for index in numba.prange(depth * high):
        k, j = index // high, index % high
        target = result[k, j]
        for y in range(j * factor, min((j + 1) * factor, rows)):
            row = planes[k, y]
            for x in range(columns):
                target[x // factor] += row[x]
    return result


@_compiled
def binned_risk(means: Any, values: Any, weights: Any, variance: Any, own: Any, factor: int) -> Any:
    """Sums over bins of the standardised risk, weights (c - a)^2 / v + 2 w, where there is weight.

    Parameters
    ----------
    means, values, variance, own : array of float32, shape (k, y, x)
        a, c, v and w; see `edxdenoise.components.smoothing`.
    weights : array of float32, shape (y, x)
    """
    depth, rows, columns = means.shape
    high, wide = -(-rows // factor), -(-columns // factor)
    result = np.zeros((depth, high, wide), np.float32)
    for index in numba.prange(depth * high):
        k, j = index // high, index % high
        target = result[k, j]
        for y in range(j * factor, min((j + 1) * factor, rows)):
            for x in range(columns):
                if weights[y, x] > 0:
                    step = values[k, y, x] - means[k, y, x]
                    risk = weights[y, x] * step * step / variance[k, y, x]
                    target[x // factor] += risk + np.float32(2) * own[k, y, x]
    return result


@numba.njit(fastmath=True, nogil=True, cache=True)
def _add(sums: Any, values: Any, alike: Any, y: int, j: int, first: int, shift: int) -> None:
    """Add to row y what is alike in row j, `shift` pixels to the right, and the other way round."""
    end = first + alike.size
    here, there = values[y, first:end], values[j, first + shift : end + shift]
    to_here, to_there = sums[y, first:end], sums[j, first + shift : end + shift]
    for i in range(alike.size):
        to_here[i] += alike[i] * there[i]
    for i in range(alike.size):
        to_there[i] += alike[i] * here[i]


@_compiled
def alike_means(
    guide: Any, guide_variance: Any, values: Any, weights: Any,
    along_y: Any, along_x: Any, tolerances: Any,
) -> Any:  # fmt: skip
    """Sum over those pixels nearby whose guide is alike; see `non_local_means`.

    Parameters
    ----------
    guide, guide_variance : array of float32, shape (q, y, x)
    values : array of float32, shape (k, y, x)
        Weights times what is averaged.
    weights : array of float32, shape (y, x)
    along_y, along_x : array of int, shape (step,)
        Downwards, or to the right: each step is also made backwards, for the distance is the same.
    tolerances : array of float32, shape (t,)

    Returns
    -------
    array of float32, shape (t, 1 + k, y, x)
        Sums of the weights, then of the values, without the pixel itself.
    """
    depth, rows, columns = guide.shape
    count, tries = values.shape[0], tolerances.size
    sums = np.zeros((tries, 1 + count, rows, columns), np.float32)
    half, nothing = np.float32(-0.5), np.float32(0)
    # Rows are worked on in bands, first every other one: a band writes into the next one as well.
    height = along_y.max() + 1
    bands = -(-rows // height)
    for parity in range(2):
        for pair in numba.prange((bands + 1 - parity) // 2):
            start = (2 * pair + parity) * height
            distance = np.empty(columns, np.float32)
            alike = np.empty(columns, np.float32)
            for y in range(start, min(start + height, rows)):
                # One step for a whole row: loops over slices, which the compiler vectorises.
                for step in range(along_y.size):
                    j, shift = y + along_y[step], along_x[step]
                    if j >= rows:
                        continue
                    first, end = max(0, -shift), min(columns, columns - shift)
                    if first >= end:
                        continue
                    d, w = distance[first:end], alike[first:end]
                    d[:] = 0
                    for q in range(depth):
                        u, other = guide[q, y, first:end], guide[q, j, first + shift : end + shift]
                        v = guide_variance[q, y, first:end]
                        another = guide_variance[q, j, first + shift : end + shift]
                        for i in range(d.size):
                            difference = u[i] - other[i]
                            d[i] += difference * difference / (v[i] + another[i])
                    for t in range(tries):
                        tolerance = tolerances[t]
                        for i in range(d.size):
                            w[i] = np.exp(half * max(d[i] - tolerance, nothing))
                        _add(sums[t, 0], weights, w, y, j, first, shift)
                        for k in range(count):
                            _add(sums[t, 1 + k], values[k], w, y, j, first, shift)
    return sums


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
