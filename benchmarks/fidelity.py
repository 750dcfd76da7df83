"""How near denoised maps come to the truth: components found by neighbours, and shrinkage.

    python benchmarks/fidelity.py [--full] [--only SECTION ...] [--figure PATH]
    python benchmarks/fidelity.py --only defaults --against ../older --csv

Sections: `phantoms`, errors of cubes and of ratio maps against the truth of phantoms; `defaults`,
the same errors of the command `denoise` with its defaults, beside those of the version in the
folder ``--against`` where there is one, on the same counts; `real`, line maps of real files thinned
to a part of their counts, against the counts held out; `rank`, how many components are found;
`small`, whether phases of single pixels and of five are; `speed`, seconds of each stage. Intervals
of at% are in studies/intervals.py, maps of a smooth specimen in studies/invented.py.

Phantoms: cube error is the root mean square difference from the expected counts in units of Poisson
noise. Errors of ratios are root mean squares over the mean size of the true ratio, in pixels of the
film (0.9 of their counts); net counts by a fit of all lines; what is divided by
nothing is left out. "grains kept" is the slope of found over true contrast of grains of up to 4
pixels radius against the ring around them. "edge wider" is the 10-90 % width of a layer's edge,
beyond that of the truth. "totals off" is the root mean square of a pixel's rebuilt counts over
those expected, less 1, with the noise that is left in them. Seconds are those of weighting,
decomposition, selection, shrinkage and rebuilding. Figures are means over seeds.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import xarray as xr
from _fidelity import AIMS, FILM, Phantom, columns
from _measure import machine, markdown, run_version, scratch, show
from scipy import ndimage
from unseen import true_r, true_scores

from edxdenoise import LineSpec, denoise, make_cube, pca, reconstruct, select, simulate, weight
from edxdenoise.blocks import scheduler
from edxdenoise.components import shrink, weight_by_signal
from edxdenoise.components.neighbour import neighbours
from edxdenoise.components.shrink import area_numbers, area_rows
from edxdenoise.components.smoothing import gaussian
from edxdenoise.config import Denoise, Prepare
from edxdenoise.io import read_cube, save_dataset
from edxdenoise.pipeline import prepare
from edxdenoise.quantification.estimators import line_weights
from edxdenoise.thinning import thin

SECTIONS = ("phantoms", "defaults", "real", "rank", "small", "speed")
ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
DOSES = (300.0, 1000.0, 4000.0)
LOW_DOSES = (1.0, 3.0, 10.0, 30.0, 100.0)
# Of each preset in the sections of phantoms and of defaults.
PHANTOM_DOSES = {
    "solar-cell": (*LOW_DOSES, *DOSES),
    "layers-gradient": (1000.0,),
    "mineral": (1000.0,),
}
DEFAULTS_HEAD = ("phantom", "counts per pixel", "figure", "denoise", "before")
# Pixels of the Gaussians whose width is chosen.
WIDTHS = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0)
SEEDS = (0, 1, 2)
SIGNAL = 0.15  # correlation with the truth from which a component is signal
WEAK = 0.95  # correlation up to which a map is weak
WIDTH = 2.0  # pixels of the Gaussian on maps
_IMPULSE = np.zeros((65, 65))
_IMPULSE[32, 32] = 1
# Recipes of the two that are compared most.
PLAIN = Denoise(subspace="pixel", shrink=False)
WHOLE = Denoise(subspace="union")


# Phantoms ---------------------------------------------------------------------------------------

Row = tuple[str, xr.Dataset, float]


class Clock:
    """Seconds since the last look."""

    def __init__(self) -> None:
        self.last = time.perf_counter()

    def __call__(self) -> float:
        before, self.last = self.last, time.perf_counter()
        return self.last - before


def models(phantom: Phantom) -> Iterator[Row]:
    """Name, Dataset ready to be rebuilt, and seconds, of every row of the table."""
    clock = Clock()
    plain = pca(weight(phantom.ds))
    seconds = clock()
    yield "PCA by elbow", select(plain, selector="elbow"), seconds
    clock()
    chosen = select(plain)
    yield "PCA by CNN", chosen, seconds + clock()
    r = true_r(plain, (phantom.amounts, phantom.spectra))
    right = keeping(plain, r > SIGNAL)
    yield "PCA by truth", right, seconds
    clock()
    yield f"same, Gauss {WIDTH:g} on weak maps", smoothed(right, r < WEAK), seconds + clock()
    yield f"same, Gauss {WIDTH:g} on all but 1", smoothed(right, r < 2), seconds + clock()
    nmf = denoise(phantom.ds, Denoise(decomposition="nmf", components=4, select="all"))
    yield "NMF 4", nmf, clock()
    yield "PCA by CNN, shrunk", shrink(chosen), seconds + clock()
    both = neighbours(plain)
    seconds += clock()
    found = both["component_neighbour"].values.astype(bool)
    yield "neighbour", keeping(both, found), seconds
    clock()
    chosen = select(both)
    seconds += clock()
    yield "union by CNN", chosen, seconds
    clock()
    yield "union by CNN, weighted", weight_by_signal(chosen), seconds + clock()
    yield "union by CNN, shrunk", shrink(chosen), seconds + clock()
    scores = true_scores(chosen, (phantom.amounts, phantom.spectra))
    perfect = np.sqrt(phantom.total)
    bound = chosen.assign(
        component_map=chosen["component_map"].copy(data=scores.astype(np.float32)),
        weight_pixel=chosen["weight_pixel"].copy(data=perfect),
    )
    yield "its components without noise", bound, np.nan


def blurred(phantom: Phantom) -> Iterator[tuple[str, np.ndarray]]:
    """Name and cube of the Gaussians with one width for all channels, the raw counts among them.

    The width is that of the least risk, by Stein's formula with channels weighted by their noise,
    or of the least cube error.
    """
    raw = phantom.ds["counts"].values.astype(np.float32)
    noise = np.maximum(raw.mean(axis=(0, 1)), 1 / raw.shape[0] / raw.shape[1])
    risks, errors, cubes = [2.0 * raw.shape[2]], [phantom.errors(raw)[0]], [raw]
    for width in WIDTHS:
        cube = ndimage.gaussian_filter(raw, (width, width, 0))
        share = float(ndimage.gaussian_filter(_IMPULSE, width).max())
        risks.append(float((((cube - raw) ** 2).mean(axis=(0, 1)) / noise + 2 * share).sum()))
        errors.append(phantom.errors(cube)[0])
        cubes.append(cube)
    yield "Gaussian, width by risk", cubes[int(np.argmin(risks))]
    yield "Gaussian, width by the answer", cubes[int(np.argmin(errors))]


def keeping(ds: xr.Dataset, keep: np.ndarray) -> xr.Dataset:
    """With these components kept, the first always."""
    flags = keep.astype(np.int8)
    flags[0] = 1
    return ds.assign(component_keep=("component", flags))


def smoothed(ds: xr.Dataset, chosen: np.ndarray) -> xr.Dataset:
    """Chosen maps but the first, t / g smoothed with the totals for weights, area by area."""
    g, maps = ds["weight_pixel"].values, ds["component_map"].values.copy()
    counts = ds["pixel_counts"].values.astype(np.float32)
    some = np.flatnonzero(chosen & (ds["component_keep"].values > 0))[1:]
    for rows in area_rows(area_numbers(ds)):
        kernel = gaussian(WIDTH, *counts[rows].shape)
        below = np.maximum(kernel.sums(counts[np.newaxis, rows]), 1e-9)
        profiles = (maps[some][:, rows] / g[rows] * counts[rows]).astype(np.float32)
        maps[some, rows] = kernel.sums(profiles) / below * g[rows]
    return ds.assign(component_map=ds["component_map"].copy(data=maps))


def table_of(preset: str, dose: float, seeds: tuple[int, ...], full: bool) -> str:
    """Rows by model, means over seeds."""
    found: dict[str, list[list[float]]] = {}
    for seed in seeds:
        phantom = Phantom(preset, dose, seed, full=full)
        raw = phantom.ds["counts"].values
        found.setdefault("raw", []).append([np.nan, *phantom.errors(raw), np.nan])
        for name, cube in blurred(phantom):
            found.setdefault(name, []).append([np.nan, *phantom.errors(cube), np.nan])
        for name, ds, seconds in models(phantom):
            clock = Clock()
            rebuilt = reconstruct(ds) if "counts_denoised" not in ds else ds
            seconds += clock()
            kept = float(ds["component_keep"].sum())
            figures = phantom.errors(rebuilt["counts_denoised"].values)
            found.setdefault(name, []).append([kept, *figures, seconds])
    formats = ["{:.1f}", *["{:.3f}"] * (len(figures) - 1), "{:.2f}", "{:.1f}"]
    # Errors of strong ratios are small.
    formats[2:6] = ["{:.4f}", "{:.3f}", "{:.4f}", "{:.3f}"]
    rows = [
        [name, *(cell(value, form) for value, form in zip(np.mean(each, axis=0), formats))]
        for name, each in found.items()
    ]
    return markdown(["model", "kept", *columns(AIMS[preset]), "seconds"], rows)


def cell(value: float, form: str = "{:.3f}") -> str:
    """A figure, or a dash where there is none."""
    return form.format(value) if np.isfinite(value) else "-"


def phantoms(options: argparse.Namespace) -> None:
    """Tables of all presets and doses."""
    seeds = SEEDS[: options.seeds]
    for preset, doses in PHANTOM_DOSES.items():
        for dose in doses:
            print(f"\n### {preset}, {dose:g} counts per pixel, {len(seeds)} seeds\n")
            print(table_of(preset, dose, seeds, options.full), flush=True)


def defaults(options: argparse.Namespace) -> None:
    """What the command line makes of phantoms with its defaults, in this version and another."""
    versions = {"this": ROOT} | ({"before": options.against} if options.against else {})
    head = DEFAULTS_HEAD[: 3 + len(versions)]
    rows: list[list[str]] = []
    for preset, doses in PHANTOM_DOSES.items():
        for dose in doses:
            found: dict[str, list[list[float]]] = {name: [] for name in versions}
            for seed in SEEDS[: options.seeds]:
                phantom = Phantom(preset, dose, seed)
                with scratch(None) as folder:
                    save_dataset(phantom.ds[["counts"]], folder / "map.zarr")
                    for name, code in versions.items():
                        path = folder / f"{name}.zarr"
                        run_version(code, "denoise", folder / "map.zarr", "-o", path).checked()
                        with xr.open_zarr(path) as ds:
                            figures = phantom.errors(ds["counts_denoised"].values)
                            found[name].append([float(ds["component_keep"].sum()), *figures])
            table = [
                [preset, f"{dose:g}", name, *(cell(value, "{:.4f}") for value in values)]
                for name, *values in zip(
                    ["kept", *columns(AIMS[preset])],
                    *(np.mean(each, axis=0) for each in found.values()),
                )
                if np.isfinite(values[0])
            ]
            print(markdown(head, table), flush=True)
            rows += table
    show("phantoms", head, rows, options.csv)


# Real files -------------------------------------------------------------------------------------

# Lines of the main elements of each file, and other elements that windows keep clear of.
REAL = {
    "bruker_sem_dacite_122cpp.bcf": (("Si_Ka", "O_Ka", "Al_Ka", "Na_Ka", "K_Ka", "Ca_Ka"), ("Fe",)),
    "bruker_sem_dacite_22cpp.bcf": (("Si_Ka", "O_Ka", "Al_Ka", "Na_Ka", "K_Ka", "Ca_Ka"), ("Fe",)),
    "bruker_tem_dust_256x256.bcf": (("Si_Ka", "O_Ka", "Mg_Ka", "Fe_Ka", "Pt_La"), ("Ga", "Cu")),
    "jeol_tem_64x64.pts": (("O_Ka", "C_Ka", "Al_Ka", "Si_Ka"), ("Cu",)),
    "fept_core_shell.hspy": (("Fe_Ka", "Pt_La", "O_Ka", "C_Ka"), ("Cu", "Si")),
}
_ENERGY = (0.1, 13.0)
_REBINNED = 0.03  # keV: channels narrower than that are joined by four


def prepared(path: Path) -> xr.Dataset:
    """A real file as it would be denoised."""
    ds = read_cube(path)
    width = float(ds["energy"][1] - ds["energy"][0])
    rebin = 4 if width < _REBINNED / 2 else 1
    return prepare([ds], Prepare(energy=_ENERGY, rebin_energy=rebin)).compute()


def net_maps(
    cube: np.ndarray, ds: xr.Dataset, lines: tuple[str, ...], others: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Net counts of the lines, shape (y, x, line), and their Poisson variance if `cube` is raw."""
    specs = {name: LineSpec(1.0) for name in lines}
    weights = line_weights(ds[["counts"]], specs, elements=others).estimators
    return cube @ weights.T, cube @ (weights**2).T


