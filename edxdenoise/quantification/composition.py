"""Composition by the Cliff-Lorimer method, and ratios, each with its error.

G. Cliff and G. W. Lorimer, J. Microsc. 103 (1975) 203: with k-factors against one common reference
the mass fractions are w_l = k_l I_l / sum_m k_m I_m, and the atomic fractions the same with k_l
over the atomic weight. Errors follow from the covariances of the intensities and the errors of the
k-factors to first order: with u_l = k_l I_l and S = sum u, dw_l = sum_m (delta_lm - w_l) du_m / S.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from scipy.stats import poisson

from edxdenoise import schema as v
from edxdenoise.cube import add_history, pixel_counts
from edxdenoise.errors import ParameterError, Rank, warn
from edxdenoise.quantification.estimators import pixel_covariance
from edxdenoise.quantification.lines import (
    LineSpec,
    check_k_factors,
    composed_lines,
    quantified_lines,
)
from edxdenoise.xray import atomic_weight
from edxdenoise.xray.families import element_of

_PIECE = 16_384  # pixels
# Standard deviations by which net counts exceed 0 where there is something to quantify.
DETECTED = 3.0


def fractions(
    intensity: np.ndarray, covariance: np.ndarray, factors: np.ndarray, factor_stddev: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fractions u_l / sum u of u = factors * intensity, and their standard deviations.

    Parameters
    ----------
    intensity : array, shape (line, ...)
        Net counts. Negative ones enter as they are: setting noise around zero to zero would move
        every mean upwards.
    covariance : array, shape (line, line, ...)
        Of the net counts.
    factors, factor_stddev : array, shape (line,)
        k-factors, over atomic weights for atomic fractions, and their standard deviations.

    Returns
    -------
    fraction, stddev : array, shape (line, ...)
        NaN where no intensity is above 0, or their sum is not.
    """
    shape, lines = intensity.shape, factors.size
    intensity = intensity.reshape(lines, -1)
    covariance = covariance.reshape(lines, lines, -1)
    column = factors[:, None]
    amount = column * intensity
    total = amount.sum(axis=0)
    valid = (intensity > 0).any(axis=0) & (total > 0)
    total = np.where(valid, total, np.nan)
    fraction = amount / total
    # J C J' with J = (1 - w 1') / S, of which only C's diagonal and row sums are needed. The sums
    # keep the precision of the covariances, which are most of the data; what cancels, where one
    # line is nearly all, does not.
    own = (intensity * factor_stddev[:, None]) ** 2
    rows = (factors.astype(covariance.dtype) @ covariance) * column + own
    variance = column**2 * covariance[np.arange(lines), np.arange(lines)] + own
    variance += fraction * (fraction * rows.sum(axis=0) - 2 * rows)
    stddev = np.sqrt(np.maximum(variance, 0)) / total
    return fraction.reshape(shape), stddev.reshape(shape)


