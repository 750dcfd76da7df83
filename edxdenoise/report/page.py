"""The page of a report: one HTML file that opens from disk, without a network.

Everything on it is in `Findings`. Maps and spectra are drawn by Bokeh; those of components, which
may be a hundred, are small pictures. Maps are stored in 255 steps of their colours. The spectra of
all cells of the map are stored too, so that the page itself sums the spectrum of a box.
"""

from __future__ import annotations

import base64
import datetime
import gzip
import io
import json
import platform
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from edxdenoise import schema as v
from edxdenoise._version import __version__
from edxdenoise.cube import (
    detector_resolution,
    measured_pixels,
    pixel_counts,
    result_name,
    sum_spectrum,
)
from edxdenoise.errors import texts_of
from edxdenoise.quantification.composition import factor_arrays
from edxdenoise.report.findings import Findings, missed_share, shown_components
from edxdenoise.report.frame import (
    Frame,
    colour_range,
    count_range,
    end_labels,
    frame_of,
    grey_range,
    length_label,
    net_range,
    shortened,
    value_range,
    well_known,
)
from edxdenoise.report.maps import last_energy
from edxdenoise.report.sums import denoised_amounts, denoised_spectrum, unweighted_spectra
from edxdenoise.report.text import (
    decision,
    facts,
    number_words,
    region_words,
    remaining_error,
    verdict,
    with_error,
)
from edxdenoise.validation.residuals import Audit
from edxdenoise.xray import component_peaks, identified, line_label, name_peaks
from edxdenoise.xray.families import element_of
from edxdenoise.xray.identification import WHOLE_MAP

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure

# Bytes of all maps together, and of pictures of components, before they are coded as text.
_MAP_BYTES, _PICTURE_BYTES = 3_500_000, 2_000_000
_STEPS = 255
# Value of a step of the colours, as the pointer shows it.
_VALUE = "return value < 1 ? 'no value' : (low + (value - 1) / 254 * (high - low)).toPrecision(3)"
# Units of length that Bokeh's scale bars know.
_LENGTHS = ("nm", "µm", "mm", "m")
_SHOWN_PEAKS = 24
_SURE = 3.0


def write_page(found: Findings, path: Path) -> None:
    """Write the page of a report.

    Parameters
    ----------
    found : Findings
    path : Path
        Of the file.
    """
    path.write_text(page_text(found), encoding="utf-8")


def page_text(found: Findings) -> str:
    """Return the page of a report as HTML."""
    from bokeh.document import Document
    from bokeh.embed import components
    from bokeh.resources import Resources
    from jinja2 import Environment

    ds = found.ds
    maps = _Maps.of(found)
    content = {
        "title": _title(ds),
        "version": __version__,
        "made": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "result": result_name(ds),
        "paragraph": _paragraph(found),
        "numbers": _five_numbers(found),
        "warnings": texts_of(ds.attrs, "warnings"),
        "notes": texts_of(ds.attrs, "notes"),
        "measurement": _measurement(ds),
        "specimen": _specimen(found, maps),
        "elements": _elements(found, maps),
        "quantities": _quantities(found, maps),
        "tables": _region_tables(found),
        "components": _components(found),
        "checks": _checks(found, maps),
        "binning": maps.words(),
        "box": _box(found, maps),
        "recipe": str(ds.attrs.get("recipe", "")),
        "history": str(ds.attrs.get("history", "")),
        "source": str(ds.attrs.get("source", "data in memory")),
        "versions": _versions(),
        "script": (files("edxdenoise.report") / "page.js").read_text(encoding="utf-8"),
    }
    document = Document()
    # One walk through the models, instead of one for each that is added.
    with document.models.freeze():
        for root in maps.roots.values():
            document.add_root(root)
    plots, divs = components(maps.roots)
    resources = Resources(mode="inline", components=["bokeh"])
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = (files("edxdenoise.report") / "page.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        **content, bokeh=resources.render(), plots=plots, div=divs
    )


# Words


def _title(ds: xr.Dataset) -> str:
    return str(ds.attrs.get("title") or "") or _file(ds) or "Spectrum image"


def _file(ds: xr.Dataset) -> str:
    return str(ds.attrs.get("source", "")).split(" sha256:")[0]


def _total(ds: xr.Dataset) -> float:
    return float(sum_spectrum(ds).sum())


def _extent(ds: xr.Dataset) -> str:
    return f"{ds.sizes[v.DIM_Y]:,} × {ds.sizes[v.DIM_X]:,} pixels"


