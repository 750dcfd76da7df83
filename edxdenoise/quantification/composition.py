"""Composition by the Cliff-Lorimer method, and ratios, each with its error.

G. Cliff and G. W. Lorimer, J. Microsc. 103 (1975) 203: with k-factors against one common reference
the mass fractions are w_l = k_l I_l / sum_m k_m I_m, and the atomic fractions the same with k_l
over the atomic weight. Errors follow from the covariances of the intensities and the errors of the
k-factors to first order: with u_l = k_l I_l and S = sum u, dw_l = sum_m (delta_lm - w_l) du_m / S.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from edxdenoise.cube import add_history
from edxdenoise.errors import EdxdenoiseWarning, ParameterError
from edxdenoise.quantification.families import element_of
from edxdenoise.quantification.lines import LineSpec, weight_k_factors
from edxdenoise.schema import (
    ATOMIC_PERCENT,
    ATOMIC_PERCENT_STDDEV,
    DIM_ELEMENT,
    DIM_LINE,
    DIM_LINE_OTHER,
    DIM_RATIO,
    LINE_DETECTED,
    LINE_INTENSITY,
    LINE_INTENSITY_COVARIANCE,
    RATIO,
    RATIO_STDDEV,
    WEIGHT_PERCENT,
    WEIGHT_PERCENT_STDDEV,
    validate,
)
from edxdenoise.xray import atomic_weight


def fractions(
    intensity: np.ndarray, covariance: np.ndarray, factors: np.ndarray, factor_stddev: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fractions u_l / sum u of u = factors * intensity, and their standard deviations.

    Parameters
    ----------
    intensity : array, shape (..., line)
        Net counts. Negative ones enter as they are: setting noise around zero to zero would move
        every mean upwards.
    covariance : array, shape (..., line, line)
        Of the net counts.
    factors, factor_stddev : array, shape (line,)
        k-factors, over atomic weights for atomic fractions, and their standard deviations.

    Returns
    -------
    fraction, stddev : array, shape (..., line)
        NaN where no intensity is above 0, or their sum is not.
    """
    amount = factors * intensity
    total = amount.sum(axis=-1, keepdims=True)
    valid = (intensity > 0).any(axis=-1, keepdims=True) & (total > 0)
    total = np.where(valid, total, np.nan)
    fraction = amount / total
    # J C J' with J = (1 - w 1') / S, of which only C's diagonal and row sums are needed.
    lines = factors.size
    own = (intensity * factor_stddev) ** 2
    rows = factors * (covariance.reshape(-1, lines) @ factors).reshape(intensity.shape) + own
    variance = factors**2 * np.einsum("...ll->...l", covariance) + own
    variance += fraction * (fraction * rows.sum(axis=-1, keepdims=True) - 2 * rows)
    return fraction, np.sqrt(np.maximum(variance, 0)) / total


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
    above, below = factors[a] * intensity[..., a], factors[b] * intensity[..., b]
    below = np.where(below > 0, below, np.nan)
    value = above / below
    variance = (
        factors[a] ** 2 * covariance[..., a, a]
        + (intensity[..., a] * factor_stddev[a]) ** 2
        + value**2
        * (factors[b] ** 2 * covariance[..., b, b] + (intensity[..., b] * factor_stddev[b]) ** 2)
        - 2 * value * factors[a] * factors[b] * covariance[..., a, b]
    )
    return value, np.sqrt(np.maximum(variance, 0)) / below