def ratio(
    intensity: np.ndarray,
    covariance: np.ndarray,
    factors: np.ndarray,
    factor_stddev: np.ndarray,
    pair: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Ratio u_a / u_b of two lines of `fractions`, and its standard deviation.

    Returns
    -------
    ratio, stddev : array, shape (...)
        NaN where the divisor is not above 0.
    """
    a, b = pair
    above, below = factors[a] * intensity[a], factors[b] * intensity[b]
    below = np.where(below > 0, below, np.nan)
    value = above / below
    variance = (
        factors[a] ** 2 * covariance[a, a]
        + (intensity[a] * factor_stddev[a]) ** 2
        + value**2 * (factors[b] ** 2 * covariance[b, b] + (intensity[b] * factor_stddev[b]) ** 2)
        - 2 * value * factors[a] * factors[b] * covariance[a, b]
    )
    return value, np.sqrt(np.maximum(variance, 0)) / below


def unbiased_intensity(ds: xr.Dataset) -> xr.DataArray:
    """Net counts whose means are right: a fit's without the bound at 0.

    The bound cuts noise on one side. Compositions are of these, so that maps, their errors and
    sums over regions belong together.
    """
    fitted = v.LINE_INTENSITY_UNBOUNDED in ds
    return ds[v.LINE_INTENSITY_UNBOUNDED if fitted else v.LINE_INTENSITY]


def cliff_lorimer(
    ds: xr.Dataset,
    *,
    ratios: Sequence[str] = (),
) -> xr.Dataset:
    """Weight and atomic percent of every pixel, and ratios of atomic percents.

    Parameters
    ----------
    ds : Dataset
        From `line_intensity`; its lines with a k-factor are those composed.
    ratios : sequence of str
        Such as ``"I/Pb"``.

    Returns
    -------
    Dataset
        With ``weight_percent``, ``atomic_percent`` and, for ratios, ``ratio_map``, each with its
        ``_stddev``. They are of `unbiased_intensity`. Percents are NaN where no line is detected or
        the sum of all lines is within three of its standard deviations; ratios where the divisor
        is not detected. Other variables by element, such as the truth of a phantom, are cut to the
        elements composed. Lazy in, lazy out.

    Raises
    ------
    ParameterError
        If no line has a k-factor, or a ratio names an element that no line is of.
    """
    v.validate(ds, v.LINE_INTENSITY, v.LINE_INTENSITY_COVARIANCE, v.LINE_DETECTED)
    lines = composed_lines(ds)
    if not lines:
        check_k_factors(quantified_lines(ds))
    by_weight, by_atom = factor_arrays(lines)
    elements = [element_of(name) for name in lines]
    pairs = [parse_ratio(text, elements) for text in ratios]
    # What an earlier quantification left may be of other elements, and so is a phantom's truth.
    result = ds.drop_dims(v.DIM_RATIO, errors="ignore")
    if v.DIM_ELEMENT in ds.dims:
        # Alone: the counts would lose their compact blocks.
        known = result[[n for n, array in result.items() if v.DIM_ELEMENT in array.dims]]
        cut = known.reindex({v.DIM_ELEMENT: elements})
        result = result.drop_dims(v.DIM_ELEMENT).assign(cut.data_vars)
    result = result.assign_coords({v.DIM_ELEMENT: elements})
    specs = v.WEIGHT_PERCENT, v.WEIGHT_PERCENT_STDDEV, v.ATOMIC_PERCENT, v.ATOMIC_PERCENT_STDDEV
    of_lines = select_lines(ds, lines)
    parts = _by_block(of_lines, _percents, (len(specs), len(lines)), factors=(by_weight, by_atom))
    seen = (of_lines[v.LINE_DETECTED].data == 1).any(axis=0)
    where = da.where if isinstance(parts, da.Array) else np.where
    parts = where(seen, parts, np.float32(np.nan))
    for spec, part in zip(specs, parts):
        result[spec] = spec.array(part)
    if pairs:
        parts = _by_block(of_lines, _ratios, (2, len(pairs)), factors=by_atom, pairs=pairs)
        result = result.assign_coords({v.DIM_RATIO: list(ratios)})
        # Where the divisor is within its noise a ratio is noise over noise.
        divisors = [below for _, below in pairs]
        detected = of_lines[v.LINE_DETECTED].data[divisors] == 1
        for spec, part in zip((v.RATIO, v.RATIO_STDDEV), parts):
            result[spec] = spec.array(where(detected, part, np.float32(np.nan)))
    return add_history(result, f"cliff_lorimer {' '.join(ratios)}".rstrip())


def select_lines(ds: xr.Dataset, lines: Iterable[str]) -> xr.Dataset:
    """Select some of the lines of a Dataset, in this order."""
    names = list(lines)
    if list(ds[v.DIM_LINE].values) == names:
        return ds
    return ds.sel({dim: names for dim in (v.DIM_LINE, v.DIM_LINE_OTHER) if dim in ds.dims})


def factor_arrays(
    lines: Mapping[str, LineSpec],
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Factors and their standard deviations for fractions of mass and for fractions of atoms."""
    check_k_factors(lines)
    values = np.array(
        [(float(spec.k_factor or 0), spec.k_factor_stddev) for spec in lines.values()]
    ).T
    weights = np.array([atomic_weight(element_of(name)) for name in lines])
    return (values[0], values[1]), (values[0] / weights, values[1] / weights)


def parse_ratio(text: str, elements: Sequence[str]) -> tuple[int, int]:
    """Positions among `elements` of the two that a ratio names.

    Examples
    --------
    >>> parse_ratio("I/Pb", ["Pb", "I"])
    (1, 0)
    """
    parts = text.split("/")
    if len(parts) != 2 or parts[0] == parts[1] or not set(parts) <= set(elements):
        raise ParameterError(
            f"ratio '{text}' must be two of the elements quantified, such as "
            f"'{elements[0]}/{elements[-1]}'; they are {', '.join(elements)}"
        )
    return elements.index(parts[0]), elements.index(parts[1])


def check_composition(ds: xr.Dataset) -> None:
    """Note pixels without a composition and negative net counts; needs them computed."""
    intensity = unbiased_intensity(ds)
    pixels = intensity[0].size
    empty = 0
    if v.ATOMIC_PERCENT in ds:
        empty = int(np.isnan(ds[v.ATOMIC_PERCENT].isel({v.DIM_ELEMENT: 0})).sum())
    if empty:
        warn(
            f"No line is detected in {empty / pixels:.0%} of the pixels ({empty})",
            "they have no composition (NaN)",
            rank=Rank.NOTE,
        )
    negative = (intensity < 0).mean(intensity.dims[1:])
    names = [
        f"{name} {float(share):.0%}"
        for name, share in zip(intensity[v.DIM_LINE].values, negative)
        if share > 0.005
    ]
    if names:
        warn(
            f"Net counts are negative (line not detected) in {', '.join(names)} of the pixels",
            "they are kept so that averages stay unbiased",
            rank=Rank.NOTE,
        )


def _percents(
    intensity: np.ndarray,
    covariance: np.ndarray,
    factors: Sequence[tuple[np.ndarray, np.ndarray]],
) -> np.ndarray:
    lines, rows, columns = intensity.shape
    percents = np.empty((2 * len(factors), lines, rows * columns), np.float32)
    intensity = intensity.reshape(lines, -1)
    covariance = covariance.reshape(lines, lines, -1)
    # In pieces whose temporaries stay in the cache.
    for start in range(0, rows * columns, _PIECE):
        piece = slice(start, start + _PIECE)
        counts, spread = intensity[:, piece].astype(float), covariance[..., piece]
        known = np.all([_significant(counts, spread, each) for each, _ in factors], axis=0)
        counts[:, ~known] = np.nan
        for i, each in enumerate(factors):
            for j, part in enumerate(fractions(counts, spread, *each)):
                np.multiply(part, 100, out=percents[2 * i + j, :, piece], casting="same_kind")
    return percents.reshape(-1, lines, rows, columns)


def _significant(intensity: np.ndarray, covariance: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Whether the sum that percents are of exceeds its noise, shape (pixel,)."""
    scale = factors.astype(covariance.dtype)
    variance = ((scale @ covariance.reshape(len(scale), -1)).reshape(len(scale), -1)).T @ scale
    return factors @ intensity > DETECTED * np.sqrt(np.maximum(variance, 0))


def _ratios(
    intensity: np.ndarray,
    covariance: np.ndarray,
    factors: tuple[np.ndarray, np.ndarray],
    pairs: list[tuple[int, int]],
) -> np.ndarray:
    # Of the covariances only those of the pairs are read.
    counts = intensity.astype(float)
    values = [ratio(counts, covariance, *factors, pair) for pair in pairs]
    return np.stack([np.stack(parts) for parts in zip(*values)]).astype(np.float32)


def _by_block(
    ds: xr.Dataset, function: Callable[..., np.ndarray], size: tuple[int, int], **kwargs: Any
) -> np.ndarray | da.Array:
    """`function` of intensities and covariances, block by block: (quantity, element, y, x)."""
    of_lines = unbiased_intensity(ds)
    intensity, covariance = of_lines.data, pixel_covariance(ds, of_lines).data
    if not isinstance(intensity, da.Array) and not isinstance(covariance, da.Array):
        return function(intensity, covariance, **kwargs)
    return da.blockwise(
        function,
        "qeyx",
        da.asarray(intensity),
        "lyx",
        da.asarray(covariance),
        "lmyx",
        new_axes=dict(zip("qe", size)),
        concatenate=True,
        dtype=np.float32,
        **kwargs,
    )


# Chance that a pixel of vacuum passes for specimen.
_FALSE_ALARM = 1e-3
_MASKED = (
    v.WEIGHT_PERCENT,
    v.WEIGHT_PERCENT_STDDEV,
    v.ATOMIC_PERCENT,
    v.ATOMIC_PERCENT_STDDEV,
    v.RATIO,
    v.RATIO_STDDEV,
)


def mask_vacuum(ds: xr.Dataset, vacuum_counts: float) -> xr.Dataset:
    """Compositions without the pixels whose total is no more than vacuum may show.

    Parameters
    ----------
    ds : Dataset
        With what `cliff_lorimer` gives, and the weights or counts.
    vacuum_counts : float
        Mean total counts of a pixel of vacuum: read it off a corner without specimen. A pixel
        stays if Poisson counts of that mean reach its total less than once in a thousand times.

    Returns
    -------
    Dataset
        With NaN in the other pixels of percents and ratios; intensities stay.
    """
    specimen = pixel_counts(ds) > poisson.isf(_FALSE_ALARM, vacuum_counts)
    masked = {
        spec: ds[spec].where(specimen).assign_attrs(ds[spec].attrs)
        for spec in _MASKED
        if spec in ds
    }
    return add_history(ds.assign(masked), f"mask_vacuum vacuum_counts={vacuum_counts:g}")
