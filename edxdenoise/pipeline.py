"""The order of the stages: from files to a denoised data set. Nothing else knows it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from edxdenoise._version import __version__
from edxdenoise.compute import (
    check_memory,
    chunk,
    compute,
    default_memory_limit,
    load,
    memory_needed,
)
from edxdenoise.cube import check_cube, is_lazy
from edxdenoise.decompose import pca
from edxdenoise.decompose.pca import check_components
from edxdenoise.errors import EdxdenoiseWarning, RecipeError
from edxdenoise.io import (
    atomic_output,
    check_counts,
    check_output,
    check_save,
    read_cube,
    save_dataset,
)
from edxdenoise.preprocess import crop, rebin, stack, weight
from edxdenoise.preprocess.weight import check_weights
from edxdenoise.recipe import Denoise, Input, Output, Prepare, Recipe
from edxdenoise.reconstruction import reconstruct
from edxdenoise.schema import COUNTS, DIM_ENERGY
from edxdenoise.selection import select
from edxdenoise.simulation import simulate

# Called with what is being done; what it returns is entered while it is done.
Progress = Callable[[str], AbstractContextManager[object]]


def _silent(label: str) -> AbstractContextManager[object]:
    return nullcontext()


# Energies in keV below which counts are the detector's strobe peak and electronic noise.
_ZERO_PEAK = 0.1
_ZERO_PEAK_SHARE = 0.02


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
            crop(ds, energy=recipe.energy, y=recipe.crop_y, x=recipe.crop_x),
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
    progress: Progress = _silent,
) -> xr.Dataset:
    """Weight, decompose, select and rebuild one prepared spectrum image.

    Parameters
    ----------
    ds : Dataset
        With ``counts``, as `read_cube`, `simulate` or `prepare` give it.
    recipe : Denoise, optional
        Weighting, number of components, solver, selector or hand-picked components, seed.
    progress : callable, optional
        ``progress(label)`` is entered as a context during each pass over the counts.

    Returns
    -------
    Dataset
        All variables of contract 1 up to ``counts_denoised``. Where the counts are lazy, so is
        ``counts_denoised``, in the same blocks; the components are computed.

    Raises
    ------
    DataError
        If the counts cannot be decomposed.

    Examples
    --------
    >>> from edxdenoise import Denoise, denoise, simulate
    >>> phantom = simulate("solar-cell", shape=(33, 50), channels=160, energy_width=0.08)
    >>> result = denoise(phantom.compute(), Denoise(select="elbow"))
    >>> bool(result.component_keep[0])
    True
    """
    recipe = recipe or Denoise()
    check_cube(ds)
    check_components(recipe.components, ds[COUNTS.name].shape)
    with progress("counts"):
        if ds[COUNTS.name].dtype.kind != "u" or recipe.weighting == "none":
            check_counts(ds)
        ds = weight(ds, weighting=recipe.weighting)
        if is_lazy(ds):
            ds = _load_small(ds)
            if recipe.weighting == "poisson":
                check_weights(ds)
    with progress("components"):
        ds = _load_small(
            pca(ds, components=recipe.components, solver=recipe.solver, seed=recipe.seed)
        )
    with progress("selection"):
        ds = select(ds, selector=recipe.select, keep=recipe.keep, seed=recipe.seed)
    return reconstruct(ds)


def denoise_files(
    recipe: Recipe,
    *,
    overwrite: bool = False,
    memory_limit: int | None = None,
    workers: int | None = None,
    progress: Progress = _silent,
) -> xr.Dataset:
    """Do what the recipe says, from its input files to its output file and report.

    Parameters
    ----------
    recipe : Recipe
        With ``input.files`` and ``output.file``.
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
    if not recipe.input.files:
        raise RecipeError("recipe: 'input.files' names no file; name at least one")
    if recipe.output.file is None:
        raise RecipeError("recipe: 'output.file' names no file; name one ending in .zarr")
    # An output that cannot be written must be known before an hour of work, not after it.
    check_save(recipe.output.file, overwrite=overwrite)
    if recipe.output.report is not None:
        check_output(recipe.output.report, overwrite, folder_marker="scree.png")
    with _recorded() as doubts:
        with progress("reading"):
            maps = [
                read_cube(path, signal=recipe.input.signal, memory_limit=memory_limit)
                for path in recipe.input.files
            ]
            ds = prepare(maps, recipe.prepare, exposure=recipe.input.exposure)
            ds = _block(ds, recipe.denoise.components, memory_limit, workers)
        _warn_zero_peak(ds)
        ds = denoise(ds, recipe.denoise, progress=progress)
    ds = ds.assign_attrs(
        edxdenoise_version=__version__,
        recipe=recipe.to_toml(),
        warnings=doubts,
    )
    with progress("writing"):
        save_dataset(ds, recipe.output.file, overwrite=overwrite)
    if recipe.output.report is not None:
        with progress("report"):
            from edxdenoise.report import write_report

            write_report(ds, recipe.output.report, overwrite=overwrite)
    return ds


