"""The elbow of the scree plot: what most people use, and why it fails is in the article."""

from __future__ import annotations

import numpy as np

# The elbow depends on how much of the scree plot is looked at; HyperSpy looks at 20 as well.
_POINTS = 20


def elbow_position(variance_ratio: np.ndarray) -> int:
    """Index of the elbow of a scree plot; index + 1 components lie before it.

    The point of the logarithmic scree plot farthest below the chord from its first point to the
    twentieth (V. Satopaa et al., ICDCSW 2011, 166, "kneedle"; HyperSpy's
    ``estimate_elbow_position``).

    Parameters
    ----------
    variance_ratio : array, shape (component,)
        Falling; zeros at the end are left out.

    Examples
    --------
    >>> elbow_position(np.array([1, 0.1, 1e-4, 0.9e-4, 0.8e-4]))
    2
    """
    positive = variance_ratio[: np.count_nonzero(variance_ratio > 0)]
    last = min(_POINTS, len(positive) - 1)
    if last < 1:
        return max(len(positive) - 1, 0)
    height = np.log(positive[: last + 1])
    rise = height[last] - height[0]
    step = np.arange(last + 1)
    distance = np.abs(rise * step - last * (height - height[0])) / np.hypot(rise, last)
    return int(np.argmax(distance))


def elbows(variance_ratio: np.ndarray) -> tuple[int, int]:
    """Number of components before the first elbow and before the second.

    The second is the elbow of what is left of the scree plot after the first.
    """
    first = elbow_position(variance_ratio) + 1
    rest = variance_ratio[first:]
    return first, first + (elbow_position(rest) + 1 if len(rest) else 0)
