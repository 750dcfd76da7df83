"""Regions of a map: rectangles, polygons, labelled images, ImageJ ROIs, GeoJSON, profiles.

All positions are in pixels of the map, rows and columns counted from 0. In ImageJ ROIs and GeoJSON,
as in their programs, x and y are measured from the upper left corner of the first pixel; a pixel
belongs to a polygon that holds its centre.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.errors import FormatError, ParameterError
from edxdenoise.io.export import pixel_size

REGION_FORM = "NAME=Y0:Y1,X0:X1, NAME=Y,X Y,X Y,X ... or [NAME=]FILE (.tif, .roi, .zip, .geojson)"
PROFILE_FORM = "Y0,X0:Y1,X1[,WIDTH]"
_ENDS = r"\s*(-?\d*)\s*:\s*(-?\d*)\s*"
_RECTANGLE = re.compile(rf"([^=]+)={_ENDS},{_ENDS}")
_CORNER = r"-?\d+(?:\.\d*)?,-?\d+(?:\.\d*)?"
_POLYGON = re.compile(rf"([^=]+)=({_CORNER}(?: {_CORNER}){{2,}})")
_NUMBER = r"\s*(-?\d+(?:\.\d*)?)\s*"
_PROFILE = re.compile(rf"{_NUMBER},{_NUMBER}:{_NUMBER},{_NUMBER}(?:,{_NUMBER})?")
# Most different values that an image of labels may have.
_MOST_LABELS = 1000


def check_region(text: str) -> None:
    """Check how a region is written, and that its file exists.

    Raises
    ------
    ParameterError
        If it is no rectangle, no polygon and no path of a file of a known kind.
    FormatError
        If there is no such file.

    Examples
    --------
    >>> check_region("core=10:40,20:60")
    >>> check_region("rim=0,0 10,0 10,7.5")
    >>> check_region("core=10-40")
    Traceback (most recent call last):
    ...
    edxdenoise.errors.ParameterError: region 'core=10-40' must be written NAME=Y0:Y1,X0:X1, \
