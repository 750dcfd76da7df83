"""Vector non-local means: a pixel is averaged with those nearby that are alike within their noise.

After A. Buades, B. Coll and J.-M. Morel (Multiscale Model. Simul. 4 (2005) 490), with the vector of
all profiles in place of patches, and its known noise in place of a parameter. With u the guide and
v the variance of its noise, q = 1..Q,

    d_ij = sum_q (u_iq - u_jq)^2 / (v_iq + v_jq),    w_ij = n_j exp(-max(d_ij - D, 0) / 2).

For two pixels of the same material d follows a chi-square distribution with Q degrees of freedom. D
is one of its quantiles, the tolerance: at .99 hardly any neighbour is chosen for its noise, at .5
the average keeps finer detail.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.stats import chi2

TOLERANCES = (0.5, 0.99)
# All pixels as near as this along y and x, and beyond every third as far as that.
_NEAR, _FAR, _STEP = 8, 18, 3
# A pixel whose neighbours have less weight together has none that is alike.
_LEAST_WEIGHT = 1e-9


@cache
def offsets() -> tuple[np.ndarray, np.ndarray]:
    """Steps along y and x to the pixels that one is averaged with, itself first."""
    near = [(y, x) for y in range(-_NEAR, _NEAR + 1) for x in range(-_NEAR, _NEAR + 1)]
    sparse = range(-_FAR, _FAR + 1, _STEP)
    far = [(y, x) for y in sparse for x in sparse if max(abs(y), abs(x)) > _NEAR]
    steps = np.array(sorted(near + far, key=lambda step: (step[0] ** 2 + step[1] ** 2, step)))
    return np.ascontiguousarray(steps[:, 0]), np.ascontiguousarray(steps[:, 1])


def non_local_means(
    guide: np.ndarray, guide_variance: np.ndarray, values: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Average every pixel with those nearby whose guide is alike.

    Parameters
    ----------
    guide, guide_variance : array of float32, shape (q, y, x)
        u and v of the module. The first k are what is averaged, smoothed already.
    values : array of float32, shape (k, y, x)
        What is averaged.
    weights : array of float32, shape (y, x)
        n; 0 where nothing was measured.

    Returns
    -------
    means : array of float32, shape (tolerance, k, y, x)
        Weighted means; the guide in pixels that have no neighbour alike.
    own : array of float32, shape (tolerance, 1, y, x)
        Share that a pixel has in its own mean for the weights as they are.
    """
    from edxdenoise.components.kernels import alike_means

    tolerances = chi2.ppf(TOLERANCES, len(guide)).astype(np.float32)
    sums = alike_means(guide, guide_variance, values * weights, weights, *offsets(), tolerances)
    below = sums[:, :1]
    alone = below < _LEAST_WEIGHT
    below[alone] = 1
    return np.where(alone, guide[: len(values)], sums[:, 1:] / below), weights / below
