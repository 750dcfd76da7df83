"""What the page needs to tell spectrum and composition of any region that is drawn on it."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import numpy as np

from edxdenoise import schema as v
from edxdenoise.cube import smallest_count_dtype
from edxdenoise.quantification.composition import factor_arrays
from edxdenoise.report.findings import Findings
from edxdenoise.report.page_maps import Maps
from edxdenoise.report.page_spectra import energy_shown, peak_labels, spectrum_figure
from edxdenoise.report.sums import denoised_amounts
from edxdenoise.report.text import joined
from edxdenoise.xray import line_label
from edxdenoise.xray.families import element_of


def drawn_region(found: Findings, maps: Maps) -> dict[str, Any] | None:
    """What the page needs to sum the spectrum of a box and to take its composition."""
    ds, cells = found.ds, found.cells
    if cells is None:
        return None
    energy = ds[v.DIM_ENERGY].values
    data: dict[str, np.ndarray] = {"cells": smallest(cells.counts)}
    parts = 0
    if found.kept is not None:
        amounts, spectra = denoised_amounts(found.kept, cells.side)
        data["amounts"], data["spectra"] = amounts.astype("f4"), spectra.astype("f4")
        parts = len(amounts)
    lines = list(found.line_weights)
    factors = np.full((len(lines), 2), np.nan)
    if found.quantified is not None:
        for name, spec in found.quantified.composed.items():
            atoms = factor_arrays({name: spec})[1]
            factors[lines.index(name)] = atoms[0][0], atoms[1][0]
    weights = list(found.line_weights.values())
    data["estimators"] = np.array([row for row, _ in weights]).astype("f8")
    # Direction by direction, all lines of each.
    shifts = [shift for _, shift in weights]
    data["systematic"] = (np.stack(shifts, axis=1) if shifts else np.zeros(0)).astype("f8")
    directions = len(shifts[0]) if shifts else 0
    ratios = [str(text) for text in ds[v.DIM_RATIO].values] if v.RATIO in ds else []
    plot = spectrum_figure(found, "box-spectrum", log=False)
    from bokeh.models import ColumnDataSource, DataRange1d, HoverTool

    plot.x_range = energy_shown(found)
    plot.y_range = DataRange1d(start=0, range_padding=0.8)
    # Counts are scaled to the energies that are zoomed into.
    plot.window_axis = "x"
    empty = np.zeros(energy.size)
    source = ColumnDataSource({"x": energy, "raw": empty, "denoised": empty}, name="box-data")
    curve = plot.step("x", "raw", source=source, mode="center", color="#767676", legend_label="raw")
    if parts:
        plot.line(
            "x",
            "denoised",
            source=source,
            color="#0072B2",
            line_width=1.5,
            legend_label="denoised",
        )
    plot.add_tools(
        HoverTool(
            tooltips=[("energy", "@x{0.000} keV"), ("raw", "@raw"), ("denoised", "@denoised{0.0}")],
            renderers=[curve],
            mode="vline",
        )
    )
    plot.add_layout(peak_labels(found, "box-labels"))
    maps.roots["box-spectrum"] = plot
    meta = {
        "rows": ds.sizes[v.DIM_Y],
        "columns": ds.sizes[v.DIM_X],
        "side": cells.side,
        "width": maps.frame.columns * maps.frame.step,
        "height": maps.height,
        "channels": energy.size,
        "parts": parts,
        "lines": [line_label(name) for name in lines],
        "elements": [element_of(name) for name in lines],
        "factors": [[None if np.isnan(x) else x for x in pair] for pair in factors],
        "ratios": ratios,
        "directions": directions,
        "arrays": {name: array.dtype.str[1:] for name, array in data.items()},
    }
    errors = ["counting statistics"]
    errors += ["the detector's response"] * (directions > 0)
    errors += ["the k-factors"] * bool(np.isfinite(factors).any())
    return {
        "meta": json.dumps(meta).replace("<", "\\u003c"),
        "data": {name: packed(array) for name, array in data.items()},
        "side": cells.side,
        "rows": ds.sizes[v.DIM_Y],
        "columns": ds.sizes[v.DIM_X],
        "composed": bool(np.isfinite(factors).any()),
        "errors": joined(errors),
    }


def smallest(counts: np.ndarray) -> np.ndarray:
    """Counts in the smallest type that holds them."""
    if counts.dtype.kind not in "ui":
        return counts.astype("f4")
    return counts.astype(smallest_count_dtype(int(counts.max(initial=0))))


def packed(array: np.ndarray) -> str:
    """Bytes of an array, little-endian and compressed, as text."""
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return base64.b64encode(gzip.compress(array.tobytes(), 6, mtime=0)).decode()
