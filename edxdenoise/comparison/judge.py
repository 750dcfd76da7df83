"""Several models of one spectrum image, judged by counts that they were not fitted to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from edxdenoise.comparison.blocks import Judged, judge
from edxdenoise.comparison.clusters import MOST_CLUSTERS, Clusters
from edxdenoise.comparison.models import (
    DEFAULT_MODELS,
    Model,
    computed_components,
    fit_models,
    parse_models,
)
from edxdenoise.comparison.quantities import Quantities, quantities_of
from edxdenoise.comparison.result import assemble
from edxdenoise.compute import chunk
from edxdenoise.config import Denoise, Quantify
from edxdenoise.cube import check_cube, detector_resolution, sum_spectrum
from edxdenoise.errors import recorded
from edxdenoise.heldout import LineWindows, Sums, scale_of
from edxdenoise.pipeline import Progress, check_quantify, silent
from edxdenoise.preprocess import hold_out
from edxdenoise.preprocess.folds import check_folds
from edxdenoise.preprocess.thin import check_whole
from edxdenoise.quantification import LineSpec, area_regions, check_lines
from edxdenoise.quantification.estimators import line_weights
from edxdenoise.resources import default_memory_limit, memory_needed
from edxdenoise.schema import COUNTS, COUNTS_DENOISED, DIM_COMPONENT, DIM_ENERGY, DIM_X, DIM_Y
from edxdenoise.simulation import EXPECTED_COUNTS
from edxdenoise.survey import check_survey, shrink_dtype, survey
from edxdenoise.xray import fwhm, line_energy, present_elements


def compare(
    ds: xr.Dataset,
    models: Sequence[str] = DEFAULT_MODELS,
    *,
    lines: Mapping[str, LineSpec] | None = None,
    quantify: Quantify | None = None,
    denoise: Denoise | None = None,
    folds: int = 8,
    memory_limit: int | None = None,
    progress: Progress = silent,
) -> xr.Dataset:
    """Fit several models and judge them by held-out counts, without knowing the truth.

    The counts are split at random into `folds` parts, independent measurements of the same
    specimen. Each part is held out in turn: every model is fitted to the rest, all its choices
    included, and compared with the part it has not seen. Nothing is assumed of the specimen.

    Parameters
    ----------
    ds : Dataset
        With whole ``counts``. Where it has the ``expected_counts`` of a phantom, true errors stand
        beside the estimates.
    models : sequence of str
        Short names: ``pca:4`` (components 1 to 4), ``pca:1-4,8``, ``pca:cnn`` or another selector,
        ``nmf:4``, ``blur`` for a Gaussian of the width with the least estimated risk, and
        ``denoise`` for what `edxdenoise.denoise` does. By default the five of
        Kosasih et al. (2023), which are pixelwise and without spatial shrinkage.
    lines : mapping of str to LineSpec, optional
        For residuals by line and, with k-factors, the errors of at% and ratios.
    quantify : Quantify, optional
        Method, ratios, other elements, unit of the k-factors.
    denoise : Denoise, optional
        What the models have in common, weighting, solver and seed; all of it for ``denoise``.
    folds : {2, 4, 8, 16}
        Each model is fitted to all counts but one part in `folds`.
    memory_limit : int, optional
        Bytes; half of what is free by default. Counts that fit are held.
    progress : callable, optional
        As `denoise` takes it.

    Returns
    -------
    Dataset
        By ``model``, ``region`` and where they apply ``line`` and ``quantity``; see `assemble` for
        the variables. `verdict` puts it in words.

    Raises
    ------
    ParameterError
        If a model, line or number is impossible.
    DataError
        If the counts are not whole: only those can be held out.

    Examples
    --------
    >>> from edxdenoise import compare, simulate
    >>> phantom = simulate("solar-cell", shape=(33, 50), channels=160, energy_width=0.08)
    >>> compared = compare(phantom.compute(), ["pca:1", "pca:4"], folds=2)
    >>> deviance = compared.deviance.sel(region="all")
    >>> bool(deviance.sel(model="PCA 4") < deviance.sel(model="PCA 1"))
    True
    """
    chosen = check_compare(models, lines or {}, quantify, folds)
    check_cube(ds)
    recipe, quantify, lines = denoise or Denoise(), quantify or Quantify(), dict(lines or {})
    with progress("reading"):
        ds, keep = _prepared(ds, chosen, recipe, memory_limit)
    expected = ds[EXPECTED_COUNTS.name].data if EXPECTED_COUNTS.name in ds else None
    bare = ds.drop_vars(EXPECTED_COUNTS.name, errors="ignore")

    with progress("all counts"):
        fitted = fit_models(bare, chosen, recipe)
        windows, quantities = _functionals(bare, lines, quantify)
        clusters = Clusters(_most_telling(fitted), seed=recipe.seed)
        areas = area_regions(bare)
        judged = Judged(_regions(areas, clusters, bare), windows, quantities)
        cubes = [each[COUNTS_DENOISED.name].data for each in fitted]
        full, maps = judge(cubes, judged, scale=scale_of(bare), expected=expected)
    kept = [
        [int(number) for number in each[DIM_COMPONENT].values] if DIM_COMPONENT in each.dims else []
        for each in fitted
    ]
    del fitted, cubes

    parts: list[Sums] = []
    for number in range(folds):
        with progress(f"part {number + 1} of {folds}"), recorded(show=False):
            # Warnings were already issued for the whole of the counts.
            rest, held_out = hold_out(bare, number, folds=folds, seed=recipe.seed)
            if keep:
                rest = rest.assign({COUNTS.name: rest[COUNTS.name].persist()})
            part, _ = judge(
                [each[COUNTS_DENOISED.name].data for each in fit_models(rest, chosen, recipe)],
                replace(judged, regions=_regions(areas, clusters, rest)),
                factor=folds / (folds - 1),
                scale=scale_of(rest, folds / (folds - 1)),
                held_out=held_out[COUNTS.name].data,
                folds=folds,
                expected=expected,
            )
            parts.append(part)
    return assemble(
        ds,
        names=[model.name for model in chosen],
        kept=kept,
        lines=list(lines),
        regions=[*areas, *clusters.names],
        judged=judged,
        parts=parts,
        full=full,
        values=maps,
    )


def check_compare(
    models: Sequence[str],
    lines: Mapping[str, LineSpec],
    quantify: Quantify | None,
    folds: int,
) -> list[Model]:
    """The models, after all checks that need no counts."""
    chosen = parse_models(models)
    check_folds(folds)
    if lines:
        check_lines(lines)
    if _has_factors(lines):
        check_quantify(lines, quantify or Quantify())
    return chosen


def _has_factors(lines: Mapping[str, LineSpec]) -> bool:
    return bool(lines) and all(spec.k_factor is not None for spec in lines.values())


def _prepared(
    ds: xr.Dataset, models: Sequence[Model], recipe: Denoise, memory_limit: int | None
) -> tuple[xr.Dataset, bool]:
    """Blocks of whole rows that one worker can judge, and whether counts fitted may be held."""
    limit = default_memory_limit() if memory_limit is None else memory_limit
    found = survey(ds)
    check_survey(found, name=COUNTS.name)
    ds = shrink_dtype(ds, found)
    check_whole(ds)
    sizes = ds[COUNTS.name].sizes
    shape = sizes[DIM_Y], sizes[DIM_X], sizes[DIM_ENERGY]
    itemsize = ds[COUNTS.name].dtype.itemsize
    components = computed_components(models, recipe) or 1
    need = memory_needed(shape, itemsize, components=components)
    # A worker holds a block of every model.
    share = 4 / (4 + len(models))
    room = max(limit - need.held, limit // 4)
    ds = chunk(ds, memory_limit=int(share * room)).chunk({DIM_X: -1})
    return ds, need.in_memory + need.cube <= limit


def _regions(areas: Mapping[str, np.ndarray], clusters: Clusters, ds: xr.Dataset) -> np.ndarray:
    """Areas, and clusters by the counts of `ds`: shape (region, y, x)."""
    return np.concatenate([np.stack(list(areas.values())), clusters.masks(ds)])


def _functionals(
    ds: xr.Dataset, lines: Mapping[str, LineSpec], quantify: Quantify
) -> tuple[LineWindows, Quantities | None]:
    """Return the weights of the channels in lines and quantities."""
    energy = ds[DIM_ENERGY].values
    if not lines:
        return LineWindows(*np.zeros((2, 0, energy.size))), None
    elements = present_elements(ds, quantify.elements)
    net = line_weights(ds, lines, intensities=quantify.intensities, elements=elements).estimators
    resolution = detector_resolution(ds)
    near = np.stack(
        [
            np.abs(energy - line_energy(name)) <= float(fwhm(line_energy(name), resolution)) / 1000
            for name in lines
        ]
    ).astype(float)
    quantities = None
    if _has_factors(lines):
        quantities = quantities_of(
            lines,
            net,
            sum_spectrum(ds) / (ds.sizes[DIM_Y] * ds.sizes[DIM_X]),
            ratios=quantify.ratios,
        )
    return LineWindows(net, near), quantities


def _most_telling(fitted: Sequence[xr.Dataset]) -> xr.Dataset:
    """The model whose components make the clusters: of most, but not more than there may be."""
    fitted = [each for each in fitted if DIM_COMPONENT in each.dims]
    sizes = [each.sizes[DIM_COMPONENT] for each in fitted]
    few = [size for size in sizes if size <= MOST_CLUSTERS] or [min(sizes)]
    return fitted[sizes.index(max(few))]
