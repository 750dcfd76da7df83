"""Whether quantification finds the truth of phantoms, and whether its errors are what it says.

    python benchmarks/recovery.py [--presets ...] [--counts-per-pixel ...] [--no-article]

Pulls are (estimate - truth) / standard deviation. Their truth is what the estimator gives on the
expected counts, so that they hold the statistics alone; the error of the method itself, against the
net counts that the lines of the phantom have, stands beside them.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr
from _measure import machine, markdown

from edxdenoise.components.pca import pca
from edxdenoise.components.selection import select
from edxdenoise.cube import make_cube
from edxdenoise.errors import EdxdenoiseWarning
from edxdenoise.pipeline import denoise, prepare
from edxdenoise.pipeline import quantify as quantify_recipe
from edxdenoise.preprocess import weight
from edxdenoise.quantification import LineSpec, cliff_lorimer, fractions, line_intensity
from edxdenoise.quantification.composition import factor_arrays
from edxdenoise.quantification.estimators import line_weights
from edxdenoise.quantification.region_table import region_table
from edxdenoise.quantification.regions import area_regions, sum_regions
from edxdenoise.recipe import Recipe
from edxdenoise.report.text import region_words
from edxdenoise.simulation import simulate
from edxdenoise.simulation.truth import (
    STRAY_PHASE,
    composition_tables,
    phase_line_counts,
    true_k_factors,
)
from edxdenoise.xray import channel_response
from edxdenoise.xray.families import families

LINES = {
    "solar-cell": ("C_Ka", "N_Ka", "In_La", "Sn_La", "I_La", "Pb_La"),
    "layers-gradient": ("N_Ka", "O_Ka", "Si_Ka", "Ti_Ka", "Ge_Ka", "Hf_La", "W_La"),
}
SHAPES = {"solar-cell": (132, 200), "layers-gradient": (128, 128)}
OVERLAPS = {("S_Ka", "Pb_Ma"): (200.0, 200.0), ("C_Ka", "N_Ka"): (10000.0, 100.0)}
ARTICLE = Path(__file__).parents[1] / "data" / "solar-cell.toml"
METHODS = ("windows-linear", "fit")
SOURCES = ("counts", "denoised")
# A line is there where its net counts are this many standard deviations.
_PRESENT = 3.0
# A pixel belongs to a phase that has this share of its mass.
_PURE = 0.98
# A phase is shown where the elements quantified are this share of its atoms.
_QUANTIFIED = 0.3


def phantom(preset: str, counts_per_pixel: float, shape: tuple[int, int]) -> xr.Dataset:
    """A phantom, denoised with what the split test keeps, and its truth."""
    ds = simulate(preset, shape=shape, counts_per_pixel=counts_per_pixel).compute()
    return select(pca(weight(ds)))


def specs(ds: xr.Dataset, names: Sequence[str]) -> dict[str, LineSpec]:
    """The lines with the k-factors that the phantom has."""
    factors = true_k_factors(ds, names)
    return {name: LineSpec(*factors[name]) for name in names}


def quantify(ds: xr.Dataset, lines: dict[str, LineSpec], method: str, source: str) -> xr.Dataset:
    """Intensities and composition; doubts about overlaps are what is measured here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EdxdenoiseWarning)
        return cliff_lorimer(line_intensity(ds, lines, intensities=method, source=source))


def linear(quantified: xr.Dataset) -> np.ndarray:
    """Net counts that are linear in the counts, shape (line, y, x)."""
    name = "line_intensity"
    return quantified.get(f"{name}_unbounded", quantified[name]).values.astype(float)


def expected_intensity(ds: xr.Dataset, lines: dict[str, LineSpec], method: str) -> np.ndarray:
    """What the estimator gives on the expected counts, shape (line, y, x)."""
    estimators = line_weights(ds, lines, intensities=method, elements=ds.attrs["elements"])
    return np.einsum("le,yxe->lyx", estimators.estimators, ds.expected_counts.values.astype(float))


def expected_variance(
    ds: xr.Dataset, lines: dict[str, LineSpec], method: str, factors: np.ndarray
) -> np.ndarray:
    """Variance of sum_l factor_l I_l with the expected counts, shape (y, x)."""
    weights = line_weights(ds, lines, intensities=method, elements=ds.attrs["elements"])
    return ds.expected_counts.values.astype(float) @ (factors @ weights.estimators) ** 2


def spread(pulls: np.ndarray) -> tuple[float, float, float]:
    """Mean, standard deviation and share within 1.96 of the finite pulls."""
    pulls = pulls[np.isfinite(pulls)]
    if not pulls.size:
        return np.nan, np.nan, np.nan
    return float(pulls.mean()), float(pulls.std()), float((np.abs(pulls) < 1.96).mean())


