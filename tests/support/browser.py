"""Drive a headless Chromium over its DevTools protocol."""

import base64
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

_CODES = {
    "ArrowDown": 40,
    "ArrowUp": 38,
    "Home": 36,
    "End": 35,
    "PageDown": 34,
    "PageUp": 33,
    "Escape": 27,
    "Enter": 13,
    "Tab": 9,
}
_TEXTS = {"Enter": "\r"}


class Page:
    """One page; `errors` has the errors of its console, `requests` the addresses it requested."""

    def __init__(self, socket: ClientConnection):
        self._socket, self._last = socket, 0
        self.errors: list[str] = []
        self.requests: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the protocol and return its answer."""
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("id") == self._last:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        if message["method"] == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(parameters["exceptionDetails"])[:2000])
        elif message["method"] == "Runtime.consoleAPICalled" and parameters["type"] in (
            "error",
            "warning",
            "assert",
        ):
            self.errors.append(json.dumps(parameters["args"])[:2000])
        elif message["method"] == "Log.entryAdded" and parameters["entry"]["level"] in (
            "error",
            "warning",
        ):
            self.errors.append(
                f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}"
            )
        elif message["method"] == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])

    def open(self, path: pathlib.Path, width: int = 1280, height: int = 800) -> None:
        """Load a file in a window of this size, and wait until it is complete."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.call("Page.navigate", url=path.as_uri())
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")

    def ask(self, script: str) -> Any:
        """Return the value of an expression."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, (script, answer)
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = 20) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.ask(script):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.02)

    def press(self, *keys: str) -> None:
        """Presses keys one after the other: letters, or names such as ArrowDown."""
        for key in keys:
            self.hold(key, 0)

    def hold(self, key: str, repeats: int) -> None:
        """Presses a key and holds it down until it has been repeated so often."""
        named = (
            {"windowsVirtualKeyCode": _CODES[key], "text": _TEXTS.get(key, "")}
            if key in _CODES
            else {"text": key}
        )
        for repeat in range(1 + repeats):
            self.call(
                "Input.dispatchKeyEvent", type="keyDown", key=key, autoRepeat=repeat > 0, **named
            )
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def type(self, selector: str, text: str) -> None:
        """Replace the text of a field, as typing does."""
        self.ask(
            f"document.querySelector({selector!r}).focus(),"
            f" document.querySelector({selector!r}).select()"
        )
        self.call("Input.insertText", text=text)

    def choose(self, selector: str, value: str) -> None:
        """Set a select or a slider, and send the page its events."""
        self.ask(
            f"(e => {{ e.value = {value!r};"
            f" e.dispatchEvent(new Event('input', {{bubbles: true}})); }})"
            f"(document.querySelector({selector!r}))"
        )

    def screenshot(self, file: pathlib.Path) -> None:
        """Write a screenshot as PNG."""
        file.write_bytes(
            base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        )


@contextlib.contextmanager
def chromium(profile: pathlib.Path) -> Iterator[Page]:
    """Start a browser with an empty page and its own profile; without one, skip unless in CI."""
    program = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail(
                "chromium is absent; install it (apt-get install chromium) to open the page"
            )
        pytest.skip("chromium is absent (apt-get install chromium)")
    profile.mkdir(parents=True, exist_ok=True)
    port = profile / "DevToolsActivePort"
    port.unlink(missing_ok=True)
    process = subprocess.Popen(
        [
            *(
                program,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--disable-background-networking",
            ),
            *(
                "--disable-component-update",
                "--disable-sync",
                "--disable-dev-shm-usage",
                f"--user-data-dir={profile}",
            ),
            *("--remote-debugging-port=0", "--remote-allow-origins=*", "about:blank"),
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 60
        while not (port.exists() and port.read_text().count("\n")):
            assert process.poll() is None and time.monotonic() < end, "chromium does not start"
            time.sleep(0.05)
        number, path = port.read_text().split("\n")[:2]
        with connect(f"ws://127.0.0.1:{number}{path}", max_size=None, proxy=None) as browser:
            browser.send(
                json.dumps(
                    {"id": 1, "method": "Target.createTarget", "params": {"url": "about:blank"}}
                )
            )
            while (answer := json.loads(browser.recv(timeout=60))).get("id") != 1:
                pass
            target = answer["result"]["targetId"]
            with connect(
                f"ws://127.0.0.1:{number}/devtools/page/{target}", max_size=None, proxy=None
            ) as socket:
                yield Page(socket)
    finally:
        process.terminate()
        process.wait(timeout=30)
