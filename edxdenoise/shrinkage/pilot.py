"""The pilot: every profile map smoothed by the Gaussian with the least estimated error.

The error of a linear smoother of known noise is known without the truth (C. M. Stein, Ann. Stat. 9
(1981) 1135): with u = S c and var the variance of c,

    SURE = sum_i n_i ((u_i - c_i)^2 - var_i + 2 var_i S_ii)

is an unbiased estimate of sum_i n_i (u_i - truth_i)^2. Averages are weighted with the counts n, so
that S_ii = K(0) n_i / (K*n)_i for a kernel K.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import correlate1d

SCALES = (0.0, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)  # pixels; 0 leaves the map as it is
_TRUNCATE = 3.0
# Pixels that the widest reaches.
REACH = int(_TRUNCATE * SCALES[-1] + 0.5)


def pilot_scale(
    values: np.ndarray, variance: np.ndarray, weights: np.ndarray, areas: list[slice]
) -> float:
    """Width in pixels of the Gaussian with the least estimated error; 0 for the map as it is.

    Parameters
    ----------
    values, variance : array, shape (y, x)
        A map and the variance of its noise.
    weights : array, shape (y, x)
        Counts of the pixels; 0 where there is nothing to average.
    areas : list of slice
        Rows of the stacked maps, which are no neighbours of one another.
    """
    risks = [float((weights * variance).sum(dtype=float))]
    for scale in SCALES[1:]:
        line = gaussian_line(scale)
        below = filtered(weights, line, areas)
        below = np.where(below > 0, below, 1)
        smooth = filtered(weights * values, line, areas) / below
        own = line[len(line) // 2] ** 2 * weights / below
        risk = (smooth - values) ** 2 - variance + 2 * variance * own
        risks.append(float((weights * risk).sum(dtype=float)))
    return SCALES[int(np.argmin(risks))]


def pilot(
    values: np.ndarray,
    variance: np.ndarray,
    weights: np.ndarray,
    areas: list[slice],
    scale: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Smooth one map as much as its noise asks for.

    Parameters
    ----------
    values, variance, weights, areas
        As in `pilot_scale`.
    scale : float, optional
        Width in pixels, if known already.

    Returns
    -------
    smooth, variance : array, shape (y, x)
        The pilot and the variance of its noise.
    """
    if scale is None:
        scale = pilot_scale(values, variance, weights, areas)
    if scale == 0:
        return values, variance
    line = gaussian_line(scale)
    below = filtered(weights, line, areas)
    below = np.where(below > 0, below, 1)
    smooth = filtered(weights * values, line, areas) / below
    return smooth, filtered(weights**2 * variance, line**2, areas) / below**2


def gaussian_line(scale: float) -> np.ndarray:
    """Gaussian of one dimension that sums to 1, cut at three widths.

    Examples
    --------
    >>> gaussian_line(0.5).round(3)
    array([0.   , 0.106, 0.787, 0.106, 0.   ])
    """
    reach = int(_TRUNCATE * scale + 0.5)
    line = np.exp(-0.5 * (np.arange(-reach, reach + 1) / scale) ** 2)
    return line / line.sum()


def filtered(image: np.ndarray, line: np.ndarray, areas: list[slice]) -> np.ndarray:
    """The map with `line` along y and x, zeros beyond each stacked map."""
    result = np.empty(image.shape)
    for rows in areas:
        along_y = correlate1d(image[rows].astype(float), line, axis=0, mode="constant")
        correlate1d(along_y, line, axis=1, mode="constant", output=result[rows])
    return result
