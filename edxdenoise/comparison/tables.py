"""Results of a comparison as tables for people and records for scripts."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from edxdenoise.comparison.words import root, supported, verdict

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
            shortened(str(part["kept"].values)),
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


def quantity_table(compared: xr.Dataset, region: str = "all") -> tuple[list[str], list[list[str]]]:
    """A row for each quantity: contrast kept and noise of each model, the truth in brackets."""
    own = compared.sel(region=region)
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


def shortened(numbers: str) -> str:
    """Component numbers with runs drawn together.

    Examples
    --------
    >>> shortened("1,2,3,5")
    '1-3,5'
    """
    runs: list[list[str]] = []
    for number in numbers.split(","):
        if runs and int(runs[-1][-1]) + 1 == int(number):
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


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
