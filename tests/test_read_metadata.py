"""Metadata become plain attributes, and sources can be told apart."""

import hashlib
import json

import numpy as np
import pytest

from edxdenoise.io.metadata import (
    apply_mapping,
    attributes,
    axis_values,
    energy_values,
    file_source,
    spatial_units,
    to_json,
)


def test_all_kinds_of_values_become_json():
    tree = {
        "number": np.float32(0.5),
        "whole": np.int16(3),
        "array": np.arange(2),
        "bytes": b"ab\0\0",
        "text": np.bytes_(b"x"),
        "filler": np.void(b"\x01\xff"),
        "nan": float("nan"),
        1: (True, None),
    }
    assert json.loads(to_json(tree)) == {
        "number": 0.5,
        "whole": 3,
        "array": [0, 1],
        "bytes": "ab",
        "text": "x",
        "filler": "01ff",
        "nan": "nan",
        "1": [True, None],
    }


def test_mapping_fills_in_and_skips_what_does_not_convert():
    original = {"Stage": {"Alpha Tilt": "0.1", "Beta": "none"}, "Elements": {"a": [8]}}
    mapping = {
        "Stage.Alpha_Tilt": ("Instrument.Stage.tilt_alpha", float),
        "Stage.Beta": ("Instrument.Stage.tilt_beta", float),
        "Elements": ("Sample.elements", lambda d: d[d.keys()[0]]),
        "Absent.Entry": ("General.title", None),
    }
    metadata = {"Instrument": {"name": "A"}}
    assert apply_mapping(metadata, original, mapping) == {
        "Instrument": {"name": "A", "Stage": {"tilt_alpha": 0.1}},
        "Sample": {"elements": [8]},
    }
    assert metadata == {"Instrument": {"name": "A"}}


def test_what_a_file_does_not_say_is_left_out():
    detector = {"elevation_angle": 0.0, "live_time": -1, "azimuth_angle": "0"}
    metadata = {
        "Acquisition_instrument": {"SEM": {"beam_energy": None, "Detector": {"EDS": detector}}},
        "Sample": {"elements": []},
    }
    attrs = attributes(metadata, {})
    assert attrs == {
        "title": "",
        "instrument": "SEM",
        "azimuth_angle": 0.0,
        "original_metadata": "{}",
    }


def test_axes():
    np.testing.assert_allclose(
        energy_values({"units": "eV", "offset": -10, "scale": 5, "size": 3}), [-0.01, -0.005, 0]
    )
    assert energy_values({"units": "nm", "size": 3}) is None
    np.testing.assert_allclose(axis_values({"scale": -2, "size": 3}), [0, -2, -4])
    np.testing.assert_allclose(axis_values({"axis": [1, 2, 4], "size": 3}), [1, 2, 4])


@pytest.mark.parametrize(
    ("units", "normal"),
    [
        ("um", "µm"),
        ("\u03bcm", "\u00b5m"),
        ("nm", "nm"),
        ("", "pixel"),
        (None, "pixel"),
        ("m", "m"),
    ],
)
def test_spatial_units(units, normal):
    assert spatial_units({"units": units}) == normal


def test_source_of_a_file_and_of_its_data_file(tmp_path):
    (tmp_path / "a.bcf").write_bytes(b"abc")
    digest = hashlib.sha256(b"abc").hexdigest()
    assert file_source(tmp_path / "a.bcf") == f"a.bcf sha256:{digest}"
    (tmp_path / "b.rpl").write_bytes(b"abc")
    (tmp_path / "b.raw").write_bytes(b"")
    empty = hashlib.sha256(b"").hexdigest()
    assert file_source(tmp_path / "b.rpl") == f"b.rpl sha256:{digest}; b.raw sha256:{empty}"


def test_source_of_a_folder_tells_names_and_contents(tmp_path):
    sources = set()
    for name, inner, content in (("1", "c/0", b"x"), ("2", "c/1", b"x"), ("3", "c/0", b"y")):
        folder = tmp_path / name / "a.zarr"
        (folder / "c").mkdir(parents=True)
        (folder / inner).write_bytes(content)
        (folder / "zarr.json").write_bytes(b"{}")
        sources.add(file_source(folder))
    assert len(sources) == 3
    assert all(source.startswith("a.zarr sha256:") for source in sources)
