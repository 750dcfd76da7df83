"""Which components are signal: one registry of selectors, all with the same signature.

A selector is a function ``(ds, seed) -> Verdict``. To add one, write it in a module of its own,
put it into `SELECTORS` and its name into `edxdenoise.methods`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr

from edxdenoise.cube import add_history
from edxdenoise.errors import DataError, EdxdenoiseWarning, ParameterError
from edxdenoise.schema import (
    COMPONENT_KEEP,
    COMPONENT_SIGNAL_PROBABILITY,
    COMPONENT_VARIANCE,
    COMPONENT_VARIANCE_RATIO,
    DIM_COMPONENT,
    DIM_X,
    DIM_Y,
    WEIGHT_ENERGY,
    WEIGHT_PIXEL,
    validate,
)
from edxdenoise.selection.edge import noise_edge
from edxdenoise.selection.elbow import elbow_position, elbows
from edxdenoise.selection.split import split_probability

__all__ = [
    "SELECTORS",
    "Verdict",
    "elbow_position",
    "elbows",
    "noise_edge",
    "parse_keep",
    "select",
    "weighted_noise_edge",
]


@dataclass(frozen=True)
class Verdict:
    """What a selector says of every component.

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


def select_all(ds: xr.Dataset, seed: int) -> Verdict:
    """All components: nothing is denoised, and the counts come back."""
    return _first(ds.sizes[DIM_COMPONENT], ds)


SELECTORS: dict[str, Callable[[xr.Dataset, int], Verdict]] = {
    "split": select_split,
    "edge": select_edge,
    "elbow": select_elbow,
    "second-elbow": select_second_elbow,
    "all": select_all,
}


def select(
    ds: xr.Dataset, *, selector: str = "split", keep: str | None = None, seed: int = 0
) -> xr.Dataset:
    """Decide which components are kept.

    Parameters
    ----------
    ds : Dataset
        With the components that `edxdenoise.pca` gives, the weights and, for ``split``, the
        counts.
    selector : {"split", "edge", "elbow", "second-elbow", "all"}
        How to decide. None of them ever drops component 1, which carries the total of every
        pixel and channel.
    keep : str, optional
        Components chosen by hand, such as ``"1-4,8,10,16"``; beats `selector`.
    seed : int
        For selectors that draw random numbers.

    Returns
    -------
    Dataset
        With ``component_keep`` and ``component_signal_probability``, both computed.

    Raises
    ------
    ParameterError
        If the selector is unknown or `keep` names components that there are not.
    DataError
        If the selector needs what the data do not have: whole counts, Poisson weights.
    """
    validate(ds, COMPONENT_VARIANCE, COMPONENT_VARIANCE_RATIO, WEIGHT_PIXEL, WEIGHT_ENERGY)
    count = ds.sizes[DIM_COMPONENT]
    if keep is not None:
        chosen = np.zeros(count, bool)
        chosen[np.array(parse_keep(keep, count)) - 1] = True
        verdict = Verdict(chosen)
        how = f"keep={keep}"
        if not chosen[0]:
            warnings.warn(
                "component 1 is not kept: it carries the total of every pixel and channel, and "
                "without it the denoised counts are not counts",
                EdxdenoiseWarning,
                stacklevel=2,
            )
    else:
        if selector not in SELECTORS:
            raise ParameterError(f"selector '{selector}' must be one of {', '.join(SELECTORS)}")
        verdict = SELECTORS[selector](ds, seed)
        verdict.keep[0] = True
        how = f"selector={selector} seed={seed}"
    probability = verdict.probability
    if probability is None:
        probability = np.full(count, np.nan)
    result = ds.assign(
        {
            COMPONENT_KEEP.name: COMPONENT_KEEP.array(verdict.keep.astype(np.int8)),
            COMPONENT_SIGNAL_PROBABILITY.name: COMPONENT_SIGNAL_PROBABILITY.array(probability),
        }
    )
    return add_history(result, f"select {how}")


def parse_keep(text: str, count: int) -> list[int]:
    """Component numbers from text such as ``1-4,8,10,16``.

    Examples
    --------
    >>> parse_keep("1-4,8", 100)
    [1, 2, 3, 4, 8]
    """
    numbers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if match is None:
            raise ParameterError(f"keep '{text}': '{part}' is not a number or a range such as 1-4")
        first, last = int(match[1]), int(match[2] or match[1])
        if not 1 <= first <= last <= count:
            raise ParameterError(
                f"keep '{text}': '{part.strip()}' must lie within 1-{count}, the components there "
                "are, and run upwards"
            )
        numbers.update(range(first, last + 1))
    return sorted(numbers)


def weighted_noise_edge(ds: xr.Dataset) -> float:
    """Singular value at the noise edge, from the weights (the root of every total).

    Raises
    ------
    DataError
        If the counts are not Poisson-weighted.
    """
    g, h = ds[WEIGHT_PIXEL.name].values, ds[WEIGHT_ENERGY.name].values
    if (g == 1).all() and (h == 1).all():
        raise DataError("the noise edge needs Poisson weights; use weighting='poisson'")
    # Empty pixels and channels have weight 1, and so has the rare one with a single count.
    pixels, channels = int(np.count_nonzero(g != 1)), int(np.count_nonzero(h != 1))
    return noise_edge(pixels, channels, float((h[h != 1] ** 2).sum()))