def errors_without_noise(predicted: np.ndarray, held: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Mean square error of each line against held-out counts, less the noise of those."""
    return ((predicted - held) ** 2 - noise).mean(axis=(0, 1))


def real(options: argparse.Namespace) -> None:
    """Thinned files against their other counts, and the dacite at two doses."""
    rows = []
    for name, (lines, others) in REAL.items():
        ds = prepared(options.data / name)
        dose = float(ds["counts"].sum()) / ds.sizes["y"] / ds.sizes["x"]
        for fraction in (0.1, 1 / 3):
            part, rest = thin(ds, fraction=fraction, seed=0)
            held, noise = net_maps(rest["counts"].values, ds, lines, others)
            scale = (1 - fraction) / fraction
            row, _ = against(part, held, noise, scale, ds, lines, others)
            rows.append([name.rsplit(".", 1)[0], f"{dose * fraction:.1f}", *row])
    few, many = (prepared(options.data / f"bruker_sem_dacite_{n}cpp.bcf") for n in (22, 122))
    lines, others = REAL["bruker_sem_dacite_22cpp.bcf"]
    held, noise = net_maps(many["counts"].values, many, lines, others)
    raw, _ = net_maps(few["counts"].values, few, lines, others)
    scale = held.sum(axis=(0, 1)) / raw.sum(axis=(0, 1))
    row, _ = against(few, held, noise, scale, few, lines, others)
    dose = float(few["counts"].sum()) / few.sizes["y"] / few.sizes["x"]
    rows.append(["dacite 22 against dacite 122", f"{dose:.1f}", *row])
    head = ["file", "counts per pixel", "kept: PCA", "union", "median"]
    print("\n" + markdown([*head, "error with over without, by line"], rows))


def against(
    part: xr.Dataset,
    held: np.ndarray,
    noise: np.ndarray,
    scale: float | np.ndarray,
    ds: xr.Dataset,
    lines: tuple[str, ...],
    others: tuple[str, ...],
) -> tuple[list[str], list[np.ndarray]]:
    """Cells of one row; errors without and with neighbours and smoothing."""
    results = [denoise(part, recipe) for recipe in (PLAIN, WHOLE)]
    errors = []
    for result in results:
        found, _ = net_maps(result["counts_denoised"].values, ds, lines, others)
        errors.append(errors_without_noise(scale * found, held, noise))
    ratios = errors[1] / errors[0]
    kept = [str(int(result["component_keep"].sum())) for result in results]
    shown = ", ".join(f"{line.split('_')[0]} {ratio:.2f}" for line, ratio in zip(lines, ratios))
    middle = f"{np.median(ratios):.2f}"
    return [*kept, middle, shown], errors


# Rank -------------------------------------------------------------------------------------------


# Components kept to see what false ones cost.
_TOO_MANY = 20


def rank(options: argparse.Namespace) -> None:
    """Components that neighbours find on uniform specimens and presets; what too many cost."""
    spectrum = simulate("solar-cell", shape=(33, 50), channels=325, energy_width=0.04)
    film = spectrum["phase_spectrum"].sel(phase="MAPbI3 control").values.astype(float)
    rows = []
    for dose in (100, 300, 1000, 4000):
        found = []
        for seed in range(5):
            rng = np.random.default_rng([seed, dose])
            counts = rng.poisson(dose * film / film.sum(), (100, 120, film.size)).astype(np.uint16)
            found.append(found_rank(make_cube(counts, energy=spectrum["energy"].values)))
        rows.append([f"uniform, {dose} counts", "1", " ".join(map(str, found))])
    for preset in ("solar-cell", "layers-gradient", "mineral"):
        for dose in DOSES:
            phantom = Phantom(preset, dose, 0)
            true = f"{len(phantom.names)} phases"
            rows.append([f"{preset}, {dose:g} counts", true, str(found_rank(phantom.ds))])
    print("\n" + markdown(["specimen", "true", "found, by seed"], rows))
    rows = []
    for dose in DOSES:
        phantom = Phantom("solar-cell", dose, 0)
        both = neighbours(pca(weight(phantom.ds)))
        first = np.arange(both.sizes["component"]) < _TOO_MANY
        for chosen in (select(both), keeping(both, first)):
            figures = phantom.errors(reconstruct(shrink(chosen))["counts_denoised"].values)
            cells = [cell(value) for value in (figures[0], figures[1], figures[3], figures[5])]
            rows.append([f"{dose:g}", str(int(chosen["component_keep"].sum())), *cells])
    head = ["counts per pixel", "kept", "cube error", "N/Pb error", "I/Pb error", "grains kept"]
    print("\n" + markdown(head, rows))


def found_rank(ds: xr.Dataset) -> int:
    """Component 1 and those that exceed the sign-flip null."""
    found = neighbours(pca(weight(ds)), subspace="neighbour")["component_neighbour"]
    return 1 + int(found.sum())


# Small phases -----------------------------------------------------------------------------------

_PLACES = 24
# One pixel, and a cross of five.
_CROSS = ndimage.generate_binary_structure(2, 1)


def small(options: argparse.Namespace) -> None:
    """Phases of one pixel and of five in a film: what is found, and what is left of them.

    r is the largest correlation of a kept map beside the first with the places; "contrast" the
    part of the difference of the spectra that the rebuilt counts have there on average.
    """
    cell_ = simulate("solar-cell", shape=(33, 50), channels=325, energy_width=0.04)
    film, *others = (
        cell_["phase_spectrum"].sel(phase=name).values.astype(float)
        for name in ("MAPbI3 control", "PbI2", "Cu")
    )
    rows = []
    for name, other in zip(("PbI2", "Cu"), others):
        for pixels in (1, 5):
            for dose in DOSES:
                rng = np.random.default_rng([pixels, int(dose)])
                places = np.zeros((100, 120), bool)
                # On a grid, so that they do not touch.
                chosen = rng.choice(9 * 11, _PLACES, replace=False)
                places[10 + 9 * (chosen // 11), 10 + 10 * (chosen % 11)] = True
                if pixels == 5:
                    places = ndimage.binary_dilation(places, _CROSS)
                spectra = [dose * each / each.sum() for each in (film, other)]
                counts = rng.poisson(np.where(places[..., None], spectra[1], spectra[0]))
                ds = make_cube(counts.astype(np.uint16), energy=cell_["energy"].values)
                cells = [cell(value, "{:.2f}") for value in seen_of(ds, places, spectra)]
                rows.append([f"{name}, {pixels} pixel", f"{dose:g}", *cells])
    head = ["phase", "counts per pixel", "r: PCA", "neighbour", "union"]
    print("\n" + markdown([*head, "contrast: PCA", "union", "union, shrunk"], rows))


def seen_of(ds: xr.Dataset, places: np.ndarray, spectra: list[np.ndarray]) -> list[float]:
    """Three correlations and three contrasts of `small`."""
    plain = pca(weight(ds))
    near = neighbours(plain, subspace="neighbour")
    near = keeping(near, near["component_neighbour"].values)
    both = select(neighbours(plain))
    chosen = select(plain)
    correlations = []
    for each in (chosen, near, both):
        maps = each["component_map"].values[1:][each["component_keep"].values[1:] == 1]
        r = [abs(np.corrcoef(one.ravel(), places.ravel())[0, 1]) for one in maps]
        correlations.append(max(r, default=0.0))
    film, other = spectra
    weights = (other - film) / np.where(film > 0, film, np.inf)
    contrasts = []
    for each in (chosen, both, shrink(both)):
        rebuilt = reconstruct(each)["counts_denoised"].values
        difference = rebuilt[places].mean(axis=0) - rebuilt[~places].mean(axis=0)
        contrasts.append(float(difference @ weights / ((other - film) @ weights)))
    return [*correlations, *contrasts]


# Speed ------------------------------------------------------------------------------------------


def speed(options: argparse.Namespace) -> None:
    """Seconds of each stage on a solar cell of 330 x 500 x 650, best of three."""
    ds = simulate("solar-cell").compute()[["counts"]]
    found = []
    for _ in range(3):
        clock = Clock()
        plain = pca(weight(ds))
        seconds = [clock()]
        both = neighbours(plain)
        seconds.append(clock())
        chosen = select(both)
        seconds.append(clock())
        shrink(chosen)
        found.append([*seconds, clock()])
    stages = ["weights and PCA", "neighbours", "selection", "shrinkage"]
    best = np.min(found, axis=0)
    print("\n" + markdown(["stage", "seconds"], [[n, f"{s:.1f}"] for n, s in zip(stages, best)]))


# Figure -----------------------------------------------------------------------------------------


def figure(path: Path) -> None:
    """I/Pb of the solar cell at a tenth of 1000 counts: raw, PCA, this method, and the truth."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    phantom = Phantom("solar-cell", 1000.0, 0)
    part, _ = thin(phantom.ds, fraction=0.1, seed=0)
    pictures: dict[str, np.ndarray] = {
        "raw, 100 counts per pixel": part["counts"].values,
        "PCA by CNN": denoise(part, PLAIN)["counts_denoised"].values,
        "by neighbours, shrunk": denoise(part, WHOLE)["counts_denoised"].values,
        "PCA of all, 1000 counts": denoise(phantom.ds, PLAIN)["counts_denoised"].values,
        "truth": phantom.expected,
    }
    inside = phantom.share(FILM) > 0.5
    # Layers without lead say nothing here.
    rows = inside.mean(axis=1) > 0.05
    axes = plt.subplots(1, len(pictures), figsize=(15, 3.2), layout="constrained")[1]
    for axis, (title, cube) in zip(axes, pictures.items()):
        ratio = phantom.ratio(phantom.net(cube), *phantom.aim.ratios[-1])
        shown = np.where(inside, ratio, np.nan)[rows]
        image = axis.imshow(shown, vmin=2, vmax=3.3, cmap="viridis", interpolation="nearest")
        axis.set_title(title)
        axis.set_axis_off()
    plt.colorbar(image, ax=axes, label="I L$\\alpha$ / Pb L$\\alpha$", pad=0.01)
    plt.savefig(path, dpi=80)


_FUNCTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "phantoms": phantoms,
    "defaults": defaults,
    "real": real,
    "rank": rank,
    "small": small,
    "speed": speed,
}


def main() -> None:
    """Print the sections, and draw the figure where asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", nargs="*", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--full", action="store_true", help="phantoms of default size: 330x500x650")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="of the phantoms, at most 3")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the real files")
    parser.add_argument("--against", type=Path, help="folder of another version")
    parser.add_argument("--csv", action="store_true", help="write the table of defaults")
    parser.add_argument("--figure", type=Path, help="also draw the map at a tenth of the dose")
    options = parser.parse_args()
    # Doses are meant to be low.
    warnings.simplefilter("ignore")
    print(machine())
    with scheduler("threads"):
        for section in options.only:
            print(f"\n## {section}")
            start = time.perf_counter()
            _FUNCTIONS[section](options)
            print(f"\n{time.perf_counter() - start:.0f} s", flush=True)
        if options.figure:
            figure(options.figure)


if __name__ == "__main__":
    main()
