"""Quality of a classifier: the article's Table 2, the ROC curve and the reliability diagram."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edxdenoise.errors import ParameterError


@dataclass(frozen=True)
class Scores:
    """The figures of the article's Table 2. A share that has nothing to count is NaN.

    Parameters
    ----------
    signal, noise : int
        Components of each class.
    accuracy : float
        Share called what they are.
    sensitivity, specificity : float
        Share of the signal, and of the noise, called what it is.
    ppv, npv : float
        Share of what is called signal, and noise, that is it (positive and negative predictive
        value).
    balanced : float
        Mean of sensitivity and specificity, which the rarity of signal does not change.
    auc : float
        Probability that a signal component is given a larger number than a noise component.
    seconds : float
        Time that was measured; NaN where none was.
    """

    signal: int
    noise: int
    accuracy: float
    sensitivity: float
    specificity: float
    ppv: float
    npv: float
    balanced: float
    auc: float
    seconds: float

    @property
    def fraction(self) -> float:
        """Share of the components that is signal."""
        return _share(self.signal, self.signal + self.noise)


def score(
    truth: np.ndarray,
    probability: np.ndarray,
    *,
    threshold: float = 0.5,
    seconds: float = float("nan"),
) -> Scores:
    """Compare probabilities with the truth.

    Parameters
    ----------
    truth : array of bool, shape (component,)
        Whether it is signal.
    probability : array, shape (component,)
    threshold : float
        Called signal above.
    seconds : float
        Passed on.

    Raises
    ------
    ParameterError
        If the arrays differ in length.

    Examples
    --------
    >>> found = score(np.array([True, True, False, False]), np.array([0.9, 0.4, 0.6, 0.1]))
    >>> found.sensitivity, found.specificity, found.auc
    (0.5, 0.5, 0.75)
    """
    truth, probability = _checked(truth, probability)
    called = probability > threshold
    hits, rejected = int((truth & called).sum()), int((~truth & ~called).sum())
    signal, noise = int(truth.sum()), int((~truth).sum())
    sensitivity, specificity = _share(hits, signal), _share(rejected, noise)
    return Scores(
        signal,
        noise,
        _share(hits + rejected, len(truth)),
        sensitivity,
        specificity,
        _share(hits, int(called.sum())),
        _share(rejected, int((~called).sum())),
        (sensitivity + specificity) / 2,
        auc(truth, probability),
        seconds,
    )


def auc(truth: np.ndarray, probability: np.ndarray) -> float:
    """Area under the ROC curve; ties count half. NaN if there is only one class."""
    from scipy.stats import rankdata

    truth, probability = _checked(truth, probability)
    signal, noise = int(truth.sum()), int((~truth).sum())
    if not signal * noise:
        return float("nan")
    # Mann and Whitney: the sum of ranks counts the pairs in the right order.
    ranks = float(rankdata(probability)[truth].sum())
    return (ranks - signal * (signal + 1) / 2) / (signal * noise)


def roc(truth: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The ROC curve, from "all noise" to "all signal".

    Returns
    -------
    false, true : array, shape (point,)
        Share of the noise and of the signal that is called signal.
    threshold : array, shape (point,)
        For that: signal is what is not below. Starts at infinity.

    Examples
    --------
    >>> false, true, threshold = roc(np.array([True, False, True]), np.array([0.9, 0.4, 0.4]))
    >>> false.tolist(), true.tolist(), threshold.tolist()
    ([0.0, 0.0, 1.0], [0.0, 0.5, 1.0], [inf, 0.9, 0.4])
    """
    truth, probability = _checked(truth, probability)
    order = np.argsort(-probability, kind="stable")
    ordered = probability[order]
    last = np.flatnonzero(np.append(np.diff(ordered) != 0, True)) if len(ordered) else order
    true, false = np.cumsum(truth[order])[last], np.cumsum(~truth[order])[last]
    return (
        np.concatenate([[0.0], false / max(int((~truth).sum()), 1)]),
        np.concatenate([[0.0], true / max(int(truth.sum()), 1)]),
        np.concatenate([[np.inf], ordered[last]]),
    )


def reliability(
    label: np.ndarray, probability: np.ndarray, bins: int = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether probabilities mean what they say: the reliability diagram.

    Parameters
    ----------
    label : array, shape (component,)
        0 for noise, 1 for signal, or between: what a probability should be on average.
    probability : array, shape (component,)
    bins : int
        Of equal width from 0 to 1.

    Returns
    -------
    said, seen : array, shape (bin,)
        Mean probability and mean label; NaN in an empty bin.
    number : array of int, shape (bin,)
        Components in each.

    Examples
    --------
    >>> said, seen, number = reliability(np.array([True, False]), np.array([0.9, 0.2]), bins=2)
    >>> said.tolist(), seen.tolist(), number.tolist()
    ([0.2, 0.9], [0.0, 1.0], [1, 1])
    """
    if bins < 1:
        raise ParameterError(f"bins is {bins}, must be at least 1")
    label, probability = _checked(label, probability, float)
    place = np.clip((probability * bins).astype(int), 0, bins - 1)
    number = np.bincount(place, minlength=bins)
    below = np.where(number > 0, number, np.nan)
    said = np.bincount(place, probability, minlength=bins) / below
    return said, np.bincount(place, label, minlength=bins) / below, number


def calibration_error(label: np.ndarray, probability: np.ndarray, bins: int = 10) -> float:
    """Mean distance of what is said from what is seen, over components (0 is best)."""
    said, seen, number = reliability(label, probability, bins)
    return float(np.nansum(number * np.abs(said - seen)) / max(int(number.sum()), 1))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _checked(
    truth: np.ndarray, probability: np.ndarray, dtype: type = bool
) -> tuple[np.ndarray, np.ndarray]:
    truth, probability = np.asarray(truth, dtype), np.asarray(probability, float)
    if truth.shape != probability.shape or truth.ndim != 1:
        raise ParameterError(
            f"truth has shape {truth.shape} and probability {probability.shape}; both must have "
            "one number for each component"
        )
    return truth, probability
