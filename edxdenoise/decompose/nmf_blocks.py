"""What NMF does to one block of pixels, and one pass of it over all blocks.

A block keeps its abundances W, shape (component, y, x). Only spectra H, shape (component, channel),
travel to it, and only sums over its pixels travel back. As in `gram`, the weighted data
D = X / (g h) are never formed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask
import numpy as np
from dask.delayed import Delayed
from threadpoolctl import threadpool_limits

from edxdenoise.decompose.gram import weighted_rows


def descend(factor: np.ndarray, cross: np.ndarray, gram: np.ndarray, sweeps: int) -> None:
    """Hierarchical alternating least squares: lower |D - W H|^2 in W, shape (component, n).

    Row by row, each has a closed optimum with all others held (A. Cichocki and A. H. Phan, IEICE
    Trans. Fundamentals E92-A (2009) 708, algorithm 2), and sweeps are cheap beside the products
    they need (N. Gillis and F. Glineur, Neural Comput. 24 (2012) 1085).

    Parameters
    ----------
    factor : array, shape (component, n)
        Changed in place. Rows of `factor` beyond those of `cross` are held as they are.
    cross : array, shape (free component, n)
        H D', or W' D for spectra.
    gram : array, shape (component, component)
        H H', or W' W for spectra.
    sweeps : int
    """
    for _ in range(sweeps):
        for k, target in enumerate(cross):
            if gram[k, k] > 0:
                row = factor[k] + (target - gram[k] @ factor) / gram[k, k]
                np.maximum(row, 0, out=factor[k])


def frobenius_block(
    counts: np.ndarray,
    weight_pixel: np.ndarray,
    maps: np.ndarray,
    spectra: np.ndarray,
    weight_energy: np.ndarray,
    sweeps: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """W of one block for the spectra, and the sums W'D and W'W that new spectra need.

    Parameters
    ----------
    counts : array, shape (y, x, energy)
    weight_pixel : array, shape (y, x)
    maps : array, shape (component, y, x)
        W so far; its kind of number is that of all products.
    spectra : array, shape (component, energy)
        H.
    weight_energy : array, shape (energy,)
    sweeps : int
    """
    rows = weighted_rows(counts, weight_pixel, maps.dtype.type)
    scaled = (spectra / weight_energy).astype(maps.dtype)
    factor = maps.reshape(len(maps), -1).copy()
    cross = np.ascontiguousarray((rows @ scaled.T).T)
    descend(factor, cross, (spectra @ spectra.T).astype(maps.dtype), sweeps)
    across = np.asarray((rows.T @ factor.T).T, np.float64) / weight_energy
    wide = factor.astype(np.float64)
    return factor.reshape(maps.shape), across, wide @ wide.T


def one_pass(
    kernel: Callable[..., tuple[Any, ...]], *blocks: list[Any], shared: tuple[Any, ...]
) -> tuple[list[Delayed], list[np.ndarray]]:
    """Call `kernel` with every block and what is `shared`; keep its maps, sum the rest.

    Parameters
    ----------
    kernel : callable
        ``kernel(counts, weight_pixel, maps, *shared)`` gives new maps and sums.
    blocks : lists of blocks, of one length
    shared : tuple
        What travels to every block.

    Returns
    -------
    maps : list of Delayed
        Where they were made: in memory here, or on the workers of a cluster.
    sums : list of array
    """
    common = [dask.delayed(each, pure=False) for each in shared]
    made = [dask.delayed(kernel, pure=False)(*parts, *common) for parts in zip(*blocks)]
    maps = [dask.delayed(_first, pure=False)(each) for each in made]
    sums = [dask.delayed(_rest, pure=False)(each) for each in made]
    while len(sums) > 1:
        pairs = [sums[i : i + 2] for i in range(0, len(sums), 2)]
        sums = [
            dask.delayed(_add, pure=False)(*pair) if len(pair) == 2 else pair[0] for pair in pairs
        ]
    with threadpool_limits(1):
        *kept, total = dask.persist(*maps, sums[0])
        return list(kept), total.compute()


def _first(made: tuple[Any, ...]) -> Any:
    return made[0]


def _rest(made: tuple[Any, ...]) -> list[Any]:
    return list(made[1:])


def _add(one: list[Any], other: list[Any]) -> list[Any]:
    return [a + b for a, b in zip(one, other)]
