"""Whether at% of whole maps and regions are as uncertain as stated, from raw and denoised counts.

    python studies/sums.py [--seeds 100] [--counts-per-pixel 30 1000] [--csv]

Phantoms are a small solar cell with other noise for every seed. A pull is (estimate - truth) /
stated standard deviation; the truth is what the same estimator gives on the expected counts, and
k-factors are exact. Regions are the whole map, its areas, a rectangle, steps of a profile and the
phases that the counts themselves show. Elements are those whose expected net counts exceed five
standard deviations: nearer the limit of three, those that chance raised are the ones that are
detected. Of n pulls, mean and standard deviation should be 0 and 1.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import xarray as xr
from _study import run

from edxdenoise import Denoise, LineSpec, Quantify, denoise, quantify, simulate
from edxdenoise.quantification import region_table
from edxdenoise.quantification.composition import factor_arrays, fractions
from edxdenoise.simulation.net_counts import true_k_factors

LINES = ("C_Ka", "N_Ka", "In_La", "Sn_La", "I_La", "Pb_La")
SHAPE = (34, 50)
# Standard deviations of expected net counts.
_SURE = 5.0
HEAD = ("source", "counts per pixel", "region", "pulls", "mean", "standard deviation", "within 2")


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


def pulls_of(ds: xr.Dataset, source: str, seed: int) -> dict[str, list[float]]:
    """Pulls of at% by kind of region, one per region and element that is detected."""
    lines = {name: LineSpec(k) for name, (k, _) in true_k_factors(ds, LINES).items()}
    options = Quantify(
        intensities="fit",
        source=source,
        regions=("rectangle=5:25,10:40",),
        profiles=("2,5:2,44,3",),
    )
    made = ds.drop_vars("expected_counts")
    if source == "denoised":
        made = denoise(made, Denoise(select="spatial", seed=seed))
    quantified = quantify(made, lines, options)
    table = region_table(quantified, lines)
    factors, none = factor_arrays(lines, "weight")[1]
    estimators = quantified.line_estimator.values
    expected = ds.expected_counts.values.astype(float)
    found = defaultdict(list)
    for region, mask in zip(quantified.region.values, quantified.region_mask.values == 1):
        spectrum = expected[mask].sum(axis=0)
        sums, variance = estimators @ spectrum, estimators**2 @ spectrum
        own = table[table.region == region]
        detected = own.value.notna().to_numpy()
        # At% are of the elements that are detected.
        present = np.where(detected, sums, 0)
        truth = 100 * fractions(present, np.zeros((len(sums),) * 2), factors, none)[0]
        # A phase is quantified by half of its counts.
        share = float(quantified.region_share.sel(region=region))
        sure = sums > _SURE * np.sqrt(variance / share)
        pulls = (own.value.to_numpy() - truth) / own.stddev.to_numpy()
        found[own.kind.iloc[0]] += pulls[sure & detected].tolist()
    return found


def study(seeds: int, counts_per_pixel: list[float]) -> list[list[str]]:
    """Rows of the table, one per source, dose and kind of region."""
    rows = []
    for source in ("counts", "denoised"):
        for dose in counts_per_pixel:
            pulls = defaultdict(list)
            for seed in range(seeds):
                for kind, part in pulls_of(phantom(dose, seed), source, seed).items():
                    pulls[kind] += part
            for kind, part in pulls.items():
                if not part:
                    continue
                z = np.array(part)
                numbers = [f"{z.mean():+.2f}", f"{z.std():.2f}", f"{(np.abs(z) < 2).mean():.3f}"]
                rows.append([source, f"{dose:g}", kind, str(z.size), *numbers])
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
