"""A comparison of models as a page with pictures, in a folder that appears whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from edxdenoise._version import __version__
from edxdenoise.io import atomic_output, file_name, write_table
from edxdenoise.report.frame import draw_map, fit_map, frame_of, label_width
from edxdenoise.report.quantities import distribution
from edxdenoise.report.style import (
    BLUE,
    DARK,
    ORANGE,
    PAGE_WIDTH,
    SMALL,
    add_axes,
    add_text,
    add_title,
    new_figure,
    series_line,
    style,
)
from edxdenoise.report.text import warning_lines
from edxdenoise.report.verdicts import (
    MODELS_CAPTION,
    QUANTITIES_CAPTION,
    model_table,
    quantity_table,
    root,
    verdict,
)
from edxdenoise.xray import line_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours run between these percentiles of all maps together.
_ENDS = (2.0, 98.0)
# The peaks of flat maps are cut off at this multiple of the median peak.
_HIGHEST_PEAK = 2.5
# Bins of distributions: at% and ratio, as the perovskite article has them.
_ELEMENT_BIN, _RATIO_BIN = 1.0, 0.05
# Inches.
_CAPTION, _BELOW, _BAR, _PLOT = 0.17, 0.35, 0.5, 1.7
_COLUMNS, _HIGHEST = 3, 2.6
_MARGIN, _HEADER, _ROW, _NAME = 0.12, 0.42, 0.2, 0.95
_CELL = 0.48
# z-scores of residuals end the colours here, and noise at this multiple of the spread.
_LARGE_Z, _LARGE_NOISE = 6.0, 2.0

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<style>
body { font: 15px/1.45 sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 0.5em 0 1.5em; font-size: 13px }
td, th { padding: 0.15em 0.8em; text-align: right; border-bottom: 1px solid #ddd }
td:first-child, th:first-child { text-align: left }
img { max-width: 100%; display: block; margin: 1em 0 }
</style></head><body>
<h1>{{ title }}</h1>
{% for sentence in sentences %}<p>{{ sentence }}</p>
{% endfor %}{% for line in warnings %}<p>{{ line }}</p>
{% endfor %}{% for caption, (heads, rows) in tables.items() %}<h2>{{ caption }}</h2>
<table><tr><th></th>{% for head in heads %}<th>{{ head }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
{% endfor %}{% for picture in pictures %}<img src="{{ picture }}" alt="{{ picture }}">
{% endfor %}<p>edxdenoise {{ version }}, {{ source }}</p>
</body></html>
"""


def write_comparison(compared: xr.Dataset, folder: str | Path, *, overwrite: bool = False) -> None:
    """Write what `compare` found: ``index.html``, its pictures and the numbers as CSV.

    Parameters
    ----------
    compared : Dataset
        As `compare` gives it.
    folder : str or Path
        Folder to make.
    overwrite : bool
        Whether a comparison that stands there may be replaced.

    Raises
    ------
    FormatError
        If the folder exists and may not be replaced, or cannot be written.
    """
    with atomic_output(folder, overwrite, folder=True) as partial, style():
        figures = {"models.png": models_figure(compared)}
        if "quantity_contrast" in compared:
            figures["quality.png"] = quality_figure(compared)
            for quantity in compared["quantity"].values:
                name = f"map_{file_name(str(quantity))}.png"
                figures[name] = quantity_figure(compared, str(quantity))
        if "residual" in compared:
            figures["residuals.png"] = residual_figure(compared)
        for name, figure in figures.items():
            figure.savefig(partial / name)
        _write_numbers(compared, partial)
        _write_page(compared, partial, list(figures))


