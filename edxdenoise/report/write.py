"""All pictures of a Dataset, in a folder that appears whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from edxdenoise.audit import BLOCK, Audit, audit
from edxdenoise.compute import as_blocks, load
from edxdenoise.cube import detector_resolution, is_lazy
from edxdenoise.errors import DataError, Rank, recorded, warn, warning_attrs
from edxdenoise.io import atomic_output, write_table
from edxdenoise.reconstruction import reconstruct
from edxdenoise.report.audit import audit_figure
from edxdenoise.report.findings import gather
from edxdenoise.report.maps import component_figures, maps_figure
from edxdenoise.report.page import write_page
from edxdenoise.report.scree import scree_figure
from edxdenoise.report.spectra import spectra_figure
from edxdenoise.report.style import DPI, style
from edxdenoise.report.sums import denoised_sums, pixel_spectra, raw_sums
from edxdenoise.report.text import kept_numbers, number_words, uncertain_numbers
from edxdenoise.report.windows import Window, choose_windows
from edxdenoise.schema import (
    COMPONENT_EFFECT_SIZE,
    COMPONENT_KEEP,
    COMPONENT_MAP,
    COMPONENT_MAP_SHRUNK,
    COMPONENT_NEIGHBOUR,
    COMPONENT_SIGNAL_KEPT,
    COMPONENT_SIGNAL_PROBABILITY,
    COMPONENT_SPATIAL_STATISTIC,
    COMPONENT_SPECTRUM,
    COMPONENT_VARIANCE,
    COMPONENT_VARIANCE_RATIO,
    COUNTS,
    DIM_COMPONENT,
    DIM_ENERGY,
    MEAN_SPECTRUM,
    WEIGHT_ENERGY,
    WEIGHT_PIXEL,
    validate,
)
from edxdenoise.xray import find_peaks, identified, name_peaks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NEEDED = (
    COUNTS,
    WEIGHT_PIXEL,
    WEIGHT_ENERGY,
    MEAN_SPECTRUM,
    COMPONENT_MAP,
    COMPONENT_SPECTRUM,
    COMPONENT_VARIANCE,
    COMPONENT_VARIANCE_RATIO,
    COMPONENT_SIGNAL_PROBABILITY,
    COMPONENT_KEEP,
)
# Files of earlier versions and lazy components have none.
_EVIDENCE = (
    COMPONENT_SPATIAL_STATISTIC,
    COMPONENT_EFFECT_SIZE,
    COMPONENT_NEIGHBOUR,
    COMPONENT_SIGNAL_KEPT,
    COMPONENT_MAP_SHRUNK,
)
_COMPONENT_MAPS = (COMPONENT_MAP.name, COMPONENT_MAP_SHRUNK.name)
_LEAST_SHOWN, _MOST_SHOWN = 12, 24
_LINE_MAPS = 3
# Share of the counts that may be missed without any effect on at%.
_MUCH_MISSED = 1e-3


def write_report(ds: xr.Dataset, folder: str | Path, *, overwrite: bool = False) -> None:
    """Write a page and pictures that show what was kept and what it did.

    ``index.html``: what was found, in one file that opens from disk (see `page`).
    ``scree.png``: variances, elbows and noise edge. ``components_01.png`` ...: map, spectrum and
    verdict of each of the first components, up to the last one kept, 12 at least and 24 at most.
    ``spectra.png`` and ``maps.png``: raw against denoised. ``audit.png`` and ``audit.csv``: what
    `edxdenoise.residual_audit` finds, in one more pass over the counts.

    Parameters
    ----------
    ds : Dataset
        As `edxdenoise.select` or `edxdenoise.reconstruct` gives it. Lazy counts are summed and
        audited in one pass each, block by block; ``counts_denoised`` is not looked at.
    folder : str or Path
        Folder to make.
    overwrite : bool
        Whether a report that stands there may be replaced.

    Raises
    ------
    SchemaError
        If the Dataset holds no components and no decision on them.
    FormatError
        If the folder exists and may not be replaced, or cannot be written.

    Warns
    -----
    EdxdenoiseWarning
        If the audit finds structure that the kept components miss, or cannot be made.
    """
    validate(ds, *_NEEDED)
    with atomic_output(folder, overwrite, folder=True) as partial, style():
        _draw_all(ds, partial)


def _draw_all(ds: xr.Dataset, folder: Path) -> None:
    names = [spec.name for spec in _NEEDED if spec is not COUNTS]
    names += [spec.name for spec in _EVIDENCE if spec.name in ds]
    ds = ds.assign(load(ds[names].drop_vars(_COMPONENT_MAPS, errors="ignore")))
    kept_list = kept_numbers(ds)
    last = min(max(_LEAST_SHOWN, *kept_list), _MOST_SHOWN, ds.sizes[DIM_COMPONENT])
    doubtful = uncertain_numbers(ds)[:_MOST_SHOWN]
    # What needs a person's eye comes first.
    rest = ds[DIM_COMPONENT].values[:last]
    shown_list = np.concatenate([doubtful, rest[~np.isin(rest, doubtful)]])
    # The other maps, most of a hundred, are left where they are.
    pictured = load(ds[names].sel({DIM_COMPONENT: np.union1d(shown_list, kept_list)}))
    kept = pictured.sel({DIM_COMPONENT: kept_list})
    elements, resolution = identified(ds), detector_resolution(ds)
    energy = ds[DIM_ENERGY].values
    # With dropped components as well: a hand-picked model may lack the first, and so all peaks.
    spectrum = denoised_sums(pictured, []).spectrum
    peaks = name_peaks(find_peaks(energy, spectrum, resolution), elements)
    windows = [
        Window("all X-rays", slice(0, len(energy))),
        *choose_windows(ds, kept, peaks, _LINE_MAPS),
    ]
    channels = [window.channels for window in windows]
    raw, denoised = raw_sums(ds, channels), denoised_sums(kept, channels)
    pixel = _typical_pixel(raw.maps[0])
    with recorded() as issued:
        found = _audited(ds, kept, float(raw.spectrum.sum()))
    ds = ds.assign_attrs(warning_attrs(issued, ds.attrs))

    _save(scree_figure(ds), folder / "scree.png")
    for page, figure in enumerate(
        component_figures(pictured.sel({DIM_COMPONENT: shown_list}), elements, peaks), start=1
    ):
        _save(figure, folder / f"components_{page:02}.png")
    spectra = pixel_spectra(ds, kept, *pixel)
    _save(spectra_figure(ds, raw, denoised, peaks, pixel, spectra), folder / "spectra.png")
    _save(maps_figure(ds, windows, raw, denoised), folder / "maps.png")
    if found is not None:
        _save(audit_figure(ds, found), folder / "audit.png")
        write_table(folder / "audit.csv", found.table)
    _write_index(ds, folder, found)


def _write_index(ds: xr.Dataset, folder: Path, found: Audit | None) -> None:
    write_page(gather(ds), folder / "index.html", audit=found)


def _audited(ds: xr.Dataset, kept: xr.Dataset, total: float) -> Audit | None:
    """Audit what the kept components describe, rebuilt by blocks; warn of what they do not."""
    if not is_lazy(ds):
        blocks = as_blocks(ds[COUNTS.name].values, (BLOCK, BLOCK, -1))
    else:
        blocks = ds[COUNTS.name].data.rechunk((BLOCK, BLOCK, -1))
    # In the blocks of the audit, so that each is rebuilt where it is scanned.
    ds = kept.assign({COUNTS.name: ds[COUNTS.name].copy(data=blocks)})
    try:
        found = audit(reconstruct(ds))
    except DataError as error:
        warn(
            f"No residual audit: {error}",
            "signal that the model lost is not reported",
            rank=Rank.NOTE,
        )
        return None
    if not found.table.empty:
        missed = float((found.table.counts - found.table.expected).abs().sum())
        share = missed / total
        warn(
            found.summary(),
            f"together they miss {number_words(100 * share)} % of the counts",
            "try more components or --no-shrink; audit.csv lists all",
            rank=Rank.WORSE if share > _MUCH_MISSED else Rank.NOTE,
        )
    return found


def _typical_pixel(totals: np.ndarray) -> tuple[int, int]:
    """The pixel such that half of all counts lie in brighter ones: never one of the vacuum."""
    order = np.argsort(totals, axis=None, kind="stable")
    share = np.cumsum(totals.ravel()[order])
    y, x = np.unravel_index(order[np.searchsorted(share, share[-1] / 2)], totals.shape)
    return int(y), int(x)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=DPI, pil_kwargs={"compress_level": 4})
