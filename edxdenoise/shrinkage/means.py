"""Vector non-local means: a pixel is averaged with those nearby that are alike within their noise.

After A. Buades, B. Coll and J.-M. Morel (Multiscale Model. Simul. 4 (2005) 490), with the vector
of all profiles in place of patches, and its known noise in place of a parameter. With u the guide
and v the variance of its noise, q = 1..Q,

    d_ij = sum_q (u_iq - u_jq)^2 / (v_iq + v_jq),    w_ij = n_j exp(-max(d_ij - D, 0) / 2).

For two pixels of the same material d is chi-square with Q degrees of freedom. D is a quantile of
that: at .99 hardly a neighbour is chosen for its noise, since weights are equal up to there.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from scipy.stats import chi2

# All pixels as near as this along y and x, and beyond every third as far as that.
_NEAR, _FAR, _STEP = 8, 18, 3
REACH = _FAR


@cache
def offsets() -> tuple[np.ndarray, np.ndarray]:
    """Steps along y and x to the pixels that one is averaged with, itself first."""
    near = [(y, x) for y in range(-_NEAR, _NEAR + 1) for x in range(-_NEAR, _NEAR + 1)]
    sparse = range(-_FAR, _FAR + 1, _STEP)
    far = [(y, x) for y in sparse for x in sparse if max(abs(y), abs(x)) > _NEAR]
    steps = np.array(sorted(near + far, key=lambda step: (step[0] ** 2 + step[1] ** 2, step)))
    return np.ascontiguousarray(steps[:, 0]), np.ascontiguousarray(steps[:, 1])


def means(
    guide: np.ndarray,
    guide_variance: np.ndarray,
    values: np.ndarray,
    variance: np.ndarray,
    weights: np.ndarray,
    area: np.ndarray,
    alike: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average every pixel with those that the guide finds alike.

    Parameters
    ----------
    guide, guide_variance : array of float32, shape (y, x, q)
        u and v of the module.
    values, variance : array of float32, shape (y, x, k)
        What is averaged, and the variance of its noise.
    weights : array of float32, shape (y, x)
        n; pixels of weight 0 are neither averaged nor changed.
    area : array of int, shape (y,)
        Stacked map that a row belongs to; others are no neighbours.
    alike : float
        Share of the pixels of the same material that D takes for alike.

    Returns
    -------
    mean, variance : array of float32, shape (y, x, k)
        Weighted means, and the variance of their noise for the weights as they are.
    own : array of float32, shape (y, x)
        Share that a pixel has in its own mean.
    """
    along_y, along_x = offsets()
    filled = weights > 0
    # Divided by even where a pixel is empty and counts for nothing.
    known = np.where(filled[..., np.newaxis], guide_variance, np.float32(1))
    mean, noise, own = _compiled()(
        *(_planes(part) for part in (guide, known, values, variance)), weights, area,
        along_y, along_x, np.float32(chi2.ppf(alike, guide.shape[2])),
    )  # fmt: skip
    mean, noise = (np.moveaxis(part, 0, -1) for part in (mean, noise))
    return (
        np.where(filled[..., np.newaxis], mean, values),
        np.where(filled[..., np.newaxis], noise, variance),
        np.where(filled, own, np.float32(1)),
    )


def _planes(stack: np.ndarray) -> np.ndarray:
    """(y, x, k) as (k, y, x): neighbours along x lie side by side in memory."""
    return np.ascontiguousarray(np.moveaxis(stack, -1, 0), np.float32)


@cache
def _compiled() -> Any:
    # Not on import: numba takes as long to load as all the rest.
    import numba

    @numba.njit(parallel=True, fastmath=True, nogil=True, cache=True)
    def averaged(
        guide: Any, guide_variance: Any, values: Any, variance: Any, weights: Any, area: Any,
        along_y: Any, along_x: Any, tolerance: Any,
    ) -> Any:  # fmt: skip
        depth, rows, columns = guide.shape
        count = values.shape[0]
        mean, noise = np.zeros_like(values), np.zeros_like(values)
        own = np.empty((rows, columns), np.float32)
        half, nothing = np.float32(-0.5), np.float32(0)
        for y in numba.prange(rows):
            total = np.zeros(columns, np.float32)
            weight = np.empty(columns, np.float32)
            # One step for a whole row: loops over slices, which the compiler makes vectors of.
            for step in range(along_y.size):
                j, shift = y + along_y[step], along_x[step]
                if j < 0 or j >= rows or area[j] != area[y]:
                    continue
                first, end = max(0, -shift), min(columns, columns - shift)
                if first >= end:
                    continue
                here, there = slice(first, end), slice(first + shift, end + shift)
                w, counts, sums = weight[here], weights[j, there], total[here]
                w[:] = -tolerance
                for q in range(depth):
                    u, other = guide[q, y, here], guide[q, j, there]
                    v, another = guide_variance[q, y, here], guide_variance[q, j, there]
                    for i in range(w.size):
                        difference = u[i] - other[i]
                        w[i] += difference * difference / (v[i] + another[i])
                for i in range(w.size):
                    w[i] = np.exp(half * max(w[i], nothing)) * counts[i]
                    sums[i] += w[i]
                for k in range(count):
                    above, squares = mean[k, y, here], noise[k, y, here]
                    value, spread = values[k, j, there], variance[k, j, there]
                    for i in range(w.size):
                        above[i] += w[i] * value[i]
                        squares[i] += w[i] * w[i] * spread[i]
            for x in range(columns):
                if weights[y, x] > 0:
                    own[y, x] = weights[y, x] / total[x]
                    for k in range(count):
                        mean[k, y, x] /= total[x]
                        noise[k, y, x] /= total[x] * total[x]
        return mean, noise, own

    return averaged
