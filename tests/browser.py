"""Headless Chromium, driven by its DevTools protocol over a pipe: no driver, no package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """A page of a browser."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = commands
        self._answers = answers
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.console: list[str] = []
        """What the page complained of."""
        self.requests: list[str] = []
        """The addresses that it asked for."""

    def open(self, url: str) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "DOM", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def evaluate(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str, *, seconds: float = 20) -> Any:
        """Wait until an expression is true; gives its value."""
        for _ in range(int(seconds / 0.1)):
            if value := self.evaluate(expression):
                return value
            time.sleep(0.1)
        raise AssertionError(f"never true: {expression}; the page shows: {self.evaluate('document.body.innerText')}")

    def choose_file(self, selector: str, path: Path) -> None:
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def look(self, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Give the window a size, in CSS pixels, and its user a preference for dark colours."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def _note(self, event: dict[str, Any]) -> None:
        match event:
            case {"method": "Log.entryAdded", "params": {"entry": entry}}:
                self.console.append(f"{entry['level']}: {entry['text']} {entry.get('url', '')}")
            case {"method": "Runtime.exceptionThrown", "params": {"exceptionDetails": details}}:
                self.console.append(f"exception: {details}")
            case {"method": "Network.requestWillBeSent", "params": {"request": {"url": url}}}:
                self.requests.append(url)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            chunk = os.read(self._answers, 65536)
            assert chunk, "the browser has gone"
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


@contextmanager
def browsing(profile: Path) -> Iterator[Page]:
    """A browser with an empty profile."""
    assert PROGRAM is not None
    for_browser, commands = os.pipe()
    answers, from_browser = os.pipe()
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    options += ["--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    # Chromium reads commands from its file 3 and answers on its file 4.
    script = f'exec "$0" "$@" 3<&{for_browser} 4>&{from_browser}'
    process = subprocess.Popen(
        ["bash", "-c", script, PROGRAM, *options, "--remote-debugging-pipe", f"--user-data-dir={profile}"],
        pass_fds=(for_browser, from_browser),
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    os.close(for_browser)
    os.close(from_browser)
    try:
        yield Page(commands, answers)
    finally:
        os.close(commands)
        os.close(answers)
        process.terminate()
        process.wait(20)
