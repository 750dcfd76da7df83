"""Maps of the page, drawn by Bokeh, and small pictures of maps."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edxdenoise import schema as v
from edxdenoise.report.findings import Findings
from edxdenoise.report.frame import Colours, Frame, end_labels, frame_of, shortened
from edxdenoise.report.overlay import overlaid_bytes

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure
    from PIL.Image import Image

# Bytes of all maps together, before they are coded as text.
_MAP_BYTES = 3_500_000
_STEPS = 255
# Value of a step of the colours, as the pointer shows it.
_VALUE = "return value < 1 ? 'no value' : (low + (value - 1) / 254 * (high - low)).toPrecision(3)"
# Units of length that Bokeh's scale bars know.
_LENGTHS = ("nm", "µm", "mm", "m")


@dataclass
class Maps:
    """Bokeh figures of the page: maps that share ranges and what is drawn on them, and spectra."""

    frame: Frame
    rows: int
    height: float
    factor: int
    shared: dict[str, Any]
    roots: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, found: Findings) -> Maps:
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
        colours: Colours,
        unit: str,
        alt: str,
        *,
        over: str | None = None,
    ) -> dict[str, Any]:
        """Draw a map; one drawn before may lie over it, invisible until the slider shows it."""
        from bokeh.models import ColumnDataSource, CustomJSHover, HoverTool

        cmap, low, high = colours
        plot = self._plot(name)
        source = ColumnDataSource(
            {"image": [steps(binned(image, self.factor), low, high)]}, name=f"map-{name}"
        )
        self.shared[f"map {name}"] = source
        self.shared[f"drawn {name}"] = source, self._image(cmap)
        drawn = plot.add_glyph(*self.shared[f"drawn {name}"])
        if over is not None:
            glyph = self._image(cmap, global_alpha=0.0)
            plot.add_glyph(self.shared[f"map {over}"], glyph, name="over")
        value = CustomJSHover(args={"low": low, "high": high}, code=_VALUE)
        hover = HoverTool(
            tooltips=[("value", "@image{custom} " + unit), ("at", "$x, $y")],
            formatters={"@image": value},
            renderers=[drawn],
        )
        self._decorate(plot, hover)
        return {"name": name, "alt": alt, **colour_legend(colours, unit)}

    def overlay(self, name: str, layers: Sequence[str], alt: str) -> dict[str, Any]:
        """Draw maps that were drawn before over each other; the page exchanges them."""
        from bokeh.models import ColumnDataSource, ImageRGBA

        plot = self._plot(name)
        images = [self.shared[f"map {each}"].data["image"][0] for each in layers]
        shares = [np.where(image > 0, (image - 1.0) / (_STEPS - 1), np.nan) for image in images]
        colours = overlaid_bytes(shares)
        pixels = np.dstack([colours, np.full(colours.shape[:2], 255, np.uint8)])
        rgba = np.ascontiguousarray(pixels).view("<u4")[..., 0]
        source = ColumnDataSource({"image": [rgba]}, name=f"{name}-data")
        width = self.frame.columns * self.frame.step
        plot.add_glyph(source, ImageRGBA(image="image", x=0, y=0, dw=width, dh=self.height))
        self._decorate(plot)
        return {"name": name, "alt": alt}

    def again(self, name: str, drawn: dict[str, Any]) -> dict[str, Any]:
        """Draw a map that was drawn before once more, without its data."""
        plot = self._plot(name)
        plot.add_glyph(*self.shared[f"drawn {drawn['name']}"])
        self._decorate(plot)
        return {**drawn, "name": name}

    def _plot(self, name: str) -> Figure:
        from bokeh.plotting import figure

        return figure(
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

    def _decorate(self, plot: Figure, *more: Any) -> None:
        """Add borders of areas, what is drawn by the user, tools and the scale bar."""
        from bokeh.models import (
            BoxSelectTool,
            LassoSelectTool,
            PanTool,
            ResetTool,
            ScaleBar,
            WheelZoomTool,
        )

        plot.add_glyph(self.shared["borders"], self.shared["border"])
        plot.add_glyph(self.shared["outline"], self.shared["patch"])
        select = BoxSelectTool(renderers=[])
        lasso = LassoSelectTool(renderers=[], continuous=False)
        plot.add_tools(select, lasso, PanTool(), WheelZoomTool(), ResetTool(), *more)
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
        self.roots[plot.name] = plot

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
    """What maps have in common: ranges, what is drawn on them, borders of areas, unit of length."""
    from bokeh.models import ColumnDataSource, CustomJS, Metric, Patches, Range1d, Segment

    width = frame.columns * frame.step
    borders = [(row + 0.5) * height / rows for row in frame.borders]
    metric = frame.units in _LENGTHS
    unit = frame.units if metric else "px" if frame.units == "pixel" else frame.units
    return {
        "x_range": Range1d(0, width, bounds="auto"),
        "y_range": Range1d(height, 0, bounds="auto"),
        "outline": ColumnDataSource({"xs": [], "ys": []}, name="outline"),
        "patch": Patches(
            xs="xs",
            ys="ys",
            fill_color="white",
            fill_alpha=0.15,
            line_color="#56B4E9",
            line_width=2,
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


def colour_legend(colours: Colours, unit: str) -> dict[str, str]:
    """Ends, unit and CSS gradient of a colour bar."""
    cmap, low, high = colours
    stops = ", ".join(_palette(cmap)[:: _STEPS // 8])
    ends = end_labels(low, high)
    return {"low": ends[0], "high": ends[1], "unit": unit, "gradient": stops}


def png_bytes(image: np.ndarray, colours: Colours) -> bytes:
    """A map as a PNG: colour map and its ends as `colour_range` gives them, grey where NaN."""
    import matplotlib
    from PIL import Image

    cmap, low, high = colours
    indexed = Image.fromarray(steps(image, low, high) - 1, "P")
    palette = matplotlib.colormaps[cmap](np.linspace(0, 1, _STEPS), bytes=True)[:, :3]
    indexed.putpalette(palette.tobytes() + bytes((189, 189, 189)))
    return _png(indexed)


def _png(picture: Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _address(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def picture_data(image: np.ndarray, colours: Colours) -> str:
    """A map as an address that holds its PNG."""
    return _address(png_bytes(image, colours))


def overlay_data(shares: Sequence[np.ndarray]) -> str:
    """Maps in one, each in its colour, as an address that holds their PNG."""
    from PIL import Image

    return _address(_png(Image.fromarray(overlaid_bytes(shares))))
