"""One map of a quantity: its colours, pixels without a value, pixels below the limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from scipy.ndimage import uniform_filter

from edxdenoise.report.frame import (
    Frame,
    count_range,
    draw_map,
    fit_map,
    frame_of,
    grey_range,
    label_width,
)
from edxdenoise.report.style import DARK, add_text, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A pixel is well known up to this many times the usual standard deviation, or where its value is
# that many standard deviations.
FAR_ABOVE, _MANY = 3.0, 5.0
_STDDEV_COLOURS = "cividis"
_NO_VALUE = "0.75"
# Maps whose smallest values, at this percentile, are above this share of the largest have colours
# that begin there.
_LOWEST, _EVEN = 0.5, 0.4
# Undetected pixels are hatched where most of a neighbourhood of this share of the map are.
_NEIGHBOURHOOD = 1 / 100
# Inches.
_MARGIN, _TITLE, _BELOW, _BAR = 0.12, 0.3, 0.4, 0.55
_WIDTH, _HEIGHT, _LEAST_WIDTH = 3.0, 4.0, 2.2


def well_known(value: np.ndarray, stddev: np.ndarray, specimen: np.ndarray) -> np.ndarray:
    """Pixels whose standard deviation is not far above the usual one, median over `specimen`.

    Nor are pixels left out whose value is many standard deviations. Others, such as those of
    vacuum or of a phase none of whose lines are quantified, divide next to nothing by next to
    nothing.

    Examples
    --------
    >>> specimen = np.array([True, True, False, False, False])
    >>> stddev = np.array([1.0, 2.0, 9.0, 9.0, np.nan])
    >>> well_known(np.array([5.0, 0.0, 90.0, 20.0, np.nan]), stddev, specimen)
    array([ True,  True,  True, False, False])
    """
    finite = np.isfinite(value) & np.isfinite(stddev)
    usual = stddev[finite & specimen]
    limit = FAR_ABOVE * np.median(usual) if usual.size else np.inf
    known = np.zeros(value.shape, bool)
    known[finite] = stddev[finite] <= np.maximum(limit, np.abs(value[finite]) / _MANY)
    return known


def value_range(
    image: np.ndarray,
    known: np.ndarray,
    unit: str,
    *,
    stddev: np.ndarray | None = None,
    error: bool = False,
) -> tuple[str, float, float]:
    """Colour map and its ends for a map of a quantity, never narrower than twice its error.

    Parameters
    ----------
    image, known, unit, stddev, error
        As `draw_value_map` takes them.
    """
    inside = known & np.isfinite(image)
    shown = image[inside]
    cmap, low, high = count_range(shown if shown.size else np.zeros(1))
    if shown.size and not error and unit != "counts":
        lowest = float(np.percentile(shown, _LOWEST))
        # From 0, what little a nearly even map varies by would not be seen.
        low = lowest if lowest > _EVEN * high else 0.0
    usual = float(np.nanmedian(stddev[inside])) if stddev is not None and shown.size else 0.0
    # Narrower colours would show the noise as structure, and an even map as nothing.
    if not high - low > max(2 * usual, 1e-6 * abs(high)):
        middle = (low + high) / 2
        low = max(middle - usual, 0.0) if usual else 0.0
        high = low + 2 * usual if usual else max(high, 1.0)
    if unit in ("at%", "wt%") and low < 100:
        high = min(high, 100.0)
    return (_STDDEV_COLOURS if error else cmap), low, high


def net_range(image: np.ndarray, noise: float) -> tuple[str, float, float]:
    """Colour map and its ends for net counts: from 0, never narrower than the noise of a pixel."""
    cmap, low, high = count_range(image[np.isfinite(image)])
    return cmap, low, max(high, noise)


def draw_value_map(
    figure: Figure,
    image: np.ndarray,
    frame: Frame,
    box: tuple[float, float, float, float],
    known: np.ndarray,
    unit: str,
    *,
    stddev: np.ndarray | None = None,
    error: bool = False,
    labels: bool = True,
) -> Axes:
    """A map with scale bar and colour bar, grey where it has no value.

    Parameters
    ----------
    figure : Figure
    image : array, shape (y, x)
    frame : Frame
    box : tuple of float
        As `draw_map` takes it.
    known : array of bool, shape (y, x)
        Pixels that the ends of the colours are taken from.
    unit : str
        Of the colour bar.
    stddev : array, shape (y, x), optional
        Of the image; colours are never narrower.
    error : bool
        Whether it is a map of standard deviations, which have colours of their own.
    labels : bool
        Whether to name stacked areas.
    """
    colours = value_range(image, known, unit, stddev=stddev, error=error)
    axes = draw_map(figure, image, frame, box, colours, bar_label=unit, area_labels=labels)
    axes.set_facecolor(_NO_VALUE)
    return axes


def hatch_undetected(axes: Axes, detected: np.ndarray) -> None:
    """Hatch a map where most pixels around are below the detection limit."""
    import matplotlib

    size = 2 * round(_NEIGHBOURHOOD * min(detected.shape)) + 3
    share = uniform_filter((~detected).astype(float), size, mode="nearest")
    if min(detected.shape) < 2 or not (share > 0.5).any():
        return
    with matplotlib.rc_context({"hatch.linewidth": 0.3}):
        hatched = axes.contourf(share, levels=[0.5, 2.0], colors="none", hatches=["////"])
    hatched.set(edgecolor="0.8", linewidth=0)


def map_figure(
    ds: xr.Dataset,
    image: np.ndarray,
    stddev: np.ndarray | None,
    caption: str,
    unit: str,
    known: np.ndarray,
) -> Figure:
    """One map as wide as a column, with scale bar and colour bar.

    Parameters
    ----------
    ds : Dataset
        For the geometry.
    image : array, shape (y, x)
    stddev : array, shape (y, x), optional
        Of the image; without it, the image is one of standard deviations.
    caption : str
    unit : str
        Of the colour bar.
    known : array of bool, shape (y, x)
        Pixels that the ends of the colours are taken from.
    """
    figure, frame, box = _single_map(ds, caption)
    draw_value_map(figure, image, frame, box, known, unit, stddev=stddev, error=stddev is None)
    return figure


def image_figure(ds: xr.Dataset, image: np.ndarray, caption: str) -> Figure:
    """Draw an image recorded with the counts, shape (y, x), as `map_figure` draws a map."""
    figure, frame, box = _single_map(ds, caption)
    draw_map(figure, image, frame, box, grey_range(image))
    return figure


def _single_map(
    ds: xr.Dataset, caption: str
) -> tuple[Figure, Frame, tuple[float, float, float, float]]:
    """A figure with its caption, and the box in inches of the one map that it has room for."""
    frame = frame_of(ds)
    left = _MARGIN + label_width(frame)
    width, height = fit_map(frame, _WIDTH, _HEIGHT)
    figure = new_figure(max(left + width + _BAR, _LEAST_WIDTH), _TITLE + height + _BELOW)
    add_text(figure, left, 0.1, caption, color=DARK, parse_math=False)
    return figure, frame, (left, _TITLE, width, height)
