"""The program of all measurements: what fails in it is heard, and costs no other part."""

from __future__ import annotations

import json
import sys

import pytest
from benchmarks import __main__ as bench


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """One program that is none, and one that has nothing to say."""
    monkeypatch.setattr(bench, "PARTS", (("nothing", []), ("plot", [])))


@pytest.mark.usefixtures("parts")
def test_a_part_that_fails_is_said_and_the_others_are_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="failed: nothing"):
        bench.main()
    assert "nothing failed: " in (said := capsys.readouterr().err)
    assert "No module named benchmarks.nothing" in said
    text = (tmp_path / "cpu.md").read_text()
    assert "## nothing\n\nnot measured" in text
    data = json.loads((tmp_path / "cpu.json").read_text())
    assert data["failed"] == ["nothing"]
    assert [row[0] for row in data["tables"][-1]["rows"]] == ["nothing", "plot", "all"]


def test_a_part_that_takes_too_long_has_failed():
    assert bench.run("plot", [], 0.001) == ("## plot\n\nnot measured", "it took longer than 0.001 seconds")


def test_tables_of_a_report_are_data():
    text = "## One\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\nwords\n\n## Two\n\n| c |\n|---|\n| 3 |"
    assert bench.tables(text) == [
        {"title": "One", "columns": ["a", "b"], "rows": [["1", "2"]]},
        {"title": "Two", "columns": ["c"], "rows": [["3"]]},
    ]