def cliff_lorimer(
    ds: xr.Dataset,
    lines: Mapping[str, LineSpec],
    *,
    k_factor_unit: str = "weight",
    ratios: Sequence[str] = (),
) -> xr.Dataset:
    """Weight and atomic percent of every pixel, and ratios of atomic percents.

    Parameters
    ----------
    ds : Dataset
        With what `line_intensity` gives for the same lines.
    lines : mapping of str to LineSpec
        With a k-factor each.
    k_factor_unit : {"weight", "atomic"}
        What the k-factors count.
    ratios : sequence of str
        Such as ``"I/Pb"``.

    Returns
    -------
    Dataset
        With ``weight_percent``, ``atomic_percent`` and, for ratios, ``ratio_map``, each with its
        ``_stddev``. Pixels in which no line has net counts are NaN, and ratios where the divisor
        is not detected. Other variables by element, such as the truth of a phantom, are cut to
        the elements of `lines`. Lazy in, lazy out.

    Raises
    ------
    ParameterError
        If a k-factor is missing, or a ratio names an element that no line is of.
    """
    validate(ds, LINE_INTENSITY, LINE_INTENSITY_COVARIANCE, LINE_DETECTED)
    by_weight, by_atom = factor_arrays(lines, k_factor_unit)
    elements = [element_of(name) for name in lines]
    pairs = [parse_ratio(text, elements) for text in ratios]
    # What an earlier quantification left may be of other elements, and so is a phantom's truth.
    result = ds.drop_dims(DIM_RATIO, errors="ignore")
    if DIM_ELEMENT in ds.dims:
        result = result.reindex({DIM_ELEMENT: elements})
    result = result.assign_coords({DIM_ELEMENT: elements})
    specs = WEIGHT_PERCENT, WEIGHT_PERCENT_STDDEV, ATOMIC_PERCENT, ATOMIC_PERCENT_STDDEV
    parts = _apply(ds, _percents, [DIM_ELEMENT] * 4, len(lines), factors=(by_weight, by_atom))
    for spec, part in zip(specs, parts):
        result[spec.name] = spec.array(part.transpose(*spec.dims).data)
    if pairs:
        parts = _apply(ds, _ratios, [DIM_RATIO] * 2, len(pairs), factors=by_atom, pairs=pairs)
        result = result.assign_coords({DIM_RATIO: list(ratios)})
        # Where the divisor is within its noise a ratio is noise over noise.
        divisors = [below for _, below in pairs]
        detected = ds[LINE_DETECTED.name].data[divisors] == 1
        for spec, part in zip((RATIO, RATIO_STDDEV), parts):
            part = part.transpose(*spec.dims)
            result[spec.name] = spec.array(part.where(detected).data)
    return add_history(result, f"cliff_lorimer k_factor_unit={k_factor_unit} {' '.join(ratios)}")


def factor_arrays(
    lines: Mapping[str, LineSpec], unit: str
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Factors and their standard deviations for fractions of mass and for fractions of atoms."""
    factors = weight_k_factors(lines, unit)
    values = np.array([factors[name] for name in lines]).T
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
    """Warn of pixels without a composition, and of net intensities below 0; needs them computed."""
    intensity = ds[LINE_INTENSITY.name]
    empty = int(np.isnan(ds[ATOMIC_PERCENT.name].isel({DIM_ELEMENT: 0})).sum())
    pixels = intensity[0].size
    if empty:
        warnings.warn(
            f"{empty} of {pixels} pixels have no net counts in any line and no composition (NaN)",
            EdxdenoiseWarning,
            stacklevel=2,
        )
    negative = (intensity < 0).mean(intensity.dims[1:])
    names = [
        f"{name} {float(share):.0%}"
        for name, share in zip(intensity[DIM_LINE].values, negative)
        if share > 0.005
    ]
    if names:
        warnings.warn(
            f"net counts below 0, where a line is within its noise: {', '.join(names)} of the "
            "pixels; they enter the sum to 100 % as they are, so that means stay unbiased",
            EdxdenoiseWarning,
            stacklevel=2,
        )


def _percents(
    intensity: np.ndarray,
    covariance: np.ndarray,
    factors: Sequence[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, ...]:
    intensity, covariance = intensity.astype(float), covariance.astype(float, order="C")
    parts = [part for each in factors for part in fractions(intensity, covariance, *each)]
    return tuple((100 * part).astype(np.float32) for part in parts)


def _ratios(
    intensity: np.ndarray,
    covariance: np.ndarray,
    factors: tuple[np.ndarray, np.ndarray],
    pairs: list[tuple[int, int]],
) -> tuple[np.ndarray, np.ndarray]:
    values = [
        ratio(intensity.astype(float), covariance.astype(float), *factors, pair) for pair in pairs
    ]
    value, stddev = (np.stack(parts, axis=-1).astype(np.float32) for parts in zip(*values))
    return value, stddev


def _apply(
    ds: xr.Dataset, function: Callable[..., Any], dims: Sequence[str], size: int, **kwargs: Any
) -> tuple[xr.DataArray, ...]:
    return xr.apply_ufunc(
        function,
        ds[LINE_INTENSITY.name],
        ds[LINE_INTENSITY_COVARIANCE.name],
        input_core_dims=[[DIM_LINE], [DIM_LINE, DIM_LINE_OTHER]],
        output_core_dims=[[dim] for dim in dims],
        kwargs=kwargs,
        dask="parallelized",
        dask_gufunc_kwargs={"output_sizes": {dims[0]: size}, "allow_rechunk": True},
        output_dtypes=[np.float32] * len(dims),
    )