def intensity_rows(ds: xr.Dataset, names: Sequence[str]) -> list[dict[str, object]]:
    """Pulls of the net counts of every line by every method and source."""
    lines = specs(ds, names)
    net = np.einsum("pl,pyx->lyx", phase_line_counts(ds, names).values, ds.phase_map.values)
    rows = []
    for method in METHODS:
        truth = expected_intensity(ds, lines, method)
        for source in SOURCES:
            quantified = quantify(ds, lines, method, source)
            stddev = quantified.line_intensity_stddev.values
            pulls = (linear(quantified) - truth) / stddev
            bounded = (quantified.line_intensity.values - net) / stddev
            for i, name in enumerate(names):
                present = net[i] > _PRESENT * stddev[i]
                mean, std, coverage = spread(pulls[i])
                net_mean, net_std, _ = spread(bounded[i][present])
                rows.append(
                    {
                        "method": method,
                        "source": source,
                        "line": name,
                        "mean": mean,
                        "std": std,
                        "coverage": coverage,
                        "true": net[i].mean(),
                        "bias": truth[i].mean() - net[i].mean(),
                        "present": present.mean(),
                        "net_mean": net_mean,
                        "net_std": net_std,
                    }
                )
    return rows


def percent_rows(
    ds: xr.Dataset,
    names: Sequence[str],
    methods: Sequence[str] = METHODS,
    sources: Sequence[str] = SOURCES,
) -> list[dict[str, object]]:
    """Pulls of atomic percent; counting errors alone, against that of the expected counts.

    Of the pixels in which the elements quantified are present: where their expected sum is within
    its noise, as in the copper electrode, percents are noise over noise.

    A percent is a ratio, and its error the first order of that: where counts are few both depend on
    the same noise, and the mean pull is not 0. Fieller's pull, of I_l - f sum_m I_m with f the true
    fraction (k-factors are part of I), is linear in the counts and free of that.
    """
    lines = {name: LineSpec(spec.k_factor) for name, spec in specs(ds, names).items()}
    factors, none = factor_arrays(lines)[1]
    by_line = factors[:, np.newaxis, np.newaxis]
    rows = []
    for method in methods:
        expected = expected_intensity(ds, lines, method)
        zero = np.zeros((len(names), *expected.shape))
        truth = fractions(expected, zero, factors, none)[0]
        amounts = np.einsum("l,lyx->yx", factors, expected)
        noise = np.sqrt(expected_variance(ds, lines, method, factors))
        present = amounts > _PRESENT * noise
        for source in sources:
            quantified = quantify(ds, lines, method, source)
            pulls = (quantified.atomic_percent - 100 * truth) / quantified.atomic_percent_stddev
            covariance = quantified.line_intensity_covariance
            covariance = covariance.transpose("line", "line_other", "y", "x").values.astype(float)
            for i, name in enumerate(names):
                mean, std, coverage = spread(pulls.values[i][present])
                deviation = -truth[i] * by_line
                deviation[i] += factors[i]
                excess = (deviation * linear(quantified)).sum(axis=0)
                variance = np.einsum("lyx,lmyx,myx->yx", deviation, covariance, deviation)
                linear_mean, linear_std, _ = spread((excess / np.sqrt(variance))[present])
                rows.append(
                    {
                        "method": method,
                        "source": source,
                        "element": name.partition("_")[0],
                        "mean": mean,
                        "std": std,
                        "coverage": coverage,
                        "linear_mean": linear_mean,
                        "linear_std": linear_std,
                    }
                )
    return rows


def pure_regions(ds: xr.Dataset) -> dict[str, np.ndarray]:
    """Masks of the pixels that hold one phase."""
    amounts = ds.phase_map.where(ds.phase != STRAY_PHASE, 0)
    share = (amounts / amounts.sum("phase")).values
    masks = {str(name): part > _PURE for name, part in zip(ds.phase.values, share)}
    return {name: mask for name, mask in masks.items() if mask.sum() > 20}


def phase_rows(ds: xr.Dataset, names: Sequence[str]) -> list[dict[str, object]]:
    """At% of phases from their summed counts, against the truth, errors of k-factors included."""
    lines = specs(ds, names)
    elements = [name.partition("_")[0] for name in names]
    found, _, moles = composition_tables([str(name) for name in ds.phase.values])
    moles = moles[:, [found.index(element) for element in elements]]
    atoms = np.einsum("pe,pyx->eyx", moles, ds.phase_map.values)
    share = ds.true_atomic_percent.sel(element=elements).sum("element").values / 100
    regions = {
        name: mask for name, mask in pure_regions(ds).items() if share[mask].mean() > _QUANTIFIED
    }
    rows = []
    for method in METHODS:
        quantified = sum_regions(quantify(ds, lines, method, "counts"), regions)
        table = region_table(quantified).set_index(["region", "quantity"])
        for region, mask in regions.items():
            true = 100 * atoms[:, mask].sum(axis=1) / atoms[:, mask].sum()
            for i, element in enumerate(elements):
                row = table.loc[(region, f"{element} at%")]
                rows.append(
                    {
                        "method": method,
                        "region": region,
                        "element": element,
                        "true": true[i],
                        **row[["value", "stddev", "limit", "pixels"]],
                    }
                )
    return rows


