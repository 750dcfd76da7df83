"""Stages that a job has finished, kept beside its output until that is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import xarray as xr

from edxdenoise.errors import (
    EdxdenoiseWarning,
    FormatError,
    ParameterError,
    Rank,
    issue,
    recorded,
)
from edxdenoise.io.atomic import atomic_output, discard
from edxdenoise.io.guard import guarded
from edxdenoise.io.own import open_checked
from edxdenoise.io.save import save_dataset

_KEY, _ISSUED = "job.txt", "issued"

# Called with the name of a stage and the work that it is; returns what that gives.
Stage = Callable[[str, Callable[[], xr.Dataset]], xr.Dataset]


def unkept(name: str, work: Callable[[], xr.Dataset]) -> xr.Dataset:
    """Do the work of a stage, and keep nothing."""
    return work()


class Stages:
    """Keep what stages give and the warnings that they issue, or take up what was kept.

    Parameters
    ----------
    output : Path
        What the job writes; stages are kept beside it.
    job : str
        Names input, recipe and version.

    Raises
    ------
    ParameterError
        If what is kept there is of another job.
    FormatError
        When a stage is taken up that is damaged.
    """

    def __init__(self, output: Path, job: str) -> None:
        self.output = output
        self.folder = folder = output.with_name(f"{output.name}.stages")
        if not folder.exists():
            with atomic_output(folder, folder=True) as partial:
                (partial / _KEY).write_text(job, encoding="utf-8")
        key = folder / _KEY
        if not key.is_file() or key.read_text(encoding="utf-8", errors="replace") != job:
            raise ParameterError(
                f"'{folder}' holds stages of another job: the input, the recipe or the version of "
                "edxdenoise has changed; remove that folder, or leave out --resume"
            )

    def __call__(self, name: str, work: Callable[[], xr.Dataset]) -> xr.Dataset:
        """Return what a stage gives, computed here or before."""
        path = self.folder / f"{name}.zarr"
        if not path.exists():
            with recorded() as issued:
                ds = work()
            texts = json.dumps([each.args for each in issued])
            save_dataset(ds.assign_attrs({_ISSUED: texts}), path)
            return ds
        try:
            ds = guarded(path, lambda: open_checked(path, path.suffix).load())
            issued_before = json.loads(ds.attrs.pop(_ISSUED))
        except (FormatError, KeyError) as error:
            raise FormatError(
                f"the stage kept in '{path}' is damaged; remove that folder and repeat the command"
            ) from error
        for finding, effect, remedy, rank in issued_before:
            issue(EdxdenoiseWarning(finding, effect, remedy, Rank(rank)))
        return ds

    def remove(self) -> None:
        """Remove the folder."""
        discard(self.folder, self.output)
