"""Non-negative matrix factorisation of the counts, over blocks of pixels.

X_ij ~ g_i h_j sum_k W_ik H_kj with W, H >= 0: abundances W (pixel x component) and spectra H
(component x channel) that look like phases, which principal components do not. W stays with the
block of its pixels; only H and sums of its size travel, so that the result is the same wherever
the blocks are computed. Two losses:

frobenius
    |D - W H|^2 of the weighted data D = X / (g h): least squares with the noise of each pixel and
    channel at its mean.
poisson
    The Kullback-Leibler divergence of the counts X from their model, which is the likelihood of
    Poisson counts. It knows the noise of every single number, so that the weights play no part
    in it: they only set the units of W and H.
"""

from __future__ import annotations

from collections.abc import Sequence

import dask
import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import Delayed

from edxdenoise.blocks import delayed_blocks
from edxdenoise.compute import as_blocks, chunk, compute, load
from edxdenoise.config import INITS, LOSSES
from edxdenoise.cube import add_history, check_cube, is_lazy
from edxdenoise.decompose.nmf_fit import Count, Problem, Settled, fit_frobenius, fit_poisson
from edxdenoise.decompose.nmf_start import Compressed, fit_compressed, nndsvda, random_start
from edxdenoise.decompose.pca import check_components, pca
from edxdenoise.errors import ParameterError, Rank, warn
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
DEFAULT_TOLERANCE, DEFAULT_ITERATIONS = 1e-6, 500
# Attributes: of the maps, what the components are; of the spectra, which of them were held.
_DECOMPOSITION, HELD = "decomposition", "held"
# Principal components beyond those asked for that the data are compressed to.
SPARE = 26
# Iterations on compressed data cost little: there the tolerance is this many times smaller.
_FINER = 100
_SPAN = 10
# Up to this many numbers the products are in 64 bits, as those of `gram` are where they are few.
_SMALL = 3e7
# Multiplicative steps never leave 0: they start with no less than this share of the mean.
_POSITIVE = 0.01


def unwatched(label: str, done: int, most: int) -> None:
    """Progress that nobody sees."""


def is_nmf(ds: xr.Dataset) -> bool:
    """Whether the components of `ds` come from `nmf`."""
    return ds[COMPONENT_MAP.name].attrs.get(_DECOMPOSITION) == "nmf"


