"""Components that phantoms make too rarely, built from those they make; labels stay those of truth.

Weak positives
    The score map of a noise component plus a faint map: scaled so that the correlation with the
    truth comes near a wanted one, mostly .15 to .3. Principal components themselves begin with a
    correlation of (E/N)^(1/4) or so, E channels and N pixels, and hardly ever show less.
Hard negatives
    Scores on loadings that live where one phase has its lines, but are orthogonal to the spectra
    of all phases: noise of the counts themselves, uneven as that phase lies, without any signal.
    Half of them get a little of the mean, below r = .05, as principal components do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.components.pca import project_block
from edxdenoise.components.score_noise import ScoreNoise, score_noise
from edxdenoise.training.labels import (
    NOISE_BELOW,
    SIGNAL_ABOVE,
    correlation,
    true_correlation,
    true_scores,
)
from edxdenoise.training.phantoms import Specimen, random_pattern

REAL, WEAK, HARD = 0, 1, 2
_WEAK, _HARD = 5, 4  # per phantom
# Share of the weak ones below and above what is called weak, for a smooth transition.
_WANTED = ((0.08, SIGNAL_ABOVE), (SIGNAL_ABOVE, 0.3), (0.3, 0.5))
_WANTED_ODDS = (0.15, 0.7, 0.15)
_LEAK = 0.9 * NOISE_BELOW


@dataclass(frozen=True)
class Components:
    """Score maps with what is known of them; the made ones come first, principal ones after.

    Parameters
    ----------
    ds : Dataset
        With their maps and loadings.
    noise : ScoreNoise
        Of the same maps.
    r : array, shape (component,)
        Correlation with the truth.
    origin : array of int, shape (component,)
        `REAL`, `WEAK` or `HARD`.
    """

    ds: xr.Dataset
    noise: ScoreNoise
    r: np.ndarray
    origin: np.ndarray


def enriched(ds: xr.Dataset, specimen: Specimen, rng: np.random.Generator) -> Components:
    """Principal components of a specimen, and weak and hard ones made from them.

    Parameters
    ----------
    ds : Dataset
        Counts, weights and components, in memory.
    specimen : Specimen
        The truth behind the counts.
    rng : numpy.random.Generator
    """
    maps, loadings = ds[v.COMPONENT_MAP].values, ds[v.COMPONENT_SPECTRUM].values
    h = ds[v.WEIGHT_ENERGY].values
    truth = (h, specimen.amounts, specimen.spectra)
    r = true_correlation(maps, loadings, *truth)
    weak_maps, weak_r, bases = _weak(maps, loadings, r, ds, specimen, rng)
    hard = _hard_loadings(ds, specimen, rng)
    hard_maps = project_block(ds[v.COUNTS].values, ds[v.WEIGHT_PIXEL].values, hard / h)
    # Where noise lies in a few pixels it can resemble anything by chance; it is independent of the
    # truth, so that the share of the truth in its spread bounds what is no chance.
    share = true_scores(hard, *truth).std(axis=(1, 2)) / hard_maps.std(axis=(1, 2))
    hard_r = np.minimum(true_correlation(hard_maps, hard, *truth), share)

    made_maps = np.concatenate([weak_maps, hard_maps])
    made_loadings = np.concatenate([loadings[bases], hard])
    known = score_noise(ds)
    # Principal components come first where they model the counts. In the result they come last:
    # the later half of the components tells whether noise is correlated.
    extended = score_noise(
        _with_components(ds, np.concatenate([maps, made_maps]), [loadings, made_loadings])
    )
    order = np.roll(np.arange(len(extended.maps)), len(made_maps))
    noise = replace(
        extended,
        maps=extended.maps[order],
        transfer=extended.transfer[:, order],
        scale=known.scale,
    )
    origin = np.repeat([WEAK, HARD, REAL], [_WEAK, _HARD, len(maps)])
    return Components(
        _with_components(ds, noise.maps, [made_loadings, loadings]),
        noise,
        np.concatenate([weak_r, hard_r, r]),
        origin,
    )


def _with_components(ds: xr.Dataset, maps: np.ndarray, loadings: list[np.ndarray]) -> xr.Dataset:
    bare = ds.drop_dims(v.DIM_COMPONENT)
    return bare.assign(
        {
            v.COMPONENT_MAP: v.COMPONENT_MAP.array(maps),
            v.COMPONENT_SPECTRUM: v.COMPONENT_SPECTRUM.array(np.concatenate(loadings)),
        }
    )


def _weak(
    maps: np.ndarray,
    loadings: np.ndarray,
    r: np.ndarray,
    ds: xr.Dataset,
    specimen: Specimen,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maps, their correlation with the truth, and the components they were made from."""
    noise = np.flatnonzero(r < NOISE_BELOW)
    # Of the least signal where none is noise.
    bases = rng.choice(noise if len(noise) else np.argsort(r)[:_WEAK], size=_WEAK)
    h = ds[v.WEIGHT_ENERGY].values
    before = true_scores(loadings[bases], h, specimen.amounts, specimen.spectra)
    total = np.tensordot(specimen.spectra.sum(axis=1), specimen.amounts, axes=1).astype(float)
    level = total if (h == 1).all() else np.sqrt(total)
    made, correlations = [], []
    for base, old in zip(bases, before):
        if rng.random() < 0.4:
            # As a phase lies that is there.
            phase = rng.integers(len(specimen.spectra))
            share = specimen.amounts[phase] * specimen.spectra[phase].sum()
            pattern = share / np.where(total > 0, total, np.inf)
        else:
            pattern = random_pattern(specimen.areas, rng)
        faint = pattern * level
        # What goes with the total is in component 1, to which all others are orthogonal.
        faint -= (faint * level).sum() / (level**2).sum() * level
        low, high = _WANTED[rng.choice(len(_WANTED), p=_WANTED_ODDS)]
        wanted = rng.uniform(low, high)
        spread = faint.std()
        factor = rng.choice([-1, 1]) * maps[base].std() * wanted / np.sqrt(1 - wanted**2)
        faint *= factor / spread if spread > 1e-9 * level.std() else 0
        made.append(maps[base] + faint)
        correlations.append(correlation(made[-1], old + faint))
    return np.array(made, np.float32), np.array(correlations), bases


