"""Take the pictures of the report's page and of the review that the docs show.

    python studies/screens.py [--file FILE]

FILE (the FePt particles by default) is denoised, reported on and reviewed; Chromium takes
docs/report.png and docs/review.png.
"""

from __future__ import annotations

import argparse
import base64
import io
import sys
import tempfile
import threading
import warnings
from pathlib import Path

from few_counts import DATA
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from browser import Browser  # noqa: E402

from edxdenoise import EdxdenoiseWarning, Recipe, run_recipe  # noqa: E402
from edxdenoise.config import Denoise, Input, Output  # noqa: E402
from edxdenoise.review import Review  # noqa: E402
from edxdenoise.review.server import ReviewServer  # noqa: E402

DOCS = Path(__file__).parents[1] / "docs"
WIDTH, HEIGHT = 1280, 900


def take(browser: Browser, address: str, ready: str, scroll: str, name: str) -> None:
    """Save what the window shows of a page, once it is ready and scrolled."""
    browser.open(address)
    browser.wait(ready)
    browser.js(f"document.querySelector('{scroll}').scrollIntoView()")
    # Until what came into view is drawn.
    browser.js("new Promise((done) => setTimeout(done, 1500))")
    taken = base64.b64decode(browser.call("Page.captureScreenshot", format="png")["data"])
    Image.open(io.BytesIO(taken)).convert("RGB").save(DOCS / name, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--file", type=Path, default=DATA / "fept_core_shell.hspy")
    options = parser.parse_args()
    warnings.simplefilter("ignore", EdxdenoiseWarning)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = Recipe(
            Input((str(options.file),)),
            denoise=Denoise(),
            output=Output(str(folder / "map.zarr"), str(folder / "report")),
        )
        run_recipe(recipe)
        server = ReviewServer(Review(folder / "map.zarr"))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = Browser(folder / "profile")
        try:
            size = {"width": WIDTH, "height": HEIGHT}
            browser.call(
                "Emulation.setDeviceMetricsOverride", **size, deviceScaleFactor=1, mobile=False
            )
            page = (folder / "report" / "index.html").as_uri()
            ready = "document.documentElement?.dataset.ready === 'true'"
            take(browser, page, ready, "#elements", "report.png")
            ready = (
                "document.documentElement?.dataset.map && !document.getElementById('raw').hidden"
            )
            take(browser, server.address, ready, "header", "review.png")
        finally:
            browser.close()
            server.shutdown()


if __name__ == "__main__":
    main()