NAME=Y,X Y,X Y,X ... or [NAME=]FILE (.tif, .roi, .zip, .geojson)
    """
    if _RECTANGLE.fullmatch(text) or _POLYGON.fullmatch(text):
        return
    _, path = _named(text)
    if path.suffix.lower() not in _READERS:
        raise ParameterError(f"region '{text}' must be written {REGION_FORM}")
    if not os.path.isfile(path):
        raise FormatError(f"region file '{path}' does not exist; check its name")


def read_regions(texts: Iterable[str], ds: xr.Dataset) -> dict[str, np.ndarray]:
    """Masks (y, x) of regions, by name.

    Parameters
    ----------
    texts : iterable of str
        ``NAME=Y0:Y1,X0:X1``, without row Y1 and column X1, as ``--crop-y`` has it; the corners of a
        polygon, ``NAME=Y,X Y,X Y,X``, 0,0 at the upper left of the first pixel; or a file, with or
        without a name: TIFF of labels (0 is no region), ImageJ ``.roi`` or ``.zip``, GeoJSON.
        The regions of a file have the names that the file gives them, or that of the file.
    ds : Dataset
        The map, as it is after cropping and rebinning.

    Raises
    ------
    ParameterError
        If a region is not written as it should be, holds no pixel, or has the name of another.
    FormatError
        If a file cannot be read, or is of a map of another size.
    """
    shape = ds.sizes[v.DIM_Y], ds.sizes[v.DIM_X]
    masks: dict[str, np.ndarray] = {}
    for text in texts:
        check_region(text)
        for name, mask in _one(text, shape).items():
            if not mask.any():
                raise ParameterError(
                    f"region '{name}' holds no pixel of the map of {shape[0]} x {shape[1]} pixels"
                )
            if name in masks:
                raise ParameterError(f"region '{name}' is there twice; give it another name")
            masks[name] = mask
    return masks


def check_profile(text: str) -> tuple[float, float, float, float, float]:
    """Start (y, x), end (y, x) and width of a profile, in pixels.

    Raises
    ------
    ParameterError
        If it is written otherwise, has no length, or no width.

    Examples
    --------
    >>> check_profile("10,5:10,60,3")
    (10.0, 5.0, 10.0, 60.0, 3.0)
    """
    found = _PROFILE.fullmatch(text)
    if found is None:
        raise ParameterError(
            f"profile '{text}' must be written {PROFILE_FORM} in pixels, such as 10,5:10,60,3"
        )
    y0, x0, y1, x1, width = (float(part or 1) for part in found.groups())
    if (y0, x0) == (y1, x1) or width <= 0:
        raise ParameterError(f"profile '{text}' must have a length and a width above 0")
    return y0, x0, y1, x1, width


def profile_steps(texts: Iterable[str], ds: xr.Dataset) -> dict[str, tuple[float, np.ndarray]]:
    """Steps of one pixel along profiles: distance from the start and mask (y, x), by name.

    A pixel belongs to the step in which its centre is; steps without a pixel are left out.

    Parameters
    ----------
    texts : iterable of str
        ``Y0,X0:Y1,X1[,WIDTH]`` in pixels; 1 pixel wide by default.
    ds : Dataset
        The map, as it is after cropping and rebinning.

    Raises
    ------
    ParameterError
        If a profile is not written as it should be, or outside the map.
    """
    texts = list(texts)
    rows, columns = np.mgrid[: ds.sizes[v.DIM_Y], : ds.sizes[v.DIM_X]]
    size = pixel_size(ds)
    steps: dict[str, tuple[float, np.ndarray]] = {}
    for number, text in enumerate(texts, 1):
        y0, x0, y1, x1, width = check_profile(text)
        length = np.hypot(y1 - y0, x1 - x0)
        down, across = (y1 - y0) / length, (x1 - x0) / length
        scale = np.hypot(down * size.y, across * size.x)
        along = (rows - y0) * down + (columns - x0) * across
        beside = (columns - x0) * down - (rows - y0) * across
        step = np.floor(along + 0.5).astype(int)
        inside = (np.abs(2 * beside + 1e-6) <= width) & (step >= 0) & (step <= round(length))
        if not inside.any():
            raise ParameterError(f"profile '{text}' is outside the map of {rows.shape} pixels")
        label = "profile" if len(texts) == 1 else f"profile {number},"
        for i in np.unique(step[inside]):
            distance = round(float(i * scale), 9)
            steps[f"{label} {distance:.4g} {size.units}"] = distance, inside & (step == i)
    return steps


def corners_of(text: str) -> np.ndarray:
    """Corners (x, y) of a polygon written ``Y,X Y,X Y,X``.

    Raises
    ------
    ParameterError
        If it is written otherwise.

    Examples
    --------
    >>> corners_of("0,1 0,3 2.5,3").tolist()
    [[1.0, 0.0], [3.0, 0.0], [3.0, 2.5]]
    """
    if not _POLYGON.fullmatch(f"polygon={text}"):
        raise ParameterError(f"polygon '{text[:80]}' must be written Y,X Y,X Y,X ... in pixels")
    return np.array([part.split(",")[::-1] for part in text.split(" ")], float)


def _named(text: str) -> tuple[str, Path]:
    """Name that a user gives to a file, if any, and its path."""
    name, sign, path = text.partition("=")
    return (name.strip(), Path(path)) if sign and not os.path.exists(text) else ("", Path(text))


def _one(text: str, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    rectangle = _RECTANGLE.fullmatch(text)
    if rectangle:
        name, *ends = rectangle.groups()
        y0, y1, x0, x1 = (int(end) if end else None for end in ends)
        mask = np.zeros(shape, bool)
        mask[y0:y1, x0:x1] = True
        return {name.strip(): mask}
    polygon = _POLYGON.fullmatch(text)
    if polygon:
        return {polygon[1].strip(): _inside([corners_of(polygon[2])], shape)}
    name, path = _named(text)
    try:
        found = _READERS[path.suffix.lower()](path, shape)
    except FormatError:
        raise
    except Exception as error:
        # Whatever a broken file makes its reader raise.
        raise FormatError(f"region file '{path}' cannot be read: {error}") from error
    if not found:
        raise FormatError(f"region file '{path}' holds no region")
    if not name:
        return found
    if len(found) == 1:
        return {name: mask for mask in found.values()}
    return {f"{name} {label}": mask for label, mask in found.items()}


def _read_labels(path: Path, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    import tifffile

    image = np.squeeze(tifffile.imread(path))
    if image.shape != shape:
        raise FormatError(
            f"region file '{path}' has {' x '.join(map(str, image.shape))} pixels, the map "
            f"{shape[0]} x {shape[1]}; crop and rebin them alike"
        )
    labels = np.unique(image)
    labels = labels[(labels != 0) & np.isfinite(labels)]
    if labels.size > _MOST_LABELS or (labels != np.trunc(labels)).any():
        raise FormatError(
            f"region file '{path}' is no image of labels: it must hold whole numbers, 0 where "
            f"there is no region, and no more than {_MOST_LABELS} different ones"
        )
    if labels.size == 1:
        return {path.stem: image == labels[0]}
    return {f"{path.stem} {label:g}": image == label for label in labels}


def _read_roi(path: Path, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    import roifile

    read = roifile.roiread(path)
    masks = {}
    for number, roi in enumerate(read if isinstance(read, list) else [read], 1):
        kinds = roifile.ROI_TYPE
        name = roi.name or (path.stem if not isinstance(read, list) else f"{path.stem} {number}")
        areas = (kinds.POLYGON, kinds.RECT, kinds.OVAL, kinds.FREEHAND, kinds.TRACED)
        if roi.roitype not in areas:
            raise FormatError(
                f"region file '{path}': '{name}' is a {roi.roitype.name.lower()}, which has no "
                "area; draw a polygon, or use --profile for a line"
            )
        masks[name] = _inside(list(roi.coordinates(multi=True)), shape)
    return masks


def _read_geojson(path: Path, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    found = json.loads(path.read_text(encoding="utf-8"))
    features = found.get("features", [found]) if isinstance(found, dict) else found
    masks: dict[str, np.ndarray] = {}
    for number, feature in enumerate(features, 1):
        geometry = feature.get("geometry", feature)
        if geometry.get("type") not in ("Polygon", "MultiPolygon"):
            raise FormatError(
                f"region file '{path}': feature {number} is a {geometry.get('type')}, must be a "
                "Polygon or MultiPolygon"
            )
        plain = path.stem if len(features) == 1 else f"{path.stem} {number}"
        name = _feature_name(feature.get("properties") or {}) or plain
        polygons = geometry["coordinates"]
        if geometry["type"] == "Polygon":
            polygons = [polygons]
        mask = np.zeros(shape, bool)
        for rings in polygons:
            mask |= _inside([np.array(ring, float)[:, :2] for ring in rings], shape)
        # Parts of one region may be features of the same name, as QuPath writes classes.
        masks[name] = masks.get(name, False) | mask
    return masks


def _feature_name(properties: dict[str, Any]) -> str:
    classification = properties.get("classification") or {}
    return str(properties.get("name") or classification.get("name") or "")


def _inside(rings: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Pixels whose centres are inside."""
    return inside_polygon(rings, *(np.arange(size) + 0.5 for size in shape))


def inside_polygon(rings: list[np.ndarray], y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return which points of a grid are inside an odd number of rings: holes are left out.

    Parameters
    ----------
    rings : list of array, shape (corner, 2)
        Their x and y.
    y, x : array, shape (y,) and (x,)
        Of the points.

    Returns
    -------
    array of bool, shape (y, x)
    """
    from matplotlib.path import Path as Outline

    points = np.dstack(np.meshgrid(x, y)).reshape(-1, 2)
    inside = np.zeros(len(points), bool)
    for ring in rings:
        inside ^= Outline(ring).contains_points(points)
    return inside.reshape(y.size, x.size)


_READERS = {
    ".tif": _read_labels,
    ".tiff": _read_labels,
    ".roi": _read_roi,
    ".zip": _read_roi,
    ".geojson": _read_geojson,
    ".json": _read_geojson,
}
