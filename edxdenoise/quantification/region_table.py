"""Compositions and ratios of regions, differences between groups of areas, ratios of bins.

The sum of Poisson counts over a region is Poisson distributed, whatever a denoiser does to single
pixels. With the spectrum S of a region's raw counts and the estimators a of `line_estimator`

    I_l = sum_j a_lj S_j,    cov(I_l, I_m) = sum_j a_lj a_mj S_j ,

which holds for any region and needs nothing of single pixels. Denoising adds no counts, so that it
cannot lower these errors; and it may move counts between a small grain and its surroundings, which
raw sums do not show. Where a file has no raw counts, S is what the model expects.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import norm, ttest_ind

from edxdenoise.quantification.composition import (
    DETECTED,
    detected_fractions,
    factor_arrays,
    parse_ratio,
    ratio,
    unbiased_intensity,
)
from edxdenoise.quantification.lines import LineSpec
from edxdenoise.quantification.shrunk import pixel_covariance, shares_noise
from edxdenoise.schema import (
    ATOMIC_PERCENT,
    COORD_REGION_DISTANCE,
    COORD_REGION_KIND,
    DIM_REGION,
    DIM_X,
    DIM_Y,
    LINE_ESTIMATOR,
    LINE_SYSTEMATIC,
    RATIO,
    REGION_MASK,
    REGION_SPECTRUM,
    validate,
)
from edxdenoise.xray.families import element_of


def region_table(
    ds: xr.Dataset,
    lines: Mapping[str, LineSpec],
    *,
    k_factor_unit: str = "weight",
    ratios: Sequence[str] = (),
) -> pd.DataFrame:
    """Tabulate the composition and ratios of regions, of their summed counts.

    Summed counts are the estimate to quote: a mean of ratios over pixels is biased upwards where
    the divisor is noisy. An element whose net counts are within three standard deviations of zero
    is not detected: it has a limit in place of a value, and no part in the sum to 100 %.

    Parameters
    ----------
    ds : Dataset
        With what `cliff_lorimer` and `sum_regions` give, computed.
    lines : mapping of str to LineSpec
        The same.
    k_factor_unit, ratios
        As `cliff_lorimer` takes them.

    Returns
    -------
    pandas.DataFrame
        One row per region and quantity: ``region``, ``kind``, ``quantity`` ("Pb at%" or "I/Pb"),
        ``value`` and ``stddev`` of the summed counts (errors of the k-factors and of
        the detector's response included),
        ``stddev_counting`` (without them), ``limit``, three standard deviations, in place of these
        where the element was not detected; ``pixels`` and ``counts`` of the region (of a phase,
        the half of the counts that its composition is of), ``distance`` along a profile;
        ``mean_of_pixels`` and ``stddev_of_pixels`` (their scatter) of the map, over the
        ``pixels_with_value``.
    """
    validate(ds, LINE_ESTIMATOR, REGION_MASK, REGION_SPECTRUM)
    factors, spread = factor_arrays(lines, k_factor_unit)[1]
    elements = [element_of(name) for name in lines]
    pairs = [parse_ratio(text, elements) for text in ratios]
    estimators = ds[LINE_ESTIMATOR.name].values.astype(float)
    # Without a measured response there are none.
    directions = np.zeros((0, *estimators.shape))
    if LINE_SYSTEMATIC.name in ds:
        directions = ds[LINE_SYSTEMATIC.name].values.astype(float)
    maps = [*ds[ATOMIC_PERCENT.name].values, *(ds[RATIO.name].values if pairs else ())]
    quantities = [*(f"{element} at%" for element in elements), *ratios]
    rows = []
    for region in ds[DIM_REGION].values:
        own = ds.sel({DIM_REGION: region})
        spectrum = own[REGION_SPECTRUM.name].values
        mask = own[REGION_MASK.name].values == 1
        intensity = estimators @ spectrum
        covariance = (estimators * spectrum) @ estimators.T
        shifts = directions @ spectrum
        value, stddev, counting, limit = _percents_and_ratios(
            intensity, covariance, shifts.T @ shifts, factors, spread, pairs
        )
        for i, quantity in enumerate(quantities):
            pixels = maps[i][mask]
            pixels = pixels[np.isfinite(pixels)]
            rows.append(
                {
                    "region": str(region),
                    "kind": str(own[COORD_REGION_KIND].values),
                    "quantity": quantity,
                    "value": value[i],
                    "stddev": stddev[i],
                    "stddev_counting": counting[i],
                    "limit": limit[i],
                    "pixels": int(mask.sum()),
                    "counts": float(spectrum.sum()),
                    "distance": float(own[COORD_REGION_DISTANCE].values),
                    "mean_of_pixels": float(pixels.mean()) if pixels.size else np.nan,
                    "stddev_of_pixels": float(pixels.std()) if pixels.size else np.nan,
                    "pixels_with_value": int(pixels.size),
                }
            )
    return pd.DataFrame(rows)


def _percents_and_ratios(
    intensity: np.ndarray,
    covariance: np.ndarray,
    systematic: np.ndarray,
    factors: np.ndarray,
    spread: np.ndarray,
    pairs: Sequence[tuple[int, int]],
) -> tuple[np.ndarray, ...]:
    """Values, standard deviations, those of counting alone, and limits; percents, then ratios."""
    both = covariance + systematic
    detected, fraction, stddev, limit = detected_fractions(intensity, both, factors, spread)
    none = np.zeros_like(spread)
    counting = detected_fractions(intensity, covariance, factors, none)[2]
    columns = [100 * part for part in (fraction, stddev, counting, limit)]
    found = []
    for pair in pairs:
        value, error = ratio(intensity, both, factors, spread, pair)
        plain = ratio(intensity, covariance, factors, none, pair)[1]
        above, below = (bool(detected[i]) for i in pair)
        nothing = np.nan, np.nan, np.nan
        seen = (value, error, plain) if above and below else nothing
        at_zero = np.where(np.arange(len(intensity)) == pair[0], 0, intensity)
        bound = DETECTED * ratio(at_zero, covariance, factors, none, pair)[1] if below else np.nan
        found.append((*seen, np.nan if above else bound))
    return tuple(np.append(part, [row[i] for row in found]) for i, part in enumerate(columns))


def group_of(label: str) -> str:
    """Name of an area without its number: areas that differ in it alone are repeats.

    Examples
    --------
    >>> group_of("control 2")
    'control'
    """
    return re.sub(r"[\s_-]*\d+$", "", label) or label


def compare_groups(table: pd.DataFrame) -> pd.DataFrame:
    """Differences between groups of areas, against counting errors and against their scatter.

    Areas whose names differ only in a number at the end are repeats of one group. The error of a
    k-factor is common to all areas and left out.

    Parameters
    ----------
    table : pandas.DataFrame
        From `region_table`, with the regions of `area_regions`.

    Returns
    -------
    pandas.DataFrame
        For each pair of groups and each quantity: ``difference`` of the means, its counting
        ``stddev``, ``z`` and two-sided ``p_counting``; ``p_areas`` of Welch's t-test between the
        areas, NaN for fewer than two of either. Empty for fewer than two groups.
    """
    areas = table[table["kind"] == "area"].copy()
    areas["group"] = [group_of(region) for region in areas["region"]]
    groups = list(dict.fromkeys(areas["group"]))
    rows = []
    for i, first in enumerate(groups):
        for second in groups[i + 1 :]:
            for quantity in dict.fromkeys(areas["quantity"]):
                a, b = (
                    areas[(areas["group"] == group) & (areas["quantity"] == quantity)]
                    for group in (first, second)
                )
                difference = b["value"].mean() - a["value"].mean()
                stddev = np.hypot(
                    *(np.sqrt((g["stddev_counting"] ** 2).sum()) / len(g) for g in (a, b))
                )
                z = difference / stddev
                enough = min(len(a), len(b)) > 1
                rows.append(
                    {
                        "groups": f"{second} - {first}",
                        "quantity": quantity,
                        "difference": difference,
                        "stddev": stddev,
                        "z": z,
                        "p_counting": 2 * norm.sf(abs(z)),
                        "p_areas": (
                            ttest_ind(b["value"], a["value"], equal_var=False).pvalue
                            if enough
                            else np.nan
                        ),
                    }
                )
    return pd.DataFrame(rows)


def bin_ratio(
    ds: xr.Dataset,
    lines: Mapping[str, LineSpec],
    text: str,
    *,
    factor: int = 2,
    k_factor_unit: str = "weight",
) -> tuple[np.ndarray, np.ndarray]:
    """Map of a ratio with counts summed over `factor` x `factor` pixels, and its stddev.

    The ratio of sums, which a ratio of few counts needs; rows and columns that do not fill a
    bin are left out.
    """
    factors, spread = factor_arrays(lines, k_factor_unit)[1]
    pair = parse_ratio(text, [element_of(name) for name in lines])
    bins = {DIM_Y: factor, DIM_X: factor}
    # Pixels of a bin that were averaged with one another share all their noise.
    shared = factor**2 if shares_noise(ds) else 1
    intensity = unbiased_intensity(ds)
    intensity, covariance = (
        part.astype(float).coarsen(bins, boundary="trim").sum()
        for part in (intensity, pixel_covariance(ds, intensity))
    )
    return ratio(intensity.values, shared * covariance.values, factors, spread, pair)
