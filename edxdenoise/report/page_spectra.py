"""Spectra and scree plot of the page, drawn by Bokeh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.cube import sum_spectrum
from edxdenoise.report.findings import Findings
from edxdenoise.report.maps import last_energy
from edxdenoise.report.sums import denoised_spectrum

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure

_SHOWN_PEAKS = 24
# Share of the energies shown that is left free at their start.
_ROOM = 0.012


def spectrum_figure(found: Findings, name: str, log: bool) -> Figure:
    from bokeh.models import (
        BoxZoomTool,
        NumeralTickFormatter,
        PanTool,
        ResetTool,
        WheelZoomTool,
    )
    from bokeh.plotting import figure

    energy = found.ds[v.DIM_ENERGY].values
    plot = figure(
        name=name,
        height=320,
        sizing_mode="stretch_width",
        y_axis_type="log" if log else "linear",
        tools="",
        toolbar_location="above",
        x_axis_label="energy (keV)",
        y_axis_label=f"counts / {1000 * (energy[1] - energy[0]):.4g} eV",
        min_border_right=10,
    )
    zoom = BoxZoomTool(dimensions="width")
    plot.add_tools(zoom, PanTool(), WheelZoomTool(dimensions="width"), ResetTool())
    plot.toolbar.active_drag = zoom
    plot.toolbar.logo = None
    if not log:
        plot.yaxis.formatter = NumeralTickFormatter(format="0,0")
    return plot


def energy_shown(found: Findings) -> Any:
    """Range of energies that have counts, with room for the name of a line at its start."""
    from bokeh.models import Range1d

    energy = found.ds[v.DIM_ENERGY].values
    last, filled = last_energy(energy, found.peaks), np.flatnonzero(sum_spectrum(found.ds))
    room = _ROOM * (last - energy[0])
    first = energy[filled[0] if filled.size else 0] - room
    return Range1d(float(first), last, bounds=(float(energy[0] - room), float(energy[-1])))


def sum_figure(found: Findings) -> Figure:
    from bokeh.models import HoverTool, Range1d

    ds = found.ds
    energy = ds[v.DIM_ENERGY].values
    raw = sum_spectrum(ds)
    plot = spectrum_figure(found, "sum-spectrum", log=True)
    highest = max(float(raw.max()), 1.0)
    filled = raw[raw > 0]
    lowest = max(0.5, float(np.percentile(filled, 2)) / 2) if filled.size else 0.5
    plot.x_range = energy_shown(found)
    plot.y_range = Range1d(lowest, highest * (highest / lowest) ** 0.4)
    curve = plot.step(
        energy,
        np.where(raw > 0, raw, np.nan),
        mode="center",
        color="#8A8A8A",
        line_width=2,
        legend_label="raw",
    )
    if found.kept is not None:
        denoised = denoised_spectrum(found.kept)
        plot.line(
            energy,
            np.where(denoised > 0, denoised, np.nan),
            color="#0072B2",
            line_width=1.2,
            legend_label="denoised",
        )
    plot.add_layout(peak_labels(found, "sum-labels"))
    plot.add_tools(
        HoverTool(
            tooltips=[("energy", "@x{0.000} keV"), ("counts", "@y{0,0}")],
            renderers=[curve],
            mode="vline",
        )
    )
    plot.legend.location = "top_right"
    plot.legend.orientation = "horizontal"
    plot.legend.padding = 2
    return plot


def peak_labels(found: Findings, name: str) -> Any:
    """Names of the largest peaks, largest first; the page hides those that collide."""
    from bokeh.models import ColumnDataSource, LabelSet

    raw = sum_spectrum(found.ds)
    peaks = found.peaks[:_SHOWN_PEAKS]
    ends = [(max(peak.channel - 2, 0), peak.channel + 3) for peak in peaks]
    source = ColumnDataSource(
        {
            "x": [float(found.ds[v.DIM_ENERGY].values[peak.channel]) for peak in peaks],
            "y": [float(raw[start:stop].max()) for start, stop in ends],
            "text": (text := [peak.name or f"{peak.energy:.2f} keV" for peak in peaks]),
            "name": text,
            "channel": [peak.channel for peak in peaks],
        },
        name=name,
    )
    return LabelSet(
        x="x",
        y="y",
        text="text",
        source=source,
        angle=np.pi / 2,
        text_font_size="11px",
        x_offset=5,
        y_offset=4,
    )


def scree_plot(ds: xr.Dataset) -> Figure:
    from bokeh.models import HoverTool
    from bokeh.plotting import figure

    ratio = 100 * ds[v.COMPONENT_VARIANCE_RATIO].values
    visible = ratio > ratio[0] * 1e-10
    kept = ds[v.COMPONENT_KEEP].values == 1
    probability = ds[v.COMPONENT_SIGNAL_PROBABILITY].values
    number = ds[v.DIM_COMPONENT].values
    plot = figure(
        name="scree",
        height=260,
        sizing_mode="stretch_width",
        y_axis_type="log",
        tools="pan,xwheel_zoom,box_zoom,reset",
        x_axis_label="component",
        y_axis_label="share of the variance (%)",
    )
    plot.toolbar.logo = None
    for chosen, colour, label in ((~kept, "white", "dropped"), (kept, "#0072B2", "kept")):
        use = chosen & visible
        dots = plot.scatter(
            "number",
            "ratio",
            source={
                "number": number[use],
                "ratio": ratio[use],
                "probability": [
                    f"{value:.2f}" if np.isfinite(value) else "–" for value in probability[use]
                ],
            },
            size=7,
            fill_color=colour,
            line_color="#0072B2" if label == "kept" else "#767676",
            legend_label=f"{label} ({chosen.sum()})",
        )
        plot.add_tools(
            HoverTool(
                renderers=[dots],
                tooltips=[
                    ("component", "@number"),
                    ("share", "@ratio{0.0000} %"),
                    ("probability of signal", "@probability"),
                ],
            )
        )
    return plot
