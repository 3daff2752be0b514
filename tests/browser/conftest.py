"""A real browser without a window. Where there is none, these tests are skipped, unless SRCLI_NEEDS_BROWSER is set."""

from __future__ import annotations

import os
import shutil
import time

import pytest

OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1200,1000")


def why_not():
    missing = [name for name in ("chromium", "chromedriver") if not shutil.which(name)]
    return f"no {' and no '.join(missing)} here: install Debian's chromium and chromium-driver" if missing else ""


@pytest.fixture(scope="session")
def driver():
    if reason := why_not():
        if os.environ.get("SRCLI_NEEDS_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for option in OPTIONS:
        options.add_argument(option)
    chrome = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    yield chrome
    chrome.quit()


class Page:
    """What a user does with the page, and what is on its canvas."""

    def __init__(self, driver, path):
        self.driver = driver
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        driver.get(path.as_uri())
        self.wait()

    def find(self, name):
        return self.driver.find_element("id", name)

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def wait(self, seconds=20):
        """Until two frames have passed and all tiles in view are drawn."""
        self.driver.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))"
        )
        self.until(lambda: self.find("stage").get_attribute("data-whole") == "true", seconds)

    def until(self, true, seconds=20):
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.02)

    def press(self, *keys):
        self.run("arguments[0].focus()", self.find("stage"))
        for key in keys:
            self.find("stage").send_keys(key)
        self.wait()

    def choose(self, name, value):
        """An entry of a list."""
        script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change'))"
        self.run(script, self.find(name), value)
        self.wait()

    def size(self):
        return tuple(self.run("const c = document.getElementById('canvas'); return [c.width, c.height]"))

    def pixel(self, x, y):
        """RGB of a canvas pixel."""
        script = "return [...document.getElementById('canvas').getContext('2d').getImageData(...arguments, 1, 1).data]"
        return tuple(self.run(script, round(x), round(y)))[:3]

    def boundary(self):
        return float(self.find("boundary").get_attribute("value"))

    def zoom(self):
        return float(self.find("zoom").text.split()[0])

    def touch(self, kind, *points):
        """Fingers on the picture, at shares of its width and height."""
        box = self.run(
            "const b = arguments[0].getBoundingClientRect(); return [b.x, b.y, b.width, b.height]", self.find("stage")
        )
        places = [{"x": box[0] + x * box[2], "y": box[1] + y * box[3], "id": i} for i, (x, y) in enumerate(points)]
        self.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})


@pytest.fixture
def visit(driver):
    return lambda path: Page(driver, path)
