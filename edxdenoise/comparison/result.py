"""Results of a comparison as a Dataset by model, region, line and quantity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr

from edxdenoise.comparison.blocks import Judged
from edxdenoise.comparison.quantities import filled, quality
from edxdenoise.cube import add_history
from edxdenoise.heldout import Sums
from edxdenoise.schema import DIM_ENERGY, DIM_LINE, DIM_X, DIM_Y

DIM_MODEL, DIM_OTHER, DIM_REGION, DIM_QUANTITY = "model", "model_other", "region", "quantity"
_BY_MODEL = (DIM_MODEL, DIM_REGION)
_BY_PAIR = (DIM_MODEL, DIM_OTHER, DIM_REGION)
# Models fitted to overlapping counts differ by noise they share: each two parts meet twice, once as
# judge and once as judged. Variances of differences, added up as if parts were independent, are too
# small by up to this factor, which is reached where models differ by noise alone.
_OVERLAP = 2.0

_QUALITIES = ("error", "noise", "contrast")
_BY_QUANTITY = (DIM_MODEL, DIM_QUANTITY, DIM_REGION)

# Dims and values by name.
Variables = dict[str, tuple[tuple[str, ...], np.ndarray]]


def assemble(
    ds: xr.Dataset,
    *,
    names: Sequence[str],
    kept: Sequence[Sequence[int]],
    lines: Sequence[str],
    regions: Sequence[str],
    judged: Judged,
    parts: Sequence[Sums],
    full: Sums,
    values: np.ndarray | None,
) -> xr.Dataset:
    """Means and standard errors from the sums of all passes.

    Parameters
    ----------
    ds : Dataset
        The spectrum image.
    names, kept, lines, regions
        Of models, the components they keep, and of lines and regions.
    judged : Judged
    parts : sequence of dict of arrays
        Of every held-out part.
    full : dict of arrays
        Of models fitted to all counts.
    values : array, shape (model, quantity, y, x), optional
        Quantities by these; those of the truth come last, where it is known.

    Returns
    -------
    Dataset
        Per channel of a pixel, in units of the variance that raw counts have:
        ``deviance`` (model, region), of held-out counts; its differences between models are those
        of their errors, and have the standard error ``deviance_stddev`` (model, model_other,
        region), which is an upper bound where models differ by more than noise. ``error`` (model,
        region), the squared error itself, estimated without bias, with ``error_stddev`` and, of
        differences, ``error_difference_stddev``. ``line_deviance`` and
        ``line_deviance_stddev``: the same near each line. ``residual`` (model, line, region):
        net counts held out less those predicted, in standard deviations. ``below_floor`` (model,
        region): share of predictions that had to be raised.

        ``quantity_error`` (model, quantity, region), mean squared, with ``quantity_error_stddev``;
        ``quantity_noise``, likewise squared; ``quantity_contrast``, the share kept, with
        ``quantity_contrast_stddev`` from the scatter between parts; ``quantity_spread`` (quantity,
        region), the variance of the quantity itself. `edxdenoise.comparison.quantities` explains
        them. ``quantity_map`` (model, quantity, y, x) of all counts, NaN where it means nothing.

        For a phantom ``true_deviance``, the excess over what the truth itself would have,
        ``true_error``, ``true_quantity_error``, ``true_quantity_noise``,
        ``true_quantity_contrast`` of the same models and ``true_quantity_map``; with ``_full``,
        those of models fitted to all counts. Attribute ``folds``: every model was fitted to all
        counts but one part in so many.
    """
    folds, channels = len(parts), ds.sizes[DIM_ENERGY]
    sums = _total(parts)
    # All held-out parts together are one measurement, each but a part of one.
    cells = filled(sums["pixels"]) / folds * channels
    data: Variables = {
        "deviance": (_BY_MODEL, sums["deviance"] / cells),
        "deviance_stddev": (_BY_PAIR, np.sqrt(_OVERLAP * sums["deviance_pair"]) / cells),
        "error": (_BY_MODEL, sums["error"] / folds / cells),
        "error_stddev": (_BY_MODEL, _root(sums["error_variance"]) / folds / cells),
        "error_difference_stddev": (
            _BY_PAIR,
            np.sqrt(_OVERLAP * sums["error_pair"]) / folds / cells,
        ),
        "below_floor": (_BY_MODEL, sums["below_floor"] / folds / cells),
    }
    if lines:
        near = judged.lines.near.sum(axis=1) * ds.sizes[DIM_Y] * ds.sizes[DIM_X]
        data["line_deviance"] = (DIM_MODEL, DIM_LINE), sums["line_deviance"] / near
        data["line_deviance_stddev"] = (
            (DIM_MODEL, DIM_OTHER, DIM_LINE),
            np.sqrt(_OVERLAP * sums["line_deviance_pair"]) / near,
        )
        deviations = np.sqrt(filled(sums["residual_variance"]))
        data["residual"] = (DIM_MODEL, DIM_LINE, DIM_REGION), sums["residual"] / deviations
    if "true_error" in sums:
        for name in ("true_deviance", "true_error"):
            data[name] = _BY_MODEL, sums[name] / folds / cells
            data[f"{name}_full"] = _BY_MODEL, full[name] / (filled(full["true_pixels"]) * channels)
    coords = {
        DIM_MODEL: list(names),
        DIM_OTHER: list(names),
        DIM_REGION: list(regions),
        "kept": (DIM_MODEL, [",".join(map(str, numbers)) for numbers in kept]),
    }
    if lines:
        coords[DIM_LINE] = list(lines)
    if judged.quantities is not None:
        assert values is not None
        coords[DIM_QUANTITY] = list(judged.quantities.names)
        data |= _of_quantities(parts, sums, full)
        maps = (DIM_QUANTITY, DIM_Y, DIM_X)
        data["quantity_map"] = (DIM_MODEL, *maps), values[: len(names)]
        if len(values) > len(names):
            data["true_quantity_map"] = maps, values[-1]
    shared = {name: ds.coords[name] for name in (DIM_Y, DIM_X, "area") if name in ds.coords}
    attrs = {name: value for name, value in ds.attrs.items() if name in ("source", "title")}
    result = xr.Dataset(data, {**shared, **coords}, {**attrs, "folds": folds})
    return add_history(
        result.assign_attrs({"history": ds.attrs.get("history", "")}),
        f"compare models={';'.join(names)} folds={folds}",
    )


def _total(parts: Sequence[Sums]) -> Sums:
    return {name: np.sum([part[name] for part in parts], axis=0) for name in parts[0]}


def _of_quantities(parts: Sequence[Sums], sums: Sums, full: Sums) -> Variables:
    found = quality(sums)
    slopes = np.stack([quality(part)["contrast"] for part in _without_each(parts, sums)])
    scatter = np.sqrt((len(parts) - 1) * slopes.var(axis=0))
    made: Variables = {f"quantity_{name}": (_BY_QUANTITY, found[name]) for name in _QUALITIES}
    made["quantity_error_stddev"] = _BY_QUANTITY, _root(sums["u_variance"]) / filled(sums["d2"])
    made["quantity_contrast_stddev"] = _BY_QUANTITY, scatter
    made["quantity_spread"] = (DIM_QUANTITY, DIM_REGION), found["spread"]
    if "true_d2" in sums:
        for source, ending in ((sums, ""), (full, "_full")):
            true = quality(source, "true_")
            for name in _QUALITIES:
                made[f"true_quantity_{name}{ending}"] = _BY_QUANTITY, true[name]
    return made


def _without_each(parts: Sequence[Sums], sums: Sums) -> Iterator[Sums]:
    """Sums of all parts but one, for a jackknife of what is a smooth function of them."""
    for part in parts:
        yield {name: sums[name] - value for name, value in part.items()}


def _root(variance: np.ndarray) -> np.ndarray:
    """Root of an estimate that chance may have made negative."""
    return np.sqrt(np.maximum(variance, 0))
