"""Test whether denoising moved counts: raw minus denoised net counts, summed over pixels.

A dropped component takes its signal with it, and an average over pixels may move counts from a
small grain to its surroundings. No variance shows either. Raw counts are unbiased: with a and b as
in `intensity`, the difference sum_j (a_j - b_j) X_j is again a weighted sum of Poisson counts. Its
variance is known, and its z-score is near 0 where nothing was lost.

Regions that do not depend on the counts, such as areas, are tested with all counts. Groups of
similar pixels are found with one half of the counts and tested with the other (see `phases`): with
the counts that found it, the sum over a group is biased by its own noise.

What the difference of a group shows beside its noise is the bias of each of its pixels. Where
pixels were averaged, what moved depends on the place too, and groups are cut into parts that lie
together. How much of a difference is bias is judged from all parts (`expected_square`): where most
have none, a part needs more than chance to have one.
"""

from __future__ import annotations

from collections.abc import Mapping

import dask
import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.blocks import as_delayed, compute
from edxdenoise.errors import Rank, warn
from edxdenoise.quantification.composition import factor_arrays
from edxdenoise.quantification.estimators import (
    behind_projection,
    is_shrunk,
    sums_counts,
    sums_denoised,
)
from edxdenoise.quantification.lines import composed_lines
from edxdenoise.quantification.regions import pixel_features, similar_pixels
from edxdenoise.thinning import thin

# Groups of similar pixels, and pixels in one on average, at least.
_GROUPS = 64
_FEWEST = 200
# Pixels and counts in a part of a group, at least, and the most parts.
_PART, _PART_COUNTS, _MOST_PARTS = 60, 3000.0, 1024
# Variance of one count in one half: a part without counts of a line is not certain of it.
_ONE_COUNT = 4.0
# Large biases have at least this many times the variance of the noise. Squared differences, in
# standard deviations, are cut off at the second number.
_MUCH_MORE, _MOST_SQUARE = 8.0, 1e6
# Standard deviations that chance exceeds in none of some hundred differences; the at% (% of the
# net counts where there are no k-factors) from which it matters; and standard deviations of single
# pixels, beyond which it is outside their 95 % intervals.
_SURELY, _MUCH, _OUTSIDE = 5.0, 1.0, 2.0


def bias_table(
    ds: xr.Dataset,
    regions: Mapping[str, np.ndarray],
    *,
    estimators: xr.DataArray | None = None,
    held_out: xr.Dataset | None = None,
) -> pd.DataFrame:
    """Tabulate raw and denoised net counts by region and line, with z-scores of the difference.

    Parameters
    ----------
    ds : Dataset
        Denoised, with its ``counts``.
    regions : mapping of str to array of bool, shape (y, x)
        By name; see `area_regions` and `find_phases`.
    estimators : DataArray, dims (line, energy), optional
        Weights of the channels in the net counts; by default those by which `ds` was quantified. A
        fit is compared without the bound at 0, which is not linear.
    held_out : Dataset, optional
        With the half of the counts to test with, where the other half found the regions.

    Returns
    -------
    pandas.DataFrame
        One row per region and line: ``region``, ``line``, ``raw``, ``denoised``, ``difference``,
        ``stddev`` and ``z``.
    """
    if estimators is None:
        estimators = ds[v.LINE_ESTIMATOR]
    names = [str(name) for name in estimators[v.DIM_LINE].values]
    rows_of = estimators.values.astype(float)
    maps = [part.values for part in compute(*_raw_and_denoised(ds, rows_of, held_out))]
    rows = []
    for region, mask in regions.items():
        for i, name in enumerate(names):
            raw, denoised, variance = (float(part[..., i][mask].sum()) for part in maps)
            stddev = float(np.sqrt(max(variance, 0.0)))
            rows.append(
                {
                    "region": region,
                    "line": name,
                    "raw": raw,
                    "denoised": denoised,
                    "difference": raw - denoised,
                    "stddev": stddev,
                    "z": (raw - denoised) / stddev if stddev > 0 else np.nan,
                }
            )
    return pd.DataFrame(rows)


