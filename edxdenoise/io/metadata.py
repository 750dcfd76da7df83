"""Axes and attributes of the Dataset from what a vendor's file says; where a file comes from."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edxdenoise import schema as v

# Files that hold the data of the file named.
_COMPANIONS = {".rpl": ("{stem}.raw", "{stem}.RAW"), ".emi": ("{stem}_[0-9]*.ser",)}
_KEV = {"kev": 1.0, "ev": 1e-3, "mev": 1e3}
_SPATIAL = {"um": "µm", "micron": "µm", "micrometer": "µm", "nanometer": "nm", "meters": "m"}
_PIXEL = {"", "none", "pixel", "pixels", "pix", "px", "points", "<undefined>", "1"}


class _Tree(dict):
    """A dict whose keys can be counted off, as RosettaSciIO's mapping functions expect."""

    def keys(self) -> list[str]:  # type: ignore[override]
        return list(super().keys())


def apply_mapping(
    metadata: Mapping[str, Any], original: Mapping[str, Any], mapping: Mapping[str, Any]
) -> dict[str, Any]:
    """Fill in the metadata that RosettaSciIO leaves to its caller.

    Parameters
    ----------
    metadata, original : mapping
        HyperSpy's metadata and the vendor's own.
    mapping : mapping
        From the dotted path of a vendor's entry to the dotted path in `metadata` and a function
        of the value (or None).

    Returns
    -------
    dict
        A copy of `metadata` with what was found; entries that do not convert are left out.
    """
    result = _copy(metadata)
    for source, (target, convert) in mapping.items():
        value = find(original, source)
        if value is None:
            continue
        if convert is not None:
            try:
                value = convert(_Tree(value) if isinstance(value, Mapping) else value)
            except (ValueError, TypeError, KeyError, IndexError, AttributeError):
                continue
        if value is not None:
            *folders, name = target.split(".")
            node = result
            for folder in folders:
                node = node.setdefault(folder, {})
            node[name] = value
    return result


def _copy(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _copy(value) if isinstance(value, Mapping) else value for key, value in tree.items()
    }


def find(tree: Any, path: str) -> Any:
    """Value at a dotted path, or None; a blank in a key may be written as ``_``.

    Examples
    --------
    >>> find({"a": {"High tension_kV": 200}}, "a.High_tension_kV")
    200
    """
    for key in path.split("."):
        if not isinstance(tree, Mapping):
            return None
        if key not in tree:
            key = next((name for name in tree if re.sub(r"\W", "_", str(name)) == key), key)
        tree = tree.get(key)
    return tree


def energy_values(axis: Mapping[str, Any]) -> np.ndarray | None:
    """Channel centres in keV of an axis; None where it has no unit of energy."""
    factor = _KEV.get(str(axis.get("units") or "").strip().lower())
    return None if factor is None else factor * axis_values(axis)


def axis_values(axis: Mapping[str, Any]) -> np.ndarray:
    """Values of an axis in its own unit; they descend where its scale is negative."""
    if axis.get("axis") is not None:
        return np.asarray(axis["axis"], float)
    index = np.arange(int(axis["size"]))
    return float(axis.get("offset", 0)) + float(axis.get("scale", 1)) * index


def spatial_units(axis: Mapping[str, Any]) -> str:
    """Unit of a map axis: ``µm``, ``nm``, ``pixel`` or what the file says.

    Examples
    --------
    >>> spatial_units({"units": "um"}), spatial_units({"units": None})
    ('µm', 'pixel')
    """
    # Two signs look like micro: MICRO SIGN is kept, GREEK SMALL LETTER MU is not.
    units = str(axis.get("units") or "").strip().replace("\u03bc", "\u00b5")
    if units.lower() in _PIXEL:
        return "pixel"
    return _SPATIAL.get(units.lower(), units)


def unit_ratio(units: str, other: str) -> float:
    """Return how many `other` make one of `units`; 1 where either is no length.

    Examples
    --------
    >>> unit_ratio("µm", "nm")
    1000.0
    """
    lengths = {"m": 1e12, "mm": 1e9, "µm": 1e6, "nm": 1e3, "pm": 1.0}
    return lengths[units] / lengths[other] if {units, other} <= lengths.keys() else 1.0


