"""Several models of one spectrum image, judged by counts that they were not fitted to.

Regions (`Clusters`) are found without the counts that judge. Pixels sorted by all their counts
would be sorted by the noise of the part held out as well, and every model would seem to miss
something there. Here only what the features mean is found from all counts; each pixel is sorted
again for every part, by the rest of its counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import dask
import dask.array as da
import numpy as np
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.blocks import chunk, compute, delayed_blocks
from edxdenoise.config import Denoise, Quantify
from edxdenoise.cube import add_history, check_cube, detector_resolution, sum_spectrum
from edxdenoise.errors import recorded
from edxdenoise.pipeline import Progress, check_quantify, silent
from edxdenoise.quantification import LineSpec, area_regions, check_lines
from edxdenoise.quantification.estimators import line_weights, sums_counts
from edxdenoise.resources import default_memory_limit, memory_needed
from edxdenoise.simulation import EXPECTED_COUNTS
from edxdenoise.survey import check_survey, shrink_dtype, survey
from edxdenoise.thinning import FrameFolds, check_folds, check_whole, hold_out, parts_of
from edxdenoise.validation.holdout import (
    FITTED,
    LineWindows,
    Scale,
    Sums,
    fitted_words,
    heldout_sums,
    scale_of,
    true_sums,
)
from edxdenoise.validation.models import (
    DEFAULT_MODELS,
    Model,
    computed_components,
    fit_models,
    parse_models,
)
from edxdenoise.validation.quantities import (
    Quantities,
    filled,
    quality,
    quantities_of,
    quantity_sums,
    true_quantity_sums,
)
from edxdenoise.xray import fwhm, line_energy, present_elements


def compare(
    ds: xr.Dataset,
    models: Sequence[str] = DEFAULT_MODELS,
    *,
    lines: Mapping[str, LineSpec] | None = None,
    quantify: Quantify | None = None,
    denoise: Denoise | None = None,
    folds: int = 8,
    frames: FrameFolds | None = None,
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
    frames : FrameFolds, optional
        Where there are at least two for each part, whole ones are held out.
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
    expected = ds[EXPECTED_COUNTS].data if EXPECTED_COUNTS in ds else None
    bare = ds.drop_vars(EXPECTED_COUNTS, errors="ignore")

    with progress("all counts"):
        fitted = fit_models(bare, chosen, recipe)
        windows, quantities = _functionals(bare, lines, quantify)
        clusters = Clusters(_most_telling(fitted), seed=recipe.seed)
        areas = area_regions(bare)
        judged = Judged(_regions(areas, clusters, bare), windows, quantities)
        cubes = [each[v.COUNTS_DENOISED].data for each in fitted]
        full, maps = judge(cubes, judged, scale=scale_of(bare), expected=expected)
    kept = [
        (
            [int(number) for number in each[v.DIM_COMPONENT].values]
            if v.DIM_COMPONENT in each.dims
            else []
        )
        for each in fitted
    ]
    del fitted, cubes

    if frames is not None and not frames.suffice(folds):
        frames = None
    parts: list[Sums] = []
    for number in range(folds):
        whole = parts_of(number, folds, frames)
        with progress(f"part {number + 1} of {folds}"), recorded(show=False):
            # Warnings were already issued for the whole of the counts.
            rest, held_out = hold_out(bare, number, folds=folds, seed=recipe.seed, frames=frames)
            if keep:
                rest = rest.assign({v.COUNTS: rest[v.COUNTS].persist()})
            part, _ = judge(
                [each[v.COUNTS_DENOISED].data for each in fit_models(rest, chosen, recipe)],
                replace(judged, regions=_regions(areas, clusters, rest)),
                factor=whole / (whole - 1),
                scale=scale_of(rest, whole / (whole - 1)),
                held_out=held_out[v.COUNTS].data,
                folds=whole,
                expected=expected,
            )
            parts.append(part)
    compared = assemble(
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
    return compared.assign_attrs({FITTED: fitted_words(folds, frames)})


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
    check_survey(found, name=v.COUNTS)
    ds = shrink_dtype(ds, found)
    check_whole(ds)
    sizes = ds[v.COUNTS].sizes
    shape = sizes[v.DIM_Y], sizes[v.DIM_X], sizes[v.DIM_ENERGY]
    itemsize = ds[v.COUNTS].dtype.itemsize
    components = computed_components(models, recipe) or 1
    need = memory_needed(shape, itemsize, components=components)
    # A worker holds a block of every model.
    share = 4 / (4 + len(models))
    room = max(limit - need.held, limit // 4)
    ds = chunk(ds, memory_limit=int(share * room)).chunk({v.DIM_X: -1})
    return ds, need.in_memory + need.cube <= limit


def _regions(areas: Mapping[str, np.ndarray], clusters: Clusters, ds: xr.Dataset) -> np.ndarray:
    """Areas, and clusters by the counts of `ds`: shape (region, y, x)."""
    return np.concatenate([np.stack(list(areas.values())), clusters.masks(ds)])


def _functionals(
    ds: xr.Dataset, lines: Mapping[str, LineSpec], quantify: Quantify
) -> tuple[LineWindows, Quantities | None]:
    """Return the weights of the channels in lines and quantities."""
    energy = ds[v.DIM_ENERGY].values
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
            sum_spectrum(ds) / (ds.sizes[v.DIM_Y] * ds.sizes[v.DIM_X]),
            ratios=quantify.ratios,
        )
    return LineWindows(net, near), quantities


def _most_telling(fitted: Sequence[xr.Dataset]) -> xr.Dataset:
    """The model whose components make the clusters: of most, but not more than there may be."""
    fitted = [each for each in fitted if v.DIM_COMPONENT in each.dims]
    sizes = [each.sizes[v.DIM_COMPONENT] for each in fitted]
    few = [size for size in sizes if size <= MOST_CLUSTERS] or [min(sizes)]
    return fitted[sizes.index(max(few))]


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
    folds: float = 1,
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
    folds : float
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
    folds: float,
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


# K-means looks at no more pixels than these: enough for centres, whatever the map.
_SAMPLE = 20_000
MOST_CLUSTERS = 8


class Clusters:
    """K-means of pixels by their shares of the spectra of a model, thickness left out.

    Parameters
    ----------
    model : Dataset
        Fitted to all counts; there are as many clusters as it keeps components, 2 at least and 8
        at most.
    seed : int
    """

    def __init__(self, model: xr.Dataset, *, seed: int = 0) -> None:
        from sklearn.cluster import KMeans

        self._rows = model[v.COMPONENT_SPECTRUM].values / model[v.WEIGHT_ENERGY].values
        pixels = self._features(model)
        self._size = np.maximum(pixels.std(axis=(0, 1)), np.finfo(float).tiny)
        pixels = (pixels / self._size).reshape(-1, len(self._rows))
        sample = np.random.default_rng(seed).permutation(len(pixels))[:_SAMPLE]
        count = min(max(len(self._rows), 2), MOST_CLUSTERS, len(sample))
        self._found = KMeans(count, n_init=3, random_state=seed).fit(pixels[sample])

    @property
    def names(self) -> list[str]:
        return [f"cluster {i + 1}" for i in range(self._found.n_clusters)]

    def masks(self, ds: xr.Dataset) -> np.ndarray:
        """Which pixels belong to each, by the counts of `ds`: shape (cluster, y, x)."""
        pixels = self._features(ds) / self._size
        labels = self._found.predict(pixels.reshape(-1, pixels.shape[-1]))
        numbers = np.arange(self._found.n_clusters)[:, np.newaxis, np.newaxis]
        return labels.reshape(pixels.shape[:2]) == numbers

    def _features(self, ds: xr.Dataset) -> np.ndarray:
        sums = sums_counts(ds, np.vstack([self._rows, np.ones(self._rows.shape[1])]))
        (values,) = compute(sums.transpose("y", "x", "row").data)
        return values[..., :-1] / np.maximum(values[..., -1:], 1)


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
        region), the variance of the quantity itself. `edxdenoise.validation.quantities` explains
        them. ``quantity_map`` (model, quantity, y, x) of all counts, NaN where it means nothing.

        For a phantom ``true_deviance``, the excess over what the truth itself would have,
        ``true_error``, ``true_quantity_error``, ``true_quantity_noise``,
        ``true_quantity_contrast`` of the same models and ``true_quantity_map``; with ``_full``,
        those of models fitted to all counts. Attribute ``folds``: every model was fitted to all
        counts but one part in so many.
    """
    folds, channels = len(parts), ds.sizes[v.DIM_ENERGY]
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
        near = judged.lines.near.sum(axis=1) * ds.sizes[v.DIM_Y] * ds.sizes[v.DIM_X]
        data["line_deviance"] = (DIM_MODEL, v.DIM_LINE), sums["line_deviance"] / near
        data["line_deviance_stddev"] = (
            (DIM_MODEL, DIM_OTHER, v.DIM_LINE),
            np.sqrt(_OVERLAP * sums["line_deviance_pair"]) / near,
        )
        deviations = np.sqrt(filled(sums["residual_variance"]))
        data["residual"] = (DIM_MODEL, v.DIM_LINE, DIM_REGION), sums["residual"] / deviations
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
        coords[v.DIM_LINE] = list(lines)
    if judged.quantities is not None:
        assert values is not None
        coords[DIM_QUANTITY] = list(judged.quantities.names)
        data |= _of_quantities(parts, sums, full)
        maps = (DIM_QUANTITY, v.DIM_Y, v.DIM_X)
        data["quantity_map"] = (DIM_MODEL, *maps), values[: len(names)]
        if len(values) > len(names):
            data["true_quantity_map"] = maps, values[-1]
    shared = {name: ds.coords[name] for name in (v.DIM_Y, v.DIM_X, "area") if name in ds.coords}
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
