"""Split whole counts at random into several independent measurements, to hold out each in turn."""

from __future__ import annotations

from functools import partial

import numpy as np
import xarray as xr

from edxdenoise.cube import add_history
from edxdenoise.errors import ParameterError
from edxdenoise.preprocess.thin import split_counts
from edxdenoise.schema import COUNTS, validate

# Counts up to here are told apart by random bits: as many bits per count as folds have digits.
_BITS = 8
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


def hold_out(
    ds: xr.Dataset, number: int, *, folds: int = 8, seed: int = 0
) -> tuple[xr.Dataset, xr.Dataset]:
    """Hold out one of several equal parts of the counts.

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
    validate(ds, COUNTS)
    check_folds(folds)
    if not 0 <= number < folds:
        raise ParameterError(f"part {number} must be from 0 to {folds - 1}, as there are {folds}")
    held_out, rest = split_counts(ds, partial(fold, number=number, folds=folds), seed=seed)
    line = f"hold_out number={number} folds={folds} seed={seed} part="
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