def phase_cells(rows: list[dict[str, object]]) -> list[list[str]]:
    """Rows of `phase_rows` as printed."""
    return [
        [
            *(str(row[name]) for name in ("method", "region", "pixels", "element")),
            f"{row['true']:.2f}",
            region_words(row),
            f"{(row['value'] - row['true']) / row['stddev']:+.1f}",
        ]
        for row in rows
    ]


def article_rows(shape: tuple[int, int] | None = None) -> list[dict[str, object]]:
    """I/Pb and N/Pb of the article's recipe on its phantom, by phase and kind of cell."""
    recipe = Recipe.from_file(ARTICLE)
    phantom = simulate("solar-cell", shape=shape).compute()
    ratios = recipe.quantify.ratios
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EdxdenoiseWarning)
        ds = denoise(prepare([phantom], recipe.prepare), recipe.denoise)
        areas = area_regions(ds)
        phases = pure_regions(phantom)
        found, _, moles = composition_tables([str(name) for name in phantom.phase.values])
        atoms = np.einsum("pe,pyx->eyx", moles, phantom.phase_map.values)
        masks = {
            (phase, group): mask & np.any([areas[a] for a in areas if a.startswith(group)], axis=0)
            for phase, mask in phases.items()
            if phase.startswith(("PbI2", "MAPbI3"))
            for group in ("control", "treated")
        }
        masks = {key: mask for key, mask in masks.items() if mask.sum() > 20}
        regions = {f"{phase}, {group}": mask for (phase, group), mask in masks.items()}
        for method in METHODS:
            quantified = quantify_recipe(
                ds, recipe.lines, replace(recipe.quantify, intensities=method)
            )
            table = region_table(sum_regions(quantified, regions))
            values = table.set_index(["region", "quantity"])
            for region, mask in regions.items():
                row: dict[str, object] = {"method": method, "region": region, "pixels": mask.sum()}
                for text in ratios:
                    above, below = (
                        atoms[found.index(element)][mask].sum() for element in text.split("/")
                    )
                    own = values.loc[(region, text)]
                    row[f"{text} true"] = above / below
                    row[text] = (own["value"], own["stddev_counting"])
                rows.append(row)
    return rows


def overlap_cube(
    pair: tuple[str, str],
    counts: tuple[float, float],
    *,
    shape: tuple[int, int] = (40, 40),
    background: float = 10.0,
    seed: int = 0,
) -> tuple[xr.Dataset, np.ndarray]:
    """A cube of two overlapping lines on bremsstrahlung, and their net counts (line, y, x).

    The first falls along y from `counts` to none, the second along x.
    """
    energy = 0.01 + 0.02 * np.arange(650)
    elements = [name.partition("_")[0] for name in pair]
    found = families(elements, (0.15, 13.0), names=pair)
    shapes = np.array(
        [np.array(f.weights) @ channel_response(np.array(f.energies), energy) for f in found]
    )
    fall = np.meshgrid(*(np.linspace(1, 0, n) for n in shape), indexing="ij")
    net = np.array(counts)[:, np.newaxis, np.newaxis] * fall
    # Other families of the same elements, such as L beside M, follow their element.
    owners = [elements.index(family.element) for family in found]
    expected = np.einsum("lyx,le->yxe", net[owners], shapes)
    expected += background * 0.02 / np.maximum(energy, 0.2)
    drawn = np.random.default_rng(seed).poisson(expected)
    attrs = {"beam_energy": 200.0, "elements": elements}
    return make_cube(drawn, energy=energy, attrs=attrs), net


def overlap_rows(pair: tuple[str, str], counts: tuple[float, float]) -> list[dict[str, object]]:
    """Mean error of both lines and pulls, by windows and by the fit."""
    ds, net = overlap_cube(pair, counts)
    rows = []
    for method in METHODS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EdxdenoiseWarning)
            result = line_intensity(
                ds, {name: LineSpec() for name in pair}, intensities=method, source="counts"
            )
        error = linear(result) - net
        pulls = error / result.line_intensity_stddev.values
        for i, name in enumerate(pair):
            rows.append(
                {
                    "method": method,
                    "line": name,
                    "true": net[i].mean(),
                    "error": error[i].mean(),
                    "error_stddev": np.sqrt(
                        (result.line_intensity_stddev.values[i].astype(float) ** 2).sum()
                    )
                    / error[i].size,
                    "worst": np.abs(error[i].mean(axis=1 - i)).max(),
                    "std": spread(pulls[i])[1],
                    "coverage": spread(pulls[i])[2],
                }
            )
    return rows


