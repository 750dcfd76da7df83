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
    seconds: float = float("nan"),
) -> Scores:
    """Compare probabilities with the truth.

    Parameters
    ----------
    truth : array of bool, shape (component,)
        Whether it is signal.
    probability : array, shape (component,)
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
    called = probability > 0.5
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
    from sklearn.metrics import roc_auc_score

    truth, probability = _checked(truth, probability)
    if truth.all() or not truth.any():
        return float("nan")
    return float(roc_auc_score(truth, probability))


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
