"""Whether the held-out error of a denoised map is what its error is.

    python studies/held_out.py [--seeds 20] [--csv]

Every seed is another phantom: four specimens, in turn, at 20 to 2000 counts per pixel. The true
ratio is the squared error of what `denoise` makes of all counts, from the expected counts, over
that of raw counts. The estimate knows neither the truth nor these fits: three quarters of the
counts are fitted, and judged by the last one. Seeds below 100 served to choose that share.
"""

from __future__ import annotations

import numpy as np
from _study import run

from edxdenoise import denoise, simulate
from edxdenoise.config import Denoise
from edxdenoise.validation.holdout import held_out_error, scale_of

HEAD = ("phantom", "counts per pixel", "true ratio", "held-out", "stddev", "off by, stddev")
PRESETS = ("solar-cell", "core-shell", "mineral", "layers-gradient")
DOSES = (20.0, 60.0, 200.0, 600.0, 2000.0)
SHAPE = (40, 50)


def row(seed: int) -> list[str]:
    """One phantom."""
    preset, dose = PRESETS[seed % len(PRESETS)], DOSES[seed % len(DOSES)]
    ds = simulate(
        preset, shape=SHAPE, channels=160, energy_width=0.08, counts_per_pixel=dose, seed=seed
    ).compute()
    expected = ds["expected_counts"].values.astype(float)
    ds, recipe = ds.drop_vars("expected_counts"), Denoise(components=30, seed=seed)
    scale = scale_of(ds)
    weights = 1 / (scale.pixel[..., np.newaxis] * scale.energy)
    error = denoise(ds, recipe)["counts_denoised"].values - expected
    true = float(np.mean(weights * error**2))
    estimate, stddev = held_out_error(ds, recipe).error.values
    off = (estimate - true) / stddev
    return [preset, f"{dose:g}", f"{true:.4f}", f"{estimate:.4f}", f"{stddev:.4f}", f"{off:+.1f}"]


def study(seeds: int) -> list[list[str]]:
    """Rows of the table, one per phantom."""
    return [row(seed) for seed in range(100, 100 + seeds)]


if __name__ == "__main__":
    run(__file__, __doc__, HEAD, study, seeds=20)
