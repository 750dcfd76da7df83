"""All files of a quantification, in a folder that appears whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from edxdenoise._version import __version__
from edxdenoise.compute import load
from edxdenoise.cube import sum_spectrum
from edxdenoise.errors import ParameterError
from edxdenoise.io import (
    atomic_output,
    file_name,
    pixel_size,
    write_msa,
    write_table,
    write_tiff,
)
from edxdenoise.quantification import LineSpec
from edxdenoise.quantification.bias import bias_table
from edxdenoise.quantification.composition import select_lines
from edxdenoise.quantification.phases import can_split, find_phases
from edxdenoise.quantification.region_table import compare_groups, region_table
from edxdenoise.quantification.regions import area_regions, sum_regions
from edxdenoise.report.bias import bias_figure
from edxdenoise.report.findings import gather
from edxdenoise.report.integration import integration_figure
from edxdenoise.report.page import write_page
from edxdenoise.report.quantities import percent_figure, ratios_figure
from edxdenoise.report.style import DPI, style
from edxdenoise.report.sums import denoised_sums
from edxdenoise.report.value_maps import image_figure, map_figure, well_known
from edxdenoise.schema import (
    ATOMIC_PERCENT,
    ATOMIC_PERCENT_STDDEV,
    COMPONENT_KEEP,
    COMPONENT_MAP,
    COMPONENT_MAP_SHRUNK,
    COMPONENT_SPECTRUM,
    COUNTS,
    DIM_COMPONENT,
    DIM_DETECTOR,
    DIM_ELEMENT,
    DIM_ENERGY,
    DIM_LINE,
    DIM_RATIO,
    IMAGE,
    LINE_DETECTED,
    LINE_ESTIMATOR,
    LINE_INTENSITY,
    LINE_INTENSITY_COVARIANCE,
    LINE_INTENSITY_STDDEV,
    MEAN_SPECTRUM,
    RATIO,
    RATIO_STDDEV,
    REGION_MASK,
    REGION_SPECTRUM,
    WEIGHT_ENERGY,
    WEIGHT_PERCENT,
    WEIGHT_PERCENT_STDDEV,
    WEIGHT_PIXEL,
    validate,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_QUANTIFIED = (
    LINE_INTENSITY,
    LINE_INTENSITY_STDDEV,
    LINE_INTENSITY_COVARIANCE,
    LINE_DETECTED,
    LINE_ESTIMATOR,
)
_COMPOSITION = WEIGHT_PERCENT, WEIGHT_PERCENT_STDDEV, ATOMIC_PERCENT, ATOMIC_PERCENT_STDDEV
_DENOISED = (
    WEIGHT_PIXEL,
    WEIGHT_ENERGY,
    MEAN_SPECTRUM,
    COMPONENT_MAP,
    COMPONENT_MAP_SHRUNK,
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
# Sum spectra hold many counts.
_DIGITS = 12


def write_quantification(
    ds: xr.Dataset,
    folder: str | Path,
    lines: Mapping[str, LineSpec],
    *,
    intensities: str = "fit",
    k_factor_unit: str = "weight",
    ratios: Sequence[str] = (),
    elements: Iterable[str] = (),
    page: bool = True,
    overwrite: bool = False,
) -> None:
    """Write what a quantification found: pictures, tables, maps and spectra, in a folder.

    ``windows.png``: what was integrated, or fitted. ``at_percent.png``, ``ratios.png``, where
    there are k-factors: maps with standard deviations and distributions. ``regions.csv``:
    compositions, ratios and net counts of lines without a k-factor, of the whole map, areas,
    phases, regions and profiles; ``groups.csv``: differences between groups of areas, if any.
    ``bias.csv``, ``bias.png``: raw minus denoised, where there are components and counts.
    ``maps/``: each map as PNG and, as its standard deviation, as 32-bit float TIFF; images recorded
    with the counts likewise. ``spectra/``: sum spectra as EMSA/MAS files and as a table.

    Parameters
    ----------
    ds : Dataset
        What `cliff_lorimer` gives, computed or lazy, with ``counts`` or their weights.
    folder : str or Path
        Folder to make.
    lines : mapping of str to LineSpec
        Those that `ds` was quantified by.
    intensities, k_factor_unit, elements
        As `line_intensity` and `cliff_lorimer` took them; the history of `ds` must say the same.
    ratios : sequence of str
        Which of the ratios that `ds` holds; all by default.
    page : bool
        Whether to write ``index.html`` as well.
    overwrite : bool
        Whether an output that stands there may be replaced.

    Raises
    ------
    SchemaError
        If the Dataset was not quantified.
    ParameterError
        If it was by other lines or otherwise than told, or holds no such ratio.
    FormatError
        If the folder exists and may not be replaced, or cannot be written.
    """
    composed = {name: spec for name, spec in lines.items() if spec.k_factor is not None}
    validate(ds, *_QUANTIFIED, *(_COMPOSITION if composed else ()))
    ds = _checked(ds, lines, list(ratios))
    _check_history(ds, intensities=intensities, k_factor_unit=k_factor_unit)
    elements = list(elements)
    with atomic_output(folder, overwrite, folder=True) as made, style():
        ds = _loaded(ds)
        chosen = [str(text) for text in ds[DIM_RATIO].values] if RATIO.name in ds else []
        if REGION_SPECTRUM.name not in ds:
            ds = _loaded(sum_regions(ds))
        table = region_table(ds, lines, k_factor_unit=k_factor_unit, ratios=chosen)
        groups = compare_groups(table)
        _write_tables(made, table, groups)
        of_lines = select_lines(ds, composed)
        if composed:
            _save(percent_figure(of_lines, table, groups), made / "at_percent.png")
        if chosen:
            figure = ratios_figure(of_lines, composed, table, groups, k_factor_unit=k_factor_unit)
            _save(figure, made / "ratios.png")
        figure = integration_figure(ds, lines, intensities=intensities, elements=elements)
        _save(figure, made / "windows.png")
        if COMPONENT_KEEP.name in ds and COUNTS.name in ds:
            bias = _bias(ds, lines, intensities, elements)
            _save(bias_figure(bias), made / "bias.png")
            counts = {name: f"{name} (counts)" for name in bias.columns[2:6]}
            write_table(made / "bias.csv", bias.rename(columns=counts))
        _write_maps(ds, made / "maps")
        _write_spectra(ds, made / "spectra")
        if page:
            found = gather(ds, intensities=intensities, k_factor_unit=k_factor_unit)
            write_page(found, made / "index.html")


def _bias(
    ds: xr.Dataset, lines: Mapping[str, LineSpec], intensities: str, elements: Sequence[str]
) -> pd.DataFrame:
    """Raw minus denoised of areas and, where counts are whole, of phases."""
    table = partial(bias_table, ds, lines, intensities=intensities, elements=elements)
    parts = [table(area_regions(ds))]
    if can_split(ds):
        phases = find_phases(ds)
        parts.append(table(phases.masks, held_out=phases.held_out))
    return pd.concat(parts, ignore_index=True)


def _checked(ds: xr.Dataset, lines: Mapping[str, LineSpec], ratios: list[str]) -> xr.Dataset:
    """Return the Dataset with only the ratios that were asked for."""
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


def _check_history(ds: xr.Dataset, **told: str) -> None:
    """Pictures and tables of another method than the maps' would belong to no result."""
    history = str(ds.attrs.get("history", ""))
    for key, value in told.items():
        recorded = re.findall(rf" {key}=(\S+)", history)
        if recorded and recorded[-1] != value:
            raise ParameterError(
                f"{key} '{value}' is not how the Dataset was quantified; give '{recorded[-1]}'"
            )