def convert_file(
    path: str | Path,
    out: str | Path,
    *,
    signal: str | None = None,
    overwrite: bool = False,
    memory_limit: int | None = None,
    workers: int | None = None,
    progress: Progress = _silent,
) -> None:
    """Write the spectrum image of a file in one of our formats, block by block.

    Parameters are those of `denoise_files`; `signal` picks one where the file holds several.
    """
    check_save(out, overwrite=overwrite)
    with progress("reading"):
        ds = chunk(
            read_cube(path, signal=signal, memory_limit=memory_limit),
            memory_limit=memory_limit,
            workers=workers,
        )
        check_counts(ds)
    with progress("writing"):
        save_dataset(ds, out, overwrite=overwrite)


def run_demo(
    folder: str | Path,
    *,
    overwrite: bool = False,
    memory_limit: int | None = None,
    workers: int | None = None,
    progress: Progress = _silent,
) -> xr.Dataset:
    """Simulate a small solar cell into `folder` and denoise it there, with pictures."""
    with atomic_output(Path(folder), overwrite, folder_marker="phantom.zarr") as partial:
        partial.mkdir(exist_ok=True)
        with progress("simulation"):
            phantom = simulate("solar-cell", shape=(132, 200), channels=325, energy_width=0.04)
            save_dataset(phantom, partial / "phantom.zarr")
        recipe = Recipe(
            Input((str(partial / "phantom.zarr"),)),
            output=Output(str(partial / "denoised.zarr"), str(partial / "report")),
        )
        return denoise_files(recipe, memory_limit=memory_limit, workers=workers, progress=progress)


def _block(
    ds: xr.Dataset, components: int | None, memory_limit: int | None, workers: int | None
) -> xr.Dataset:
    """Cut into blocks that keep within the limit, and hold the counts if the limit allows."""
    limit = default_memory_limit() if memory_limit is None else memory_limit
    counts = ds[COUNTS.name]
    rows, columns, channels = counts.shape
    need = memory_needed(
        (rows, columns, channels),
        counts.dtype.itemsize,
        components=check_components(components, counts.shape),
        workers=workers,
    )
    check_memory(need.streamed, limit, "this job")
    ds = chunk(ds, memory_limit=limit - need.held, workers=workers)
    if need.in_memory <= limit:
        ds = ds.assign({COUNTS.name: ds[COUNTS.name].persist()})
    return ds


def _load_small(ds: xr.Dataset) -> xr.Dataset:
    """Compute everything but the counts, as one graph."""
    small = load(ds.drop_vars(COUNTS.name))
    return small.assign({COUNTS.name: ds[COUNTS.name]}).assign_attrs(ds.attrs)


def _warn_zero_peak(ds: xr.Dataset) -> None:
    low = ds[DIM_ENERGY].values < _ZERO_PEAK
    if not low.any() or low.all():
        return
    sums = compute(
        ds[COUNTS.name].data[:, :, np.flatnonzero(low)].sum(dtype=np.float64),
        ds[COUNTS.name].data.sum(dtype=np.float64),
    )
    if sums[0] > _ZERO_PEAK_SHARE * sums[1]:
        warnings.warn(
            f"{sums[0] / sums[1]:.0%} of the counts lie below {_ZERO_PEAK} keV, in the detector's "
            f"zero peak; cut them off with --energy {_ZERO_PEAK}:",
            EdxdenoiseWarning,
            stacklevel=2,
        )


@contextmanager
def _recorded() -> Iterator[list[str]]:
    """Collect the doubts that are shown meanwhile: they belong to the result as well."""
    doubts: list[str] = []
    show = warnings.showwarning

    def record(message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any) -> None:
        if issubclass(category, EdxdenoiseWarning) and str(message) not in doubts:
            doubts.append(str(message))
        show(message, category, *args, **kwargs)

    with warnings.catch_warnings():
        warnings.showwarning = record
        yield doubts
