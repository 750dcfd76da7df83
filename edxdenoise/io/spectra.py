"""Read single spectra to be held or started from: of reference files, results and phantoms."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edxdenoise.errors import FormatError
from edxdenoise.io.guard import guarded
from edxdenoise.io.metadata import energy_values
from edxdenoise.io.own import open_dataset
from edxdenoise.io.signals import OWN_SUFFIXES, check_file, energy_position, open_file
from edxdenoise.schema import COMPONENT_SPECTRUM, DIM_ENERGY, WEIGHT_ENERGY
from edxdenoise.simulation.truth import PHASE_SPECTRUM


def read_spectra(path: str | Path, energy: np.ndarray) -> np.ndarray:
    """Spectra of a file in the channels of a map.

    Parameters
    ----------
    path : path
        A spectrum in any format RosettaSciIO reads, such as .msa; or a .zarr or .nc of ours: the
        spectra of its components, else those of the phases of a phantom.
    energy : array, shape (energy,)
        Centres of the evenly spaced channels wanted, in keV.

    Returns
    -------
    array, shape (n, energy)
        In counts.

    Raises
    ------
    FormatError
        If the file holds no spectrum, one with negative counts, or one that ends before the map
        does.
    """
    path = check_file(path)
    if path.suffix.lower() in OWN_SUFFIXES:
        own, spectra = _of_dataset(path)
    else:
        own, spectra = guarded(path, lambda: _of_signal(path))
    if (spectra < 0).any():
        raise FormatError(
            f"'{path}' holds spectra that are negative in part, as principal components are; name "
            "a measured or simulated spectrum, or a result of nmf"
        )
    width, own_width = energy[1] - energy[0], own[1] - own[0]
    low, high = own[0] - own_width / 2, own[-1] + own_width / 2
    # Half a channel may be missing at either end.
    if low > energy[0] or high < energy[-1]:
        raise FormatError(
            f"'{path}' covers {low:.4g} to {high:.4g} keV, must cover {energy[0]:.4g} to "
            f"{energy[-1]:.4g} keV as the map does; crop the map with --energy"
        )
    edges = np.append(energy - width / 2, energy[-1] + width / 2)
    return resampled(np.append(own - own_width / 2, high), spectra, edges)


def resampled(edges: np.ndarray, spectra: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Counts between the edges wanted, spread evenly within each channel that is cut.

    Parameters
    ----------
    edges, wanted : array, shape (n + 1,) and (m + 1,)
        Rising.
    spectra : array, shape (..., n)

    Examples
    --------
    >>> resampled(np.array([0.0, 1, 2]), np.array([[4.0, 6]]), np.array([0.5, 1, 2]))
    array([[2., 6.]])
    """
    sums = np.pad(np.cumsum(spectra, axis=-1, dtype=float), ((0, 0), (1, 0)))
    return np.array([np.diff(np.interp(wanted, edges, row)) for row in sums])


def _of_dataset(path: Path) -> tuple[np.ndarray, np.ndarray]:
    ds = open_dataset(path)
    if COMPONENT_SPECTRUM.name in ds:
        spectra = ds[COMPONENT_SPECTRUM.name].values * ds[WEIGHT_ENERGY.name].values
    elif PHASE_SPECTRUM.name in ds:
        spectra = ds[PHASE_SPECTRUM.name].values
    else:
        raise FormatError(f"'{path}' holds neither components nor phases, whose spectra to take")
    return ds[DIM_ENERGY].values, np.asarray(spectra, float)


def _of_signal(path: Path) -> tuple[np.ndarray, np.ndarray]:
    found = []
    for signal in open_file(path):
        position = energy_position(signal)
        energy = None if position is None else energy_values(signal.axes[position])
        if energy is not None and signal.data.ndim == 1 and energy.size > 1:
            found.append((energy, np.asarray(signal.data, float)[np.newaxis]))
    if len(found) != 1:
        raise FormatError(
            f"'{path}' holds {len(found)} spectra with an energy axis, must hold one; save that as "
            ".msa"
        )
    return found[0]
