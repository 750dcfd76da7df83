"""Checks of a result as pictures: the residual audit, and the bias of denoised net counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.report.frame import draw_map, fit_map, frame_of, label_width
from edxdenoise.report.style import (
    BLUE,
    DARK,
    GREY,
    PAGE_WIDTH,
    SMALL,
    VERMILION,
    add_axes,
    add_text,
    add_title,
    new_figure,
)
from edxdenoise.validation.residuals import Audit
from edxdenoise.xray import line_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# z-scores beyond are counted; colours end at twice that.
_LARGE_Z = 3.0
# Inches.
_HEADER = 0.4
_Z_ROW, _Z_COLUMN = 0.17, 0.62

# Inches.
_MARGIN, _TOP, _BAR = 0.12, 0.62, 0.75
_MAP_WIDTH, _MAP_HEIGHT, _ROW = 2.9, 2.6, 0.15
_LISTED = 12
# Colours end at the largest z, or here.
_LEAST_Z, _MOST_Z = 8.0, 30.0
_COLUMNS = (0.0, 0.75, 2.2, 3.2, 4.35, 5.05, 5.75, 6.3)


def audit_figure(ds: xr.Dataset, found: Audit) -> Figure:
    """Map of what stands out, spectrum of the strongest find, and the first rows of the table.

    Parameters
    ----------
    ds : Dataset
        That was audited.
    found : Audit
        What `residual_audit` gives.
    """
    frame = frame_of(ds)
    listed = found.table.head(_LISTED)
    left = _MARGIN + label_width(frame)
    width, height = fit_map(frame, _MAP_WIDTH, _MAP_HEIGHT)
    table_top = _TOP + max(height, 1.4) + 0.55
    figure = new_figure(PAGE_WIDTH, table_top + _ROW * (len(listed) + 2) + 0.1)
    add_title(figure, _title(found))
    add_text(
        figure,
        _MARGIN,
        0.3,
        f"{found.tests:,} tests of counts − expected, in tiles of 1 to {max(frame_size(ds))} "
        "pixels and windows of one FWHM; chance alone gives any find in "
        f"{100 * found.rate:g} % of maps.",
        fontsize=SMALL,
        color=DARK,
    )
    # A pixel of the picture is a cell of 4 x 4; shown on the pixels, it ends where the map does.
    rows, columns = frame_size(ds)
    peaks = found.peaks.repeat(4, axis=0)[:rows].repeat(4, axis=1)[:, :columns]
    limit = float(np.clip(np.abs(peaks).max(), _LEAST_Z, _MOST_Z))
    box = (left, _TOP, width, height)
    draw_map(figure, peaks, frame, box, ("RdBu_r", -limit, limit), bar_label="z-score (σ)")
    add_text(figure, left, _TOP - 0.14, "largest z beyond the limit", fontsize=SMALL, color=DARK)
    if len(listed):
        spectrum_left = left + width + _BAR + 0.3
        box = (spectrum_left, _TOP, PAGE_WIDTH - _MARGIN - spectrum_left, max(height, 1.4))
        _draw_spectrum(figure, found, box)
        _write_table(figure, listed, len(found.table), table_top)
    return figure


def frame_size(ds: xr.Dataset) -> tuple[int, int]:
    """Pixels (y, x) of the map."""
    return ds.sizes[v.DIM_Y], ds.sizes[v.DIM_X]


def _title(found: Audit) -> str:
    if found.table.empty:
        return "Residual audit: nothing found beyond counting noise"
    count = len(found.table)
    return f"Residual audit: structure that the model drops, {count} find{'s' * (count > 1)}"


def _draw_spectrum(figure: Figure, found: Audit, box: tuple[float, float, float, float]) -> None:
    """Residual of the strongest find's tile in standard deviations, window by window."""
    counts, expected, variance = found.profile
    first = found.table.iloc[0]
    left, top, width, height = box
    axes = add_axes(figure, left, top, width, height)
    noise = np.sqrt(np.maximum(np.maximum(expected, variance), 1))
    residual = (counts - expected) / noise
    axes.axhspan(-3, 3, color="0.93", linewidth=0)
    axes.axvspan(first.energy_low, first.energy_high, color=VERMILION, alpha=0.25, linewidth=0)
    axes.plot(found.energies, residual, color=BLUE, linewidth=0.7)
    axes.axhline(0, color=GREY, linewidth=0.4)
    axes.set_xlim(found.energies[0], found.energies[-1])
    axes.set_xlabel("energy (keV)", labelpad=1)
    axes.set_ylabel("(counts − expected) / σ", labelpad=1)
    add_text(
        figure,
        left,
        top - 0.14,
        f"strongest feature: y {first.y_start}:{first.y_stop}, x {first.x_start}:{first.x_stop}",
        fontsize=SMALL,
        color=DARK,
    )


