"""One pass over all pixels, block by block: what a held-out part, or the truth, says of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import dask
import dask.array as da
import numpy as np

from edxdenoise.blocks import delayed_blocks
from edxdenoise.comparison.quantities import Quantities, quantity_sums, true_quantity_sums
from edxdenoise.compute import compute
from edxdenoise.heldout import LineWindows, Scale, Sums, heldout_sums, true_sums

# Pixels worked on at a time within a block: predictions of several models stay in the cache.
_PIECE = 512


@dataclass(frozen=True)
class Judged:
    """Lines, quantities and regions that are judged.

    Parameters
    ----------
    regions : array of bool, shape (region, y, x)
    lines : LineWindows
    quantities : Quantities, optional
    """

    regions: np.ndarray
    lines: LineWindows
    quantities: Quantities | None

    def part(self, place: tuple[slice, slice]) -> Judged:
        """Return the part that belongs to one block."""
        return Judged(self.regions[:, *place], self.lines, self.quantities)


def judge(
    models: Sequence[da.Array],
    judged: Judged,
    *,
    factor: float = 1.0,
    scale: Scale,
    held_out: da.Array | None = None,
    folds: int = 1,
    expected: da.Array | None = None,
) -> tuple[Sums, np.ndarray | None]:
    """Sums over regions, and the maps of quantities, from one pass over the blocks.

    Parameters
    ----------
    models : sequence of dask array, shape (y, x, energy)
        Denoised counts of each model, in the same blocks of pixels with whole spectra.
    judged : Judged
    factor : float
        What brings them into units of all counts.
    scale : Scale
        With a map (y, x) in place of pixels.
    held_out : dask array, optional
        The part of the counts that the models were not fitted to.
    folds : int
        Of how many parts it is one.
    expected : dask array, optional
        Truth of a phantom.

    Returns
    -------
    sums : dict of arrays
        See `heldout_sums`, `true_sums`, `quantity_sums` and `true_quantity_sums`.
    values : array, shape (model, quantity, y, x), optional
        Quantities, where there are any; with a truth, its own come last. NaN where they mean
        nothing.
    """
    blocks = models[0]
    others = [
        [None] * blocks.npartitions if part is None else delayed_blocks(_like(part, blocks))
        for part in (held_out, expected)
    ]
    places = [place[:2] for place in da.core.slices_from_chunks(blocks.chunks)]
    results = [
        dask.delayed(_judge_block)(
            list(predictions),
            own_held_out,
            own_expected,
            judged=dask.delayed(judged.part(place), traverse=False),
            factor=factor,
            scale=dask.delayed(Scale(scale.pixel[place], scale.energy), traverse=False),
            folds=folds,
        )
        for place, own_held_out, own_expected, *predictions in zip(
            places, *others, *map(delayed_blocks, models)
        )
    ]
    (computed,) = compute(results)
    sums: Sums = {}
    values = None
    for place, (part, part_values) in zip(places, computed):
        _add(sums, part)
        if part_values is not None:
            if values is None:
                values = np.empty((*part_values.shape[:2], *blocks.shape[:2]), np.float32)
            values[:, :, *place] = part_values
    return sums, values


def _like(array: da.Array, blocks: da.Array) -> da.Array:
    return array.rechunk(blocks.chunks)


def _add(sums: Sums, part: Sums) -> None:
    for name, value in part.items():
        sums[name] = sums[name] + value if name in sums else value


def _judge_block(
    predictions: list[np.ndarray],
    held_out: np.ndarray | None,
    expected: np.ndarray | None,
    *,
    judged: Judged,
    factor: float,
    scale: Scale,
    folds: int,
) -> tuple[Sums, np.ndarray | None]:
    rows, columns, channels = predictions[0].shape
    flat = [part.reshape(-1, channels) for part in predictions]
    regions = judged.regions.reshape(len(judged.regions), -1)
    quantities = judged.quantities
    sums: Sums = {}
    values = []
    for start in range(0, rows * columns, _PIECE):
        piece = slice(start, start + _PIECE)
        own = np.stack([part[piece] for part in flat]) * np.float32(factor)
        inside = regions[:, piece].astype(np.float64)
        own_scale = Scale(scale.pixel.reshape(-1)[piece], scale.energy)
        part = truth = None
        if held_out is not None:
            part = held_out.reshape(-1, channels)[piece]
            _add(sums, heldout_sums(part, own, own_scale, folds, inside, judged.lines))
        if expected is not None:
            truth = expected.reshape(-1, channels)[piece]
            _add(sums, true_sums(truth, own, own_scale, inside))
        if quantities is None:
            continue
        value, meaningful = quantities.values(own)
        both = meaningful.T[:, np.newaxis] * inside
        if part is not None:
            _add(sums, quantity_sums(part, own, value, quantities, folds, both))
        if truth is not None:
            _add(sums, true_quantity_sums(truth, value, quantities, both))
            value = np.concatenate([value, quantities.values(truth[np.newaxis])[0]])
        values.append(np.where(meaningful, value, np.nan).astype(np.float32))
    if not values:
        return sums, None
    maps = np.moveaxis(np.concatenate(values, axis=1), 2, 1)
    return sums, maps.reshape(*maps.shape[:2], rows, columns)
