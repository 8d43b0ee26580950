"""The report as shipped, in a real browser: Chromium without a window, spoken to over its debugging pipe."""

from __future__ import annotations

import base64
import fcntl
import io
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from small_run import make_run

from robopref.configs.show import ReportConfig
from robopref.policies.report import run

CHROMIUM = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    *("--mute-audio", "--hide-scrollbars", "--remote-debugging-pipe"),
]
# Chromium reads commands from descriptor 3 and answers on 4, whatever numbers the pipes have here.
TRAMPOLINE = """import os, sys
os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"""
VIDEOS = """[...document.querySelectorAll('video')].map(v => ({ready: v.readyState, width: v.videoWidth,
  height: v.videoHeight, time: v.currentTime, paused: v.paused, error: v.error && v.error.message}))"""


def pipe() -> tuple[int, int]:
    """Read and write end, numbered above those that the child puts in their place."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return high


class Browser:
    """One page of one Chromium; `events` holds what it reported."""

    def __init__(self, profile: Path) -> None:
        child_reads, self.commands = pipe()
        self.answers, child_writes = pipe()
        trampoline = [sys.executable, "-c", TRAMPOLINE, str(child_reads), str(child_writes)]
        command = [*trampoline, str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}"]
        self.process = subprocess.Popen(command, pass_fds=(child_reads, child_writes), stderr=subprocess.DEVNULL)
        os.close(child_reads)
        os.close(child_writes)
        self.received, self.number, self.session = b"", 0, None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def receive(self, timeout: float = 60) -> dict[str, Any]:
        while b"\0" not in self.received:
            assert select.select([self.answers], [], [], timeout)[0], "Chromium does not answer"
            part = os.read(self.answers, 1 << 20)
            assert part, "Chromium has gone"
            self.received += part
        message, _, self.received = self.received.partition(b"\0")
        return json.loads(message)

    def show(self, page: Path, width: int, height: int = 3000, scheme: str = "light") -> None:
        self.events.clear()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=page.as_uri())

    def ask(self, expression: str) -> Any:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait(self, expression: str, seconds: float = 30) -> bool:
        """Whether `expression` becomes true in time."""
        end = time.monotonic() + seconds
        while not self.ask(expression):
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True

    def screenshot(self) -> Image.Image:
        data = self.call("Page.captureScreenshot", captureBeyondViewport=False)["data"]
        return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.commands)
        os.close(self.answers)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(ReportConfig(make_run(tmp_path_factory.mktemp("runs") / "quick")))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def test_every_video_plays(page: Path, browser: Browser) -> None:
    browser.show(page, 1200)
    playing = f"document.readyState == 'complete' && {VIDEOS}.every(v => v.ready >= 2 && v.time > 0 && v.width > 0)"
    assert browser.wait(playing), browser.ask(VIDEOS)
    before, _, after = browser.ask(VIDEOS), time.sleep(0.5), browser.ask(VIDEOS)
    assert len(after) == 3
    for earlier, later in zip(before, after, strict=True):
        assert later["width"] >= 224 and later["height"] >= 224 and not later["paused"] and later["error"] is None
        assert later["time"] != earlier["time"], "the video stands still"


def test_nothing_is_asked_of_anybody_and_nothing_is_complained_of(page: Path, browser: Browser) -> None:
    browser.show(page, 1200)
    assert browser.wait("document.readyState == 'complete'")
    asked = [e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    assert page.as_uri() in asked and all(url == page.as_uri() or url.startswith("data:") for url in asked)
    complaints = [e["params"] for e in browser.events if e["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]
    assert not complaints


@pytest.mark.parametrize("width", [360, 768, 1600])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_and_follows_the_colour_scheme(page: Path, browser: Browser, width: int, scheme: str) -> None:
    browser.show(page, width, scheme=scheme)
    assert browser.wait("document.readyState == 'complete' && document.querySelectorAll('svg').length > 3")
    assert browser.ask("document.documentElement.scrollWidth") <= width
    picture = browser.screenshot()
    assert picture.size == (width, 3000)
    corner = sum(picture.getpixel((2, 2))) / 3
    assert (corner > 128) == (scheme == "light")
    ink = browser.ask("getComputedStyle(document.querySelector('figure svg text')).fill")
    brightness = sum(int(part) for part in ink.removeprefix("rgb(").removesuffix(")").split(",")) / 3
    assert (brightness < 100) == (scheme == "light"), ink
