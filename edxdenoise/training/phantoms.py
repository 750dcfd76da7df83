"""Random specimens to train on: other materials, faint additions, crops, detectors and artefacts.

A preset's phantom is taken apart into amounts and spectra of its phases, both are changed at
random, and Poisson counts are drawn again. Faint phases are added with a strength near the limit
where principal components begin to find them: with N pixels, E channels and T counts, a phase that
adds a_i f_j to the expected counts is found if

    T sum_ij (a_i f_j / (g_i h_j))^2 > sqrt(N E)

(the transition of Baik, Ben Arous and Peche, Ann. Probab. 33 (2005) 1643, for noise of variance
1/T, which Poisson weighting gives).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from edxdenoise.cube import make_cube
from edxdenoise.simulation import PHASE_MAP, PHASE_SPECTRUM, PRESETS, STRAY_PHASE, simulate
from edxdenoise.simulation.geometry import smooth_field, split_rows
from edxdenoise.simulation.spectrum import MATERIALS, Material, line_spectrum, material_spectra

_DOSES = (5.0, 20_000.0)
_SIDES = (32, 256)  # pixels of the longer side
_LARGE_SIDES = (256, 1024)
_CHANNELS = (100, 2000)
# What a phantom may cost: counts drawn, and products in its Gram matrix.
_MOST_COUNTS, _MOST_PRODUCTS = 2e7, 2e10
# Strength of faint phases over the limit of the module.
_FAINT = (0.7, 30.0)
_FAINT_ELEMENTS = ("F", "Na", "Mg", "Al", "P", "S", "Cl", "K", "Ti", "Cr", "Mn", "Ni", "Zn", "Zr")
_ARTEFACTS = ("none", "scaled", "flicker", "dead", "smoothed", "shifted")
_ARTEFACT_ODDS = (0.68, 0.06, 0.05, 0.05, 0.08, 0.08)
# Thin places, holes in them: share of the specimens that have some, and how little is there.
_THIN_ODDS, _THIN = 0.3, (0.002, 0.3)


@dataclass(frozen=True)
class Specimen:
    """Counts of a random specimen and the truth behind them.

    Parameters
    ----------
    preset : str
        What it was made from.
    amounts : array, shape (phase, y, x)
    spectra : array, shape (phase, energy)
        amounts times spectra are the expected counts.
    energy : array, shape (energy,)
        Channel centres in keV.
    areas : array of int, shape (y, x)
        Number of the stacked map that a pixel belongs to.
    weighting : str
        To be used with it.
    artefact : str
        What happened to the counts.
    """

    preset: str
    amounts: np.ndarray
    spectra: np.ndarray
    energy: np.ndarray
    areas: np.ndarray
    weighting: str
    artefact: str

    @property
    def dose(self) -> float:
        """Mean expected counts of a pixel."""
        per_unit = self.spectra.sum(axis=1, dtype=float)
        return float(per_unit @ self.amounts.mean(axis=(1, 2), dtype=float))


def random_specimen(preset: str, rng: np.random.Generator) -> Specimen:
    """A specimen that starts from `preset`; all else is drawn from `rng`."""
    specimen = _cut_out(preset, rng)
    amounts = specimen.amounts
    if specimen.artefact == "flicker":
        amounts = amounts * (1 + 0.1 * rng.standard_normal((amounts.shape[1], 1))).clip(0.5)
    if specimen.artefact == "dead":
        amounts = amounts * (rng.random(amounts.shape[1:]) > rng.uniform(0.001, 0.02))
    if rng.random() < _THIN_ODDS:
        amounts = amounts * thin_places(amounts.shape[1:], rng)
    dose = np.exp(rng.uniform(*np.log(_DOSES)))
    specimen = replace(specimen, amounts=amounts.astype(np.float32))
    specimen = replace(specimen, spectra=specimen.spectra * np.float32(dose / specimen.dose))
    for _ in range(rng.integers(1, 4)):
        specimen = _with_faint_phase(specimen, rng)
    return specimen


def measure(specimen: Specimen, rng: np.random.Generator) -> tuple[Specimen, xr.Dataset]:
    """Draw Poisson counts.

    Returns
    -------
    specimen : Specimen
        With the amounts that the counts now expect: smoothing counts smooths them too.
    ds : Dataset
        With ``counts``, in memory.
    """
    amounts = specimen.amounts
    drawn = np.empty((*amounts.shape[1:], specimen.energy.size), np.uint32)
    for row, of_row in enumerate(np.moveaxis(amounts, 1, 0)):
        drawn[row] = rng.poisson(of_row.T @ specimen.spectra)
    counts: np.ndarray = drawn.astype(np.min_scalar_type(int(drawn.max())))
    if specimen.artefact == "scaled":
        factor = np.float32(np.exp(rng.uniform(-2, 2)))
        counts, amounts = counts * factor, amounts * factor
    elif specimen.artefact == "smoothed":
        width = rng.uniform(0.4, 1.0)
        counts, amounts = _smoothed(counts, width, (0, 1)), _smoothed(amounts, width, (1, 2))
    elif specimen.artefact == "shifted":
        # Drift correction by half a pixel, with linear interpolation.
        counts = counts.astype(np.float32)
        for axis in range(rng.integers(1, 3)):
            counts = (counts + np.roll(counts, 1, axis=axis)) / 2
            amounts = (amounts + np.roll(amounts, 1, axis=axis + 1)) / 2
    return replace(specimen, amounts=amounts), make_cube(counts, energy=specimen.energy)


def random_pattern(areas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Where something faint may lie: grains, single pixels, a gradient, a line, an area, a cloud.

    Parameters
    ----------
    areas : array of int, shape (y, x)
    rng : numpy.random.Generator

    Returns
    -------
    array, shape (y, x)
        From 0 to 1.
    """
    shape = areas.shape
    y, x = np.mgrid[: shape[0], : shape[1]]
    kind = rng.choice(
        ["grains", "specks", "gradient", "line", "area", "cloud"],
        p=[0.25, 0.15, 0.15, 0.15, 0.2, 0.1],
    )
    if kind == "specks":
        pattern = np.zeros(areas.size)
        pattern[rng.integers(0, areas.size, rng.integers(3, 60))] = 1
        return pattern.reshape(shape)
    if kind == "grains":
        pattern = np.zeros(shape)
        for _ in range(rng.integers(1, 7)):
            radius = np.exp(rng.uniform(np.log(0.7), np.log(max(shape) / 20 + 1)))
            cy, cx = rng.uniform(0, 1, 2) * shape
            pattern = np.maximum(pattern, (np.hypot(y - cy, x - cx) <= radius))
            pattern[int(cy), int(cx)] = 1
        return pattern
    # Along a random direction, from 0 to 1 across the map.
    angle = rng.uniform(0, 2 * np.pi)
    along = np.cos(angle) * y + np.sin(angle) * x
    along = (along - along.min()) / np.ptp(along)
    if kind == "gradient":
        return along ** rng.uniform(0.5, 3)
    if kind == "line":
        bent = along + 0.03 * smooth_field(rng, shape, max(shape) / 8)
        width = rng.uniform(0.7, max(shape) / 20 + 1) / max(shape)
        return np.exp(-0.5 * ((bent - rng.uniform(0.1, 0.9)) / width) ** 2)
    if kind == "area":
        numbers = np.unique(areas)
        if len(numbers) > 1:
            some = rng.permutation(numbers)[: rng.integers(1, len(numbers))]
            return np.isin(areas, some).astype(float)
        return (along > rng.uniform(0.3, 0.7)).astype(float)
    field = smooth_field(rng, shape, np.exp(rng.uniform(np.log(1.5), np.log(max(shape) / 6))))
    return np.clip(field, 0, None) / max(field.max(), 1e-9)


