"""The scree plot, and what elbow, noise edge and selector make of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.components.nmf import is_nmf
from edxdenoise.components.selection import elbows, kept_numbers, weighted_noise_edge
from edxdenoise.errors import DataError
from edxdenoise.report.style import (
    BLUE,
    DARK,
    GREEN,
    GREY,
    ORANGE,
    VERMILION,
    new_plot,
)
from edxdenoise.report.text import decision, warning_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The elbow is sought among these, and what is decided upon is mostly among them.
_FIRST_COMPONENTS = 20
_MOST_COMPONENTS = 100
# A model of full rank ends in variances that are rounding errors and would squash all others.
_ROUNDING = 1e-10
_LEGEND = 0.24  # inches


def scree_figure(ds: xr.Dataset) -> Figure:
    """Variance ratios on a logarithmic axis, what was kept, both elbows and the noise edge.

    Parameters
    ----------
    ds : Dataset
        With ``component_variance``, ``component_variance_ratio``, ``component_keep``,
        ``component_signal_probability`` and the weights.

    Returns
    -------
    matplotlib.figure.Figure
        All components (up to 100) at the left, the first 20 at the right; below them the
        probabilities where the selector gave any.
    """
    shown = min(ds.sizes[v.DIM_COMPONENT], _MOST_COMPONENTS)
    ends = [shown] if shown <= _FIRST_COMPONENTS else [shown, _FIRST_COMPONENTS]
    probability = ds[v.COMPONENT_SIGNAL_PROBABILITY].values
    rated = bool(np.isfinite(probability).any())
    figure = new_plot(3.7 if rated else 2.9, decision(ds), warning_lines(ds), legend=_LEGEND)
    grid = figure.subplots(
        1 + rated,
        len(ends),
        sharex="col",
        squeeze=False,
        height_ratios=[3.2, 1][: 1 + rated],
    )
    for column, end in enumerate(ends):
        _draw_scree(grid[0, column], ds, end)
        if rated:
            _draw_probability(grid[1, column], ds, end)
        grid[-1, column].set_xlabel("component")
        grid[-1, column].set_xlim(0.2, end + 0.8)
    grid[0, 0].set_ylabel("share of the variance (%)")
    if rated:
        grid[1, 0].set_ylabel("probability\nof signal")
    height = figure.get_size_inches()[1]
    legend = figure.legend(
        *grid[0, 0].get_legend_handles_labels(),
        loc="upper left",
        bbox_to_anchor=(0, 1 - _LEGEND / height),
        ncols=5,
        columnspacing=1.2,
        handlelength=1.6,
        handletextpad=0.5,
        borderpad=0.6,
    )
    legend.set_in_layout(False)
    return figure


def _draw_scree(axes: Axes, ds: xr.Dataset, end: int) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    ratio = ds[v.COMPONENT_VARIANCE_RATIO].values
    kept = ds[v.COMPONENT_KEEP].values[:end] == 1
    number = ds[v.DIM_COMPONENT].values[:end]
    visible = 100 * np.where(ratio > ratio[0] * _ROUNDING, ratio, np.nan)[:end]
    axes.semilogy(number, visible, color=GREY, linewidth=0.5, zorder=1)
    all_kept = len(kept_numbers(ds))
    for chosen, face, edge, label in (
        (kept, BLUE, BLUE, f"kept ({all_kept})"),
        (~kept, "white", GREY, f"dropped ({len(ratio) - all_kept})"),
    ):
        axes.scatter(
            number[chosen],
            visible[chosen],
            s=12 if end <= _FIRST_COMPONENTS else 7,
            facecolor=face,
            edgecolor=edge,
            linewidth=0.7,
            zorder=3,
            label=label,
        )
    if not is_nmf(ds):
        _draw_guides(axes, ds)
    title = f"first {end}" if end < len(ratio) else f"all {end} components"
    axes.set_title(title, loc="left", color=DARK)
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1,) if high > 300 * low else (1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    if end <= _FIRST_COMPONENTS:
        axes.set_xticks(number, minor=True)
        axes.set_xticks([1, *range(5, end + 1, 5)] if end > 5 else number)


def _draw_guides(axes: Axes, ds: xr.Dataset) -> None:
    """Both elbows and the noise edge, which are those of principal components."""
    ratio = ds[v.COMPONENT_VARIANCE_RATIO].values
    first, second = elbows(ratio)
    axes.axvline(
        first + 0.5, color=VERMILION, linestyle="--", label=f"elbow: {first} components before it"
    )
    axes.axvline(
        second + 0.5, color=ORANGE, linestyle=":", linewidth=1.2, label=f"second elbow: {second}"
    )
    edge_ratio = noise_edge_ratio(ds)
    if edge_ratio is not None:
        axes.axhline(
            100 * edge_ratio,
            color=GREEN,
            linestyle="-.",
            label=f"noise edge of random matrices: {np.count_nonzero(ratio > edge_ratio)} above",
        )


def noise_edge_ratio(ds: xr.Dataset) -> float | None:
    """Variance ratio at the random-matrix noise edge; None where the counts have no weights."""
    try:
        edge = weighted_noise_edge(ds)
    except DataError:
        return None
    variance = float(ds[v.COMPONENT_VARIANCE][0])
    total = variance / float(ds[v.COMPONENT_VARIANCE_RATIO][0])
    return edge**2 / (ds.sizes[v.DIM_Y] * ds.sizes[v.DIM_X]) / total


def _draw_probability(axes: Axes, ds: xr.Dataset, end: int) -> None:
    probability = ds[v.COMPONENT_SIGNAL_PROBABILITY].values[:end]
    kept = ds[v.COMPONENT_KEEP].values[:end] == 1
    number = ds[v.DIM_COMPONENT].values[:end]
    axes.bar(number, probability, width=0.8, color=np.where(kept, BLUE, GREY))
    axes.axhline(0.5, color=DARK, linewidth=0.5, linestyle=":")
    axes.set(ylim=(0, 1.05), yticks=[0, 0.5, 1])
