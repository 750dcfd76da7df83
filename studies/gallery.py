"""Draw the gallery: three elements of real maps in one picture, raw and denoised.

    python studies/gallery.py [--data FOLDER] [--only NAME]

Every file goes through `denoise` as it is but for the energies, and `ds.edx.plot` draws it. The
pictures are docs/gallery_NAME_raw.png and docs/gallery_NAME_denoised.png.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

from _study import unpacked
from few_counts import DATA

import edxdenoise as ed

FOLDER = Path(__file__).parents[1] / "docs"
DPI = 130
FILES = {
    "fept": ("fept_core_shell.hspy", ["Fe", "Pt", "O"]),
    "dacite": ("bruker_sem_dacite_122cpp.bcf", ["Fe", "K", "Na"]),
    "jeol": ("jeol_tem_64x64.pts", ["Si", "Al", "O"]),
    "edax": ("edax_sem_256x231.zip", ["Si", "Al", "C"]),
}


def draw(name: str, path: Path, elements: list[str]) -> None:
    """Draw both pictures of a file."""
    with unpacked(path) as file:
        raw = ed.crop(ed.open(file), energy=(0.15, None)).compute()
    for state, ds in (("raw", raw), ("denoised", ed.denoise(raw))):
        ds.edx.plot(elements).savefig(FOLDER / f"gallery_{name}_{state}.png", dpi=DPI)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the real files")
    parser.add_argument("--only", choices=list(FILES), help="one of them")
    options = parser.parse_args()
    warnings.simplefilter("ignore", ed.EdxdenoiseWarning)
    for name, (file, elements) in FILES.items():
        if options.only in (None, name):
            draw(name, options.data / file, elements)


if __name__ == "__main__":
    main()