def thin_places(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Relative thickness of a specimen that is thin or missing in places, shape (y, x)."""
    field = smooth_field(rng, shape, np.exp(rng.uniform(np.log(2), np.log(max(shape) / 4))))
    limit = np.quantile(field, rng.uniform(0.1, 0.7))
    return np.where(field > limit, 1, np.exp(rng.uniform(*np.log(_THIN))))


def _cut_out(preset: str, rng: np.random.Generator) -> Specimen:
    """Amounts and spectra of a preset, cut to a random part of the map and of the energies."""
    low, high = _LARGE_SIDES if rng.random() < 0.08 else _SIDES
    longest = np.exp(rng.uniform(np.log(low), np.log(high)))
    sides = longest * np.array([1, 1 if rng.random() < 0.4 else rng.uniform(0.35, 1)])
    shape = np.maximum(sides[rng.permutation(2)].round(), _SIDES[0]).astype(int)
    pixels = int(shape.prod())
    most = min(_MOST_COUNTS / pixels, np.sqrt(_MOST_PRODUCTS / pixels), _CHANNELS[1])
    # Few channels on a large map give the weak components that are still found.
    channels = int(np.exp(rng.uniform(np.log(_CHANNELS[0]), np.log(max(most, _CHANNELS[0] + 1)))))

    stacked = bool(PRESETS[preset].area_labels)
    part = rng.choice(["whole", "area", "window"], p=[0.5, 0.3, 0.2] if stacked else [0.6, 0, 0.4])
    whole = {"whole": shape, "area": shape * (4, 1), "window": np.ceil(shape * 1.6).astype(int)}
    share = rng.uniform(0.55, 1)
    ds = simulate(
        preset,
        shape=tuple(whole[part]),
        channels=round(channels / share),
        seed=int(rng.integers(2**31)),
    )
    top, left = (int(rng.integers(0, w - s + 1)) for w, s in zip(whole[part], shape))
    amounts, areas = ds[PHASE_MAP].values, np.ones(tuple(whole[part]), int)
    if stacked:
        areas *= split_rows(int(whole[part][0]), len(PRESETS[preset].area_labels))[:, None]
    if part == "area":
        top = int(rng.integers(4)) * int(shape[0])
    window = (slice(top, top + int(shape[0])), slice(left, left + int(shape[1])))
    first = int(rng.integers(0, ds.sizes["energy"] - channels + 1) * (rng.random() < 0.3))
    turns = int(rng.integers(4))
    names = [str(name) for name in ds["phase"].values]
    spectra = _vary(names, ds[PHASE_SPECTRUM].values, preset, ds["energy"].values, rng)
    return Specimen(
        preset=preset,
        amounts=np.rot90(amounts[:, window[0], window[1]], turns, axes=(1, 2)),
        spectra=spectra[:, first : first + channels],
        energy=ds["energy"].values[first : first + channels],
        areas=np.rot90(areas[window], turns),
        weighting="poisson" if rng.random() < 0.85 else "none",
        artefact=str(rng.choice(_ARTEFACTS, p=_ARTEFACT_ODDS)),
    )


def _vary(
    names: list[str],
    spectra: np.ndarray,
    preset: str,
    energy: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Other compositions of the same phases, seen by a detector of another response."""
    instrument = PRESETS[preset].instrument
    known = [MATERIALS[name] for name in names if name != STRAY_PHASE]
    before = material_spectra(known, instrument, energy)
    after = material_spectra([_another(material, rng) for material in known], instrument, energy)
    varied = spectra.astype(float)
    # All are on one scale: what the sum is multiplied with holds for every phase.
    varied[: len(known)] = after * (varied[: len(known)].sum() / before.sum())
    varied *= np.exp(0.25 * smooth_field(rng, energy.shape, energy.size / 8))
    # The detector is never quite silent: a channel without a single count has no weight.
    varied += 1e-5 * varied.mean(axis=1, keepdims=True)
    return varied.astype(np.float32)


def _another(material: Material, rng: np.random.Generator) -> Material:
    """A material of other composition, with an element replaced now and then."""
    atoms = {
        name: number * float(np.exp(0.2 * rng.standard_normal()))
        for name, number in material.atoms.items()
    }
    if rng.random() < 0.3:
        amount = atoms.pop(str(rng.choice(sorted(atoms))))
        new = str(rng.choice(_FAINT_ELEMENTS))
        atoms[new] = atoms.get(new, 0) + amount
    return Material(atoms, material.density)


def _with_faint_phase(specimen: Specimen, rng: np.random.Generator) -> Specimen:
    """One phase more, of a strength near what components can find."""
    totals = np.tensordot(specimen.spectra.sum(axis=1), specimen.amounts, axes=1).astype(float)
    h = np.sqrt(specimen.amounts.sum(axis=(1, 2), dtype=float) @ specimen.spectra + 1)
    extra = _faint_spectrum(specimen, rng)
    # Only what the other phases cannot mimic can be found.
    others = (specimen.spectra / h).T
    new = extra / h - others @ np.linalg.lstsq(others, extra / h, rcond=None)[0]
    pattern = random_pattern(specimen.areas, rng)
    energy = totals.sum() * (pattern**2 * totals).sum() * (new**2).sum()
    limit = np.sqrt(totals.size * h.size)
    wanted = limit * np.exp(rng.uniform(*np.log(_FAINT)))
    # Faint: never more than a third of a pixel's counts.
    share = min(np.sqrt(wanted / energy), 1 / 3) if energy > 0 else 0.0
    amount = (share * pattern * totals).astype(np.float32)
    return replace(
        specimen,
        amounts=np.concatenate([specimen.amounts, amount[None]]),
        spectra=np.concatenate([specimen.spectra, extra[None]]).astype(np.float32),
    )


def _faint_spectrum(specimen: Specimen, rng: np.random.Generator) -> np.ndarray:
    """Lines of an element or two, or a phase of slightly other composition; sums to one."""
    elements = rng.choice(_FAINT_ELEMENTS, size=rng.integers(1, 3), replace=False)
    lines = {str(element): float(rng.uniform(0.2, 1)) for element in elements}
    if rng.random() < 0.7:
        with np.errstate(invalid="ignore"):
            spectrum = line_spectrum(lines, PRESETS[specimen.preset].instrument, specimen.energy)
        # None where all lines lie outside the energies kept.
        if np.isfinite(spectrum).all():
            return spectrum
    spectrum = specimen.spectra[rng.integers(len(specimen.spectra))].astype(float)
    gain = smooth_field(rng, spectrum.shape, spectrum.size / 20)
    spectrum = spectrum * np.exp(0.4 * gain)
    return spectrum / spectrum.sum()


def _smoothed(array: np.ndarray, width: float, axes: tuple[int, int]) -> np.ndarray:
    from scipy import ndimage

    return ndimage.gaussian_filter(array.astype(np.float32), width, axes=axes)
