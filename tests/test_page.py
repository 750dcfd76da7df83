"""The page of a report: it shows what was found, opens from disk alone, and trusts no file."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from edxdenoise.components.pca import pca
from edxdenoise.components.selection import select
from edxdenoise.cube import make_cube, result_name
from edxdenoise.preprocess import weight
from edxdenoise.report.findings import gather
from edxdenoise.report.page import page_text
from edxdenoise.xray import channel_response, line_energy

CHANNELS, WIDTH = 180, 0.05
ENERGY = (np.arange(CHANNELS) + 0.5) * WIDTH
HOSTILE = '<script>alert(1)</script> [/red] $x & "y"'


class Page(HTMLParser):
    """Tags with their attributes and text, in order; headings apart."""

    VOID = {"meta", "link", "img", "input", "line", "polyline", "br"}

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text, self.levels = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)

    def find(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def measured():
    """Fe at the left, Ca at the right, in a file whose title is hostile."""
    lines = channel_response(np.array([line_energy("Fe_Ka"), line_energy("Ca_Ka")]), ENERGY)
    left = np.linspace(1, 0, 16)[np.newaxis, :, np.newaxis] * np.ones((12, 1, 1))
    expected = 4 * (0.2 + 40 * left * lines[0] + 30 * (1 - left) * lines[1])
    counts = np.random.default_rng(1).poisson(expected)
    attrs = {"beam_energy": 200.0, "detector_resolution": 130.0, "title": HOSTILE}
    return make_cube(counts, energy=ENERGY, spatial_units="nm", attrs=attrs)


@pytest.fixture(scope="module")
def result():
    cube = measured()
    ds = select(pca(weight(cube), components=20), keep="1-3,9")
    return ds.assign_attrs(
        source=f"{HOSTILE}.bcf sha256:abc", recipe=f'title = "{HOSTILE}"', warnings=[HOSTILE]
    )


@pytest.fixture(scope="module")
def text(result):
    return page_text(gather(result))


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_the_page_loads_nothing_from_elsewhere_and_is_small(text, page):
    assert len(text) < 15e6
    for tag, attrs in page.tags:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            link = attrs.get(name) or ""
            if tag != "article":
                assert not re.match(r"(https?:|//|file:|ftp:)", link), (tag, link)
    (policy,) = [attrs["content"] for attrs in page.find("meta") if "http-equiv" in attrs]
    assert policy.startswith("default-src 'none'")


def test_every_kept_component_and_every_element_is_shown(page):
    shown = [attrs["data-component"] for attrs in page.find("article") if "data-component" in attrs]
    assert shown[:4] == ["1", "2", "3", "9"]
    lines = [attrs["data-line"] for attrs in page.find("article") if "data-line" in attrs]
    assert sorted(lines) == ["Ca Kα", "Fe Kα"]


def test_what_a_file_says_is_text_and_nothing_else(text, page):
    assert "<script>alert(1)" not in text
    words = "".join(page.text)
    assert words.count(HOSTILE) >= 4


def test_headings_are_in_order_and_pictures_have_alternatives(page):
    assert page.levels[0] == 1 and page.levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(page.levels, page.levels[1:]))
    assert page.find("html")[0]["lang"] == "en" and page.find("title")
    assert all(attrs.get("alt") for attrs in page.find("img"))
    assert all(attrs.get("aria-label") for attrs in page.find("div") if "role" in attrs)


def test_the_page_names_the_result_it_shows(result, page):
    words = "".join(page.text)
    assert result_name(result) in words
    other = result.assign_attrs(source="other.bcf sha256:def")
    assert result_name(other) != result_name(result)
    assert result_name(select(result, keep="1-3")) != result_name(result)


def test_what_is_read_by_the_script_is_json(text):
    (meta,) = re.findall(r'<script type="application/json" id="box-meta">(.*?)</script>', text)
    assert json.loads(meta)["lines"] == ["Fe Kα", "Ca Kα"]