def attributes(metadata: Mapping[str, Any], original: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of the Dataset; what the file does not say is left out.

    Parameters
    ----------
    metadata : mapping
        HyperSpy's terms, as RosettaSciIO gives them.
    original : mapping
        The vendor's own, which win where RosettaSciIO leaves something out.

    Returns
    -------
    dict
        ``title``, ``instrument`` (TEM or SEM), ``beam_energy`` (keV), ``live_time`` and
        ``real_time`` (s), ``take_off_angle`` (of the untilted specimen), ``azimuth_angle`` and
        ``stage_tilt`` (degrees), ``detector_resolution`` (eV at Mn Ka), ``elements`` and
        ``original_metadata`` (JSON).
    """
    instruments = metadata.get("Acquisition_instrument") or {}
    instrument = next((name for name in ("TEM", "SEM") if name in instruments), None)
    node = instruments.get(instrument) or {}
    detector = find(node, "Detector.EDS") or {}
    numbers = {
        "beam_energy": node.get("beam_energy"),
        "live_time": detector.get("live_time"),
        "real_time": detector.get("real_time"),
        "take_off_angle": detector.get("elevation_angle"),
        "azimuth_angle": detector.get("azimuth_angle"),
        "stage_tilt": find(node, "Stage.tilt_alpha"),
        "detector_resolution": detector.get("energy_resolution_MnKa"),
    }
    numbers.update(_velox(original))
    numbers.update(_jeol(original))
    attrs: dict[str, Any] = {"title": str(find(metadata, "General.title") or "")}
    if instrument is not None:
        attrs["instrument"] = instrument
    for name, value in numbers.items():
        number = _number(value)
        # Vendors write 0 or -1 where a quantity that must be positive was not recorded.
        if number is not None and (number > 0 or name in ("azimuth_angle", "stage_tilt")):
            attrs[name] = number
    elements = find(metadata, "Sample.elements")
    if elements is not None and len(elements) > 0:
        attrs["elements"] = [str(element) for element in elements]
    if find(metadata, "edxdenoise.variable") == v.COUNTS_DENOISED:
        attrs[v.COUNTS_KIND] = "denoised"
    attrs["original_metadata"] = to_json(original)
    return attrs


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number + 0.0 if math.isfinite(number) else None


def _velox(original: Mapping[str, Any]) -> dict[str, Any]:
    """Angles and times of the EDS detectors, which RosettaSciIO leaves out for their sum."""
    detectors = [
        detector
        for detector in (original.get("Detectors") or {}).values()
        if isinstance(detector, Mapping) and detector.get("DetectorType") == "AnalyticalDetector"
    ]
    if not detectors:
        return {}
    found: dict[str, Any] = {}
    # Segments below the specimen have the same angle with a negative sign.
    elevations = {
        round(abs(math.degrees(angle)), 3) for angle in _column(detectors, "ElevationAngle")
    }
    found["take_off_angle"] = elevations.pop() if len(elevations) == 1 else None
    for name, key in (("live_time", "LiveTime"), ("real_time", "RealTime")):
        times = _column(detectors, key)
        found[name] = float(np.mean(times)) if times else None
    if len(detectors) == 1:
        found["azimuth_angle"] = next(map(math.degrees, _column(detectors, "AzimuthAngle")), None)
    return found


def _column(rows: list[Mapping[str, Any]], key: str) -> list[float]:
    return [number for row in rows if (number := _number(row.get(key))) is not None]


def _jeol(original: Mapping[str, Any]) -> dict[str, Any]:
    """Live time and tilt, which RosettaSciIO leaves out."""
    document = find(original, "PTTD Data.AnalyzableMap MeasData.Doc")
    sem = find(original, "PTTD Param.Params.PARAMPAGE0_SEM")
    if document is None or sem is None:
        return {}
    return {"live_time": document.get("LiveTime"), "stage_tilt": sem.get("XtiltAng")}


def to_json(tree: Any) -> str:
    """Metadata as JSON, whatever kinds of value a vendor's file holds."""
    return json.dumps(_plain(tree), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_text(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.void):
        return value.tobytes().hex()
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace").rstrip("\0")
    return str(value)


def file_source(path: Path | str) -> str:
    """Name and SHA-256 of a file, for the attribute ``source``.

    Of a folder (.zarr) the relative paths and contents of its files are hashed in sorted order.
    Data files that belong to the file named (.raw, .ser) follow, separated by ``; ``.
    """
    path = Path(path)
    return "; ".join(f"{part.name} sha256:{_hash(part)}" for part in [path, *_companions(path)])


def _companions(path: Path) -> list[Path]:
    patterns = _COMPANIONS.get(path.suffix.lower(), ())
    stem = re.sub(r"([*?[])", r"[\1]", path.stem)
    found: set[Path] = set()
    for pattern in patterns:
        found.update(path.parent.glob(pattern.format(stem=stem)))
    return sorted(found)


def _hash(path: Path) -> str:
    if path.is_file():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for part in _files(path):
        digest.update(part.relative_to(path).as_posix().encode() + b"\0")
        digest.update(_hash(part).encode())
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    files = (part for part in folder.rglob("*") if part.is_file())
    yield from sorted(files, key=lambda part: part.relative_to(folder).as_posix())
