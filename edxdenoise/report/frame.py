"""Maps with scale bar, colour bar, borders of stacked areas and pixels without a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from scipy.ndimage import uniform_filter

from edxdenoise import schema as v
from edxdenoise.report.style import DARK, POINTS_PER_INCH, SMALL, add_axes, add_text, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Name of a colour map, and the values at its ends.
Colours = tuple[str, float, float]

# Share of a map's width that its scale bar takes at most.
_BAR_SHARE = 1 / 3
# Beyond these, height over width, a map is drawn out of scale: a single row must stay visible.
_FLATTEST, _TALLEST = 1 / 12, 6.0
_PERCENTILE = 99.5
_BAR_DROP = 4.5  # points from a map down to its scale bar
_LABEL_DROP = 12.0  # and to the label of its colour bar
_LABEL_LENGTH = 16
# Grey of pixels without a value.
NO_VALUE = "0.75"
_SEQUENTIAL, _DIVERGING = "inferno", "RdBu_r"


def nice_length(largest: float) -> float:
    """The longest of 1, 2 and 5 times a power of ten that is not above `largest`.

    Examples
    --------
    >>> nice_length(370.0), nice_length(0.05), nice_length(1.0)
    (200.0, 0.05, 1.0)
    """
    power = 10.0 ** np.floor(np.log10(largest))
    # Rounding must not make 0.05 less than 5 hundredths.
    step = max(n for n in (1, 2, 5) if n * power <= largest * (1 + 1e-9))
    return float(step * power)


def length_label(length: float, units: str) -> str:
    """A length as one says it.

    Examples
    --------
    >>> length_label(2000, "nm"), length_label(0.5, "µm"), length_label(1, "pixel")
    ('2 µm', '500 nm', '1 pixel')
    """
    if units == "nm" and length >= 1000:
        length, units = length / 1000, "µm"
    elif units == "µm" and length < 1:
        length, units = length * 1000, "nm"
    elif units == "pixel" and length != 1:
        units = "pixels"
    return f"{length:g} {units}"


@dataclass(frozen=True)
class Frame:
    """Geometry that all maps of a Dataset share.

    Parameters
    ----------
    columns : int
        Pixels along x.
    step : float
        Width of a pixel in `units`.
    units : str
    ratio : float
        Height over width as drawn.
    to_scale : bool
        Whether that is the true ratio.
    borders : tuple of float
        Where one stacked area ends and the next begins, in rows.
    areas : tuple of (float, str)
        Middle row and name of each stacked area; none where there is but one.
    """

    columns: int
    step: float
    units: str
    ratio: float
    to_scale: bool
    borders: tuple[float, ...]
    areas: tuple[tuple[float, str], ...]


def frame_of(ds: xr.Dataset) -> Frame:
    """Geometry of the maps of `ds`."""
    rows, columns = ds.sizes[v.DIM_Y], ds.sizes[v.DIM_X]
    units = str(ds[v.DIM_X].attrs.get("units") or "pixel")
    x_step, y_step = (_step(ds[dim].values) for dim in (v.DIM_X, v.DIM_Y))
    step = x_step or y_step or 1.0
    true_ratio = rows * (y_step or step) / (columns * step)
    ratio = float(np.clip(true_ratio, _FLATTEST, _TALLEST))
    borders: tuple[float, ...] = ()
    areas: tuple[tuple[float, str], ...] = ()
    if v.COORD_AREA in ds.coords:
        numbers = ds[v.COORD_AREA].values
        first = np.flatnonzero(np.diff(numbers)) + 1
        if len(first):
            borders = tuple(float(row) - 0.5 for row in first)
            edges = [0, *first, rows]
            names = list(ds[v.COORD_AREA].attrs.get("area_label", []))
            if len(names) != len(edges) - 1:
                names = [str(numbers[row]) for row in edges[:-1]]
            middles = [(low + high - 1) / 2 for low, high in zip(edges, edges[1:])]
            areas = tuple((middle, str(name)) for middle, name in zip(middles, names))
    return Frame(columns, step, units, ratio, ratio == true_ratio, borders, areas)


def _step(positions: np.ndarray) -> float:
    """Distance of pixels; 0 where there is but one."""
    return abs(float(positions[-1] - positions[0])) / max(len(positions) - 1, 1)


def label_width(frame: Frame) -> float:
    """Inches that the names of the areas take left of a map."""
    longest = max((len(shortened(name)) for _, name in frame.areas), default=0)
    return 0.058 * longest + 0.05 if longest else 0.0


def shortened(name: str) -> str:
    """A name as long as there is room for beside a map."""
    return name if len(name) <= _LABEL_LENGTH else f"{name[: _LABEL_LENGTH - 1]}…"


def colour_range(image: np.ndarray) -> Colours:
    """Colour map and its ends for a score map: symmetric about 0 where it has both signs.

    Few pixels may lie far out, so the ends are percentiles.
    """
    extreme = float(np.percentile(np.abs(image), _PERCENTILE))
    extreme = extreme or float(np.abs(image).max()) or 1.0
    if np.percentile(image, 100 - _PERCENTILE) >= 0:
        return _SEQUENTIAL, 0.0, extreme
    return _DIVERGING, -extreme, extreme


def count_range(image: np.ndarray) -> Colours:
    """Colour map and its ends for a map of counts: from 0."""
    top = float(np.percentile(image, _PERCENTILE)) or float(image.max())
    return _SEQUENTIAL, 0.0, top if top > 0 else 1.0


def grey_range(image: np.ndarray) -> Colours:
    """Colour map and its ends for an image in arbitrary units."""
    shown = image[np.isfinite(image)]
    low, high = np.percentile(shown, (100 - _PERCENTILE, _PERCENTILE)) if shown.size else (0, 1)
    return "gray", float(low), float(high) if high > low else float(low) + 1.0


def fit_map(frame: Frame, width: float, height: float) -> tuple[float, float]:
    """Inches (width, height) of the largest map that fits into a box."""
    drawn = min(width, height / frame.ratio)
    return drawn, drawn * frame.ratio


def draw_map(
    figure: Figure,
    image: np.ndarray,
    frame: Frame,
    box: tuple[float, float, float, float],
    colours: Colours,
    *,
    bar_label: str | None = None,
    area_labels: bool = True,
) -> Axes:
    """Draw a map into a box (left, top, width, height in inches) with a scale bar below.

    Parameters
    ----------
    figure : Figure
    image : array, shape (y, x)
    frame : Frame
    box : tuple of float
    colours : Colours
    bar_label : str, optional
        Quantity of the colour bar; no bar without it.
    area_labels : bool
        Whether to name stacked areas at the left.
    """
    left, top, box_width, box_height = box
    width, height = fit_map(frame, box_width, box_height)
    axes = add_axes(figure, left, top, width, height)
    cmap, low, high = colours
    drawn = axes.imshow(image, cmap=cmap, vmin=low, vmax=high, aspect="auto")
    axes.set(xticks=[], yticks=[], facecolor=NO_VALUE)
    for spine in axes.spines.values():
        spine.set_visible(True)
    for row in frame.borders:
        axes.axhline(row, color="white", linewidth=1.4)
        axes.axhline(row, color="black", linewidth=0.6)
    if area_labels:
        for middle, name in frame.areas:
            axes.annotate(
                shortened(name),
                (0, middle),
                (-3, 0),
                xycoords=axes.get_yaxis_transform(),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=SMALL,
                annotation_clip=False,
                parse_math=False,
            )
    _draw_scale_bar(axes, frame)
    if bar_label is not None:
        bar = figure.colorbar(drawn, cax=add_axes(figure, left + width + 0.05, top, 0.06, height))
        bar.outline.set_linewidth(0.4)
        middle = (low + high) / 2
        ticks = [low, middle, high] if height > 0.5 else [low, high]
        bar.set_ticks(ticks, labels=end_labels(*ticks))
        bar.ax.tick_params(size=1.5, pad=1.5, labelsize=5.5)
        _write_below(bar.ax, 0, bar_label, (0, _LABEL_DROP))
    return axes


def end_labels(*values: float) -> list[str]:
    """Numbers with two digits, as a colour bar has room for, or as many as tell them apart.

    Examples
    --------
    >>> end_labels(0.0, 1534.0), end_labels(-0.00312, 0.0031), end_labels(48.1, 48.4)
    (['0', '1,500'], ['−0.0031', '0.0031'], ['48.1', '48.4'])
    """
    for digits in range(2, 8):
        rounded = [float(f"{value:.{digits}g}") for value in values]
        if len(set(rounded)) == len(set(values)):
            break
    whole = [10 <= abs(value) < 1e6 and value == int(value) for value in rounded]
    texts = [
        f"{value:,.0f}" if plain else f"{value:.{digits}g}" for value, plain in zip(rounded, whole)
    ]
    return [text.replace("-", "−") for text in texts]


def _draw_scale_bar(axes: Axes, frame: Frame) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.transforms import ScaledTranslation

    length = nice_length(frame.columns * frame.step * _BAR_SHARE)
    if frame.units == "pixel":
        length = max(length, 1.0)
    figure = axes.figure
    below = axes.get_xaxis_transform() + ScaledTranslation(
        0, -_BAR_DROP / POINTS_PER_INCH, figure.dpi_scale_trans
    )
    end = length / frame.step - 0.5
    axes.add_artist(
        Line2D(
            [-0.5, end],
            [0, 0],
            color="black",
            linewidth=1.8,
            solid_capstyle="butt",
            transform=below,
            clip_on=False,
            label="scale bar",
        )
    )
    label = length_label(length, frame.units)
    if not frame.to_scale:
        label += " (height not to scale)"
    _write_below(axes, end, label, (3, _BAR_DROP))


def _write_below(axes: Axes, x: float, text: str, shift: tuple[float, float]) -> None:
    """Text below a map, `shift` points right and down from `x` on its lower edge."""
    axes.annotate(
        text,
        (x, 0),
        (shift[0], -shift[1]),
        xycoords=axes.get_xaxis_transform(),
        textcoords="offset points",
        va="center",
        fontsize=SMALL,
        annotation_clip=False,
    )


# A pixel is well known up to this many times the usual standard deviation, or where its value is
# that many standard deviations.
FAR_ABOVE, _MANY = 3.0, 5.0
_STDDEV_COLOURS = "cividis"
# Maps whose smallest values, at this percentile, are above this share of the largest have colours
# that begin there.
_LOWEST, _EVEN = 0.5, 0.4
# Undetected pixels are hatched where most of a neighbourhood of this share of the map are.
_NEIGHBOURHOOD = 1 / 100
# Inches.
_MARGIN, _BELOW, _BAR = 0.12, 0.4, 0.55
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
) -> Colours:
    """Colour map and its ends for a map of a quantity, never narrower than twice its error.

    Parameters
    ----------
    image : array, shape (y, x)
    known : array of bool, shape (y, x)
        Pixels that the ends of the colours are taken from.
    unit : str
    stddev : array, shape (y, x), optional
        Of the image.
    error : bool
        Whether it is a map of standard deviations, which have colours of their own.
    """
    inside = known & np.isfinite(image)
    shown = image[inside]
    cmap, low, high = count_range(shown if shown.size else np.zeros(1))
    if shown.size and not error and not unit.endswith("counts"):
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


def net_range(image: np.ndarray, noise: float) -> Colours:
    """Colour map and its ends for net counts: from 0, never narrower than the noise of a pixel."""
    cmap, low, high = count_range(image[np.isfinite(image)])
    return cmap, low, max(high, noise)


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
    ds: xr.Dataset, image: np.ndarray, colours: Colours, caption: str, unit: str | None = None
) -> Figure:
    """Draw one map as wide as a column, with scale bar and, where it has a unit, colour bar.

    Parameters
    ----------
    ds : Dataset
        For the geometry.
    image : array, shape (y, x)
    colours : Colours
    caption : str
    unit : str, optional
        Of the colour bar.
    """
    figure, frame, box = single_map(ds, caption)
    draw_map(figure, image, frame, box, colours, bar_label=unit)
    return figure


def single_map(
    ds: xr.Dataset, caption: str, *, above: float = 0.2
) -> tuple[Figure, Frame, tuple[float, float, float, float]]:
    """A figure with its caption, and the box in inches of the one map that it has room for."""
    frame = frame_of(ds)
    left, top = _MARGIN + label_width(frame), above + 0.1
    width, height = fit_map(frame, _WIDTH, _HEIGHT)
    figure = new_figure(max(left + width + _BAR, _LEAST_WIDTH), top + height + _BELOW)
    add_text(figure, left, 0.1, caption, color=DARK, parse_math=False)
    return figure, frame, (left, top, width, height)
