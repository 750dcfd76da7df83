"""Start of NMF: from principal components or at random, then a fit of compressed data.

The principal components of the weighted data D ~ T P, some more than NMF has, hold nearly all that
NMF can find. D H' = T (P H') and W'D = (W'T) P cost many times less on them, so that most
iterations are done there, and the data themselves are read a few times only.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from edxdenoise.decompose.nmf_blocks import descend
from edxdenoise.decompose.nmf_fit import Settled, frobenius
from edxdenoise.resources import default_workers

# Pixels worked on at a time: their abundances stay in the cache of a processor.
_PIXELS = 4096


@dataclass(frozen=True)
class Compressed:
    """The weighted data in a few numbers per pixel, and NMF's sizes.

    Parameters
    ----------
    scores : array, shape (n, pixel)
        T, largest first.
    loadings : array, shape (n, energy)
        P, of norm 1.
    total : float
        |D|^2.
    """

    scores: np.ndarray
    loadings: np.ndarray
    total: float

    @property
    def mean(self) -> float:
        """Return the mean of D, of which the compression loses next to nothing."""
        means = self.scores.mean(axis=1, dtype=np.float64) @ self.loadings.mean(axis=1)
        return max(float(means), 0.0)


def nndsvda(data: Compressed, components: int) -> tuple[np.ndarray, np.ndarray]:
    """Start of W' and H from principal components; the same for the same data.

    Of each singular pair the positive or the negative part, whichever is larger (C. Boutsidis and
    E. Gallopoulos, Pattern Recogn. 41 (2008) 1350), with the mean of the data in place of zeros,
    which no multiplicative step would leave.

    Parameters
    ----------
    data : Compressed
    components : int
        No more than principal components.

    Returns
    -------
    maps : array, shape (component, pixel)
    spectra : array, shape (component, energy)
    """
    maps = np.empty((components, data.scores.shape[1]), data.scores.dtype)
    spectra = np.empty((components, data.loadings.shape[1]))
    for k in range(components):
        u, v = data.scores[k], data.loadings[k]
        parts = [(np.maximum(sign * u, 0), np.maximum(sign * v, 0)) for sign in (1, -1)]
        sizes = [(float(np.linalg.norm(a)), float(np.linalg.norm(b))) for a, b in parts]
        best = int(np.prod(sizes[1]) > np.prod(sizes[0]))
        # A score map has the norm of its singular value, so that the product of both is theirs.
        size = np.sqrt(np.prod(sizes[best]))
        for row, part, norm in zip((maps[k], spectra[k]), parts[best], sizes[best]):
            row[:] = part * (size / norm if norm > 0 else 0)
    maps[maps == 0] = data.mean
    spectra[spectra == 0] = data.mean
    return maps, spectra


def random_start(data: Compressed, components: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Start of W' and H from random numbers whose product has about the mean of the data."""
    rng = np.random.default_rng(seed)
    size = np.sqrt(data.mean / components)
    shapes = [(components, data.scores.shape[1]), (components, data.loadings.shape[1])]
    maps, spectra = (size * np.abs(rng.standard_normal(shape)) for shape in shapes)
    return maps.astype(data.scores.dtype), spectra


def fit_compressed(
    data: Compressed, maps: np.ndarray, spectra: np.ndarray, free: int, settled: Settled
) -> tuple[np.ndarray, np.ndarray]:
    """Lower |T P - W H|^2 until it is settled; closure waits for the data.

    Parameters
    ----------
    data : Compressed
    maps, spectra : array, shape (component, pixel) and (component, energy)
        W' and H.
    free : int
        So many of the spectra, the first, are fitted.
    settled : Settled

    Returns
    -------
    maps, spectra
    """
    maps, spectra = maps.copy(), spectra.copy()
    parts = [slice(start, start + _PIXELS) for start in range(0, maps.shape[1], _PIXELS)]
    going = True
    with threadpool_limits(1), ThreadPoolExecutor(default_workers()) as pool:
        while going:
            across = (spectra @ data.loadings.T).astype(maps.dtype)
            gram = (spectra @ spectra.T).astype(maps.dtype)

            def work(part: slice) -> tuple[np.ndarray, np.ndarray]:
                scores, factor = data.scores[:, part], maps[:, part].copy()
                descend(factor, across @ scores, gram, 1)
                maps[:, part] = factor
                return (factor @ scores.T).astype(float), (factor @ factor.T).astype(float)

            sums = list(pool.map(work, parts))
            cross, inner = (np.sum(each, axis=0) for each in zip(*sums))
            cross = cross @ data.loadings
            descend(spectra, cross[:free], inner, 1)
            going = not settled(frobenius(data.total, cross, inner, spectra))
    return maps, spectra
