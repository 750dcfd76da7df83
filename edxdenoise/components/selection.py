"""Which components are signal, and which are kept.

A selector is a function ``(ds, seed) -> Verdict``. To add one, write it here, put it into
`SELECTORS` and its name into the type `Selector` of `edxdenoise.config`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.blocks import load
from edxdenoise.components.neighbour import found_by_neighbours
from edxdenoise.components.nmf import HELD, is_nmf
from edxdenoise.components.pca import NO_VARIANCE
from edxdenoise.components.spatial import (
    LEAST_STATISTIC,
    NOISE_CORRELATED,
    SpatialEvidence,
    evidence_of,
    spatial_evidence,
)
from edxdenoise.components.split import split_probability
from edxdenoise.cube import add_history, is_poisson_weighted, pixel_counts, sum_spectrum
from edxdenoise.errors import DataError, ParameterError, Rank, warn

__all__ = [
    "SELECTORS",
    "SpatialEvidence",
    "Verdict",
    "check_models",
    "component_outcomes",
    "elbow_position",
    "elbows",
    "noise_edge",
    "parse_keep",
    "select",
    "spatial_evidence",
    "weighted_noise_edge",
]

# Selectors that look at score maps; for others lazy maps are not computed.
_LOOK_AT_MAPS = {"cnn", "spatial"}
_UNSURE = 0.2, 0.8
# Noise exceeds this many of its standard deviations by chance often.
_CHANCE = 2.0
# Maps with fewer are smaller than nearly all of the training corpus, and the network's
# probabilities for them are near 1/2.
_FEWEST_PIXELS = 1000


def select(
    ds: xr.Dataset,
    *,
    selector: str = "cnn",
    keep: str | None = None,
    models: Sequence[str] = (),
    seed: int = 0,
) -> xr.Dataset:
    """Decide which components are kept.

    Parameters
    ----------
    ds : Dataset
        With the components that `edxdenoise.pca` gives, the weights and, for ``split``, the
        counts.
    selector : {"cnn", "spatial", "split", "edge", "elbow", "second-elbow", "all"}
        How to decide. None of them ever drops component 1, which carries the total of every
        pixel and channel, or keeps one without variance. ``cnn`` leaves maps of fewer than 1000
        pixels to ``spatial``.
    keep : str, optional
        Components chosen by hand, such as ``"1-4,8,10,16"``; beats `selector`.
    models : sequence of str
        Network files for ``cnn`` in place of those that come with the package.
    seed : int
        For selectors that draw random numbers.

    Returns
    -------
    Dataset
        With ``component_keep``, ``component_signal_probability``,
        ``component_spatial_statistic`` and ``component_effect_size``, all computed.

    Raises
    ------
    ParameterError
        If the selector is unknown or `keep` names components that there are not.
    DataError
        If the selector needs what the data do not have: whole counts, Poisson weights.

    Warns
    -----
    EdxdenoiseWarning
        If neighbouring pixels share their noise, as in maps that were smoothed before.
    """
    v.validate(
        ds, v.COMPONENT_VARIANCE, v.COMPONENT_VARIANCE_RATIO, v.WEIGHT_PIXEL, v.WEIGHT_ENERGY
    )
    count = ds.sizes[v.DIM_COMPONENT]
    if keep is None and selector not in SELECTORS:
        raise ParameterError(f"selector '{selector}' must be one of {', '.join(SELECTORS)}")
    check_models(models, selector, keep)
    factors = is_nmf(ds)
    if factors and keep is None and selector != "all":
        raise ParameterError(
            f"selector '{selector}' judges principal components; of NMF keep all, or name those to "
            "keep"
        )
    if selector == "cnn" and not models and ds.sizes[v.DIM_Y] * ds.sizes[v.DIM_X] < _FEWEST_PIXELS:
        selector = "spatial"
    looks = keep is None and selector in _LOOK_AT_MAPS
    if not factors and (looks or not isinstance(ds[v.COMPONENT_MAP].data, da.Array)):
        ds = _with_evidence(ds)
    if keep is not None:
        chosen = np.zeros(count, bool)
        chosen[np.array(parse_keep(keep, count)) - 1] = True
        verdict = Verdict(chosen)
        how = f"keep={keep}"
        if not (chosen[0] or factors):
            warn(
                "Component 1 is not kept: it carries the total of every pixel and channel",
                "the denoised counts are no counts, and at% from them are wrong",
                "add 1 to --keep",
                rank=Rank.WRONG,
            )
    else:
        verdict = network_verdict(ds, models) if models else SELECTORS[selector](ds, seed)
        if not factors:
            verdict.keep[ds[v.COMPONENT_VARIANCE_RATIO].values <= NO_VARIANCE] = False
        verdict.keep[0] = True
        how = f"selector={selector} seed={seed}"
    probability = verdict.probability
    if probability is None:
        probability = np.full(count, np.nan)
    # Maps that were shrunk are those of another choice.
    result = ds.drop_vars([spec for spec in v.SHRUNK_SPECS], errors="ignore")
    result.attrs.pop(v.IMAGE_GAIN, None)
    result = result.assign(
        {
            v.COMPONENT_KEEP: v.COMPONENT_KEEP.array(verdict.keep.astype(np.int8)),
            v.COMPONENT_SIGNAL_PROBABILITY: v.COMPONENT_SIGNAL_PROBABILITY.array(probability),
        }
    )
    return add_history(result, f"select {how}")


def check_models(models: Sequence[str], selector: str, keep: str | None = None) -> None:
    """Check that network files are given only where a network is asked, and are there.

    Raises
    ------
    ParameterError
    """
    if not models:
        return
    if keep is not None or selector != "cnn":
        raise ParameterError(
            f"model '{models[0]}' is a network, which only the selector 'cnn' asks; "
            "select by cnn or leave the model out"
        )
    for name in models:
        if not Path(name).is_file():
            raise ParameterError(f"model '{name}' is no file; give a network saved as .keras")


def component_outcomes(ds: xr.Dataset) -> list[str]:
    """Every component as ``signal``, ``noise``, ``uncertain``, or empty where nothing is known.

    Uncertain are those on which the selector's probability and the spatial statistic disagree, and
    those whose probability lies between 0.2 and 0.8, unless the statistic is clear: within 2
    standard deviations of noise, or beyond twice what signal needs. Component 1, the total of
    every pixel and channel, is signal.

    Parameters
    ----------
    ds : Dataset
        As `select` gives it.
    """
    probabilities = ds[v.COMPONENT_SIGNAL_PROBABILITY].values
    signals, clear = probabilities > 0.5, np.zeros(len(probabilities), bool)
    if v.COMPONENT_SPATIAL_STATISTIC in ds:
        evidence = evidence_of(ds)
        signals = evidence.signal
        clear = (evidence.statistic < _CHANCE) | (evidence.statistic > 2 * LEAST_STATISTIC)
    unsure = (probabilities >= _UNSURE[0]) & (probabilities <= _UNSURE[1]) & ~clear
    outcomes = []
    for probability, signal, doubtful in zip(probabilities, signals, unsure):
        if np.isnan(probability):
            outcomes.append("")
        elif doubtful or (probability > 0.5) != signal:
            outcomes.append("uncertain")
        else:
            outcomes.append("signal" if signal else "noise")
    first = ds[v.DIM_COMPONENT].values == 1
    return ["signal" if one and known else known for known, one in zip(outcomes, first)]


def _with_evidence(ds: xr.Dataset) -> xr.Dataset:
    """With the spatial evidence, and what it was computed from in memory."""
    specs = (
        v.COMPONENT_MAP,
        v.COMPONENT_SPECTRUM,
        v.MEAN_SPECTRUM,
        v.WEIGHT_PIXEL,
        v.WEIGHT_ENERGY,
    )
    v.validate(ds, *specs)
    # Together: where they are lazy, each alone would decompose the counts again.
    ds = ds.assign(load(ds[[spec for spec in specs]]).data_vars)
    evidence = spatial_evidence(ds)
    if evidence.correlated:
        warn(
            "Neighbouring pixels share their noise, as in maps that were smoothed, interpolated "
            "or corrected for drift before",
            "components are judged against the later half of them, which is less certain, and "
            "stated errors are too small",
            "use the map as it was measured",
            rank=Rank.WORSE,
        )
    statistic = v.COMPONENT_SPATIAL_STATISTIC.array(evidence.statistic)
    return ds.assign(
        {
            v.COMPONENT_SPATIAL_STATISTIC: statistic.assign_attrs(
                {NOISE_CORRELATED: int(evidence.correlated)}
            ),
            v.COMPONENT_EFFECT_SIZE: v.COMPONENT_EFFECT_SIZE.array(evidence.effect_size),
        }
    )


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
    return Verdict(np.arange(ds.sizes[v.DIM_COMPONENT]) < count)


def select_elbow(ds: xr.Dataset, seed: int) -> Verdict:
    """Components before the elbow of the scree plot."""
    return _first(elbows(ds[v.COMPONENT_VARIANCE_RATIO].values)[0], ds)


def select_second_elbow(ds: xr.Dataset, seed: int) -> Verdict:
    """Components before the second elbow."""
    return _first(elbows(ds[v.COMPONENT_VARIANCE_RATIO].values)[1], ds)


def select_edge(ds: xr.Dataset, seed: int) -> Verdict:
    """Components whose singular value exceeds that of pure Poisson noise."""
    pixels = ds.sizes[v.DIM_Y] * ds.sizes[v.DIM_X]
    singular = np.sqrt(ds[v.COMPONENT_VARIANCE].values * pixels)
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
    from edxdenoise.components.networks import Classifier

    probability = Classifier.load(models).probability(ds)
    evidence = evidence_of(ds)
    if evidence.correlated:
        return Verdict((probability + evidence.probability) / 2 > 0.5, probability)
    return Verdict((probability > 0.5) | found_by_neighbours(ds), probability)


def select_all(ds: xr.Dataset, seed: int) -> Verdict:
    """All components: nothing is denoised, and the counts come back."""
    return _first(ds.sizes[v.DIM_COMPONENT], ds)


SELECTORS: dict[str, Callable[[xr.Dataset, int], Verdict]] = {
    "cnn": select_cnn,
    "spatial": select_spatial,
    "split": select_split,
    "edge": select_edge,
    "elbow": select_elbow,
    "second-elbow": select_second_elbow,
    "all": select_all,
}


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


def noise_edge(pixels: int, channels: int, total_counts: float) -> float:
    """Largest singular value that pure Poisson noise of rank-one mean gives the weighted data.

    The weighted noise has variance 1/N in every entry, N the number of all counts, so that its
    singular values end at (sqrt(pixels) + sqrt(channels)) / sqrt(N) (V. A. Marchenko and L. A.
    Pastur, Math. USSR Sb. 1 (1967) 457). Specimens whose noise is not of rank one, those with
    layers, have noise beyond the edge.

    Parameters
    ----------
    pixels, channels : int
        Those that hold any counts.
    total_counts : float
        N.

    Examples
    --------
    >>> round(noise_edge(165_000, 650, 165e6), 4)
    0.0336
    """
    return float((np.sqrt(pixels) + np.sqrt(channels)) / np.sqrt(total_counts))


def weighted_noise_edge(ds: xr.Dataset) -> float:
    """Singular value at the noise edge, from the counts of pixels and channels.

    Raises
    ------
    DataError
        If the counts are not Poisson-weighted.
    """
    if not is_poisson_weighted(ds):
        raise DataError("the noise edge needs Poisson weights; use weighting='poisson'")
    of_pixels, of_channels = pixel_counts(ds), sum_spectrum(ds)
    pixels, channels = (int(np.count_nonzero(each)) for each in (of_pixels, of_channels))
    return noise_edge(pixels, channels, float(of_pixels.sum()))


def kept_numbers(ds: xr.Dataset) -> np.ndarray:
    """Numbers, from 1, of the kept components."""
    return ds[v.DIM_COMPONENT].values[ds[v.COMPONENT_KEEP].values == 1]


def uncertain_numbers(ds: xr.Dataset) -> np.ndarray:
    """Numbers, from 1, of the components that need a person's eye."""
    return ds[v.DIM_COMPONENT].values[np.array(component_outcomes(ds)) == "uncertain"]


