"""From files to files: what the commands do, with nothing half-written left behind."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from edxdenoise import schema as v
from edxdenoise._version import __version__
from edxdenoise.blocks import chunk, compact_size, hold, is_sparse, trim_memory
from edxdenoise.config import Denoise, Input, Output, Pictures, Quantify
from edxdenoise.cube import (
    detector_resolution,
    energy_axis,
    mark_missing,
    measured_pixels,
    result_name,
)
from edxdenoise.errors import (
    DataError,
    EdxdenoiseError,
    EdxdenoiseWarning,
    ParameterError,
    Rank,
    RecipeError,
    recorded,
    warn,
    warning_attrs,
)
from edxdenoise.io import (
    SignalInfo,
    atomic_output,
    check_apart,
    check_output,
    check_save,
    chosen_frames,
    file_source,
    frame_events,
    holds_frames,
    read_cube,
    read_mask,
    rounded_for_storage,
    save_dataset,
    stored_size,
)
from edxdenoise.io.events import Events
from edxdenoise.io.guard import guarded, naming, reading
from edxdenoise.io.own import open_checked
from edxdenoise.io.stages import Stages, unkept
from edxdenoise.io.vendor import Frames
from edxdenoise.pipeline import (
    Progress,
    check_denoise,
    check_quantify,
    denoise,
    line_factors,
    name_of,
    prepare,
    quantify,
    quantities,
    silent,
)
from edxdenoise.quantification import LineSpec, frame_table
from edxdenoise.recipe import Recipe
from edxdenoise.report import write_comparison, write_report
from edxdenoise.resources import (
    MemoryNeed,
    check_memory,
    default_memory_limit,
    format_memory,
    memory_needed,
)
from edxdenoise.simulation import EXPECTED_COUNTS, simulate
from edxdenoise.simulation.truth import PHASE_MAP, true_k_factors
from edxdenoise.survey import Survey, check_survey, shrink_dtype, survey, with_totals
from edxdenoise.thinning import FrameFolds
from edxdenoise.validation.comparison import check_compare, compare
from edxdenoise.validation.holdout import HeldOut, held_out_error
from edxdenoise.validation.models import DEFAULT_MODELS
from edxdenoise.xray import find_elements

# Pixels a side of the part that tells whether a map is nearly empty, and components below which
# fewer are no advice.
_LOOKED_AT, _FEWEST_COMPONENTS = 32, 10
_DEMO_LINES = ("Pb_La", "I_La", "N_Ka", "C_Ka", "In_La", "Sn_La")


def run_recipe(
    recipe: Recipe,
    *,
    folder: str | Path = ".",
    overwrite: bool = False,
    memory_limit: int | None = None,
    workers: int | None = None,
    resume: bool = False,
    progress: Progress = silent,
) -> xr.Dataset:
    """Do what the recipe says, from its input files to its output file and report.

    Parameters
    ----------
    recipe : Recipe
        With ``input.files`` and ``output.file``; with lines, the result is quantified as well.
    folder : path
        Where paths in the recipe that are relative start from.
    overwrite : bool
        Whether existing outputs may be replaced.
    memory_limit : int, optional
        Bytes; half of what is free by default.
    workers : int, optional
        Blocks worked on at a time; one per processor by default.
    resume : bool
        Keep components, smoothed maps and the held-out error beside the output until that is
        written, and go on from those that are there.
    progress : callable, optional
        As `denoise` takes it.

    Returns
    -------
    Dataset
        What was written; its counts are lazy.

    Raises
    ------
    EdxdenoiseError
        Of the kind that fits; no output is left behind.
    """
    files, output, report = _paths(recipe, folder, overwrite)
    chosen = replace(
        recipe.denoise,
        model=_below(folder, recipe.denoise.model),
        start=_below(folder, recipe.denoise.start),
        fix_spectrum=_below(folder, recipe.denoise.fix_spectrum),
    )
    masks = [read_mask(path) for path in _below(folder, recipe.input.missing)]
    if recipe.quantifies:
        check_quantify(recipe.lines, recipe.quantify)
    stages = _stages(recipe, folder, files, output) if resume else None
    stage = stages or unkept
    with recorded() as issued, naming(files):
        with progress("reading"), reading(files):
            maps = [read_file(path, recipe.input, memory_limit) for path in files]
            if masks:
                maps = [mark_missing(ds, mask) for ds, mask in zip(maps, masks)]
            ds = prepare(maps, recipe.prepare, exposure=recipe.input.exposure)
            ds = _with_truth(ds, maps)
            frames = frame_folds(files, maps, recipe)
            if recipe.quantifies:
                check_quantify(recipe.lines, recipe.quantify, ds)
            components = check_denoise(ds, chosen)
            ds, found, judged = _blocks(
                ds, components, chosen, memory_limit, workers, report=report is not None
            )
            # Counts that were read as a whole: what is held of them now takes less.
            del maps
        check_survey(found, name=name_of(ds))
        judgement = None
        if judged and found.whole:
            # First, while there are no maps of the whole to be held besides.
            with progress("held-out counts"):
                counts = shrink_dtype(ds, found)
                kept = stage(
                    "held-out", lambda: held_out_error(counts, chosen, frames).to_dataset()
                )
                judgement = HeldOut.of_dataset(kept)
        # The events behind it are not wanted any more.
        frames = None
        trim_memory()
        ds = denoise(ds, chosen, found=found, progress=progress, stage=stage)
        if judgement is not None:
            judgement.check()
            ds = judgement.of_components(ds.assign({v.HELD_OUT_ERROR: judgement.error}))
        if recipe.quantifies:
            ds = quantify(ds, recipe.lines, recipe.quantify, progress=progress)
    ds = _signed(ds, recipe, issued)
    written = rounded_for_storage(_written(ds))
    if not recipe.output.cube:
        written = written.drop_vars(v.COUNTS_DENOISED)
    _finish(
        ds,
        written,
        (output, report),
        recipe.output.pictures,
        overwrite,
        progress,
        total=found.total,
    )
    if stages is not None:
        stages.remove()
    return ds


def _stages(recipe: Recipe, folder: str | Path, files: list[Path], output: Path) -> Stages:
    """Stages of a job, which is named by its recipe and all that is in the files it reads."""
    chosen = recipe.denoise
    others = [*recipe.input.missing, *chosen.model, *chosen.start, *chosen.fix_spectrum]
    sources = [file_source(path) for path in [*map(str, files), *_below(folder, others)]]
    job = "\n".join([__version__, *sources, recipe.to_toml()])
    return Stages(output, job)


def quantify_file(
    recipe: Recipe,
    *,
    overwrite: bool = False,
    memory_limit: int | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> xr.Dataset:
    """Quantify one denoised file, or any readable one by its counts, into a file of maps.

    Parameters
    ----------
    recipe : Recipe
        With one file in ``input.files``, ``output.file`` and, where wanted, lines and
        ``[quantify]``.
    overwrite, memory_limit, workers, progress
        As `run_recipe` takes them.

    Returns
    -------
    Dataset
        What was written: intensities, percents and ratios with their standard deviations.
    """
    files, output, report = _paths(recipe, ".", overwrite)
    check_quantify(recipe.lines, recipe.quantify)
    with recorded() as issued, naming(files):
        with progress("reading"), reading(files):
            ds = read_file(files[0], recipe.input, memory_limit)
            half = (default_memory_limit() if memory_limit is None else memory_limit) // 2
            ds, found = _surveyed(chunk(ds, memory_limit=half, workers=workers), half)
            if v.SUM_SPECTRUM not in ds:
                ds = with_totals(ds, found)
        with reading(files):
            ds = quantify(ds, recipe.lines, recipe.quantify, progress=progress)
    ds = _signed(ds, recipe, issued)
    maps = _written(quantities(ds))
    _finish(ds, maps, (output, report), recipe.output.pictures, overwrite, progress)
    return maps


def convert_file(
    path: str | Path,
    out: str | Path,
    *,
    signal: str | None = None,
    frames: Frames | Literal["keep"] | None = None,
    overwrite: bool = False,
    memory_limit: int | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> None:
    """Write the spectrum image of a file in one of our formats, block by block.

    Parameters are those of `read_cube` and `run_recipe`. With ``frames="keep"``, a .zarr holds the
    frame of every X-ray event besides the counts.

    Raises
    ------
    ParameterError
        If the file does not hold frames apart, or the output is no .zarr.
    """
    files = [Path(path)]
    keep = frames == "keep"
    if keep and Path(out).suffix.lower() != ".zarr":
        raise ParameterError(f"'{out}' cannot keep frames apart; name a .zarr, or sum the frames")
    chosen = Input((str(path),), signal, None if isinstance(frames, str) else frames)
    check_apart(files, [out])
    check_save(out, overwrite=overwrite)
    with progress("reading"), naming(files), reading(files):
        ds = chunk(
            read_file(path, chosen, memory_limit), memory_limit=memory_limit, workers=workers
        )
        found = survey(ds)
        check_survey(found, name=name_of(ds))
        ds = shrink_dtype(ds, found)
        if keep:
            ds = ds.merge(frame_events(path).to_dataset())
    with progress("writing"):
        save_dataset(ds, out, overwrite=overwrite, total=found.total)


def demo_recipe() -> Recipe:
    """Return the recipe of `run_demo`, which quantifies its phantom by the phantom's k-factors."""
    factors = true_k_factors(_demo_phantom(), _DEMO_LINES)
    lines = {name: LineSpec(round(k, 4), round(error, 4)) for name, (k, error) in factors.items()}
    return Recipe(
        Input(("phantom.zarr",)),
        lines=lines,
        quantify=Quantify(ratios=("I/Pb", "N/Pb"), intensities="fit"),
        output=Output("denoised.zarr", "report"),
    )


