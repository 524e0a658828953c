"""Chromium without a screen, driven over its DevTools protocol by what the tests have installed."""

import base64
import itertools
import json
import re
import shutil
import subprocess
import time
from contextlib import ExitStack

from websockets.sync.client import connect

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
_PATIENCE = 200.0  # seconds for the browser to start, or for a condition to come true


class Browser:
    """One page of a browser of its own; what the page said to the console is in ``console``."""

    def __init__(self, folder, width, height=900):
        self.console = []
        self._numbers = itertools.count(1)
        self._process = subprocess.Popen(
            [
                CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--remote-debugging-port=0", f"--user-data-dir={folder / 'profile'}",
                "--lang=en", "about:blank",
            ],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        for line in self._process.stderr:
            if match := re.search(r"listening on (ws://\S+)", line):
                break
        self._open = ExitStack()
        self._socket = self._open.enter_context(connect(match[1], max_size=None))
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        attached = self._send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        self.send("Runtime.enable")
        self.send("Log.enable")
        self.send("Page.enable")
        self.resize(width, height)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._open.close()
        self._process.kill()
        self._process.wait()

    def _send(self, method, session=None, **parameters):
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters, **(session or {})}
        self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(self._socket.recv(timeout=_PATIENCE))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            if answer.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.console.append(json.dumps(answer["params"]))
            if answer.get("method") == "Runtime.consoleAPICalled":
                self.console.append(json.dumps(answer["params"]))

    def send(self, method, **parameters):
        """Send a command to the page."""
        return self._send(method, self._session, **parameters)

    def resize(self, width, height=900):
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 500,
        )  # fmt: skip

    def open(self, url):
        self.send("Page.navigate", url=url)

    def ask(self, script):
        """Return what an expression is worth; promises are waited for."""
        found = self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, condition):
        """Wait until an expression is true."""
        end = time.monotonic() + _PATIENCE
        while not self.ask(f"Boolean({condition})"):
            assert time.monotonic() < end, f"{condition} does not come true: {self.console}"
            time.sleep(0.05)

    def press(self, selector):
        """Click what a selector finds first."""
        self.ask(f"document.querySelector({json.dumps(selector)}).click()")

    def key(self, key, code=None, text=None):
        """Press and release a key."""
        codes = {"Tab": 9, "Enter": 13, " ": 32}
        about = {"key": key, "code": code or key, "windowsVirtualKeyCode": codes.get(key, 0)}
        if text or key == "Enter":
            about["text"] = text or "\r"
        self.send("Input.dispatchKeyEvent", type="keyDown", **about)
        about.pop("text", None)
        self.send("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text):
        self.send("Input.insertText", text=text)

    def screenshot(self, path):
        found = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))
