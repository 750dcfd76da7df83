"""The face for notebooks: `open` any file, and ``ds.edx`` on any Dataset.

``ds.edx`` is registered when a name of `edxdenoise` is used for the first time.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.cube import Resolution, detector_resolution, sum_spectrum
from edxdenoise.errors import ParameterError
from edxdenoise.io import open_dataset, read_cube, save_dataset, to_hyperspy
from edxdenoise.io.signals import OWN_SUFFIXES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Maps by name: the variable, its standard deviation, the dimension of the names and the unit.
_MAPS = (
    (v.ATOMIC_PERCENT, v.ATOMIC_PERCENT_STDDEV, v.DIM_ELEMENT, "at%"),
    (v.RATIO, v.RATIO_STDDEV, v.DIM_RATIO, ""),
    (v.LINE_INTENSITY, v.LINE_INTENSITY_STDDEV, v.DIM_LINE, "net counts"),
)


def open(path: str | Path, *, signal: int | str | None = None) -> xr.Dataset:
    """Open a spectrum image, or a result, of any format that can be read.

    Parameters
    ----------
    path : path
        A file of any format that RosettaSciIO reads, or our own .nc or .zarr.
    signal : int or str, optional
        Number (from 1) or title of the signal where a vendor's file holds several.

    Returns
    -------
    Dataset
        With ``counts`` (y, x, energy), lazy where the format allows it; of our own files all that
        they hold.

    Raises
    ------
    FormatError
        If the file cannot be read, or holds no or several spectrum images.

    Examples
    --------
    >>> ds = open("map.bcf")  # doctest: +SKIP
    >>> ds.edx.elements()  # doctest: +SKIP
    """
    if Path(path).suffix.lower() in OWN_SUFFIXES and signal is None:
        return open_dataset(path)
    return read_cube(path, signal=signal)


@xr.register_dataset_accessor("edx")
class Edx:
    """What a Dataset of this package knows, shows and becomes, as ``ds.edx``."""

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    @property
    def resolution(self) -> Resolution:
        """Width law of the detector's peaks; as a number, the FWHM at Mn K alpha in eV."""
        return detector_resolution(self._ds)

    @property
    def beam_energy(self) -> float | None:
        """Beam energy in keV; None where the file does not say it."""
        energy = self._ds.attrs.get("beam_energy")
        return None if energy is None else float(energy)

    @property
    def sum_spectrum(self) -> xr.DataArray:
        """Counts of all pixels per channel."""
        return xr.DataArray(
            sum_spectrum(self._ds), {v.DIM_ENERGY: self._ds[v.DIM_ENERGY]}, name="sum_spectrum"
        )

    def elements(self) -> pd.DataFrame:
        """Return the elements found, as `edxdenoise.find_elements` does."""
        from edxdenoise.xray import find_elements

        return find_elements(self._ds)

    def components(self) -> pd.DataFrame:
        """Return variance, probability, outcome and decision of each component."""
        from edxdenoise.components.selection import component_table

        return component_table(self._ds)

    def table(self) -> pd.DataFrame:
        """Return composition, ratios and net counts of the map, areas, phases and regions."""
        from edxdenoise.quantification import region_table

        return region_table(self._ds.compute())

    def plot(self, name: str, *, stddev: bool = False) -> Figure:
        """Draw one map with scale bar and colour bar.

        Parameters
        ----------
        name : str
            An element (``"Pb"``, at%), a ratio (``"I/Pb"``), a line (``"Pb_La"``, net counts) or
            an image recorded with the counts (``"HAADF"``).
        stddev : bool
            Draw the standard deviation instead.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ParameterError
            If there is no such map; the message lists those that there are.
        """
        from edxdenoise.report.frame import image_figure, map_figure, well_known
        from edxdenoise.report.style import style

        known: list[str] = []
        for value_spec, stddev_spec, dim, unit in _MAPS:
            if value_spec not in self._ds:
                continue
            names = [str(each) for each in self._ds[dim].values]
            known += names
            if name in names:
                value, error = (
                    self._ds[spec].isel({dim: names.index(name)}).values
                    for spec in (value_spec, stddev_spec)
                )
                caption = f"{name.replace('_', ' ')}{', standard deviation' * stddev}"
                pixels = well_known(value, error, np.isfinite(value))
                image, spread = (error, None) if stddev else (value, error)
                with style():
                    return map_figure(self._ds, image, spread, caption, unit or name, pixels)
        if v.IMAGE in self._ds:
            names = [str(each) for each in self._ds[v.DIM_DETECTOR].values]
            known += names
            if name in names:
                recorded = self._ds[v.IMAGE].isel({v.DIM_DETECTOR: names.index(name)}).values
                with style():
                    return image_figure(self._ds, recorded, name)
        raise ParameterError(
            f"there is no map '{name}'; there are {', '.join(known) or 'none: quantify first'}"
        )

    def plot_spectrum(self) -> Figure:
        """Draw the sum spectrum with its lines named; denoised as well where it is."""
        from edxdenoise.report.spectra import sum_figure
        from edxdenoise.report.style import style
        from edxdenoise.report.sums import denoised_spectrum
        from edxdenoise.xray import find_peaks, identified, name_peaks

        energy, spectrum = self._ds[v.DIM_ENERGY].values, sum_spectrum(self._ds)
        peaks = name_peaks(find_peaks(energy, spectrum, self.resolution), identified(self._ds))
        spectra = {"raw": spectrum}
        if v.COMPONENT_KEEP in self._ds:
            spectra["denoised"] = denoised_spectrum(self._kept())
        with style():
            return sum_figure(energy, spectra, peaks)

    def plot_scree(self) -> Figure:
        """Draw the scree plot: variances, elbows and noise edge, and what was kept."""
        from edxdenoise.report.scree import scree_figure
        from edxdenoise.report.style import style

        with style():
            return scree_figure(self._ds)

    def plot_components(self) -> list[Figure]:
        """Draw map, spectrum and verdict of every kept component, on one or more pages."""
        from edxdenoise.report.maps import component_figures
        from edxdenoise.report.style import style

        kept = self._kept()
        with style():
            return list(component_figures(kept, kept, ()))

    def _kept(self) -> xr.Dataset:
        """Return the kept components, computed, without counts."""
        keep = np.flatnonzero(self._ds[v.COMPONENT_KEEP].values == 1)
        cubes = [v.COUNTS, v.COUNTS_DENOISED]
        return self._ds.drop_vars(cubes, errors="ignore").isel({v.DIM_COMPONENT: keep}).compute()

    def report(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the page and pictures of a result into a folder."""
        from edxdenoise.report import write_report

        write_report(self._ds, folder, overwrite=overwrite)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the Dataset as .zarr, .nc or .hspy, whole or not at all."""
        save_dataset(self._ds, path, overwrite=overwrite)

    def to_hyperspy(self) -> Any:
        """Return the denoised counts, or else the counts, as a signal of HyperSpy."""
        return to_hyperspy(self._ds)

    def _facts(self) -> dict[str, str]:
        from edxdenoise.report.text import facts

        return {label: number for label, (number, _) in facts(self._ds).items()}

    def __repr__(self) -> str:
        return "edx: " + ", ".join(f"{text} {label}" for label, text in self._facts().items())

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(label)}</th>"
            f"<td>{html.escape(text)}</td></tr>"
            for label, text in self._facts().items()
        )
        title = html.escape(str(self._ds.attrs.get("title", "")))
        return f"<b>{title}</b><div style='display:flex'><table>{rows}</table></div>"
