"""Style of the pictures: fonts, colours, places on the page."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

POINTS_PER_INCH = 72
PAGE_WIDTH = 7.1  # inches: two columns of most journals
TITLE_SIZE, SMALL = 8.5, 6.0

# Okabe & Ito (2008): told apart whatever one's colour vision.
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
GREY, DARK = "#8A8A8A", "#333333"
# Of groups and of models, in this order; more than there are differ in their lines as well.
SERIES = (BLUE, VERMILION, GREEN, ORANGE, "#CC79A7", "#56B4E9", "#000000")
DASHES = ("-", "--", ":")


def series_line(number: int) -> dict[str, Any]:
    """Colour and dashes of one of several curves, no two of which are alike."""
    turn, place = divmod(number, len(SERIES))
    return {"color": SERIES[place], "linestyle": DASHES[turn % len(DASHES)]}


_RC: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7.0,
    # Titles and labels come from files: a dollar sign is a dollar sign.
    "text.parse_math": False,
    "axes.titlesize": 7.0,
    "axes.labelsize": 7.0,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "ytick.minor.size": 1.5,
    "ytick.minor.width": 0.4,
    "lines.linewidth": 0.8,
}
_HEAD = 0.32  # inches
_LINE_CHARACTERS = 150  # of small print that a page's width takes


def style() -> AbstractContextManager[None]:
    """Draw what is inside in the style of the reports."""
    import matplotlib

    return matplotlib.rc_context(_RC)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, that belongs to no window and no global list."""
    from edxdenoise.report.picture import Picture

    return Picture(width, height)


def new_plot(
    height: float, title: str, small_print: Sequence[str], *, legend: float = 0.0
) -> Figure:
    """A page-wide figure laid out between title and `legend` inches above, small print below."""
    wrap = textwrap.TextWrapper(_LINE_CHARACTERS)
    lines = [line for text in small_print for line in wrap.wrap(text)]
    foot = 0.11 * len(lines) + 0.1 if lines else 0.0
    whole = _HEAD + legend + height + foot
    figure = new_figure(PAGE_WIDTH, whole)
    figure.set_layout_engine("constrained", rect=(0, foot / whole, 1, height / whole))
    add_title(figure, title)
    add_text(
        figure,
        0.08,
        whole - 0.05,
        "\n".join(lines),
        va="bottom",
        fontsize=SMALL,
        color=VERMILION,
        parse_math=False,
    )
    return figure


def label_powers(axis: Axis) -> None:
    """Label the powers of ten of a logarithmic axis without markup, which is not parsed."""
    superscripts = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

    def label(value: float, _: float) -> str:
        power = round(np.log10(value))
        return f"10{str(power).translate(superscripts)}" if np.isclose(value, 10.0**power) else ""

    axis.set_major_formatter(label)


def add_title(figure: Figure, title: str) -> None:
    """The finding, at the head of a figure."""
    add_text(figure, 0.08, 0.08, title, fontsize=TITLE_SIZE, fontweight="bold")


def add_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes in a box given in inches from the figure's upper left corner."""
    page_width, page_height = figure.get_size_inches()
    bottom = page_height - top - height
    return figure.add_axes(
        (left / page_width, bottom / page_height, width / page_width, height / page_height)
    )


def add_text(figure: Figure, left: float, top: float, text: str, **kwargs: Any) -> None:
    """Text whose upper left corner is given in inches from the figure's."""
    page_width, page_height = figure.get_size_inches()
    settings = {"ha": "left", "va": "top", **kwargs}
    figure.text(left / page_width, 1 - top / page_height, text, **settings)
