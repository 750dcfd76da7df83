"""The review in a browser: keys, boxes and saving do what they say."""

import base64
import io
import time

import numpy as np
import pytest
from browser import find_browser
from PIL import Image
from test_review import HOSTILE, denoised, serving

from edxdenoise.io import open_dataset, read_regions, save_dataset
from edxdenoise.report.overlay import overlaid
from edxdenoise.review.choice import Choice
from edxdenoise.review.views import title

pytestmark = pytest.mark.skipif(find_browser() is None, reason="there is no Chromium")


@pytest.fixture
def server(tmp_path):
    path = tmp_path / f"{HOSTILE[:8]}map.zarr"
    save_dataset(denoised(), path)
    with serving(path) as served:
        yield served


@pytest.fixture
def page(browser, server):
    browser.errors.clear()
    load(browser, server)
    yield browser
    assert not browser.errors


def load(page, server):
    page.open(server.address)
    settled(page, server)


def settled(page, server):
    """Wait until the page shows what the server has."""
    page.wait(
        "['map', 'spectrum'].every((name) => document.documentElement.dataset[name] === "
        f"'{server.review.version}') && !document.getElementById('raw').hidden",
        seconds=20,
    )


def until(true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def press(page, key):
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key=key, text=key if len(key) == 1 else "")


def text(page, selector):
    return page.js(f"document.querySelector('{selector}').textContent")


def place(page):
    """Left, top, width and height of the first map in the window."""
    return page.js(
        "(() => { const r = document.querySelector('.map').getBoundingClientRect();"
        "return [r.left, r.top, r.width, r.height]; })()"
    )


@pytest.mark.parametrize("width", [400, 1280])
def test_every_picture_is_there_and_nothing_is_wider_than_the_window(page, width):
    page.call(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=900,
        deviceScaleFactor=1,
        mobile=False,
    )
    page.js("document.querySelectorAll('img').forEach((one) => { one.loading = 'eager'; })")
    page.wait("[...document.images].every((one) => one.naturalWidth > 0)", seconds=20)
    assert page.js("document.documentElement.scrollWidth") <= width
    assert page.barriers() == []


def test_keys_keep_and_drop_and_what_is_saved_stays(page, server):
    review = server.review
    page.js("document.querySelector('[data-number=\"1\"] .keep').focus()")
    for _ in range(2):
        press(page, "ArrowRight")
    press(page, "k")
    page.wait("document.getElementById('summary').textContent.startsWith('3 of 12')")
    assert review.choice.keep == (1, 2, 3) and "not saved" in text(page, "#summary")
    settled(page, server)
    press(page, "ArrowLeft")
    press(page, "d")
    page.wait("document.getElementById('summary').textContent.startsWith('2 of 12')")
    press(page, "n")
    page.call("Input.insertText", text=HOSTILE)
    press(page, "Enter")
    page.wait("document.activeElement.textContent.trim() === 'keep 2'")
    until(lambda: review.choice == Choice((1, 3), {2: HOSTILE}))
    load(page, server)
    assert page.js("document.querySelector('[data-number=\"2\"] .note input').value") == HOSTILE
    assert "by you" in text(page, '[data-number="3"] .mark')
    page.js("document.getElementById('save').click()")
    page.wait("document.getElementById('told').textContent.startsWith('saved')", seconds=30)
    settled(page, server)
    load(page, server)
    assert text(page, "#summary") == "2 of 12 kept, saved."
    assert Choice.of(open_dataset(review.path)) == Choice((1, 3), {2: HOSTILE})


def test_a_box_that_is_drawn_has_the_spectrum_of_its_pixels(page, server):
    left, top, width, height = place(page)
    # 12 rows and 16 columns.
    page.drag(
        (left + 3.5 / 16 * width, top + 2.5 / 12 * height),
        (left + 9.5 / 16 * width, top + 6.5 / 12 * height),
    )
    page.wait("document.getElementById('box-words').textContent.startsWith('Rows 2 to 7, ')")
    counts = server.review.views.ds.counts.values[2:7, 3:10]
    assert (
        text(page, "#box-words")
        == f"Rows 2 to 7, columns 3 to 10: 35 pixels, {counts.sum():,} counts"
    )
    rows = page.js("[...document.querySelectorAll('#lines tr')].map((row) => row.textContent)")
    assert rows[0].startswith(f"all X-rays{counts.sum():,} ± {np.sqrt(counts.sum()):.0f}")
    page.js("document.getElementById('region-name').value = '<b>core</b>'")
    page.js("document.querySelector('#region button').click()")
    page.wait("document.querySelector('#regions li') !== null")
    assert text(page, "#regions li").startswith("<b>core</b>=2:7,3:10 ")
    assert server.review.choice.regions == ("<b>core</b>=2:7,3:10",)


