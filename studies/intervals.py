"""How often 95 % intervals of single pixels hold the truth, phase by phase.

    python studies/intervals.py [--seeds 2] [--counts-per-pixel 10 100 300 1000 4000] [--csv]

Phantoms are denoised by default and quantified with exact k-factors. The truth is what the same
estimator gives on the expected counts. Shares are of all pixels of a phase (90 % of their counts
and more), all elements or ratios and all seeds; percents and ratios that have no answer, since
nothing is detected there, are left out. Phases of fewer than 25 pixels in all seeds are too, and
doses with fewer than 50 answers.

*PCA from* tells from how many counts per pixel on principal components see a phase beside the
larger phase that it is most like: its share of the pixels times its squared distance, in standard
deviations of the noise, exceeds sqrt(channels / pixels) (J. Baik, G. Ben Arous and S. Peche, Ann.
Probab. 33 (2005) 1643).
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import xarray as xr
from _study import run

from edxdenoise import LineSpec, denoise, quantify, simulate
from edxdenoise.config import Denoise, Quantify
from edxdenoise.quantification import parse_ratio
from edxdenoise.quantification.composition import factor_arrays
from edxdenoise.simulation.truth import true_k_factors

# Lines and ratios by preset.
PHANTOMS = {
    "solar-cell": (
        ("C_Ka", "N_Ka", "O_Ka", "Cu_Ka", "In_La", "Sn_La", "I_La", "Pb_La"),
        ("N/Pb", "I/Pb"),
    ),
    "mineral": (
        ("O_Ka", "Na_Ka", "Mg_Ka", "Al_Ka", "Si_Ka", "P_Ka", "K_Ka", "Ca_Ka", "Ti_Ka", "Fe_Ka"),
        ("Na/Si", "Ca/Si"),
    ),
}
SHAPE = (60, 80)
COMPONENTS = 20
DOSES = (10.0, 100.0, 300.0, 1000.0, 4000.0)
# Share of a pixel's counts that makes it one of a phase; fewest pixels and answers of a figure.
_PURE, _FEWEST, _ANSWERS = 0.9, 25, 50
_STDDEVS = 1.96


def phantom(preset: str, dose: float, seed: int) -> xr.Dataset:
    """Return a small phantom with its truth."""
    return simulate(
        preset,
        shape=SHAPE,
        channels=200,
        energy_width=0.06,
        counts_per_pixel=dose,
        seed=seed,
    ).compute()


def pure_pixels(ds: xr.Dataset) -> dict[str, np.ndarray]:
    """Pixels of each phase, shape (y, x)."""
    amounts = ds["phase_map"].values * ds["phase_spectrum"].values.sum(axis=1)[:, None, None]
    total = np.maximum(amounts.sum(axis=0), 1e-9)
    return {str(n): each > _PURE * total for n, each in zip(ds["phase"].values, amounts)}


def seen_from(ds: xr.Dataset) -> dict[str, float]:
    """Counts per pixel from which principal components see each phase but the largest."""
    inside = pure_pixels(ds)
    spectra = dict(zip(inside, ds["phase_spectrum"].values))
    mean = ds["expected_counts"].values.mean(axis=(0, 1), dtype=float)
    known = mean > 0
    profile = {name: each[known] / each[known].sum() for name, each in spectra.items()}
    totals = ds["expected_counts"].values.sum(axis=-1, dtype=float)
    edge = np.sqrt(known.sum() / totals.size)
    result = {}
    for name, mask in inside.items():
        larger = [other for other in inside if inside[other].sum() > mask.sum()]
        if mask.any() and larger:
            steps = (profile[name] - profile[other] for other in larger)
            distance = min(float((step**2 * mean.sum() / mean[known]).sum()) for step in steps)
            signal = mask.mean() * distance * totals[mask].mean() / totals.mean()
            result[name] = edge / signal
    return result


def held(preset: str, dose: float, seed: int) -> dict[tuple[str, str], np.ndarray]:
    """Whether each interval holds the truth, by phase and kind of quantity, NaN without answer."""
    names, ratios = PHANTOMS[preset]
    ds = phantom(preset, dose, seed)
    lines = {name: LineSpec(k) for name, (k, _) in true_k_factors(ds, names).items()}
    found = quantify(
        denoise(ds.drop_vars("expected_counts"), Denoise(components=COMPONENTS, seed=seed)),
        lines,
        Quantify(ratios=ratios),
    )
    # The response of the detector is that measured, and so are the weights of the channels.
    rates = ds["expected_counts"].values.astype(float) @ found["line_estimator"].values.T
    factors, _ = factor_arrays(lines)[1]
    amounts = factors[:, np.newaxis, np.newaxis] * np.moveaxis(rates, -1, 0)
    pairs = [parse_ratio(text, list(found["element"].values)) for text in ratios]
    truth = {
        "atomic_percent": 100 * amounts / amounts.sum(axis=0),
        "ratio_map": np.stack([amounts[above] / amounts[below] for above, below in pairs]),
    }
    result = {}
    for kind, name in (("at%", "atomic_percent"), ("ratios", "ratio_map")):
        step = np.abs(found[name].values - truth[name])
        good = np.where(np.isfinite(step), step < _STDDEVS * found[f"{name}_stddev"].values, np.nan)
        for phase, inside in pure_pixels(ds).items():
            result[phase, kind] = good[:, inside]
    return result


def study(seeds: int, counts_per_pixel: list[float]) -> list[list[str]]:
    """Rows of the table, one per phase; columns by kind of quantity and dose."""
    rows = []
    for preset in PHANTOMS:
        cells: dict[tuple[str, str], list[str]] = defaultdict(list)
        pixels: dict[str, int] = {}
        for dose in counts_per_pixel:
            parts = defaultdict(list)
            for seed in range(seeds):
                for key, each in held(preset, dose, seed).items():
                    parts[key].append(each)
            for key, some in parts.items():
                both = np.concatenate(some, axis=1)
                pixels[key[0]] = both.shape[1]
                answers = both[np.isfinite(both)]
                share = f"{100 * answers.mean():.1f}" if answers.size >= _ANSWERS else "-"
                cells[key].append(share)
        seen = seen_from(phantom(preset, 1.0, 0))
        for phase, number in pixels.items():
            if number >= _FEWEST:
                least = f"{seen[phase]:.2g}" if phase in seen else "-"
                shares = [share for kind in ("at%", "ratios") for share in cells[phase, kind]]
                rows.append([f"{preset}: {phase}", str(number), least, *shares])
                print(*rows[-1], sep=", ", flush=True)
    return rows


HEAD = [
    "phase",
    "pixels",
    "PCA from",
    *(f"{kind}, {d:g}" for kind in ("at%", "ratios") for d in DOSES),
]

if __name__ == "__main__":
    run(
        __file__,
        __doc__,
        HEAD,
        study,
        seeds=2,
        options={"--counts-per-pixel": {"type": float, "nargs": "+", "default": list(DOSES)}},
    )
