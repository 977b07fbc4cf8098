# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""drift.html in a real browser: Chromium of the distribution, headless, without anything of its user and without talking to its maker."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--disable-lcd-text",
)  # fmt: skip
PICTURES = Path(__file__).parents[1] / "output" / "pictures"


def pytest_addoption(parser):
    parser.addoption("--pictures", type=Path, default=PICTURES, help="the folder in which the pictures are left that a person looks at")


@pytest.fixture(scope="session")
def pictures(request):
    folder = request.config.getoption("--pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    for program in (CHROMIUM, DRIVER):
        assert os.path.exists(program), "%s is missing: apt install chromium chromium-driver (lab/packages does it)" % program
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_argument("--user-data-dir=%s" % tmp_path_factory.mktemp("chromium"))
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield found
    found.quit()


class Browser:
    """One page after the other, and what the browser has to say of them."""

    def __init__(self, driver, folder):
        self.driver, self.folder = driver, folder

    def open(self, text, width=1280, scheme="light"):
        """Open a page of this text, and return its address."""
        self.look(width, scheme)
        path = self.folder / "drift.html"
        path.write_text(text, encoding="utf-8")
        self.console(), self.requests()  # of the page before
        self.driver.get(path.as_uri())
        return path.as_uri()

    def look(self, width, scheme):
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False})
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})

    def run(self, script, *args):
        return self.driver.execute_script(script, *args)

    def console(self):
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self):
        """The address of everything that the page asked for, whether it got it or not."""
        return [params["request"]["url"] for params in self._events("Network.requestWillBeSent")]

    def blocked(self):
        """Why requests were not sent."""
        return [params["blockedReason"] for params in self._events("Network.loadingFailed") if "blockedReason" in params]

    def _events(self, method):
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [message["params"] for message in messages if message["method"] == method]

    def picture(self, path, top=0.0, bottom=None):
        """The page from ``top`` to ``bottom`` in pixels, as a file."""
        width, height = self.run("return [document.documentElement.clientWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": top, "width": width, "height": (bottom or height) - top, "scale": 1}
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True, "clip": clip})
        path.write_bytes(base64.b64decode(shot["data"]))


@pytest.fixture
def browser(driver, tmp_path):
    return Browser(driver, tmp_path)
