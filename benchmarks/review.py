"""How long the review of a large map takes to open, and to show what a toggle does.

    python benchmarks/review.py [--side 1000] [--components 100] [--toggles 10] [--csv]

A small phantom is denoised, repeated until its map has the size asked for, and saved. *Read* is the
time that `Review` takes, *page* the time from then until Chromium shows both maps and the spectrum,
*toggle* the longest time from a click on keep until maps, spectrum and score are of the new choice.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path

import dask.array as da
import numpy as np
from _measure import show

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from browser import Browser  # noqa: E402

from edxdenoise import denoise, save_dataset, simulate  # noqa: E402
from edxdenoise.config import Denoise  # noqa: E402
from edxdenoise.review import Review  # noqa: E402
from edxdenoise.review.server import ReviewServer  # noqa: E402
from edxdenoise.validation.holdout import held_out_error  # noqa: E402

HEAD = ("map", "components", "read (s)", "page (s)", "toggle (s)")
TILE, CHANNELS = 50, 160


def make_file(path: Path, side: int, components: int) -> None:
    """Write a denoised file of `side` x `side` pixels."""
    phantom = simulate(
        "solar-cell", shape=(TILE, TILE), channels=CHANNELS, energy_width=0.08, counts_per_pixel=100
    )
    recipe = Denoise(components=components, select="spatial", shrink=False, subspace="pixel")
    small = phantom[["counts"]].compute()
    ds = held_out_error(small, recipe).of_components(denoise(small, recipe)).compute()
    times, pixels = side // TILE, (side // TILE) * TILE
    tiled = {}
    for name, array in ds.data_vars.items():
        if "y" in array.dims and name != "counts_denoised":
            reps = [times if dim in ("y", "x") else 1 for dim in array.dims]
            # Maps lie in memory when they are written, and counts in blocks.
            tile = da.tile(da.from_array(array.values), reps) if name == "counts" else None
            content = np.tile(array.values, reps) if tile is None else tile
            tiled[name] = (array.dims, content, array.attrs)
    large = ds.drop_dims(["y", "x"]).assign(tiled)
    for dim in ("y", "x"):
        step = float(np.diff(ds[dim].values[:2])[0])
        large = large.assign_coords({dim: (dim, step * np.arange(pixels), ds[dim].attrs)})
    save_dataset(large.assign_attrs(recipe="[output]\ncube = false\n"), path)


def measure(path: Path, folder: Path, toggles: int) -> tuple[float, float, float]:
    """Seconds to read the file, to show the page, and the longest toggle."""
    start = time.perf_counter()
    server = ReviewServer(Review(path))
    read = time.perf_counter() - start
    threading.Thread(target=server.serve_forever, daemon=True).start()
    browser = Browser(folder / "profile")
    try:
        start = time.perf_counter()
        browser.open(server.address)
        settled = "['map', 'spectrum'].every((name) => document.documentElement.dataset[name] === "
        browser.wait(settled + f"'{server.review.version}')")
        shown = time.perf_counter() - start
        # Raw counts are read behind the page; toggles are timed without and with that.
        worst = 0.0
        for number in range(1, toggles + 1):
            start = time.perf_counter()
            browser.js(f"document.querySelector('[data-number=\"{number}\"] .keep').click()")
            browser.wait(settled + f"'{number}')")
            worst = max(worst, time.perf_counter() - start)
    finally:
        browser.close()
        server.shutdown()
    return read, shown, worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=1000)
    parser.add_argument("--components", type=int, default=100)
    parser.add_argument("--toggles", type=int, default=10)
    parser.add_argument("--csv", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_file(folder / "large.zarr", args.side, args.components)
        seconds = measure(folder / "large.zarr", folder, args.toggles)
    row = [f"{args.side} x {args.side}", str(args.components), *(f"{s:.2f}" for s in seconds)]
    show("review", HEAD, [row], args.csv)


if __name__ == "__main__":
    main()
