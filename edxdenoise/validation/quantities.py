"""Accuracy and noise of at% and ratios of models, judged by held-out counts.

A quantity is v = n / d of two weighted sums of channels: an atomic fraction is k I over the sum of
all k I, a ratio is k I over another k I. Let u be what a model fitted to the rest of the counts
says of v. Of the part held out (T of `holdout`), with n, d now sums over K T and over pixels,

    sum d^2 - K^2 sum_j d_j^2 T_j,   sum n d - K^2 sum_j n_j d_j T_j   and likewise n^2

are on average the true sums of d^2, d^2 v and d^2 v^2, and multiplied by u and u^2, which know
nothing of T, they give those of d^2 u, d^2 u^2 and d^2 u v. All moments of u and v together follow,
each pixel with the weight that its divisor squared has:

- the mean squared error of u,
- the contrast kept, the slope of u on v: 1 where the model shows all there is to see, 0 where its
  map is flat,
- the noise, the scatter of u about that line.

y = K (u d - n) has the variance s = K^2 sum_j (u d_j - n_j)^2 T_j, and the squared error y^2 - s
the variance 2 s^2 + 4 s (u d - n)_true^2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edxdenoise.quantification import LineSpec, element_of, parse_ratio
from edxdenoise.quantification.composition import factor_arrays
from edxdenoise.validation.holdout import Sums

# A quantity means something in a pixel where numerator and divisor, as the mean of all models has
# them, are at least this share of their means over the map. The divisor of a single model is not
# let fall below half of that.
_LEAST_SHARE = 0.1


@dataclass(frozen=True)
class Quantities:
    """Numerators and divisors of quantities.

    Parameters
    ----------
    names : tuple of str
        ``"Pb at%"`` or ``"I/Pb"``.
    above, below : array, shape (quantity, energy)
        What each channel counts for in them.
    mean_above, mean_below : array, shape (quantity,)
        Means over the map; infinite where the map holds none.
    """

    names: tuple[str, ...]
    above: np.ndarray
    below: np.ndarray
    mean_above: np.ndarray
    mean_below: np.ndarray

    def values(self, predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the quantities of counts, shape (model, n, energy).

        Returns
        -------
        values : array, shape (model, n, quantity)
        meaningful : array of bool, shape (n, quantity)
        """
        above, below = predictions @ self.above.T, predictions @ self.below.T
        meaningful = (above.mean(axis=0) > _LEAST_SHARE * self.mean_above) & (
            below.mean(axis=0) > _LEAST_SHARE * self.mean_below
        )
        return above / np.maximum(below, _LEAST_SHARE / 2 * self.mean_below), meaningful


def quantities_of(
    lines: Mapping[str, LineSpec],
    net: np.ndarray,
    mean_spectrum: np.ndarray,
    *,
    ratios: Sequence[str] = (),
) -> Quantities:
    """At% of every element and the ratios.

    Parameters
    ----------
    lines : mapping of str to LineSpec
        With a k-factor by weight each.
    net : array, shape (line, energy)
        What each channel counts for in the net counts of a line.
    mean_spectrum : array, shape (energy,)
        Of all pixels.
    ratios
        As `cliff_lorimer` takes them.
    """
    elements = [element_of(name) for name in lines]
    factors, _ = factor_arrays(lines)[1]
    amounts = net * factors[:, np.newaxis]
    # An element without net counts is not there, and takes nothing from the others' percents.
    present = net @ mean_spectrum > 0
    whole = np.broadcast_to(amounts[present].sum(axis=0), amounts.shape)
    pairs = np.array([parse_ratio(text, elements) for text in ratios], int).reshape(-1, 2)
    names = (*(f"{element} at%" for element in elements), *ratios)
    above = np.vstack([100 * amounts, amounts[pairs[:, 0]]])
    below = np.vstack([whole, amounts[pairs[:, 1]]])
    means = [rows @ mean_spectrum for rows in (above, below)]
    # No pixel exceeds an infinite mean: a quantity that the map does not hold has no values.
    return Quantities(names, above, below, *(np.where(mean > 0, mean, np.inf) for mean in means))


