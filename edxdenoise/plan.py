"""What a job will take, before it is started: memory, disk, passes over the counts, time.

Two parts of the map, of other sizes, are denoised for trial; the time of every stage is taken to be
a constant and a share of each pixel. What is written is scaled by the pixels too.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.blocks import chunk, compute
from edxdenoise.cube import is_lazy
from edxdenoise.errors import recorded
from edxdenoise.io import rounded_for_storage, save_dataset, stored_size
from edxdenoise.io.guard import naming, reading
from edxdenoise.pipeline import Progress, check_denoise, denoise, prepare, silent
from edxdenoise.recipe import Recipe
from edxdenoise.resources import MemoryNeed, default_workers
from edxdenoise.run import job_memory, read_file
from edxdenoise.survey import survey
from edxdenoise.validation.holdout import held_out_error

# Pixels along the sides of the parts that are denoised for trial.
_SIDES = (40, 96)
# Blocks along each axis of the part whose reads are counted.
_CUTS = 2
READING, HELD_OUT, WRITING = "reading", "held-out counts", "writing"


@dataclass(frozen=True)
class Stage:
    """One stage of a job.

    Parameters
    ----------
    name : str
        As its progress bar names it.
    passes : float
        How often each count is read, where the counts are not held in memory.
    seconds : float
        Expected on this machine.
    """

    name: str
    passes: float
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What denoising takes.

    Parameters
    ----------
    shape : tuple of int
        Of the map once it is prepared: y, x, energy.
    memory : MemoryNeed
    held : bool
        Whether the counts fit into the limit, so that they are read once.
    disk : int
        Bytes of the output, within a factor of 2.
    stages : tuple of Stage
        In the order of the work.
    """

    shape: tuple[int, ...]
    memory: MemoryNeed
    held: bool
    disk: int
    stages: tuple[Stage, ...]

    @property
    def seconds(self) -> float:
        """Time of all stages."""
        return sum(stage.seconds for stage in self.stages)


def plan_file(
    recipe: Recipe,
    *,
    memory_limit: int | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> Plan:
    """Plan what `run_recipe` would do with the files of a recipe; nothing is written.

    Parameters
    ----------
    recipe : Recipe
        With ``input.files``. Quantification is no part of the plan.
    memory_limit, workers, progress
        As `edxdenoise.run_recipe` takes them.

    Raises
    ------
    EdxdenoiseError
        As the job itself would.
    """
    files = [Path(name) for name in recipe.input.files]
    clock = _Clock()
    with progress(READING), naming(files), reading(files), clock(READING):
        maps = [read_file(path, recipe.input, memory_limit) for path in files]
        ds = prepare(maps, recipe.prepare, exposure=recipe.input.exposure)
        components = check_denoise(ds, recipe.denoise)
        report = recipe.output.report is not None
        need, limit = job_memory(
            ds, components, recipe.denoise, memory_limit, workers, report=report
        )
    held = need.in_memory <= limit
    pixels = ds.sizes[v.DIM_Y] * ds.sizes[v.DIM_X]
    with progress("trial"), recorded(show=False):
        once = _reading_seconds(ds, limit - need.held, workers)
        # First, so that times are of programs that are loaded and compiled.
        passes = _passes(_part(ds, _SIDES[0]), recipe)
        trials = [_trial(_part(ds, side), recipe) for side in _SIDES]
    read = 1.0 if held else passes[READING]
    stages = [Stage(READING, read, clock.seconds[READING] + read * once)]
    for name in trials[-1].seconds:
        if name == HELD_OUT and not held:
            continue
        again = 0.0 if held else passes[name]
        taken = _extrapolated([(each.pixels, each.seconds[name]) for each in trials], pixels)
        stages.append(Stage(name, again, taken + again * once))
    disk = int(_extrapolated([(each.pixels, each.size) for each in trials], pixels))
    return Plan(ds[v.COUNTS].shape, need, held, disk, tuple(stages))


class _Clock:
    """Seconds by stage; called as a progress bar is."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.stage = ""

    @contextmanager
    def __call__(self, label: str) -> Iterator[None]:
        self.stage, start = label, time.perf_counter()
        yield
        self.seconds[label] = self.seconds.get(label, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class _Trial:
    pixels: int
    seconds: dict[str, float]
    size: int


def _part(ds: xr.Dataset, side: int) -> xr.Dataset:
    """The middle of a map, no larger than `side` pixels a side, in memory."""
    middle = {}
    for dim in (v.DIM_Y, v.DIM_X):
        start = max(ds.sizes[dim] - side, 0) // 2
        middle[dim] = slice(start, start + side)
    part = ds.isel(middle)
    return part.assign({v.COUNTS: part[v.COUNTS].compute()})


def _trial(part: xr.Dataset, recipe: Recipe) -> _Trial:
    """Denoise and write a part of a map."""
    clock = _Clock()
    found = survey(part)
    if found.whole and recipe.denoise.decomposition == "pca":
        with clock(HELD_OUT):
            held_out_error(part, recipe.denoise)
    result = rounded_for_storage(denoise(part, recipe.denoise, found=found, progress=clock))
    if not recipe.output.cube:
        result = result.drop_vars(v.COUNTS_DENOISED)
    _write(result, clock)
    return _Trial(part.sizes[v.DIM_Y] * part.sizes[v.DIM_X], clock.seconds, stored_size(result))


def _write(result: xr.Dataset, clock: _Clock) -> None:
    with tempfile.TemporaryDirectory() as folder, clock(WRITING):
        save_dataset(result, Path(folder, "part.zarr"))


def _extrapolated(points: list[tuple[int, float]], pixels: int) -> float:
    """Value at so many pixels of a constant and a share of each pixel, neither below 0.

    Examples
    --------
    >>> _extrapolated([(10, 3.0), (20, 4.0)], 100)
    12.0
    """
    (few, low), (many, high) = points
    if many == few:
        return high * pixels / many
    share = max((high - low) / (many - few), 0.0)
    return max(low - share * few, 0.0) + share * pixels


def _reading_seconds(ds: xr.Dataset, room: int, workers: int | None) -> float:
    """Time to read all counts once, from that of a few blocks; 0 where they are in memory."""
    if not is_lazy(ds):
        return 0.0
    blocks = chunk(ds, memory_limit=max(room, 1), workers=workers)[v.COUNTS].data
    places = list(np.ndindex(*blocks.numblocks))
    some = places[: workers or default_workers()]
    start = time.perf_counter()
    compute([blocks.blocks[place] for place in some])
    return (time.perf_counter() - start) * len(places) / len(some)


def _passes(part: xr.Dataset, recipe: Recipe) -> Counter[str]:
    """How often each stage reads counts that are not held, by counting blocks."""
    reads: Counter[str] = Counter()
    lock, clock = threading.Lock(), _Clock()

    def counted(block: np.ndarray) -> np.ndarray:
        with lock:
            reads[clock.stage] += 1
        return block

    sizes = {dim: -(-part.sizes[dim] // _CUTS) for dim in (v.DIM_Y, v.DIM_X)}
    counts = part[v.COUNTS].chunk(sizes)
    data = counts.data.map_blocks(counted, meta=np.empty((0, 0, 0), counts.dtype))
    lazy = part.assign({v.COUNTS: counts.copy(data=data)})
    with clock(READING):
        found = survey(lazy)
    result = denoise(lazy, recipe.denoise, found=found, progress=clock)
    _write(rounded_for_storage(result), clock)
    number = int(np.prod(data.numblocks))
    return Counter({name: count / number for name, count in reads.items()})