def run_demo(
    recipe: Recipe,
    *,
    folder: str | Path,
    overwrite: bool = False,
    memory_limit: int | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> xr.Dataset:
    """Simulate a small solar cell into `folder`, and do there what `demo_recipe` says."""
    with atomic_output(Path(folder), overwrite, folder=True) as partial:
        partial.mkdir(exist_ok=True)
        with progress("simulation"):
            save_dataset(_demo_phantom(), partial / "phantom.zarr")
        return run_recipe(
            recipe,
            folder=partial,
            memory_limit=memory_limit,
            workers=workers,
            progress=progress,
        )


def frame_folds(files: list[Path], maps: list[xr.Dataset], recipe: Recipe) -> FrameFolds | None:
    """Frames of the maps, of which all must hold as many; their counts are read when asked for."""
    first, *others = (ds.attrs.get(v.FRAMES) for ds in maps)
    if first is None or any(other != first for other in others):
        return None
    if not all(map(holds_frames, files)):
        return None
    bare = [ds.drop_vars([v.COUNTS, v.IMAGE], errors="ignore") for ds in maps]
    dtypes = [ds[v.COUNTS].dtype for ds in maps]

    @cache
    def events(path: Path) -> Events:
        with reading(files):
            return frame_events(path)

    def counts(marks: np.ndarray) -> da.Array:
        parts = []
        for path, ds, dtype in zip(files, bare, dtypes):
            own = chosen_frames(path, recipe.input.frames, events(path).frames)
            own[own] = marks
            part = events(path).counts(own, dtype)
            parts.append(ds.assign({v.COUNTS: v.COUNTS.array(part)}))
        with recorded(show=False):
            # What cropping and rebinning leave out was said of the whole.
            return prepare(parts, recipe.prepare)[v.COUNTS].data

    return FrameFolds(first, counts)


def _with_truth(ds: xr.Dataset, maps: list[xr.Dataset]) -> xr.Dataset:
    """Keep the phases of a phantom whose pixels are unchanged, to show true compositions."""
    phases = maps[0].get(PHASE_MAP)
    shape = ds[v.COUNTS].shape[:2]
    if len(maps) > 1 or phases is None or phases.shape[1:] != shape:
        return ds
    return ds.assign({PHASE_MAP: phases.assign_coords(y=ds["y"], x=ds["x"])})


def _demo_phantom() -> xr.Dataset:
    return simulate("solar-cell", shape=(132, 200), channels=325, energy_width=0.04)


def _paths(
    recipe: Recipe, folder: str | Path, overwrite: bool
) -> tuple[list[Path], Path, Path | None]:
    """Inputs, output and report of a recipe, once it is sure that they can be written."""
    if not recipe.input.files:
        raise RecipeError("recipe: 'input.files' names no file; name at least one")
    if recipe.output.file is None:
        raise RecipeError("recipe: 'output.file' names no file; name one ending in .zarr")
    files = [Path(folder, name) for name in recipe.input.files]
    output = Path(folder, recipe.output.file)
    report = None if recipe.output.report is None else Path(folder, recipe.output.report)
    check_apart(files, [output, report])
    if not recipe.output.cube and output.suffix.lower() == ".hspy":
        raise RecipeError(
            "recipe: 'output.cube' is false, but a .hspy file holds the denoised counts; "
            "write .zarr or .nc"
        )
    # An output that cannot be written must be known before an hour of work, not after it.
    check_save(output, overwrite=overwrite)
    if report is not None:
        check_output(report, overwrite, folder=True)
    return files, output, report


def _below(folder: str | Path, names: Iterable[str]) -> tuple[str, ...]:
    return tuple(str(Path(folder, name)) for name in names)


def _signed(ds: xr.Dataset, recipe: Recipe, issued: list[EdxdenoiseWarning]) -> xr.Dataset:
    signed = ds.assign_attrs(edxdenoise_version=__version__, recipe=recipe.to_toml())
    return signed.assign_attrs(warning_attrs(issued, ds.attrs))


def _finish(
    ds: xr.Dataset,
    written: xr.Dataset,
    outputs: tuple[Path, Path | None],
    pictures: Pictures,
    overwrite: bool,
    progress: Progress,
    *,
    total: float | None = None,
) -> None:
    """Write the file, and the report of `ds` where one was asked for."""
    output, report = outputs
    say = getattr(progress, "say", None)
    if say is not None:
        say(f"writing {output.name}, about {format_memory(stored_size(written))}")
    before = _result_in(output)
    with progress("writing"):
        save_dataset(written, output, overwrite=overwrite, total=total)
    if report is not None:
        with progress("report"):
            write_report(ds, report, pictures=pictures, overwrite=overwrite)
    if before is not None and before != result_name(ds):
        _warn_of_old_reports(output, before)


def _result_in(output: Path) -> str | None:
    """Name the result that a file to be replaced holds, if there is one."""
    suffix = output.suffix.lower()
    if not output.exists() or suffix == ".hspy":
        return None
    try:
        with recorded(show=False):
            return guarded(output, lambda: result_name(open_checked(output, suffix)))
    except EdxdenoiseError:
        # Of a damaged file nothing is known.
        return None


def _warn_of_old_reports(output: Path, before: str) -> None:
    """Warn of reports beside an output that show the result it held before."""
    for page in sorted(output.parent.glob("*/index.html")):
        if before in page.read_text(encoding="utf-8", errors="replace"):
            folder = page.parent
            warn(
                f"The report {folder} shows what {output} held before",
                "its numbers are not those of the new result",
                f"type: edxdenoise report {output} -o {folder} --overwrite",
                rank=Rank.WORSE,
            )


def _written(ds: xr.Dataset) -> xr.Dataset:
    """Leave out the covariance maps, which `line_estimator` and the sum spectra stand for."""
    return ds.drop_dims(v.DIM_LINE_OTHER, errors="ignore")


def _blocks(
    ds: xr.Dataset,
    components: int,
    recipe: Denoise,
    memory_limit: int | None,
    workers: int | None,
    *,
    report: bool = False,
) -> tuple[xr.Dataset, Survey, bool]:
    """Cut into blocks that keep within the limit, and hold the counts if the limit allows.

    Return too what all counts are, and whether a part of them may be held and fitted besides: not
    by NMF, which would take as long again.
    """
    shape, dtype = ds[v.COUNTS].shape, ds[v.COUNTS].dtype
    need, limit = job_memory(ds, components, recipe, memory_limit, workers, report=report)
    ds = chunk(ds, memory_limit=limit - need.held, workers=workers)
    room = limit - (need.in_memory - need.cube)
    ds, found = _surveyed(ds, room)
    stored = compact_size(shape, found.filled, dtype.itemsize)
    return ds, found, 2 * stored <= room and recipe.decomposition == "pca"


def _surveyed(ds: xr.Dataset, room: int) -> tuple[xr.Dataset, Survey]:
    """Survey the counts, and hold them where they take no more than `room` bytes."""
    shape, dtype = ds[v.COUNTS].shape, ds[v.COUNTS].dtype
    whole = math.prod(shape) * dtype.itemsize <= room
    if whole:
        ds = _held(ds)
    found = survey(ds)
    if not whole and compact_size(shape, found.filled, dtype.itemsize) <= room:
        ds = _held(ds)
    return ds, found


def job_memory(
    ds: xr.Dataset,
    components: int,
    recipe: Denoise,
    memory_limit: int | None,
    workers: int | None,
    *,
    report: bool = False,
) -> tuple[MemoryNeed, int]:
    """Return what denoising a map needs, as the recipe says, and the bytes that it may take.

    Raises
    ------
    MemoryLimitError
        If that is not enough; it says what to leave out.
    """
    limit = default_memory_limit() if memory_limit is None else memory_limit
    counts = ds[v.COUNTS]
    rows, columns, channels = counts.shape
    needed = partial(
        memory_needed,
        (rows, columns, channels),
        counts.dtype.itemsize,
        workers=workers,
        neighbours=recipe.asks_neighbours,
        sparse=_looks_sparse(counts),
    )
    need = needed(components=components, shrink=recipe.averages, report=report)
    if need.streamed > limit:
        way_out = _way_out(needed, components, recipe, limit, report)
        check_memory(need.streamed, limit, "this job", way_out)
    return need, limit


def _looks_sparse(counts: xr.DataArray) -> bool:
    """Whether the middle of a map fills few cells; all counts are looked at later."""
    sizes = zip((v.DIM_Y, v.DIM_X), counts.shape)
    part = counts[{dim: slice(size // 2, size // 2 + _LOOKED_AT) for dim, size in sizes}]
    return is_sparse(part.shape, int(np.count_nonzero(part.values)))


def _way_out(
    needed: Callable[..., MemoryNeed], components: int, recipe: Denoise, limit: int, report: bool
) -> str:
    """Name what to leave out so that the job keeps within the limit."""
    for reported in (True, False) if report else (False,):
        for shrink in (True, False) if recipe.averages else (False,):
            for fewer in range(components, _FEWEST_COMPONENTS - 1, -1):
                if needed(components=fewer, shrink=shrink, report=reported).streamed <= limit:
                    options = [] if shrink == recipe.averages else ["--no-shrink"]
                    options += [] if fewer == components else [f"--components {fewer}"]
                    words = [f"use {' '.join(options)}"] if options else []
                    words += ["leave out --report"] if report and not reported else []
                    return " and ".join(words)
    return "crop or rebin"


def _held(ds: xr.Dataset) -> xr.Dataset:
    counts = ds[v.COUNTS]
    return ds.assign({v.COUNTS: counts.copy(data=hold(counts.data))})


def read_file(path: str | Path, chosen: Input, memory_limit: int | None) -> xr.Dataset:
    """The spectrum image of a file; one of ours that does not know its source gets it."""
    ds = read_cube(path, signal=chosen.signal, frames=chosen.frames, memory_limit=memory_limit)
    return ds if "source" in ds.attrs else ds.assign_attrs(source=file_source(path))


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
        maps = [read_file(path, recipe.input, memory_limit) for path in files]
        ds = prepare(maps, recipe.prepare, exposure=recipe.input.exposure)
        if all(EXPECTED_COUNTS in each for each in maps):
            truth = [each.assign({v.COUNTS: each[EXPECTED_COUNTS]}) for each in maps]
            expected = prepare(truth, recipe.prepare)[v.COUNTS].data
            ds = ds.assign({EXPECTED_COUNTS: EXPECTED_COUNTS.array(expected)})
        compared = compare(
            chunk(ds, memory_limit=memory_limit, workers=workers),
            models,
            lines=line_factors(ds, recipe.lines, recipe.quantify) if recipe.quantifies else {},
            quantify=recipe.quantify,
            denoise=recipe.denoise,
            folds=folds,
            frames=frame_folds(files, maps, recipe),
            memory_limit=memory_limit,
            progress=progress,
        )
    compared = compared.assign_attrs(warning_attrs(issued))
    if report is not None:
        with progress("report"):
            write_comparison(compared, report, overwrite=overwrite)
    return compared


_MEASUREMENT = ("title", "instrument", *v.MEASUREMENT_NUMBERS, "elements", "source")


def describe_memory(signal: SignalInfo, *, workers: int | None = None) -> dict[str, int]:
    """Return the bytes that denoising a signal needs, from its shape alone.

    Returns
    -------
    dict
        ``cube`` as stored, ``at_least`` block by block and ``at_best`` with the cube in memory.
    """
    rows, columns, channels = signal.shape
    itemsize = np.dtype(signal.dtype).itemsize
    components = min(100, rows * columns, channels)
    need = memory_needed(
        (rows, columns, channels),
        itemsize,
        components=components,
        workers=workers,
        neighbours=True,
        shrink=True,
    )
    return {"cube": need.cube, "at_least": need.streamed, "at_best": need.in_memory}


def describe_signals(signals: Sequence[SignalInfo]) -> list[dict[str, Any]]:
    """The signals of a file as records, ready for JSON."""
    return [
        {
            "index": signal.index,
            "title": signal.title,
            "kind": signal.kind,
            "signal_type": signal.signal_type,
            "shape": list(signal.shape),
            "dtype": signal.dtype,
            "nbytes": signal.nbytes,
        }
        for signal in signals
    ]


# Lines of which counts by frame are told.
_FRAME_LINES = 6


def describe_frames(
    path: str | Path,
    *,
    signal: str | None = None,
    frames: Frames | None = None,
    memory_limit: int | None = None,
) -> pd.DataFrame:
    """Tabulate the counts of every frame of a file and of its strongest lines, as `frame_table`.

    Parameters are those of `read_cube`.

    Raises
    ------
    ParameterError
        If the file does not hold frames apart.
    """
    with naming([Path(path)]), reading([Path(path)]):
        counts = frame_events(path).by_frame()
        ds = read_cube(path, signal=signal, frames=frames, memory_limit=memory_limit)
        lines = find_elements(ds)["line"].head(_FRAME_LINES)
    table = frame_table(counts, ds[v.DIM_ENERGY].values, lines, detector_resolution(ds))
    first, end = frames or (0, math.inf)
    return table[first : None if end == math.inf else int(end)]


def describe_cube(
    path: str | Path,
    *,
    signal: str | None = None,
    frames: Frames | None = None,
    memory_limit: int | None = None,
) -> dict[str, Any]:
    """Shape, axes, counts and measurement of the spectrum image of a file; reads the counts.

    Parameters
    ----------
    path : path
        Any readable file.
    signal, frames, memory_limit
        As `read_cube` takes them.

    Returns
    -------
    dict
        Ready for JSON.

    Warns
    -----
    EdxdenoiseWarning
        If the counts are such that they cannot be decomposed.
    """
    files = [Path(path)]
    with naming(files), reading(files):
        ds = read_cube(path, signal=signal, frames=frames, memory_limit=memory_limit)
        offset, width = energy_axis(ds)
        looked = survey(ds)
        try:
            check_survey(looked, name=files[0].name)
        except DataError as error:
            if v.COUNTS_KIND not in ds.attrs:
                warn(str(error), "this file cannot be denoised", rank=Rank.WRONG)
    counts = ds[v.COUNTS]
    missing = int(np.count_nonzero(~measured_pixels(ds)))
    pixels = ds.sizes[v.DIM_Y] * ds.sizes[v.DIM_X]
    axes = {
        v.DIM_ENERGY: {"offset": offset, "scale": width, "units": ds[v.DIM_ENERGY].attrs["units"]}
    }
    for dim in (v.DIM_Y, v.DIM_X):
        values = ds[dim].values
        step = float(values[1] - values[0]) if values.size > 1 else 1.0
        axes[dim] = {
            "offset": float(values[0]),
            "scale": step,
            "units": ds[dim].attrs.get("units", ""),
        }
    result: dict[str, Any] = {
        "shape": list(counts.shape),
        "dtype": str(counts.dtype),
        "axes": axes,
        # JSON has no NaN.
        "total_counts": looked.total if np.isfinite(looked.total) else None,
        "counts_per_pixel": looked.total / pixels if np.isfinite(looked.total) else None,
        "largest_count": looked.largest if np.isfinite(looked.largest) else None,
        "empty_pixels": (looked.empty_pixels - missing) / pixels,
        "missing_pixels": missing / pixels,
        "images": _describe_images(ds),
        "measurement": {name: ds.attrs[name] for name in _MEASUREMENT if name in ds.attrs},
    }
    if v.COMPONENT_KEEP in ds:
        result["result"] = result_name(ds)
    elif v.COUNTS_KIND in ds.attrs:
        result["result"] = f"counts are {ds.attrs[v.COUNTS_KIND]}"
    found = find_elements(ds)
    result["elements"] = found[["element", "line", "net_counts", "significance", "where"]].to_dict(
        "records"
    )
    factors = vendor_k_factors(json.loads(ds.attrs.get("original_metadata") or "{}"))
    if factors:
        result["k_factors"] = factors
    if v.COORD_AREA in ds.coords:
        result["areas"] = list(ds[v.COORD_AREA].attrs.get("area_label", []))
    return result


def _describe_images(ds: xr.Dataset) -> list[dict[str, Any]]:
    """The images recorded with the counts as records, ready for JSON."""
    if v.IMAGE not in ds:
        return []
    records = []
    for name, image in zip(ds[v.DIM_DETECTOR].values, ds[v.IMAGE].values):
        values = image[np.isfinite(image)]
        records.append(
            {
                "name": str(name),
                "dtype": str(image.dtype),
                "smallest": float(values.min()),
                "largest": float(values.max()),
                "mean": float(values.mean(dtype=float)),
            }
        )
    return records


def vendor_k_factors(metadata: Any, path: str = "") -> dict[str, Any]:
    """Entries of a vendor's metadata that are called k-factors, by their path.

    What they count, an alpha line or its whole family, the vendor's manual says.

    Examples
    --------
    >>> vendor_k_factors({"Results": {"Fe": {"K-factor": 1.45, "Z": 26}}})
    {'Results.Fe.K-factor': 1.45}
    """
    if not isinstance(metadata, dict):
        return {}
    found = {}
    for key, value in metadata.items():
        full = f"{path}.{key}" if path else str(key)
        if re.search(r"k[\W_]?factor", str(key), re.IGNORECASE):
            found[full] = value
        else:
            found |= vendor_k_factors(value, full)
    return found
