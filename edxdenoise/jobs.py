"""From files to files: what the commands do, with nothing half-written left behind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import xarray as xr

from edxdenoise._version import __version__
from edxdenoise.blocks import compact_size, hold
from edxdenoise.compute import chunk
from edxdenoise.config import Denoise, Input, Output, Quantify
from edxdenoise.cube import mark_missing
from edxdenoise.errors import EdxdenoiseWarning, RecipeError, recorded, warning_attrs
from edxdenoise.heldout import held_out_error
from edxdenoise.io import (
    atomic_output,
    check_apart,
    check_output,
    check_save,
    file_source,
    read_cube,
    read_mask,
    rounded_for_storage,
    save_dataset,
    stored_size,
)
from edxdenoise.pipeline import (
    Progress,
    check_denoise,
    check_quantify,
    denoise,
    name_of,
    prepare,
    quantify,
    quantities,
    silent,
)
from edxdenoise.quantification import LineSpec
from edxdenoise.recipe import Recipe
from edxdenoise.report import write_report
from edxdenoise.resources import check_memory, default_memory_limit, format_memory, memory_needed
from edxdenoise.schema import COUNTS, COUNTS_DENOISED, DIM_LINE_OTHER, HELD_OUT_ERROR
from edxdenoise.simulation import simulate
from edxdenoise.simulation.net_counts import true_k_factors
from edxdenoise.simulation.truth import PHASE_MAP
from edxdenoise.survey import Survey, check_survey, naming, reading, shrink_dtype, survey

_DEMO_LINES = ("Pb_La", "I_La", "N_Ka", "C_Ka", "In_La", "Sn_La")


def run_recipe(
    recipe: Recipe,
    *,
    folder: str | Path = ".",
    overwrite: bool = False,
    memory_limit: int | None = None,
    workers: int | None = None,
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
    with recorded() as issued, naming(files):
        with progress("reading"), reading(files):
            maps = [read_file(path, recipe.input.signal, memory_limit) for path in files]
            if masks:
                maps = [mark_missing(ds, mask) for ds, mask in zip(maps, masks)]
            ds = prepare(maps, recipe.prepare, exposure=recipe.input.exposure)
            ds = _with_truth(ds, maps)
            if recipe.quantifies:
                check_quantify(recipe.lines, recipe.quantify, ds)
            components = check_denoise(ds, chosen)
            ds, found, judged = _blocks(ds, components, chosen, memory_limit, workers)
            # Counts that were read as a whole: what is held of them now takes less.
            del maps
        raw, ds = ds, denoise(ds, chosen, found=found, progress=progress)
        if judged and found.whole:
            with progress("held-out counts"):
                ds = ds.assign(
                    {HELD_OUT_ERROR.name: held_out_error(shrink_dtype(raw, found), chosen)}
                )
        if recipe.quantifies:
            ds = quantify(ds, recipe.lines, recipe.quantify, progress=progress)
    ds = _signed(ds, recipe, issued)
    written = rounded_for_storage(_written(ds))
    if not recipe.output.cube:
        written = written.drop_vars(COUNTS_DENOISED.name)
    _say_size(written, output, progress)
    with progress("writing"):
        save_dataset(written, output, overwrite=overwrite, total=found.total)
    if report is not None:
        with progress("report"):
            write_report(ds, report, overwrite=overwrite)
    return ds


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
            ds = read_file(files[0], recipe.input.signal, memory_limit)
            ds = chunk(ds, memory_limit=memory_limit, workers=workers)
        with reading(files):
            ds = quantify(ds, recipe.lines, recipe.quantify, progress=progress)
    ds = _signed(ds, recipe, issued)
    maps = _written(quantities(ds))
    _say_size(maps, output, progress)
    with progress("writing"):
        save_dataset(maps, output, overwrite=overwrite)
    if report is not None:
        with progress("report"):
            write_report(ds, report, overwrite=overwrite)
    return maps


def convert_file(
    path: str | Path,
    out: str | Path,
    *,
    signal: str | None = None,
    overwrite: bool = False,
    memory_limit: int | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> None:
    """Write the spectrum image of a file in one of our formats, block by block.

    Parameters are those of `run_recipe`; `signal` picks one where the file holds several.
    """
    files = [Path(path)]
    check_apart(files, [out])
    check_save(out, overwrite=overwrite)
    with progress("reading"), naming(files), reading(files):
        ds = chunk(
            read_file(path, signal, memory_limit), memory_limit=memory_limit, workers=workers
        )
        found = survey(ds)
        check_survey(found, name=name_of(ds))
        ds = shrink_dtype(ds, found)
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
    folder: str | Path,
    *,
    overwrite: bool = False,
    memory_limit: int | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> xr.Dataset:
    """Simulate a small solar cell into `folder`, denoise and quantify it there, with pictures."""
    with atomic_output(Path(folder), overwrite, folder=True) as partial:
        partial.mkdir(exist_ok=True)
        with progress("simulation"):
            save_dataset(_demo_phantom(), partial / "phantom.zarr")
        return run_recipe(
            demo_recipe(),
            folder=partial,
            memory_limit=memory_limit,
            workers=workers,
            progress=progress,
        )


def _with_truth(ds: xr.Dataset, maps: list[xr.Dataset]) -> xr.Dataset:
    """Keep the phases of a phantom whose pixels are unchanged, to show true compositions."""
    phases = maps[0].get(PHASE_MAP.name)
    shape = ds[COUNTS.name].shape[:2]
    if len(maps) > 1 or phases is None or phases.shape[1:] != shape:
        return ds
    return ds.assign({PHASE_MAP.name: phases.assign_coords(y=ds["y"], x=ds["x"])})


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
            "recipe: 'output.cube' is false, but a .hspy file holds nothing else than the denoised "
            "counts; write .zarr or .nc"
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


def _say_size(ds: xr.Dataset, output: Path, progress: Progress) -> None:
    """Say what will be written before it is, where `progress` can say anything."""
    say = getattr(progress, "say", None)
    if say is not None:
        say(f"writing {output.name}, about {format_memory(stored_size(ds))}")


def _written(ds: xr.Dataset) -> xr.Dataset:
    """Leave out the covariance maps, which `line_estimator` and the sum spectra stand for."""
    return ds.drop_dims(DIM_LINE_OTHER, errors="ignore")


def _blocks(
    ds: xr.Dataset,
    components: int,
    recipe: Denoise,
    memory_limit: int | None,
    workers: int | None,
) -> tuple[xr.Dataset, Survey, bool]:
    """Cut into blocks that keep within the limit, and hold the counts if the limit allows.

    Return too what all counts are, and whether a part of them may be held and fitted besides: not
    by NMF, which would take as long again.
    """
    limit = default_memory_limit() if memory_limit is None else memory_limit
    shape, dtype = ds[COUNTS.name].shape, ds[COUNTS.name].dtype
    need = memory_needed(
        (shape[0], shape[1], shape[2]),
        dtype.itemsize,
        components=components,
        workers=workers,
        neighbours=recipe.asks_neighbours,
        shrink=recipe.averages,
    )
    check_memory(need.streamed, limit, "this job")
    ds = chunk(ds, memory_limit=limit - need.held, workers=workers)
    whole = need.in_memory <= limit
    if whole:
        ds = _held(ds)
    found = survey(ds)
    stored = compact_size(shape, found.filled, dtype.itemsize)
    working = need.in_memory - need.cube
    if not whole and working + stored <= limit:
        ds = _held(ds)
    return ds, found, working + 2 * stored <= limit and recipe.decomposition == "pca"


def _held(ds: xr.Dataset) -> xr.Dataset:
    counts = ds[COUNTS.name]
    return ds.assign({COUNTS.name: counts.copy(data=hold(counts.data))})


def read_file(path: str | Path, signal: str | None, memory_limit: int | None) -> xr.Dataset:
    """The spectrum image of a file; one of ours that does not know its source gets it."""
    ds = read_cube(path, signal=signal, memory_limit=memory_limit)
    return ds if "source" in ds.attrs else ds.assign_attrs(source=file_source(path))