def nmf(
    ds: xr.Dataset,
    *,
    components: int | None = None,
    loss: str = "frobenius",
    init: str = "nndsvda",
    start: np.ndarray | None = None,
    fixed: np.ndarray | None = None,
    closure: bool = False,
    tolerance: float = DEFAULT_TOLERANCE,
    max_iterations: int = DEFAULT_ITERATIONS,
    seed: int = 0,
    progress: Count = unwatched,
) -> xr.Dataset:
    """Decompose the counts into non-negative spectra and their abundances.

    Parameters
    ----------
    ds : Dataset
        With ``counts``, ``weight_pixel`` and ``weight_energy`` (see `edxdenoise.weight`).
    components : int, optional
        How many, those held included; 4 by default, or as many as `start` and `fixed` hold.
    loss : {"frobenius", "poisson"}
        What is lowered; see the module.
    init : {"nndsvda", "random"}
        Where spectra start: from principal components, or at random. Either way they are first
        fitted to the data as a few principal components hold them.
    start : array, shape (n, energy), optional
        Spectra in counts, of any size, to start from instead: those of phases, or of an earlier
        result that shall go on.
    fixed : array, shape (n, energy), optional
        Spectra in counts, of any size, that are held as they are.
    closure : bool
        Whether a pixel's shares add up to one: the counts that its components give to its total.
    tolerance : float
        The end: an iteration that lowers the objective by less than this share of it.
    max_iterations : int
        The end in any case.
    seed : int
        For a random start.
    progress : callable
        ``progress(label, iteration, max_iterations)`` after each; the label has the objective.

    Returns
    -------
    Dataset
        With ``component_map`` (W, component, y, x) and ``component_spectrum`` (H, component,
        energy), whose product is the weighted data; ``component_variance``, mean square of what
        each adds; ``component_variance_ratio``, against the total, does not add up to one;
        ``mean_spectrum``, 0. The component that adds most comes first. Spectra have norm 1; with
        closure they add up to one count (times ``weight_energy``), so that shares are maps times
        ``weight_pixel`` over the pixel's total. The counts are read at once, again for each
        iteration; where they are lazy, so are the maps, though computed.

    Raises
    ------
    ParameterError
        If a parameter is impossible.

    Warns
    -----
    EdxdenoiseWarning
        If the objective still fell by more than the tolerance in the last iteration.

    Examples
    --------
    >>> from edxdenoise import nmf, simulate, weight
    >>> phantom = simulate("core-shell", shape=(20, 30), channels=100, energy_width=0.1)
    >>> factors = nmf(weight(phantom.compute()), components=3)
    >>> bool((factors.component_map >= 0).all() and (factors.component_spectrum >= 0).all())
    True
    """
    validate(ds, COUNTS, WEIGHT_PIXEL, WEIGHT_ENERGY)
    check_cube(ds)
    for name, value, allowed in (("loss", loss, LOSSES), ("init", init, INITS)):
        if value not in allowed:
            raise ParameterError(f"{name} '{value}' must be one of {', '.join(allowed)}")
    shape = ds[COUNTS.name].shape
    given = {"start": start, "fixed": fixed}
    held, begun = (_checked(name, given[name], shape[2]) for name in ("fixed", "start"))
    components = check_number(components, len(begun), len(held), shape)
    free = components - len(held)

    blocks, counts = _blocks(ds)
    g, h = blocks[WEIGHT_PIXEL.name].values, blocks[WEIGHT_ENERGY.name].values
    data = _compressed(blocks, components)
    kind = np.float64 if counts.size <= _SMALL else np.float32
    if len(begun):
        maps, spectra = np.full((components, g.size), np.sqrt(data.mean)), begun / h
    elif init == "random":
        maps, spectra = random_start(data, components, seed)
    else:
        maps, spectra = nndsvda(data, components)
    spectra = np.vstack([spectra[:free], held / h])
    settled = Settled("start", tolerance / _FINER, max_iterations, progress, _SPAN)
    # Spectra that were given are not to be lost to another loss.
    maps, spectra = fit_compressed(
        data, maps.astype(kind), spectra, 0 if len(begun) else free, settled
    )
    total, pixels = data.total, g.size
    del data

    if loss == "poisson":
        maps *= g.ravel()
        np.maximum(maps, _POSITIVE * maps.mean(axis=1, keepdims=True), out=maps)
        spectra *= h
        if not len(begun):
            spectra[:free] = np.maximum(spectra[:free], _POSITIVE * spectra.mean(axis=0))
    cut = counts.chunks[:2]
    pieces = _pieces(maps.reshape(-1, *g.shape), cut)
    del maps
    problem = Problem(
        delayed_blocks(counts), _pieces(g, cut), h, free=free, total=total, closure=closure
    )
    settled = Settled("nmf", tolerance, max_iterations, progress)
    fit = fit_poisson if loss == "poisson" else fit_frobenius
    fitted, spectra = fit(problem, pieces, spectra, settled)
    if settled.fall >= tolerance:
        warn(
            f"NMF has not converged: iteration {max_iterations} still lowered its loss by a "
            f"relative {settled.fall:.1g}",
            "spectra and abundances would still change",
            "allow more iterations, or start from this result again",
            rank=Rank.WORSE,
        )

    array = _assembled(fitted, components, cut, kind)
    if loss == "poisson":
        array, spectra = array / g, spectra / h
    size = spectra @ h if closure else np.linalg.norm(spectra, axis=1)
    size = np.where(size > 0, size, 1)
    array, spectra = array * size.astype(kind)[:, np.newaxis, np.newaxis], spectra / size[:, None]
    (squares,) = compute((array**2).sum(axis=(1, 2), dtype=np.float64))
    variance = squares * (spectra**2).sum(axis=1) / pixels
    order = np.argsort(-variance, kind="stable")
    numbers = np.arange(1, components + 1)
    spectrum = COMPONENT_SPECTRUM.array(spectra[order]).assign_attrs(
        long_name="spectra in the weighted space, 0 or more"
    )
    if len(held):
        spectrum.attrs[HELD] = numbers[order >= free]
    result = ds.assign_coords({DIM_COMPONENT: (DIM_COMPONENT, numbers)}).assign(
        {
            COMPONENT_MAP.name: COMPONENT_MAP.array(array[order].astype(np.float32)).assign_attrs(
                {_DECOMPOSITION: "nmf", "long_name": "abundances in the weighted space, 0 or more"}
            ),
            COMPONENT_SPECTRUM.name: spectrum,
            COMPONENT_VARIANCE.name: COMPONENT_VARIANCE.array(variance[order]).assign_attrs(
                long_name="mean square, over pixels, of what the component adds to weighted data"
            ),
            COMPONENT_VARIANCE_RATIO.name: COMPONENT_VARIANCE_RATIO.array(
                variance[order] * pixels / total
            ),
            MEAN_SPECTRUM.name: MEAN_SPECTRUM.array(np.zeros(shape[2])),
        }
    )
    result = add_history(
        result,
        f"nmf components={components} loss={loss} init={'given' if len(begun) else init} "
        f"held={len(held)} closure={closure} iterations={len(settled.objectives)} "
        f"objective={settled.objectives[-1]:.9g}",
    )
    return result if is_lazy(ds) else load(result)


