"""Images that a file holds with its spectrum image, and masks of pixels that were not measured."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.cube import named_images
from edxdenoise.errors import EdxdenoiseError, FormatError, Rank, warn
from edxdenoise.io.guard import check_file, guarded
from edxdenoise.io.metadata import axis_values, find, spatial_units, unit_ratio
from edxdenoise.io.signals import energy_position, open_file
from edxdenoise.io.vendor import VendorSignal
from edxdenoise.xray.lines import SYMBOLS

# Pixels of images of the same field of view agree within this share.
_SAME_STEP = 0.02
_COMPUTED = re.compile(
    rf"({'|'.join(SYMBOLS)})([\s_-]*[KLM]([abglnαβγ]\d?|\d)?)?([\s_-]*(EELS|EDS|EDX|EDXS))?"
)
_NAMELESS = "image"


def detector_images(
    path: Path, ds: xr.Dataset, signals: Sequence[VendorSignal]
) -> xr.DataArray | None:
    """Return the images among `signals` that were recorded with a spectrum image.

    Taken are images of its shape whose pixels, where both are calibrated, have its size. Maps of
    an element, which are computed from counts, are left out: they repeat the noise of the counts.

    Parameters
    ----------
    path : Path
        For the messages.
    ds : Dataset
        The spectrum image, for its shape and pixels.
    signals : sequence of VendorSignal
        The other signals of its file.

    Returns
    -------
    DataArray or None
        ``image``, shape (detector, y, x), in memory, with the coordinate ``detector``: the titles
        in the file, numbered where one occurs twice. None where there is no such image.

    Warns
    -----
    EdxdenoiseWarning
        If an image is damaged; it is left out.
    """
    found: dict[str, np.ndarray] = {}
    for signal in signals:
        title = str(find(signal.metadata, "General.title") or "").strip() or _NAMELESS
        if not _was_recorded(signal, title) or not _same_field(ds, signal):
            continue
        try:
            values = guarded(path, lambda: np.asarray(signal.data))
        except EdxdenoiseError as error:
            warn(f"Image '{title}' is left out: {error}", "counts are not affected", rank=Rank.NOTE)
            continue
        same = sum(name == title or name.startswith(f"{title} ") for name in found)
        found[f"{title} {same + 1}" if same else title] = values
    if not found:
        return None
    stacked = np.stack(list(found.values()))
    if stacked.dtype.kind == "f":
        stacked = stacked.astype(np.float32, copy=False)
    return named_images(stacked, list(found))


def _was_recorded(signal: VendorSignal, title: str) -> bool:
    """Whether a signal is an image from a detector and not one computed from spectra."""
    return (
        signal.data.ndim == 2
        and find(signal.metadata, "edxdenoise.variable") is None
        and signal.data.dtype.kind in "uif"
        and energy_position(signal) is None
        and not _COMPUTED.fullmatch(title)
        and find(signal.metadata, "Sample.xray_lines") is None
    )


def _same_field(ds: xr.Dataset, signal: VendorSignal) -> bool:
    for dim, axis in zip((v.DIM_Y, v.DIM_X), signal.axes):
        positions, own = ds[dim].values, axis_values(axis)
        if len(own) != len(positions):
            return False
        units = ds[dim].attrs.get("units", "pixel"), spatial_units(axis)
        if "pixel" in units or len(own) < 2:
            continue
        step = abs(own[1] - own[0]) * unit_ratio(units[1], units[0])
        if abs(step / abs(positions[1] - positions[0]) - 1) > _SAME_STEP:
            return False
    return True


def read_mask(path: Path | str) -> np.ndarray:
    """Read which pixels were not measured.

    Parameters
    ----------
    path : path
        An image in any format that RosettaSciIO reads, such as .tif; missing pixels are not 0.

    Returns
    -------
    array of bool, shape (y, x)
        True where a pixel is missing.

    Raises
    ------
    FormatError
        If the file cannot be read or holds no image with one number per pixel.
    """
    path = check_file(path)
    images = [signal for signal in open_file(path) if signal.data.ndim == 2]
    if len(images) != 1 or images[0].data.dtype.kind not in "buif":
        raise FormatError(
            f"'{path}' is no mask: it must hold one image with one number per pixel, not 0 where a "
            "pixel is missing; save it as a grey-scale .tif"
        )
    return guarded(path, lambda: np.asarray(images[0].data)) != 0