def _paragraph(found: Findings) -> list[str]:
    ds = found.ds
    pixels = int(measured_pixels(ds).sum())
    total = _total(ds)
    sentences = [
        f"The map has {_extent(ds)} with {number_words(total / pixels)} counts each, "
        f"{number_words(total)} in all."
    ]
    names, local = _found_names(found)
    stray = [str(row.element) for row in found.elements.itertuples() if row.stray]
    if names:
        text = f"{_many(len(names), 'element')} found, most significant first: {', '.join(names)}"
        if local:
            text += f"; in small parts of the map alone: {', '.join(local)}"
        if stray:
            text += f"; {', '.join(stray)} may come from elsewhere than the specimen"
        sentences.append(text + ".")
    else:
        sentences.append("No element was found beyond doubt.")
    if v.COMPONENT_KEEP in ds:
        sentences.append(decision(ds) + ".")
    if found.quantified is not None:
        regions = found.quantified.regions
        whole = regions[regions["kind"] == "map"]
        at = [row for _, row in whole.iterrows() if row["quantity"].endswith("at%")]
        if at:
            parts = [f"{row['quantity'].split()[0]} {region_words(row)}" for row in at]
            sentences.append(f"Composition of the whole map: {', '.join(parts)} at%.")
    return sentences


def _found_names(found: Findings) -> tuple[list[str], list[str]]:
    """Elements of the sum spectrum, and those of small parts of the map alone."""
    whole = found.elements["where"] == WHOLE_MAP
    names = found.elements["element"].astype(str)
    return list(names[whole]), list(names[~whole])


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


_FIVE = "counts per pixel", "pixels", "elements found", "components kept", "remaining error"


def _five_numbers(found: Findings) -> list[tuple[str, str]]:
    shown = facts(found.ds, _found_names(found)[0])
    numbers = [(label, shown[label][0]) for label in _FIVE if label in shown]
    if "remaining error" not in shown and len(found.bias):
        numbers.append(("tests of bias beyond 3 σ", _beyond(found.bias)))
    return numbers


def _beyond(bias: pd.DataFrame) -> str:
    z = bias["z"].to_numpy(float)
    z = z[np.isfinite(z)]
    return f"{int((np.abs(z) > _SURE).sum())} of {z.size}"


def _measurement(ds: xr.Dataset) -> list[tuple[str, str]]:
    rows = [("file", _file(ds)), ("instrument", str(ds.attrs.get("instrument", "")))]
    for key, words, unit in (
        ("beam_energy", "beam energy", "keV"),
        ("live_time", "live time", "s"),
        ("real_time", "real time", "s"),
        ("take_off_angle", "take-off angle", "°"),
        ("stage_tilt", "stage tilt", "°"),
    ):
        if key in ds.attrs:
            rows.append((words, f"{float(ds.attrs[key]):.4g} {unit}"))
    pixels = int(measured_pixels(ds).sum())
    if "live_time" in ds.attrs:
        dwell = 1000 * float(ds.attrs["live_time"]) / pixels
        rows.append(("live time per pixel", f"{dwell:.3g} ms"))
    frame = frame_of(ds)
    rows.append(("pixel size", length_label(float(f"{frame.step:.4g}"), frame.units)))
    energy = ds[v.DIM_ENERGY].values
    rows.append(
        (
            "channels",
            f"{energy.size:,} of {1000 * (energy[1] - energy[0]):.4g} eV, "
            f"{energy[0]:.2f} to {energy[-1]:.2f} keV",
        )
    )
    rows.append(("detector resolution", f"{float(detector_resolution(ds)):.0f} eV at Mn Kα"))
    rows.append(("total counts", number_words(_total(ds))))
    if "date" in ds.attrs:
        rows.append(("recorded", str(ds.attrs["date"])))
    return [(name, value) for name, value in rows if value]


def _versions() -> str:
    names = ("numpy", "scipy", "scikit-learn", "xarray", "dask", "tensorflow", "bokeh")
    return ", ".join(
        [f"edxdenoise {__version__}", f"Python {platform.python_version()}"]
        + [f"{name} {version(name)}" for name in names]
    )


# Maps