def denoising_bias(
    ds: xr.Dataset,
    names: list[str],
    estimators: np.ndarray,
    variance: xr.DataArray,
) -> dict[str, xr.DataArray]:
    """Estimate the bias of denoised net counts from groups of similar pixels.

    Parameters
    ----------
    ds : Dataset
        Denoised, with its whole ``counts``.
    names : list of str
        The lines.
    estimators : array, shape (line, energy)
        Weight of each channel of the raw counts.
    variance : DataArray, dims (y, x, row)
        Of the denoised net counts of single pixels, one row per line.

    Returns
    -------
    dict of str to DataArray
        ``line_intensity_bias``, and raw and denoised net counts, the standard deviation of their
        difference, the standard deviation of single pixels and the pixels of each group. Lazy where
        the maps or counts are.
    """
    first, second = thin(ds)
    sizes = sums_denoised(ds, np.ones((1, estimators.shape[1])))
    compared = _raw_and_denoised(ds, estimators, second)
    parts = [pixel_features(ds, first), sizes, *compared, variance]
    arrays = [part.transpose(v.DIM_Y, v.DIM_X, "row").data for part in parts]
    rows, columns = arrays[0].shape[:2]
    count = max(min(_GROUPS, rows * columns // _FEWEST), 1)
    found: tuple[np.ndarray | da.Array, ...]
    if any(isinstance(array, da.Array) for array in arrays):
        single = [as_delayed(each) if isinstance(each, da.Array) else each for each in arrays]
        later = dask.delayed(_group_biases, nout=3)(*single, count=count, averaged=is_shrunk(ds))
        lines = len(names)
        shapes = [(rows, columns, lines), (4, count, lines), (count,)]
        kinds = [np.float32, np.float64, np.int64]
        found = tuple(
            da.from_delayed(part, shape, kind) for part, shape, kind in zip(later, shapes, kinds)
        )
    else:
        found = _group_biases(*arrays, count=count, averaged=is_shrunk(ds))
    bias, sums, pixels = found
    result: dict[str, xr.DataArray] = {
        v.LINE_INTENSITY_BIAS: xr.DataArray(bias, dims=(v.DIM_Y, v.DIM_X, v.DIM_LINE))
    }
    specs = v.GROUP_RAW, v.GROUP_DENOISED, v.GROUP_STDDEV, v.GROUP_PIXEL_STDDEV
    result |= {spec: spec.array(part) for spec, part in zip(specs, sums)}
    return result | {v.GROUP_PIXELS: v.GROUP_PIXELS.array(pixels)}


def _group_biases(
    features: np.ndarray,
    sizes: np.ndarray,
    raw: np.ndarray,
    denoised: np.ndarray,
    variance: np.ndarray,
    single: np.ndarray,
    *,
    count: int,
    averaged: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Biases (y, x, line); `bias`'s four numbers of each group (4, group, line); pixels (group,).

    `sizes` are the denoised totals of the pixels, shape (y, x, 1), `averaged` over pixels or not;
    `variance` is that of raw less denoised, `single` that of denoised net counts. Groups that were
    merged are empty.
    """
    labels = similar_pixels(features, count, seed=0)
    flat = labels.ravel()
    sums = np.zeros((4, count, raw.shape[-1]))
    for part, values in zip(sums, (raw, denoised, variance, single)):
        for line in range(raw.shape[-1]):
            part[:, line] = np.bincount(flat, values[..., line].ravel(), minlength=count)
    pixels = np.bincount(flat, minlength=count)
    sums[3] /= np.maximum(pixels, 1)[:, np.newaxis]
    sums[2:] = np.sqrt(np.maximum(sums[2:], 0))
    parts = flat
    if averaged:
        few = int(_PART_COUNTS / max(float(sizes.mean()), 1.0))
        parts = compact_parts(labels, max(_PART, few, flat.size // _MOST_PARTS)).ravel()
    # Groups that were merged are no parts.
    parts = np.unique(parts, return_inverse=True)[1]
    totals = np.maximum(np.bincount(parts, sizes.ravel()), 0)
    bias = np.empty(raw.shape, np.float32)
    for line in range(raw.shape[-1]):
        difference, known = (
            np.bincount(parts, each[..., line].ravel()) for each in (raw - denoised, variance)
        )
        beyond = np.sqrt(expected_square(difference, known + _ONE_COUNT)) * np.sign(difference)
        share = np.divide(beyond, totals, out=np.zeros_like(totals), where=totals > 0)
        bias[..., line] = share[parts].reshape(labels.shape) * np.maximum(sizes[..., 0], 0)
    return bias, sums, pixels


def expected_square(difference: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return the expected square of what differences show beside their noise.

    Most differences are of next to nothing and some of much: the prior is a sum of two normal
    distributions, whose variances and shares are those that make the differences most likely
    (empirical Bayes; I. M. Johnstone and B. W. Silverman, Ann. Stat. 32 (2004) 1594).

    Parameters
    ----------
    difference, variance : array, shape (part,)
        Differences, and the variance of their noise.

    Examples
    --------
    >>> expected_square(np.array([1.0, -1.0, 0.5, -0.5, 9.0]), np.ones(5)).round(1)
    array([ 0.1,  0.1,  0. ,  0. , 79.7])
    """
    square = np.minimum(difference**2 / variance, _MOST_SQUARE)
    share, little, much = 0.1, 0.0, _MUCH_MORE
    # Steps of expectation and maximisation.
    for _ in range(50):
        odds = np.log(share / (1 - share)) + 0.5 * (
            np.log1p(little) - np.log1p(much) + square / (1 + little) - square / (1 + much)
        )
        likely = 1 / (1 + np.exp(-np.clip(odds, -500, 500)))
        # A tenth of a part more: with few parts nothing is certain.
        share = (likely.sum() + 0.1) / (square.size + 1)
        little = max(((1 - likely) * square).sum() / (1 - likely + 1e-9).sum() - 1, 0.0)
        much = max((likely * square).sum() / (likely + 1e-9).sum() - 1, _MUCH_MORE, little)
    result = np.zeros(square.shape)
    for part, ratio in ((1 - likely, little), (likely, much)):
        left = ratio / (1 + ratio)
        result += part * (left**2 * square + left)
    return result * variance


def compact_parts(labels: np.ndarray, size: int) -> np.ndarray:
    """Number of the part of each pixel: groups are cut into parts of pixels that lie together.

    Pixels of a group follow each other in Morton order (G. M. Morton, IBM report, 1966).

    Parameters
    ----------
    labels : array of int, shape (y, x)
        Group of each pixel.
    size : int
        Pixels in a part at least, but in the one part of a smaller group.

    Examples
    --------
    >>> compact_parts(np.zeros((4, 4), int), 4)
    array([[0, 0, 1, 1],
           [0, 0, 1, 1],
           [2, 2, 3, 3],
           [2, 2, 3, 3]])
    """
    y, x = np.indices(labels.shape)
    code = np.zeros_like(x)
    for bit in range(int(max(labels.shape)).bit_length()):
        code |= ((x >> bit) & 1) << (2 * bit) | ((y >> bit) & 1) << (2 * bit + 1)
    order = np.lexsort((code.ravel(), labels.ravel()))
    counts = np.bincount(labels.ravel())
    number = np.maximum(counts // size, 1)
    group = labels.ravel()[order]
    rank = np.arange(labels.size) - (np.cumsum(counts) - counts)[group]
    result = np.empty(labels.size, int)
    result[order] = (np.cumsum(number) - number)[group] + rank * number[group] // counts[group]
    return result.reshape(labels.shape)


def check_bias(ds: xr.Dataset) -> None:
    """Warn of lines whose net counts denoising moved by more than what is stated of single pixels.

    A difference is worth a warning where it is far beyond chance, outside the intervals that the
    pixels of its group would have without it, and changes the composition.

    Parameters
    ----------
    ds : Dataset
        With what `denoising_bias` gives, computed. Changes are at% where lines have k-factors,
        else % of the net counts.
    """
    if v.GROUP_RAW not in ds:
        return
    names = [str(name) for name in ds[v.DIM_LINE].values]
    factors, unit = np.ones(len(names)), "% of the net counts"
    lines = composed_lines(ds)
    if lines:
        known = dict(zip(lines, factor_arrays(lines)[1][0]))
        factors, unit = np.array([known.get(name, 0.0) for name in names]), " at%"
    specs = v.GROUP_RAW, v.GROUP_DENOISED, v.GROUP_STDDEV, v.GROUP_PIXEL_STDDEV
    raw, denoised, stddev, single = (ds[spec].values for spec in specs)
    pixels = ds[v.GROUP_PIXELS].values[:, np.newaxis]
    difference = denoised - raw
    change = _percents(denoised, factors) - _percents(raw, factors)
    outside = np.abs(difference) > _OUTSIDE * pixels * single
    matters = (np.abs(change) > _MUCH) & outside & (stddev > 0)
    z = np.divide(np.abs(difference), stddev, out=np.zeros_like(raw), where=matters)
    moved = []
    for i in np.argsort(-np.abs(np.where(z > _SURELY, change, 0)).max(axis=0), kind="stable"):
        worst = int(np.argmax(np.abs(change[:, i]) * (z[:, i] > _SURELY)))
        if z[worst, i] > _SURELY:
            more = difference[worst, i] > 0
            moved.append(
                f"{names[i]} has {'more' if more else 'fewer'} counts after denoising in a group "
                f"of {int(pixels[worst, 0])} similar pixels ({change[worst, i]:+.2g}{unit}, "
                f"{z[worst, i]:.0f} σ)"
            )
    if moved:
        warn(
            f"Possible bias: {'; '.join(moved)}",
            "the errors of single pixels include it, and regions are summed from raw counts",
            "try more components (--keep) or --no-shrink",
            rank=Rank.WORSE,
        )


def _percents(counts: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Percents of each line, shape (group, line), negative counts as 0."""
    amounts = np.maximum(counts, 0) * factors
    total = amounts.sum(axis=1, keepdims=True)
    return np.divide(100 * amounts, total, out=np.zeros_like(amounts), where=total > 0)


def _raw_and_denoised(
    ds: xr.Dataset, estimators: np.ndarray, held_out: xr.Dataset | None = None
) -> list[xr.DataArray]:
    """Raw and denoised net counts and the variance of their difference, dims (y, x, row).

    Of the half held out, both are doubled. Without averages over pixels, denoised counts are a
    filter of the raw ones, which is applied to that half alone. Variances are those of raw counts:
    a model that lost a component does not know what it lacks.
    """
    share = 1.0 if held_out is None else 0.5
    counts = ds if held_out is None else held_out
    lines = len(estimators)
    if is_shrunk(ds):
        # The mean over many pixels has next to none of the noise of its own, which the raw counts
        # have in full.
        sums = sums_counts(counts, np.vstack([estimators, estimators**2]))
        raw, variance = sums.isel(row=slice(lines)), sums.isel(row=slice(lines, None))
        denoised = share * sums_denoised(ds, estimators)
    else:
        behind = behind_projection(ds, estimators)
        sums = sums_counts(counts, np.vstack([estimators, behind, (estimators - behind) ** 2]))
        raw, denoised, variance = (
            sums.isel(row=slice(i * lines, (i + 1) * lines)) for i in range(3)
        )
    parts = raw / share, denoised / share, variance / share**2
    return [part.astype(np.float32) for part in parts]
