"""What regions of a map hold as wholes: composition of sums, ratios, differences between areas."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import norm, ttest_ind

from edxdenoise.quantification.composition import (
    factor_arrays,
    fractions,
    parse_ratio,
    ratio,
    unbiased_intensity,
)
from edxdenoise.quantification.lines import LineSpec
from edxdenoise.quantification.shrunk import pixel_covariance, shares_noise
from edxdenoise.schema import (
    ATOMIC_PERCENT,
    COORD_AREA,
    DIM_X,
    DIM_Y,
    LINE_DETECTED,
    LINE_INTENSITY,
    LINE_INTENSITY_COVARIANCE,
    LINE_INTENSITY_MOVED,
    RATIO,
)
from edxdenoise.xray.families import element_of

# Standard deviations by which what is in a region must exceed nothing.
_SEEN = 3.0


def area_regions(ds: xr.Dataset) -> dict[str, np.ndarray]:
    """Masks (y, x) of the whole map and, where several were stacked, of each area by its name."""
    shape = (ds.sizes[DIM_Y], ds.sizes[DIM_X])
    regions = {"all": np.ones(shape, bool)}
    if COORD_AREA in ds.coords:
        numbers = ds[COORD_AREA].values
        names = ds[COORD_AREA].attrs.get("area_label", [])
        several = np.unique(numbers)
        for number in several if several.size > 1 else ():
            name = names[number - 1] if number <= len(names) else f"area {number}"
            regions[name] = np.broadcast_to((numbers == number)[:, np.newaxis], shape)
    return regions


def region_table(
    ds: xr.Dataset,
    lines: Mapping[str, LineSpec],
    regions: Mapping[str, np.ndarray],
    *,
    k_factor_unit: str = "weight",
    ratios: Sequence[str] = (),
) -> pd.DataFrame:
    """Composition and ratios of regions, of summed counts and as means over pixels.

    Summed counts are the estimate to quote: a mean of ratios over pixels is biased upwards where
    the divisor is noisy. NaN where all lines together are within the noise.

    Parameters
    ----------
    ds : Dataset
        With what `cliff_lorimer` gives, computed.
    lines : mapping of str to LineSpec
        The same.
    regions : mapping of str to array of bool, shape (y, x)
        By name.
    k_factor_unit, ratios
        As `cliff_lorimer` takes them.

    Returns
    -------
    pandas.DataFrame
        One row per region and quantity: ``region``, ``quantity`` ("Pb at%" or "I/Pb"), ``value``
        and ``stddev`` of the summed counts (errors of the k-factors and what denoising moved
        included),
        ``stddev_counting`` (without them), ``mean_of_pixels``, ``stddev_of_pixels`` (their
        scatter), ``pixels``: how many those are of, where a line is detected, or the divisor.
    """
    factors, spread = factor_arrays(lines, k_factor_unit)[1]
    elements = [element_of(name) for name in lines]
    # Where no line is seen, percents of pixels are noise over noise, and so is any mean of them.
    seen = (ds[LINE_DETECTED.name].values == 1).any(axis=0)
    intensity = unbiased_intensity(ds).values.astype(float)
    covariance = ds[LINE_INTENSITY_COVARIANCE.name].values.astype(float)
    no_shift = xr.zeros_like(ds[LINE_INTENSITY.name])
    moved = ds.get(LINE_INTENSITY_MOVED.name, no_shift).values.astype(float)
    rows = []
    for region, mask in regions.items():
        total = intensity[:, mask].sum(axis=-1)
        # The filter of the denoiser runs along channels only; shrinkage keeps what adds up. What
        # was moved over like pixels does not average out.
        variance = covariance[:, :, mask].sum(axis=-1)
        variance += np.diag(moved[:, mask].sum(axis=-1) ** 2)
        # A sum within its own noise has no composition.
        if factors @ total < _SEEN * np.sqrt(factors @ variance @ factors):
            total = np.full_like(total, np.nan)
        with_k = fractions(total, variance.copy(), factors, spread)
        counting = fractions(total, variance.copy(), factors, np.zeros_like(spread))
        pixels = ds[ATOMIC_PERCENT.name].values[:, mask & seen]
        for i, element in enumerate(elements):
            rows.append(
                _row(
                    region,
                    f"{element} at%",
                    100 * with_k[0][i],
                    100 * with_k[1][i],
                    100 * counting[1][i],
                    pixels[i],
                )
            )
        for i, text in enumerate(ratios):
            # Over all pixels: those whose divisor is detected are those where noise raised it.
            pair = parse_ratio(text, elements)
            value, stddev = ratio(total, variance, factors, spread, pair)
            _, plain = ratio(total, variance, factors, np.zeros_like(spread), pair)
            rows.append(_row(region, text, value, stddev, plain, ds[RATIO.name].values[i][mask]))
    return pd.DataFrame(rows)


def _row(
    region: str, quantity: str, value: Any, stddev: Any, counting: Any, pixels: np.ndarray
) -> dict[str, object]:
    finite = pixels[np.isfinite(pixels)]
    return {
        "region": region,
        "quantity": quantity,
        "value": float(value),
        "stddev": float(stddev),
        "stddev_counting": float(counting),
        "mean_of_pixels": float(finite.mean()) if finite.size else np.nan,
        "stddev_of_pixels": float(finite.std()) if finite.size else np.nan,
        "pixels": int(finite.size),
    }


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
    areas = table[table["region"] != "all"].copy()
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
