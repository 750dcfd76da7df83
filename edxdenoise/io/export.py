"""Maps, spectra and tables as files that other programs open: TIFF, EMSA/MAS and CSV."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from edxdenoise import schema as v
from edxdenoise._version import __version__
from edxdenoise.cube import energy_axis

_MICRONS = {"m": 1e6, "mm": 1e3, "µm": 1.0, "nm": 1e-3, "pm": 1e-6, "Å": 1e-4}
# Attributes of the Dataset by their keyword in an EMSA/MAS file.
_EMSA_KEYWORDS = {
    "BEAMKV": "beam_energy",
    "ELEVANGLE": "take_off_angle",
    "AZIMANGLE": "azimuth_angle",
    "LIVETIME": "live_time",
    "REALTIME": "real_time",
    "FWHMMNKA": "detector_resolution",
}
_DIGITS = 6


@dataclass(frozen=True)
class PixelSize:
    """Height and width of a pixel; ``units`` is ``"pixel"`` where nothing is known."""

    y: float
    x: float
    units: str


def pixel_size(ds: xr.Dataset) -> PixelSize:
    """Size of the pixels of the maps of `ds`."""
    units = str(ds[v.DIM_X].attrs.get("units") or "pixel")
    # The median, since areas may lie apart; a single row is as high as pixels are wide.
    y, x = (
        float(np.median(np.abs(np.diff(ds[dim].values)))) if ds.sizes[dim] > 1 else 0.0
        for dim in (v.DIM_Y, v.DIM_X)
    )
    return PixelSize(y or x or 1.0, x or y or 1.0, units)


def write_tiff(path: str | Path, image: np.ndarray, pixel: PixelSize, *, info: str = "") -> None:
    """Write a map as a 32-bit float TIFF that ImageJ and Fiji open with its scale.

    Parameters
    ----------
    path : str or Path
        File to write.
    image : array, shape (y, x)
        NaN stays NaN.
    pixel : PixelSize
        Lengths are written in microns, which HyperSpy reads as well.
    info : str
        What the map shows; ImageJ's "Show Info".
    """
    import tifffile

    metadata: dict[str, Any] = {"Info": info}
    finite = image[np.isfinite(image)]
    if finite.size:
        # What is black and white at first; else a far-out pixel would darken all others.
        low, high = np.percentile(finite, (0.5, 99.5))
        if low < high:
            metadata |= {"min": float(low), "max": float(high)}
    settings: dict[str, Any] = {}
    if pixel.units != "pixel":
        factor = _MICRONS.get(pixel.units)
        metadata["unit"] = "micron" if factor else pixel.units.encode("ascii", "ignore").decode()
        scale = factor or 1.0
        settings = {"resolution": (1 / (pixel.x * scale), 1 / (pixel.y * scale))}
    tifffile.imwrite(path, image.astype(np.float32), imagej=True, metadata=metadata, **settings)


def write_msa(path: str | Path, ds: xr.Dataset, spectrum: np.ndarray, *, title: str) -> None:
    """Write a spectrum as an EMSA/MAS file (ISO 22029).

    Parameters
    ----------
    path : str or Path
        File to write.
    ds : Dataset
        With the energy axis in keV; beam energy, angles, times and resolution go into the header.
    spectrum : array, shape (energy,)
        Counts.
    title : str
        What the spectrum is.
    """
    from rsciio.msa import file_writer

    offset, width = energy_axis(ds)
    header: dict[str, object] = {
        "FORMAT": "EMSA/MAS Spectral Data File",
        "OWNER": f"edxdenoise {__version__}",
        # Else RosettaSciIO signs as the program.
        "COMMENT": "",
        "YUNITS": "counts",
    }
    for keyword, name in _EMSA_KEYWORDS.items():
        if ds.attrs.get(name) is not None:
            header[keyword] = _tidy(float(ds.attrs[name]))
    axis = {
        "name": "Energy",
        "units": "keV",
        "offset": _tidy(offset),
        "scale": _tidy(width),
        "size": len(spectrum),
    }
    signal = {
        "data": np.asarray(spectrum, float),
        "axes": [axis],
        # Of a SEM as well: at EDS_SEM the writer changes its own table, and all later headers.
        "metadata": {"General": {"title": title}, "Signal": {"signal_type": "EDS_TEM"}},
        "original_metadata": header,
    }
    file_writer(str(path), signal)


def _tidy(value: float) -> float:
    """Without what floating-point steps leave in the last digits, which some readers choke on."""
    return float(f"{value:.10g}")


def write_table(path: str | Path, table: pd.DataFrame, *, digits: int = _DIGITS) -> None:
    """Write a table as CSV in UTF-8, numbers with `digits` significant digits, NaN as empty."""
    table.to_csv(
        path, index=False, float_format=f"%.{digits}g", encoding="utf-8", lineterminator="\n"
    )


def file_name(text: str) -> str:
    """Return the name of a line, element or ratio in file names.

    Examples
    --------
    >>> file_name("I/Pb"), file_name("Pb_Lb2,15")
    ('I-Pb', 'Pb_Lb2-15')
    """
    return re.sub(r"[^\w.-]+", "-", text)