def _checked(name: str, spectra: np.ndarray | None, channels: int) -> np.ndarray:
    """Spectra that were given, none where there are none, each adding up to one count."""
    if spectra is None:
        return np.empty((0, channels))
    spectra = np.asarray(spectra, np.float64)
    if spectra.ndim != 2 or spectra.shape[1] != channels:
        raise ParameterError(
            f"{name} has shape {spectra.shape}, must be (spectra, {channels}) as the energy axis is"
        )
    if not (np.isfinite(spectra).all() and (spectra >= 0).all() and spectra.any(axis=1).all()):
        raise ParameterError(f"{name} must hold counts from 0 up, some in every spectrum")
    return spectra / spectra.sum(axis=1, keepdims=True)


def check_number(components: int | None, begun: int, held: int, shape: tuple[int, ...]) -> int:
    """Number of components, those held included."""
    if components is None:
        components = begun + held if begun else max(DEFAULT_COMPONENTS, held)
    components = check_components(components, shape)
    if held > components:
        raise ParameterError(f"components {components} must be at least {held}, those held fixed")
    if begun and begun != components - held:
        raise ParameterError(
            f"start has {begun} spectra, must have {components - held}: components {components} "
            f"less {held} held fixed"
        )
    return components


def _blocks(ds: xr.Dataset) -> tuple[xr.Dataset, da.Array]:
    """`ds` in blocks of pixels with whole spectra, its weights computed; the counts."""
    blocks = ds if is_lazy(ds) else chunk(ds)
    blocks = blocks.assign(load(blocks[[WEIGHT_PIXEL.name, WEIGHT_ENERGY.name]]).data_vars)
    counts = blocks[COUNTS.name].data.rechunk({2: -1})
    if not is_lazy(ds):
        # On a cluster the blocks then lie with the workers; here they stay views.
        (counts,) = dask.persist(counts)
    return blocks.assign({COUNTS.name: COUNTS.array(counts)}), counts


def _compressed(blocks: xr.Dataset, components: int) -> Compressed:
    pixels, channels = blocks[WEIGHT_PIXEL.name].size, blocks[WEIGHT_ENERGY.name].size
    base = pca(blocks, components=min(components + SPARE, pixels, channels))
    base = load(base.drop_vars(COUNTS.name))
    variance, ratio = base[COMPONENT_VARIANCE.name][0], base[COMPONENT_VARIANCE_RATIO.name][0]
    scores = base[COMPONENT_MAP.name].values
    return Compressed(
        scores.reshape(len(scores), -1),
        base[COMPONENT_SPECTRUM.name].values,
        pixels * float(variance / ratio),
    )


def _pieces(array: np.ndarray, cut: tuple[tuple[int, ...], ...]) -> list[Delayed]:
    """Blocks of an array (..., y, x)."""
    return delayed_blocks(as_blocks(array, (*(-1,) * (array.ndim - 2), *cut)))


def _assembled(
    pieces: Sequence[Delayed], components: int, cut: tuple[tuple[int, ...], ...], kind: type
) -> da.Array:
    """One array (component, y, x) of the maps of all blocks, where they are."""
    left = iter(pieces)
    return da.block(
        [
            [da.from_delayed(next(left), (components, rows, columns), kind) for columns in cut[1]]
            for rows in cut[0]
        ]
    )
