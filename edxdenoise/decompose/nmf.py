"""Non-negative matrix factorisation of the weighted counts, over blocks of pixels.

D ~ W H with W, H >= 0: abundances W (pixel x component) and spectra H (component x channel) that
look like phases, which principal components do not. W stays with the block of its pixels; only H
and sums of its size travel, so that the result does not depend on where the blocks are computed.
"""

from __future__ import annotations

from collections.abc import Callable

import dask
import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import Delayed

from edxdenoise.compute import as_blocks, chunk, load
from edxdenoise.cube import add_history, check_cube, is_lazy
from edxdenoise.decompose.gram import delayed_blocks
from edxdenoise.decompose.nmf_blocks import descend, frobenius_block, one_pass
from edxdenoise.decompose.nmf_start import fit_compressed, frobenius, nndsvda
from edxdenoise.decompose.pca import check_components, pca
from edxdenoise.schema import (
    COMPONENT_MAP,
    COMPONENT_SPECTRUM,
    COMPONENT_VARIANCE,
    COMPONENT_VARIANCE_RATIO,
    COUNTS,
    DIM_COMPONENT,
    MEAN_SPECTRUM,
    WEIGHT_ENERGY,
    WEIGHT_PIXEL,
    validate,
)

DEFAULT_COMPONENTS = 4
# Attribute of the maps: what the components are.
_DECOMPOSITION = "decomposition"
_MAP_NAME = "abundances in the weighted space"
_SPECTRUM_NAME = "spectra of norm 1 in the weighted space, 0 or more"
_VARIANCE_NAME = "mean square over the pixels of what the component adds in the weighted space"
# Principal components beyond those asked for that the data are compressed to.
_SPARE = 26
# Iterations on compressed data cost little: there the tolerance is this many times smaller.
_FINER = 10
# Up to this many numbers the products are in 64 bits, as those of `gram` are where they are few.
_SMALL = 3e7

# Called with a label, the iteration and the most there may be.
Count = Callable[[str, int, int], None]


def unwatched(label: str, done: int, total: int) -> None:
    """Progress that nobody sees."""


def is_nmf(ds: xr.Dataset) -> bool:
    """Whether the components of `ds` come from `nmf`."""
    return ds[COMPONENT_MAP.name].attrs.get(_DECOMPOSITION) == "nmf"


