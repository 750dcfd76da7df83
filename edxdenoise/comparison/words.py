"""Results of a comparison in plain sentences."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xarray as xr

# Differences beyond this many standard errors are called differences.
_SURE = 2.0
# Within one region another model must be better by a wider margin: there are many regions.
_SURE_REGION = 4.0
# A model that keeps less of a contrast than this loses it, if it surely keeps less than the second.
_LOST, _SURELY_LOST = 0.5, 0.75
# A residual of a region and line, in standard deviations, that calls for a look.
_LARGE_RESIDUAL = 4.0


def verdict(compared: xr.Dataset) -> list[str]:
    """Which model the held-out counts support, where another does better, and what is lost.

    Parameters
    ----------
    compared : Dataset
        As `compare` gives it.

    Returns
    -------
    list of str
        Sentences, the most important first.
    """
    best = supported(compared)[0]
    sentences = [_support(compared), *_elsewhere(compared, best)]
    if "residual" in compared:
        sentences += _residual(compared, best)
    if "quantity_contrast" in compared:
        sentences += _contrasts(compared)
    folds = compared.attrs["folds"]
    sentences.append(
        f"Every model was fitted {folds} times, to {folds - 1}/{folds} of the counts: this holds "
        "for that dose, and more counts favour more components."
    )
    return sentences


def supported(compared: xr.Dataset, region: str = "all") -> list[str]:
    """The model of lowest held-out deviance, and then those not told apart from it."""
    own = compared.sel(region=region)
    order = np.argsort(own["deviance"].values, kind="stable")
    excess = own["deviance"].values - own["deviance"].values[order[0]]
    stddev = own["deviance_stddev"].values[order[0]]
    names = compared["model"].values
    return [str(names[i]) for i in order if excess[i] <= _SURE * stddev[i]]


def _support(compared: xr.Dataset) -> str:
    own = compared.sel(region="all")
    names = [str(name) for name in compared["model"].values]
    equal = supported(compared)
    best = names.index(equal[0])
    if len(equal) > 1:
        return f"Held-out counts support {_listed(equal, 'and')}, which they do not tell apart" + (
            "." if len(equal) == len(names) else ", before all others."
        )
    order = np.argsort(own["deviance"].values)
    second = order[1]
    gain = 100 * float(own["deviance"][second] - own["deviance"][best])
    error = 100 * float(own["deviance_stddev"][best, second])
    return (
        f"Held-out counts support {names[best]}: the deviance of the next, {names[second]}, is "
        f"higher by {_with_error(gain, error)} % of the noise of raw counts "
        f"({gain / error:.0f} standard errors)."
    )


def _elsewhere(compared: xr.Dataset, best: str) -> list[str]:
    """Regions in which another model surely does better."""
    better: dict[str, list[str]] = {}
    for region in compared["region"].values[1:]:
        own = compared.sel(region=region)
        if not np.isfinite(own["deviance"]).all():
            continue
        other = supported(compared, str(region))[0]
        gain = float(own["deviance"].sel(model=best) - own["deviance"].sel(model=other))
        error = float(own["deviance_stddev"].sel(model=best, model_other=other))
        if gain > _SURE_REGION * error:
            better.setdefault(other, []).append(str(region))
    return [
        f"In {_listed(regions, 'and')}, {model} does better." for model, regions in better.items()
    ]


def _residual(compared: xr.Dataset, best: str) -> list[str]:
    own = compared["residual"].sel(model=best)
    if not np.isfinite(own).any():
        return []
    place = own.isel(abs(own.fillna(0.0)).argmax(...))
    if abs(place) < _LARGE_RESIDUAL:
        return []
    return [
        f"{best} misses {abs(float(place)):.0f} standard deviations of "
        f"{str(place['line'].values).replace('_', ' ')} in {place['region'].values}: structure is "
        "lost there."
    ]


def _contrasts(compared: xr.Dataset) -> list[str]:
    """Quantities whose structure some models lose, and the least noisy of the others."""
    own = compared.sel(region="all")
    sentences = []
    for quantity in own["quantity"].values:
        part = own.sel(quantity=quantity)
        kept, error = part["quantity_contrast"].values, part["quantity_contrast_stddev"].values
        lost = (kept < _LOST) & (kept + _SURE * error < _SURELY_LOST)
        if not lost.any():
            continue
        names = part["model"].values
        shares = [
            f"{name} keeps {max(100 * share, 0):.0f} %"
            for name, share in zip(names[lost], kept[lost])
        ]
        text = f"{quantity}: {_listed(shares, 'and')} of its contrast"
        if not lost.all():
            noise = np.where(lost, np.inf, root(part["quantity_noise"].values))
            least = int(np.argmin(noise))
            share = f"{100 * kept[least]:.0f} ± {100 * error[least]:.0f} %"
            text += f"; of the others {names[least]} ({share}) has the least noise, "
            text += f"{noise[least]:.2g}"
        sentences.append(text + ".")
    return sentences


def root(squared: np.ndarray) -> np.ndarray:
    """Root of estimates of squares; 0 where chance made them negative.

    Examples
    --------
    >>> root(np.array([4.0, -1e-3]))
    array([2., 0.])
    """
    return np.sqrt(np.maximum(squared, 0))


def _with_error(value: float, error: float) -> str:
    digits = max(0, -int(np.floor(np.log10(error)))) if error > 0 else 3
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def _listed(names: Iterable[str], word: str) -> str:
    """Names in a row.

    Examples
    --------
    >>> _listed(["a", "b", "c"], "and")
    'a, b and c'
    """
    *first, last = names
    return f"{', '.join(first)} {word} {last}" if first else last
