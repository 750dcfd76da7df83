"""Attributes in a form that NetCDF can hold, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

# Names of the attributes that are JSON text in the file; itself only in the file.
_JSON_ATTRS = "edxdenoise_json_attrs"
# netCDF gives a list of one text back as the text alone.
_LIST_ATTRS = ("area_label", "elements", "elements_given")


def netcdf_attrs(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Turn what NetCDF has no type for into JSON text and note which attributes these are.

    NetCDF has no None, bool, dict, list of lists or empty list.

    Examples
    --------
    >>> netcdf_attrs({"title": "a", "stack": {"n": None}})
    {'title': 'a', 'stack': '{"n": null}', 'edxdenoise_json_attrs': 'stack'}
    """
    native: dict[str, Any] = {}
    as_json = []
    for name, value in attrs.items():
        if _is_native(name, value):
            native[name] = value
        else:
            native[name] = json.dumps(value, default=_plain)
            as_json.append(name)
    if as_json:
        native[_JSON_ATTRS] = " ".join(as_json)
    return native


def memory_attrs(attrs: Mapping[Any, Any]) -> dict[Any, Any]:
    """Inverse of `netcdf_attrs`; attributes read from Zarr come back as they are.

    Examples
    --------
    >>> memory_attrs(netcdf_attrs({"elements": ["Pb"], "stack": {"n": None}}))
    {'elements': ['Pb'], 'stack': {'n': None}}
    """
    attrs = dict(attrs)
    for name in attrs.pop(_JSON_ATTRS, "").split():
        attrs[name] = json.loads(attrs[name])
    for name in _LIST_ATTRS:
        if isinstance(attrs.get(name), str):
            attrs[name] = [attrs[name]]
    return {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in attrs.items()
    }


def _is_native(name: str, value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        fewest = 1 if name in _LIST_ATTRS else 2
        return len(value) >= fewest and all(isinstance(item, str) for item in value)
    if isinstance(value, np.ndarray):
        return value.ndim == 1 and value.size > 1 and value.dtype.kind in "iuf"
    return isinstance(value, (str, int, float, np.integer, np.floating)) and not isinstance(
        value, bool
    )


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return str(value)
