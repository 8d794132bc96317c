"""Drive Debian's Chromium without a window, by its DevTools protocol: JSON over two pipes, NUL ends a message."""

from __future__ import annotations

import base64
import fcntl
import functools
import json
import os
import select
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")
RUNTIME = Path(__file__).parents[2] / "examples" / "node" / "node_modules" / "onnxruntime-web"
NEEDED = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
    pytest.mark.skipif(not RUNTIME.is_dir(), reason="no onnxruntime-web: make node"),
]
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--remote-debugging-pipe", "--window-size=1500,1200", "--force-color-profile=srgb",
)  # fmt: skip
PATIENCE = 60.0  # seconds
DONE = r"/^\d+ rows of /.test(document.getElementById('status')?.textContent)"


class Browser:
    """One page of a browser; `messages` has what came to its console, uncaught errors and failed requests included."""

    def __init__(self, home: Path) -> None:
        assert CHROMIUM is not None
        ours, theirs = os.pipe(), os.pipe()
        read, write = (fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (ours[0], theirs[1]))
        os.close(ours[0])
        os.close(theirs[1])
        command = [CHROMIUM, *OPTIONS, f"--user-data-dir={home}", "about:blank"]
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{read} 4>&{write}', "bash", *command],
            pass_fds=(read, write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read)
        os.close(write)
        self.out, self.into = ours[1], theirs[0]
        self.buffer, self.count, self.session = b"", 0, ""
        self.messages: list[str] = []
        self.urls: list[str] = []
        page = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """Send a command and return its result."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.out, data) :]
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == self.count:
                assert "error" not in answer, (method, answer)
                return answer["result"]

    def _receive(self, deadline: float) -> Any:
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.into], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "Chromium does not answer"
            piece = os.read(self.into, 1 << 20)
            assert piece, "Chromium has ended"
            self.buffer += piece
        text, _, self.buffer = self.buffer.partition(b"\0")
        answer = json.loads(text)
        method, parameters = answer.get("method"), answer.get("params", {})
        if method == "Runtime.consoleAPICalled":
            self.messages.append(str([one.get("value") for one in parameters["args"]]))
        elif method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.messages.append(details.get("exception", details).get("description", str(details)))
        elif method == "Log.entryAdded":
            self.messages.append(parameters["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.urls.append(parameters["request"]["url"])
        return answer

    def seconds(self) -> float:
        """Return for how long all processes of the browser have computed."""
        kept, self.session = self.session, ""
        found = self.call("SystemInfo.getProcessInfo")["processInfo"]
        self.session = kept
        return float(sum(one["cpuTime"] for one in found))

    def run(self, code: str) -> Any:
        """Return the value of an expression, awaited."""
        result = self.call(
            "Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, condition: str) -> Any:
        """Return the value of an expression as soon as it is true."""
        deadline = time.monotonic() + PATIENCE
        while not (value := self.run(condition)):
            assert time.monotonic() < deadline, (condition, self.messages, self.status())
            time.sleep(0.02)
        return value

    def status(self) -> str:
        """Return what the page says."""
        return str(self.run("document.getElementById('status')?.textContent"))

    def open(self, url: str) -> None:
        """Load a page that is not loaded yet."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=url)

    def set(self, name: str, value: object) -> None:
        """Set a control as a user does."""
        event = "change" if name in ("bundle", "x", "y") else "input"
        self.run(
            f"(e => {{ e.value = {json.dumps(str(value))}; e.dispatchEvent(new Event('{event}')) }})"
            f"(document.getElementById('{name}'))"
        )

    def picture(self, path: Path) -> None:
        """Keep a picture of the whole page."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        """End the browser."""
        self.session = ""
        self.call("Browser.close")
        self.process.wait(PATIENCE)
        os.close(self.out)
        os.close(self.into)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Yield the address of a plain file server of a folder."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def visit(browser: Browser, address: str, state: str = "", *, anew: bool = False) -> None:
    """Open the page, or change the address of the open one, and wait for its samples."""
    if anew or browser.run("location.origin") != address:
        browser.open(f"{address}/#{state}")
    else:
        browser.run(
            "document.getElementById('status').textContent = ''; history.replaceState(null, '', "
            f"'#{state}'); dispatchEvent(new HashChangeEvent('hashchange'))"
        )
    browser.wait(DONE)


def saved(browser: Browser, folder: Path) -> Path:
    """Return the file that the page's button downloads; its name stands for an empty file at first."""
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    browser.run("document.getElementById('download').click()")
    deadline = time.monotonic() + 20
    while not (found := [path for path in folder.glob("*.csv") if path.stat().st_size]):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found[0]
