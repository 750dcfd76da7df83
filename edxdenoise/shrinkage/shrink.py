"""Spatial shrinkage of the kept score maps: the stage, and the decisions it tells of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from edxdenoise.cube import add_history
from edxdenoise.errors import DataError
from edxdenoise.schema import (
    COMPONENT_KEEP,
    COMPONENT_MAP,
    COMPONENT_MAP_SHRUNK,
    COMPONENT_MAP_SHRUNK_STDDEV,
    COMPONENT_SIGNAL_KEPT,
    COMPONENT_SPECTRUM,
    COUNTS,
    DIM_COMPONENT,
    SHRINKAGE,
    TOTAL_STDDEV,
    WEIGHT_ENERGY,
    WEIGHT_PIXEL,
    validate,
)
from edxdenoise.score_noise import score_noise
from edxdenoise.shrinkage.bands import bands
from edxdenoise.shrinkage.bootstrap import profile_errors, total_errors
from edxdenoise.shrinkage.estimate import (
    Shrunk,
    area_numbers,
    chi2_of,
    shrink_profiles,
    shrink_totals,
)
from edxdenoise.shrinkage.profiles import Profiles, profiles
from edxdenoise.shrinkage.trust import held_out, held_out_totals

# Standard deviations by which other components must be better to be taken.
_SURE = 2.0


def shrink(ds: xr.Dataset, *, instead: xr.Dataset | None = None, seed: int = 0) -> xr.Dataset:
    """Average the kept score maps over pixels that are alike within their known noise.

    Where component 1, the total, is kept alone there is nothing to tell pixels apart by.

    Parameters
    ----------
    ds : Dataset
        Poisson-weighted, with computed components and ``component_keep``; with ``counts``, which
        are split to see whether shrinkage helps.
    instead : Dataset, optional
        The same map with other components, such as those of `pca` beside those of `neighbours`.
        They are taken where held-out counts show that their error is less, by two standard
        deviations. Not asked where counts are not whole numbers.
    seed : int
        Of that split.

    Returns
    -------
    Dataset
        With ``component_map_shrunk`` and ``component_map_shrunk_stddev`` (NaN for dropped
        components), ``total_stddev`` and ``component_signal_kept``, in memory; without them where
        held-out counts say that shrinkage does harm. The attribute ``shrinkage`` has the figures
        behind that decision and the one on totals.

    Raises
    ------
    DataError
        If the counts are not Poisson-weighted, or component 1 is not kept.
    """
    validate(ds, COMPONENT_MAP, COMPONENT_SPECTRUM, COMPONENT_KEEP, WEIGHT_PIXEL, WEIGHT_ENERGY)
    if (ds[WEIGHT_PIXEL.name] == 1).all():
        raise DataError("shrinkage needs Poisson weights; use weighting='poisson' or no shrinkage")
    kept = np.flatnonzero(ds[COMPONENT_KEEP.name].values)
    if not len(kept) or kept[0] != 0:
        raise DataError("shrinkage needs component 1, the total; keep it or use no shrinkage")
    if len(kept) == 1:
        return add_history(ds, "shrink nothing beside the total")
    area = area_numbers(ds)
    noisy = _profiles(ds)
    choices = [(ds, noisy)]
    if instead is not None and ds[COUNTS.name].dtype.kind == "u" and _several(instead):
        choices.append((instead, _profiles(instead)))
    judged, *others = held_out(choices, seed=seed)
    of_neighbours: dict[str, Any] = {}
    if others:
        gain, spread = judged.gain(others[0])
        used = gain > -_SURE * spread
        of_neighbours = {"gain": gain, "gain_stddev": spread, "gain_used": used}
        if not used:
            return _with_evidence(shrink(choices[1][0], seed=seed), of_neighbours)
    del choices
    ratio, error = judged.ratio
    shrunk = shrink_profiles(noisy, area)
    totals = shrink_totals(noisy, shrunk, area, noisy.counts)
    chi2, most = chi2_of(noisy, totals)
    totals_ratio = held_out_totals(noisy, shrunk, area, seed=seed)
    smooth_totals = chi2 <= most and totals_ratio < 1
    evidence: dict[str, Any] = {
        "held_out_ratio": ratio,
        "held_out_ratio_stddev": error,
        "chi2_totals": chi2,
        "chi2_totals_most": most,
        "held_out_ratio_totals": totals_ratio,
        "totals_shrunk": smooth_totals,
        "used": ratio < 1,
    }
    result = _with_evidence(ds, {**evidence, **of_neighbours})
    if not ratio < 1:
        return add_history(result, "shrink refused")
    if smooth_totals:
        squares = total_errors(noisy, shrunk, area, totals, seed=seed)
        # A smooth map is no guide to how rough the specimen is, held-out noise is.
        seen = totals_ratio * noisy.scale * noisy.counts.sum(dtype=float)
        squares *= max(seen / squares.sum(), 1)
    else:
        totals, squares = noisy.counts, noisy.scale * noisy.counts
    result = result.assign(
        {
            **_maps(ds, noisy, shrunk, totals, np.sqrt(squares), seed),
            COMPONENT_SIGNAL_KEPT.name: COMPONENT_SIGNAL_KEPT.array(
                _of_kept(ds, signal_kept(noisy, shrunk))
            ),
        }
    )
    return add_history(result, f"shrink totals={smooth_totals}")


def _profiles(ds: xr.Dataset) -> Profiles:
    """Profiles of the kept components."""
    kept = np.flatnonzero(ds[COMPONENT_KEEP.name].values)
    g, h = ds[WEIGHT_PIXEL.name].values, ds[WEIGHT_ENERGY.name].values.astype(float)
    maps, spectra = (ds[spec.name].values[kept] for spec in (COMPONENT_MAP, COMPONENT_SPECTRUM))
    return profiles(maps, spectra, g, h, g != 1, score_noise(ds).scale)


def _several(ds: xr.Dataset) -> bool:
    """Whether there is anything beside the total to tell pixels apart by."""
    keep = ds[COMPONENT_KEEP.name].values
    return bool(keep[0] and keep.sum() > 1)


def _with_evidence(ds: xr.Dataset, evidence: dict[str, Any]) -> xr.Dataset:
    """The same with these figures among those that are there."""
    return ds.assign_attrs({SHRINKAGE: json.dumps({**(shrink_report(ds) or {}), **evidence})})


def _maps(
    ds: xr.Dataset,
    noisy: Profiles,
    shrunk: Shrunk,
    totals: np.ndarray,
    total_stddev: np.ndarray,
    seed: int,
) -> dict[str, xr.DataArray]:
    """Profiles and totals as score maps, with their errors."""
    first = ds[COMPONENT_MAP.name].values[0]
    errors = profile_errors(noisy, shrunk, area_numbers(ds), seed=seed)
    inverse = np.divide(1, noisy.counts, out=np.zeros_like(noisy.counts), where=noisy.counts > 0)
    of_counts = totals * inverse
    scale = (np.sqrt(noisy.counts) * of_counts).astype(np.float32)
    maps, stddevs = [first * of_counts], [first * total_stddev * inverse]
    for back in noisy.back.T.astype(np.float32):
        maps.append((shrunk.values @ back) * scale)
        # Errors of rotated profiles are taken for independent.
        stddevs.append(np.sqrt(errors @ back**2) * scale)
    parts = (
        (COMPONENT_MAP_SHRUNK, _of_kept(ds, maps)),
        (COMPONENT_MAP_SHRUNK_STDDEV, _of_kept(ds, stddevs)),
        (TOTAL_STDDEV, total_stddev.astype(np.float32)),
    )
    return {spec.name: spec.array(values) for spec, values in parts}


def _of_kept(ds: xr.Dataset, values: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """One value or map for every component, NaN for those dropped."""
    kept = np.flatnonzero(ds[COMPONENT_KEEP.name].values)
    every = np.full((ds.sizes[DIM_COMPONENT], *np.shape(values[0])), np.nan, np.float32)
    for number, value in zip(kept, values):
        every[number] = value
    return every


def signal_kept(noisy: Profiles, shrunk: Shrunk) -> np.ndarray:
    """Share of the signal's energy that is left in every component, 1 for the first.

    <c^, c> less the noise that both share, over <c, c> less all noise: for a linear smoother of
    signal s that is <S s, s> / <s, s> on average (Stein's degrees of freedom).

    Returns
    -------
    array, shape (1 + k,)
        NaN where no signal is seen.
    """
    depth = noisy.values.shape[2]
    total = noisy.counts.sum(dtype=float)
    means, both, all_of_it = np.zeros((2, depth)), np.zeros(depth), np.zeros(depth)
    for band, *_ in bands(*noisy.counts.shape):
        part, weights = noisy.rows(band), noisy.counts[band, :, None].astype(float)
        raw, smooth = part.values @ noisy.back, shrunk.values[band] @ noisy.back
        # Rotated profiles have independent noise.
        variance = part.variance @ noisy.back**2
        means += [(weights * each).sum(axis=(0, 1)) / total for each in (raw, smooth)]
        own = shrunk.own[band, :, None]
        both += (weights * (raw * smooth - own * variance)).sum(axis=(0, 1))
        all_of_it += (weights * (raw**2 - variance)).sum(axis=(0, 1))
    both -= total * means[0] * means[1]
    all_of_it -= total * means[0] ** 2
    share = np.divide(both, all_of_it, out=np.full_like(both, np.nan), where=all_of_it > 0)
    return np.concatenate([[1.0], np.clip(share, 0, 1)])


def shrink_report(ds: xr.Dataset) -> dict[str, Any] | None:
    """Figures behind the decisions of `shrink`; None where it was not asked."""
    return json.loads(ds.attrs[SHRINKAGE]) if SHRINKAGE in ds.attrs else None
