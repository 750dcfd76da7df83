"""Net line intensities and their covariances, from counts or from denoised counts.

Whatever the method, an intensity is a weighted sum over channels, I_l = sum_j a_lj X_j. Counts are
Poisson and independent, so that with expected counts m_j

    cov(I_l, I_m) = sum_j a_lj a_mj m_j .

Denoised counts are counts behind a fixed filter: with the kept loadings P, orthonormal in the space
weighted by g (pixel) and h (channel), the pixel weight cancels and I_l = sum_j b_lj X_j with
b_l = (P'P (h a_l)) / h. The same formula holds with b for a. The loadings themselves are taken as
known, and what the dropped components held is a bias that no variance shows: it is measured against
the raw counts (see `bias`) and added to the errors of pixels (see `estimators`).

Expected counts are those of the pixel and its neighbours together (see `expected`), raw or
rebuilt as the intensities are. A variance is no less than what one count among the neighbours
gives, or a share of the background of the mean spectrum.

The variance of Poisson counts is what was expected of them. Counts of one pixel are a poor guide
to that: a pixel that happens to be low gets too small an error, so that deviations downwards look
larger than those upwards. Neighbours know nothing of its noise. So variances are averaged over
about a pixel, with the totals of the pixels as weights, and scaled back to the pixel's own total:
thickness, which changes from pixel to pixel, cancels. Pixels at an interface, whose intensities
differ from those of their neighbours by more than chance, keep their own variance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import dask.array as da
import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter

from edxdenoise import schema as v
from edxdenoise.blocks import chunk, load, pixel_totals
from edxdenoise.config import INTENSITIES, SOURCES
from edxdenoise.cube import (
    add_history,
    detector_resolution,
    energy_axis,
    energy_range,
    is_lazy,
    sum_spectrum,
)
from edxdenoise.errors import ParameterError, Rank, SchemaError, warn
from edxdenoise.quantification.bias import denoising_bias
from edxdenoise.quantification.estimators import (
    SOURCE,
    behind_projection,
    is_shrunk,
    line_weights,
    profile_variance,
    sums_counts,
    sums_denoised,
    total_share,
)
from edxdenoise.quantification.fit import (
    FitModel,
    solve_both,
)
from edxdenoise.quantification.lines import LineSpec, check_lines, check_positions, record_lines
from edxdenoise.quantification.regions import can_split
from edxdenoise.xray import fwhm, line_energy

# Multiples of the standard deviation of the background that make a line detected (L. A. Currie,
# Anal. Chem. 40 (1968) 586, in its usual short form).
_DETECTION = 3.0
# Rebuilt counts may dip below 0 where there is next to nothing; a variance is not let fall below
# this share of what the background of the mean spectrum, scaled to the total of the pixel, gives.
_LEAST_VARIANCE = 0.2


def _note_wide_channels(ds: xr.Dataset, lines: Iterable[str]) -> None:
    """Note lines that are narrower than a channel."""
    width = 1000 * energy_axis(ds)[1]
    peaks = {name: float(fwhm(line_energy(name), detector_resolution(ds))) for name in lines}
    narrow = [f"{name} ({peak:.0f} eV)" for name, peak in peaks.items() if peak < width]
    if narrow:
        warn(
            f"Channels of {width:.0f} eV are wider than the peaks of {', '.join(narrow)}",
            "their net counts are mixed up with those of neighbouring lines and the background",
            "use narrower channels (--rebin-energy 1)",
            rank=Rank.NOTE,
        )


def line_intensity(
    ds: xr.Dataset,
    lines: Mapping[str, LineSpec],
    *,
    intensities: str = "fit",
    source: str = "denoised",
    elements: Iterable[str] = (),
) -> xr.Dataset:
    """Net counts of lines in every pixel, with standard deviation and covariances.

    Parameters
    ----------
    ds : Dataset
        Denoised (with components and weights) or, for ``source="counts"``, with ``counts``.
    lines : mapping of str to LineSpec
        By Siegbahn name, such as ``"Pb_La"``; one per element. k-factors are by weight.
    intensities : {"fit", "windows-linear", "windows"}
        ``fit`` fits all lines at once, with amplitudes of 0 or more; ``windows-linear`` cuts
        windows within channels and draws a straight line between the background windows;
        ``windows`` does as eXSpy's ``get_lines_intensity`` does, with rounded channels and one mean
        of both.
    source : {"denoised", "counts"}
        What is integrated.
    elements : iterable of str
        Other elements in the specimen, whose lines windows keep clear of and the fit includes; by
        default those that the file names.

    Returns
    -------
    Dataset
        With ``line_intensity``, ``line_intensity_stddev``, ``line_intensity_covariance``,
        ``line_detected`` and ``line_estimator``; from a fit also ``line_intensity_unbounded``; of
        denoised counts also what `denoising_bias` gives, where raw whole counts are there to test
        them. Standard deviations are those without the bound at 0, too large by a half or so where
        a line is absent. Lazy where the counts or maps used are.

    Raises
    ------
    ParameterError
        If a line, window or option is impossible.
    SchemaError
        If `ds` lacks what the source needs.
    """
    if intensities not in INTENSITIES:
        raise ParameterError(f"intensities '{intensities}' must be one of {', '.join(INTENSITIES)}")
    if source not in SOURCES:
        raise ParameterError(f"source '{source}' must be one of {', '.join(SOURCES)}")
    if source == "denoised" and v.COMPONENT_KEEP not in ds:
        raise SchemaError("the Dataset holds no components; denoise it, or use source='counts'")
    check_lines(lines)
    elements = list(elements) or list(ds.attrs.get("elements", ()))
    check_positions(
        lines,
        energy_range(ds),
        beam_energy=ds.attrs.get("beam_energy"),
        resolution=detector_resolution(ds),
        elements=elements,
        overlaps=intensities != "fit",
    )
    _note_wide_channels(ds, lines)
    weights = line_weights(ds, lines, intensities=intensities, elements=elements)
    filters = weights.estimators if weights.model is None else weights.model.filters
    in_numpy = source == "counts" and not is_lazy(ds)
    denoised = source == "denoised"
    estimators = behind_projection(ds, weights.estimators) if denoised else weights.estimators
    first, second = np.triu_indices(len(lines))
    products = estimators[first] * estimators[second]
    shifts = weights.systematic.reshape(-1, filters.shape[1])
    rows = np.vstack([filters, products, weights.estimators, shifts])
    # All at once, so that counts or maps are read once.
    if denoised:
        sums, totals = sums_denoised(ds, rows), ds[v.WEIGHT_PIXEL] ** 2
    else:
        blocks = chunk(ds) if in_numpy else ds
        sums = sums_counts(blocks, rows)
        counted = pixel_totals(blocks[v.COUNTS].data, np.float64)
        totals = xr.DataArray(counted, dims=(v.DIM_Y, v.DIM_X))
    own = np.einsum("le,le->l", estimators**2, weights.shapes)
    if denoised:
        assert weights.background is not None
        floor = _LEAST_VARIANCE * _sums_background(ds, products, weights.background)
        undetected = floor.isel(row=first == second)
    else:
        # One count among the neighbours; and a line takes more than 3 counts to be seen.
        floor = xr.DataArray(np.where(first == second, OWN_SHARE * own[first], 0), dims="row")
        undetected = xr.DataArray(own, dims="row")
    no_lines = xr.DataArray(np.zeros(len(lines)), dims=v.DIM_LINE)
    ends = np.cumsum([0, len(filters), len(products), len(lines), len(shifts)])
    filtered, variances, level, moved = (
        sums.isel(row=slice(*pair)) for pair in zip(ends, ends[1:])
    )
    shrunk = denoised and is_shrunk(ds)
    tested = denoised and can_split(ds)
    expected = expected_sums(variances, level, totals)
    profile = profile_variance(ds, weights.estimators) if shrunk else None
    share = total_share(ds) if shrunk else 0.0
    bias = {}
    if tested:
        if profile is None:
            single = expected.isel(row=np.flatnonzero(first == second))
        else:
            single = profile + share * expected.isel(row=slice(len(first), None)) ** 2
        bias = denoising_bias(ds, list(lines), weights.estimators, single)
    shift = bias.pop(v.LINE_INTENSITY_BIAS, None)
    parts = xr.apply_ufunc(
        _finish,
        filtered,
        expected.rename(row="expected"),
        floor.rename(row="floor"),
        undetected.rename(row="undetected"),
        no_lines if profile is None else profile.rename(row=v.DIM_LINE),
        share,
        no_lines if shift is None else shift,
        moved.rename(row="moved") if len(shifts) else no_lines.rename({v.DIM_LINE: "moved"}),
        input_core_dims=[
            *(["row"], ["expected"], ["floor"], ["undetected"]),
            *([v.DIM_LINE], [], [v.DIM_LINE], ["moved"]),
        ],
        output_core_dims=[[v.DIM_LINE]] * 3 + [[v.DIM_LINE, v.DIM_LINE_OTHER], [v.DIM_LINE]],
        kwargs={"model": weights.model, "own": own, "shrunk": shrunk},
        dask="parallelized",
        dask_gufunc_kwargs={
            "output_sizes": {v.DIM_LINE: len(lines), v.DIM_LINE_OTHER: len(lines)},
            "allow_rechunk": True,
        },
        output_dtypes=[np.float32] * 4 + [np.int8],
    )
    specs = [
        v.LINE_INTENSITY,
        v.LINE_INTENSITY_UNBOUNDED,
        v.LINE_INTENSITY_STDDEV,
        v.LINE_INTENSITY_COVARIANCE,
        v.LINE_DETECTED,
    ]
    made: dict[str, xr.DataArray] = {
        spec: spec.array(part.transpose(*spec.dims).data) for spec, part in zip(specs, parts)
    }
    made[v.LINE_INTENSITY_COVARIANCE].attrs[SOURCE] = source
    made[v.LINE_ESTIMATOR] = v.LINE_ESTIMATOR.array(weights.estimators)
    if len(shifts):
        made[v.LINE_SYSTEMATIC] = v.LINE_SYSTEMATIC.array(weights.systematic)
    if shift is not None:
        made[v.LINE_INTENSITY_BIAS] = v.LINE_INTENSITY_BIAS.array(
            shift.transpose(*v.LINE_INTENSITY_BIAS.dims).data
        )
        made |= bias
    if weights.model is None:
        del made[v.LINE_INTENSITY_UNBOUNDED]
    # An earlier quantification may be of other lines.
    of_lines = [v.DIM_LINE, v.DIM_LINE_OTHER, v.DIM_GROUP, v.DIM_DIRECTION]
    result = ds.drop_dims(of_lines, errors="ignore")
    result = result.assign_coords({v.DIM_LINE: list(lines), v.DIM_LINE_OTHER: list(lines)})
    result = record_lines(result.assign(made), lines, intensities=intensities, elements=elements)
    if in_numpy:
        result = result.assign(load(result[list(made)]).data_vars)
    line = f"line_intensity intensities={intensities} source={source} lines={','.join(lines)}"
    return add_history(result, line)


def _sums_background(ds: xr.Dataset, rows: np.ndarray, background: np.ndarray) -> xr.DataArray:
    """The same of the background of the mean spectrum, scaled to the total of the pixel, g^2."""
    spectrum = sum_spectrum(ds)
    # No more than what is there: below the discriminator's edge that is nothing.
    least = np.minimum(background * ds.sizes[v.DIM_Y] * ds.sizes[v.DIM_X], spectrum)
    return ds[v.WEIGHT_PIXEL] ** 2 * xr.DataArray(rows @ least / spectrum.sum(), dims="row")


def _finish(
    filtered: np.ndarray,
    expected: np.ndarray,
    floor: np.ndarray,
    undetected: np.ndarray,
    profile: np.ndarray,
    share: np.ndarray,
    shift: np.ndarray,
    moved: np.ndarray,
    *,
    model: FitModel | None,
    own: np.ndarray,
    shrunk: bool,
) -> tuple[np.ndarray, ...]:
    """Intensities, the same unbounded, standard deviations, covariances, detection of a block.

    `filtered` holds what the filters give; `expected` variances and intensities; `own` is the
    variance that one net count of a line adds to its own intensity. `floor`, covariances of a
    background, is added where a variance lies below its own; none of the background, for detection,
    is below `undetected`. `profile`, `share` and `shift` are P, s^2 / n^2 and b of `shrunk`.
    """
    lines = len(own)
    first, second = np.triu_indices(lines)
    variances, level = np.split(expected, [first.size], axis=-1)
    if model is None:
        intensity = unbounded = filtered
    else:
        right = filtered.reshape(-1, filtered.shape[-1]).T
        free, bounded = solve_both(model.gram, right)
        shape = (*filtered.shape[:-1], lines)
        intensity, unbounded = (part[:lines].T.reshape(shape) for part in (bounded, free))
    diagonal = first == second
    least = floor[..., diagonal]
    # All of it or none: raising variances alone would leave covariances that cannot be.
    lacking = 1 - variances[..., diagonal] / np.maximum(least, np.finfo(float).tiny)
    variances = variances + np.maximum(lacking.max(axis=-1, keepdims=True), 0) * floor
    background = np.maximum(variances[..., diagonal] - own * np.maximum(level, 0), undetected)
    covariance = np.empty((*intensity.shape, lines))
    covariance[..., first, second] = covariance[..., second, first] = variances
    variance = variances[..., diagonal]
    if shrunk:
        left = profile + np.asarray(share)[..., np.newaxis] * level**2
        background *= np.minimum(left / np.maximum(variance, np.finfo(float).tiny), 1)
        variance = left
    detected = unbounded > _DETECTION * np.sqrt(np.maximum(background, 0))
    # The response of the detector is common to all lines, in each of its independent directions.
    moved = moved.reshape(*moved.shape[:-1], -1, lines)
    covariance += moved.swapaxes(-1, -2) @ moved
    variance = np.maximum(variance, 0) + shift**2 + (moved**2).sum(axis=-2)
    return (
        intensity.astype(np.float32),
        unbounded.astype(np.float32),
        np.sqrt(variance).astype(np.float32),
        covariance.astype(np.float32),
        (detected & (unbounded > 0)).astype(np.int8),
    )


# Standard deviation of the Gaussian, and where it ends, in pixels.
_SMOOTHING = 0.8
_REACH = 3
# Share of the average that a pixel gives itself, for the Gaussian over a plane.
OWN_SHARE = 1 / (4 * np.pi * _SMOOTHING**2)
# By how much thickness differs from a pixel to its neighbours: few counts tell less of it than of
# chance, and totals are drawn towards the average.
_UNEVEN = 0.2
# Mean square of the differences to the neighbours, in standard deviations, that chance may make.
_CHANCE = 2.0


def expected_sums(
    variances: xr.DataArray, intensities: xr.DataArray, totals: xr.DataArray
) -> xr.DataArray:
    """Variances and intensities as they are expected of each pixel.

    Parameters
    ----------
    variances : DataArray, dims (y, x, row)
        Variances and covariances that the counts of each pixel give, the upper triangle row by row.
    intensities : DataArray, dims (y, x, row)
        Net counts of the lines.
    totals : DataArray, dims (y, x)
        Counts of the pixels, or anything proportional.

    Returns
    -------
    DataArray, dims (y, x, row)
        Variances, then intensities. Lazy where they are.
    """
    parts = [variances, intensities, totals.astype(float).expand_dims("row", -1)]
    both = xr.concat(parts, "row").transpose(..., "row")
    lines = intensities.sizes["row"]
    if isinstance(both.data, da.Array):
        data = both.data.rechunk({2: -1}).map_overlap(
            expected,
            depth={axis: min(_REACH, both.shape[axis]) for axis in (0, 1)},
            boundary="none",
            lines=lines,
            dtype=np.float64,
            meta=np.empty((0, 0, 0)),
        )
    else:
        data = expected(both.data, lines)
    return both.copy(data=data).isel(row=slice(-1))


def expected(sums: np.ndarray, lines: int) -> np.ndarray:
    """Average one block, shape (y, x, row), whose last row holds the totals."""
    near = gaussian_filter(sums, (_SMOOTHING, _SMOOTHING, 0), radius=(_REACH, _REACH, 0))
    total, mean = sums[..., -1:], near[..., -1:]
    trust = _UNEVEN**2 * mean / (1 + _UNEVEN**2 * mean)
    scale = trust * total + (1 - trust) * mean
    near *= np.divide(scale, mean, out=np.zeros_like(mean), where=mean > 0)
    first, second = np.triu_indices(lines)
    variance = near[..., : first.size][..., first == second]
    square = (sums - near)[..., first.size : -1] ** 2
    square = np.divide(square, variance, out=np.zeros_like(square), where=variance > 0)
    alone = 1 - _CHANCE / np.maximum(square.mean(axis=-1, keepdims=True), _CHANCE)
    near += alone**2 * (sums - near)
    return near
