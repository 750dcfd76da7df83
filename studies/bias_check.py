"""How often the bias check finds a bias: where nothing was lost, and where a component was dropped.

    python studies/bias_check.py [--seeds 100] [--csv]

Phases are found with one half of the counts and tested with the other, as the report does. Three
z-scores of every phase and line: the check itself (raw minus denoised), raw sums against the
phantom's truth, and denoised sums against it, by the same standard deviation as raw ones. Beyond 3
are .27 % of normal deviates. ``kept`` are the components that the spatial statistic selects,
without averages over pixels; ``dropped`` are the same without component 2; ``default`` averages.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import xarray as xr
from _study import run

from edxdenoise import LineSpec, denoise, simulate
from edxdenoise.config import Denoise
from edxdenoise.quantification import bias_table, find_phases, line_intensity

LINES = {
    "solar-cell": ("C_Ka", "N_Ka", "In_La", "Sn_La", "I_La", "Pb_La"),
    "core-shell": ("C_Ka", "O_Ka", "Si_Ka", "Fe_Ka", "Pt_La", "Cu_Ka"),
}
CASES = (("solar-cell", 30.0), ("core-shell", 300.0))
SHAPE = (33, 50)
HEAD = ("phantom", "counts per pixel", "components", "z-score", "tests", "spread", "share > 3")


def models(ds: xr.Dataset, seed: int) -> dict[str, xr.Dataset]:
    """Return the phantom denoised in three ways."""
    plain = Denoise(select="spatial", subspace="pixel", shrink=False, seed=seed)
    kept = denoise(ds, plain)
    lost = kept.component_keep.where(kept.component != 2, 0).astype(np.int8)
    default = denoise(ds, Denoise(select="spatial", seed=seed))
    return {"kept": kept, "dropped": kept.assign(component_keep=lost), "default": default}


def z_scores(preset: str, dose: float, seed: int) -> dict[tuple[str, str], list[float]]:
    """z-scores by model and kind, one per phase and line."""
    ds = simulate(
        preset, shape=SHAPE, channels=325, energy_width=0.04, counts_per_pixel=dose, seed=seed
    ).compute()
    expected = ds.expected_counts.values.astype(float)
    lines = {name: LineSpec() for name in LINES[preset]}
    elements = tuple(ds.attrs["elements"])
    found = defaultdict(list)
    denoised = models(ds.drop_vars("expected_counts"), seed)
    # Those of the honest model show what the dropped component held.
    phases = find_phases(denoised["kept"], seed=seed)
    for model, each in denoised.items():
        quantified = line_intensity(each, lines, elements=elements)
        estimators = quantified.line_estimator.values
        table = bias_table(quantified, phases.masks, held_out=phases.held_out).set_index(
            ["region", "line"]
        )
        for region, mask in phases.masks.items():
            spectrum = expected[mask].sum(axis=0)
            rows = table.loc[region].loc[list(lines)]
            # Half of the counts, doubled: twice the variance of all.
            stddev = np.sqrt(2 * estimators**2 @ spectrum)
            found[model, "raw - denoised"] += rows.z.tolist()
            found[model, "raw - truth"] += ((rows.raw - estimators @ spectrum) / stddev).tolist()
            found[model, "denoised - truth"] += (
                (rows.denoised - estimators @ spectrum) / stddev
            ).tolist()
    return found


def study(seeds: int) -> list[list[str]]:
    """Rows of the table, one per phantom, model and kind of z-score."""
    rows = []
    for preset, dose in CASES:
        scores = defaultdict(list)
        for seed in range(seeds):
            for key, part in z_scores(preset, dose, seed).items():
                scores[key] += part
        for (model, kind), part in scores.items():
            z = np.array(part)
            numbers = [str(z.size), f"{z.std():.2f}", f"{(np.abs(z) > 3).mean():.2%}"]
            rows.append([preset, f"{dose:g}", model, kind, *numbers])
    return rows


if __name__ == "__main__":
    run(__file__, __doc__, HEAD, study, seeds=100)