@dataclass
class _Maps:
    """Bokeh figures of the page: maps that share their ranges and their box, and spectra."""

    frame: Frame
    rows: int
    height: float
    factor: int
    shared: dict[str, Any]
    roots: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, found: Findings) -> _Maps:
        frame = frame_of(found.ds)
        ratios = found.ds.sizes[v.DIM_RATIO] if v.RATIO in found.ds else 0
        quantified = found.ds.sizes[v.DIM_ELEMENT] if v.ATOMIC_PERCENT in found.ds else 0
        count = 2 * (len(found.elements) + quantified + ratios) + 3
        rows, columns = found.ds.sizes[v.DIM_Y], found.ds.sizes[v.DIM_X]
        factor = int(np.ceil(np.sqrt(max(count * rows * columns / _MAP_BYTES, 1))))
        height = columns * frame.step * frame.ratio
        return cls(frame, rows, height, factor, _shared(frame, rows, height))

    def words(self) -> str:
        if self.factor == 1:
            return "Maps show every pixel."
        return f"Maps show means of {self.factor} × {self.factor} pixels."

    def add(
        self,
        name: str,
        image: np.ndarray,
        colours: tuple[str, float, float],
        unit: str,
        alt: str,
        *,
        over: str | None = None,
    ) -> dict[str, Any]:
        """Draw a map; one drawn before may lie over it, invisible until the slider shows it."""
        from bokeh.models import (
            BoxSelectTool,
            ColumnDataSource,
            CustomJSHover,
            HoverTool,
            PanTool,
            ResetTool,
            ScaleBar,
            WheelZoomTool,
        )
        from bokeh.plotting import figure

        cmap, low, high = colours
        plot = figure(
            name=name,
            width=400,
            height=max(round(400 * self.frame.ratio), 60),
            x_range=self.shared["x_range"],
            y_range=self.shared["y_range"],
            x_axis_type=None,
            y_axis_type=None,
            sizing_mode="scale_width",
            min_border=0,
            tools="",
            toolbar_location=None,
            outline_line_color=None,
        )
        source = ColumnDataSource({"image": [steps(binned(image, self.factor), low, high)]})
        self.shared[f"map {name}"] = source
        drawn = plot.add_glyph(source, self._image(cmap))
        if over is not None:
            glyph = self._image(cmap, global_alpha=0.0)
            plot.add_glyph(self.shared[f"map {over}"], glyph, name="over")
        plot.add_glyph(self.shared["borders"], self.shared["border"])
        plot.add_glyph(self.shared["box"], self.shared["quad"])
        select = BoxSelectTool(renderers=[])
        value = CustomJSHover(args={"low": low, "high": high}, code=_VALUE)
        plot.add_tools(
            select,
            PanTool(),
            WheelZoomTool(),
            ResetTool(),
            HoverTool(
                tooltips=[("value", "@image{custom} " + unit), ("at", "$x, $y")],
                formatters={"@image": value},
                renderers=[drawn],
            ),
        )
        plot.toolbar.active_drag = select
        plot.js_on_event("selectiongeometry", self.shared["select"])
        plot.js_on_event("reset", self.shared["reset"])
        plot.add_layout(
            ScaleBar(
                range=self.shared["x_range"],
                unit=self.shared["unit"],
                dimensional=self.shared["lengths"],
                location="bottom_left",
                bar_length=0.2,
                background_fill_alpha=0.7,
                border_line_color=None,
                padding=2,
                margin=2,
                label_standoff=1,
                label_text_font_size="10px",
            )
        )
        self.roots[name] = plot
        return {"name": name, "alt": alt, **colour_legend(colours, unit)}

    def name_areas(self, name: str) -> None:
        """Write the names of stacked areas into a map."""
        from bokeh.models import Label

        for row, area in self.frame.areas:
            self.roots[name].add_layout(
                Label(
                    x=self.frame.columns * self.frame.step,
                    y=(row + 0.5) * self.height / self.rows,
                    text=shortened(area),
                    text_align="right",
                    text_baseline="middle",
                    text_font_size="11px",
                    background_fill_color="white",
                    background_fill_alpha=0.7,
                    x_offset=-4,
                )
            )

    def _image(self, cmap: str, **kwargs: float) -> Any:
        """An image whose values are steps of a colour map."""
        from bokeh.models import Image, LinearColorMapper

        if cmap not in self.shared:
            self.shared[cmap] = LinearColorMapper(
                _palette(cmap), low=1, high=_STEPS, low_color="#bdbdbd"
            )
        width = self.frame.columns * self.frame.step
        mapper = self.shared[cmap]
        return Image(
            image="image", x=0, y=0, dw=width, dh=self.height, color_mapper=mapper, **kwargs
        )


