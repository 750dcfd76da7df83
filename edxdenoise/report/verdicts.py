"""Results of a comparison in plain sentences, as tables for people and as records for scripts."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from edxdenoise.report.text import component_list, joined, with_error
from edxdenoise.validation.holdout import FITTED

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
        f"Every model was fitted {folds} times, to {compared.attrs[FITTED]}: this holds "
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
        return f"Held-out counts support {joined(equal)}, which they do not tell apart" + (
            "." if len(equal) == len(names) else ", before all others."
        )
    order = np.argsort(own["deviance"].values)
    second = order[1]
    gain = 100 * float(own["deviance"][second] - own["deviance"][best])
    error = 100 * float(own["deviance_stddev"][best, second])
    return (
        f"Held-out counts support {names[best]}: the deviance of the next, {names[second]}, is "
        f"higher by {with_error(gain, error)} % of the noise of raw counts "
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
    return [f"In {joined(regions)}, {model} does better." for model, regions in better.items()]


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
        text = f"{quantity}: {joined(shares)} of its contrast"
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


MODELS_CAPTION = "Models, in % of the noise of raw counts"
QUANTITIES_CAPTION = "Contrast kept in % / noise, the truth in brackets where it is known"
# Numbers by model and region in records.
_BY_REGION = (
    "deviance",
    "error",
    "error_stddev",
    "below_floor",
    "true_deviance",
    "true_error",
    "true_deviance_full",
    "true_error_full",
)


def model_table(compared: xr.Dataset) -> tuple[list[str], list[list[str]]]:
    """A row for each model: deviance above the best, squared error, and the truth where known."""
    own = compared.sel(region="all")
    names = [str(name) for name in compared["model"].values]
    best = names.index(supported(compared)[0])
    heads = ["components", "deviance above best", "squared error"]
    with_truth = "true_error" in compared
    if with_truth:
        heads += ["true deviance", "true error", "true error, full dose"]
    rows = []
    for i, name in enumerate(names):
        part = own.isel(model=i)
        excess = 100 * float(part["deviance"] - own["deviance"][best])
        stddev = 100 * float(own["deviance_stddev"][best, i])
        row = [
            name,
            _components(str(part["kept"].values)),
            "0" if i == best else f"{excess:.3f} ± {stddev:.3f}",
            f"{100 * float(part['error']):.2f} ± {100 * float(part['error_stddev']):.2f}",
        ]
        if with_truth:
            true = own["true_deviance"]
            row += [
                f"{100 * float(true[i] - true[best]):.3f}",
                f"{100 * float(part['true_error']):.2f}",
                f"{100 * float(part['true_error_full']):.2f}",
            ]
        rows.append(row)
    return heads, rows


def _components(kept: str) -> str:
    return component_list(np.array(kept.split(","), int)).replace(", ", ",") if kept else ""


def quantity_table(compared: xr.Dataset) -> tuple[list[str], list[list[str]]]:
    """A row for each quantity: contrast kept and noise of each model, the truth in brackets."""
    own = compared.sel(region="all")
    names = [str(name) for name in compared["model"].values]
    rows = []
    for quantity in own["quantity"].values:
        part = own.sel(quantity=quantity)
        row = [str(quantity), f"{root(part['quantity_spread'].values):.2g}"]
        for i in range(len(names)):
            each = part.isel(model=i)
            cells = [
                _quality(each, "quantity"),
                *([f"({_quality(each, 'true_quantity')})"] if "true_error" in compared else []),
            ]
            row.append(" ".join(cells))
        rows.append(row)
    return ["spread", *names], rows


def _quality(part: xr.Dataset, prefix: str) -> str:
    contrast = 100 * float(part[f"{prefix}_contrast"])
    noise = float(root(part[f"{prefix}_noise"].values))
    if not np.isfinite(contrast):
        return f"- / {noise:.2g}"
    stddev = "" if "true" in prefix else f"±{100 * float(part[f'{prefix}_contrast_stddev']):.0f}"
    return f"{contrast:.0f}{stddev} / {noise:.2g}"


def as_records(compared: xr.Dataset) -> dict[str, Any]:
    """All numbers by model, region, line and quantity, ready for JSON."""
    names = [str(name) for name in compared["model"].values]
    models = []
    for i, name in enumerate(names):
        own = compared.isel(model=i)
        record: dict[str, Any] = {
            "model": name,
            "components": [int(number) for number in str(own["kept"].values).split(",") if number],
            "regions": {
                str(region): {
                    key: _number(own[key].sel(region=region)) for key in _BY_REGION if key in own
                }
                for region in compared["region"].values
            },
        }
        if "residual" in compared:
            record["residuals"] = {
                str(region): {
                    str(line): _number(own["residual"].sel(region=region, line=line))
                    for line in compared["line"].values
                }
                for region in compared["region"].values
            }
        if "quantity_error" in compared:
            record["quantities"] = {
                str(quantity): _quantity(own.sel(quantity=quantity, region="all"))
                for quantity in compared["quantity"].values
            }
        models.append(record)
    stddev = compared["deviance_stddev"].sel(region="all").values
    return {
        "folds": int(compared.attrs["folds"]),
        FITTED: compared.attrs[FITTED],
        "supported": supported(compared),
        "verdict": verdict(compared),
        "models": models,
        "deviance_stddev": {
            name: dict(zip(names, row)) for name, row in zip(names, stddev.tolist())
        },
    }


def _quantity(own: xr.Dataset) -> dict[str, float | None]:
    record = {"contrast": _number(own["quantity_contrast"])}
    record["contrast_stddev"] = _number(own["quantity_contrast_stddev"])
    for prefix in ("", "true_"):
        for name in ("error", "noise"):
            if f"{prefix}quantity_{name}" in own:
                value = float(root(own[f"{prefix}quantity_{name}"].values))
                record[f"{prefix}{name}"] = value if np.isfinite(value) else None
    if "true_quantity_contrast" in own:
        record["true_contrast"] = _number(own["true_quantity_contrast"])
    return record


def _number(value: xr.DataArray) -> float | None:
    # JSON has no NaN.
    return float(value) if np.isfinite(value) else None
