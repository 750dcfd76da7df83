"""The face for notebooks: `open` any file, and ``ds.edx`` on any Dataset.

``ds.edx`` is registered when a name of `edxdenoise` is used for the first time.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.config import Pictures
from edxdenoise.cube import Resolution, detector_resolution, sum_spectrum
from edxdenoise.errors import ParameterError
from edxdenoise.io import open_dataset, read_cube, save_dataset, to_hyperspy
from edxdenoise.io.signals import OWN_SUFFIXES
from edxdenoise.io.vendor import Frames

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_THUMBNAIL = 160  # pixels


def open(
    path: str | Path, *, signal: int | str | None = None, frames: Frames | None = None
) -> xr.Dataset:
    """Open a spectrum image, or a result, of any format that can be read.

    Parameters
    ----------
    path : path
        A file of any format that RosettaSciIO reads, or our own .nc or .zarr.
    signal : int or str, optional
        Number (from 1) or title of the signal where a vendor's file holds several.
    frames : (first, end), optional
        Sum these frames alone, from 0, `end` not included, of a Velox .emd or a JEOL .pts.

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
    if Path(path).suffix.lower() in OWN_SUFFIXES and signal is None and frames is None:
        return open_dataset(path)
    return read_cube(path, signal=signal, frames=frames)


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

    def plot(self, name: str | Sequence[str], *, stddev: bool = False) -> Figure:
        """Draw a map with scale bar and colour bar, or two or three in one.

        Parameters
        ----------
        name : str or sequence of str
            An element (``"Pb"``: at%, or net counts where nothing is quantified), a ratio
            (``"I/Pb"``), a line (``"Pb_La"``, net counts) or an image recorded with the counts
            (``"HAADF"``). Two or three names are laid over each other in vermilion, green and blue.
        stddev : bool
            Draw the standard deviation instead.

        Returns
        -------
        matplotlib.figure.Figure
            ``figure.savefig("map.pdf")`` saves it in the format of the suffix (.png at 300 dpi,
            .pdf, .svg ...).

        Raises
        ------
        ParameterError
            If there is no such map (the message lists those that there are), or if there are more
            than three names.

        Examples
        --------
        >>> ds.edx.plot(["Fe", "Pt", "O"]).savefig("map.pdf")  # doctest: +SKIP
        """
        from edxdenoise.report.frame import map_figure
        from edxdenoise.report.named import named_map
        from edxdenoise.report.overlay import COLOURS, overlay_figure
        from edxdenoise.report.style import style

        if isinstance(name, str):
            one = named_map(self._ds, name, stddev=stddev)
            with style():
                return map_figure(self._ds, one.image, one.colours, one.caption, one.unit or None)
        if not 2 <= len(name) <= len(COLOURS):
            raise ParameterError(f"{len(name)} maps cannot be laid over each other; give 2 or 3")
        maps = [named_map(self._ds, each, stddev=stddev) for each in name]
        with style():
            return overlay_figure(self._ds, maps)

    def plot_spectrum(self) -> Figure:
        """Draw the sum spectrum with its lines named; denoised as well where it is."""
        from edxdenoise.report.named import kept_components
        from edxdenoise.report.spectra import sum_figure
        from edxdenoise.report.style import style
        from edxdenoise.report.sums import denoised_spectrum
        from edxdenoise.xray import find_peaks, identified, name_peaks

        energy, spectrum = self._ds[v.DIM_ENERGY].values, sum_spectrum(self._ds)
        peaks = name_peaks(find_peaks(energy, spectrum, self.resolution), identified(self._ds))
        spectra = {"raw": spectrum}
        if v.COMPONENT_KEEP in self._ds:
            spectra["denoised"] = denoised_spectrum(kept_components(self._ds))
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
        from edxdenoise.report.named import kept_components
        from edxdenoise.report.style import style

        kept = kept_components(self._ds)
        with style():
            return list(component_figures(kept, kept, ()))

    def report(
        self, folder: str | Path, *, pictures: Pictures = "png", overwrite: bool = False
    ) -> None:
        """Write the page and pictures of a result into a folder, as `edxdenoise.write_report`."""
        from edxdenoise.report import write_report

        write_report(self._ds, folder, pictures=pictures, overwrite=overwrite)

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
        return (
            f"<b>{title}</b><div style='display:flex; gap:1em'>{self._thumbnail()}"
            f"<table>{rows}</table></div>"
        )

    def _thumbnail(self) -> str:
        """Return a small map of all X-rays; none where counts would have to be read for it."""
        from edxdenoise.cube import pixel_counts
        from edxdenoise.report.frame import count_range
        from edxdenoise.report.page_maps import binned, picture_data

        if v.PIXEL_COUNTS not in self._ds:
            return ""
        totals = pixel_counts(self._ds)
        small = binned(totals, -(-max(totals.shape) // _THUMBNAIL))
        data = picture_data(small, count_range(small))
        style = "height:9em; image-rendering:pixelated"
        return f"<img src='{data}' alt='all X-rays' style='{style}'>"
