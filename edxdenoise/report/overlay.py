"""Two or three maps in one picture, each in another colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from edxdenoise.report.frame import NO_VALUE, draw_map, end_labels, single_map
from edxdenoise.report.named import NamedMap
from edxdenoise.report.style import DARK, SMALL, add_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Vermilion, bluish green and blue: they add up to white, and differ in every kind of colour vision,
# as red and green do not.
COLOURS = np.array([[1.0, 0.3, 0.0], [0.0, 0.7, 0.3], [0.15, 0.3, 1.0]])
COLOUR_NAMES = "vermilion", "green", "blue"
_LINE = 0.13  # inches


def overlaid(shares: Sequence[np.ndarray]) -> np.ndarray:
    """Add up maps in their colours, shape (y, x, 3), from 0 to 1.

    Parameters
    ----------
    shares : sequence of array, shape (y, x)
        From 0 (black) to 1 (full colour); NaN where there is no value, grey where none has any.

    Examples
    --------
    >>> overlaid(3 * [np.array([[1.0, 0.0, np.nan]])])[0].tolist()
    [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [0.75, 0.75, 0.75]]
    """
    clipped = np.clip(shares, 0, 1)
    summed = np.einsum("kyx,kc->yxc", np.nan_to_num(clipped), COLOURS[: len(clipped)])
    summed[np.isnan(clipped).all(axis=0)] = float(NO_VALUE)
    return np.minimum(summed, 1)


def overlaid_bytes(shares: Sequence[np.ndarray]) -> np.ndarray:
    """Return the same as bytes, shape (y, x, 3)."""
    return np.round(255 * overlaid(shares)).astype(np.uint8)


def overlay_figure(ds: xr.Dataset, maps: Sequence[NamedMap]) -> Figure:
    """Draw two or three maps in one, with a scale bar and what each colour stands for.

    Parameters
    ----------
    ds : Dataset
        For the geometry.
    maps : sequence of NamedMap
        Quantities are black at 0, images at the lower end of their grey.
    """
    figure, frame, box = single_map(ds, "", above=_LINE * len(maps))
    shares = []
    for number, (one, colour) in enumerate(zip(maps, COLOURS)):
        cmap, low, high = one.colours
        low = low if cmap == "gray" else 0.0
        shares.append((one.image - low) / (high - low))
        top = 0.06 + _LINE * number
        ends = " to ".join(end_labels(low, high))
        words = f"{one.caption}: {ends} {one.unit}".strip()
        add_text(figure, box[0], top, "■", color=tuple(colour), fontsize=SMALL)
        add_text(figure, box[0] + 0.12, top, words, color=DARK, fontsize=SMALL, parse_math=False)
    draw_map(figure, overlaid(shares), frame, box, ("gray", 0.0, 1.0))
    return figure
