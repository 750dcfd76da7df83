"""The selectors: one registry, all with the same signature.

A selector is a function ``(ds, seed) -> Verdict``. To add one, write it in a module of its own,
put it into `SELECTORS` and its name into the type `Selector` of `edxdenoise.config`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from edxdenoise.schema import (
    COMPONENT_VARIANCE,
    COMPONENT_VARIANCE_RATIO,
    DIM_COMPONENT,
    DIM_X,
    DIM_Y,
)
from edxdenoise.selection.edge import weighted_noise_edge
from edxdenoise.selection.elbow import elbows
from edxdenoise.selection.split import split_probability
from edxdenoise.spatial import evidence_of


@dataclass(frozen=True)
class Verdict:
    """Verdict of a selector on every component.

    Parameters
    ----------
    keep : array of bool, shape (component,)
        Whether the component is to rebuild the cube.
    probability : array of float, shape (component,), optional
        Probability that it is signal; None where the selector gives none.
    """

    keep: np.ndarray
    probability: np.ndarray | None = None


def _first(count: int, ds: xr.Dataset) -> Verdict:
    return Verdict(np.arange(ds.sizes[DIM_COMPONENT]) < count)


def select_elbow(ds: xr.Dataset, seed: int) -> Verdict:
    """Components before the elbow of the scree plot."""
    return _first(elbows(ds[COMPONENT_VARIANCE_RATIO.name].values)[0], ds)


def select_second_elbow(ds: xr.Dataset, seed: int) -> Verdict:
    """Components before the second elbow."""
    return _first(elbows(ds[COMPONENT_VARIANCE_RATIO.name].values)[1], ds)


def select_edge(ds: xr.Dataset, seed: int) -> Verdict:
    """Components whose singular value exceeds that of pure Poisson noise."""
    pixels = ds.sizes[DIM_Y] * ds.sizes[DIM_X]
    singular = np.sqrt(ds[COMPONENT_VARIANCE.name].values * pixels)
    return Verdict(singular > weighted_noise_edge(ds))


def select_split(ds: xr.Dataset, seed: int) -> Verdict:
    """Components found again in an independent half of the counts."""
    probability = split_probability(ds, seed=seed)
    return Verdict(probability > 0.5, probability)


def select_spatial(ds: xr.Dataset, seed: int) -> Verdict:
    """Components whose neighbouring pixels are alike, significantly and enough to be of use."""
    evidence = evidence_of(ds)
    return Verdict(evidence.signal, evidence.probability)


def select_cnn(ds: xr.Dataset, seed: int) -> Verdict:
    """Components that our network calls signal; see `network_verdict`."""
    return network_verdict(ds)


def network_verdict(ds: xr.Dataset, models: Sequence[str] = ()) -> Verdict:
    """Components that networks call signal.

    Kept is what has a probability above one half. Where neighbouring pixels share their noise,
    which the networks have hardly met, it is the mean of their probability and that of the
    spatial statistic. The probability given is the networks'.

    Parameters
    ----------
    ds : Dataset
        With computed components and weights.
    models : sequence of str
        Network files; those that come with the package by default.
    """
    from edxdenoise.classifier import Classifier

    probability = Classifier.load(models).probability(ds)
    evidence = evidence_of(ds)
    if evidence.correlated:
        return Verdict((probability + evidence.probability) / 2 > 0.5, probability)
    return Verdict(probability > 0.5, probability)


def select_all(ds: xr.Dataset, seed: int) -> Verdict:
    """All components: nothing is denoised, and the counts come back."""
    return _first(ds.sizes[DIM_COMPONENT], ds)


SELECTORS: dict[str, Callable[[xr.Dataset, int], Verdict]] = {
    "cnn": select_cnn,
    "spatial": select_spatial,
    "split": select_split,
    "edge": select_edge,
    "elbow": select_elbow,
    "second-elbow": select_second_elbow,
    "all": select_all,
}
