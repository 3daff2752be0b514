"""The comparison page in a real browser: what is seen, by pointer, by touch and by keyboard."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from typer.testing import CliRunner

from srcli.cli import app

WIDTH, HEIGHT = 1300, 700
HOSTILE = '<img src=x onerror=document.title="taken">.png'


def compare(*words):
    done = CliRunner().invoke(app, ["compare", *map(str, words)])
    assert done.exit_code == 0, done.output
    return done


def picture(blue):
    """Red rises by one a column, green a row: each pixel says where it is."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([x % 200, y % 200, np.full_like(x, blue)], -1).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    Image.fromarray(picture(40)).save(folder / "one.png")
    Image.fromarray(picture(200)).save(folder / HOSTILE)
    Image.fromarray(picture(200)[::4, ::4]).save(folder / "small.png")
    compare(folder / "one.png", folder / HOSTILE, "--input", folder / "small.png", "-o", folder / "page.html")
    return folder


@pytest.fixture
def page(visit, folder):
    return visit(folder / "page.html")


def colour_at(x, y, blue):
    return (x % 200, y % 200, blue)


def test_the_page_fetches_nothing_and_runs_nothing_but_its_own(page):
    assert page.run("return performance.getEntriesByType('resource').length") == 0
    assert page.driver.title != "taken"
    assert HOSTILE in page.driver.find_element("tag name", "body").text
    assert [entry for entry in page.driver.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_the_slider_shows_one_picture_left_and_the_other_right(page):
    width, height = page.size()
    assert page.pixel(width * 0.4, height / 2)[2] == 40
    assert page.pixel(width * 0.6, height / 2)[2] == 200
    page.find("boundary").send_keys(Keys.HOME)
    page.wait()
    assert page.pixel(width * 0.4, height / 2)[2] == 200
    page.find("boundary").send_keys(Keys.END)
    page.wait()
    assert page.pixel(width * 0.6, height / 2)[2] == 40


def test_the_boundary_moves_by_keys_mouse_and_touch(page):
    page.press("[", "[")
    assert page.boundary() == 46
    page.press("]", "]")
    ActionChains(page.driver).drag_and_drop_by_offset(page.find("stage"), 200, 0).perform()
    page.wait()
    stage_width = page.find("stage").size["width"]
    assert page.boundary() == pytest.approx(50 + 100 * 200 / stage_width, abs=1)
    page.touch("touchStart", (page.boundary() / 100, 0.3))
    for x in (0.5, 0.4, 0.3):
        page.touch("touchMove", (x, 0.3))
    page.touch("touchEnd")
    page.wait()
    assert page.boundary() == pytest.approx(30, abs=1)


def test_two_fingers_zoom_and_one_moves(page):
    before = page.zoom()
    page.touch("touchStart", (0.2, 0.5), (0.3, 0.5))
    page.touch("touchMove", (0.1, 0.5), (0.3, 0.5))
    page.touch("touchEnd")
    page.wait()
    assert page.zoom() == pytest.approx(before * 2, rel=0.05)
    seen = page.pixel(10, 10)
    page.touch("touchStart", (0.2, 0.5))
    page.touch("touchMove", (0.25, 0.55))
    page.touch("touchEnd")
    page.wait()
    assert page.pixel(10, 10) != seen


@pytest.mark.parametrize("at", [(0.25, 0.3), (0.75, 0.6)])
def test_each_pixel_is_the_files_own_at_100_percent(page, at):
    page.press("1")
    width, height = page.size()
    x, y = round(width * at[0]), round(height * at[1])
    column, row = x - (width - WIDTH) / 2, y - (height - HEIGHT) / 2
    blue = 40 if at[0] < 0.5 else 200
    seen = page.pixel(x, y)
    assert seen in [colour_at(int(column + dx), int(row + dy), blue) for dx in (0, 0.5) for dy in (0, 0.5)]
    right, below = page.pixel(x + 1, y), page.pixel(x, y + 1)
    assert (right[0] - seen[0]) % 200 == 1
    assert (below[1] - seen[1]) % 200 == 1


def test_at_large_zoom_pixels_are_blocks_without_blending(page):
    page.press("1", *"++++")
    assert page.zoom() == 1600
    row = [page.pixel(100 + i, 100) for i in range(64)]
    assert {colour[2] for colour in row} == {40}
    steps = [i for i in range(63) if row[i] != row[i + 1]]
    assert np.diff(steps).tolist() == [16, 16, 16]
    assert all((row[i + 1][0] - row[i][0]) % 200 == 1 for i in steps)


def test_side_by_side_shows_the_same_place_twice(page):
    page.press("n", "1", "+", Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    width, height = page.size()
    half = width // 2 + 1
    for x, y in ((60, 60), (width // 3, height - 50)):
        left, right = page.pixel(x, y), page.pixel(half + x, y)
        assert left[2] == 40
        assert right[2] == 200
        assert left[:2] == right[:2]


def test_blink_changes_the_picture_and_can_be_paused(page):
    middle = [side / 2 for side in page.size()]
    page.press("b")
    seen = set()
    page.until(lambda: seen.add(page.pixel(*middle)[2]) or len(seen) == 2)
    page.find("pause").click()
    page.wait()
    before = page.pixel(*middle)[2]
    page.press(" ")
    assert {before, page.pixel(*middle)[2]} == {40, 200}


def test_who_wants_no_motion_gets_none(page):
    features = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    page.press("b")
    assert page.find("pause").text == "Run"


@pytest.mark.parametrize(("gain", "blue"), [("1", 160), ("4", 255)])
def test_the_difference_is_that_of_the_levels(page, gain, blue):
    page.press("d")
    page.choose("gain", gain)
    width, height = page.size()
    assert page.pixel(width / 2 + 30, height / 2) == (0, 0, blue)


def test_a_small_picture_is_laid_over_a_large_one(page):
    page.choose("second", 2)
    page.press("1", "+")
    width, height = page.size()
    assert page.find("tag-second").text == "input"
    x, y = width * 0.75, height / 2
    assert page.pixel(x, y)[2] == 200
    blocks = {page.pixel(x + i, y) for i in range(8)}
    assert 1 <= len(blocks) <= 2  # 4 pixels of the large one, twice as large


def test_a_page_of_many_tiles_draws_them_without_a_seam(page):
    page.press("0")
    row = [page.pixel(x, 20)[2] for x in range(0, page.size()[0], 7)]
    assert set(row) <= {40, 200, 119, 255, 0}
    assert 119 not in row[len(row) // 4 : -len(row) // 4]


def test_every_control_has_a_name_and_can_be_reached_by_keys(page):
    named = set()
    for mode in "bds":  # each shows controls that the others hide
        page.press(mode)
        controls = page.driver.find_elements("css selector", "input, select, button, [tabindex]")
        seen = [control for control in controls if control.is_displayed()]
        assert [control.get_attribute("id") for control in seen if not control.accessible_name] == []
        named |= {control.get_attribute("id") for control in seen}
    assert {"pause", "gain", "boundary", "stage", "zoom-in"} <= named
    assert page.find("boundary").get_attribute("aria-valuetext").startswith("50 % one.png, the rest ")
    order = []
    page.run("document.activeElement.blur()")
    for _ in range(14):
        ActionChains(page.driver).send_keys(Keys.TAB).perform()
        order.append(page.run("return document.activeElement.id"))
    for name in ("first", "second", "mode-slider", "zoom-in", "zoom-fit", "stage", "boundary"):
        assert name in order


CONTRAST = """
const channel = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = (text) => { const [r, g, b] = text.match(/[\\d.]+/g).map(Number);
  return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b); };
const behind = (node) => { for (; node; node = node.parentElement) {
  const colour = getComputedStyle(node).backgroundColor;
  if (!/, 0\\)$/.test(colour) && colour !== 'transparent') return colour; } return 'rgb(255, 255, 255)'; };
return [...document.querySelectorAll('h1, h2, label, legend, td, th, p, kbd, button, select, output, footer, .tag')]
  .filter((node) => node.offsetParent && node.textContent.trim())
  .map((node) => { const pair = [light(getComputedStyle(node).color), light(behind(node))].sort((a, b) => b - a);
    return (pair[0] + 0.05) / (pair[1] + 0.05); });
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(page, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    ratios = page.run(CONTRAST)
    assert len(ratios) > 20
    assert min(ratios) >= 4.5


def test_folders_become_an_index_that_leads_to_pages(visit, driver, tmp_path):
    for name, blue in (("a", 40), ("b", 90)):
        (tmp_path / name).mkdir()
        for index in range(2):
            Image.fromarray(picture(blue)[:200, : 200 + index]).save(tmp_path / name / f"p #{index}.png")
    compare(tmp_path / "a", tmp_path / "b", "-o", tmp_path / "out")
    driver.get((tmp_path / "out" / "index.html").as_uri())
    images = driver.find_elements("css selector", ".gallery img")
    assert [image.get_property("naturalWidth") for image in images] == [200, 201]
    driver.find_elements("css selector", ".gallery a")[1].click()
    assert driver.current_url.endswith("p%20%231.html")
    WebDriverWait(driver, 20).until(lambda driver: driver.find_element("id", "tag-first").text == "a")
