"""The local page of a review: served to this machine alone, to whoever knows its token.

Requests are refused unless they name this server as their host (a name that an attacker points to
127.0.0.1 does not), come from the page itself where they say where they come from, and hold the
random token in their path.
"""

from __future__ import annotations

import json
import math
import secrets
import sys
import threading
import traceback
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from itertools import zip_longest
from typing import Any
from urllib.parse import parse_qs

import numpy as np

from edxdenoise import schema as v
from edxdenoise.components.selection import component_name, component_outcomes
from edxdenoise.errors import EdxdenoiseError, ParameterError
from edxdenoise.io import pixel_size
from edxdenoise.io.regions import corners_of
from edxdenoise.report.frame import Colours, colour_range, count_range, end_labels, frame_of
from edxdenoise.report.overlay import COLOUR_NAMES, COLOURS
from edxdenoise.report.page_maps import colour_legend, overlay_data, picture_data, png_bytes
from edxdenoise.review.state import Review
from edxdenoise.review.views import TOTAL, Box, Lasso, title

HOST = "127.0.0.1"
_NAMES = (HOST, "localhost")
_LONGEST_BODY, _LONGEST_NUMBER = 1 << 16, 9
_CURVE_POINTS = 300
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_ASSETS = {"review.js": "text/javascript", "review.css": "text/css"}


