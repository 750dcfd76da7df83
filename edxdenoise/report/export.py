"""Maps, spectra and tables as files that other programs open, and the folder of a quantification.

TIFF for Fiji and HyperSpy, EMSA/MAS for spectra, CSV for tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from edxdenoise._version import __version__
from edxdenoise.compute import load
from edxdenoise.cube import energy_axis
from edxdenoise.errors import ParameterError
from edxdenoise.io import atomic_output
from edxdenoise.quantification import LineSpec
from edxdenoise.quantification.bias import bias_table, kmeans_regions
from edxdenoise.quantification.intensity import sum_spectrum
from edxdenoise.quantification.regions import area_regions, compare_groups, region_table
from edxdenoise.report.bias import bias_figure
from edxdenoise.report.integration import integration_figure
from edxdenoise.report.quantities import (
    map_figure,
    percent_figure,
    ratios_figure,
    well_known,
)
from edxdenoise.report.style import DPI, style
from edxdenoise.report.sums import denoised_sums
from edxdenoise.schema import (
    ATOMIC_PERCENT,
    ATOMIC_PERCENT_STDDEV,
    COMPONENT_KEEP,
    COMPONENT_MAP,
    COMPONENT_SPECTRUM,
    COUNTS,
    DIM_COMPONENT,
    DIM_ELEMENT,
    DIM_ENERGY,
    DIM_LINE,
    DIM_RATIO,
    DIM_X,
    DIM_Y,
    LINE_DETECTED,
    LINE_INTENSITY,
    LINE_INTENSITY_COVARIANCE,
    LINE_INTENSITY_STDDEV,
    MEAN_SPECTRUM,
    RATIO,
    RATIO_STDDEV,
    WEIGHT_ENERGY,
    WEIGHT_PERCENT,
    WEIGHT_PERCENT_STDDEV,
    WEIGHT_PIXEL,
    validate,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUANTIFICATION_MARKER = "at_percent.png"
_QUANTIFIED = (
    LINE_INTENSITY,
    LINE_INTENSITY_STDDEV,
    LINE_INTENSITY_COVARIANCE,
    LINE_DETECTED,
    WEIGHT_PERCENT,
    WEIGHT_PERCENT_STDDEV,
    ATOMIC_PERCENT,
    ATOMIC_PERCENT_STDDEV,
)
_DENOISED = (
    WEIGHT_PIXEL,
    WEIGHT_ENERGY,
    MEAN_SPECTRUM,
    COMPONENT_MAP,
    COMPONENT_SPECTRUM,
    COMPONENT_KEEP,
)
# Values and their standard deviations, what a file name of a map ends in, and the unit its picture
# shows; a ratio's is its name.
_MAPS = (
    (LINE_INTENSITY, LINE_INTENSITY_STDDEV, DIM_LINE, "intensity", "counts"),
    (WEIGHT_PERCENT, WEIGHT_PERCENT_STDDEV, DIM_ELEMENT, "weight_percent", "wt%"),
    (ATOMIC_PERCENT, ATOMIC_PERCENT_STDDEV, DIM_ELEMENT, "atomic_percent", "at%"),
    (RATIO, RATIO_STDDEV, DIM_RATIO, "ratio", ""),
)
_MICRONS = {"m": 1e6, "mm": 1e3, "µm": 1.0, "nm": 1e-3, "pm": 1e-6, "Å": 1e-4}
_EMSA = "EMSA/MAS Spectral Data File"
# Attributes of the Dataset by their keyword in an EMSA/MAS file.
_EMSA_KEYWORDS = {
    "BEAMKV": "beam_energy",
    "ELEVANGLE": "take_off_angle",
    "AZIMANGLE": "azimuth_angle",
    "LIVETIME": "live_time",
    "REALTIME": "real_time",
    "FWHMMNKA": "detector_resolution",
}
_TABLE_DIGITS, _SPECTRUM_DIGITS = 6, 12


@dataclass(frozen=True)
class PixelSize:
    """Height and width of a pixel; ``units`` is ``"pixel"`` where nothing is known."""

    y: float
    x: float
    units: str


def pixel_size(ds: xr.Dataset) -> PixelSize:
    """Size of the pixels of the maps of `ds`."""
    units = str(ds[DIM_X].attrs.get("units") or "pixel")
    # The median, since areas may lie apart; a single row is as high as pixels are wide.
    y, x = (
        float(np.median(np.abs(np.diff(ds[dim].values)))) if ds.sizes[dim] > 1 else 0.0
        for dim in (DIM_Y, DIM_X)
    )
    return PixelSize(y or x or 1.0, x or y or 1.0, units)


def write_tiff(path: str | Path, image: np.ndarray, pixel: PixelSize, *, info: str = "") -> None:
    """Write a map as a 32-bit float TIFF that ImageJ and Fiji open with its scale.

    Parameters
    ----------
    path : str or Path
        File to write.
    image : array, shape (y, x)
        NaN stays NaN.
    pixel : PixelSize
        Lengths are written in microns, which HyperSpy reads as well.
    info : str
        What the map shows; ImageJ's "Show Info".
    """
    import tifffile

    metadata: dict[str, Any] = {"Info": info}
    finite = image[np.isfinite(image)]
    if finite.size:
        # What is black and white at first; else a far-out pixel would darken all others.
        low, high = np.percentile(finite, (0.5, 99.5))
        if low < high:
            metadata |= {"min": float(low), "max": float(high)}
    settings: dict[str, Any] = {}
    if pixel.units != "pixel":
        factor = _MICRONS.get(pixel.units)
        metadata["unit"] = "micron" if factor else pixel.units.encode("ascii", "ignore").decode()
        scale = factor or 1.0
        settings = {"resolution": (1 / (pixel.x * scale), 1 / (pixel.y * scale))}
    tifffile.imwrite(path, image.astype(np.float32), imagej=True, metadata=metadata, **settings)


def write_msa(path: str | Path, ds: xr.Dataset, spectrum: np.ndarray, *, title: str) -> None:
    """Write a spectrum as an EMSA/MAS file (ISO 22029).

    Parameters
    ----------
    path : str or Path
        File to write.
    ds : Dataset
        With the energy axis in keV; beam energy, angles, times and resolution go into the header.
    spectrum : array, shape (energy,)
        Counts.
    title : str
    """
    from rsciio.msa import file_writer

    offset, width = energy_axis(ds)
    header: dict[str, float | str] = {
        keyword: float(ds.attrs[name])
        for keyword, name in _EMSA_KEYWORDS.items()
        if ds.attrs.get(name) is not None
    }
    # The header is given as that of another file: RosettaSciIO's own mapping from metadata, once
    # used for a scanning microscope, is changed for all later files.
    header.update(FORMAT=_EMSA, YUNITS="counts", COMMENT=f"edxdenoise {__version__}")
    axis = {"name": "Energy", "units": "keV", "size": len(spectrum)}
    axis |= {"scale": _tidy(width), "offset": _tidy(offset)}
    file_writer(
        str(path),
        {
            "data": np.asarray(spectrum, float),
            "axes": [axis],
            "metadata": {"General": {"title": title}, "Signal": {"signal_type": "EDS"}},
            "original_metadata": header,
        },
    )


def _tidy(value: float) -> float:
    """Without what floating-point steps leave in the last digits, which some readers choke on."""
    return float(f"{value:.10g}")


def write_table(path: str | Path, table: pd.DataFrame, *, digits: int = _TABLE_DIGITS) -> None:
    """Write a table as CSV in UTF-8, numbers with `digits` significant digits, NaN as empty."""
    table.to_csv(
        path, index=False, float_format=f"%.{digits}g", encoding="utf-8", lineterminator="\n"
    )


def file_name(text: str) -> str:
    """What a line, element or ratio is called in file names.

    Examples
    --------
    >>> file_name("I/Pb"), file_name("Pb_Lb2,15")
    ('I-Pb', 'Pb_Lb2-15')
    """
    return re.sub(r"[^\w.-]+", "-", text)


def write_quantification(
    ds: xr.Dataset,
    folder: str | Path,
    lines: Mapping[str, LineSpec],
    *,
    intensities: str = "windows-linear",
    k_factor_unit: str = "weight",
    ratios: Sequence[str] = (),
    elements: Iterable[str] = (),
    overwrite: bool = False,
) -> None:
    """Write what a quantification found: pictures, tables, maps and spectra, in a folder.

    ``windows.png``: what was integrated, or fitted. ``at_percent.png``, ``ratios.png``: maps with
    standard deviations and distributions. ``regions.csv``: compositions and ratios of the whole
    map and of areas; ``groups.csv``: differences between groups of areas, where there are groups.
    ``bias.csv``, ``bias.png``: raw minus denoised, where there are components and counts.
    ``maps/``: each map as PNG and, as its standard deviation, as 32-bit float TIFF. ``spectra/``:
    sum spectra as EMSA/MAS files and as a table.

    Parameters
    ----------
    ds : Dataset
        What `cliff_lorimer` gives, computed or lazy, with ``counts`` or their weights.
    folder : str or Path
        Folder to make.
    lines : mapping of str to LineSpec
        Those that `ds` was quantified by.
    intensities, k_factor_unit, elements
        As `line_intensity` and `cliff_lorimer` took them.
    ratios : sequence of str
        Which of the ratios that `ds` holds; all by default.
    overwrite : bool
        Whether an output that stands there may be replaced.

    Raises
    ------
    SchemaError
        If the Dataset was not quantified.
    ParameterError
        If it was by other lines, or holds no such ratio.
    FormatError
        If the folder exists and may not be replaced, or cannot be written.
    """
    validate(ds, *_QUANTIFIED)
    ds = _checked(ds, lines, list(ratios))
    elements = list(elements) or list(ds.attrs.get("elements", ()))
    with atomic_output(folder, overwrite, folder_marker=QUANTIFICATION_MARKER) as partial, style():
        ds = _loaded(ds)
        chosen = [str(text) for text in ds[DIM_RATIO].values] if RATIO.name in ds else []
        regions = area_regions(ds)
        table = region_table(ds, lines, regions, k_factor_unit=k_factor_unit, ratios=chosen)
        groups = compare_groups(table)
        _write_tables(partial, table, groups)
        _save(percent_figure(ds, table, groups), partial / QUANTIFICATION_MARKER)
        if chosen:
            figure = ratios_figure(ds, lines, table, groups, k_factor_unit=k_factor_unit)
            _save(figure, partial / "ratios.png")
        figure = integration_figure(ds, lines, intensities=intensities, elements=elements)
        _save(figure, partial / "windows.png")
        if COMPONENT_KEEP.name in ds and COUNTS.name in ds:
            regions = regions | kmeans_regions(ds)
            bias = bias_table(ds, lines, regions, intensities=intensities, elements=elements)
            _save(bias_figure(bias), partial / "bias.png")
            counts = {name: f"{name} (counts)" for name in bias.columns[2:6]}
            write_table(partial / "bias.csv", bias.rename(columns=counts))
        _write_maps(ds, partial / "maps")
        _write_spectra(ds, partial / "spectra")


def _checked(ds: xr.Dataset, lines: Mapping[str, LineSpec], ratios: list[str]) -> xr.Dataset:
    """The same Dataset with the ratios asked for alone."""
    quantified = [str(name) for name in ds[DIM_LINE].values]
    if list(lines) != quantified:
        raise ParameterError(
            f"the Dataset was quantified by {', '.join(quantified)}, not by {', '.join(lines)}; "
            "give the same lines in the same order"
        )
    held = [str(text) for text in ds[DIM_RATIO].values] if RATIO.name in ds else []
    for text in ratios:
        if text not in held:
            raise ParameterError(
                f"the Dataset holds no ratio '{text}', only {', '.join(held) or 'none'}; name it "
                "when quantifying"
            )
    return ds.sel({DIM_RATIO: ratios}) if ratios else ds


def _loaded(ds: xr.Dataset) -> xr.Dataset:
    """The same Dataset with all but the counts computed, and none but the kept components."""
    if COMPONENT_KEEP.name in ds:
        kept = np.flatnonzero(load(ds[[COMPONENT_KEEP.name]])[COMPONENT_KEEP.name].values)
        ds = ds.isel({DIM_COMPONENT: kept})
    specs = (*_QUANTIFIED, RATIO, RATIO_STDDEV, *_DENOISED)
    names = [spec.name for spec in specs if spec.name in ds]
    return ds.assign(load(ds[names]).data_vars)


def _write_tables(folder: Path, table: pd.DataFrame, groups: pd.DataFrame) -> None:
    for name, content in (("regions.csv", table), ("groups.csv", groups)):
        if content.empty:
            continue
        units = ["at%" if text.endswith("at%") else "1" for text in content["quantity"]]
        content = content.copy()
        content.insert(list(content.columns).index("quantity") + 1, "unit", units)
        write_table(folder / name, content)


def _write_maps(ds: xr.Dataset, folder: Path) -> None:
    folder.mkdir()
    size = pixel_size(ds)
    specimen = (ds[LINE_DETECTED.name].values == 1).any(axis=0)
    for spec, spec_stddev, dim, ending, unit in _MAPS:
        if spec.name not in ds:
            continue
        for label, image, stddev in zip(
            map(str, ds[dim].values), ds[spec.name].values, ds[spec_stddev.name].values
        ):
            name = f"{file_name(label)}_{ending}"
            for path, part, meaning in (
                (f"{name}.tif", image, spec),
                (f"{name}_stddev.tif", stddev, spec_stddev),
            ):
                info = f"{label}: {meaning.long_name} ({unit or 1}); edxdenoise {__version__}"
                write_tiff(folder / path, part, size, info=info)
            known = well_known(image, stddev, specimen)
            caption = f"{label.replace('_', ' ')}: {ending.replace('_', ' ')}"
            figure = map_figure(ds, image, caption, unit or label, known)
            _save(figure, folder / f"{name}.png")


def _write_spectra(ds: xr.Dataset, folder: Path) -> None:
    folder.mkdir()
    spectra = {"raw": sum_spectrum(ds)}
    if COMPONENT_KEEP.name in ds:
        spectra["denoised"] = denoised_sums(ds, []).spectrum
    table = pd.DataFrame({"energy (keV)": ds[DIM_ENERGY].values})
    for name, spectrum in spectra.items():
        write_msa(folder / f"sum_{name}.msa", ds, spectrum, title=f"sum of all pixels, {name}")
        table[f"{name} (counts)"] = spectrum
    write_table(folder / "sums.csv", table, digits=_SPECTRUM_DIGITS)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=DPI, pil_kwargs={"compress_level": 4})