def _shared(frame: Frame, rows: int, height: float) -> dict[str, Any]:
    """What all maps have in common: ranges, box, borders of areas, unit of length."""
    from bokeh.models import ColumnDataSource, CustomJS, Metric, Quad, Range1d, Segment

    width = frame.columns * frame.step
    borders = [(row + 0.5) * height / rows for row in frame.borders]
    metric = frame.units in _LENGTHS
    unit = frame.units if metric else "px" if frame.units == "pixel" else frame.units
    names = ["left", "right", "top", "bottom"]
    edges = dict(zip(names, names))
    return {
        "x_range": Range1d(0, width, bounds="auto"),
        "y_range": Range1d(height, 0, bounds="auto"),
        "box": ColumnDataSource({name: [] for name in names}, name="box"),
        "quad": Quad(
            **edges, fill_color="white", fill_alpha=0.15, line_color="#56B4E9", line_width=2
        ),
        "borders": ColumnDataSource(
            {"y": borders, "left": [0] * len(borders), "right": [width] * len(borders)}
        ),
        "border": Segment(
            x0="left", x1="right", y0="y", y1="y", line_color="white", line_width=1.5
        ),
        "select": CustomJS(code="window.edxdenoise.select(cb_obj.geometry)"),
        "reset": CustomJS(code="window.edxdenoise.whole()"),
        "unit": unit,
        "lengths": Metric(base_unit="m") if metric else Metric(base_unit=unit, include=[unit]),
    }


