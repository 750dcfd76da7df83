"""A browser without a window, spoken to by its DevTools protocol."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import time
import urllib.request
from importlib.resources import files
from pathlib import Path
from typing import Any

from tornado.websocket import websocket_connect

_PATIENCE = 60  # seconds
NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_browser() -> str | None:
    """Path of Chromium, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One tab; `errors` collects what it complains of."""

    def __init__(self, profile: Path) -> None:
        program = find_browser()
        assert program is not None
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        options += ["--remote-debugging-port=0", "--remote-allow-origins=*"]
        self._process = subprocess.Popen(
            [program, *options, f"--user-data-dir={profile}", "about:blank"],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        port = next(
            match[1]
            for line in self._process.stderr
            if (match := re.search(r"ws://127.0.0.1:(\d+)/", line))
        )
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
            (tab,) = [tab for tab in json.load(answer) if tab["type"] == "page"]
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self._connect(tab["webSocketDebuggerUrl"]))
        self._calls, self._loaded = 0, False
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        self._socket.close()
        self._process.kill()
        self._process.wait()
        self._loop.close()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and wait for its answer."""
        answer = asyncio.wait_for(self._call(method, params), _PATIENCE)
        return self._loop.run_until_complete(answer)

    def js(self, code: str) -> Any:
        """Value of an expression in the page."""
        answer = self.call(
            "Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, code: str, seconds: float = 60) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.js(code):
            assert time.monotonic() < end, f"{code} is not true after {seconds} s"
            time.sleep(0.05)

    def open(self, address: str) -> None:
        """Load a page; what is asked of one that is about to go away is never answered."""
        self._loaded = False
        self.call("Page.navigate", url=address)
        self._loop.run_until_complete(asyncio.wait_for(self._load(), _PATIENCE))

    def barriers(self) -> list[str]:
        """What keeps people with disabilities from using the page: serious findings of axe-core."""
        self.js((files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8"))
        found = self.js("axe.run({resultTypes: ['violations']}).then((one) => one.violations)")
        return [
            f"{one['id']}: {one['nodes'][0]['html']}: {one['nodes'][0]['failureSummary']}"
            for one in found
            if one["impact"] in ("serious", "critical")
        ]

    def drag(self, *places: tuple[float, float]) -> None:
        """Press the left button at the first place of the window, let it go at the last."""
        first, last = ("mouseMoved", "mousePressed"), ("mouseMoved", "mouseReleased")
        steps = [(kind, places[0]) for kind in first]
        steps += [("mouseMoved", place) for place in places[1:-1]]
        for number, (kind, (x, y)) in enumerate(steps + [(kind, places[-1]) for kind in last]):
            self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=x,
                y=y,
                button="left" if number else "none",
                buttons=int(number > 0),
                clickCount=1,
            )

    async def _connect(self, address: str) -> None:
        self._socket = await websocket_connect(address, max_message_size=1 << 28)

    async def _call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._calls += 1
        call = self._calls
        await self._socket.write_message(
            json.dumps({"id": call, "method": method, "params": params})
        )
        while True:
            answer = json.loads(await self._socket.read_message())
            if answer.get("id") == call:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    async def _load(self) -> None:
        while not self._loaded:
            self._note(json.loads(await self._socket.read_message()))

    def _note(self, event: dict[str, Any]) -> None:
        params, method = event.get("params", {}), event.get("method")
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.errors.append(json.dumps(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])
