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

Each iteration finds new abundances in every block, then new spectra from their sums. Each step
lowers the objective or leaves it: abundances with spectra held, spectra with abundances held.
Spectra beyond the free ones never change.

A block keeps its abundances, shape (component, y, x). Only spectra, shape (component, energy),
travel to it, and only sums over its pixels travel back. As in `pca`, the weighted data
D = X / (g h) are never formed.

The start comes from principal components or is random, then a fit of compressed data. The principal
components of the weighted data D ~ T P, some more than NMF has, hold nearly all that NMF can find.
D H' = T (P H') and W'D = (W'T) P cost many times less on them, so that most iterations are done
there, and the data themselves are read a few times only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import Delayed
from threadpoolctl import threadpool_limits

from edxdenoise import schema as v
from edxdenoise.blocks import as_blocks, chunk, compute, delayed_blocks, load
from edxdenoise.components.pca import check_components, pca, weighted_rows
from edxdenoise.config import INITS, LOSSES
from edxdenoise.cube import add_history, check_cube, is_lazy
from edxdenoise.errors import ParameterError, Rank, warn
from edxdenoise.resources import default_workers

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
    return ds[v.COMPONENT_MAP].attrs.get(_DECOMPOSITION) == "nmf"


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
    v.validate(ds, v.COUNTS, v.WEIGHT_PIXEL, v.WEIGHT_ENERGY)
    check_cube(ds)
    for name, value, allowed in (("loss", loss, LOSSES), ("init", init, INITS)):
        if value not in allowed:
            raise ParameterError(f"{name} '{value}' must be one of {', '.join(allowed)}")
    shape = ds[v.COUNTS].shape
    given = {"start": start, "fixed": fixed}
    held, begun = (_checked(name, given[name], shape[2]) for name in ("fixed", "start"))
    components = check_number(components, len(begun), len(held), shape)
    free = components - len(held)

    blocks, counts = _blocks(ds)
    g, h = blocks[v.WEIGHT_PIXEL].values, blocks[v.WEIGHT_ENERGY].values
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
    spectrum = v.COMPONENT_SPECTRUM.array(spectra[order]).assign_attrs(
        long_name="spectra in the weighted space, 0 or more"
    )
    if len(held):
        spectrum.attrs[HELD] = numbers[order >= free]
    result = ds.assign_coords({v.DIM_COMPONENT: (v.DIM_COMPONENT, numbers)}).assign(
        {
            v.COMPONENT_MAP: v.COMPONENT_MAP.array(array[order].astype(np.float32)).assign_attrs(
                {_DECOMPOSITION: "nmf", "long_name": "abundances in the weighted space, 0 or more"}
            ),
            v.COMPONENT_SPECTRUM: spectrum,
            v.COMPONENT_VARIANCE: v.COMPONENT_VARIANCE.array(variance[order]).assign_attrs(
                long_name="mean square, over pixels, of what the component adds to weighted data"
            ),
            v.COMPONENT_VARIANCE_RATIO: v.COMPONENT_VARIANCE_RATIO.array(
                variance[order] * pixels / total
            ),
            v.MEAN_SPECTRUM: v.MEAN_SPECTRUM.array(np.zeros(shape[2])),
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
    blocks = blocks.assign(load(blocks[[v.WEIGHT_PIXEL, v.WEIGHT_ENERGY]]).data_vars)
    counts = blocks[v.COUNTS].data.rechunk({2: -1})
    if not is_lazy(ds):
        # On a cluster the blocks then lie with the workers; here they stay views.
        (counts,) = dask.persist(counts)
    return blocks.assign({v.COUNTS: v.COUNTS.array(counts)}), counts


def _compressed(blocks: xr.Dataset, components: int) -> Compressed:
    pixels, channels = blocks[v.WEIGHT_PIXEL].size, blocks[v.WEIGHT_ENERGY].size
    base = pca(blocks, components=min(components + SPARE, pixels, channels))
    base = load(base.drop_vars(v.COUNTS))
    variance, ratio = base[v.COMPONENT_VARIANCE][0], base[v.COMPONENT_VARIANCE_RATIO][0]
    scores = base[v.COMPONENT_MAP].values
    return Compressed(
        scores.reshape(len(scores), -1),
        base[v.COMPONENT_SPECTRUM].values,
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


# Sweeps over the abundances for one reading of the data, for which they wait anyway.
_SWEEPS = 2
# Steps along the gradient, which are shorter.
_CLOSED_STEPS = 8

# Called with a label, the iteration and the most there may be.
Count = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Problem:
    """Quantities that do not change between iterations.

    Parameters
    ----------
    counts, weights : sequences of Delayed
        Blocks (y, x, energy) of the counts and (y, x) of g.
    weight_energy : array, shape (energy,)
        h.
    free : int
        So many spectra, the first, are fitted; the others are held.
    total : float
        |D|^2, sum of squares of the weighted data.
    closure : bool
        Whether the shares of a pixel add up to one.
    """

    counts: Sequence[Delayed]
    weights: Sequence[Delayed]
    weight_energy: np.ndarray
    free: int
    total: float
    closure: bool = False


class Settled:
    """Whether the objective has stopped falling; tells meanwhile how it falls.

    Parameters
    ----------
    stage : str
        What the fit is called.
    tolerance : float
        Share of the objective that one iteration must lower it by.
    most : int
        Iterations at most.
    count : callable
        ``count(label, done, most)`` after each; the label has the objective.
    span : int
        Iterations that the fall is a mean of: that of one may be lost in rounding.
    """

    def __init__(
        self, stage: str, tolerance: float, most: int, count: Count, span: int = 1
    ) -> None:
        self._stage, self._tolerance, self._most, self._count = stage, tolerance, most, count
        self._span = span
        self.objectives: list[float] = []

    def __call__(self, objective: float) -> bool:
        self.objectives.append(objective)
        done = len(self.objectives)
        self._count(f"{self._stage}, objective {objective:.7g}", done, self._most)
        return done >= self._most or self.fall < self._tolerance

    @property
    def fall(self) -> float:
        """By which share of itself the objective fell in one of the last iterations."""
        if len(self.objectives) <= self._span:
            return np.inf
        before, now = self.objectives[-1 - self._span], self.objectives[-1]
        return (before - now) / abs(before) / self._span if before else 0.0


def frobenius(total: float, cross: np.ndarray, inner: np.ndarray, spectra: np.ndarray) -> float:
    """|D - W H|^2 from |D|^2, W'D and W'W."""
    return total - 2 * float(np.vdot(cross, spectra)) + float(np.vdot(inner, spectra @ spectra.T))


def fit_frobenius(
    problem: Problem, maps: Sequence[Delayed], spectra: np.ndarray, settled: Settled
) -> tuple[Sequence[Delayed], np.ndarray]:
    """Lower |D - W H|^2 until it is settled.

    Parameters
    ----------
    problem : Problem
    maps : sequence of Delayed
        Blocks (component, y, x) of W.
    spectra : array, shape (component, energy)
        H.
    settled : Settled

    Returns
    -------
    maps, spectra
    """
    h, free = problem.weight_energy, problem.free
    steps = _CLOSED_STEPS if problem.closure else _SWEEPS
    if problem.closure:
        # One unit of each abundance is then one count over g.
        spectra = spectra / (spectra @ h)[:, np.newaxis]
    going = True
    while going:
        maps, (cross, inner) = one_pass(
            frobenius_block,
            problem.counts,
            problem.weights,
            maps,
            shared=(spectra, h, steps, problem.closure),
        )
        spectra = spectra.copy()
        if problem.closure:
            _descend_normalised(spectra, cross[:free], inner, h)
        else:
            descend(spectra, cross[:free], inner, 1)
        going = not settled(frobenius(problem.total, cross, inner, spectra))
    return maps, spectra


def _descend_normalised(
    spectra: np.ndarray, cross: np.ndarray, inner: np.ndarray, h: np.ndarray
) -> None:
    """As `descend`, with every spectrum adding up to one count."""
    for k, target in enumerate(cross):
        if inner[k, k] > 0:
            row = spectra[k] + (target - inner[k] @ spectra) / inner[k, k]
            spectra[k] = onto_simplex(row[:, np.newaxis], h, np.ones(1))[:, 0]


def fit_poisson(
    problem: Problem, maps: Sequence[Delayed], spectra: np.ndarray, settled: Settled
) -> tuple[Sequence[Delayed], np.ndarray]:
    """Lower the Kullback-Leibler divergence of the counts X from A B until it is settled.

    Parameters
    ----------
    problem : Problem
    maps : sequence of Delayed
        Blocks (component, y, x) of A = g W.
    spectra : array, shape (component, energy)
        B = h H.
    settled : Settled

    Returns
    -------
    maps, spectra
        Abundances come last: they keep the total of every pixel.
    """
    free = problem.free
    while True:
        maps, (across, amounts, divergence) = one_pass(
            poisson_block, problem.counts, maps, shared=(spectra, _SWEEPS)
        )
        if settled(float(divergence)):
            return maps, spectra
        safe = np.where(amounts > 0, amounts, 1)[:free, np.newaxis]
        spectra = np.vstack([spectra[:free] * across[:free] / safe, spectra[free:]])


# Pixels that are worked on at a time where a pass goes over their spectra more than once: so many
# spectra stay in the cache of a processor.
_CACHED = 256
# Least expected counts in a channel, where the spectra have none: nothing is divided by 0.
_LEAST = 1e-30


def descend(factor: np.ndarray, cross: np.ndarray, gram: np.ndarray, sweeps: int) -> None:
    """Lower |D - W H|^2 in W by hierarchical alternating least squares.

    Row by row, each has a closed optimum with all others held (A. Cichocki and A. H. Phan, IEICE
    Trans. Fundamentals E92-A (2009) 708, algorithm 2).

    Parameters
    ----------
    factor : array, shape (component, n)
        W' (or H), changed in place.
    cross : array, shape (free, n)
        H D' (or W'D). Rows of `factor` beyond these are held.
    gram : array, shape (component, component)
        H H' (or W'W).
    sweeps : int
        Cheap beside the products above (N. Gillis and F. Glineur, Neural Comput. 24 (2012) 1085).
    """
    for _ in range(sweeps):
        for k, target in enumerate(cross):
            if gram[k, k] > 0:
                row = factor[k] + (target - gram[k] @ factor) / gram[k, k]
                np.maximum(row, 0, out=factor[k])


def descend_closed(
    factor: np.ndarray, cross: np.ndarray, gram: np.ndarray, totals: np.ndarray, steps: int
) -> np.ndarray:
    """Lower |D - W H|^2 in W with the abundances of each pixel, 0 or more, adding up to its total.

    Steps down the gradient, as long as its largest slope allows, each followed by a projection.
    Parameters are those of `descend`; ``totals`` has shape (n,).
    """
    slope = float(np.linalg.eigvalsh(gram)[-1]) or 1.0
    ones = np.ones(len(factor), factor.dtype)
    factor = onto_simplex(factor, ones, totals)
    for _ in range(steps):
        step = (cross - gram @ factor) / factor.dtype.type(slope)
        factor = onto_simplex(factor + step, ones, totals)
    return factor


def onto_simplex(values: np.ndarray, weights: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """In each column, the nearest numbers from 0 up whose weighted sum is the total.

    M. Held, P. Wolfe and H. P. Crowder, Math. Program. 6 (1974) 62, theorem 1.

    Parameters
    ----------
    values : array, shape (n, column)
    weights : array, shape (n,)
        Above 0.
    totals : array, shape (column,)

    Examples
    --------
    >>> onto_simplex(np.array([[0.9], [0.5], [-3.0]]), np.ones(3), np.ones(1)).ravel()
    array([0.7, 0.3, 0. ])
    """
    columns = weights[:, np.newaxis]
    order = np.argsort(-values / columns, axis=0)
    sorted_values = np.take_along_axis(values, order, 0)
    sorted_weights = weights[order]
    excess = np.cumsum(sorted_values * sorted_weights, axis=0) - totals
    shift = excess / np.cumsum(sorted_weights**2, axis=0)
    positive = np.count_nonzero(sorted_values > shift * sorted_weights, axis=0)
    chosen = np.take_along_axis(shift, np.maximum(positive - 1, 0)[np.newaxis], 0)
    return np.maximum(values - chosen * columns, 0)


def frobenius_block(
    counts: np.ndarray,
    weight_pixel: np.ndarray,
    maps: np.ndarray,
    spectra: np.ndarray,
    weight_energy: np.ndarray,
    sweeps: int,
    closure: bool,
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
    closure : bool
        Whether the abundances of a pixel add up to its total over g.
    """
    kind = maps.dtype.type
    rows = weighted_rows(counts, weight_pixel, kind)
    scaled = (spectra / weight_energy).astype(kind)
    gram = (spectra @ spectra.T).astype(kind)
    factor = maps.reshape(len(maps), -1).copy()
    cross = np.asarray((rows @ scaled.T).T, kind)
    if closure:
        totals = np.asarray(rows.sum(axis=1), kind).ravel()
        factor = descend_closed(factor, cross, gram, totals, sweeps)
    else:
        descend(factor, cross, gram, sweeps)
    across = np.asarray((rows.T @ factor.T).T, np.float64) / weight_energy
    wide = factor.astype(np.float64)
    return factor.reshape(maps.shape), across, wide @ wide.T


def poisson_block(
    counts: np.ndarray, maps: np.ndarray, spectra: np.ndarray, sweeps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.float64]:
    """A of one block for spectra B in counts, X ~ A B, and the sums that new spectra need.

    Multiplicative steps for the Kullback-Leibler divergence (D. D. Lee and H. S. Seung, Adv.
    Neural Inf. Process. Syst. 13 (2001) 556, eq. 5): A <- A (X / AB) B' / sum_j B_j.

    Parameters
    ----------
    counts : array, shape (y, x, energy)
    maps : array, shape (component, y, x)
        A so far, in counts where spectra add up to 1.
    spectra : array, shape (component, energy)
        B.
    sweeps : int

    Returns
    -------
    maps : array, shape (component, y, x)
    across : array, shape (component, energy)
        A' (X / AB).
    amounts : array, shape (component,)
        A summed over pixels.
    divergence : float
        sum X log(X / AB) - X + AB.
    """
    kind = maps.dtype
    b = spectra.astype(kind)
    sizes = b.sum(axis=1)
    safe = np.where(sizes > 0, sizes, 1)
    flat, amounts = counts.reshape(-1, counts.shape[-1]), maps.reshape(len(maps), -1).T.copy()
    across, divergence = np.zeros(spectra.shape), 0.0
    for start in range(0, len(flat), _CACHED):
        part = slice(start, start + _CACHED)
        x, a = flat[part].astype(kind), amounts[part]
        for _ in range(sweeps):
            a = a * (_ratio(x, a @ b) @ b.T / safe)
        ratio = _ratio(x, a @ b)
        across += a.T @ ratio
        amounts[part] = a
        # In rows first: single precision would lose the small against the large.
        terms = x * np.log(np.maximum(ratio, _LEAST)) - x
        divergence += float(terms.sum(axis=1).sum(dtype=np.float64) + (a @ sizes).sum(dtype=float))
    sums = amounts.sum(axis=0, dtype=np.float64)
    return amounts.T.reshape(maps.shape), across, sums, np.float64(divergence)


def _ratio(counts: np.ndarray, expected: np.ndarray) -> np.ndarray:
    np.maximum(expected, _LEAST, out=expected)
    return np.divide(counts, expected, out=expected)


def one_pass(
    kernel: Callable[..., tuple[Any, ...]], *blocks: Sequence[Any], shared: tuple[Any, ...]
) -> tuple[list[Delayed], list[Any]]:
    """Call `kernel` with every block and what is `shared`; keep its maps, sum the rest.

    Parameters
    ----------
    kernel : callable
        ``kernel(*parts, *shared)`` gives new maps, then sums.
    blocks : sequences of parts, of one length
    shared : tuple
        What travels to every block.

    Returns
    -------
    maps : list of Delayed
        Where they were made: in memory here, or on the workers of a cluster.
    sums : list
        Added up in the same order wherever they were made.
    """
    common = [dask.delayed(each, pure=False) for each in shared]
    made = [dask.delayed(kernel, pure=False)(*parts, *common) for parts in zip(*blocks)]
    maps = [dask.delayed(_first, pure=False)(each) for each in made]
    sums = [dask.delayed(_rest, pure=False)(each) for each in made]
    while len(sums) > 1:
        pairs = [sums[i : i + 2] for i in range(0, len(sums), 2)]
        sums = [dask.delayed(_add, pure=False)(*pair) if pair[1:] else pair[0] for pair in pairs]
    with threadpool_limits(1):
        *kept, total = dask.persist(*maps, sums[0])
        return kept, total.compute()


def _first(made: tuple[Any, ...]) -> Any:
    return made[0]


def _rest(made: tuple[Any, ...]) -> list[Any]:
    return list(made[1:])


def _add(one: list[Any], other: list[Any]) -> list[Any]:
    return [a + b for a, b in zip(one, other)]


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
        u, w = data.scores[k], data.loadings[k]
        parts = [(np.maximum(sign * u, 0), np.maximum(sign * w, 0)) for sign in (1, -1)]
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