def steps(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values in steps of their colours, 1 to 255; 0 where there is none.

    Examples
    --------
    >>> steps(np.array([[np.nan, -1.0, 0.0, 5.0, 10.0, 99.0]]), 0.0, 10.0)
    array([[  0,   1,   1, 128, 255, 255]], dtype=uint8)
    """
    scaled = 1 + (_STEPS - 1) * (np.asarray(image, float) - low) / (high - low)
    whole = np.clip(np.rint(np.nan_to_num(scaled, nan=0.0)), 1, _STEPS)
    return np.where(np.isfinite(scaled), whole, 0).astype(np.uint8)


def binned(image: np.ndarray, factor: int) -> np.ndarray:
    """Means of squares of pixels, NaN left out; those at the edges may be smaller.

    Examples
    --------
    >>> binned(np.array([[1.0, 3.0, 5.0], [np.nan, 2.0, 7.0]]), 2)
    array([[2., 6.]])
    """
    if factor == 1:
        return image
    finite = np.isfinite(image)
    sums, counts = np.where(finite, image, 0.0).astype(float), finite.astype(float)
    for axis in (0, 1):
        edges = np.arange(0, image.shape[axis], factor)
        sums, counts = (np.add.reduceat(part, edges, axis=axis) for part in (sums, counts))
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)


def _palette(cmap: str) -> list[str]:
    import matplotlib
    from matplotlib.colors import to_hex

    return [to_hex(colour) for colour in matplotlib.colormaps[cmap](np.linspace(0, 1, _STEPS))]


def colour_legend(colours: tuple[str, float, float], unit: str) -> dict[str, str]:
    """Ends, unit and CSS gradient of a colour bar."""
    cmap, low, high = colours
    stops = ", ".join(_palette(cmap)[:: _STEPS // 8])
    ends = end_labels(low, high)
    return {"low": ends[0], "high": ends[1], "unit": unit, "gradient": stops}


# Sections


def _specimen(found: Findings, maps: _Maps) -> dict[str, Any]:
    ds = found.ds
    images = []
    if v.IMAGE in ds:
        for number, (label, image) in enumerate(
            zip(map(str, ds[v.DIM_DETECTOR].values), ds[v.IMAGE].values)
        ):
            alt = f"{label} image, recorded with the counts"
            one = maps.add(f"image-{number}", image, grey_range(image), "", alt)
            images.append({**one, "title": f"{label} image"})
    if v.WEIGHT_PIXEL in ds or found.cells is not None:
        totals = _pixel_totals(found)
        seen = np.where(measured_pixels(ds), totals, np.nan)
        alt = "map of the sum of all X-ray counts"
        one = maps.add("total", seen, count_range(seen[np.isfinite(seen)]), "counts", alt)
        maps.name_areas("total")
        images.append({**one, "title": "all X-rays"})
    maps.roots["sum-spectrum"] = _sum_figure(found)
    return {"images": images}


def _pixel_totals(found: Findings) -> np.ndarray:
    return pixel_counts(found.ds)


def _spectrum_figure(found: Findings, name: str, log: bool) -> Figure:
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


def _sum_figure(found: Findings) -> Figure:
    from bokeh.models import HoverTool, Range1d

    ds = found.ds
    energy = ds[v.DIM_ENERGY].values
    raw = sum_spectrum(ds)
    plot = _spectrum_figure(found, "sum-spectrum", log=True)
    highest = max(float(raw.max()), 1.0)
    filled = raw[raw > 0]
    lowest = max(0.5, float(np.percentile(filled, 2)) / 2) if filled.size else 0.5
    plot.x_range = Range1d(float(energy[0]), _last_energy(found), bounds=(energy[0], energy[-1]))
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
    plot.add_layout(_peak_labels(found, "sum-labels"))
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


def _peak_labels(found: Findings, name: str) -> Any:
    """Names of the largest peaks over the sum spectrum; the page moves those of a box."""
    from bokeh.models import ColumnDataSource, LabelSet

    raw = sum_spectrum(found.ds)
    peaks = found.peaks[:_SHOWN_PEAKS]
    ends = [(max(peak.channel - 2, 0), peak.channel + 3) for peak in peaks]
    source = ColumnDataSource(
        {
            "x": [float(found.ds[v.DIM_ENERGY].values[peak.channel]) for peak in peaks],
            "y": [float(raw[start:stop].max()) for start, stop in ends],
            "text": [peak.name or f"{peak.energy:.2f} keV" for peak in peaks],
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


def _last_energy(found: Findings) -> float:
    return last_energy(found.ds[v.DIM_ENERGY].values, found.peaks)


def _elements(found: Findings, maps: _Maps) -> list[dict[str, Any]]:
    cards = []
    for number, row in enumerate(found.elements.itertuples()):
        line = line_label(str(row.line))
        own = None if found.raw is None else found.raw[number]
        smooth = None if found.denoised is None else found.denoised[number]
        shown = own if smooth is None else smooth
        if shown is None:
            continue
        colours = net_range(shown, float(found.noise[number]))
        unit = "net counts / pixel"
        pictures = []
        if own is not None:
            seen = np.where(measured_pixels(found.ds), own, np.nan)
            alt = f"map of {line}, raw net counts"
            one = maps.add(f"raw-{number}", seen, colours, unit, alt)
            pictures.append({**one, "title": "raw"})
        if smooth is not None:
            over = None if own is None else f"raw-{number}"
            alt = f"map of {line}, denoised net counts"
            one = maps.add(f"denoised-{number}", smooth, colours, unit, alt, over=over)
            pictures.append({**one, "title": "denoised"})
        cards.append(
            {
                "element": str(row.element),
                "line": line,
                "energy": f"{row.energy:.3f}",
                "counts": _counts(shown if own is None else own, float(found.noise[number])),
                "significance": f"{row.significance:.0f}",
                "where": str(row.where),
                "stray": str(row.stray),
                "confused": str(row.confused_with),
                "noise": f"{found.noise[number]:.2g}",
                "confirmed": _confirmed(shown if own is None else own, float(found.noise[number])),
                "pictures": pictures,
            }
        )
    return cards


def _confirmed(image: np.ndarray, noise: float) -> bool:
    """Whether the net counts of the whole map are beyond their counting noise."""
    return bool(image.sum(dtype=float) > _SURE * noise * np.sqrt(image.size))


def _counts(image: np.ndarray, noise: float) -> str:
    """Net counts of the whole map, with their counting error."""
    net, stddev = image.sum(dtype=float), noise * np.sqrt(image.size)
    return f"{net:,.0f} ± {stddev:,.0f}".replace("-", "−")


def _quantities(found: Findings, maps: _Maps) -> list[dict[str, Any]]:
    ds = found.ds
    cards = []
    if v.ATOMIC_PERCENT in ds:
        detected = ds[v.LINE_DETECTED].values == 1
        specimen = detected.any(axis=0)
        for number, element in enumerate(map(str, ds[v.DIM_ELEMENT].values)):
            value = ds[v.ATOMIC_PERCENT].values[number]
            stddev = ds[v.ATOMIC_PERCENT_STDDEV].values[number]
            known = well_known(value, stddev, specimen)
            cards.append(
                _quantity_card(maps, f"at-{number}", f"{element} at%", "at%", value, stddev, known)
            )
    if v.RATIO in ds:
        for number, text in enumerate(map(str, ds[v.DIM_RATIO].values)):
            value = ds[v.RATIO].values[number]
            stddev = ds[f"{v.RATIO}_stddev"].values[number]
            known = well_known(value, stddev, np.isfinite(value))
            cards.append(
                _quantity_card(
                    maps, f"ratio-{number}", f"{text}, ratio of atoms", "", value, stddev, known
                )
            )
    return cards


def _quantity_card(
    maps: _Maps,
    name: str,
    title: str,
    unit: str,
    value: np.ndarray,
    stddev: np.ndarray,
    known: np.ndarray,
) -> dict[str, Any]:
    kind = unit or "ratio"
    colours = value_range(value, known, kind, stddev=stddev)
    spread = value_range(stddev, known, kind, error=True)
    return {
        "title": title,
        "pictures": [
            {
                **maps.add(name, value, colours, unit, f"map of {title}"),
                "title": "value",
            },
            {
                **maps.add(f"{name}-error", stddev, spread, unit, f"error map of {title}"),
                "title": "standard deviation of a pixel",
            },
        ],
    }


def _region_tables(found: Findings) -> list[dict[str, Any]]:
    if found.quantified is None:
        return []
    table, groups = found.quantified.regions, found.quantified.groups
    captions = {
        "map": "Whole map",
        "area": "Areas",
        "region": "Regions",
        "phase": "Phases",
        "profile": "Profiles",
    }
    shown = []
    for kind, caption in captions.items():
        own = table[table["kind"] == kind]
        if own.empty:
            continue
        heads = ["pixels", "counts", *dict.fromkeys(own["quantity"])]
        rows = []
        for region, part in own.groupby("region", sort=False):
            first = part.iloc[0]
            numbers = [f"{first['pixels']:,}", number_words(first["counts"])]
            rows.append((str(region), [*numbers, *(region_words(r) for _, r in part.iterrows())]))
        if kind == "map" and "true" in own:
            true = [f"{value:.3g}" for value in own["true"]]
            rows.append(("true, of the phantom", ["", "", *true]))
        shown.append({"caption": caption, "heads": heads, "rows": rows})
    if len(groups):
        heads = ["quantity", "difference", "z", "p, counting", "p, between areas"]
        rows = [
            (
                str(row["groups"]),
                [
                    str(row["quantity"]),
                    with_error(row["difference"], row["stddev"]),
                    f"{row['z']:.1f}",
                    f"{row['p_counting']:.2g}",
                    f"{row['p_areas']:.2g}" if np.isfinite(row["p_areas"]) else "–",
                ],
            )
            for _, row in groups.iterrows()
        ]
        shown.append(
            {"caption": "Differences between groups of areas", "heads": heads, "rows": rows}
        )
    return shown


def _components(found: Findings) -> dict[str, Any]:
    """Kept components, all of them; borderline ones; and the first of those dropped."""
    ds = found.ds
    if found.components is None:
        return {}
    shown = shown_components(ds)
    pixels = ds.sizes[v.DIM_Y] * ds.sizes[v.DIM_X]
    pictures = 2 * sum(map(len, shown.values()))
    factor = int(np.ceil(np.sqrt(max(pictures * pixels / _PICTURE_BYTES, 1))))
    total = ds.sizes[v.DIM_COMPONENT]
    return {
        **{
            key: [_component_card(found, int(n), factor) for n in own] for key, own in shown.items()
        },
        "decision": decision(ds),
        "more": total - pictures // 2,
        "factor": factor,
    }


def _component_card(found: Findings, number: int, factor: int) -> dict[str, Any]:
    ds = found.components
    assert ds is not None
    component = ds.sel({v.DIM_COMPONENT: [number]})
    image = component[v.COMPONENT_MAP].values[0]
    pictures = [_picture(image, factor, f"score map of component {number}", "score map")]
    if v.COMPONENT_MAP_SHRUNK in ds:
        smooth = component[v.COMPONENT_MAP_SHRUNK].values[0]
        if np.isfinite(smooth).any():
            # Of the first component smoothing moves totals, of others their share in the total.
            alt = f"score map of component {number} after smoothing"
            pictures.append(_picture(smooth, factor, alt, "after smoothing"))
    return {
        "number": number,
        "verdict": verdict(found.ds, number),
        "pictures": pictures,
        "spectrum": _component_spectrum(found, component, image),
    }


def _picture(image: np.ndarray, factor: int, alt: str, title: str) -> dict[str, str]:
    """A small map as a PNG inside the page, in the colours of its scores."""
    small = binned(image, factor)
    data = base64.b64encode(png_bytes(small, colour_range(small[np.isfinite(small)]))).decode()
    return {"alt": alt, "title": title, "data": f"data:image/png;base64,{data}"}


def png_bytes(image: np.ndarray, colours: tuple[str, float, float]) -> bytes:
    """A map as a PNG: colour map and its ends as `colour_range` gives them, grey where NaN."""
    import matplotlib
    from PIL import Image

    cmap, low, high = colours
    indexed = Image.fromarray(steps(image, low, high) - 1, "P")
    palette = matplotlib.colormaps[cmap](np.linspace(0, 1, _STEPS), bytes=True)[:, :3]
    indexed.putpalette(palette.tobytes() + bytes((189, 189, 189)))
    buffer = io.BytesIO()
    indexed.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _component_spectrum(
    found: Findings, component: xr.Dataset, image: np.ndarray
) -> dict[str, Any]:
    """What a component adds to a pixel's counts, root mean square, as the path of a curve."""
    ds = found.ds
    energy = ds[v.DIM_ENERGY].values
    g = component[v.WEIGHT_PIXEL].values
    spectrum = unweighted_spectra(component)[0][0]
    spectrum = spectrum * np.sqrt(np.mean((g * image) ** 2, dtype=np.float64))
    last = _last_energy(found)
    shown = energy <= last
    low, high = min(float(spectrum[shown].min()), 0.0), max(float(spectrum[shown].max()), 0.0)
    high = high if high > low else low + 1.0
    width, top, bottom = 600.0, 92.0, 196.0
    across = (energy - energy[0]) / (last - energy[0]) * width
    down = bottom - (spectrum - low) / (high - low) * (bottom - top)
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across[shown], down[shown]))
    peaks = component_peaks(
        energy,
        component[v.COMPONENT_SPECTRUM].values[0],
        component[v.WEIGHT_ENERGY].values,
        detector_resolution(ds),
    )
    peaks = [peak for peak in name_peaks(peaks, identified(ds)) if shown[peak.channel]][:8]
    labels: list[dict[str, Any]] = []
    for peak in peaks:
        x = float(across[peak.channel])
        if all(abs(x - other["x"]) > 20 for other in labels):
            text = peak.name or f"{peak.energy:.2f}"
            y = min(
                float(down[peak.channel]), float(bottom - (0 - low) / (high - low) * (bottom - top))
            )
            labels.append({"x": x, "y": y - 4, "text": text})
    spacing = _tick_spacing(last - energy[0])
    first = np.ceil(energy[0] / spacing) * spacing
    ticks = [
        {"x": (value - energy[0]) / (last - energy[0]) * width, "text": f"{value + 0.0:g}"}
        for value in np.arange(first, last, spacing)
    ]
    zero = bottom - (0 - low) / (high - low) * (bottom - top)
    # Without names there is no room for them.
    start = 0 if labels else top - 10
    return {"points": points, "labels": labels, "ticks": ticks, "zero": zero, "start": start}