def component_name(ds: xr.Dataset, number: int) -> str | None:
    """Name of a component that has one, and whether it was held."""
    if v.COORD_COMPONENT_NAME not in ds.coords:
        return None
    name = str(ds[v.COORD_COMPONENT_NAME].sel({v.DIM_COMPONENT: number}).values)
    held = number in np.atleast_1d(ds[v.COMPONENT_SPECTRUM].attrs.get(HELD, []))
    return f"{name} (held)" if held else name


_EVIDENCE = (
    v.COMPONENT_VARIANCE,
    v.COMPONENT_VARIANCE_RATIO,
    v.COMPONENT_SIGNAL_PROBABILITY,
    v.COMPONENT_SPATIAL_STATISTIC,
    v.COMPONENT_EFFECT_SIZE,
    v.COMPONENT_SIGNAL_KEPT,
)


def component_table(ds: xr.Dataset) -> pd.DataFrame:
    """Tabulate the components of a Dataset: variances, evidence, outcome and decision.

    Parameters
    ----------
    ds : Dataset
        From `edxdenoise.select` or `edxdenoise.denoise`.

    Returns
    -------
    pandas.DataFrame
        One row per component: ``component``, ``name`` (where components have names), ``variance``,
        ``variance_ratio``, ``signal_probability``, ``spatial_statistic``, ``effect_size``,
        ``signal_kept`` (NaN where there is none), ``outcome``, ``note`` (where a
        person wrote any) and ``keep``.
    """
    numbers = ds[v.DIM_COMPONENT].values
    table = pd.DataFrame({"component": numbers})
    if v.COORD_COMPONENT_NAME in ds.coords:
        table["name"] = [component_name(ds, number) for number in numbers]
    for spec in _EVIDENCE:
        # Files of earlier versions have no spatial statistic.
        values = ds[spec].values if spec in ds else np.full(len(numbers), np.nan)
        table[spec.removeprefix("component_")] = values.astype(float)
    table["outcome"] = component_outcomes(ds)
    if v.COORD_COMPONENT_NOTE in ds.coords:
        table["note"] = ds[v.COORD_COMPONENT_NOTE].values
    table["keep"] = ds[v.COMPONENT_KEEP].values == 1
    return table