class ReviewServer(ThreadingHTTPServer):
    """Serves one review.

    Parameters
    ----------
    review : Review
    port : int
        0 for a free one.
    """

    daemon_threads = True

    def __init__(self, review: Review, port: int = 0) -> None:
        self.review = review
        self.token = secrets.token_urlsafe(24)
        super().__init__((HOST, port), _Handler)
        # Net counts per pixel as measured, shape (cell y, cell x), by name, once they are read.
        self.raw: dict[str, np.ndarray] = {}
        threading.Thread(target=self._read_raw, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that went away."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def address(self) -> str:
        """Where the page is, token included."""
        return f"http://{HOST}:{self.server_port}/{self.token}/"

    def _read_raw(self) -> None:
        """Read the counts behind the page: elements of few pixels, and maps as measured."""
        try:
            views = self.review.find_local()
            self.raw = dict(zip(views.names, views.raw_maps()))
        except EdxdenoiseError as error:
            self.review.say(f"raw counts cannot be shown: {error}")

    def add_element(self, symbol: str) -> None:
        """Add an element, and read its raw map behind the page: all lines are fitted at once."""
        self.review.add_element(symbol)
        self.raw = {}
        threading.Thread(target=self._read_raw, daemon=True).start()

    def wait(self) -> None:
        """Wait until nothing is being saved."""
        while self.review.saving:
            threading.Event().wait(0.05)

    # What the page asks for

    def page(self) -> str:
        """The page as HTML."""
        from jinja2 import Environment

        ds, views = self.review.views.ds, self.review.views
        frame, pixel = frame_of(ds), pixel_size(ds)
        outcomes = component_outcomes(ds)
        probability = ds[v.COMPONENT_SIGNAL_PROBABILITY].values
        variance = ds[v.COMPONENT_VARIANCE_RATIO].values
        rows, columns = ds.sizes[v.DIM_Y], ds.sizes[v.DIM_X]
        energy = ds[v.DIM_ENERGY].values
        cards = [
            {
                "number": number + 1,
                "name": component_name(ds, number + 1),
                "outcome": outcomes[number] or "not judged",
                "probability": (
                    f"{probability[number]:.2f}" if np.isfinite(probability[number]) else "–"
                ),
                "variance": f"{100 * variance[number]:.2g}",
                "gain": views.gain(number + 1),
                "peaks": ", ".join(views.peaks[number]) or "none",
                "curve": curve(views.spectra[number]),
            }
            for number in range(self.review.count)
        ]
        environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        template = (files("edxdenoise.review") / "review.html").read_text(encoding="utf-8")
        return environment.from_string(template).render(
            file=self.review.path.name,
            title=str(ds.attrs.get("title") or self.review.path.name),
            cards=cards,
            rows=rows,
            columns=columns,
            side=views.side,
            ratio=frame.ratio,
            extent=f"{columns * pixel.x:.4g} × {rows * pixel.y:.4g} {pixel.units}",
            layers=list(
                zip_longest(
                    COLOUR_NAMES,
                    np.rint(255 * COLOURS).astype(int).tolist(),
                    views.main_lines(self.review.choice.keep),
                    fillvalue="",
                )
            ),
            low=f"{energy[0]:.2f}",
            high=f"{energy[-1]:.2f}",
        )

    @lru_cache(maxsize=256)
    def thumbnail(self, number: int) -> bytes:
        """Score map of a component as PNG."""
        scores = self.review.views.scores
        if not 1 <= number <= len(scores):
            raise ParameterError(f"component {number} must be from 1 to {len(scores)}")
        return png_bytes(scores[number - 1], colour_range(scores[number - 1]))

    def map(self, name: str, over: str) -> dict[str, Any]:
        """A map of net counts, or a ratio, raw beside what is chosen now, in the same colours."""
        views, keep = self.review.views, self.review.choice.keep
        wanted = (name, over) if over else (name,)
        raw, rebuilt = self._maps(wanted, keep)
        unit, words = "net counts per pixel", title(name)
        if name == TOTAL:
            unit = "counts per pixel"
        if over:
            rebuilt = [views.ratio(rebuilt[0], rebuilt[1], (name, over))]
            raw = [views.ratio(raw[0], raw[1], (name, over))] if raw else None
            unit = "net counts" if math.isnan(views.atoms_ratio(name, over)) else "atoms"
            unit = f"ratio of {unit}"
            words = f"{title(name)} / {title(over)}"
        shown = rebuilt[0]
        colours = _range(shown)
        return {
            "words": words,
            "legend": colour_legend(colours, unit),
            "rebuilt": picture_data(shown, colours),
            "raw": picture_data(raw[0], colours) if raw else None,
        }

    def overlay(self, layers: dict[str, str]) -> dict[str, Any]:
        """Up to three maps of net counts in one, by their colours, raw beside what is chosen."""
        wanted = [layers.get(colour, "") for colour in COLOUR_NAMES]
        raw, rebuilt = self._maps(tuple(filter(None, wanted)), self.review.choice.keep)
        ranges = [_range(image) for image in rebuilt]

        def picture(images: list[np.ndarray]) -> str:
            drawn = iter([image / high for image, (_, _, high) in zip(images, ranges)])
            blank = np.zeros(self.review.views.pixels.shape)
            return overlay_data([next(drawn) if name else blank for name in wanted])

        words = [
            f"{title(name)} {end_labels(0.0, high)[1]}"
            for name, (_, _, high) in zip(filter(None, wanted), ranges)
        ]
        return {
            "words": ", ".join(words),
            "rebuilt": picture(rebuilt),
            "raw": None if raw is None else picture(raw),
        }

    def _maps(
        self, names: tuple[str, ...], keep: tuple[int, ...]
    ) -> tuple[list[np.ndarray] | None, list[np.ndarray]]:
        """Maps of net counts as measured, None until they are read, and as rebuilt."""
        views, measured = self.review.views, self.raw
        for each in names:
            if each not in views.names:
                raise ParameterError(f"map '{each}' must be one of {', '.join(views.names)}")
        raw = [measured[each] for each in names] if measured.keys() >= set(names) else None
        return raw, [views.rebuilt_map(each, keep) for each in names]

    @lru_cache(maxsize=64)
    def raw_spectrum(self, drawn: Box | Lasso) -> np.ndarray:
        """Counts of what is drawn as measured."""
        return self.review.views.raw_spectrum(drawn)

    def spectrum(self, drawn: Box | Lasso | None) -> dict[str, Any]:
        """Spectrum and net counts of what is drawn, raw beside what is chosen now."""
        views = self.review.views
        used = drawn if isinstance(drawn, Lasso) else views.snapped(drawn)
        raw = self.raw_spectrum(used)
        rebuilt = views.rebuilt_spectrum(used, self.review.choice.keep)
        nets = [
            {
                "name": title(name),
                "raw": float(row @ raw),
                "stddev": math.sqrt(max(float(row**2 @ raw), 0.0)),
                "rebuilt": float(row @ rebuilt),
            }
            for name, row in zip(views.names, views.rows)
        ]
        return {
            "box": None if isinstance(used, Lasso) else [used.y0, used.y1, used.x0, used.x1],
            "pixels": int(views.pixels[views.cells(used)].sum()),
            "energy": views.ds[v.DIM_ENERGY].values.tolist(),
            "raw": raw.tolist(),
            "rebuilt": rebuilt.tolist(),
            "lines": nets,
        }

    def change(self, asked: dict[str, Any]) -> None:
        """Do what the page asks for.

        Raises
        ------
        EdxdenoiseError
            If it cannot be done.
        """
        review = self.review
        actions: dict[str, Callable[..., None]] = {
            "keep": review.set_keep,
            "note": review.set_note,
            "add region": review.add_region,
            "remove region": review.remove_region,
            "add element": self.add_element,
            "save": review.save_in_words,
        }
        kinds = {"keep": (int, bool), "note": (int, str), "save": ()}
        name, values = asked.get("do"), asked.get("with", [])
        wanted = kinds.get(str(name), (str,))
        known = isinstance(name, str) and name in actions and isinstance(values, list)
        if not known or [type(value) for value in values] != list(wanted):
            raise ParameterError(f"request {json.dumps(asked)[:200]} is not known")
        actions[str(name)](*values)


def _range(image: np.ndarray) -> Colours:
    """Colours of a map of counts or of a ratio."""
    finite = image[np.isfinite(image)]
    return count_range(finite if finite.size else np.zeros(1))


def curve(spectrum: np.ndarray) -> str:
    """Points of a component's spectrum in counts, in a box of 300 x 60, extremes kept."""
    step = -(-spectrum.size // (_CURVE_POINTS // 2))
    starts = np.arange(0, spectrum.size, step)
    low, high = (ends.reduceat(spectrum, starts) for ends in (np.minimum, np.maximum))
    values = np.column_stack([low, high]).ravel()
    bottom, top = min(values.min(), 0.0), max(values.max(), 0.0)
    span = top - bottom or 1.0
    x = np.linspace(0, 300, values.size)
    return " ".join(f"{a:.0f},{b:.1f}" for a, b in zip(x, 58 - 56 * (values - bottom) / span))


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    protocol_version = "HTTP/1.1"
    # A browser that keeps a connection open holds a thread.
    timeout = 60

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal is for results."""

    def do_GET(self) -> None:
        """Answer with a page, a picture or numbers."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Do what the page asks for, and answer with the state that follows."""
        self._answer(self._post)

    def _answer(self, work: Callable[[str], None]) -> None:
        path = self._allowed()
        if path is None:
            # What was sent is not read, so the connection cannot go on.
            self.close_connection = True
            self._send(HTTPStatus.FORBIDDEN, "text/plain", b"refused: open the printed address\n")
            return
        try:
            work(path)
        except (ConnectionError, TimeoutError):
            raise
        except (EdxdenoiseError, OSError) as error:
            self._send_json({"error": str(error)}, HTTPStatus.BAD_REQUEST)
        except Exception:
            # One request that fails must not end the review; the reason is for whoever runs it.
            traceback.print_exc()
            self._send_json({"error": "unexpected; see the terminal"}, HTTPStatus(500))

    def _allowed(self) -> str | None:
        """Path below the token, None for a request that is refused."""
        names = [f"{name}:{self.server.server_port}" for name in _NAMES]
        if self.headers.get("Host") not in names:
            return None
        origin = self.headers.get("Origin")
        if origin is not None and origin not in [f"http://{name}" for name in names]:
            return None
        token, _, path = self.path.partition("?")[0].lstrip("/").partition("/")
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            return None
        return path

    def _get(self, path: str) -> None:
        server = self.server
        asked = {key: values[0] for key, values in parse_qs(self.path.partition("?")[2]).items()}
        if path == "":
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", server.page().encode())
        elif path in _ASSETS:
            content = (files("edxdenoise.review") / path).read_bytes()
            self._send(HTTPStatus.OK, f"{_ASSETS[path]}; charset=utf-8", content)
        elif path == "state":
            self._send_state()
        elif path == "map":
            self._send_json(server.map(asked.get("name", TOTAL), asked.get("over", "")))
        elif path == "overlay":
            self._send_json(server.overlay(asked))
        elif path == "spectrum":
            self._send_json(server.spectrum(_drawn(asked)))
        elif path == "component":
            self._send(HTTPStatus.OK, "image/png", server.thumbnail(_whole(asked.get("number"))))
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"not found\n")

    def _post(self, path: str) -> None:
        length = _whole(self.headers.get("Content-Length"))
        if path != "change" or length > _LONGEST_BODY:
            self.close_connection = True
            raise ParameterError("request is not known")
        try:
            asked = json.loads(self.rfile.read(length))
        except (ValueError, RecursionError) as error:
            raise ParameterError("request is no JSON") from error
        if not isinstance(asked, dict):
            raise ParameterError("request is no JSON object")
        self.server.change(asked)
        self._send_state()

    def _send_state(self) -> None:
        self._send_json({**self.server.review.status(), "raw": len(self.server.raw)})

    def _send_json(self, content: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(status, "application/json", json.dumps(content).encode())

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _whole(text: str | None) -> int:
    if not (text and text.isascii() and text.isdigit() and len(text) <= _LONGEST_NUMBER):
        raise ParameterError(f"'{text}' must be a whole number")
    return int(text)


def _drawn(asked: dict[str, str]) -> Box | Lasso | None:
    if "lasso" in asked:
        return Lasso(tuple((x, y) for x, y in corners_of(asked["lasso"]).tolist()))
    return _box(asked["box"]) if "box" in asked else None


def _box(text: str) -> Box:
    parts = [_whole(part) for part in text.split(",")]
    if len(parts) != 4:
        raise ParameterError(f"box '{text}' must be Y0,Y1,X0,X1 in pixels")
    return Box(*parts)