def _tick_spacing(span: float) -> float:
    return next(step for step in (0.2, 0.5, 1, 2, 5, 10, 20, 50) if span / step <= 8 or step == 50)


def _checks(found: Findings, maps: _Maps) -> dict[str, Any]:
    ds = found.ds
    checks: dict[str, Any] = {}
    if v.COMPONENT_KEEP in ds:
        maps.roots["scree"] = _scree(ds)
        checks["scree"] = decision(ds)
    if v.HELD_OUT_ERROR in ds:
        error, stddev = 100 * ds[v.HELD_OUT_ERROR].values.astype(float)
        verdict_words = "Denoised counts are closer to the truth than raw ones"
        if error + 2 * stddev > 100:
            verdict_words = "Denoised counts are no closer to the truth than raw ones"
        checks["held_out"] = {
            "verdict": f"{verdict_words}: squared error {remaining_error(ds)} of raw.",
            "good": error + 2 * stddev <= 100,
        }
    if len(found.bias):
        beyond = found.bias[found.bias["z"].abs() > _SURE].sort_values("z", key=lambda z: -z.abs())
        heads = ["line", "raw", "denoised", "difference", "z"]
        rows = [
            (
                str(row.region),
                [
                    line_label(str(row.line)),
                    number_words(row.raw) if row.raw >= 0 else f"−{number_words(-row.raw)}",
                    (
                        number_words(row.denoised)
                        if row.denoised >= 0
                        else f"−{number_words(-row.denoised)}"
                    ),
                    with_error(row.difference, row.stddev),
                    f"{row.z:.1f}".replace("-", "−"),
                ],
            )
            for row in beyond.head(12).itertuples()
        ]
        words = (
            f"No sign of bias: none of {_tested(found.bias)} differences between raw and denoised "
            "net counts is beyond 3 σ."
        )
        if rows:
            worst = beyond.iloc[0]
            words = (
                f"Possible bias: {_beyond(found.bias)} differences between raw and denoised net "
                f"counts are beyond 3 σ; the clearest is {line_label(str(worst['line']))} of "
                f"{worst['region']}, {_moved(worst)}."
            )
        checks["bias"] = {"verdict": words, "good": not rows, "heads": heads, "rows": rows}
    if found.audit is not None:
        checks["residual"] = _residual(found, found.audit, maps)
    return checks


