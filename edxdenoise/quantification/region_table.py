"""Compositions and ratios of regions, differences between groups of areas, ratios of bins.

The sum of Poisson counts over a region is Poisson distributed, whatever a denoiser does to single
pixels. With the spectrum S of a region's raw counts and the estimators a of `line_estimator`

    I_l = sum_j a_lj S_j,    cov(I_l, I_m) = sum_j a_lj a_mj S_j ,

which holds for any region and needs nothing of single pixels. Denoising adds no counts, so that it
cannot lower these errors; and it may move counts between a small grain and its surroundings, which
raw sums do not show. Where a file has no raw counts, S is what the model expects.

Of millions of counts the model of a fit is wrong by more than their noise, and the background of
one phase is not that of the mean. Both errors are part of that of the region (see `misfit`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import norm, ttest_ind

from edxdenoise import schema as v
from edxdenoise.quantification.composition import (
    DETECTED,
    factor_arrays,
    fractions,
    parse_ratio,
    ratio,
    select_lines,
    unbiased_intensity,
)
from edxdenoise.quantification.estimators import line_weights, pixel_covariance, shares_noise
from edxdenoise.quantification.fit import freer_background
from edxdenoise.quantification.lines import (
    EstimatedLine,
    composed_lines,
    elements_used,
    quantified_lines,
    with_factor,
)
from edxdenoise.simulation.truth import region_atoms
from edxdenoise.xray.families import element_of

# A channel that the fit follows by more than the rest of this says nothing of the model.
_LEAST_LEFT = 0.1
# Standard deviations by which a freer background changes net counts where the other is wrong.
_BACKGROUND_SEEN = 2.0
# k-factors and their standard deviations where there are none.
_NOTHING = np.zeros(0), np.zeros(0)


def region_table(ds: xr.Dataset) -> pd.DataFrame:
    """Tabulate the composition and ratios of regions, of their summed counts.

    Summed counts are the estimate to quote: a mean of ratios over pixels is biased upwards where
    the divisor is noisy. An element whose net counts are within three standard deviations of zero
    is not detected: it has a limit in place of a value, and no part in the sum to 100 %.

    Parameters
    ----------
    ds : Dataset
        With what `cliff_lorimer` and `sum_regions` give, computed. Lines without a k-factor give
        net counts.

    Returns
    -------
    pandas.DataFrame
        One row per region and quantity: ``region``, ``kind``, ``quantity`` ("Pb at%", "I/Pb" or
        "O_Ka counts"), ``k_factor`` (given, estimated or none), ``value`` and ``stddev`` of the
        summed counts (errors of the k-factors and of the detector's response included),
        ``stddev_counting`` (without them), ``limit``, three standard deviations, in place of these
        where the element was not detected; ``true``, of a phantom; ``pixels`` and ``counts`` of
        the region (of a phase, the half of the counts that its composition is of), ``distance``
        along a profile; ``mean_of_pixels`` and ``stddev_of_pixels`` (their scatter) of the map,
        over the ``pixels_with_value``.
    """
    v.validate(ds, v.LINE_ESTIMATOR, v.REGION_MASK, v.REGION_SPECTRUM)
    lines = quantified_lines(ds)
    ratios = [str(text) for text in ds[v.DIM_RATIO].values] if v.RATIO in ds else []
    composed = with_factor(lines)
    counted = [name for name in lines if name not in composed]
    elements = [element_of(name) for name in composed]
    pairs = [parse_ratio(text, elements) for text in ratios]
    factors, spread = factor_arrays(composed)[1] if composed else _NOTHING
    of_composed, of_counted = select_lines(ds, composed), select_lines(ds, counted)
    estimators, of_counts = _estimators(of_composed), _estimators(of_counted)
    one_count = estimators.max(axis=1) ** 2
    used = [*([element] for element in elements), *(text.split("/") for text in ratios)]
    maps = [
        *(ds[v.ATOMIC_PERCENT].values if composed else ()),
        *(ds[v.RATIO].values if pairs else ()),
        *(unbiased_intensity(of_counted).values if counted else ()),
    ]
    estimated = {element_of(n) for n, spec in composed.items() if isinstance(spec, EstimatedLine)}
    origins = [
        *("estimated" if parts & estimated else "given" for parts in map(set, used)),
        *("none" for _ in counted),
    ]
    quantities = [
        *(f"{element} at%" for element in elements),
        *ratios,
        *(f"{name} counts" for name in counted),
    ]
    atoms = region_atoms(ds, elements)
    rows = []
    for region in ds[v.DIM_REGION].values:
        own = ds.sel({v.DIM_REGION: region})
        spectrum = own[v.REGION_SPECTRUM].values
        mask = own[v.REGION_MASK].values == 1
        intensity = estimators @ spectrum
        covariance = (estimators * spectrum) @ estimators.T
        found = _percents_and_ratios(
            intensity,
            covariance,
            _systematic(of_composed.sel({v.DIM_REGION: region})),
            factors,
            spread,
            one_count,
            pairs,
        )
        net = _net_counts(
            of_counts @ spectrum,
            of_counts**2 @ spectrum,
            np.diag(_systematic(of_counted.sel({v.DIM_REGION: region}))),
        )
        truth = (
            None if atoms is None else _true_values(atoms.sel({v.DIM_REGION: region}).values, pairs)
        )
        value, stddev, counting, limit = (np.append(*parts) for parts in zip(found, net))
        for i, quantity in enumerate(quantities):
            pixels = maps[i][mask]
            pixels = pixels[np.isfinite(pixels)]
            rows.append(
                {
                    "region": str(region),
                    "kind": str(own[v.COORD_REGION_KIND].values),
                    "quantity": quantity,
                    "k_factor": origins[i],
                    "value": value[i],
                    "stddev": stddev[i],
                    "stddev_counting": counting[i],
                    "limit": limit[i],
                    **({} if truth is None else {"true": truth[i] if i < len(truth) else np.nan}),
                    "pixels": int(mask.sum()),
                    "counts": float(spectrum.sum()),
                    "distance": float(own[v.COORD_REGION_DISTANCE].values),
                    "mean_of_pixels": float(pixels.mean()) if pixels.size else np.nan,
                    "stddev_of_pixels": float(pixels.std()) if pixels.size else np.nan,
                    "pixels_with_value": int(pixels.size),
                }
            )
    return pd.DataFrame(rows)


def misfit(ds: xr.Dataset) -> xr.Dataset:
    """Add what the fit of all lines misses in each region.

    ``region_misfit``: with r the residual of a channel and H its own share in what is fitted to it,
    r / (1 - H) is the residual of a fit without it. Its square less the Poisson variance stands for
    the variance of the model there, where r exceeds three standard deviations of the counts. The
    covariances of intensities with these variances are known as HC3 (J. G. MacKinnon and H. White,
    J. Econometrics 29 (1985) 305).

    ``region_background``: a background that is wrong over many channels leaves small residuals. How
    much a freer one changes the intensities shows it, where the change exceeds two of its standard
    deviations by counting; its variance is taken off its square.

    Parameters
    ----------
    ds : Dataset
        Quantified by a fit, with what `sum_regions` gives; lazy stays lazy.
    """
    lines = quantified_lines(ds)
    model = line_weights(ds, lines, intensities="fit", elements=elements_used(ds)).model
    assert model is not None
    spectra = ds[v.REGION_SPECTRUM].data
    fitted, shapes = model.estimators, model.shapes
    residual = spectra - (spectra @ fitted.T) @ shapes
    left = np.maximum(1 - (fitted * shapes).sum(axis=0), _LEAST_LEFT)
    variance = (residual / left) ** 2 - spectra
    beyond = residual**2 > DETECTED**2 * np.maximum(spectra, 1)
    known = beyond & (model.weights > 0)
    freer = freer_background(ds[v.DIM_ENERGY].values, model).estimators
    change = freer[: len(lines)] - fitted[: len(lines)]
    moved = spectra @ change.T
    # A freer background is noisy: a change within its noise is no sign of a wrong background.
    noise = spectra @ (change**2).T
    certain = moved**2 > _BACKGROUND_SEEN**2 * noise
    excess = np.sign(moved) * np.sqrt(certain * abs(moved**2 - noise))
    return ds.assign(
        {
            v.REGION_MISFIT: v.REGION_MISFIT.array(np.sqrt(known * abs(variance))),
            v.REGION_BACKGROUND: v.REGION_BACKGROUND.array(excess),
        }
    )


def _true_values(atoms: np.ndarray, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Percents of the elements quantified, and ratios, of known numbers of atoms."""
    total = atoms.sum()
    percents = 100 * atoms / total if total > 0 else np.full(atoms.shape, np.nan)
    ratios = [atoms[a] / atoms[b] if atoms[b] > 0 else np.nan for a, b in pairs]
    return np.append(percents, ratios)


def _estimators(ds: xr.Dataset) -> np.ndarray:
    """Estimators of the lines of a Dataset, shape (line, energy)."""
    return ds[v.LINE_ESTIMATOR].values.astype(float)


def _systematic(region: xr.Dataset) -> np.ndarray:
    """Covariance (line, line) of intensities by what is uncertain beside the counts of a region."""
    estimators = _estimators(region)
    covariance = np.zeros((len(estimators),) * 2)
    if v.LINE_SYSTEMATIC in region:
        # Only with a measured response.
        shifts = region[v.LINE_SYSTEMATIC].values @ region[v.REGION_SPECTRUM].values
        covariance += shifts.T @ shifts
    if v.REGION_MISFIT in region:
        # Only of fits.
        missed = region[v.REGION_MISFIT].values.astype(float)
        moved = region[v.REGION_BACKGROUND].values.astype(float)
        covariance += (estimators * missed**2) @ estimators.T + np.outer(moved, moved)
    return covariance


def _net_counts(
    counts: np.ndarray, variance: np.ndarray, systematic: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Net counts, their standard deviations, those of counting, and limits if not detected."""
    counting = np.sqrt(variance)
    detected = counts > DETECTED * counting
    value, stddev, plain = np.where(
        detected, (counts, np.sqrt(variance + systematic), counting), np.nan
    )
    return value, stddev, plain, np.where(detected, np.nan, DETECTED * counting)


def _percents_and_ratios(
    intensity: np.ndarray,
    covariance: np.ndarray,
    systematic: np.ndarray,
    factors: np.ndarray,
    spread: np.ndarray,
    one_count: np.ndarray,
    pairs: Sequence[tuple[int, int]],
) -> tuple[np.ndarray, ...]:
    """Values, standard deviations, those of counting alone, and limits; percents, then ratios."""
    if not intensity.size:
        return (np.zeros(0),) * 4
    both = covariance + systematic
    none = np.zeros_like(spread)
    detected, fraction, stddev, limit = _detected_fractions(
        intensity, both, factors, spread, one_count
    )
    present = np.where(detected, intensity, 0.0)
    counting = np.where(detected, fractions(present, covariance, factors, none)[1], np.nan)
    columns = [100 * part for part in (fraction, stddev, counting, limit)]
    found = []
    for pair in pairs:
        value, error = ratio(intensity, both, factors, spread, pair)
        plain = ratio(intensity, covariance, factors, none, pair)[1]
        above, below = (bool(detected[i]) for i in pair)
        nothing = np.nan, np.nan, np.nan
        seen = (value, error, plain) if above and below else nothing
        variance = both[pair[0], pair[0]] + one_count[pair[0]]
        at_limit = np.where(
            np.arange(len(intensity)) == pair[0], DETECTED * np.sqrt(variance), intensity
        )
        bound = ratio(at_limit, covariance, factors, none, pair)[0] if below else np.nan
        found.append((*seen, np.nan if above else bound))
    return tuple(np.append(part, [row[i] for row in found]) for i, part in enumerate(columns))


def _detected_fractions(
    intensity: np.ndarray,
    covariance: np.ndarray,
    factors: np.ndarray,
    factor_stddev: np.ndarray,
    one_count: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Fractions of the lines that are detected in one spectrum, and limits of the others.

    A line whose net counts are within three standard deviations of 0 is left out of the sum; its
    error is part of that of the sum.

    Parameters
    ----------
    intensity : array, shape (line,)
    covariance : array, shape (line, line)
    factors, factor_stddev : array, shape (line,)
    one_count : array, shape (line,)
        Variance that one count in the line adds: without any count there is a limit all the same.

    Returns
    -------
    detected : array of bool, shape (line,)
    fraction, stddev : array, shape (line,)
        NaN where the line is not detected.
    limit : array, shape (line,)
        Fraction that a line at three standard deviations would have beside those detected; NaN
        where the line is detected, or none is.
    """
    stddev = np.sqrt(np.diag(covariance))
    detected = intensity > DETECTED * stddev
    present = np.where(detected, intensity, 0.0)
    fraction, error = fractions(present, covariance, factors, factor_stddev)
    total = factors @ present
    least = DETECTED * factors * np.sqrt(stddev**2 + one_count)
    limit = least / (total + least if total > 0 else np.nan)
    fraction, error = (np.where(detected, part, np.nan) for part in (fraction, error))
    return detected, fraction, error, np.where(detected, np.nan, limit)


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


def bin_ratio(ds: xr.Dataset, text: str, *, factor: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Map of a ratio with counts summed over `factor` x `factor` pixels, and its stddev.

    The ratio of sums, which a ratio of few counts needs; rows and columns that do not fill a
    bin are left out.
    """
    lines = composed_lines(ds)
    ds = select_lines(ds, lines)
    factors, spread = factor_arrays(lines)[1]
    pair = parse_ratio(text, [element_of(name) for name in lines])
    bins = {v.DIM_Y: factor, v.DIM_X: factor}
    # Pixels of a bin that were averaged with one another share all their noise.
    shared = factor**2 if shares_noise(ds) else 1
    intensity = unbiased_intensity(ds)
    intensity, covariance = (
        part.astype(float).coarsen(bins, boundary="trim").sum()
        for part in (intensity, pixel_covariance(ds, intensity))
    )
    return ratio(intensity.values, shared * covariance.values, factors, spread, pair)