def test_a_lasso_has_the_spectrum_of_its_pixels_and_becomes_a_region(page, server):
    page.js("document.getElementById('draw').value = 'lasso'")
    left, top, width, height = place(page)
    corners = [(0.1, 0.15), (0.85, 0.2), (0.6, 0.9), (0.4, 0.5), (0.12, 0.6)]
    page.drag(*[(left + x * width, top + y * height) for x, y in corners])
    page.wait("document.getElementById('box-words').textContent.startsWith('Lasso')")
    page.js("document.getElementById('region-name').value = 'rim'")
    page.js("document.querySelector('#region button').click()")
    page.wait("document.querySelector('#regions li') !== null")
    ds = server.review.views.ds
    inside = read_regions(server.review.choice.regions, ds)["rim"]
    assert 50 < inside.sum() < 150 and inside[2, 3] and not inside[11, 0]
    counts = ds.counts.values[inside]
    expected = f"Lasso: {inside.sum()} pixels, {counts.sum():,} counts"
    assert text(page, "#box-words") == expected
    page.js("document.getElementById('whole').click()")
    page.wait("document.getElementById('box-words').textContent.startsWith('Whole map')")
    page.js("document.querySelector('#regions button').click()")
    page.wait(f"document.getElementById('box-words').textContent === '{expected}'")
    # One that holds no pixel is told, and what was there stays.
    page.drag(*[(left + x, top + 1) for x in (1, 2, 3)])
    page.wait("document.getElementById('told').textContent.includes('draw a larger one')")
    page.wait(f"document.getElementById('box-words').textContent === '{expected}'")
    page.errors.clear()


def test_three_maps_in_one_are_those_of_the_library(page, server):
    page.js(
        "(() => { const list = document.getElementById('kind'); list.value = 'overlay';"
        "list.dispatchEvent(new Event('change')); })()"
    )
    page.wait("!document.getElementById('layers').hidden")
    names = page.js("[...document.querySelectorAll('[data-layer]')].map((list) => list.value)")
    views, keep = server.review.views, server.review.choice.keep
    assert names == [*views.names[1:], ""]
    maps = [views.rebuilt_map(name, keep) for name in names[:2]]
    raw = [server.raw[name] for name in names[:2]]
    tops = [np.percentile(one, 99.5) for one in maps]
    for shown, images in (("rebuilt", maps), ("raw", raw)):
        page.wait(f"document.getElementById('{shown}').naturalWidth === 16")
        address = page.js(f"document.getElementById('{shown}').src").partition(",")[2]
        found = np.asarray(Image.open(io.BytesIO(base64.b64decode(address))))
        expected = 255 * overlaid([one / top for one, top in zip(images, tops)])
        np.testing.assert_allclose(found, expected, atol=1)
    assert text(page, "#layer-words").startswith(f"Each colour goes from 0 to: {title(names[0])} ")
    page.js(
        "(() => { const list = document.querySelector('[data-layer]'); list.value = '';"
        "list.dispatchEvent(new Event('change')); })()"
    )
    page.wait(
        f"document.getElementById('layer-words').textContent.includes('0 to: {title(names[1])} ')"
    )


def test_an_element_is_added_and_the_score_is_shown(page, server):
    assert text(page, "#score") == ""
    page.js("document.getElementById('symbol').value = 'mn'")
    page.js("document.querySelector('#element button').click()")
    page.wait("document.getElementById('name').value === 'Mn_Ka'")
    settled(page, server)
    assert server.review.choice.elements == ("Mn",)
    assert "Mn" in page.js("document.getElementById('rebuilt').alt")
    ds = server.review.views.ds
    gain = ds.component_variance.copy(data=np.linspace(0.5, -0.05, 12)).assign_attrs(
        judged_error=[0.02, 0.003], judged_components=[1, 2]
    )
    server.review.views.ds["component_gain"] = gain
    server.review.views.ds["component_gain_stddev"] = 0 * gain
    page.js("document.querySelector('[data-number=\"12\"] .keep').click()")
    page.wait("document.getElementById('score').textContent.includes(' 7.0 ± 0.3 %')")


def test_a_note_is_kept_while_it_is_written(page, server):
    page.js("document.querySelector('[data-number=\"4\"] .note input').focus()")
    page.call("Input.insertText", text="half a sen")
    until(lambda: server.review.choice.notes == {4: "half a sen"})
    page.call("Input.insertText", text="tence")
    until(lambda: server.review.choice.notes == {4: "half a sentence"})


def test_another_tab_sees_what_is_chosen_and_a_server_that_ended_is_said(page, server):
    server.review.set_keep(7, True)
    page.wait("document.querySelector('[data-number=\"7\"]').classList.contains('kept')")
    settled(page, server)
    page.js("window.fetch = () => Promise.reject(new Error('gone'))")
    page.js("document.querySelector('[data-number=\"8\"] .keep').click()")
    page.wait("document.getElementById('told').textContent.includes('does not answer')")
    assert page.js("document.querySelector('[data-number=\"8\"]').classList.contains('dropped')")
