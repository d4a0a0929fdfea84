"""A headless Chromium through its DevTools protocol: real clicks, uploads, screenshots, and what it has asked for."""

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

client = pytest.importorskip(
    "websockets.sync.client", reason="websockets comes with gradio: pip install 'segadapt[app]'"
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 60.0
"""Seconds after which what does not come is missing: far more than it takes."""


class Tab:
    """One page. Elements are named by expressions of JavaScript that give them."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._number = socket, 0
        self.requested: list[str] = []
        self.errors: list[str] = []
        for domain in ("Page", "Network", "Runtime", "DOM", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """A command of the protocol, and its result; events on the way are noted."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=PATIENCE))
            if message.get("id") == self._number:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        match message["method"], message["params"]:
            case "Network.requestWillBeSent", event:
                self.requested.append(event["request"]["url"])
            case "Runtime.exceptionThrown", event:
                self.errors.append(json.dumps(event["exceptionDetails"])[:500])
            case "Log.entryAdded", event if event["entry"]["level"] == "error":
                self.errors.append(f"{event['entry']['text']} {event['entry'].get('url', '')}")

    def evaluate(self, expression: str) -> Any:
        """The value of an expression; of an element, that it is there."""
        expression = f"(value => value instanceof Node || value)({expression})"
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, (expression, found["exceptionDetails"])
        return found["result"].get("value")

    def wait(self, condition: str) -> Any:
        """The value of an expression once it is true."""
        end = time.monotonic() + PATIENCE
        while not (value := self.evaluate(condition)):
            assert time.monotonic() < end, f"never true: {condition}\n{self.evaluate('document.body.innerText')}"
            time.sleep(0.03)
        return value

    def open(self, url: str, width: int = 1280, height: int = 900) -> None:
        """A page at a size."""
        self.size(width, height)
        self.call("Page.navigate", url=url)

    def size(self, width: int, height: int) -> None:
        """The window's size; a narrow one is a phone's."""
        small = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=small)

    @contextmanager
    def another(self, url: str) -> Iterator["Tab"]:
        """One more tab, with a page of its own."""
        host, port = self._socket.remote_address[:2]
        with urlopen(Request(f"http://{host}:{port}/json/new?{url}", method="PUT")) as answer:
            made = json.load(answer)
        with client.connect(made["webSocketDebuggerUrl"], max_size=None) as socket:
            yield Tab(socket)

    def click(self, element: str, across: float = 0.5) -> None:
        """A click of the mouse in the middle of an element, or at another part of its width."""
        x, y = self.place(element, across)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def place(self, element: str, across: float = 0.5) -> tuple[float, float]:
        """Where an element is, once it is there and at rest: its middle, or another part of its width."""
        box = "(e => { if (!e) return null; e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
        box += f" return b.width ? [b.left + {across} * b.width, b.top + b.height / 2] : null; }})({element})"
        before = None
        while (found := self.wait(box)) != before:
            before = found
        return found[0], found[1]

    def upload(self, selector: str, file: Path) -> None:
        """Give a file to an <input type=file>."""
        self.wait(f"document.querySelector({selector!r})")
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """The page as PNG."""
        shown = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shown["data"]))


@contextmanager
def browser(profile: Path) -> Iterator[Tab]:
    """A tab of a Chromium of its own; skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--no-first-run")
    quiet = ("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--mute-audio")
    command = [CHROMIUM, *flags, *quiet, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with client.connect(_page_of(profile, process), max_size=None) as socket:
            yield Tab(socket)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()


def _page_of(profile: Path, process: "subprocess.Popen[bytes]") -> str:
    """Where the browser's first page listens."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError, StopIteration, IndexError):
            port = (profile / "DevToolsActivePort").read_text().splitlines()[0]
            with urlopen(f"http://127.0.0.1:{port}/json") as answer:
                pages = [page for page in json.load(answer) if page["type"] == "page"]
            return str(next(iter(pages))["webSocketDebuggerUrl"])
        time.sleep(0.05)
    raise AssertionError("Chromium did not start")
