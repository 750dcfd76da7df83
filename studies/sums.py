"""Whether at% of whole maps and regions are as uncertain as stated, from raw and denoised counts.

    python studies/sums.py [--seeds 100] [--counts-per-pixel 30 1000] [--csv]

Phantoms are a small solar cell with other noise for every seed. A pull is (estimate - truth) /
standard deviation; of n pulls, mean and standard deviation should be 0 and 1. There are three
truths:

- counting: what the same estimator gives on the expected counts; the standard deviation is that of
  counting alone;
- net counts: what the phantom's net counts give with the same k-factors; the standard deviation is
  what is stated, of k-factors without errors;
- composition: that of the phantom. Absorption in the foil makes k-factors differ between phases:
  those of the phantom are means over its phases, and their scatter is stated as their error.

Regions are the whole map, its areas, a rectangle, steps of a profile and the phases that the counts
themselves show. Elements are those whose expected net counts exceed five standard deviations:
nearer the limit of three, those that chance raised are the ones that are detected.
"""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache

import numpy as np
import xarray as xr
from _study import run

from edxdenoise import LineSpec, denoise, quantify, simulate
from edxdenoise.config import Denoise, Quantify
from edxdenoise.quantification import region_table
from edxdenoise.quantification.composition import factor_arrays, fractions
from edxdenoise.simulation.truth import phase_line_counts, true_k_factors

LINES = ("C_Ka", "N_Ka", "In_La", "Sn_La", "I_La", "Pb_La")
SHAPE = (32, 32)
SOURCES = ("counts", "denoised")
# Standard deviations of expected net counts.
_SURE = 5.0
# Errors were chosen on phantoms below.
_FIRST_SEED = 1000
HEAD = (
    *("source", "counts per pixel", "region", "pulls"),
    *("counting: mean", "counting: std"),
    *("net counts: mean", "net counts: std", "net counts: 95 %"),
    *("composition: mean", "composition: std", "composition: 95 %"),
)


def phantom(counts_per_pixel: float, seed: int) -> xr.Dataset:
    """Return a solar cell of `SHAPE`, whole energy axis, 40 eV channels."""
    return simulate(
        "solar-cell",
        shape=SHAPE,
        channels=325,
        energy_width=0.04,
        counts_per_pixel=counts_per_pixel,
        seed=seed,
    ).compute()


@lru_cache
def k_factors(dose: float) -> dict[str, tuple[float, float]]:
    """k-factors that the phantom has, and their scatter over its phases; noise is no part of it."""
    return true_k_factors(phantom(dose, 0), LINES)


def pulls_of(ds: xr.Dataset, dose: float, source: str, seed: int) -> dict[str, list[np.ndarray]]:
    """Pulls of at%, against each truth, by kind of region.

    One row per region and element that is detected, as arrays (element, 3).
    """
    exact = {name: LineSpec(k) for name, (k, _) in k_factors(dose).items()}
    scatter = [s for _, s in k_factors(dose).values()]
    options = Quantify(
        intensities="fit",
        source=source,
        regions=("rectangle=5:25,8:28",),
        profiles=("2,3:2,28,3",),
    )
    made = ds.drop_vars("expected_counts")
    if source == "denoised":
        # Averages over pixels change neither the sums nor the phases.
        made = denoise(made, Denoise(select="spatial", shrink=False, seed=seed))
    quantified = quantify(made, exact, options)
    table = region_table(quantified)
    scattered = quantified.assign_coords(k_factor_stddev=("line", scatter))
    errors = region_table(scattered).stddev
    factors, none = factor_arrays(exact)[1]
    estimators = quantified.line_estimator.values
    expected = ds.expected_counts.values.astype(float)
    net = (ds.phase_map * phase_line_counts(ds, LINES)).sum("phase").transpose("y", "x", "line")
    found = defaultdict(list)
    for region, mask in zip(quantified.region.values, quantified.region_mask.values == 1):
        spectrum = expected[mask].sum(axis=0)
        sums, variance = estimators @ spectrum, estimators**2 @ spectrum
        own = table[table.region == region]
        value = own.value.to_numpy()
        # At% are of the elements that are detected.
        detected = np.isfinite(value)
        total = own.true[detected].sum()
        if total == 0:
            continue
        truths = [
            100 * fractions(np.where(detected, counts, 0), np.diag(none), factors, none)[0]
            for counts in (sums, net.values[mask].sum(axis=0))
        ] + [100 * own.true.to_numpy() / total]
        stddevs = own.stddev_counting, own.stddev, errors[own.index]
        # A phase is quantified by half of its counts.
        share = float(quantified.region_share.sel(region=region))
        sure = sums > _SURE * np.sqrt(variance / share)
        pulls = [(value - true) / error.to_numpy() for true, error in zip(truths, stddevs)]
        found[own.kind.iloc[0]].append(np.stack(pulls, axis=1)[sure & detected])
    return found


def study(seeds: int, counts_per_pixel: list[float]) -> list[list[str]]:
    """Rows of the table, one per source, dose and kind of region."""
    rows = []
    for source in SOURCES:
        for dose in counts_per_pixel:
            pulls = defaultdict(list)
            for seed in range(_FIRST_SEED, _FIRST_SEED + seeds):
                for kind, part in pulls_of(phantom(dose, seed), dose, source, seed).items():
                    pulls[kind] += part
            rows += [
                [source, f"{dose:g}", kind, *cells_of(np.concatenate(parts))]
                for kind, parts in pulls.items()
                if any(map(len, parts))
            ]
    return rows


def cells_of(pulls: np.ndarray) -> list[str]:
    """Number, means, standard deviations and coverage of pulls, shape (n, 3)."""
    cells = [str(len(pulls))]
    for number, column in enumerate(pulls.T):
        cells += [f"{column.mean():+.2f}", f"{column.std():.2f}"]
        if number:
            cells.append(f"{(np.abs(column) < 1.96).mean():.3f}")
    return cells


if __name__ == "__main__":
    run(
        __file__,
        __doc__,
        HEAD,
        study,
        seeds=100,
        options={"--counts-per-pixel": {"type": float, "nargs": "+", "default": [30.0, 1000.0]}},
    )
