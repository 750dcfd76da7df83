"""How far kept components follow the noise that they were found in.

A loading is a sum over pixels, and holds the noise of each with the score it had. Projected upon
it, that noise comes back: the score of every pixel is too large by the same share h, even after
the map was smoothed, since all pixels of a smooth region came into the loading alike. Strong
components have next to none; of one at the edge of the noise half or more of what its map shows is
that.

With n_i the noise of pixel i (variance 1 in each of p channels), a the smoothed scores and t~ what
the scores were multiplied by when the loading e was looked for (K_s t for the neighbour covariance,
t for pixelwise components), perturbation of the eigenvector gives

    de = sum_m u_m u_m' / (lambda - lambda_m) sum_i n_i t~_i,
    h = E[sum_i a_i n_i' de] / sum_i a_i^2 = m sum_i a_i t~_i / sum_i a_i^2,

with m = sum_m 1 / (lambda - lambda_m) over the eigenvalues of noise: those of a random symmetric
matrix for neighbours (E. P. Wigner, Ann. Math. 67 (1958) 325), those of V. A. Marchenko and L. A.
Pastur (Math. USSR-Sb. 1 (1967) 457) for single pixels. How components at the edge of the noise
mislead is shown by D. Paul (Stat. Sinica 17 (2007) 1617).
"""

from __future__ import annotations

import numpy as np

from edxdenoise.components.neighbour import MOST_LINES, REACH, near_sums


def overfit_shares(
    scores: np.ndarray,
    smoothed: np.ndarray,
    by_neighbours: np.ndarray,
    areas: list[slice],
    ratio: float,
    directions: float,
) -> np.ndarray:
    """Share h of each smoothed map that is the noise it was found in, 0 to 1.

    Parameters
    ----------
    scores, smoothed : array, shape (k, y, x)
        Scores as they are and smoothed, in standard deviations of the noise of a score.
    by_neighbours : array of bool, shape (k,)
        Which components were found by the neighbour covariance.
    areas : list of slice
        Rows of each stacked map.
    ratio : float
        Channels over pixels.
    directions : float
        p of the neighbour covariance, where its search was smooth along the channels.

    Returns
    -------
    array, shape (k,)
    """
    pixels = scores[0].size if len(scores) else 0
    shares = np.zeros(len(scores))
    for k, (score, smooth, neighbour) in enumerate(zip(scores, smoothed, by_neighbours)):
        square = np.vdot(smooth, smooth)
        if square <= 0:
            continue
        if neighbour:
            near = np.concatenate([near_sums(score[rows]) for rows in areas])
            moment = wigner_moment(np.vdot(score, near), pixels, directions)
        else:
            near = score
            moment = marchenko_pastur_moment(np.vdot(score, score) / pixels, ratio) * ratio
        shares[k] = moment * np.vdot(smooth, near) / square
    return np.clip(shares, 0, 1)


def noise_inflation(variances: np.ndarray, by_neighbours: np.ndarray, ratio: float) -> np.ndarray:
    """Variance of the noise of scores over that of independent counts, shape (k,).

    A score holds the noise of its pixel in full, and h times itself beside it: 1 / (1 - h)^2. That
    of components found by neighbours is 1: no pixel meets itself there.

    Parameters
    ----------
    variances : array, shape (k,)
        Mean squared scores, over that of independent noise.
    by_neighbours : array of bool, shape (k,)
    ratio : float
        Channels over pixels.

    Examples
    --------
    >>> noise_inflation(np.array([9.0, 2.25, 1.0]), np.array([False, False, True]), 0.25).round(2)
    array([1.07, 2.25, 1.  ])
    """
    shares = [ratio * marchenko_pastur_moment(each, ratio) for each in variances]
    return np.where(by_neighbours, 1.0, (1 - np.array(shares)) ** -2.0)


def wigner_moment(value: float, pixels: int, directions: float) -> float:
    """sum_m 1 / (value - lambda_m) over the noise of the neighbour covariance.

    A value within the noise was found among a few directions alone (`among_lines`).

    Parameters
    ----------
    value : float
        Eigenvalue.
    pixels : int
    directions : float

    Examples
    --------
    >>> round(1e9 * wigner_moment(1e9, pixels=1000, directions=100), 1)
    100.0
    """
    point = np.zeros((2 * REACH + 1,) * 2)
    point[REACH, REACH] = 1
    edge = 2 * np.sqrt(directions * pixels) * np.linalg.norm(near_sums(point))
    if value <= edge:
        return float(MOST_LINES / value) if value > 0 else 0.0
    part = edge / value
    return float(2 * directions / value * (1 - np.sqrt(1 - part**2)) / part**2)


def marchenko_pastur_moment(value: float, ratio: float) -> float:
    """Mean of 1 / (value - lambda) over the noise of single pixels.

    Parameters
    ----------
    value : float
        Eigenvalue in variances of the noise; at least the largest of noise is taken.
    ratio : float
        Channels over pixels.

    Examples
    --------
    >>> round(marchenko_pastur_moment(101.0, ratio=0.01), 4), marchenko_pastur_moment(4.0, 1.0)
    (0.01, 0.5)
    """
    value = max(value, (1 + np.sqrt(ratio)) ** 2)
    root = np.sqrt(max((value - 1 - ratio) ** 2 - 4 * ratio, 0.0))
    return float((value - 1 + ratio - root) / (2 * ratio * value))


def marchenko_pastur_eigenvalue(share: float, ratio: float) -> float:
    """Eigenvalue that a share of all exceeds, for the noise of single pixels.

    Parameters
    ----------
    share : float
    ratio : float
        Channels over pixels.

    Examples
    --------
    >>> [round(marchenko_pastur_eigenvalue(share, 0.25), 2) for share in (0, 0.5, 1)]
    [2.25, 0.92, 0.25]
    """
    low, high = (1 - np.sqrt(ratio)) ** 2, (1 + np.sqrt(ratio)) ** 2
    # Fine at the ends, where the density starts as a root; a ratio of 1 has a pole at 0.
    angle = np.linspace(0, np.pi, 2001)
    values = high - (high - low) * (1 - np.cos(angle)) / 2
    density = np.sin(angle) ** 2 / np.maximum(values, 1e-9)
    beyond = np.cumsum(density)
    return float(np.interp(share, beyond / beyond[-1], values))
