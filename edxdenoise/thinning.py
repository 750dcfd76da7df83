"""Split whole counts into independent measurements: two parts, or folds to hold out.

They are drawn at random, or are those of whole frames where these are known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.blocks import (
    Block,
    SparseBlock,
    less,
    mapped,
    recast_block,
    split,
    stored_counts,
    whole_rows,
)
from edxdenoise.cube import add_history
from edxdenoise.errors import DataError, ParameterError

# Counts up to here are thinned by counting random bits, one bit per count.
_BITS = 8
# Binary digits of the fraction: it is met to one part in sixteen million.
_DIGITS = 24


def thinned(counts: np.ndarray, random: np.random.Generator, fraction: float) -> np.ndarray:
    """Binomial(counts, fraction).

    The number of ones among n random bits is Binomial(n, fraction) where each bit is one with
    that probability: ten times faster than a general generator, and most counts of a map are
    small.

    Parameters
    ----------
    counts : array of unsigned integers, shape (n,)
    random : Generator
    fraction : float
        Probability that a count is kept.

    Returns
    -------
    array, shape and dtype of `counts`
    """
    bits = _random_bits(random, counts.shape, fraction)
    mask = (1 << np.minimum(counts, _BITS)) - 1
    kept = np.bitwise_count(bits & mask.astype(np.uint8)).astype(counts.dtype)
    many = counts > _BITS
    kept[many] = random.binomial(counts[many].astype(np.int64), fraction)
    return kept


def row_random(counts: np.ndarray, row: int, seed: int) -> np.random.Generator:
    """Random numbers for one row of pixels, however the map is cut into blocks.

    They depend on its counts: of the same numbers, a part thinned again would not be split at
    random.
    """
    return np.random.default_rng([seed, int(row), int(counts.sum(dtype=np.uint64))])


# A part of the counts of the cells that hold any, with the random numbers of their row.
Part = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def split_counts(ds: xr.Dataset, part: Part, *, seed: int) -> tuple[xr.Dataset, xr.Dataset]:
    """A part of the counts, and what it leaves.

    Parameters
    ----------
    ds : Dataset
        With ``counts`` that are whole numbers.
    part : callable
        ``part(counts, random)`` of the counts above 0 of a row along x, in their order.
    seed : int
        Seed of the map, for `row_random`.

    Returns
    -------
    part, rest : Dataset
        `ds` with these in place of its counts. Lazy in, lazy out.
    """
    check_whole(ds)
    counts = ds[v.COUNTS].data
    if isinstance(counts, da.Array):
        counts = whole_rows(counts)
        parts: tuple[Any, ...] = split(parts_of_block, counts, parts=2, part=part, seed=seed)
    else:
        parts = parts_of_block(counts, np.arange(counts.shape[0]), part=part, seed=seed)
    first, second = (ds.assign({v.COUNTS: v.COUNTS.array(each)}) for each in parts)
    return first, second


def parts_of_block(block: Block, rows: np.ndarray, *, part: Part, seed: int) -> tuple[Block, Block]:
    """A part of a block of whole rows, and what it leaves, blocks of the same kind.

    Parameters
    ----------
    block : Block
    rows : array, shape (y,)
        Number of each row in the map, for `row_random`.
    part, seed
        As `split_counts` takes them.
    """
    if isinstance(block, SparseBlock):
        counts = block.rows.data
        starts = block.rows.indptr[:: block.sides[1]]
    else:
        counts = block.reshape(-1)
        starts = np.linspace(0, counts.size, len(block) + 1, dtype=int)
    kept = np.zeros_like(counts)
    for number, first, end in zip(rows, starts, starts[1:]):
        own = counts[first:end]
        filled = np.flatnonzero(own)
        kept[first:end][filled] = part(own[filled], row_random(own, number, seed))
    both = kept, counts - kept
    if isinstance(block, SparseBlock):
        return block.with_counts(both[0]), block.with_counts(both[1])
    return both[0].reshape(block.shape), both[1].reshape(block.shape)


def _random_bits(
    random: np.random.Generator, shape: tuple[int, ...], fraction: float
) -> np.ndarray:
    """Bytes whose bits are one with probability `fraction`, built digit by digit.

    If a bit is one with probability q, (bit or fair bit) is with (1 + q) / 2 and (bit and fair
    bit) with q / 2: the binary digits of the fraction from the last to the first.
    """
    digits = min(round(fraction * 2**_DIGITS), 2**_DIGITS - 1)
    bits = np.zeros(shape, np.uint8)
    for place in range(_DIGITS):
        digit = digits >> place & 1
        if not digit and not bits.any():
            continue
        fair = np.frombuffer(random.bytes(bits.size), np.uint8).reshape(shape)
        bits = bits | fair if digit else bits & fair
    return bits


def thin(ds: xr.Dataset, *, fraction: float = 0.5, seed: int = 0) -> tuple[xr.Dataset, xr.Dataset]:
    """Split every count at random between two Datasets.

    If counts X are Poisson with mean m, then A ~ Binomial(X, e) and B = X - A are independent
    Poisson variables of mean e m and (1 - e) m: two measurements of the same specimen (the
    thinning property of the Poisson distribution).

    Parameters
    ----------
    ds : Dataset
        With ``counts`` that are whole numbers.
    fraction : float
        e, between 0 and 1.
    seed : int
        The same seed gives the same parts, however the counts are cut into blocks.

    Returns
    -------
    (Dataset, Dataset)
        `ds` with A and with B = X - A in place of its counts. Lazy in, lazy out.

    Raises
    ------
    DataError
        If the counts are not of an unsigned integer type.
    ParameterError
        If the fraction is not between 0 and 1.
    """
    v.validate(ds, v.COUNTS)
    if not 0 < fraction < 1:
        raise ParameterError(f"fraction {fraction} must lie between 0 and 1")
    first, second = split_counts(ds, partial(thinned, fraction=fraction), seed=seed)
    line = f"thin fraction={fraction} seed={seed} part="
    return add_history(first, line + "A"), add_history(second, line + "B")


def check_whole(ds: xr.Dataset) -> None:
    """Check that counts are of a type that only holds whole numbers.

    Raises
    ------
    DataError
    """
    dtype = ds[v.COUNTS].dtype
    if dtype.kind != "u":
        raise DataError(
            f"counts are {dtype}; only whole counts, stored as unsigned integers, can be "
            "thinned: smoothed or scaled counts are no longer Poisson"
        )


FOLDS = (2, 4, 8, 16)


def fold(counts: np.ndarray, random: np.random.Generator, number: int, *, folds: int) -> np.ndarray:
    """The counts that fall into fold `number` of `folds`.

    Every count falls into one fold, all equally likely: the folds of a cell are multinomial.

    Parameters
    ----------
    counts : array of unsigned integers, shape (n,)
    random : Generator
        The folds of one state of it add up to `counts`.
    number : int
        From 0 to ``folds - 1``.
    folds : {2, 4, 8, 16}
        A power of two, so that a few random bits tell the fold of a count.

    Returns
    -------
    array, shape and dtype of `counts`
    """
    mask = ((1 << np.minimum(counts, _BITS)) - 1).astype(np.uint8)
    for digit in range(folds.bit_length() - 1):
        bits = np.frombuffer(random.bytes(counts.size), np.uint8)
        mask &= bits if number >> digit & 1 else ~bits
    part = np.bitwise_count(mask).astype(counts.dtype)
    many = counts > _BITS
    if many.any():
        drawn = random.multinomial(counts[many].astype(np.int64), np.full(folds, 1 / folds))
        part[many] = drawn[:, number]
    return part


@dataclass(frozen=True)
class FrameFolds:
    """Frames of a map, to hold out whole ones.

    Each frame is a separate measurement: changes of the beam and drift of the stage are part of it.

    Parameters
    ----------
    number : int
        How many there are.
    counts : callable
        Lazy counts, shape (y, x, energy), of the frames that an array of bool, shape (frame,),
        marks.
    """

    number: int
    counts: Callable[[np.ndarray], da.Array]

    def marks(self, number: int, folds: int) -> np.ndarray:
        """Which frames belong to part `number` of `folds`, shape (frame,).

        Parts take turns in an order that is reversed each time: 0 1 2 3 3 2 1 0 and so on. What
        grows or fades evenly is the same in all of them.

        Examples
        --------
        >>> np.flatnonzero(FrameFolds(10, lambda marks: None).marks(0, 4))
        array([0, 7, 8])
        """
        turn, place = np.divmod(np.arange(self.number), folds)
        return np.where(turn % 2, folds - 1 - place, place) == number

    def suffice(self, folds: int) -> bool:
        """Whether each part has two frames at least, one on the way up and one back."""
        return self.number >= 2 * folds


def parts_of(number: int, folds: int, frames: FrameFolds | None) -> float:
    """How many times the counts of part `number` all counts are, as `hold_out` splits them."""
    if frames is None:
        return folds
    return frames.number / np.count_nonzero(frames.marks(number, folds))


def _rest_of_frames(counts: da.Array, part: da.Array) -> da.Array:
    part = part.rechunk(counts.chunks)
    return mapped(_rest_block, counts, part, dtype=counts.dtype, kind=counts.dtype)


def _rest_block(block: Block, part: Block, *, kind: np.dtype) -> Block:
    rest = recast_block(less(block, part), kind=kind)
    left, held, whole = (stored_counts(each).sum(dtype=np.uint64) for each in (rest, part, block))
    if left + held != whole:
        raise DataError(
            "the counts of its frames are not those of the map; copy the file again, or convert it "
            "without --frames keep"
        )
    return rest


def hold_out(
    ds: xr.Dataset,
    number: int,
    *,
    folds: int = 8,
    seed: int = 0,
    frames: FrameFolds | None = None,
) -> tuple[xr.Dataset, xr.Dataset]:
    """Hold out one of several equal parts of the counts, or of the frames.

    If counts X are Poisson with mean m, the part held out and the rest are independent Poisson
    variables of mean m / folds and m (1 - 1 / folds), and the parts held out in turn are
    independent of each other (the thinning property of the Poisson distribution).

    Parameters
    ----------
    ds : Dataset
        With ``counts`` that are whole numbers.
    number : int
        Which part, from 0 to ``folds - 1``.
    folds : {2, 4, 8, 16}
        How many parts.
    seed : int
        The parts of one seed add up to the counts, however these are cut into blocks.
    frames : FrameFolds, optional
        Frames of the counts, which are lazy; whole ones are held out. Parts are equal to a frame.

    Returns
    -------
    rest, held_out : Dataset
        `ds` with part of its counts. Lazy in, lazy out.

    Raises
    ------
    DataError
        If the counts are not of an unsigned integer type.
    ParameterError
        If there cannot be so many folds, or no such part.
    """
    v.validate(ds, v.COUNTS)
    check_folds(folds)
    if not 0 <= number < folds:
        raise ParameterError(f"part {number} must be from 0 to {folds - 1}, as there are {folds}")
    if frames is None:
        held_out, rest = split_counts(ds, partial(fold, number=number, folds=folds), seed=seed)
        line = f"hold_out number={number} folds={folds} seed={seed} part="
    else:
        part = frames.counts(frames.marks(number, folds))
        left = _rest_of_frames(ds[v.COUNTS].data, part)
        rest, held_out = (ds.assign({v.COUNTS: v.COUNTS.array(each)}) for each in (left, part))
        line = f"hold_out number={number} folds={folds} frames={frames.number} part="
    return add_history(rest, line + "rest"), add_history(held_out, line + "held_out")


def check_folds(folds: int) -> None:
    """Check that counts can be split into so many folds.

    Examples
    --------
    >>> check_folds(5)
    Traceback (most recent call last):
    ...
    edxdenoise.errors.ParameterError: folds 5 must be one of 2, 4, 8, 16
    """
    if folds not in FOLDS:
        raise ParameterError(f"folds {folds} must be one of {', '.join(map(str, FOLDS))}")
