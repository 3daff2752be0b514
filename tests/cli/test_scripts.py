"""What docs/scripts.md promises to programs: events, fields and exit codes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.batch.fakes import draw
from tests.cli.conftest import Srcli
from typer.testing import Result

PAGE = (Path(__file__).parents[2] / "docs" / "scripts.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(\w+)` \| (.*?) \|", PAGE, re.MULTILINE)
MUST = {event: {"event", *re.findall(r"(?<!\[)`(\w+)`", fields)} for event, fields in ROWS}
MAY = {event: set(re.findall(r"\[`(\w+)`\]", fields)) for event, fields in ROWS}
BUILTIN = ("--engine", "builtin", "--device", "cpu", "--json")


def events(result: Result) -> Iterator[dict[str, Any]]:
    for line in result.stdout.splitlines():
        said = json.loads(line)
        assert MUST[said["event"]] <= said.keys() <= MUST[said["event"]] | MAY[said["event"]], said
        yield said


def test_a_run_says_what_is_documented(srcli: Srcli, tmp_path: Path) -> None:
    draw(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_text("no picture")
    words = ("upscale", tmp_path / "in", "-o", f"{tmp_path}/out/", *BUILTIN)
    said = list(events(result := srcli(*words, "--scale", 5)))
    progress = [event for event in said if event["event"] == "progress"]
    planned, done, failed, finished = (event for event in said if event not in progress)
    assert (planned["event"], planned["total"]) == ("planned", 2)
    assert {event["stage"] for event in progress} >= {"preparing", "finishing"}
    assert {done["event"], failed["event"]} == {"done", "failed"}
    assert (finished["event"], finished["exit"], result.exit_code) == ("finished", 3, 3)
    shares = [event["percent"] for event in progress]
    assert shares == sorted(shares) and shares[-1] < 100
    assert "skipped" in {event["event"] for event in events(srcli(*words, "--scale", 5))}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (2, ("--skale", 2)),
        (2, ("--scale", 2, "--to", "4k")),
        (2, ("--quality", "nice")),
        (4, ("--engine", "pasd", "--base-model", "./none")),
        (5, ("--device", "cuda:7")),
    ],
)
def test_an_error_is_an_event_too(srcli: Srcli, tmp_path: Path, code: int, words: tuple[object, ...]) -> None:
    result = srcli("upscale", draw(tmp_path / "a.png"), "--json", "--offline", *words)
    *_, error = events(result)
    assert (error["event"], error["exit"], result.exit_code) == ("error", code, code)
    assert result.stderr.splitlines()[-1] == f"srcli: {error['message']}"


def test_a_picture_on_stdout_leaves_no_room_for_events(srcli: Srcli, tmp_path: Path) -> None:
    assert srcli("upscale", draw(tmp_path / "a.png"), "-o", "-", "--json", "--skale", 2).stdout == ""