def _write_table(figure: Figure, listed: pd.DataFrame, count: int, top: float) -> None:
    heads = ("size", "y", "x", "energy (keV)", "lines", "counts", "expected", "z")
    lines = [heads]
    for find in listed.itertuples():
        names = [line_label(name) for name in str(find.lines).split()[:2]]
        lines.append(
            (
                f"{find.size} px",
                f"{find.y_start}:{find.y_stop}",
                f"{find.x_start}:{find.x_stop}",
                f"{find.energy_low:.2f}–{find.energy_high:.2f}",
                ", ".join(names) or "–",
                f"{find.counts:,.0f}",
                f"{find.expected:,.0f}".replace("-", "−"),
                f"{find.z:.1f}".replace("-", "−"),
            )
        )
    for row, words in enumerate(lines):
        for place, word in zip(_COLUMNS, words):
            add_text(
                figure,
                _MARGIN + place,
                top + _ROW * row,
                word,
                fontsize=SMALL,
                color=DARK,
                fontweight="normal" if row else "bold",
            )
    if count > len(listed):
        rest = f"and {count - len(listed)} more in audit.csv"
        add_text(figure, _MARGIN, top + _ROW * len(lines), rest, fontsize=SMALL, color=DARK)


def bias_figure(table: pd.DataFrame) -> Figure:
    """z-scores of raw minus denoised net counts, by region and line.

    Parameters
    ----------
    table : pandas.DataFrame
        From `bias_table`.
    """
    scores = table.pivot(index="region", columns="line", values="z")
    scores = scores.loc[list(dict.fromkeys(table["region"]))]
    scores = scores[list(dict.fromkeys(table["line"]))]
    z = scores.to_numpy(float)
    rows, columns = z.shape
    left = 0.2 + 0.06 * max(len(str(name)) for name in scores.index)
    figure = new_figure(
        max(left + columns * _Z_COLUMN + 0.9, 5.2), _HEADER + 0.3 + rows * _Z_ROW + 0.45
    )
    finite = np.isfinite(z)
    large = int((np.abs(z[finite]) > _LARGE_Z).sum())
    add_title(
        figure, f"Raw minus denoised net counts: {large} of {finite.sum()} beyond {_LARGE_Z:.0f} σ"
    )
    axes = add_axes(figure, left, _HEADER + 0.25, columns * _Z_COLUMN, rows * _Z_ROW)
    axes.set_facecolor("0.75")
    drawn = axes.imshow(z, cmap="RdBu_r", vmin=-2 * _LARGE_Z, vmax=2 * _LARGE_Z, aspect="auto")
    for row, column in np.argwhere(finite):
        value = z[row, column]
        axes.text(
            column,
            row,
            f"{round(value, 1) + 0.0:.1f}".replace("-", "−"),
            ha="center",
            va="center",
            fontsize=SMALL,
            color="white" if abs(value) > 1.4 * _LARGE_Z else "black",
        )
    axes.set_xticks(range(columns), [line_label(str(name)) for name in scores.columns])
    axes.xaxis.tick_top()
    axes.set_yticks(range(rows), [str(name) for name in scores.index])
    axes.tick_params(length=0)
    figure.colorbar(
        drawn,
        cax=add_axes(figure, left + columns * _Z_COLUMN + 0.1, _HEADER + 0.25, 0.08, rows * _Z_ROW),
        label="z-score (σ)",
    )
    add_text(
        figure,
        _MARGIN,
        _HEADER + 0.33 + rows * _Z_ROW,
        "Beyond 3 σ, dropped components held signal, or averages moved it.\n"
        "Phases are found with one half of the counts and tested with the other.",
        fontsize=SMALL,
        color=DARK,
    )
    return figure
