"""Compiled loops of smoothing. Import it inside functions: numba takes a second to load."""

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


@_compiled
def alike_means(
    guide: Any, guide_variance: Any, values: Any, weights: Any,
    along_y: Any, along_x: Any, tolerances: Any,
) -> Any:  # fmt: skip
    """Average every pixel with those nearby whose guide is alike; see `edxdenoise.components.nlm`.

    Parameters
    ----------
    guide, guide_variance : array of float32, shape (q, y, x)
    values : array of float32, shape (k, y, x)
        Sums: weights times what is averaged.
    weights : array of float32, shape (y, x)
    along_y, along_x : array of int, shape (step,)
    tolerances : array of float32, shape (t,)

    Returns
    -------
    array of float32, shape (t, 1 + k, y, x)
        Sums of the weights, then of the values; each pixel has a share of 1 in its own sums.
    """
    depth, rows, columns = guide.shape
    count, tries = values.shape[0], tolerances.size
    sums = np.zeros((tries, 1 + count, rows, columns), np.float32)
    half, nothing = np.float32(-0.5), np.float32(0)
    for y in numba.prange(rows):
        distance = np.empty(columns, np.float32)
        alike = np.empty(columns, np.float32)
        # One step for a whole row: loops over slices, which the compiler vectorises.
        for step in range(along_y.size):
            j, shift = y + along_y[step], along_x[step]
            if j < 0 or j >= rows:
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
            counts = weights[j, first + shift : end + shift]
            for t in range(tries):
                tolerance = tolerances[t]
                total = sums[t, 0, y, first:end]
                for i in range(d.size):
                    w[i] = np.exp(half * max(d[i] - tolerance, nothing))
                    total[i] += w[i] * counts[i]
                for k in range(count):
                    above = sums[t, 1 + k, y, first:end]
                    value = values[k, j, first + shift : end + shift]
                    for i in range(d.size):
                        above[i] += w[i] * value[i]
    return sums