def models_figure(compared: xr.Dataset) -> Figure:
    """Held-out deviance above that of the best model, and squared error, with the truth beside."""
    own = compared.sel(region="all")
    names = [str(name) for name in own["model"].values]
    best = int(np.argmin(own["deviance"].values))
    panels = [
        (
            "deviance",
            "Deviance above the best",
            own["deviance"].values - own["deviance"].values[best],
            own["deviance_stddev"].values[best],
        ),
        ("error", "Squared error", own["error"].values, own["error_stddev"].values),
    ]
    height = _ROW * len(names)
    figure = new_figure(PAGE_WIDTH, _HEADER + 0.2 + height + 0.65)
    add_title(figure, f"Held-out counts: {names[best]} has the lowest deviance")
    width = (PAGE_WIDTH - _NAME - 0.5) / 2
    for i, (name, caption, values, stddev) in enumerate(panels):
        axes = add_axes(figure, _NAME + i * (width + 0.3), _HEADER + 0.2, width, height)
        places = np.arange(len(names))
        axes.barh(places, 100 * values, 0.6, color=BLUE, alpha=0.35)
        axes.errorbar(100 * values, places, xerr=100 * stddev, fmt="o", color=BLUE, markersize=2.5)
        if f"true_{name}" in own:
            true = own[f"true_{name}"].values
            true = true - true[best] if name == "deviance" else true
            axes.plot(100 * true, places, "x", color=ORANGE, markersize=5)
        axes.set_yticks(places, names if i == 0 else [])
        axes.invert_yaxis()
        axes.set_title(caption, loc="left")
        axes.set_xlabel("% of the noise of raw counts")
        axes.axvline(0, color=DARK, linewidth=0.5)
    note = "Dots: from held-out counts, with standard errors."
    if "true_error" in own:
        note += " Crosses: the truth of the same models."
    add_text(figure, _MARGIN, _HEADER + 0.65 + height, note, fontsize=SMALL, color=DARK)
    return figure


def quality_figure(compared: xr.Dataset) -> Figure:
    """Contrast kept and noise of every quantity and model, as a table of colours with numbers."""
    own = compared.sel(region="all")
    names = [str(name) for name in own["model"].values]
    quantities = [str(name) for name in own["quantity"].values]
    contrast = own["quantity_contrast"].transpose("quantity", "model").values
    spread = root(own["quantity_spread"].values)
    noise = root(own["quantity_noise"].transpose("quantity", "model").values)
    rows, columns = contrast.shape
    left = _NAME - 0.2
    width, height = 2 * _CELL * columns, _ROW * rows
    figure = new_figure(max(left + width + _MARGIN, 5.2), _HEADER + 0.42 + height + 0.45)
    add_title(figure, "Contrast kept, and noise in the units of the quantity")
    axes = add_axes(figure, left, _HEADER + 0.42, width, height)
    axes.set(xlim=(0, 2 * columns), ylim=(rows, 0))
    for row in range(rows):
        for column in range(columns):
            kept, scatter = contrast[row, column], noise[row, column]
            level = np.divide(scatter, _LARGE_NOISE * spread[row], where=spread[row] > 0, out=None)
            cells = (
                ("BrBG", np.clip(kept, 0, 1), f"{100 * kept:.0f} %"),
                ("Oranges", 0.8 * np.clip(level, 0, 1), f"{scatter:.2g}"),
            )
            for part, (cmap, value, text) in enumerate(cells):
                _cell(axes, 2 * column + part, row, cmap, float(value), text)
    axes.set_yticks(np.arange(rows) + 0.5, quantities)
    axes.set_xticks(
        np.arange(2 * columns) + 0.5, [word for _ in names for word in ("contrast", "noise")]
    )
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    for column, name in enumerate(names):
        add_text(
            figure,
            left + (2 * column + 1) * _CELL,
            _HEADER + 0.08,
            name,
            ha="center",
            fontweight="bold",
        )
        axes.axvline(2 * column, color="white", linewidth=2)
    add_text(
        figure,
        _MARGIN,
        _HEADER + 0.5 + height,
        "Contrast: slope of the map on the truth, 100 % where all differences are shown. Noise: "
        "scatter about it;\ncolours end at twice the spread of the quantity itself. Both from "
        "held-out counts, pixels weighted by their divisor.",
        fontsize=SMALL,
        color=DARK,
    )
    return figure


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
    for number, (name, image) in enumerate(images.items()):
        edges, share = distribution(image, step)
        if name == "truth":
            plot.stairs(share, edges, fill=True, color="0.85", label=name, zorder=0)
        else:
            plot.stairs(share, edges, label=name, **series_line(number))
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


