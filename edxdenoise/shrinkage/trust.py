"""Whether shrinkage helps on these data: its error on counts that it has not seen.

The counts are thinned into halves A and B, independent Poisson measurements (see
`edxdenoise.thin`). Profiles are means over counts, so that c_A and c_B follow without a new
decomposition: n c = n_A c_A + n_B c_B, with the variance of c times n / n_A and n / n_B. With c^_A
the profiles of A after shrinkage,

    sum_i n_iB ((c^_iA - c_iB)^2 - var_iB)

is an unbiased estimate of the error of c^_A, whatever the truth, and that of c_A itself is known:
sum_i n_iB var_iA. Their ratio is below 1 where shrinkage helps. Other components, shrunk and judged
by the same halves, leave another part of the truth out; what is common to both drops out of the
difference of their errors.

Counts that are not whole cannot be thinned; normal noise of the known variance, added to c for A
and taken off for B, does the same (N. L. Oliveira, J. Lei and R. J. Tibshirani, arXiv:2111.09447).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import dask.array as da
import numpy as np
import xarray as xr

from edxdenoise.compute import chunk, compute
from edxdenoise.cube import is_lazy
from edxdenoise.decompose.gram import project
from edxdenoise.preprocess import thin
from edxdenoise.schema import (
    COMPONENT_KEEP,
    COMPONENT_SPECTRUM,
    COUNTS,
    WEIGHT_ENERGY,
    WEIGHT_PIXEL,
)
from edxdenoise.shrinkage.estimate import (
    Shrunk,
    area_numbers,
    shrink_profiles,
    shrink_totals,
)
from edxdenoise.shrinkage.profiles import Profiles

# Blocks of rows whose scatter gives the error of the ratio.
_PARTS = 20
# t: the less, the nearer to the full dose, and the less sure.
_ADDED = 0.5


@dataclass(frozen=True)
class HeldOut:
    """What held-out counts say of shrunk profiles, by parts of the map.

    Parameters
    ----------
    error, noise : array, shape (part,)
        Squared error of the shrunk profiles, and that of the profiles as they are.
    loss : array, shape (part,)
        The error less what no choice of components changes: sum of n_B (c^_A^2 - 2 c^_A c_B).
    """

    error: np.ndarray
    noise: np.ndarray
    loss: np.ndarray

    @property
    def ratio(self) -> tuple[float, float]:
        """Error of shrunk profiles over that of the profiles as they are, and its stddev."""
        return _ratio(self.error, self.noise)

    def gain(self, other: HeldOut) -> tuple[float, float]:
        """By how much the error of other components is larger, over the noise; and its stddev."""
        return _ratio(other.loss - self.loss, self.noise)


def _ratio(above: np.ndarray, below: np.ndarray) -> tuple[float, float]:
    """Ratio of sums over parts, and its standard deviation.

    W. G. Cochran, Sampling Techniques, 1977, eq. 6.13.
    """
    ratio = above.sum() / below.sum()
    return float(ratio), float(np.sqrt(((above - ratio * below) ** 2).sum()) / below.sum())


def held_out(choices: Sequence[tuple[xr.Dataset, Profiles]], *, seed: int = 0) -> list[HeldOut]:
    """Shrink the profiles of half of the counts, and judge them by the other half.

    Parameters
    ----------
    choices : sequence of (Dataset, Profiles)
        One map with ``counts``, weights, kept components and, where maps are stacked, ``area``, and
        the profiles of these; several choices of components are judged in one pass.
    seed : int
        Of the split.
    """
    first = choices[0][0]
    halves: Iterable[Profiles]
    if first[COUNTS.name].dtype.kind == "u":
        halves = _halves(choices, seed)
    else:
        halves = [_noisier(noisy, seed) for _, noisy in choices]
    area = area_numbers(first)
    return [_judged(noisy, half, area) for (_, noisy), half in zip(choices, halves)]


def _judged(noisy: Profiles, half: Profiles, area: np.ndarray) -> HeldOut:
    shrunk = shrink_profiles(half, area).values
    parts = []
    for rows in np.array_split(np.arange(len(shrunk)), min(_PARTS, len(shrunk))):
        band = slice(rows[0], rows[-1] + 1)
        whole, first, found = noisy.rows(band), half.rows(band), shrunk[band]
        counts = (whole.counts - first.counts)[..., None].astype(float)
        both = (counts > 0) & (first.counts[..., None] > 0)
        weights = np.where(both, counts, 0)
        share = whole.counts[..., None] / np.where(both, counts, 1)
        judge = share * whole.values - (share - 1) * first.values
        square = (found - judge) ** 2 - share * whole.variance
        each = square, first.variance, found * (found - 2 * judge)
        parts.append([(weights * values).sum() for values in each])
    return HeldOut(*np.array(parts).T)


def held_out_totals(noisy: Profiles, shrunk: Shrunk, area: np.ndarray, *, seed: int = 0) -> float:
    """Error of shrunk totals over that of the totals as they are.

    Totals are counts enough for normal noise: with e of their variance, n + t e and n - e / t are
    independent. With t = 1/2 the first has an eighth more noise than n, and what is right for it is
    right for n.

    Returns
    -------
    float
        Mean square error of shrunk totals over the variance of the totals.
    """
    random = np.random.default_rng([seed, 1])
    noise = np.sqrt(noisy.scale * noisy.counts) * random.standard_normal(noisy.counts.shape)
    found, judge = noisy.counts + _ADDED * noise, noisy.counts - noise / _ADDED
    totals = shrink_totals(noisy, shrunk, area, found, spread=1 + _ADDED**2)
    variance = noisy.scale * noisy.counts.sum(dtype=float)
    square = ((totals - judge) ** 2)[noisy.counts > 0].sum(dtype=float)
    return float(square / variance - (1 + 1 / _ADDED**2))


def _noisier(noisy: Profiles, seed: int) -> Profiles:
    """Profiles with as much noise again as they have, as half of the counts would."""
    values = np.random.default_rng(seed).standard_normal(noisy.values.shape, np.float32)
    values *= np.sqrt(noisy.variance)
    values += noisy.values
    return replace(noisy, values=values, variance=2 * noisy.variance, counts=noisy.counts / 2)


def _halves(choices: Sequence[tuple[xr.Dataset, Profiles]], seed: int) -> Iterator[Profiles]:
    """Rotated profiles of half of the counts, of every choice; the counts are read once."""
    first = choices[0][0]
    blocks = first if is_lazy(first) else chunk(first)
    counts = thin(blocks[[COUNTS.name]], seed=seed)[0][COUNTS.name].data
    g, h = first[WEIGHT_PIXEL.name].values, first[WEIGHT_ENERGY.name].values
    # A row of ones for the totals.
    loadings = [_loadings(*choice) / h for choice in choices] + [np.ones((1, len(h)))]
    weights = da.asarray(g).rechunk(counts.chunks[:2])
    (sums,) = compute(project(counts, weights, da.asarray(np.vstack(loadings))))
    sums *= g.astype(np.float32)
    *parts, totals = np.split(sums, np.cumsum([len(each) for each in loadings])[:-1])
    # A pixel of a single count has the weight of an empty one, and is taken for empty.
    half = np.where(choices[0][1].counts > 0, np.round(totals[0]), 0)
    inverse = np.divide(1, half, out=np.zeros_like(half), where=half > 0)
    for (_, noisy), part in zip(choices, parts):
        values = np.stack([each * inverse for each in part], axis=-1)
        variance = noisy.variance * (noisy.counts * inverse)[..., None]
        yield replace(noisy, values=values, variance=variance, counts=half)


def _loadings(ds: xr.Dataset, noisy: Profiles) -> np.ndarray:
    """Loadings of the rotated profiles, shape (k, energy)."""
    kept = np.flatnonzero(ds[COMPONENT_KEEP.name].values)[1:]
    return np.linalg.inv(noisy.back).T @ ds[COMPONENT_SPECTRUM.name].values[kept]
