"""Quality of a classifier: the article's Table 2, the ROC curve and the reliability diagram."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edxdenoise.components.networks import Classifier, sign_flipped
from edxdenoise.errors import ParameterError
from edxdenoise.training.corpus import Sources, read_corpus


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


@dataclass(frozen=True)
class Evaluation:
    """What networks predict for components whose label is known.

    Parameters
    ----------
    scores : Scores
        Of those that are clearly signal or noise (label 1 or 0).
    said, seen : array, shape (bin,)
        Reliability diagram: mean probability, and mean label.
    number : array of int, shape (bin,)
        Components in each bin.
    """

    scores: Scores
    said: np.ndarray
    seen: np.ndarray
    number: np.ndarray


def evaluate_networks(
    models: Sequence[str],
    sources: Sources,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Ask networks for components whose labels are known.

    Phantoms of a seed that a network was trained on tell nothing about it: take another.

    Parameters
    ----------
    models : sequence of str
        Network files; none for those that come with the package.
    sources : Sources
        Of the components.
    progress : callable, optional
        Called with the number of phantoms done and of all.
    """
    classifier = Classifier.load(models)
    with tempfile.TemporaryDirectory() as folder:
        data = read_corpus(sources.write(folder, progress), classifier.kind)
    start = time.perf_counter()
    if classifier.kind == "default":
        inputs = data.inputs.astype(np.float32)
        probability = (classifier.predict(inputs) + classifier.predict(sign_flipped(inputs))) / 2
    else:
        probability = classifier.predict(data.inputs)
    seconds = time.perf_counter() - start
    clear = (data.label == 0) | (data.label == 1)
    scores = score(data.label[clear] == 1, probability[clear], seconds=seconds)
    return Evaluation(scores, *reliability(data.label, probability))
