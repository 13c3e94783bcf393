"""Headless Chromium, driven by Debian's chromium-driver over the WebDriver protocol: plain HTTP and JSON."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MISSING = [program for program in ("chromium", "chromedriver") if shutil.which(program) is None]
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The protocol's name for a reference to an element."""


@dataclass(frozen=True)
class Browser:
    """A window."""

    session: str
    """Its address at the driver."""

    def open(self, url: str) -> None:
        self._ask("url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a function of this body returns, or what its promise comes to."""
        return self._ask("execute/sync", {"script": script, "args": arguments})

    def choose(self, selector: str, file: Path) -> None:
        """Choose a file in an input."""
        found = self._ask("element", {"using": "css selector", "value": selector})
        self._ask(f"element/{found[_ELEMENT]}/value", {"text": str(file)})

    def wait_for(self, condition: str, *, seconds: float = 30) -> None:
        """Wait until an expression holds."""
        end = time.monotonic() + seconds
        while not self.run(f"return Boolean({condition})"):
            assert time.monotonic() < end, f"{condition} does not come; the page says: {self.text()}"
            time.sleep(0.02)

    def text(self) -> str:
        return self.run("return document.body.innerText")

    def requests(self) -> list[str]:
        """The addresses asked for since the last call."""
        entries = (json.loads(entry["message"])["message"] for entry in self._ask("se/log", {"type": "performance"}))
        return [e["params"]["request"]["url"] for e in entries if e["method"] == "Network.requestWillBeSent"]

    def look(self, *, width: int, height: int = 900, dark: bool = False) -> None:
        """The size of the window, in CSS pixels, and the colours that its user prefers."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._command("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._command("Emulation.setEmulatedMedia", {"features": features})

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """The window as PNG, or the `whole` page."""
        parameters = {"format": "png", "captureBeyondViewport": whole}
        if whole:
            width, height = self.run("const e = document.documentElement; return [e.clientWidth, e.scrollHeight]")
            parameters["clip"] = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        path.write_bytes(b64decode(self._command("Page.captureScreenshot", parameters)["data"]))

    def _command(self, name: str, parameters: dict[str, Any]) -> Any:
        """One of the DevTools protocol."""
        return self._ask("goog/cdp/execute", {"cmd": name, "params": parameters})

    def _ask(self, path: str, document: dict[str, Any]) -> Any:
        return _ask(f"{self.session}/{path}", document)


@contextmanager
def browser(*, flags: Sequence[str] = _FLAGS) -> Iterator[Browser]:
    """A new window of a new profile."""
    driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert driver.stdout is not None
        port = next(
            found[1] for line in driver.stdout if (found := re.search(r"started successfully on port (\d+)", line))
        )
        sessions = f"http://127.0.0.1:{port}/session"
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            options = {"binary": shutil.which("chromium"), "args": [*flags, f"--user-data-dir={profile}"]}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"performance": "ALL"}}
            session = f"{sessions}/{_ask(sessions, {'capabilities': {'alwaysMatch': wanted}})['sessionId']}"
            try:
                yield Browser(session)
            finally:
                urllib.request.urlopen(urllib.request.Request(session, method="DELETE"), timeout=30).close()
    finally:
        driver.terminate()
        driver.wait()


def _ask(url: str, document: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(document).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(json.load(error)["value"]["message"]) from None
