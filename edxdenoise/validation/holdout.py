"""Judge predictions by held-out counts, with errors.

Of all counts X, Poisson with mean m, one part in K is held out: T, Poisson with mean m / K and
independent of the rest, on which a model of m, here called p, was fitted. Then

    deviance D = 2 sum T log(T K / p) - T + p / K

exceeds what m itself would have by 2 sum m log(m / p) - m + p over K on average, so that summed
over the K parts, held out in turn, differences between models are those of their excess. That of
two models p and q has the variance sum 4 T log(p / q)^2. Likewise

    E = sum w ((p - K T)^2 - K^2 T)

is sum w (p - m)^2 on average, the squared error itself, whatever p. With w = 1 / (g h)^2, the
inverse of what the totals of pixel and channel alone let one expect, it is in units of the noise
of raw counts: they themselves would have 1 per channel of a pixel. For a Poisson variable t of mean
u, (t - u)^2 - t has variance 2 u^2 and is uncorrelated with t, so that E has the variance
sum w^2 (2 K^2 m^2 + 4 K m (p - m)^2). What is unknown in it has unbiased estimates as well:
T (T - 1) of m^2 / K^2, and T ((p - K (T - 1))^2 - K^2 (T - 1)) of m (p - m)^2 / K. The difference
of two models has the much smaller variance sum w^2 4 K^2 T (p - q)^2.

Reference: thinning of Poisson counts for cross-validation, A. Neufeld et al., J. Mach. Learn. Res.
25 (2024) 1-35.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import dask
import dask.array as da
import numpy as np
import xarray as xr
from scipy.special import rel_entr

from edxdenoise import schema as v
from edxdenoise.blocks import (
    DENSITY,
    Block,
    chunk,
    compact_blocks,
    compute,
    delayed_blocks,
    hold,
    less,
    sparse_block,
    whole_rows,
)
from edxdenoise.components.selection import kept_numbers
from edxdenoise.config import Denoise
from edxdenoise.cube import is_lazy, kept_maps, kept_spectra, pixel_counts, sum_spectrum
from edxdenoise.errors import Rank, recorded, warn
from edxdenoise.pipeline import fitted
from edxdenoise.survey import survey
from edxdenoise.thinning import FrameFolds, hold_out, parts_of

# Models of counts may dip below 0, of which no deviance can be had: predictions are no less than
# this share of what the totals of pixel and channel alone let one expect.
FLOOR = 0.01
# Parts of the counts that `held_out_error` makes: its standard deviation grows with their number.
_PARTS = 4
# Pixels worked on at a time within a block.
_PIECE = 512

Sums = dict[str, np.ndarray]


@dataclass(frozen=True)
class LineWindows:
    """Positions of lines.

    Parameters
    ----------
    net : array, shape (line, energy)
        What each channel counts for in the net counts of a line.
    near : array, shape (line, energy)
        1 for channels within one FWHM of a line, else 0.
    """

    net: np.ndarray
    near: np.ndarray


@dataclass(frozen=True)
class Scale:
    """Expected counts from the totals of the fitted counts: pixel_i energy_j in pixel i, channel j.

    Parameters
    ----------
    pixel : array, shape (n,)
    energy : array, shape (energy,)
        In units of all counts.
    """

    pixel: np.ndarray
    energy: np.ndarray

    @property
    def expected(self) -> np.ndarray:
        return self.pixel[:, np.newaxis] * self.energy


# Attribute of what held-out counts say: which counts were fitted.
FITTED = "fitted_to"
# Attributes of `component_gain`: the held-out error, and the kept components that it is of.
JUDGED_ERROR, JUDGED = "judged_error", "judged_components"


@dataclass(frozen=True)
class HeldOut:
    """What held-out counts say of a recipe, in units of the squared error of raw counts.

    Parameters
    ----------
    error : DataArray, dims (estimate)
        Mean squared error of the fitted counts, denoised, over that of the same counts as they were
        measured, and its standard deviation. The first may be below 0 by chance: it is an unbiased
        estimate.
    spectra : array, shape (component, energy)
        Of the model that was fitted, as `component_spectrum` has them.
    gains, variances : array, shape (component,)
        By how much each of its components lowers the error, and the variance of that.
    """

    error: xr.DataArray
    spectra: np.ndarray
    gains: np.ndarray
    variances: np.ndarray

    def to_dataset(self) -> xr.Dataset:
        """Return all of it as variables."""
        return xr.Dataset(
            {
                "error": self.error,
                "spectra": ((v.DIM_COMPONENT, v.DIM_ENERGY), self.spectra),
                "gains": (v.DIM_COMPONENT, self.gains),
                "variances": (v.DIM_COMPONENT, self.variances),
            }
        )

    @classmethod
    def of_dataset(cls, ds: xr.Dataset) -> HeldOut:
        """Return what `to_dataset` was of."""
        arrays = (ds[name].values for name in ("spectra", "gains", "variances"))
        return cls(ds["error"], *arrays)

    def check(self) -> None:
        """Warn where the counts are farther from the truth after denoising, beyond two errors."""
        error, stddev = 100 * self.error.values.astype(float)
        if error - 2 * stddev > 100:
            warn(
                "Denoised counts are farther from the truth than raw ones: their squared error is "
                f"{error:.0f} ± {stddev:.0f} % of that of raw counts",
                "maps of denoised counts are wrong by more than noise",
                "--keep more components, or quantify with --source counts",
                rank=Rank.WRONG,
            )

    def of_components(self, ds: xr.Dataset) -> xr.Dataset:
        """Add the gain of each component of a fit to all counts, and its standard deviation.

        With q_j the orthonormal spectra of the model and G_j their gains, a component along p
        gains sum_j (p q_j)^2 G_j, and what of p no q_j describes is noise, which costs one part in
        as many as there are channels. Components of other fits, which are not orthonormal, have
        none.
        """
        if not (_orthonormal(self.spectra) and _orthonormal(ds[v.COMPONENT_SPECTRUM].values)):
            return ds
        share = (ds[v.COMPONENT_SPECTRUM].values @ self.spectra.T) ** 2
        outside = (1 - share.sum(axis=1)) / self.spectra.shape[1]
        gain = v.COMPONENT_GAIN.array(share @ self.gains - outside)
        judged = {JUDGED_ERROR: self.error.values.tolist(), JUDGED: kept_numbers(ds).tolist()}
        return ds.assign(
            {
                v.COMPONENT_GAIN: gain.assign_attrs(judged),
                v.COMPONENT_GAIN_STDDEV: v.COMPONENT_GAIN_STDDEV.array(
                    np.sqrt(share**2 @ self.variances)
                ),
            }
        )


def error_of_choice(ds: xr.Dataset, keep: Iterable[int]) -> tuple[float, float] | None:
    """Return the held-out error of keeping other components, and its standard deviation.

    Parameters
    ----------
    ds : Dataset
        With ``component_gain``; without it there is no such error.
    keep : iterable of int
        Numbers, from 1, of the components.

    Returns
    -------
    error, stddev : float
        In units of the squared error of raw counts: that of the choice that was judged, less the
        gains of what is added, more those of what is dropped. Components that are added count as
        they are, not smoothed.
    """
    if v.COMPONENT_GAIN not in ds:
        return None
    gain, judged = ds[v.COMPONENT_GAIN], ds[v.COMPONENT_GAIN].attrs
    error, stddev = np.atleast_1d(judged[JUDGED_ERROR]).astype(float)
    numbers = ds[v.DIM_COMPONENT].values
    changed = np.isin(numbers, list(keep)) * 1.0 - np.isin(numbers, np.atleast_1d(judged[JUDGED]))
    spread = (changed * ds[v.COMPONENT_GAIN_STDDEV].values) ** 2
    return float(error - changed @ gain.values), float(np.sqrt(stddev**2 + spread.sum()))


def _orthonormal(spectra: np.ndarray) -> bool:
    return bool(np.allclose(spectra @ spectra.T, np.eye(len(spectra)), atol=1e-3))


def held_out_error(ds: xr.Dataset, recipe: Denoise, frames: FrameFolds | None = None) -> HeldOut:
    """Judge what a recipe does to these counts: fitted to three quarters, judged by the last one.

    Parameters
    ----------
    ds : Dataset
        With whole ``counts``.
    recipe : Denoise
        All its choices are made again, with three quarters of the counts.
    frames : FrameFolds, optional
        Where there are at least eight, whole ones are held out.

    Returns
    -------
    HeldOut

    Notes
    -----
    The ratio is that of three quarters of the counts, in place of all. What a fit of given
    complexity keeps of the noise is the same share of any dose; what smoothing moves is a smaller
    share of few counts. Halves fall further short of all counts, smaller parts leave fewer counts
    to judge by.
    """
    lazy = ds if is_lazy(ds) else chunk(ds)
    if frames is not None and not frames.suffice(_PARTS):
        frames = None
    parts = parts_of(0, _PARTS, frames)
    rest, _ = hold_out(lazy, 0, folds=_PARTS, seed=recipe.seed, frames=frames)
    rest = rest.assign({v.COUNTS: rest[v.COUNTS].copy(data=hold(rest[v.COUNTS].data))})
    with recorded(show=False):
        # Warnings are issued for the whole of the counts.
        model = fitted(rest, recipe, survey(rest), errors=False)
    # What is left of each block, so that nothing is drawn again.
    every, fitted_to = (compact_blocks(whole_rows(each[v.COUNTS].data)) for each in (lazy, rest))
    scale = scale_of(model, parts / (parts - 1))
    kept, mean = kept_spectra(model)
    maps, spectra = kept_maps(model).values, np.concatenate([mean[np.newaxis], kept])
    used = model[v.COMPONENT_KEEP].values == 1
    every_map = model[v.COMPONENT_MAP].values
    loadings = model[v.COMPONENT_SPECTRUM].values
    order = np.concatenate([np.flatnonzero(used), np.flatnonzero(~used)])
    single = loadings[order] * model[v.WEIGHT_ENERGY].values
    g = model[v.WEIGHT_PIXEL].values
    places = da.core.slices_from_chunks(every.chunks)
    sums = [
        dask.delayed(_judged_block)(
            dask.delayed(less)(*blocks),
            (maps[:, *place], every_map[:, *place], ~used),
            g[place],
            (spectra, single),
            Scale(scale.pixel[place], scale.energy),
            parts,
        )
        for place, *blocks in zip(places, delayed_blocks(every), delayed_blocks(fitted_to))
    ]
    (error, variance), gains, variances = (sum(parts) for parts in zip(*compute(sums)[0]))
    # In units of the noise of all counts, beside which that of the fitted ones is larger.
    units = parts / (parts - 1) * scale.pixel.size * scale.energy.size
    ratio = v.HELD_OUT_ERROR.array(np.array([error, np.sqrt(variance)]) / units)
    return HeldOut(
        ratio.assign_attrs({FITTED: fitted_words(_PARTS, frames)}),
        loadings[order],
        gains / units,
        variances / units**2,
    )


def fitted_words(folds: int = _PARTS, frames: FrameFolds | None = None) -> str:
    """What is fitted while a part is held out.

    Examples
    --------
    >>> fitted_words(4), fitted_words(8, FrameFolds(50, lambda marks: None))
    ('3/4 of the counts', '7/8 of the 50 frames')
    """
    whole = "counts" if frames is None else f"{frames.number} frames"
    return f"{folds - 1}/{folds} of the {whole}"


def _judged_block(
    held_out: Block,
    maps: tuple[np.ndarray, np.ndarray, np.ndarray],
    g: np.ndarray,
    spectra: tuple[np.ndarray, np.ndarray],
    scale: Scale,
    folds: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """E and its variance, and the gains of all components, those that are kept first."""
    kept, every, dropped = maps
    filled, both = sparse_block(held_out), np.concatenate([kept, every[dropped]])
    return (
        error_of_block(filled, kept, g, spectra[0], scale, folds),
        *gains_of_block(filled, both, g, spectra[1], scale, folds),
    )


def gains_of_block(
    held_out: Block,
    maps: np.ndarray,
    g: np.ndarray,
    spectra: np.ndarray,
    scale: Scale,
    folds: float = _PARTS,
) -> tuple[np.ndarray, np.ndarray]:
    """How much less E each component alone leaves, summed over a block, and the variance of that.

    Parameters
    ----------
    held_out, g, scale, folds
        As `error_of_block` takes them.
    maps : array, shape (component, y, x)
    spectra : array, shape (component, energy)
        In units of the counts, orthogonal where each channel counts for 1 / h^2.

    Returns
    -------
    gains, variances : array, shape (component,)
    """
    rows = sparse_block(held_out).rows
    scores = folds / (folds - 1) * g.reshape(-1, 1) * maps.reshape(len(maps), -1).T
    scores /= scale.pixel.reshape(-1, 1)
    shares = spectra / scale.energy
    own = (spectra * shares).sum(axis=1) * (scale.pixel.reshape(-1) @ scores**2)
    seen = ((rows @ shares.T) * scores).sum(axis=0)
    spread = ((rows @ (shares**2).T) * scores**2).sum(axis=0)
    return 2 * folds * seen - own, 4 * folds**2 * spread


def scale_of(ds: xr.Dataset, factor: float = 1.0) -> Scale:
    """What totals alone let one expect, in units of all counts; empty ones count as one."""
    pixel, energy = pixel_counts(ds), sum_spectrum(ds)
    return Scale(np.maximum(pixel, 1) * factor / pixel.sum(), np.maximum(energy, 1))


def error_of_block(
    held_out: Block,
    maps: np.ndarray,
    g: np.ndarray,
    spectra: np.ndarray,
    scale: Scale,
    folds: float = _PARTS,
) -> np.ndarray:
    """E and its variance, summed over a block.

    The squared predictions of all cells are a quadratic form of the scores, so that only the cells
    that hold counts are looked at.

    Parameters
    ----------
    held_out : Block
    maps : array, shape (component, y, x)
    g : array, shape (y, x)
    spectra : array, shape (1 + component, energy)
        In units of the counts; the mean comes first.
    scale : Scale
        With a map (y, x) in place of pixels.
    folds : float
        K.
    """
    rows = sparse_block(held_out).rows
    scores = np.concatenate([np.ones((1, *g.shape)), maps]).reshape(len(spectra), -1)
    scores = folds / (folds - 1) * g.reshape(-1, 1) * scores.T
    expected = scale.pixel.reshape(-1)
    form = (spectra / scale.energy) @ spectra.T
    total = np.array([(((scores @ form) * scores).sum(axis=1) / expected).sum(), 0.0])
    for start in range(0, len(scores), _PIECE):
        piece = slice(start, start + _PIECE)
        own = rows[piece].tocoo()
        if own.nnz < DENSITY * own.shape[0] * own.shape[1]:
            predicted = np.einsum(
                "nk,nk->n", scores[piece][own.row], spectra.T[own.col], optimize=False
            )
        else:
            predicted = (scores[piece] @ spectra)[own.row, own.col]
        weight = 1 / (expected[piece][own.row] * scale.energy[own.col])
        terms = error_terms(own.data.astype(np.float64), predicted, weight, folds)
        total += [each.sum() for each in terms]
    return total


def error_terms(
    counts: np.ndarray, predicted: np.ndarray, weight: np.ndarray, folds: float
) -> tuple[np.ndarray, np.ndarray]:
    """What a cell that holds counts adds to E beside its squared prediction, and to the variance.

    Parameters
    ----------
    counts : array of float64
        T.
    predicted : array
        p.
    weight : array
        w.
    folds : float
        K.
    """
    once, twice = counts * weight, counts * (counts - 1) * weight
    missed = (predicted - folds * (counts - 1)) ** 2 - folds**2 * (counts - 1)
    return (
        folds**2 * twice - 2 * folds * once * predicted,
        weight * (2 * folds**4 * twice + 4 * folds**2 * once * missed),
    )


def floored(predictions: np.ndarray, scale: Scale) -> np.ndarray:
    """Predictions, shape (model, n, energy), none below the floor."""
    return np.maximum(predictions, FLOOR * scale.expected)


def heldout_sums(
    held_out: np.ndarray,
    predictions: np.ndarray,
    scale: Scale,
    folds: float,
    regions: np.ndarray,
    lines: LineWindows,
) -> Sums:
    """Deviance, squared error and residuals of models on one held-out part, summed.

    Parameters
    ----------
    held_out : array of unsigned integers, shape (n, energy)
        T, of n pixels.
    predictions : array, shape (model, n, energy)
        p, in units of all counts.
    scale : Scale
    folds : float
        K.
    regions : array, shape (region, n)
        1 where a pixel belongs to a region, else 0.
    lines : LineWindows

    Returns
    -------
    dict of arrays
        ``deviance``, ``error`` and ``error_variance``, shape (model, region); ``deviance_pair`` and
        ``error_pair``, variances of differences, shape (model, model, region);
        ``line_deviance`` (model, line) and ``line_deviance_pair`` (model, model, line);
        ``residual``, net counts held out less those predicted, shape (model, line, region), and
        ``residual_variance`` (line, region); ``below_floor`` (model, region), how many predictions
        are; ``pixels`` (region).
    """
    positive = floored(predictions, scale)
    pixel, channel = np.nonzero(held_out)
    counts = held_out[pixel, channel].astype(np.float64)
    predicted = predictions[:, pixel, channel].astype(np.float64)
    logs = np.log(positive[:, pixel, channel] / folds, dtype=np.float64)
    weight = 1 / (scale.pixel[pixel] * scale.energy[channel])
    size, channels = held_out.shape

    def by_pixel(values: np.ndarray) -> np.ndarray:
        return np.bincount(pixel, values, minlength=size)

    def by_line(values: np.ndarray) -> np.ndarray:
        return lines.near @ np.bincount(channel, values, minlength=channels)

    number = len(predictions)
    once = counts * weight
    squares = np.square(predictions) @ (1 / scale.energy).astype(predictions.dtype)
    deviance, error, spread = np.zeros((3, number, size))
    line_deviance = np.zeros((number, len(lines.near)))
    deviance_pair, error_pair = np.zeros((2, number, number, size))
    line_deviance_pair = np.zeros((number, number, len(lines.near)))
    own_terms = counts * np.log(counts) - counts
    for i, own in enumerate(predicted):
        terms = own_terms - counts * logs[i]
        deviance[i] = positive[i].sum(axis=1, dtype=np.float64) / folds + by_pixel(terms)
        totals = positive[i].sum(axis=0, dtype=np.float64) / folds
        line_deviance[i] = lines.near @ totals + by_line(terms)
        linear, spreads = map(by_pixel, error_terms(counts, own, weight, folds))
        error[i] = squares[i] / scale.pixel + linear
        spread[i] = spreads
        for j in range(i):
            between = 4 * counts * (logs[i] - logs[j]) ** 2
            deviance_pair[i, j] = deviance_pair[j, i] = by_pixel(between)
            line_deviance_pair[i, j] = line_deviance_pair[j, i] = by_line(between)
            between = 4 * folds**2 * once * weight * (own - predicted[j]) ** 2
            error_pair[i, j] = error_pair[j, i] = by_pixel(between)
    net = held_out @ lines.net.T
    missed_lines = [net - part / folds for part in predictions @ lines.net.T]
    return {
        "deviance": 2 * deviance @ regions.T,
        "error": error @ regions.T,
        "error_variance": spread @ regions.T,
        "deviance_pair": deviance_pair @ regions.T,
        "error_pair": error_pair @ regions.T,
        "line_deviance": 2 * line_deviance,
        "line_deviance_pair": line_deviance_pair,
        "residual": np.stack([part.T @ regions.T for part in missed_lines]),
        "residual_variance": (held_out @ (lines.net**2).T).T @ regions.T,
        "pixels": regions.sum(axis=1),
        "below_floor": (predictions < positive).sum(axis=2) @ regions.T,
    }


def true_sums(
    expected: np.ndarray, predictions: np.ndarray, scale: Scale, regions: np.ndarray
) -> Sums:
    """Judge predictions by the expected counts of a phantom, shape (n, energy), in place of T.

    Returns
    -------
    dict of arrays, shape (model, region)
        ``true_deviance``, the excess over what the truth itself would have, and ``true_error``;
        ``true_pixels`` (region).
    """
    positive = floored(predictions, scale)
    excess, error = [], []
    for raw, bounded in zip(predictions, positive):
        terms = rel_entr(expected, bounded) - expected + bounded
        excess.append(2 * terms.sum(axis=1, dtype=np.float64))
        squares = np.square(raw - expected) @ (1 / scale.energy).astype(raw.dtype)
        error.append(squares / scale.pixel)
    return {
        "true_pixels": regions.sum(axis=1),
        "true_deviance": np.stack(excess) @ regions.T,
        "true_error": np.stack(error) @ regions.T,
    }
