"""What a journal adds up to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from srcli.batch.journal.previous_runs import RunClock, summarize_journal
from srcli.cli.boundary import ErrorBoundary
from srcli.cli.report import print_report
from srcli.errors import InputError
from tests.batch.fakes import draw, go


@pytest.fixture
def out(tmp_path: Path) -> Path:
    for number in range(3):
        draw(tmp_path / "in" / f"{number}.png", seed=number)
    (tmp_path / "in" / "a.png").write_bytes(b"")
    (tmp_path / "in" / "b\udcff.png").write_bytes(b"")
    go(tmp_path / "in", path=str(tmp_path / "out"))
    (tmp_path / "in" / "2.png").write_bytes(b"")
    go(tmp_path / "in", path=str(tmp_path / "out"))
    return tmp_path / "out"


def test_the_last_word_on_each_picture_counts(out: Path) -> None:
    found = summarize_journal(out)
    assert (found.runs, found.done, found.failed, found.unfinished) == (2, 2, 3, 0)
    assert [kind for kind, count, _ in found.failures if count == 3] == ["empty"]
    assert len(found.slowest) == 2


def test_a_line_that_was_cut_is_passed_over(out: Path) -> None:
    journal = out / ".srcli-journal.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"event": "picture", "source": "x", "status": "fai')
    assert summarize_journal(journal).failed == 3


def test_the_command_says_it(out: Path) -> None:
    app = typer.Typer(cls=ErrorBoundary)
    app.command("report")(print_report)
    app.callback()(lambda: None)
    result = CliRunner().invoke(app, ["report", str(out)])
    assert result.exit_code == 0
    assert "5 pictures in 2 runs: 2 done" in result.stdout
    told = json.loads(CliRunner().invoke(app, ["report", "--json", str(out)]).stdout)
    assert told["failures"][0]["count"] == 3


def test_it_tells_what_is_left_how_long_it_went_and_how_fast() -> None:
    def told(*events: tuple[str, int], **head: int) -> RunClock:
        clock = RunClock()
        for event, second in events:
            record = {"event": event, "time": f"2026-01-01T00:00:{second:02}+00:00"}
            clock.read_record(record | (head if event == "run" else {"left": 5} if event == "end" else {}))
        return clock

    killed = told(("run", 0), ("picture", 10), ("picture", 20), ("run", 50), ("picture", 55), pictures=9)
    assert (killed.left(3), killed.elapsed) == (6, 25)
    assert told(("run", 0), ("picture", 1), ("end", 2), pictures=9).left(1) == 5
    assert told(("run", 0)).left(1) is None  # a journal of an earlier version


def test_a_journal_says_how_many_pictures_a_run_is_about(out: Path) -> None:
    found = summarize_journal(out)
    assert (found.left, found.fields()["left"]) == (0, 0)
    assert ", 0 left" in found.lines()[0]


def test_what_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n')
    for path, says in (
        (tmp_path / "x.jsonl", "is not a srcli journal"),
        (tmp_path / "none.jsonl", "give"),
        (tmp_path, "give"),
    ):
        with pytest.raises(InputError, match=says):
            summarize_journal(path)
