"""Which components are signal, and which are kept."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import dask.array as da
import numpy as np
import xarray as xr

from edxdenoise.compute import load
from edxdenoise.cube import add_history
from edxdenoise.decompose import is_nmf
from edxdenoise.decompose.pca import NO_VARIANCE
from edxdenoise.errors import ParameterError, Rank, warn
from edxdenoise.schema import (
    COMPONENT_EFFECT_SIZE,
    COMPONENT_KEEP,
    COMPONENT_MAP,
    COMPONENT_SIGNAL_PROBABILITY,
    COMPONENT_SPATIAL_STATISTIC,
    COMPONENT_SPECTRUM,
    COMPONENT_VARIANCE,
    COMPONENT_VARIANCE_RATIO,
    DIM_COMPONENT,
    DIM_X,
    DIM_Y,
    IMAGE_GAIN,
    MEAN_SPECTRUM,
    SHRUNK_SPECS,
    WEIGHT_ENERGY,
    WEIGHT_PIXEL,
    validate,
)
from edxdenoise.selection.edge import noise_edge, weighted_noise_edge
from edxdenoise.selection.elbow import elbow_position, elbows
from edxdenoise.selection.selectors import (
    SELECTORS,
    Verdict,
    network_verdict,
)
from edxdenoise.spatial import (
    LEAST_STATISTIC,
    NOISE_CORRELATED,
    SpatialEvidence,
    evidence_of,
    spatial_evidence,
)

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
    validate(ds, COMPONENT_VARIANCE, COMPONENT_VARIANCE_RATIO, WEIGHT_PIXEL, WEIGHT_ENERGY)
    count = ds.sizes[DIM_COMPONENT]
    if keep is None and selector not in SELECTORS:
        raise ParameterError(f"selector '{selector}' must be one of {', '.join(SELECTORS)}")
    check_models(models, selector, keep)
    factors = is_nmf(ds)
    if factors and keep is None and selector != "all":
        raise ParameterError(
            f"selector '{selector}' judges principal components; of NMF keep all, or name those to "
            "keep"
        )
    if selector == "cnn" and not models and ds.sizes[DIM_Y] * ds.sizes[DIM_X] < _FEWEST_PIXELS:
        selector = "spatial"
    looks = keep is None and selector in _LOOK_AT_MAPS
    if not factors and (looks or not isinstance(ds[COMPONENT_MAP.name].data, da.Array)):
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
            verdict.keep[ds[COMPONENT_VARIANCE_RATIO.name].values <= NO_VARIANCE] = False
        verdict.keep[0] = True
        how = f"selector={selector} seed={seed}"
    probability = verdict.probability
    if probability is None:
        probability = np.full(count, np.nan)
    # Maps that were shrunk are those of another choice.
    result = ds.drop_vars([spec.name for spec in SHRUNK_SPECS], errors="ignore")
    result.attrs.pop(IMAGE_GAIN, None)
    result = result.assign(
        {
            COMPONENT_KEEP.name: COMPONENT_KEEP.array(verdict.keep.astype(np.int8)),
            COMPONENT_SIGNAL_PROBABILITY.name: COMPONENT_SIGNAL_PROBABILITY.array(probability),
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
    probabilities = ds[COMPONENT_SIGNAL_PROBABILITY.name].values
    signals, clear = probabilities > 0.5, np.zeros(len(probabilities), bool)
    if COMPONENT_SPATIAL_STATISTIC.name in ds:
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
    first = ds[DIM_COMPONENT].values == 1
    return ["signal" if one and known else known for known, one in zip(outcomes, first)]


def _with_evidence(ds: xr.Dataset) -> xr.Dataset:
    """With the spatial evidence, and what it was computed from in memory."""
    specs = (COMPONENT_MAP, COMPONENT_SPECTRUM, MEAN_SPECTRUM, WEIGHT_PIXEL, WEIGHT_ENERGY)
    validate(ds, *specs)
    # Together: where they are lazy, each alone would decompose the counts again.
    ds = ds.assign(load(ds[[spec.name for spec in specs]]).data_vars)
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
    statistic = COMPONENT_SPATIAL_STATISTIC.array(evidence.statistic)
    return ds.assign(
        {
            COMPONENT_SPATIAL_STATISTIC.name: statistic.assign_attrs(
                {NOISE_CORRELATED: int(evidence.correlated)}
            ),
            COMPONENT_EFFECT_SIZE.name: COMPONENT_EFFECT_SIZE.array(evidence.effect_size),
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
