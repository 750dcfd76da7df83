"""Probability of a sum of residuals where the model is right.

In a tile of pixels and a window of channels, n counts were seen and m were expected. Both come from
the same Poisson counts X: with a the window and b what a projection onto kept components makes of
it, n - m = sum (a_j - b_j) X_ij has mean 0 where the model is right, and the variance

    V = sum (a_j - b_j)^2 lambda_ij,    lambda the expected counts.

A model fitted to the counts follows them, so that V is mostly a little less than the m of Poisson
counts. But where the noise is uneven, V exceeds m many times: noise of a line that is strong here
enters, by way of the projection, windows that hold few counts. So the law is that of Poisson counts
scaled to the larger of both variances, phi = max(1, V / m): n - m + m over phi against a Poisson
variable of mean m / phi, by the incomplete gamma function. With phi = 1 that is exact; else its
skewness phi / sqrt(V) is never below that of the weighted sum.
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammainc, gammaincc, xlogy


def scaled(
    residual: np.ndarray, expected: np.ndarray, variance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Counts seen and expected of the Poisson variable that stands for a residual.

    Parameters
    ----------
    residual : array
        n - m.
    expected, variance : array
        m and V, above 0; residuals are above -m.
    """
    phi = np.maximum(variance / expected, 1)
    return np.maximum(residual + expected, 0) / phi, expected / phi


def deviance_root(seen: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Signed root of twice the log likelihood ratio: a z-score that holds for few counts too.

    Examples
    --------
    >>> np.round(deviance_root(np.array([1.0, 110.0, 0.0]), np.array([1e-5, 100.0, 8.0])), 2)
    array([ 4.59,  0.98, -4.  ])
    """
    half = xlogy(seen, seen / mean) - (seen - mean)
    return np.sign(seen - mean) * np.sqrt(2 * np.maximum(half, 0))


def tail_probability(seen: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Twice the probability of Poisson counts as far from their mean, or farther, on that side.

    Examples
    --------
    >>> np.round(tail_probability(np.array([3.0, 0.0]), np.array([0.1, 8.0])), 6)
    array([0.000309, 0.000671])
    """
    above = np.where(seen > 0, gammainc(np.maximum(seen, 1e-300), mean), 1.0)
    return np.minimum(2 * np.where(seen > mean, above, gammaincc(seen + 1, mean)), 1.0)
