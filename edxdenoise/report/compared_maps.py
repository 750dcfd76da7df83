"""One quantity by several models: maps side by side and their distributions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from edxdenoise.report.distributions import distribution
from edxdenoise.report.frame import draw_map, fit_map, frame_of, label_width
from edxdenoise.report.style import (
    BLUE,
    DARK,
    GREEN,
    ORANGE,
    PAGE_WIDTH,
    SMALL,
    VERMILION,
    add_axes,
    add_text,
    add_title,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = (BLUE, VERMILION, GREEN, ORANGE, "#CC79A7", "#56B4E9")
# Colours run between these percentiles of all maps together.
_ENDS = (2.0, 98.0)
# The peaks of flat maps are cut off at this multiple of the median peak.
_HIGHEST_PEAK = 2.5
# Bins of distributions: at% and ratio, as the perovskite article has them.
_ELEMENT_BIN, _RATIO_BIN = 1.0, 0.05
# Inches.
_MARGIN, _HEADER, _CAPTION, _BELOW, _BAR, _PLOT = 0.12, 0.4, 0.17, 0.35, 0.5, 1.7
_COLUMNS, _HIGHEST = 3, 2.6


def quantity_figure(compared: xr.Dataset, quantity: str) -> Figure:
    """Maps of one quantity by every model, all in the same colours, and their distributions.

    Parameters
    ----------
    compared : Dataset
        As `compare` gives it.
    quantity : str
        Such as ``"I/Pb"``.
    """
    own = compared.sel(quantity=quantity)
    images = {str(name): own["quantity_map"].sel(model=name).values for name in own["model"].values}
    truth = own["true_quantity_map"].values if "true_quantity_map" in own else None
    if truth is not None:
        images["truth"] = truth
    finite = np.concatenate([image[np.isfinite(image)] for image in images.values()])
    low, high = np.percentile(finite, _ENDS) if finite.size else (0.0, 1.0)
    frame = frame_of(compared)
    left = _MARGIN + label_width(frame)
    columns = min(_COLUMNS, len(images))
    width, height = fit_map(frame, (PAGE_WIDTH - left - _BAR) / columns - 0.1, _HIGHEST)
    rows = -(-len(images) // columns)
    down = _HEADER + rows * (_CAPTION + height + _BELOW)
    figure = new_figure(max(left + columns * (width + 0.1) + _BAR, 4.5), down + _PLOT + 0.75)
    add_title(figure, f"{quantity} by each model")
    for i, (name, image) in enumerate(images.items()):
        row, column = divmod(i, columns)
        x, y = left + column * (width + 0.1), _HEADER + row * (_CAPTION + height + _BELOW)
        add_text(figure, x, y, name + _in_words(own, name), color=DARK)
        axes = draw_map(
            figure,
            image,
            frame,
            (x, y + _CAPTION, width, height),
            ("inferno", low, high),
            bar_label=quantity if column == columns - 1 or i == len(images) - 1 else None,
            area_labels=column == 0,
        )
        axes.set_facecolor("0.75")
    plot = add_axes(figure, _MARGIN + 0.35, down + 0.1, figure.get_size_inches()[0] - 0.7, _PLOT)
    step = _ELEMENT_BIN if quantity.endswith("at%") else _RATIO_BIN
    for colour, (name, image) in zip((*_COLOURS[: len(images) - 1], *_COLOURS), images.items()):
        edges, share = distribution(image, step)
        if name == "truth":
            plot.stairs(share, edges, fill=True, color="0.85", label=name, zorder=0)
        else:
            plot.stairs(share, edges, color=colour, label=name)
    if finite.size:
        plot.set_xlim(low, high)
        shown = [
            distribution(image, step)[1].max() for name, image in images.items() if name != "truth"
        ]
        plot.set_ylim(0, min(1.15 * max(shown), _HIGHEST_PEAK * np.median(shown)))
    plot.set_xlabel(quantity)
    plot.set_ylabel("% of pixels")
    plot.legend(loc="upper right", fontsize=SMALL)
    add_text(
        figure,
        _MARGIN,
        down + _PLOT + 0.5,
        "Grey: the element or divisor is hardly there. Numbers: contrast kept and noise, from "
        "held-out counts. High peaks of distributions are cut off.",
        fontsize=SMALL,
        color=DARK,
    )
    return figure


def _in_words(own: xr.Dataset, name: str) -> str:
    if name == "truth":
        return ""
    part = own.sel(model=name, region="all")
    contrast, noise = float(part["quantity_contrast"]), float(part["quantity_noise"])
    return f": {100 * contrast:.0f} %, {np.sqrt(max(noise, 0)):.2g}".replace("-", "−")