def _moved(row: pd.Series) -> str:
    """How much larger or smaller denoised net counts are than raw ones, in words."""
    more = "more" if row["difference"] < 0 else "fewer"
    if row["raw"] > _SURE * row["stddev"]:
        return f"with {abs(row['difference'] / row['raw']):.1%} {more} counts after denoising"
    return f"with {number_words(abs(row['difference']))} {more} counts after denoising"


def _tested(bias: pd.DataFrame) -> int:
    return int(np.isfinite(bias["z"].to_numpy(float)).sum())


def _residual(found: Findings, audit: Audit, maps: _Maps) -> dict[str, Any]:
    if audit.table.empty:
        words = f"Nothing left in the residuals beyond counting noise ({audit.tests:,} tests)."
        return {"verdict": words, "good": True}
    words = (
        f"The residuals show {_many(len(audit.table), 'feature')} that the model does not "
        f"describe, {number_words(100 * missed_share(audit, found.ds))} % of the counts together."
    )
    rows, columns = found.ds.sizes[v.DIM_Y], found.ds.sizes[v.DIM_X]
    peaks = audit.peaks.repeat(4, axis=0)[:rows].repeat(4, axis=1)[:, :columns]
    limit = float(np.clip(np.abs(peaks).max(), 8, 30))
    one = maps.add("residual", peaks, ("RdBu_r", -limit, limit), "σ", "map of the residuals")
    heads = ["rows", "columns", "energy (keV)", "lines", "counts", "expected", "z"]
    table = [
        (
            f"{find.size} px",
            [
                f"{find.y_start}:{find.y_stop}",
                f"{find.x_start}:{find.x_stop}",
                f"{find.energy_low:.2f}–{find.energy_high:.2f}",
                ", ".join(line_label(name) for name in str(find.lines).split()[:2]) or "–",
                f"{find.counts:,.0f}",
                f"{find.expected:,.0f}".replace("-", "−"),
                f"{find.z:.1f}".replace("-", "−"),
            ],
        )
        for find in audit.table.head(12).itertuples()
    ]
    return {"verdict": words, "good": False, "map": one, "heads": heads, "rows": table}


def _scree(ds: xr.Dataset) -> Figure:
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


# Boxes


def _box(found: Findings, maps: _Maps) -> dict[str, Any] | None:
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
    plot = _spectrum_figure(found, "box-spectrum", log=False)
    from bokeh.models import ColumnDataSource, DataRange1d, HoverTool, Range1d

    plot.x_range = Range1d(float(energy[0]), _last_energy(found), bounds=(energy[0], energy[-1]))
    plot.y_range = DataRange1d(start=0, range_padding=0.35)
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
    plot.add_layout(_peak_labels(found, "box-labels"))
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
        "errors": _and(errors),
    }


def _and(words: list[str]) -> str:
    """Words in a row.

    Examples
    --------
    >>> _and(["a", "b", "c"]), _and(["a"])
    ('a, b and c', 'a')
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def smallest(counts: np.ndarray) -> np.ndarray:
    """Counts in the smallest type that holds them."""
    if counts.dtype.kind not in "ui":
        return counts.astype("f4")
    return counts.astype(np.min_scalar_type(int(counts.max(initial=0))))


def packed(array: np.ndarray) -> str:
    """Bytes of an array, little-endian and compressed, as text."""
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return base64.b64encode(gzip.compress(array.tobytes(), 6, mtime=0)).decode()
