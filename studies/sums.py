"""Whether at% of whole maps and regions are as uncertain as stated, from raw and denoised counts.

    python studies/sums.py [--seeds 100] [--counts-per-pixel 30 1000] [--csv]

Phantoms are a small solar cell with other noise for every seed. k-factors are exact. A pull is
(estimate - truth) / standard deviation. That of counting has as its truth what the same estimator
gives on the expected counts, and the standard deviation of counting alone; that in full has the
phantom's composition, and all that is stated. Of n pulls, mean and standard deviation should be 0
and 1. Regions are the whole map, its areas, a rectangle, steps of a profile and the phases that the
counts themselves show. Elements are those whose expected net counts exceed five standard
deviations: nearer the limit of three, those that chance raised are the ones that are detected.
"""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache

import numpy as np
import xarray as xr
from _study import run

from edxdenoise import Denoise, LineSpec, Quantify, denoise, quantify, simulate
from edxdenoise.quantification import region_table
from edxdenoise.quantification.composition import factor_arrays, fractions
from edxdenoise.simulation.net_counts import true_k_factors

LINES = ("C_Ka", "N_Ka", "In_La", "Sn_La", "I_La", "Pb_La")
SHAPE = (32, 32)
SOURCES = ("counts", "denoised")
# Standard deviations of expected net counts.
_SURE = 5.0
HEAD = (
    *("source", "counts per pixel", "region", "pulls"),
    *("counting: mean", "counting: std", "in full: mean", "in full: std", "95 % interval"),
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
def exact_k_factors(dose: float) -> dict[str, LineSpec]:
    """k-factors that the phantom has; the noise does not change them."""
    return {n: LineSpec(k) for n, (k, _) in true_k_factors(phantom(dose, 0), LINES).items()}


def pulls_of(ds: xr.Dataset, dose: float, source: str, seed: int) -> dict[str, list[np.ndarray]]:
    """Pulls of at%, of counting alone and in full, by kind of region.

    One pair per region and element that is detected, as rows of arrays (element, 2).
    """
    lines = exact_k_factors(dose)
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
    quantified = quantify(made, lines, options)
    table = region_table(quantified)
    factors, none = factor_arrays(lines)[1]
    estimators = quantified.line_estimator.values
    expected = ds.expected_counts.values.astype(float)
    found = defaultdict(list)
    for region, mask in zip(quantified.region.values, quantified.region_mask.values == 1):
        spectrum = expected[mask].sum(axis=0)
        sums, variance = estimators @ spectrum, estimators**2 @ spectrum
        own = table[table.region == region]
        value = own.value.to_numpy()
        # At% are of the elements that are detected.
        detected = np.isfinite(value)
        present = np.where(detected, sums, 0)
        expectation = 100 * fractions(present, np.zeros((len(sums),) * 2), factors, none)[0]
        total = own.true[detected].sum()
        if total == 0:
            continue
        truth = 100 * own.true.to_numpy() / total
        # A phase is quantified by half of its counts.
        share = float(quantified.region_share.sel(region=region))
        sure = sums > _SURE * np.sqrt(variance / share)
        counting = (value - expectation) / own.stddev_counting.to_numpy()
        full = (value - truth) / own.stddev.to_numpy()
        found[own.kind.iloc[0]].append(np.stack([counting, full], axis=1)[sure & detected])
    return found


def study(seeds: int, counts_per_pixel: list[float]) -> list[list[str]]:
    """Rows of the table, one per source, dose and kind of region."""
    rows = []
    for source in SOURCES:
        for dose in counts_per_pixel:
            pulls = defaultdict(list)
            for seed in range(seeds):
                for kind, part in pulls_of(phantom(dose, seed), dose, source, seed).items():
                    pulls[kind] += part
            for kind, parts in pulls.items():
                z = np.concatenate(parts)
                if not z.size:
                    continue
                numbers = [
                    cell
                    for column in z.T
                    for cell in (f"{column.mean():+.2f}", f"{column.std():.2f}")
                ]
                covered = f"{(np.abs(z[:, 1]) < 1.96).mean():.3f}"
                rows.append([source, f"{dose:g}", kind, str(len(z)), *numbers, covered])
    return rows


if __name__ == "__main__":
    run(
        __file__,
        __doc__,
        HEAD,
        study,
        seeds=100,
        options={"--counts-per-pixel": {"type": float, "nargs": "+", "default": [30.0, 1000.0]}},
    )