def _loaded(ds: xr.Dataset) -> xr.Dataset:
    """Return the Dataset with only the kept components and all but the counts computed."""
    if COMPONENT_KEEP.name in ds:
        kept = np.flatnonzero(load(ds[[COMPONENT_KEEP.name]])[COMPONENT_KEEP.name].values)
        ds = ds.isel({DIM_COMPONENT: kept})
    specs = (
        *_QUANTIFIED,
        *_COMPOSITION,
        RATIO,
        RATIO_STDDEV,
        REGION_MASK,
        REGION_SPECTRUM,
        *_DENOISED,
    )
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
    if IMAGE.name in ds:
        for label, image in zip(map(str, ds[DIM_DETECTOR].values), ds[IMAGE.name].values):
            name = f"{file_name(label)}_image"
            info = f"{label}: image recorded with the counts; edxdenoise {__version__}"
            write_tiff(folder / f"{name}.tif", image, size, info=info)
            _save(image_figure(ds, image, f"{label}: image"), folder / f"{name}.png")


def _write_spectra(ds: xr.Dataset, folder: Path) -> None:
    folder.mkdir()
    spectra = {"raw": sum_spectrum(ds)}
    if COMPONENT_KEEP.name in ds:
        spectra["denoised"] = denoised_sums(ds, []).spectrum
    table = pd.DataFrame({"energy (keV)": ds[DIM_ENERGY].values})
    for name, spectrum in spectra.items():
        write_msa(folder / f"sum_{name}.msa", ds, spectrum, title=f"sum of all pixels, {name}")
        table[f"{name} (counts)"] = spectrum
    write_table(folder / "sums.csv", table, digits=_DIGITS)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=DPI, pil_kwargs={"compress_level": 4})
