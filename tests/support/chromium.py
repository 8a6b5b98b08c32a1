"""A real browser for tests: Chromium without a window, led by its DevTools protocol over two pipes, with no library."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import PATIENCE, wait_until

#: Debian's, and names that it has elsewhere.
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> str | None:
    """The program; ``PQ_TEST_CHROMIUM`` names another one."""
    return os.environ.get("PQ_TEST_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


# the protocol wants these numbers
AS_3_AND_4 = (
    "import fcntl, os, sys; theirs = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3]];"
    "os.dup2(theirs[0], 3); os.dup2(theirs[1], 4); os.execv(sys.argv[3], sys.argv[3:])"
)


class Chromium:
    """One window, of one tab.

    :ivar told: the events that the browser has sent, such as ``Log.entryAdded``.
    """

    def __init__(self, program: str) -> None:
        self._folder = tempfile.mkdtemp(prefix="pq-chromium-")
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        command = [sys.executable, "-S", "-c", AS_3_AND_4, str(theirs_in), str(theirs_out), program]
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        self._process = subprocess.Popen(
            [*command, *flags, "--remote-debugging-pipe", f"--user-data-dir={self._folder}", "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": self._folder},
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._rest = b""
        self._number = 0
        self._session: str | None = None
        self.told: list[dict[str, Any]] = []
        try:
            self._attach()
        except BaseException:
            self.close()
            raise

    def _attach(self) -> None:
        targets = wait_until(
            lambda: [each for each in self.call("Target.getTargets")["targetInfos"] if each["type"] == "page"], "a tab"
        )
        self._session = self.call("Target.attachToTarget", targetId=targets[0]["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result
            self.told.append(answer)

    def _read(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(end - time.monotonic(), 0))
            assert ready, "Chromium does not answer"
            part = os.read(self._in, 1 << 20)
            assert part, "Chromium has ended"
            self._rest += part
        text, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(text)
        return answer

    # -- what a person does

    def open(self, url: str) -> None:
        """Go to a page, and wait until it is there."""
        self._away(lambda: self.call("Page.navigate", url=url))

    def click(self, selector: str, text: str = "", *, leaves: bool = False) -> None:
        """Click on the first element that can be seen, whose text begins so.

        :param leaves: it leads to another page: wait for that.
        """
        found = f"""
            [...document.querySelectorAll({json.dumps(selector)})].filter((each) =>
              each.textContent.trim().startsWith({json.dumps(text)}) && each.checkVisibility())[0]
        """
        wait_until(lambda: self.run(f"!!({found})"), f"{selector} {text!r}")
        self.run(f"({found}).scrollIntoView({{block: 'center'}})")
        place = self.run(
            f"(() => {{ const box = ({found}).getBoundingClientRect();"
            " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        mouse = {"x": place[0], "y": place[1], "button": "left", "clickCount": 1}

        def press() -> None:
            self.call("Input.dispatchMouseEvent", type="mousePressed", **mouse)
            self.call("Input.dispatchMouseEvent", type="mouseReleased", **mouse)

        self._away(press) if leaves else press()

    def write(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def press(self, key: str, *, leaves: bool = False) -> None:
        """Press a key, such as ``Tab`` or ``Enter``."""
        codes = {"Tab": 9, "Enter": 13, "Space": 32}
        pressed = {"key": " " if key == "Space" else key, "code": key, "windowsVirtualKeyCode": codes[key]}
        text = {"Enter": "\r", "Space": " "}.get(key)

        def down() -> None:
            self.call("Input.dispatchKeyEvent", type="keyDown", **pressed, **({"text": text} if text else {}))
            self.call("Input.dispatchKeyEvent", type="keyUp", **pressed)

        self._away(down) if leaves else down()

    # -- what a person sees

    def run(self, script: str) -> Any:
        """The value of an expression of JavaScript on the page, which is read as if by the console."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    @property
    def text(self) -> str:
        """The text of the page that can be seen."""
        return str(self.run("document.body.innerText"))

    def size(self, width: int, height: int, dark: bool = False) -> None:
        """Make the window so large, in pixels, and prefer the dark or the light colours."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        colours = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[colours])

    def picture(self, path: Path) -> None:
        """Write what can be seen as a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def scripts(self, allowed: bool) -> None:
        """Let pages run their scripts, or not."""
        self.call("Emulation.setScriptExecutionDisabled", value=not allowed)

    def _away(self, act: Callable[[], object]) -> None:
        """Do what leads to another page, and wait until that is there."""
        before = self._loader()
        act()
        wait_until(lambda: self._loader() != before and self.run("document.readyState") == "complete", "another page")

    def _loader(self) -> str:
        return str(self.call("Page.getFrameTree")["frameTree"]["frame"]["loaderId"])

    def close(self) -> None:
        """End the browser, and remove what it has written."""
        for number in (self._out, self._in):
            os.close(number)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