def _cell(axes: Axes, column: int, row: int, cmap: str, value: float, text: str) -> None:
    import matplotlib
    from matplotlib.patches import Rectangle

    finite = np.isfinite(value)
    colour = matplotlib.colormaps[cmap](value) if finite else (0.75, 0.75, 0.75, 1.0)
    axes.add_patch(Rectangle((column, row), 1, 1, facecolor=colour, edgecolor="white"))
    luminance = float(np.dot(colour[:3], (0.299, 0.587, 0.114)))
    axes.text(
        column + 0.5,
        row + 0.5,
        text.replace("-", "−") if finite else "–",
        ha="center",
        va="center",
        fontsize=SMALL,
        color="black" if luminance > 0.5 else "white",
    )


def residual_figure(compared: xr.Dataset) -> Figure:
    """Net counts held out less those predicted, in standard deviations: by region, line, model."""
    names = [str(name) for name in compared["model"].values]
    regions = [str(name) for name in compared["region"].values]
    lines = [line_label(str(name)) for name in compared["line"].values]
    residual = compared["residual"].transpose("model", "region", "line").values
    left = 0.2 + 0.06 * max(map(len, regions))
    width = (PAGE_WIDTH - left - 0.7) / len(names)
    height = 0.15 * len(regions)
    figure = new_figure(PAGE_WIDTH, _HEADER + 0.5 + height + 0.35)
    add_title(figure, "Net counts held out less those predicted, in standard deviations")
    for i, name in enumerate(names):
        axes = add_axes(figure, left + i * width, _HEADER + 0.5, 0.94 * width, height)
        axes.set_facecolor("0.75")
        drawn = axes.imshow(
            residual[i], cmap="RdBu_r", vmin=-_LARGE_Z, vmax=_LARGE_Z, aspect="auto"
        )
        axes.set_title(name, fontweight="bold", pad=26)
        axes.set_xticks(range(len(lines)), lines, rotation=90)
        axes.set_yticks(range(len(regions)), regions if i == 0 else [])
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
    bar = add_axes(figure, PAGE_WIDTH - 0.55, _HEADER + 0.5, 0.08, height)
    figure.colorbar(drawn, cax=bar)
    add_text(
        figure,
        _MARGIN,
        _HEADER + 0.6 + height,
        "Large values: the model loses structure. Clusters: pixels alike in the components of one "
        "of the models.",
        fontsize=SMALL,
        color=DARK,
    )
    return figure


def _write_numbers(compared: xr.Dataset, folder: Path) -> None:
    tables = {"models": ("model", "region"), "quantities": ("model", "quantity", "region")}
    for name, dims in tables.items():
        own = [key for key, array in compared.data_vars.items() if array.dims == dims]
        if own:
            frame = compared[own].drop_vars("kept").to_dataframe()[own].reset_index()
            write_table(folder / f"{name}.csv", frame)


def _write_page(compared: xr.Dataset, folder: Path, pictures: Sequence[str]) -> None:
    from jinja2 import Environment

    tables = {MODELS_CAPTION: model_table(compared)}
    if "quantity_contrast" in compared:
        tables[QUANTITIES_CAPTION] = quantity_table(compared)
    page = Environment(autoescape=True).from_string(_PAGE)
    text = page.render(
        title=f"Models compared: {compared.attrs.get('title') or 'spectrum image'}",
        sentences=verdict(compared),
        warnings=warning_lines(compared),
        tables=tables,
        pictures=pictures,
        version=__version__,
        source=compared.attrs.get("source", "data in memory"),
    )
    (folder / "index.html").write_text(text, encoding="utf-8")
