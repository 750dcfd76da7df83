"""Images that a phantom's microscope records with the counts: contrast of the specimen, or none."""

from __future__ import annotations

import numpy as np

from edxdenoise.simulation.geometry import grains, smooth_field
from edxdenoise.simulation.truth import composition_tables
from edxdenoise.xray.lines import atomic_number, atomic_weight

# Intensity of high-angle scattering goes with this power of the atomic number, between
# Rutherford's 2 and what screening leaves of it: S. J. Pennycook, Ultramicroscopy 30 (1989) 58.
_HAADF_POWER = 1.7
# Backscattered share of 20 keV electrons by atomic number, from the constant up: W. Reuter, Proc.
# 6th Int. Congr. X-ray Optics and Microanalysis (1972) 121.
_BACKSCATTERED = (-0.0254, 0.016, -1.86e-4, 8.3e-7)
# Noise over the standard deviation of the image, which has far more electrons than X-rays.
_NOISE = 0.03
# Where the darkest and the brightest pixel are in a detector's range of 16 bits.
_DARKEST, _BRIGHTEST = 6000.0, 60000.0


def specimen_image(names: list[str], maps: np.ndarray, kind: str) -> tuple[str, np.ndarray]:
    """Return name and signal of a detector that sees mass, thickness and atomic number.

    Parameters
    ----------
    names : list of str
        Of the phases.
    maps : array, shape (phase, y, x)
        Mass thickness of each phase in a foil, share of the mass in bulk.
    kind : str
        ``TEM`` for a high-angle dark field, ``SEM`` for backscattered electrons.

    Returns
    -------
    name : str
        ``HAADF`` or ``BSE``.
    signal : array, shape (y, x)
        In arbitrary units, free of noise.
    """
    elements, weight, _ = composition_tables(names)
    numbers = np.array([atomic_number(element) for element in elements], float)
    if kind == "TEM":
        masses = np.array([atomic_weight(element) for element in elements])
        name, strength = "HAADF", numbers**_HAADF_POWER / masses
    else:
        name, strength = "BSE", np.polynomial.polynomial.polyval(numbers, _BACKSCATTERED)
    return name, np.tensordot(weight @ strength, maps, axes=1)


def unrelated_image(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Return the signal of a detector whose contrast has nothing to do with the chemistry.

    It has grains with sharp edges and a slow change across the map, as the orientation of crystals
    and the bending of a foil give; shape (y, x).
    """
    size = max(min(shape) / 8, 3.0)
    labels, _ = grains(rng, shape, size)
    return rng.uniform(0, 1, labels.max() + 1)[labels] + 0.15 * smooth_field(rng, shape, size)


def recorded(signal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a signal, shape (y, x), with a little noise, as an array of uint16."""
    noisy = signal + _NOISE * signal.std() * rng.standard_normal(signal.shape)
    low, high = noisy.min(), noisy.max()
    scale = (_BRIGHTEST - _DARKEST) / (high - low if high > low else 1.0)
    return np.rint(_DARKEST + scale * (noisy - low)).astype(np.uint16)
