"""Spectrum images from and to HyperSpy, in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import xarray as xr

from edxdenoise.errors import ParameterError
from edxdenoise.io.hspy import hyperspy_signals
from edxdenoise.io.read import dataset_of
from edxdenoise.io.signals import SPECTRUM_IMAGE, describe
from edxdenoise.io.vendor import VendorSignal


def from_hyperspy(signal: Any) -> xr.Dataset:
    """Return the Dataset of a spectrum image that HyperSpy holds, eager or lazy.

    Parameters
    ----------
    signal : hyperspy.api.signals.BaseSignal
        Map of spectra with an energy axis; counts are not copied.

    Returns
    -------
    Dataset
        As `edxdenoise.open` gives it.

    Raises
    ------
    ParameterError
        If the signal is no map of spectra.

    Examples
    --------
    >>> import hyperspy.api as hs, numpy as np
    >>> signal = hs.signals.Signal1D(np.ones((4, 5, 100), np.uint8))
    >>> signal.axes_manager[-1].units = "keV"
    >>> dict(from_hyperspy(signal).sizes)
    {'y': 4, 'x': 5, 'energy': 100}
    """
    axes = list(signal.axes_manager.as_dictionary().values())
    foreign = VendorSignal(
        signal.data,
        axes,
        signal.metadata.as_dictionary(),
        signal.original_metadata.as_dictionary(),
    )
    if describe(1, foreign).kind != SPECTRUM_IMAGE:
        raise ParameterError(
            f"{signal} is no map of spectra; give a signal of two navigation axes and an energy "
            "axis"
        )
    title = str(signal.metadata.get_item("General.title", "")) or "signal"
    return dataset_of(Path(title), foreign)


def to_hyperspy(ds: xr.Dataset) -> Any:
    """Return the denoised counts, or else the counts, as a signal of HyperSpy.

    Parameters
    ----------
    ds : Dataset
        With ``counts_denoised`` or ``counts``; lazy stays lazy.

    Returns
    -------
    hyperspy.api.signals.Signal1D
        Of type ``EDS_TEM`` or ``EDS_SEM`` where eXSpy is installed.

    Raises
    ------
    ParameterError
        If HyperSpy is not installed.
    """
    try:
        import hyperspy.api as hs
    except ImportError as error:
        raise ParameterError(
            "HyperSpy is not installed; install it with: pip install hyperspy exspy"
        ) from error
    array, parts = next(hyperspy_signals(ds))
    signal = hs.signals.Signal1D(
        array.data,
        axes=parts["axes"],
        metadata=parts["metadata"],
        original_metadata=parts["original_metadata"],
    )
    if isinstance(array.data, da.Array):
        signal = signal.as_lazy()
    return signal
