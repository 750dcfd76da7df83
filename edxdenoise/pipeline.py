"""The order of the stages: from counts to a denoised, quantified Dataset. Nothing else knows it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.blocks import load, set_aside, trim_memory
from edxdenoise.cluster import check_total, client
from edxdenoise.components import shrink, weight_by_signal
from edxdenoise.components.neighbour import neighbours
from edxdenoise.components.nmf import SPARE, Count, check_number, nmf, unwatched
from edxdenoise.components.pca import check_components, pca, within_rank
from edxdenoise.components.selection import check_models, parse_keep, select
from edxdenoise.config import ESTIMATE, Denoise, Pixels, Prepare, Quantify, split_keys
from edxdenoise.cube import (
    check_cube,
    detector_resolution,
    energy_axis,
    energy_range,
    guide_images,
    is_lazy,
    reconstruct,
)
from edxdenoise.errors import DataError, Rank, warn
from edxdenoise.io import check_profile, check_region, profile_steps, read_regions, read_spectra
from edxdenoise.io.stages import Stage, unkept
from edxdenoise.preprocess import crop, rebin, stack, weight
from edxdenoise.quantification import (
    LineSpec,
    background_windows,
    can_split,
    check_bias,
    check_calibration,
    check_composition,
    check_k_factors,
    check_lines,
    check_reach,
    cliff_lorimer,
    element_of,
    find_phases,
    line_intensity,
    mask_vacuum,
    measure_response,
    misfit,
    parse_ratio,
    sum_regions,
)
from edxdenoise.quantification.k_factors import check_thin, resolve_lines
from edxdenoise.quantification.lines import LineLike, line_specs, with_factor
from edxdenoise.survey import (
    Survey,
    check_survey,
    shrink_dtype,
    survey,
    warn_zero_peak,
    with_density,
    with_totals,
)
from edxdenoise.xray import (
    atomic_number,
    component_peaks,
    element_spectrum,
    identified,
    name_peaks,
    present_elements,
    with_local_elements,
)
from edxdenoise.xray.identification import GIVEN

# Relative error of the largest variance, which is summed from products in 32 bits.
_VARIANCE_TOLERANCE = 1e-6

# Called with what is being done; what it returns is entered while it is done.
Progress = Callable[[str], AbstractContextManager[object]]


def silent(label: str) -> AbstractContextManager[object]:
    """Progress that nobody sees."""
    return nullcontext()


def prepare(
    maps: Sequence[xr.Dataset],
    recipe: Prepare | None = None,
    *,
    exposure: Sequence[float] | None = None,
) -> xr.Dataset:
    """Crop and rebin every map as the recipe says, then stack them as areas; lazy stays lazy."""
    recipe = recipe or Prepare()
    prepared = [
        rebin(
            crop(ds, energy=recipe.energy, y=_ends(recipe.crop_y), x=_ends(recipe.crop_x)),
            energy=recipe.rebin_energy,
            xy=recipe.rebin_xy,
        )
        for ds in maps
    ]
    return stack(prepared, exposure=exposure)


def denoise(
    ds: xr.Dataset,
    recipe: Denoise | None = None,
    *,
    found: Survey | None = None,
    progress: Progress = silent,
    stage: Stage = unkept,
    **options: Any,
) -> xr.Dataset:
    """Prepare, weight, decompose, select, smooth and rebuild one spectrum image.

    Parameters
    ----------
    ds : Dataset
        With ``counts``, as `read_cube`, `simulate` or `prepare` give it.
    recipe : Denoise, optional
        The section ``[denoise]`` of a recipe.
    found : Survey, optional
        What `survey` says of the counts, where somebody has looked at them already.
    progress : callable, optional
        ``progress(label)`` is entered as a context during each pass over the counts.
    stage : callable, optional
        Does the work of long stages; see `edxdenoise.io.stages`.
    **options
        Keys of `Prepare` and `Denoise`, such as ``energy=(0.1, 13)`` or ``select="elbow"``; they
        replace those of `recipe`.

    Returns
    -------
    Dataset
        All variables of contract 1 up to ``counts_denoised``. Where the counts are lazy, so is
        ``counts_denoised``, in the same blocks; the components are computed.

    Raises
    ------
    DataError
        If the counts cannot be decomposed.
    RecipeError
        If there is no such option, or its value is not allowed.

    Examples
    --------
    >>> from edxdenoise import denoise, simulate
    >>> phantom = simulate("solar-cell", shape=(33, 50), channels=160, energy_width=0.08)
    >>> result = denoise(phantom.compute(), select="elbow")
    >>> bool(result.component_keep[0])
    True
    """
    preparing, denoising = split_keys(options, Prepare, Denoise)
    recipe = replace(recipe, **denoising) if recipe else Denoise(**denoising)
    if preparing:
        ds = prepare([ds], Prepare(**preparing))
    check_denoise(ds, recipe)
    if recipe.elements:
        ds = ds.assign_attrs({GIVEN: list(recipe.elements)})
    if found is None:
        with progress("reading"):
            found = survey(ds)
    check_survey(found, name=name_of(ds))
    warn_zero_peak(found)
    if recipe.select == "split" and recipe.keep is None and not found.whole:
        raise DataError(
            "the counts are not whole numbers, which the split test needs: use raw counts, or "
            "select by elbow"
        )
    return fitted(ds, recipe, found, progress=progress, stage=stage)


def fitted(
    ds: xr.Dataset,
    recipe: Denoise,
    found: Survey,
    *,
    errors: bool = True,
    progress: Progress = silent,
    stage: Stage = unkept,
) -> xr.Dataset:
    """Denoise without the checks; without `errors`, averaged maps are not bootstrapped either."""
    with progress("weights"):
        ds = with_density(shrink_dtype(ds, found), found)
        ds = weight(ds, weighting=recipe.weighting, totals=(found.pixels, found.channels))
    with progress("components"):
        work = partial(_components, ds, recipe, found, progress)
        ds = stage("components", work).assign({v.COUNTS: ds[v.COUNTS]})
    with progress("selection"):
        ds = _selected(ds, recipe)
        if is_lazy(ds) and client() is None:
            kept = np.flatnonzero(ds[v.COMPONENT_KEEP].values).tolist()
            maps = ds[v.COMPONENT_MAP].copy(data=set_aside(ds[v.COMPONENT_MAP].values, kept))
            ds = ds.assign({v.COMPONENT_MAP: maps})
            del maps
        trim_memory()
    return rebuilt(ds, recipe, errors=errors, progress=progress, stage=stage)


def _components(ds: xr.Dataset, recipe: Denoise, found: Survey, progress: Progress) -> xr.Dataset:
    """Find the components, computed; without the counts."""
    ds = decompose(ds, recipe, getattr(progress, "count", unwatched))
    if recipe.asks_neighbours:
        # Computed together, so that counts are read once for both.
        ds = neighbours(ds, subspace=recipe.subspace, seed=recipe.seed)
    ds = load(ds.drop_vars(v.COUNTS))
    if recipe.decomposition == "pca":
        if recipe.weighting == "poisson" and found.whole:
            # Of Poisson-weighted counts, h is a singular vector, and its singular value is 1.
            pixels = ds.sizes[v.DIM_Y] * ds.sizes[v.DIM_X]
            read = float(ds[v.COMPONENT_VARIANCE].values[0]) * pixels * found.total
            check_total("components", read, found.total, tolerance=_VARIANCE_TOLERANCE)
        ds = within_rank(ds)
    return ds


def rebuilt(
    ds: xr.Dataset,
    recipe: Denoise,
    *,
    errors: bool = True,
    progress: Progress = silent,
    stage: Stage = unkept,
) -> xr.Dataset:
    """Average or weight the components that are kept, as the recipe says, and rebuild counts."""
    # Without the total there are no profiles to average.
    if recipe.averages and ds[v.COMPONENT_KEEP].values[0]:
        with progress("shrinkage"):
            smoothed = stage("shrinkage", partial(_smoothed, ds, recipe, errors))
            ds = ds.assign(smoothed.data_vars).assign_attrs(smoothed.attrs)
    elif recipe.weights_components:
        ds = weight_by_signal(ds)
    return reconstruct(ds)


def _smoothed(ds: xr.Dataset, recipe: Denoise, errors: bool) -> xr.Dataset:
    """What smoothing adds or changes."""
    result = shrink(ds, image=recipe.image, seed=recipe.seed, errors=errors)
    return result.drop_vars([n for n, old in ds.data_vars.items() if result[n].data is old.data])


def _selected(ds: xr.Dataset, recipe: Denoise) -> xr.Dataset:
    return select(
        ds,
        selector="all" if recipe.decomposition == "nmf" else recipe.select,
        keep=recipe.keep,
        models=recipe.model,
        seed=recipe.seed,
    )


def quantify(
    ds: xr.Dataset,
    lines: Mapping[str, LineLike] | None = None,
    recipe: Quantify | None = None,
    *,
    progress: Progress = silent,
    **options: Any,
) -> xr.Dataset:
    """Line intensities, compositions and ratios of a map, each with its standard deviation.

    Parameters
    ----------
    ds : Dataset
        Denoised, or with ``counts`` alone where the recipe's source is ``counts``.
    lines : mapping of str to LineSpec, number, (number, number) or None; optional
        k-factors, or k-factors and their standard deviations, or all that a `LineSpec` says, by
        Siegbahn name. Without lines those of the elements found are taken; without k-factors
        there are net counts, and no composition.
    recipe : Quantify, optional
        The section ``[quantify]`` of a recipe.
    progress : callable, optional
        As `denoise` takes it.
    **options
        Keys of `Quantify`, such as ``ratios=["I/Pb"]``; they replace those of `recipe`.

    Returns
    -------
    Dataset
        `ds` with what `line_intensity` and `cliff_lorimer` give, computed. Coordinates of ``line``
        hold the k-factors and whether each was given or estimated.

    Raises
    ------
    ParameterError
        If a line, k-factor, window or ratio is impossible.
    RecipeError
        If there is no such option, or its value is not allowed.

    Examples
    --------
    >>> from edxdenoise import denoise, quantify, simulate
    >>> phantom = simulate("solar-cell", shape=(66, 100), channels=160, energy_width=0.08)
    >>> film = phantom.isel(y=slice(6, 11)).compute()
    >>> maps = quantify(denoise(film), {"I_La": 3.413, "Pb_La": (4.374, 0.2)}, ratios=["I/Pb"])
    >>> maps.element.values.tolist()
    ['I', 'Pb']
    """
    (quantifying,) = split_keys(options, Quantify)
    recipe = replace(recipe or Quantify(), **quantifying)
    given = line_specs(lines or {})
    if v.COUNTS in ds and v.SUM_SPECTRUM not in ds:
        ds = with_totals(ds, survey(ds))
    # Axis and widths are those of the sum spectrum: few pixels make no clean peak there.
    strong = present_elements(ds, [*map(element_of, given), *recipe.elements])
    if not given:
        # Where lines are given, a false element of a few pixels would cost the others precision.
        with progress("elements"):
            ds = with_local_elements(ds, recipe.elements)
    lines = line_factors(ds, given, recipe)
    composed = with_factor(lines)
    elements = present_elements(ds, [*map(element_of, lines), *recipe.elements])
    with progress("quantities"):
        if composed:
            check_thin(ds)
        ds = check_calibration(ds, strong, correct=recipe.correct_energy)
        ds = measure_response(ds, strong)
        ds = line_intensity(
            ds,
            lines,
            intensities=recipe.intensities,
            source=recipe.source,
            elements=elements,
        )
        if composed:
            ds = cliff_lorimer(ds, ratios=recipe.ratios)
        ds = _with_regions(ds, recipe)
        if recipe.intensities == "fit":
            ds = misfit(ds)
        ds = ds.assign(load(quantities(ds)).data_vars)
        if recipe.vacuum_counts is not None:
            ds = mask_vacuum(ds, recipe.vacuum_counts)
        check_composition(ds)
        check_bias(ds)
    return ds


def line_factors(
    ds: xr.Dataset, lines: Mapping[str, LineSpec], recipe: Quantify
) -> dict[str, LineSpec]:
    """Choose lines and k-factors as `resolve_lines` does and the recipe says."""
    check_quantify(lines, recipe)
    return resolve_lines(
        ds,
        lines,
        elements=recipe.elements,
        estimate=recipe.k_factor == ESTIMATE,
        unit=recipe.k_factor_unit,
        window=recipe.detector_window,
        ratios=recipe.ratios,
    )


def _with_regions(ds: xr.Dataset, recipe: Quantify) -> xr.Dataset:
    """Sum areas, phases and what the recipe names; phases only of whole counts, denoised."""
    phases = None
    if v.COMPONENT_KEEP in ds and can_split(ds):
        phases = find_phases(ds)
    elif v.COUNTS not in ds:
        warn(
            "The file holds no raw counts",
            "errors of sums are of the counts that the components expect, and neither phases nor "
            "the bias check are available",
            rank=Rank.NOTE,
        )
    elif v.COMPONENT_KEEP in ds:
        warn(
            "The counts are not whole numbers and cannot be split into halves",
            "phases and the bias check are not available",
            rank=Rank.NOTE,
        )
    return sum_regions(
        ds,
        read_regions(recipe.regions, ds),
        phases=phases,
        profiles=profile_steps(recipe.profiles, ds),
    )


def quantities(ds: xr.Dataset) -> xr.Dataset:
    """Return the variables by line, element, ratio, region or group, ``image`` and ``measured``.

    Those of elements of small parts of the map are among them: they name peaks.
    """
    dims = {v.DIM_LINE, v.DIM_ELEMENT, v.DIM_RATIO, v.DIM_REGION, v.DIM_GROUP, v.DIM_DETECTOR}
    others = (v.MEASURED, *v.LOCAL_SPECS)
    return ds[[n for n, array in ds.data_vars.items() if dims & set(array.dims) or n in others]]


def check_quantify(
    lines: Mapping[str, LineSpec], recipe: Quantify, ds: xr.Dataset | None = None
) -> None:
    """Check all that can be checked of a quantification before hours of work.

    With a Dataset also whether its energy axis holds the lines and has room for their windows.
    """
    automatic = not lines or recipe.k_factor == ESTIMATE
    if lines:
        check_lines(lines)
    if any(spec.k_factor is not None for spec in lines.values()) and not automatic:
        given = {name: spec for name, spec in lines.items() if spec.k_factor != ESTIMATE}
        check_k_factors(given)
    # Elements that are chosen later may be parts of a ratio.
    for text in () if automatic else recipe.ratios:
        parse_ratio(text, [element_of(name) for name in lines])
    for element in recipe.elements:
        atomic_number(element)
    for text in recipe.regions:
        check_region(text)
    for text in recipe.profiles:
        check_profile(text)
    if ds is not None and lines:
        check_reach(lines, energy_range(ds))
        if recipe.intensities != "fit":
            background_windows(
                lines,
                energy_range(ds),
                elements=present_elements(ds, recipe.elements),
                beam_energy=ds.attrs.get("beam_energy"),
                resolution=detector_resolution(ds),
            )


def check_denoise(ds: xr.Dataset, recipe: Denoise) -> int:
    """Maps that will be held at a time, after all checks that need no pass over the counts."""
    check_cube(ds)
    components, maps = check_decomposition(ds, recipe)
    if recipe.keep is not None:
        parse_keep(recipe.keep, components or maps)
    for element in recipe.elements:
        atomic_number(element)
    check_models(recipe.model, recipe.select, recipe.keep)
    guide_images(ds, recipe.image)
    return maps


def name_of(ds: xr.Dataset) -> str:
    return str(ds.attrs.get("source", v.COUNTS)).split(" sha256:")[0]


def _ends(limits: Pixels | None) -> tuple[int, int | None] | None:
    if limits is None:
        return None
    first, end = limits
    return first, None if end == math.inf else int(end)


_NAMED_LINES = 3


def decompose(ds: xr.Dataset, recipe: Denoise, progress: Count = unwatched) -> xr.Dataset:
    """Components of weighted counts, as the recipe says; those of NMF have names.

    Parameters
    ----------
    ds : Dataset
        With ``counts`` and weights.
    recipe : Denoise
    progress : callable
        As `edxdenoise.nmf` takes it.
    """
    if recipe.decomposition == "pca":
        return pca(
            ds,
            components=_number(recipe),
            solver=recipe.solver,
            # Neighbours make their own.
            maps=not recipe.asks_neighbours,
            seed=recipe.seed,
        )
    start, fixed = known_spectra(ds, recipe)
    components: int | None = _number(recipe)
    if recipe.components == "auto":
        components = max(_signal_components(ds, recipe), len(fixed))
    found = nmf(
        ds,
        components=components,
        loss=recipe.loss,
        init=recipe.init,
        start=start if len(start) else None,
        fixed=fixed if len(fixed) else None,
        closure=recipe.closure,
        tolerance=recipe.tolerance,
        max_iterations=recipe.max_iterations,
        seed=recipe.seed,
        progress=progress,
    )
    names = component_names(found)
    return found.assign_coords({v.COORD_COMPONENT_NAME: (v.DIM_COMPONENT, names)})


def check_decomposition(ds: xr.Dataset, recipe: Denoise) -> tuple[int | None, int]:
    """Check what can be checked without a pass over the counts.

    Returns
    -------
    components : int or None
        How many there will be; None where the data decide.
    maps : int
        How many maps are held at a time.
    """
    shape = ds[v.COUNTS].shape
    if recipe.decomposition == "pca":
        components = check_components(_number(recipe), shape)
        return components, components
    start, fixed = known_spectra(ds, recipe)
    if recipe.components == "auto":
        return None, check_components(None, shape)
    components = check_number(_number(recipe), len(start), len(fixed), shape)
    return components, components + SPARE


def known_spectra(ds: xr.Dataset, recipe: Denoise) -> tuple[np.ndarray, np.ndarray]:
    """Spectra to start from and spectra to hold, each (n, energy) in counts; none where not asked.

    Raises
    ------
    FormatError, ParameterError
        If a file holds none or an element has no line.
    """
    if recipe.start or recipe.fix_spectrum or recipe.fix_element:
        energy_axis(ds)
    energy = ds[v.DIM_ENERGY].values
    none = [np.empty((0, energy.size))]
    start = [read_spectra(path, energy) for path in recipe.start]
    fixed = [read_spectra(path, energy) for path in recipe.fix_spectrum]
    fixed += [
        element_spectrum(
            element,
            energy,
            beam_energy=ds.attrs.get("beam_energy"),
            resolution=detector_resolution(ds),
        )[np.newaxis]
        for element in recipe.fix_element
    ]
    return np.concatenate(none + start), np.concatenate(none + fixed)


def component_names(ds: xr.Dataset) -> list[str]:
    """What the spectra of NMF may be called: their strongest lines, one of each element.

    Parameters
    ----------
    ds : Dataset
        With ``component_spectrum``, ``weight_energy`` and the elements of the file.

    Returns
    -------
    list of str
        Energies where lines have no name; ``"no lines"`` where there are none.
    """
    found, resolution = identified(ds), detector_resolution(ds)
    energy, h = ds[v.DIM_ENERGY].values, ds[v.WEIGHT_ENERGY].values
    names = []
    for spectrum in np.asarray(ds[v.COMPONENT_SPECTRUM].values):
        peaks = name_peaks(component_peaks(energy, spectrum, h, resolution), found)
        names.append(_joined([peak.name or peak.label for peak in peaks]))
    return names


def _joined(labels: Sequence[str]) -> str:
    """The first labels that tell of different elements.

    Examples
    --------
    >>> _joined(["I Lα", "Pb Mα / S Kα", "I Lβ", "N Kα", "Cu Kα"])
    'I Lα, Pb Mα / S Kα, N Kα'
    """
    chosen: dict[str, str] = {}
    for label in labels:
        chosen.setdefault(label.split()[0], label)
    return ", ".join(list(chosen.values())[:_NAMED_LINES]) or "no lines"


def _number(recipe: Denoise) -> int | None:
    return recipe.components if isinstance(recipe.components, int) else None


def _signal_components(ds: xr.Dataset, recipe: Denoise) -> int:
    """Return the number of principal components that the recipe's selector calls signal."""
    chosen = select(pca(ds, seed=recipe.seed), selector=recipe.select, seed=recipe.seed)
    return int(chosen[v.COMPONENT_KEEP].sum())
