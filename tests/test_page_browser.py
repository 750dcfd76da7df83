"""The page in a browser: it draws everything, and its boxes say what the library says."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from browser import find_browser
from test_page import measured

from edxdenoise.components.pca import pca
from edxdenoise.components.selection import select
from edxdenoise.cube import named_images, reconstruct
from edxdenoise.io.regions import read_regions
from edxdenoise.preprocess import weight
from edxdenoise.quantification import (
    LineSpec,
    cliff_lorimer,
    line_intensity,
    region_table,
    sum_regions,
)
from edxdenoise.report.findings import gather
from edxdenoise.report.overlay import overlaid
from edxdenoise.report.page import write_page

pytestmark = pytest.mark.skipif(find_browser() is None, reason="there is no Chromium")

SITE = Path(__file__).parents[1] / "site"
LINES = {"Fe_Ka": LineSpec(1.45, 0.02), "Ca_Ka": LineSpec(1.1)}
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
    denoised = select(pca(weight(measured()), components=6), keep="1-2")
    image = named_images(np.arange(192, dtype="f4").reshape(1, 12, 16), ["HAADF"])
    found = cliff_lorimer(line_intensity(denoised, LINES), ratios=["Ca/Fe"])
    return found.assign(image=image)


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


@pytest.mark.skipif(not SITE.is_dir(), reason="there is no site: make docs")
@pytest.mark.parametrize("name", ["index", "tutorial", "spatial", "api"])
def test_the_documentation_has_no_barriers(browser, name):
    browser.open((SITE / f"{name}.html").as_uri())
    browser.wait("document.readyState === 'complete'")
    assert browser.barriers() == []


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
    expected = {"map of Fe Kα, raw net counts", "map of Ca at%", "error map of Ca at%"}
    assert expected | {"overlay of Fe and Ca"} <= set(drawn)
    assert page.js("document.documentElement.scrollWidth") <= width
    assert page.barriers() == []


def check_numbers(found, quantified, mask):
    """What the page says of pixels is what the library says of them."""
    inside = xr.DataArray(mask, dims=("y", "x"))
    raw = quantified.counts.where(inside, 0).sum(["y", "x"])
    np.testing.assert_array_equal(found["raw"], raw)
    rebuilt = reconstruct(quantified).counts_denoised.where(inside, 0).sum(["y", "x"])
    np.testing.assert_allclose(found["denoised"], rebuilt, rtol=1e-4, atol=1e-2)
    table = region_table(sum_regions(quantified, {"drawn": mask}))
    rows = table[table["region"] == "drawn"].set_index("quantity")
    for number, element in enumerate(["Fe", "Ca"]):
        own = found["at"][str(number)]
        assert own["value"] == pytest.approx(rows.loc[f"{element} at%", "value"], rel=1e-6)
        assert own["stddev"] == pytest.approx(rows.loc[f"{element} at%", "stddev"], rel=1e-6)
    (ratio,) = found["ratios"]
    assert ratio["value"] == pytest.approx(rows.loc["Ca/Fe", "value"], rel=1e-6)
    assert ratio["stddev"] == pytest.approx(rows.loc["Ca/Fe", "stddev"], rel=1e-6)


def test_a_box_says_what_the_library_says(page, quantified):
    page.js(f"window.edxdenoise.show({', '.join(map(str, BOX))})")
    found = shown(page)
    y0, y1, x0, x1 = BOX
    assert found["box"] == list(BOX)
    mask = np.zeros(quantified.counts.shape[:2], bool)
    mask[y0:y1, x0:x1] = True
    check_numbers(found, quantified, mask)


def place(page, selector):
    """Left, top, width and height of a picture in the window, once it is scrolled there."""
    page.js(f"document.querySelector('{selector}').scrollIntoView({{block: 'center'}})")
    return page.js(
        f"(() => {{ const r = document.querySelector('{selector}').getBoundingClientRect();"
        "return [r.left, r.top, r.width, r.height]; })()"
    )


def test_a_lasso_drawn_with_the_pointer_says_what_the_library_says(page, quantified, tmp_path):
    page.js(
        "(() => { const d = document.getElementById('draw'); d.value = 'LassoSelectTool';"
        "d.dispatchEvent(new Event('change')); })()"
    )
    left, top, width, height = place(page, ".element .plot")
    corners = [(0.1, 0.15), (0.85, 0.2), (0.6, 0.9), (0.4, 0.5), (0.12, 0.6)]
    page.drag(*[(left + x * width, top + y * height) for x, y in corners])
    page.wait("window.edxdenoise.shown().box === null")
    # The region that is saved is the one that the library reads.
    page.js(
        "(() => { const make = URL.createObjectURL;"
        "URL.createObjectURL = (blob) => { blob.text().then((t) => { window.saved = t; });"
        "return make(blob); }; document.getElementById('box-outline').click(); })()"
    )
    page.wait("window.saved")
    path = tmp_path / "region.geojson"
    path.write_text(page.js("window.saved"))
    mask = read_regions([f"drawn={path}"], quantified)["drawn"]
    assert 50 < mask.sum() < 150 and mask[2, 3] and not mask[11, 0]
    words = page.js("document.getElementById('box-words').textContent")
    assert words.startswith(f"Lasso: {mask.sum()} pixels")
    check_numbers(shown(page), quantified, mask)


def test_three_elements_in_one_map_are_those_that_are_chosen(page):
    pixels = "[...Bokeh.documents[0].get_model_by_name('overlay-data').data.image[0]]"
    steps = "[...Bokeh.documents[0].get_model_by_name('map-denoised-{}').data.image[0]]"
    fe, ca = (np.array(page.js(steps.format(number))) for number in (0, 1))

    def expected(first, second):
        shares = [(np.array(image) - 1.0) / 254 for image in (first, second)]
        return np.rint(255 * overlaid([share.reshape(12, 16) for share in shares])).reshape(-1, 3)

    def drawn():
        return np.array(page.js(pixels), np.uint32).view(np.uint8).reshape(-1, 4)[:, :3]

    np.testing.assert_allclose(drawn(), expected(fe, ca), atol=1)
    page.js(
        "document.querySelectorAll('.layers select').forEach((one, number) => {"
        "one.value = ['denoised-1', 'denoised-0', ''][number];"
        "one.dispatchEvent(new Event('change')); })"
    )
    np.testing.assert_allclose(drawn(), expected(ca, fe), atol=1)
    assert page.js("document.getElementById('overlay-plot').ariaLabel") == "overlay of Ca Kα, Fe Kα"


def test_what_is_not_detected_has_the_limit_of_the_library(page, quantified):
    masks = {str(x): np.zeros(quantified.counts.shape[:2], bool) for x in range(8)}
    for x, mask in masks.items():
        mask[3, int(x)] = True
    table = region_table(sum_regions(quantified, masks))
    calcium = table[(table["quantity"] == "Ca at%") & (table["kind"] == "region")]
    missing = calcium[calcium["value"].isna()].iloc[0]
    x = int(missing["region"])
    page.js(f"window.edxdenoise.show(3, 4, {x}, {x + 1})")
    found = shown(page)
    assert found["at"]["1"] == {"limit": pytest.approx(missing["limit"], rel=1e-6)}
    assert found["ratios"] == [None]


def test_a_box_is_drawn_with_the_pointer_and_typed(page):
    left, top, width, height = place(page, ".element .plot")
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
