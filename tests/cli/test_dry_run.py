"""`--dry-run` and `--explain` of many pictures: what would be done, and what it adds up to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.batch.fakes import draw
from tests.cli.conftest import Srcli

from srcli.engines.runtime import forecast

BUILTIN = ("--engine", "builtin", "--device", "cpu")


@pytest.fixture
def album(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        draw(tmp_path / "album" / f"{name}.png")
    return tmp_path / "album"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The devices whose speed was measured."""
    devices: list[object] = []

    def measure(device: object) -> float:
        devices.append(device)
        return 1e9

    monkeypatch.setattr(forecast, "measure_speed", measure)
    return devices


def test_it_lists_what_would_be_done_and_writes_nothing(srcli: Srcli, album: Path, measured: list[object]) -> None:
    out = album.parent / "out"
    draw(out / "b_x4.png")
    (album / "bad.png").write_text("no picture")
    result = srcli("upscale", album, "-o", f"{out}/", *BUILTIN, "--dry-run", "--skip-existing")
    first, second, third, fourth, total = result.stdout.splitlines()
    assert first == f"make    {album}/a.png -> {out}/a_x4.png (12x8 to 48x32)"
    assert second == f"skip    {album}/b.png (exists)"
    assert third.startswith(f"fail    {album}/bad.png (") and fourth.startswith("make ")
    assert total.startswith("2 pictures to make, 1 to skip, 1 would fail: 0.0 megapixels, ")
    assert " and about " in total and total.endswith(" of disk")
    assert result.exit_code == 3
    assert [path.name for path in out.iterdir()] == ["b_x4.png"]


def test_totals_are_the_sums_in_json_too(srcli: Srcli, album: Path, measured: list[object]) -> None:
    for option, event in (("--dry-run", "would"), ("--explain", "plan")):
        told = [json.loads(line) for line in srcli("upscale", album, *BUILTIN, option, "--json").stdout.splitlines()]
        *plans, totals = told
        assert [plan["event"] for plan in plans] == [event] * 3
        assert (totals["event"], totals["pictures"], totals["megapixels"]) == ("totals", 3, round(3 * 48 * 32 / 1e6, 2))
        assert totals["seconds"] > 0 and totals["bytes"] == pytest.approx(3 * 48 * 32 * 1.6, abs=1)


def test_the_speed_of_a_machine_is_measured_once(srcli: Srcli, album: Path, measured: list[object], home: Path) -> None:
    for _ in range(2):
        srcli("upscale", album, *BUILTIN, "--explain")
    assert len(measured) == 1
    (home / "cache" / "srcli" / "speeds.json").write_text("broken")
    srcli("upscale", album, *BUILTIN, "--explain")
    assert len(measured) == 2


def test_a_plan_refuses_what_a_run_would_refuse(srcli: Srcli, album: Path, measured: list[object]) -> None:
    for option in ("--dry-run", "--explain"):
        result = srcli("upscale", album, *BUILTIN, "--map", album / "m.jpg", option)
        assert (result.exit_code, "neither a folder nor a PNG" in result.stderr) == (2, True)


def test_colorize_is_planned_before_its_weights_are_here(srcli: Srcli, album: Path, measured: list[object]) -> None:
    result = srcli("colorize", album / "a.png", "--device", "cpu", "--explain")
    assert result.exit_code == 0
    assert "by ddcolor on cpu" in result.stdout and "srcli models pull ddcolor-tiny" in result.stderr
    assert srcli("colorize", album / "a.png", "--device", "cpu").exit_code == 4


def test_a_folder_two_levels_above_which_nothing_is_may_be_a_slip(srcli: Srcli, album: Path) -> None:
    deep = album.parent / "no" / "such"
    result = srcli("upscale", album, *BUILTIN, "-o", f"{deep}/")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert f"mkdir -p {deep}" in result.stderr and not deep.parent.exists()


def test_it_is_said_that_a_result_is_smaller(srcli: Srcli, album: Path) -> None:
    result = srcli("upscale", album / "a.png", *BUILTIN, "--scale", 0.5)
    assert "a.png is made smaller: 12x8 to 6x4\n" in result.stderr
