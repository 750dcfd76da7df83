"""The split test: a component is signal if an independent part of the counts shows it again.

The counts X are thinned into A and B, independent Poisson measurements (see `thin`).
Components are found on A alone; with their scores a_ik on A and b_ik on B,

    z_k = sum_i (a_ik - mean a_k) b_ik / sqrt(sum_i (a_ik - mean a_k)^2 b_ik^2)

is normal with variance 1 for noise, since B knows nothing of A, and large for signal. No label
and no threshold on variance is needed, and noise of high variance does not pass.

What is kept, though, are components of all counts X, which are better than those of A and in
another order. Let P be those of A, weighted by the chance that they are real, and C = a'b scaled to
X, an unbiased estimate of the signal's covariance within P. Then q = P p_k expresses component p_k
of X in what was proven, q'C q is the signal energy it carries and

    r_k = sqrt(q'C q / sum_i (t_ik - mean t_k)^2)

estimates the correlation of its score map t_k with the map free of noise. The probability rises
from 0 at r = 0.05, where a map shows nothing, to 1 at r = 0.15: a component whose signal is
significant but invisible only adds noise.
"""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import xarray as xr
from scipy.special import ndtr

from edxdenoise import schema as v
from edxdenoise.blocks import (
    Block,
    again,
    as_delayed,
    chunk,
    compact_blocks,
    compute,
    delayed_blocks,
)
from edxdenoise.components.pca import principal_loadings, project_block
from edxdenoise.cube import is_lazy, is_poisson_weighted
from edxdenoise.preprocess import weight
from edxdenoise.thinning import thin

# Share of the counts that components are found on: weak components need it more than the test
# needs its share, whose power goes with sqrt(e (1 - e)), .43 here against .5 for halves.
_FRACTION = 0.75
# On simulated solar cells every noise component had |z| < 4 and nearly every real one z > 10.
_LEAST_Z = 4.0
_INVISIBLE, _VISIBLE = 0.05, 0.15


def split_probability(ds: xr.Dataset, *, seed: int = 0) -> np.ndarray:
    """Probability of every component to be signal, by the split test of the module.

    Parameters
    ----------
    ds : Dataset
        With whole ``counts``, weights and components.
    seed : int
        Seed of the thinning.

    Returns
    -------
    array, shape (component,)

    Raises
    ------
    DataError
        If the counts are not whole.
    """
    v.validate(ds, v.COUNTS, v.WEIGHT_PIXEL, v.COMPONENT_MAP, v.COMPONENT_SPECTRUM)
    blocks = ds if is_lazy(ds) else chunk(ds)
    # Together: where they are lazy, each alone would decompose the counts again.
    names = (v.WEIGHT_PIXEL, v.COMPONENT_SPECTRUM, v.COMPONENT_MAP)
    weight_pixel, spectra, maps = compute(*(ds[name].data for name in names))
    weighting = "poisson" if is_poisson_weighted(ds) else "none"
    found, held_out = thin(blocks[[v.COUNTS]], fraction=_FRACTION, seed=seed)
    found = weight(found, weighting=weighting)
    proven, signal, z = _test(found, held_out, ds.sizes[v.DIM_COMPONENT])
    probability = signal_probability(spectra, maps, proven, signal, z)
    # Component 1 of weighted counts is the total of every pixel and channel: real where there are
    # counts at all, even if the totals do not vary.
    if weighting == "poisson":
        probability[0] = 1.0
    return probability


def signal_probability(
    spectra: np.ndarray,
    maps: np.ndarray,
    proven: np.ndarray,
    signal: np.ndarray,
    z: np.ndarray,
) -> np.ndarray:
    """Probability of components from what the split test says of others, found on a part.

    Parameters
    ----------
    spectra : array, shape (component, energy)
        Loadings p_k of the components in question.
    maps : array, shape (component, y, x)
        Their score maps t_k.
    proven : array, shape (n, energy)
        Loadings P of the components tested.
    signal : array, shape (n, n)
        Covariance C of the signal within P, summed over pixels.
    z : array, shape (n,)
        Their z-scores.
    """
    overlap = spectra @ proven.T * ndtr(z - _LEAST_Z)
    energy = np.einsum("km,mn,kn->k", overlap, signal, overlap)
    # One by one: NumPy makes a copy in 64 bits of what it takes the variance of.
    total = np.array([one.var(dtype=np.float64) * one.size for one in maps])
    visible = np.sqrt(np.clip(energy / np.where(total > 0, total, np.inf), 0, 1))
    return np.clip((visible - _INVISIBLE) / (_VISIBLE - _INVISIBLE), 0, 1)


def _test(
    found: xr.Dataset, held_out: xr.Dataset, components: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Loadings found on A, covariance of their signal in units of all counts, z-scores."""
    loadings = principal_loadings(found, components)
    h = da.asarray(found[v.WEIGHT_ENERGY].data)
    a_counts, b_counts, g = again(
        [found[v.COUNTS].data, held_out[v.COUNTS].data, found[v.WEIGHT_PIXEL].data],
        loadings,
    )
    a_blocks, b_blocks = compact_blocks(a_counts), compact_blocks(b_counts)
    scaled = as_delayed(loadings / h)
    sums = [
        dask.delayed(_block_sums)(a, b, weights, scaled)
        for a, b, weights in zip(*map(delayed_blocks, (a_blocks, b_blocks, g)))
    ]
    loadings, sums = compute(as_delayed(loadings), sums)
    pixels = a_counts.shape[0] * a_counts.shape[1]
    sum_a, sum_b, product, b2, ab2, a2b2 = (sum(parts) for parts in zip(*sums))
    mean = sum_a / pixels
    covariance = product - np.outer(mean, sum_b)
    variance = a2b2 - 2 * mean * ab2 + mean**2 * b2
    z = np.diag(covariance) / np.sqrt(np.where(variance > 0, variance, np.inf))
    scale = _FRACTION / (1 - _FRACTION)
    return loadings, (covariance + covariance.T) / 2 * scale, z


def _block_sums(
    found: Block, held_out: Block, weight_pixel: np.ndarray, loadings: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Sums over one block of a, b, a b', b^2, a b^2 and a^2 b^2, of scores a on A and b on B."""
    a, b = (
        project_block(counts, weight_pixel, loadings).reshape(len(loadings), -1).astype(float)
        for counts in (found, held_out)
    )
    squares = b**2
    return (
        a.sum(axis=1),
        b.sum(axis=1),
        a @ b.T,
        squares.sum(axis=1),
        (a * squares).sum(axis=1),
        (a**2 * squares).sum(axis=1),
    )