def nmf(
    ds: xr.Dataset,
    *,
    components: int = DEFAULT_COMPONENTS,
    tolerance: float = 1e-6,
    max_iterations: int = 500,
    count: Count = unwatched,
) -> xr.Dataset:
    """Decompose the weighted counts into non-negative spectra and their abundances.

    Parameters
    ----------
    ds : Dataset
        With ``counts``, ``weight_pixel`` and ``weight_energy`` (see `edxdenoise.weight`).
    components : int
        How many.
    tolerance : float
        The end: an iteration that lowers the objective by less than this share of it.
    max_iterations : int
        The end in any case.
    count : callable
        ``count(label, iteration, max_iterations)`` after each iteration; the label has the
        objective.

    Returns
    -------
    Dataset
        With ``component_map`` (W, component, y, x) and ``component_spectrum`` (H, component,
        energy), whose product is the weighted data; ``component_variance``, what each adds, mean
        square per pixel; ``component_variance_ratio``, against the total; ``mean_spectrum``, 0.
        Spectra have norm 1, largest component first. The counts are read at once; where they are
        lazy, so are the maps, though computed.

    Raises
    ------
    ParameterError
        If there are fewer pixels or channels than components.
    """
    validate(ds, COUNTS, WEIGHT_PIXEL, WEIGHT_ENERGY)
    check_cube(ds)
    shape = ds[COUNTS.name].shape
    check_components(components, shape)
    lazy = is_lazy(ds)
    blocks = ds if lazy else chunk(ds)
    blocks = blocks.assign(load(blocks[[WEIGHT_PIXEL.name, WEIGHT_ENERGY.name]]).data_vars)
    counts = blocks[COUNTS.name].data.rechunk({2: -1})
    if not lazy:
        # On a cluster the blocks then lie with the workers; here they stay views.
        (counts,) = dask.persist(counts)
    blocks = blocks.assign({COUNTS.name: COUNTS.array(counts)})
    g, h = blocks[WEIGHT_PIXEL.name].values, blocks[WEIGHT_ENERGY.name].values
    pixels = g.size

    spare = min(components + _SPARE, pixels, shape[2])
    base = load(pca(blocks, components=spare).drop_vars(COUNTS.name))
    scores = base[COMPONENT_MAP.name].values.reshape(spare, -1)
    loadings = base[COMPONENT_SPECTRUM.name].values
    total = pixels * float(
        base[COMPONENT_VARIANCE.name][0] / base[COMPONENT_VARIANCE_RATIO.name][0]
    )
    maps, spectra = nndsvda(scores, loadings, components)
    settled = _Settled("start", tolerance / _FINER, max_iterations, count)
    fit_compressed(
        scores, loadings, maps, spectra, free=components, total=total, sweeps=1, settled=settled
    )

    kind = np.float64 if counts.size <= _SMALL else np.float32
    cut = counts.chunks[:2]
    pieces = delayed_blocks(as_blocks(maps.reshape(-1, *g.shape).astype(kind), (-1, *cut)))
    fixed = delayed_blocks(counts), delayed_blocks(as_blocks(g, cut))
    settled = _Settled("nmf", tolerance, max_iterations, count)
    going = True
    while going:
        pieces, (cross, inner) = one_pass(frobenius_block, *fixed, pieces, shared=(spectra, h, 2))
        descend(spectra, cross, inner, 2)
        going = not settled(frobenius(total, cross, inner, spectra))

    norm = np.linalg.norm(spectra, axis=1)
    variance = norm**2 * np.diag(inner) / pixels
    order = np.argsort(-variance, kind="stable")
    norm = np.where(norm > 0, norm, 1)
    maps = _assembled(pieces, components, cut, kind) * norm.astype(kind)[:, np.newaxis, np.newaxis]
    spectra = spectra / norm[:, np.newaxis]
    result = ds.assign_coords({DIM_COMPONENT: (DIM_COMPONENT, np.arange(1, components + 1))})
    result = result.assign(
        {
            COMPONENT_MAP.name: COMPONENT_MAP.array(maps[order].astype(np.float32)).assign_attrs(
                {_DECOMPOSITION: "nmf", "long_name": _MAP_NAME}
            ),
            COMPONENT_SPECTRUM.name: COMPONENT_SPECTRUM.array(spectra[order]).assign_attrs(
                long_name=_SPECTRUM_NAME
            ),
            COMPONENT_VARIANCE.name: COMPONENT_VARIANCE.array(variance[order]).assign_attrs(
                long_name=_VARIANCE_NAME
            ),
            COMPONENT_VARIANCE_RATIO.name: COMPONENT_VARIANCE_RATIO.array(
                variance[order] * pixels / total
            ),
            MEAN_SPECTRUM.name: MEAN_SPECTRUM.array(np.zeros(shape[2])),
        }
    )
    result = add_history(result, f"nmf components={components}")
    return result if lazy else load(result)


class _Settled:
    """Whether the objective has stopped falling; tells how it falls meanwhile."""

    def __init__(self, stage: str, tolerance: float, most: int, count: Count) -> None:
        self._stage, self._tolerance, self._most, self._count = stage, tolerance, most, count
        self.objectives: list[float] = []

    def __call__(self, objective: float) -> bool:
        self.objectives.append(objective)
        done = len(self.objectives)
        self._count(f"{self._stage} {objective:.6g}", done, self._most)
        if done == self._most:
            return True
        if done == 1:
            return False
        return self.objectives[-2] - objective < self._tolerance * abs(objective)


def _assembled(
    pieces: list[Delayed], components: int, cut: tuple[tuple[int, ...], ...], kind: type
) -> da.Array:
    """One array (component, y, x) of the maps of all blocks, where they are."""
    left = iter(pieces)
    return da.block(
        [
            [da.from_delayed(next(left), (components, rows, columns), kind) for columns in cut[1]]
            for rows in cut[0]
        ]
    )
