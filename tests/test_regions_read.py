"""Regions and profiles that a user draws, from text and from files of other programs."""

import json

import numpy as np
import pytest
import tifffile
from helpers import cube

from edxdenoise.errors import EdxdenoiseError, FormatError, ParameterError
from edxdenoise.io import profile_steps, read_regions

DS = cube(np.ones((12, 20, 2), np.uint8))
roifile = pytest.importorskip("roifile")


def only(found):
    (item,) = found.items()
    return item


def rectangle(y, x):
    mask = np.zeros((12, 20), bool)
    mask[y, x] = True
    return mask


def test_rectangles():
    found = read_regions(["core=2:5,3:9", "rest = 5:,:-1"], DS)
    np.testing.assert_array_equal(found["core"], rectangle(slice(2, 5), slice(3, 9)))
    np.testing.assert_array_equal(found["rest"], rectangle(slice(5, None), slice(None, -1)))


def test_labels_of_a_tiff(tmp_path):
    labels = np.zeros((12, 20), np.uint8)
    labels[:4], labels[6:8, 5:] = 3, 7
    tifffile.imwrite(tmp_path / "grains.tif", labels)
    found = read_regions([str(tmp_path / "grains.tif")], DS)
    assert list(found) == ["grains 3", "grains 7"]
    np.testing.assert_array_equal(found["grains 7"], labels == 7)
    tifffile.imwrite(tmp_path / "mask.tif", (labels == 3).astype(np.uint8) * 255)
    name, mask = only(read_regions([f"top={tmp_path / 'mask.tif'}"], DS))
    assert name == "top"
    np.testing.assert_array_equal(mask, labels == 3)


def test_imagej_rois(tmp_path):
    corners = np.array([[3, 2], [9, 2], [9, 5], [3, 5]], float)
    roi = roifile.ImagejRoi.frompoints(corners, name="particle")
    roi.tofile(tmp_path / "a.roi")
    name, mask = only(read_regions([str(tmp_path / "a.roi")], DS))
    assert name == "particle"
    np.testing.assert_array_equal(mask, rectangle(slice(2, 5), slice(3, 9)))
    oval = roifile.ImagejRoi(
        roitype=roifile.ROI_TYPE.OVAL, left=4, top=1, right=14, bottom=11, name="disc"
    )
    oval.tofile(tmp_path / "b.roi")
    _, mask = only(read_regions([str(tmp_path / "b.roi")], DS))
    y, x = np.mgrid[:12, :20] + 0.5
    disc = (y - 6) ** 2 + (x - 9) ** 2 < 25
    assert (mask != disc).sum() <= 4 and mask.sum() > 70
    line = roifile.ImagejRoi(roitype=roifile.ROI_TYPE.LINE, x1=1, y1=1, x2=5, y2=5, name="l")
    line.tofile(tmp_path / "c.roi")
    with pytest.raises(FormatError, match="'l' is a line, which has no area"):
        read_regions([str(tmp_path / "c.roi")], DS)


def test_geojson_with_a_hole(tmp_path):
    outer = [[2, 1], [12, 1], [12, 9], [2, 9], [2, 1]]
    inner = [[5, 3], [8, 3], [8, 6], [5, 6], [5, 3]]
    feature = {
        "type": "Feature",
        "properties": {"classification": {"name": "ring"}},
        "geometry": {"type": "Polygon", "coordinates": [outer, inner]},
    }
    path = tmp_path / "drawn.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    name, mask = only(read_regions([str(path)], DS))
    assert name == "ring"
    expected = rectangle(slice(1, 9), slice(2, 12)) & ~rectangle(slice(3, 6), slice(5, 8))
    np.testing.assert_array_equal(mask, expected)


def test_a_polygon_has_the_pixels_whose_centres_it_holds():
    name, mask = only(read_regions(["core=1,2 1,12 9.4,12 9.4,2"], DS))
    assert name == "core"
    np.testing.assert_array_equal(mask, rectangle(slice(1, 9), slice(2, 12)))


@pytest.mark.parametrize(
    ("text", "content", "words"),
    [
        ("core=2-5,3-9", None, "must be written NAME=Y0:Y1,X0:X1"),
        ("core=1,2 3,4", None, "must be written NAME=Y0:Y1,X0:X1, NAME=Y,X Y,X Y,X"),
        ("core=" + "1,2 " * 200, None, "must be written NAME=Y0:Y1,X0:X1, NAME=Y,X Y,X Y,X"),
        ("core=30:40,3:9", None, "region 'core' holds no pixel of the map of 12 x 20"),
        ("{}/none.tif", None, "none.tif' does not exist"),
        ("{}/a.geojson", b"{", "a.geojson' cannot be read"),
        ("{}/a.geojson", b'{"type": "Point", "coordinates": [1, 2]}', "is a Point, must be a"),
        ("{}/a.geojson", b'{"features": []}', "holds no region"),
        ("{}/a.roi", b"no roi", "a.roi' cannot be read"),
        ("{}/a.tif", b"II*\0", "a.tif' cannot be read"),
    ],
)
def test_what_is_no_region_is_one_line(tmp_path, text, content, words):
    path = text.format(tmp_path)
    if content is not None:
        (tmp_path / path.rpartition("/")[2]).write_bytes(content)
    with pytest.raises(EdxdenoiseError) as caught:
        read_regions([path], DS)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_labels_of_another_map(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((5, 6), np.uint8))
    with pytest.raises(FormatError, match="has 5 x 6 pixels, the map 12 x 20"):
        read_regions([str(tmp_path / "a.tif")], DS)
    tifffile.imwrite(tmp_path / "b.tif", np.random.default_rng(0).random((12, 20)))
    with pytest.raises(FormatError, match="no image of labels"):
        read_regions([str(tmp_path / "b.tif")], DS)


def test_profiles():
    ds = DS.assign_coords(y=2.0 * DS.y, x=("x", 2.0 * DS.x.values, {"units": "nm"}))
    steps = profile_steps(["6,2:6,10,3"], ds)
    assert list(steps)[:2] == ["profile 0 nm", "profile 2 nm"] and len(steps) == 9
    for i, (distance, mask) in enumerate(steps.values()):
        assert distance == 2 * i
        np.testing.assert_array_equal(mask, rectangle(slice(5, 8), 2 + i))
    # Steps of a slanted profile do not share pixels, and hold about its area.
    slanted = np.array([mask for _, mask in profile_steps(["1,1:9,15,4"], DS).values()])
    assert slanted.sum(axis=0).max() == 1
    assert slanted.sum() == pytest.approx(4 * np.hypot(8, 14), rel=0.15)
    names = list(profile_steps(["1,1:1,3", "2,1:2,3"], DS))
    assert names[0] == "profile 1, 0 pixel" and len(names) == 6


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,1-1,3", "must be written Y0,X0:Y1,X1"),
        ("1,1:1,1", "must have a length"),
        ("30,1:40,1", "outside the map"),
    ],
)
def test_impossible_profiles(text, words):
    with pytest.raises(ParameterError, match=words):
        profile_steps([text], DS)
