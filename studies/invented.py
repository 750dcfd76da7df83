"""Whether at% maps of a smooth specimen show what is not there.

    python studies/invented.py [--seeds 30] [--counts-per-pixel 5 50 500] [--csv]

The specimen is a film whose share of a second phase grows from 0 to 30 % across the map. Errors of
the components are common to all pixels and move whole maps: what a parabola of the true share
explains is no structure, and is taken off. The truth is what the same estimator gives on the
expected counts; k-factors are exact. Seeds count that have a pixel beyond 5 stated standard
deviations. A normal deviate is in 1 of 190 maps of 3072 pixels and 3 elements.
"""

from __future__ import annotations

import numpy as np
from _study import run

from edxdenoise import LineSpec, denoise, make_cube, quantify, simulate
from edxdenoise.config import Denoise, Quantify
from edxdenoise.quantification.composition import factor_arrays, fractions
from edxdenoise.simulation.truth import true_k_factors

LINES = ("N_Ka", "I_La", "Pb_La")
SHAPE = (48, 64)
SIGMAS = 5.0
COMPONENTS = 30
HEAD = (
    *("counts per pixel", "seeds", "beyond 5 standard deviations", "largest pull"),
    *("error, at%", "stated, at%"),
)


def without_parabola(maps: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Maps less the parabola of `share` that is nearest to each, shape (element, y, x).

    Examples
    --------
    >>> share = np.linspace(0, 1, 6).reshape(2, 3)
    >>> bool(np.abs(without_parabola(np.stack([share**2]), share)).max() < 1e-12)
    True
    """
    powers = np.stack([share.ravel() ** n for n in range(3)], axis=1)
    flat = maps.reshape(len(maps), -1).T
    fitted = powers @ np.linalg.lstsq(powers, flat, rcond=None)[0]
    return (flat - fitted).T.reshape(maps.shape)


def study(seeds: int, counts_per_pixel: list[float]) -> list[list[str]]:
    """Rows of the table, one per dose."""
    cell = simulate("solar-cell", shape=(33, 50), channels=325, energy_width=0.04).compute()
    spectra = cell["phase_spectrum"].sel(phase=["MAPbI3 control", "PbI2"]).values.astype(float)
    spectra /= spectra.sum(axis=1, keepdims=True)
    share = np.linspace(0, 0.3, SHAPE[1]) * np.ones((SHAPE[0], 1))
    rates = np.stack([1 - share, share], axis=-1) @ spectra
    energy = cell["energy"].values
    lines = {name: LineSpec(k) for name, (k, _) in true_k_factors(cell, LINES).items()}
    factors, none = factor_arrays(lines)[1]
    rows = []
    for dose in counts_per_pixel:
        largest, errors = [], []
        for seed in range(seeds):
            rng = np.random.default_rng([seed, int(dose)])
            ds = make_cube(rng.poisson(dose * rates).astype(np.uint16), energy=energy)
            found = quantify(denoise(ds, Denoise(components=COMPONENTS)), lines, Quantify())
            net = np.moveaxis(dose * rates @ found["line_estimator"].values.T, -1, 0)
            truth = 100 * fractions(net, np.zeros((len(lines), *net.shape)), factors, none)[0]
            known = np.isfinite(found["atomic_percent"].values)
            step = np.where(known, found["atomic_percent"].values - truth, 0)
            stated = np.where(known, found["atomic_percent_stddev"].values, np.inf)
            step = without_parabola(step, share)
            largest.append(float((np.abs(step) / stated).max()))
            errors.append([np.sqrt(np.mean(each[known] ** 2)) for each in (step, stated)])
        beyond = sum(pull > SIGMAS for pull in largest)
        typical = [f"{value:.2f}" for value in np.median(errors, axis=0)]
        rows.append([f"{dose:g}", str(seeds), str(beyond), f"{max(largest):.1f}", *typical])
        print(*rows[-1], sep=", ", flush=True)
    return rows


if __name__ == "__main__":
    run(
        __file__,
        __doc__,
        HEAD,
        study,
        seeds=30,
        options={
            "--counts-per-pixel": {"type": float, "nargs": "+", "default": [5.0, 50.0, 500.0]}
        },
    )
