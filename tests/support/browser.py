"""Drive a headless Chromium over its DevTools protocol."""

import base64
import contextlib
import functools
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
_SHIFT = 8
SIZES = {"desk": (1400, 900), "small": (800, 600), "phone": (390, 844)}
"""Width and height of the windows in which every page is looked at."""


@functools.cache
def _axe() -> str:
    """Return the source of axe-core, which checks a page's accessibility."""
    return (pathlib.Path(__file__).parent / "axe" / "axe.min.js").read_text("utf-8")


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

    def reset(self) -> None:
        """Forget errors and requests, and the scheme that was asked for."""
        self.errors.clear()
        self.requests.clear()
        self.emulate(None)

    def emulate(self, scheme: str | None) -> None:
        """Show the page as on a system that is set to `light` or `dark`."""
        asked = [{"name": "prefers-color-scheme", "value": scheme}] if scheme else []
        self.call("Emulation.setEmulatedMedia", features=asked)

    def list_barriers(self) -> list[str]:
        """Return what axe-core finds serious or critical: the rule, then the elements."""
        self.ask(f"window.axe ? 0 : (0, eval)({json.dumps(_axe())}), 0")
        found = self.ask("axe.run(document, {resultTypes: ['violations']}).then(r => r.violations)")
        return [
            f"{rule['id']}: {rule['help']}: {[node['html'][:150] for node in rule['nodes'][:4]]}"
            for rule in found
            if rule["impact"] in ("serious", "critical")
        ]

    def find(self, selector: str) -> tuple[float, float]:
        """Return the middle of an element in the window, scrolled to where it is needed."""
        return tuple(
            self.ask(
                f"(e => {{ e.scrollIntoView({{block: 'nearest'}});"
                " const b = e.getBoundingClientRect();"
                " return [b.x + b.width / 2, b.y + b.height / 2]; })"
                f"(document.querySelector({selector!r}))"
            )
        )

    def click(self, selector: str) -> None:
        """Click on the middle of an element with the mouse."""
        self.drag(selector, 0, 0)

    def drag(
        self, selector: str, right: float, down: float, button: str = "left", shift: bool = False
    ) -> None:
        """Drag with the mouse from the middle of an element, in four steps."""
        x, y = self.find(selector)
        buttons = {"left": 1, "right": 2}[button]
        common = {"button": button, "modifiers": _SHIFT if shift else 0, "clickCount": 1}
        self.mouse("mouseMoved", x, y)
        self.mouse("mousePressed", x, y, buttons=buttons, **common)
        for step in range(1, 5 if right or down else 1):
            place = x + right * step / 4, y + down * step / 4
            self.mouse("mouseMoved", *place, buttons=buttons, **common)
        self.mouse("mouseReleased", x + right, y + down, **common)

    def wheel(self, selector: str, down: float) -> None:
        """Turn the wheel over the middle of an element."""
        self.mouse("mouseWheel", *self.find(selector), deltaX=0, deltaY=down)

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """Send an event of the mouse, at a place in the window."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def open(
        self, path: pathlib.Path, width: int = 1280, height: int = 800, part: str = ""
    ) -> None:
        """Load a file, at a part such as `#top`, in a window of this size; wait until it is
        complete.
        """
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        # An address that differs in its part alone would not load the file again.
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=path.as_uri() + part)
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
