"""The page of `srcli serve` in a real browser, on a real server: drop, wait, compare, paint, download."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
from PIL import Image, ImageCms
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

DROP = """
const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
const transfer = new DataTransfer();
transfer.items.add(new File([bytes], arguments[1], {type: "image/jpeg"}));
const zone = document.getElementById("drop");
for (const kind of ["dragover", "drop"]) {
  const event = new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true});
  zone.dispatchEvent(event);
}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address that the program prints; it must end in good order."""
    command = [sys.executable, "-m", "srcli", "serve", "--port", "0", "--device", "cpu"]
    command += ["--folder", str(tmp_path_factory.mktemp("serve") / "jobs")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    yield process.stdout.readline().strip()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")


@pytest.fixture
def page(driver, server):
    driver.get(server)
    return driver


def photograph(size=(60, 40), scratched=False) -> bytes:
    """Noise; or tones from black to white with a black scratch in the middle."""
    pixels = np.random.default_rng(2).integers(0, 255, (size[1], size[0], 3), np.uint8)
    if scratched:
        pixels[:] = np.linspace(0, 255, size[0])[None, :, None]
        pixels[18:22, 16:44] = 0
    exif = Image.Exif()
    exif[0x10F] = "Camera"
    file = io.BytesIO()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(pixels).save(file, "JPEG", exif=exif, icc_profile=profile)
    return file.getvalue()


def until(true, seconds=40):
    end = time.monotonic() + seconds
    while not (seen := true()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
    return seen


def drop(page, data: bytes, name: str):
    import base64

    page.execute_script(DROP, base64.b64encode(data).decode(), name)


def row_of(page, name, status):
    path = f"//li[@data-status='{status}'][div[text()='{name}']]"
    return until(lambda: page.find_elements(By.XPATH, path))[0]


def download(page, row) -> Image.Image:
    cookies = "; ".join(f"{c['name']}={c['value']}" for c in page.get_cookies())
    address = row.find_element(By.LINK_TEXT, "Download").get_attribute("href")
    with urllib.request.urlopen(urllib.request.Request(address, headers={"cookie": cookies})) as answer:
        return Image.open(io.BytesIO(answer.read()))


def choose(page, name, value):
    page.find_element(By.CSS_SELECTOR, f"#{name} option[value='{value}']").click()


def test_a_dropped_picture_becomes_a_result_with_its_metadata(page):
    choose(page, "scale", "2")
    drop(page, photograph(), "holiday.jpg")
    row = row_of(page, "holiday.jpg", "done")
    assert "60 × 40 to 120 × 80" in row.text
    result = download(page, row)
    assert result.size == (120, 80) and result.getexif()[0x10F] == "Camera" and result.info["icc_profile"]
    page.get(row.find_element(By.LINK_TEXT, "Compare").get_attribute("href"))
    until(lambda: page.find_element(By.ID, "stage").get_attribute("data-whole") == "true")
    page.execute_script(
        "const b = document.getElementById('boundary'); b.value = 20; b.dispatchEvent(new Event('input'))"
    )
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_what_is_painted_is_mended(page):
    choose(page, "task", "restore")
    drop(page, photograph(scratched=True), "plain.jpg")
    plain = np.array(download(page, row_of(page, "plain.jpg", "done")))
    page.find_element(By.ID, "paint").click()
    drop(page, photograph(scratched=True), "scratched.jpg")
    canvas = page.find_element(By.ID, "canvas")
    until(canvas.is_displayed)
    page.execute_script("document.getElementById('brush').value = 6")
    drag = ActionChains(page).move_to_element_with_offset(canvas, -15, 0).click_and_hold().move_by_offset(30, 0)
    drag.release().move_to_element_with_offset(canvas, 0, 15).click().perform()
    page.find_element(By.ID, "undo").click()  # takes the dot back
    page.find_element(By.ID, "painted").click()
    mended = np.array(download(page, row_of(page, "scratched.jpg", "done")))
    changed = np.abs(mended.astype(int) - plain).max(-1) > 40
    assert changed[18:22, 20:40].mean() > 0.5
    assert changed[32:].mean() < 0.05


def test_scratches_can_be_looked_for_where_the_weights_are_here(page):
    box, need = (page.find_element(By.ID, name) for name in ("scratches", "scratches-need"))
    assert not box.is_displayed()
    choose(page, "task", "restore")
    until(box.is_displayed)
    until(lambda: box.is_enabled() == (need.text == ""))  # both change once the page knows what is here
    page.execute_script("arguments[0].checked = true", box)
    assert page.execute_script("return options().find_scratches") is True


def test_escape_in_the_painter_sends_nothing(page):
    choose(page, "task", "restore")
    page.find_element(By.ID, "paint").click()
    drop(page, photograph(), "escaped.jpg")
    until(page.find_element(By.ID, "canvas").is_displayed)
    ActionChains(page).send_keys(Keys.ESCAPE).perform()
    until(lambda: "was not sent" in page.find_element(By.ID, "notice").text)
    assert "escaped.jpg" not in page.find_element(By.ID, "queue").text


def test_what_is_done_is_seen_and_what_is_guessed_can_be_compared(page):
    """A picture of several blocks, which come one by one."""
    choose(page, "scale", "2")
    page.find_element(By.ID, "map").click()
    drop(page, photograph((700, 40)), "long.jpg")
    until(lambda: page.execute_script("const i = document.querySelector('img.preview'); return i && i.naturalWidth"))
    row = row_of(page, "long.jpg", "done")
    assert page.find_elements(By.CSS_SELECTOR, "img.preview") == []
    page.get(row.find_element(By.LINK_TEXT, "Compare").get_attribute("href"))
    assert any("guessed" in option.text for option in page.find_elements(By.CSS_SELECTOR, "#second option"))


def test_a_page_of_a_server_that_has_ended_says_so(page):
    page.delete_all_cookies()
    page.execute_script("window.stop(); listen()")
    until(lambda: "open the address that srcli serve printed last" in page.find_element(By.ID, "notice").text)


def test_a_bad_file_is_named_and_removed(page):
    drop(page, b"no picture", "letter.jpg")
    row = row_of(page, "letter.jpg", "failed")
    assert "not a picture" in row.text or "letter.jpg" in row.text
    row.find_element(By.TAG_NAME, "button").click()
    until(lambda: "letter.jpg" not in page.find_element(By.ID, "queue").text)


def test_without_the_token_there_is_nothing(driver, server):
    driver.delete_all_cookies()
    driver.get(server.partition("?")[0])
    assert "open the address that srcli serve printed" in driver.page_source
