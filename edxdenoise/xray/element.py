"""The spectrum of one element: all its lines as a detector shows them, without background."""

from __future__ import annotations

import numpy as np

from edxdenoise.errors import ParameterError
from edxdenoise.xray.detector import Detector, channel_response, efficiency
from edxdenoise.xray.lines import emission

DEFAULT_BEAM_ENERGY = 200.0


def element_spectrum(
    element: str,
    energy: np.ndarray,
    *,
    beam_energy: float | None = None,
    resolution: float = 130.0,
) -> np.ndarray:
    """Lines of an element in the ratios a thin specimen and a windowless detector give.

    Parameters
    ----------
    element : str
        Symbol.
    energy : array, shape (energy,)
        Centres of evenly spaced channels in keV.
    beam_energy : float, optional
        In keV; 200 where nobody says.
    resolution : float
        FWHM at Mn K alpha in eV.

    Returns
    -------
    array, shape (energy,)
        Adds up to 1.

    Raises
    ------
    ParameterError
        If there is no such element, or no line of it within the channels.

    Examples
    --------
    >>> energy = np.arange(0.1, 12, 0.02)
    >>> spectrum = element_spectrum("Cu", energy)
    >>> round(float(energy[spectrum.argmax()]), 2)
    8.04
    """
    beam = DEFAULT_BEAM_ENERGY if beam_energy is None else beam_energy
    half = (energy[1] - energy[0]) / 2
    lines = {
        line.energy: photons
        for line, photons in emission(element, beam).items()
        if energy[0] - half <= line.energy <= energy[-1] + half
    }
    if not lines:
        raise ParameterError(
            f"element '{element}' has no line between {energy[0]:.4g} and {energy[-1]:.4g} keV "
            f"that a beam of {beam:.4g} keV excites"
        )
    energies = np.array(list(lines))
    amounts = np.array(list(lines.values())) * efficiency(Detector(), energies)
    spectrum = amounts @ channel_response(energies, energy, resolution)
    return spectrum / spectrum.sum()
