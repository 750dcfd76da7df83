"""Figures that notebooks show and that are saved as journals ask for."""

from __future__ import annotations

import io
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_DPI = 300
# Letters stay letters, which journals ask for and programs can edit.
_VECTORS: Any = {"pdf.fonttype": 42, "svg.fonttype": "none"}


class Picture(Figure):
    """A figure that belongs to no window; saved at 300 dpi, in the format of the file's suffix.

    Parameters
    ----------
    width, height : float
        In inches.
    """

    def __init__(self, width: float, height: float) -> None:
        super().__init__((width, height))
        FigureCanvasAgg(self)

    def savefig(self, fname: Any, **kwargs: Any) -> None:
        """Save as matplotlib does, at 300 dpi unless told otherwise."""
        with matplotlib.rc_context(_VECTORS):
            super().savefig(fname, **{"dpi": _DPI, **kwargs})

    def _repr_png_(self) -> bytes:
        """What a notebook shows, whether pyplot was imported or not."""
        buffer = io.BytesIO()
        super().savefig(buffer, format="png", dpi=self.dpi)
        return buffer.getvalue()