def _hard_loadings(ds: xr.Dataset, specimen: Specimen, rng: np.random.Generator) -> np.ndarray:
    h = ds[v.WEIGHT_ENERGY].values.astype(float)
    first = ds[v.COMPONENT_SPECTRUM].values[0]
    phases = specimen.spectra / h
    made = []
    for number in range(_HARD):
        focus = specimen.spectra[rng.integers(len(phases))] / h**2
        loading = _confined_noise(phases, (focus / focus.max()) ** rng.uniform(0.5, 2), rng)
        if number % 2:
            leak = rng.standard_normal(len(phases)) @ phases
            leak -= (leak @ first) * first
            leak *= _leak_factor(leak, loading, h, ds, specimen) * rng.uniform(0, _LEAK)
            loading = loading + leak
        made.append(loading)
    return np.array(made)


def _confined_noise(phases: np.ndarray, where: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random loading of length 1, large where `where` is, orthogonal to all `phases`."""
    # In too few channels there is no room beside the phases: widen.
    needed = min(2 * len(phases), where.size / 2)
    while (where**2).sum() ** 2 / (where**4).sum() < needed:
        where = (where + 0.05) / 1.05
    # Orthogonal after it was confined: p = w x with x orthogonal to every w s.
    basis = np.linalg.svd(phases * where, full_matrices=False)[2]
    x = rng.standard_normal(where.size)
    loading = where * (x - (x @ basis.T) @ basis)
    return loading / np.linalg.norm(loading)


def _leak_factor(
    leak: np.ndarray, loading: np.ndarray, h: np.ndarray, ds: xr.Dataset, specimen: Specimen
) -> float:
    """Return the factor that gives `leak` the spread of the noise of `loading`."""
    seen = project_block(ds[v.COUNTS].values, ds[v.WEIGHT_PIXEL].values, loading[np.newaxis] / h)
    signal = true_scores(leak[np.newaxis], h, specimen.amounts, specimen.spectra)
    spread = signal.std()
    return float(seen.std() / spread) if spread > 0 else 0.0
