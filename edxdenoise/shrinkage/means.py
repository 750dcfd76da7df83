"""Vector non-local means: a pixel is averaged with those nearby that are alike within their noise.

After A. Buades, B. Coll and J.-M. Morel (Multiscale Model. Simul. 4 (2005) 490), with the vector
of all profiles in place of patches, and its known noise in place of a parameter. With u the guide
and v the variance of its noise, q = 1..Q,

    d_ij = sum_q (u_iq - u_jq)^2 / (v_iq + v_jq),    w_ij = n_j exp(-max(d_ij - 1.5 Q, 0) / 2).

Two pixels of the same material have d of Q on average, and one and a half times that hardly ever
by much: within it weights are equal, so that nothing is chosen for its noise.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

# All pixels as near as this along y and x, and beyond every third as far as that.
_NEAR, _FAR, _STEP = 8, 18, 3
_TOLERANCE = 1.5


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

    Returns
    -------
    mean, variance : array of float32, shape (y, x, k)
        Weighted means, and the variance of their noise for the weights as they are.
    own : array of float32, shape (y, x)
        Share that a pixel has in its own mean.
    """
    along_y, along_x = offsets()
    return _compiled()(
        guide, guide_variance, values, variance, weights, area, along_y, along_x,
        np.float32(_TOLERANCE * guide.shape[2]),
    )  # fmt: skip


@cache
def _compiled() -> Any:
    # Not on import: numba takes as long to load as all the rest.
    import numba

    @numba.njit(parallel=True, fastmath=True, nogil=True, cache=True)
    def averaged(
        guide: Any, guide_variance: Any, values: Any, variance: Any, weights: Any, area: Any,
        along_y: Any, along_x: Any, tolerance: Any,
    ) -> Any:  # fmt: skip
        rows, columns, depth = guide.shape
        count = values.shape[2]
        mean, noise = values.copy(), variance.copy()
        own = np.ones((rows, columns), np.float32)
        for y in numba.prange(rows):
            above = np.zeros(count, np.float32)
            squares = np.zeros(count, np.float32)
            for x in range(columns):
                if weights[y, x] <= 0:
                    continue
                above[:] = 0
                squares[:] = 0
                total = np.float32(0)
                for step in range(along_y.size):
                    j, i = y + along_y[step], x + along_x[step]
                    if j < 0 or j >= rows or i < 0 or i >= columns:
                        continue
                    if weights[j, i] <= 0 or area[j] != area[y]:
                        continue
                    distance = -tolerance
                    for q in range(depth):
                        difference = guide[y, x, q] - guide[j, i, q]
                        distance += (
                            difference * difference
                            / (guide_variance[y, x, q] + guide_variance[j, i, q])
                        )  # fmt: skip
                    weight = weights[j, i]
                    if distance > 0:
                        weight *= np.exp(np.float32(-0.5) * distance)
                    total += weight
                    for k in range(count):
                        above[k] += weight * values[j, i, k]
                        squares[k] += weight * weight * variance[j, i, k]
                own[y, x] = weights[y, x] / total
                for k in range(count):
                    mean[y, x, k] = above[k] / total
                    noise[y, x, k] = squares[k] / (total * total)
        return mean, noise, own

    return averaged
