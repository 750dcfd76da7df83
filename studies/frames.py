"""Whether whole frames that are held out judge as counts that are drawn at random do.

    python studies/frames.py --data jeol_tem_64x64.pts [--seeds 3] [--csv]

The map is denoised with the defaults, .1-13 keV in channels of 40 eV, from all its frames or some.
Columns are held-out errors in % of that of raw counts. Counts drawn at random cannot show what
changes from frame to frame; the last column is by how many standard deviations of both the mean
over seeds lies below what whole frames show.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from _study import run

from edxdenoise.blocks import chunk
from edxdenoise.config import Input, Prepare
from edxdenoise.pipeline import prepare
from edxdenoise.recipe import Recipe
from edxdenoise.run import frame_folds, read_file
from edxdenoise.validation.holdout import held_out_error

HEAD = ("frames", "counts per pixel", "whole frames", "at random", "off by, stddev")
FRAMES = ((0, 50), (0, 25), (25, 50), (0, 10), (40, 50))


def row(path: str, frames: tuple[int, int], seeds: int) -> list[str]:
    """One part of the frames."""
    recipe = Recipe(Input((path,), frames=frames), Prepare(energy=(0.1, 13), rebin_energy=4))
    whole = read_file(path, recipe.input, None)
    folds = frame_folds([Path(path)], [whole], recipe)
    ds = chunk(prepare([whole], recipe.prepare))
    dose = float(ds["counts"].sum()) / (ds.sizes["y"] * ds.sizes["x"])
    by_frame, stddev = 100 * held_out_error(ds, recipe.denoise, folds).error.values
    drawn = np.array(
        [
            100 * held_out_error(ds, replace(recipe.denoise, seed=seed)).error.values
            for seed in range(seeds)
        ]
    )
    # Seeds split the same counts: their mean is hardly more certain than one of them.
    mean, other = drawn.mean(axis=0)
    return [
        f"{frames[0]}-{frames[1] - 1}",
        f"{dose:.0f}",
        f"{by_frame:.2f} ± {stddev:.2f} %",
        f"{mean:.2f} ± {other:.2f} %",
        f"{(by_frame - mean) / np.hypot(stddev, other):+.1f}",
    ]


def study(seeds: int, data: str) -> list[list[str]]:
    """Rows of the table, one for each part of the frames."""
    return [row(data, frames, seeds) for frames in FRAMES]


if __name__ == "__main__":
    data = {"--data": {"required": True, "help": "a .pts, .emd or .zarr with 50 frames"}}
    run(__file__, __doc__, HEAD, study, seeds=3, options=data)
