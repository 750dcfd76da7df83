"""Where NMF starts: from principal components, or at random; then a fit of compressed data.

The principal components of the weighted data D ~ T P, a few more than NMF has, hold nearly all that
NMF can find. D H' = T (P H') and W' D = (W' T) P cost channels / components times less on them, so
that most iterations are done there, and the data themselves are read a few times only.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits

from edxdenoise.compute import default_workers
from edxdenoise.decompose.nmf_blocks import descend

# Pixels worked on at a time: their abundances stay in the cache of a processor.
_PIXELS = 4096

# Called with the objective after each iteration; whether to stop.
Settled = Callable[[float], bool]


def nndsvda(scores: np.ndarray, loadings: np.ndarray, components: int) -> tuple[np.ndarray, ...]:
    """Start of W and H from principal components; the same for the same data.

    Of each singular pair the positive or the negative part, whichever is larger (C. Boutsidis and
    E. Gallopoulos, Pattern Recogn. 41 (2008) 1350, algorithm 1), with the mean of the data in
    place of zeros, which no multiplicative step would leave.

    Parameters
    ----------
    scores : array, shape (n, pixel)
        T, largest first.
    loadings : array, shape (n, channel)
        P, of norm 1.
    components : int
        No more than n.

    Returns
    -------
    maps : array, shape (component, pixel)
    spectra : array, shape (component, channel)
    """
    maps = np.empty((components, scores.shape[1]), scores.dtype)
    spectra = np.empty((components, loadings.shape[1]))
    for k in range(components):
        pairs = [(scores[k], loadings[k]), (-scores[k], -loadings[k])]
        parts = [(np.maximum(u, 0), np.maximum(v, 0)) for u, v in pairs]
        norms = [(np.linalg.norm(u), np.linalg.norm(v)) for u, v in parts]
        best = int(np.prod(norms[1]) > np.prod(norms[0]))
        (u, v), (norm_u, norm_v) = parts[best], norms[best]
        # |T_k| is the singular value, so that the product of the norms is s |u| |v| with |u| of
        # the singular vector.
        size = np.sqrt(norm_u * norm_v)
        maps[k] = u * (size / norm_u if norm_u > 0 else 0)
        spectra[k] = v * (size / norm_v if norm_v > 0 else 0)
    mean = max(float(scores.mean(axis=1, dtype=np.float64) @ loadings.mean(axis=1)), 0.0)
    maps[maps == 0] = mean
    spectra[spectra == 0] = mean
    return maps, spectra


def fit_compressed(
    scores: np.ndarray,
    loadings: np.ndarray,
    maps: np.ndarray,
    spectra: np.ndarray,
    *,
    free: int,
    total: float,
    sweeps: int,
    settled: Settled,
) -> None:
    """Lower |T P - W H|^2 in place, as `nmf` does with the data.

    Parameters
    ----------
    scores, loadings : array, shape (n, pixel) and (n, channel)
        T and P.
    maps, spectra : array, shape (component, pixel) and (component, channel)
        W and H, changed.
    free : int
        So many of the spectra, the first, are fitted.
    total : float
        |D|^2, for the objective.
    sweeps : int
        Of each factor per iteration.
    settled : callable
        Called with the objective after each iteration, until it says yes.
    """
    parts = [slice(start, start + _PIXELS) for start in range(0, maps.shape[1], _PIXELS)]
    going = True
    with threadpool_limits(1), ThreadPoolExecutor(default_workers()) as pool:
        while going:
            across = (spectra @ loadings.T).astype(maps.dtype)
            gram = (spectra @ spectra.T).astype(maps.dtype)

            def work(part: slice) -> tuple[np.ndarray, np.ndarray]:
                factor = maps[:, part].copy()
                descend(factor, across @ scores[:, part], gram, sweeps)
                maps[:, part] = factor
                return (factor @ scores[:, part].T).astype(float), (factor @ factor.T).astype(float)

            sums = list(pool.map(work, parts))
            cross, inner = (np.sum(each, axis=0) for each in zip(*sums))
            cross = cross @ loadings
            descend(spectra, cross[:free], inner, sweeps)
            going = not settled(frobenius(total, cross, inner, spectra))


def frobenius(total: float, cross: np.ndarray, inner: np.ndarray, spectra: np.ndarray) -> float:
    """|D - W H|^2 from |D|^2, W'D and W'W."""
    return total - 2 * float(np.vdot(cross, spectra)) + float(np.vdot(inner, spectra @ spectra.T))