def quantity_sums(
    held_out: np.ndarray,
    predictions: np.ndarray,
    values: np.ndarray,
    quantities: Quantities,
    folds: float,
    regions: np.ndarray,
) -> Sums:
    """Sums over pixels of products of predictions, numerators and divisors.

    Parameters
    ----------
    held_out, predictions, folds
        As `heldout_sums` takes them.
    values : array, shape (model, n, quantity)
        u, of the predictions.
    quantities : Quantities
    regions : array, shape (quantity, region, n)
        1 where a pixel belongs to a region and the quantity means something, else 0.

    Returns
    -------
    dict of arrays
        ``d2``, ``nd``, ``n2``, shape (quantity, region); ``u_d2``, ``u2_d2``, ``u_nd`` and
        ``u_variance``, of the squared error, shape (model, quantity, region).
    """
    above, below = quantities.above, quantities.below
    rows = np.stack([above, below, above**2, above * below, below**2])
    n, d, *products = np.einsum("ne,sqe->snq", held_out, rows, optimize=True)
    n2, nd, d2 = (folds**2 * (whole - own) for whole, own in zip((n * n, n * d, d * d), products))
    spread = []
    for own, prediction in zip(values, predictions):
        # What the model expects: counts held out would make the variance a random number too.
        e2, ed, e0 = (np.maximum(prediction, 0) @ row.T for row in rows[2:])
        variance = folds * np.maximum(own**2 * e0 - 2 * own * ed + e2, 0)
        spread.append(2 * variance**2 + 4 * variance * (own**2 * d2 - 2 * own * nd + n2))
    return _moments(values, n2, nd, d2, regions) | {
        "u_variance": _by_region(np.stack(spread), regions)
    }


def true_quantity_sums(
    expected: np.ndarray, values: np.ndarray, quantities: Quantities, regions: np.ndarray
) -> Sums:
    """Sum products with expected counts of a phantom, shape (n, energy); names start ``true_``."""
    n, d = expected @ quantities.above.T, expected @ quantities.below.T
    sums = _moments(values, n * n, n * d, d * d, regions)
    return {f"true_{name}": value for name, value in sums.items()}


def _moments(
    u: np.ndarray, n2: np.ndarray, nd: np.ndarray, d2: np.ndarray, regions: np.ndarray
) -> Sums:
    parts = {"n2": n2, "nd": nd, "d2": d2, "u_d2": u * d2, "u2_d2": u * u * d2, "u_nd": u * nd}
    return {name: _by_region(part, regions) for name, part in parts.items()}


def quality(sums: Sums, prefix: str = "") -> dict[str, np.ndarray]:
    """Return the quality of each model from the sums.

    Parameters
    ----------
    sums : dict of arrays
        From `quantity_sums`, or with the prefix ``true_`` from `true_quantity_sums`.
    prefix : str

    Returns
    -------
    dict of arrays
        ``error`` and ``noise`` squared, ``contrast``, shape (model, quantity, region); ``spread``,
        the variance of the quantity itself over the pixels, shape (quantity, region).
    """
    d2 = filled(sums[prefix + "d2"])
    n2, nd, u_d2, u2_d2, u_nd = (
        sums[prefix + name] / d2 for name in ("n2", "nd", "u_d2", "u2_d2", "u_nd")
    )
    spread, covariance = n2 - nd**2, u_nd - u_d2 * nd
    # By chance, a spread near 0 may come out as less.
    known = filled(spread)
    return {
        "error": u2_d2 - 2 * u_nd + n2,
        "contrast": covariance / known,
        "noise": u2_d2 - u_d2**2 - covariance**2 / known,
        "spread": spread,
    }


def filled(amount: np.ndarray) -> np.ndarray:
    """Return a divisor: NaN where there is nothing.

    Examples
    --------
    >>> filled(np.array([2, 0]))
    array([ 2., nan])
    """
    return np.where(amount > 0, amount, np.nan)


def _by_region(pixels: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Sums over regions: (..., n, quantity) to (..., quantity, region)."""
    return np.einsum("...nq,qrn->...qr", pixels, regions, optimize=True)