def ranges(head: list[str], rows: list[dict[str, object]]) -> list[list[str]]:
    """Least and most over the lines of mean, spread and coverage, per method and source."""
    found = []
    for method in METHODS:
        for source in SOURCES:
            own = [row for row in rows if (row["method"], row["source"]) == (method, source)]
            cells = [
                f"{min(values):{form}} to {max(values):{form}}"
                for key, form in (("mean", "+.2f"), ("std", ".2f"), ("coverage", ".3f"))
                for values in [[row[key] for row in own]]
            ]
            found.append([*head, method, source, *cells])
    return found


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table under its title."""
    print(f"\n{title}\n\n{markdown(columns, rows)}")


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--presets", nargs="+", default=list(LINES), choices=list(LINES))
    parser.add_argument("--counts-per-pixel", type=float, nargs="+", default=[1000.0, 4000.0])
    parser.add_argument("--no-article", action="store_true", help="leave out the last table")
    options = parser.parse_args()
    print(machine())
    summary = []
    for preset in options.presets:
        for dose in options.counts_per_pixel:
            ds = phantom(preset, dose, SHAPES[preset])
            kept = ", ".join(map(str, np.flatnonzero(ds.component_keep.values) + 1))
            shape = " x ".join(map(str, ds.counts.shape[:2]))
            head = f"{preset}, {dose:g} counts per pixel, {shape} pixels, components kept: {kept}"
            net, percent = intensity_rows(ds, LINES[preset]), percent_rows(ds, LINES[preset])
            for what, rows in (("net counts", net), ("at%", percent)):
                summary += ranges([preset, f"{dose:g}", what], rows)
            show(
                f"{head}: net counts",
                [
                    *("method", "source", "line", "pull mean", "pull std", "95 % coverage"),
                    *("true mean", "method's error", "line there", "pull there", "its std"),
                ],
                [
                    [
                        *(row["method"], row["source"], row["line"]),
                        *(f"{row['mean']:+.3f}", f"{row['std']:.3f}", f"{row['coverage']:.3f}"),
                        *(f"{row['true']:.2f}", f"{row['bias']:+.2f}", f"{row['present']:.0%}"),
                        *(f"{row['net_mean']:+.2f}", f"{row['net_std']:.2f}"),
                    ]
                    for row in net
                ],
            )
            show(
                f"{head}: atomic percent of pixels",
                [
                    *("method", "source", "element", "pull mean", "pull std", "95 % coverage"),
                    *("Fieller's mean", "its std"),
                ],
                [
                    [
                        *(row["method"], row["source"], row["element"]),
                        *(f"{row['mean']:+.3f}", f"{row['std']:.3f}", f"{row['coverage']:.3f}"),
                        *(f"{row['linear_mean']:+.3f}", f"{row['linear_std']:.3f}"),
                    ]
                    for row in percent
                ],
            )
            show(
                f"{head}: atomic percent of phases, counts summed",
                ["method", "phase", "pixels", "element", "true at%", "at%", "z"],
                phase_cells(phase_rows(ds, LINES[preset])),
            )
    show(
        "all lines together: least and most",
        [
            *("phantom", "per pixel", "of", "method", "source"),
            *("pull mean", "pull std", "95 % coverage"),
        ],
        summary,
    )
    for pair, counts in OVERLAPS.items():
        show(
            f"{pair[0]} beside {pair[1]}, up to {counts[0]:g} and {counts[1]:g} net counts, raw",
            [
                "method",
                "line",
                "true mean",
                "mean error",
                "worst row or column",
                "pull std",
                "95 %",
            ],
            [
                [
                    *(row["method"], row["line"], f"{row['true']:.1f}"),
                    f"{row['error']:+.2f} ± {row['error_stddev']:.2f}",
                    *(f"{row['worst']:.1f}", f"{row['std']:.2f}", f"{row['coverage']:.3f}"),
                ]
                for row in overlap_rows(pair, counts)
            ],
        )
    if not options.no_article:
        rows = article_rows()
        ratios = Recipe.from_file(ARTICLE).quantify.ratios
        show(
            "the article's recipe on its phantom, ratios of summed counts, counting errors",
            [*("method", "region", "pixels"), *(c for r in ratios for c in (f"{r} true", r))],
            [
                [
                    *(row["method"], row["region"], str(row["pixels"])),
                    *(
                        cell
                        for r in ratios
                        for cell in (f"{row[f'{r} true']:.2f}", "{:.3f} ± {:.3f}".format(*row[r]))
                    ),
                ]
                for row in rows
            ],
        )


if __name__ == "__main__":
    main()
