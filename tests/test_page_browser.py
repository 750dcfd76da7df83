"""The page in a browser: it draws everything, and its boxes say what the library says."""

import numpy as np
import pytest
from browser import find_browser
from test_export import LINES, counts_of

from edxdenoise.components.pca import pca
from edxdenoise.components.selection import select
from edxdenoise.cube import reconstruct
from edxdenoise.preprocess import weight
from edxdenoise.quantification import cliff_lorimer, line_intensity, region_table, sum_regions
from edxdenoise.report.findings import gather
from edxdenoise.report.page import write_page

pytestmark = pytest.mark.skipif(find_browser() is None, reason="there is no Chromium")

BOX = 2, 9, 3, 15
CANVASES = """
(() => {
  const found = [];
  const walk = (root) => {
    for (const one of root.querySelectorAll("*")) {
      if (one.tagName === "CANVAS") found.push(one);
      if (one.shadowRoot) walk(one.shadowRoot);
    }
  };
  return [...document.querySelectorAll(".plot")].map((plot) => {
    found.length = 0;
    walk(plot);
    const colours = new Set();
    for (const canvas of found) {
      if (!canvas.width || !canvas.height) continue;
      const data = new Uint32Array(
        canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer);
      for (const colour of data) colours.add(colour);
    }
    return [plot.getAttribute("aria-label"), colours.size];
  });
})()
"""


@pytest.fixture(scope="module")
def quantified():
    denoised = select(pca(weight(counts_of()), components=6), keep="1-2")
    return cliff_lorimer(line_intensity(denoised, LINES), ratios=["Pt/Fe"])


@pytest.fixture(scope="module")
def address(quantified, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "index.html"
    write_page(gather(quantified), path)
    return path.as_uri()


@pytest.fixture
def page(browser, address):
    browser.errors.clear()
    browser.open(address)
    browser.wait("document.documentElement?.dataset.ready === 'true'")
    yield browser
    assert not browser.errors


def shown(page):
    return page.js(
        "(() => { const s = window.edxdenoise.shown();"
        "return {box: s.box, raw: [...s.raw], denoised: [...s.denoised], at: s.at,"
        "ratios: s.ratios, net: [...s.net.value]}; })()"
    )


@pytest.mark.parametrize("width", [400, 1280])
def test_every_picture_is_drawn_and_nothing_is_wider_than_the_window(page, width):
    page.call(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=900,
        deviceScaleFactor=1,
        mobile=False,
    )
    page.wait(f"{CANVASES}.every(([, colours]) => colours > 3)", seconds=20)
    drawn = dict(page.js(CANVASES))
    assert {"map of Fe Kα, raw net counts", "map of Pt at%", "error map of Pt at%"} <= set(drawn)
    assert page.js("document.documentElement.scrollWidth") <= width


def test_a_box_says_what_the_library_says(page, quantified):
    page.js(f"window.edxdenoise.show({', '.join(map(str, BOX))})")
    found = shown(page)
    y0, y1, x0, x1 = BOX
    assert found["box"] == list(BOX)
    box = {"y": slice(y0, y1), "x": slice(x0, x1)}
    np.testing.assert_array_equal(found["raw"], quantified.counts.isel(box).sum(["y", "x"]))
    rebuilt = reconstruct(quantified).counts_denoised.isel(box).sum(["y", "x"])
    np.testing.assert_allclose(found["denoised"], rebuilt, rtol=1e-4, atol=1e-2)

    mask = np.zeros(quantified.counts.shape[:2], bool)
    mask[y0:y1, x0:x1] = True
    table = region_table(sum_regions(quantified, {"box": mask}))
    rows = table[table["region"] == "box"].set_index("quantity")
    for number, element in enumerate(["Fe", "Pt"]):
        own = found["at"][str(number)]
        assert own["value"] == pytest.approx(rows.loc[f"{element} at%", "value"], rel=1e-6)
        assert own["stddev"] == pytest.approx(rows.loc[f"{element} at%", "stddev"], rel=1e-6)
    (ratio,) = found["ratios"]
    assert ratio["value"] == pytest.approx(rows.loc["Pt/Fe", "value"], rel=1e-6)
    assert ratio["stddev"] == pytest.approx(rows.loc["Pt/Fe", "stddev"], rel=1e-6)


def test_what_is_not_detected_has_the_limit_of_the_library(page, quantified):
    masks = {str(x): np.zeros(quantified.counts.shape[:2], bool) for x in range(8)}
    for x, mask in masks.items():
        mask[3, int(x)] = True
    table = region_table(sum_regions(quantified, masks))
    platinum = table[(table["quantity"] == "Pt at%") & (table["kind"] == "region")]
    missing = platinum[platinum["value"].isna()].iloc[0]
    x = int(missing["region"])
    page.js(f"window.edxdenoise.show(3, 4, {x}, {x + 1})")
    found = shown(page)
    assert found["at"]["1"] == {"limit": pytest.approx(missing["limit"], rel=1e-6)}
    assert found["ratios"] == [None]


def test_a_box_is_drawn_with_the_pointer_and_typed(page):
    page.js("document.querySelector('.element .plot').scrollIntoView({block: 'center'})")
    left, top, width, height = page.js(
        "(() => { const r = document.querySelector('.element .plot').getBoundingClientRect();"
        "return [r.left, r.top, r.width, r.height]; })()"
    )
    page.drag((left + 0.27 * width, top + 0.3 * height), (left + 0.72 * width, top + 0.55 * height))
    page.wait("window.edxdenoise.shown().box[0] > 0")
    assert shown(page)["box"] == [3, 7, 4, 12]
    words = page.js("document.getElementById('box-words').textContent")
    assert words.startswith("Rows 3 to 7, columns 4 to 12: 32 pixels")

    page.js(
        "document.getElementById('box-y0').value = 1; document.getElementById('box-y1').focus()"
    )
    page.call("Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter", text="\r")
    page.call("Input.dispatchKeyEvent", type="keyUp", key="Enter", code="Enter")
    page.wait("window.edxdenoise.shown().box[0] === 1")
    assert shown(page)["box"] == [1, 7, 4, 12]


def test_the_slider_shows_raw_maps_over_denoised_ones(page):
    opacity = (
        "Bokeh.documents.flatMap((d) => d.roots()).flatMap((r) => r.renderers ?? [])"
        ".filter((r) => r.name === 'over').map((r) => r.glyph.global_alpha.value)"
    )
    assert set(page.js(opacity)) == {0}
    page.js(
        "(() => { const s = document.getElementById('blend'); s.value = 40;"
        "s.dispatchEvent(new Event('input')); })()"
    )
    assert set(page.js(opacity)) == {0.4}
