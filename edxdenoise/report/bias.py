"""The bias check as a picture: raw minus denoised net counts, by region and line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from edxdenoise.report.style import DARK, SMALL, add_axes, add_text, add_title, new_figure
from edxdenoise.xray import line_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# z-scores beyond are counted; colours end at twice that.
_LARGE_Z = 3.0
# Inches.
_MARGIN, _HEADER = 0.12, 0.4
_Z_ROW, _Z_COLUMN = 0.17, 0.62


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
