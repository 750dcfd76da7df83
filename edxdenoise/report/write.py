"""All files of a report, in a folder that appears whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from edxdenoise import schema as v
from edxdenoise._version import __version__
from edxdenoise.config import Pictures
from edxdenoise.cube import sum_spectrum
from edxdenoise.errors import SchemaError
from edxdenoise.io import (
    atomic_output,
    file_name,
    pixel_size,
    write_msa,
    write_table,
    write_tiff,
)
from edxdenoise.quantification.composition import select_lines
from edxdenoise.report.checks import audit_figure, bias_figure
from edxdenoise.report.findings import Findings, Quantified, gather, typical_pixel
from edxdenoise.report.frame import grey_range, map_figure, net_range, value_range, well_known
from edxdenoise.report.integration import integration_figure
from edxdenoise.report.maps import component_figures, element_figures
from edxdenoise.report.named import NamedMap
from edxdenoise.report.overlay import overlay_figure
from edxdenoise.report.page import write_page
from edxdenoise.report.quantities import percent_figure, ratios_figure
from edxdenoise.report.scree import scree_figure
from edxdenoise.report.spectra import spectra_figure
from edxdenoise.report.style import style
from edxdenoise.report.sums import denoised_spectrum, pixel_spectra
from edxdenoise.xray import line_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DENOISED = (
    v.WEIGHT_PIXEL,
    v.WEIGHT_ENERGY,
    v.MEAN_SPECTRUM,
    v.COMPONENT_MAP,
    v.COMPONENT_SPECTRUM,
    v.COMPONENT_VARIANCE,
    v.COMPONENT_VARIANCE_RATIO,
    v.COMPONENT_SIGNAL_PROBABILITY,
    v.COMPONENT_KEEP,
)
_QUANTIFIED = (v.LINE_INTENSITY, v.LINE_INTENSITY_STDDEV, v.LINE_DETECTED, v.LINE_ESTIMATOR)
_COMPOSITION = v.WEIGHT_PERCENT, v.WEIGHT_PERCENT_STDDEV, v.ATOMIC_PERCENT, v.ATOMIC_PERCENT_STDDEV
# Values and their standard deviations, what a file name of a map ends in, and the unit its picture
# shows; a ratio's is its name.
_MAPS = (
    (v.LINE_INTENSITY, v.LINE_INTENSITY_STDDEV, v.DIM_LINE, "intensity", "counts"),
    (v.WEIGHT_PERCENT, v.WEIGHT_PERCENT_STDDEV, v.DIM_ELEMENT, "weight_percent", "wt%"),
    (v.ATOMIC_PERCENT, v.ATOMIC_PERCENT_STDDEV, v.DIM_ELEMENT, "atomic_percent", "at%"),
    (v.RATIO, v.RATIO_STDDEV, v.DIM_RATIO, "ratio", ""),
)
# Sum spectra hold many counts.
_DIGITS = 12


def write_report(
    ds: xr.Dataset,
    folder: str | Path,
    *,
    pictures: Pictures = "png",
    overwrite: bool = False,
) -> None:
    """Write what was found: a page that opens from disk, pictures, tables, maps and spectra.

    ``index.html`` shows all of it, in one file. The rest is for papers and for other programs.

    Of every result: ``elements_01.png`` ..., maps of the main line of every element, raw and
    denoised; ``overlay.png``, three of them in one; ``elements.csv``; ``spectra/``, sum spectra as
    EMSA/MAS files and as a table; ``maps/``, images recorded with the counts.

    Of components: ``components_01.png`` ..., map, spectrum and verdict of all kept components, then
    of borderline ones, then of the first of the others; ``scree.png``, variances, elbows and noise
    edge; ``spectra.png``, raw against denoised; ``audit.png`` and ``audit.csv``, what
    `residual_audit` finds; ``bias.png`` and ``bias.csv``, raw minus denoised net counts.

    Of a quantification: ``windows.png``, what was integrated, or fitted; ``at_percent.png`` and
    ``ratios.png``, where there are k-factors, maps with standard deviations and distributions;
    ``regions.csv``, compositions, ratios and net counts of the whole map, areas, phases, regions
    and profiles; ``groups.csv``, differences between groups of areas, if any; in ``maps/`` each map
    as PNG and, as its standard deviation, as 32-bit float TIFF.

    Parameters
    ----------
    ds : Dataset
        Denoised, quantified, or both, computed or lazy. Counts are read block by block;
        ``counts_denoised`` is not looked at.
    folder : str or Path
        Folder to make.
    pictures : {"png", "pdf", "svg"}
        Format of the pictures, which have 300 dpi as PNG. Those below are named as PNG.
    overwrite : bool
        Whether a report that stands there may be replaced.

    Raises
    ------
    SchemaError
        If the Dataset holds neither components nor quantified lines.
    FormatError
        If the folder exists and may not be replaced, or cannot be written.

    Warns
    -----
    EdxdenoiseWarning
        If the audit finds structure that the kept components miss, or cannot be made.
    """
    if v.LINE_ESTIMATOR not in ds and v.COMPONENT_KEEP not in ds:
        raise SchemaError(
            "the Dataset holds neither components nor quantified lines; denoise or quantify it"
        )
    if v.COMPONENT_KEEP in ds:
        v.validate(ds, *_DENOISED)
    if v.LINE_ESTIMATOR in ds:
        composed = v.COORD_K_FACTOR in ds.coords and ds[v.COORD_K_FACTOR].notnull().any()
        v.validate(ds, *_QUANTIFIED, *(_COMPOSITION if composed else ()))
    with atomic_output(folder, overwrite, folder=True) as made, style():
        _write_all(gather(ds), made, pictures)


def _write_all(found: Findings, folder: Path, pictures: Pictures) -> None:
    write_table(folder / "elements.csv", found.elements)
    for page, figure in enumerate(element_figures(found), start=1):
        _save(figure, folder / f"elements_{page:02}.{pictures}")
    if len(found.main_elements) > 1:
        _save(_overlay(found), folder / f"overlay.{pictures}")
    if found.components is not None:
        _write_components(found, folder, pictures)
    if found.quantified is not None:
        _write_quantified(found, found.quantified, folder, pictures)
    _write_maps(found.ds, folder / "maps", pictures)
    _write_spectra(found, folder / "spectra")
    write_page(found, folder / "index.html")


def _overlay(found: Findings) -> Figure:
    assert found.shown is not None
    maps = []
    for n in found.main_elements:
        image, noise = found.shown[n], float(found.noise[n])
        line = line_label(str(found.elements["line"].iloc[n]))
        maps.append(NamedMap(line, "net counts", image, net_range(image, noise)))
    return overlay_figure(found.ds, maps)


def _write_components(found: Findings, folder: Path, pictures: Pictures) -> None:
    ds, kept, components = found.ds, found.kept, found.components
    assert kept is not None and components is not None
    _save(scree_figure(ds), folder / f"scree.{pictures}")
    for page, figure in enumerate(component_figures(ds, components, found.peaks), start=1):
        _save(figure, folder / f"components_{page:02}.{pictures}")
    if v.COUNTS in ds:
        pixel = typical_pixel(ds)
        spectra = pixel_spectra(ds, kept, *pixel)
        figure = spectra_figure(
            ds, sum_spectrum(ds), denoised_spectrum(kept), found.peaks, pixel, spectra
        )
        _save(figure, folder / f"spectra.{pictures}")
    if found.audit is not None:
        _save(audit_figure(ds, found.audit), folder / f"audit.{pictures}")
        write_table(folder / "audit.csv", found.audit.table)
    if len(found.bias):
        _save(bias_figure(found.bias), folder / f"bias.{pictures}")
        counts = {name: f"{name} (counts)" for name in found.bias.columns[2:6]}
        write_table(folder / "bias.csv", found.bias.rename(columns=counts))


def _write_quantified(found: Findings, made: Quantified, folder: Path, pictures: Pictures) -> None:
    ds = found.ds
    for name, content in (("regions.csv", made.regions), ("groups.csv", made.groups)):
        if content.empty:
            continue
        units = ["at%" if text.endswith("at%") else "1" for text in content["quantity"]]
        content = content.copy()
        content.insert(list(content.columns).index("quantity") + 1, "unit", units)
        write_table(folder / name, content)
    of_lines = select_lines(ds, made.composed)
    if made.composed:
        figure = percent_figure(of_lines, made.regions, made.groups)
        _save(figure, folder / f"at_percent.{pictures}")
    if v.RATIO in ds:
        _save(ratios_figure(of_lines, made.regions, made.groups), folder / f"ratios.{pictures}")
    _save(integration_figure(ds), folder / f"windows.{pictures}")


def _write_maps(ds: xr.Dataset, folder: Path, pictures: Pictures) -> None:
    folder.mkdir()
    size = pixel_size(ds)
    for spec, spec_stddev, dim, ending, unit in _MAPS:
        if spec not in ds:
            continue
        specimen = (ds[v.LINE_DETECTED].values == 1).any(axis=0)
        for label, image, stddev in zip(
            map(str, ds[dim].values), ds[spec].values, ds[spec_stddev].values
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
            colours = value_range(image, known, unit or label, stddev=stddev)
            figure = map_figure(ds, image, colours, caption, unit or label)
            _save(figure, folder / f"{name}.{pictures}")
    if v.IMAGE in ds:
        for label, image in zip(map(str, ds[v.DIM_DETECTOR].values), ds[v.IMAGE].values):
            name = f"{file_name(label)}_image"
            info = f"{label}: image recorded with the counts; edxdenoise {__version__}"
            write_tiff(folder / f"{name}.tif", image, size, info=info)
            _save(
                map_figure(ds, image, grey_range(image), f"{label}: image"),
                folder / f"{name}.{pictures}",
            )
    if not any(folder.iterdir()):
        folder.rmdir()


def _write_spectra(found: Findings, folder: Path) -> None:
    ds, kept = found.ds, found.kept
    folder.mkdir()
    spectra = {"raw": sum_spectrum(ds)}
    if kept is not None:
        spectra["denoised"] = denoised_spectrum(kept)
    table = pd.DataFrame({"energy (keV)": ds[v.DIM_ENERGY].values})
    for name, spectrum in spectra.items():
        write_msa(folder / f"sum_{name}.msa", ds, spectrum, title=f"sum of all pixels, {name}")
        table[f"{name} (counts)"] = np.asarray(spectrum)
    write_table(folder / "sums.csv", table, digits=_DIGITS)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path)
