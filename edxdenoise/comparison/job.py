"""From a file to a comparison and its report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from edxdenoise.comparison.judge import check_compare, compare
from edxdenoise.comparison.models import DEFAULT_MODELS
from edxdenoise.comparison.tables import (
    MODELS_CAPTION,
    QUANTITIES_CAPTION,
    model_table,
    quantity_table,
)
from edxdenoise.comparison.words import verdict
from edxdenoise.compute import chunk
from edxdenoise.errors import recorded, warning_attrs
from edxdenoise.io import check_apart, check_output
from edxdenoise.jobs import read_file
from edxdenoise.pipeline import Progress, line_factors, prepare, silent
from edxdenoise.recipe import Recipe
from edxdenoise.report import write_comparison
from edxdenoise.schema import COUNTS
from edxdenoise.simulation import EXPECTED_COUNTS
from edxdenoise.survey import naming, reading


def compare_file(
    recipe: Recipe,
    models: Sequence[str] = DEFAULT_MODELS,
    *,
    folds: int = 8,
    overwrite: bool = False,
    memory_limit: int | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> xr.Dataset:
    """Compare models of a file, prepared and quantified as a recipe says.

    Parameters
    ----------
    recipe : Recipe
        With ``input.files``; ``output.report`` is the folder of pictures, if there is one.
    models, folds
        As `compare` takes them.
    overwrite, memory_limit, workers, progress
        As `edxdenoise.run_recipe` takes them.

    Returns
    -------
    Dataset
        As `compare` gives it, with the attributes ``warnings`` and ``notes``.
    """
    files = [Path(name) for name in recipe.input.files]
    report = None if recipe.output.report is None else Path(recipe.output.report)
    check_compare(models, recipe.lines, recipe.quantify, folds)
    if report is not None:
        check_apart(files, [None, report])
        check_output(report, overwrite, folder=True)
    with recorded() as issued, naming(files), reading(files):
        maps = [read_file(path, recipe.input.signal, memory_limit) for path in files]
        ds = prepare(maps, recipe.prepare, exposure=recipe.input.exposure)
        if all(EXPECTED_COUNTS.name in each for each in maps):
            truth = [each.assign({COUNTS.name: each[EXPECTED_COUNTS.name]}) for each in maps]
            expected = prepare(truth, recipe.prepare)[COUNTS.name].data
            ds = ds.assign({EXPECTED_COUNTS.name: EXPECTED_COUNTS.array(expected)})
        compared = compare(
            chunk(ds, memory_limit=memory_limit, workers=workers),
            models,
            lines=line_factors(ds, recipe.lines, recipe.quantify) if recipe.quantifies else {},
            quantify=recipe.quantify,
            denoise=recipe.denoise,
            folds=folds,
            memory_limit=memory_limit,
            progress=progress,
        )
    compared = compared.assign_attrs(warning_attrs(issued))
    if report is not None:
        with progress("report"):
            tables = {MODELS_CAPTION: model_table(compared)}
            if "quantity_contrast" in compared:
                tables[QUANTITIES_CAPTION] = quantity_table(compared)
            write_comparison(
                compared, report, sentences=verdict(compared), tables=tables, overwrite=overwrite
            )
    return compared
