"""The program of all measurements: what fails in it is heard, and costs no other part."""

from __future__ import annotations

import json
import sys
import time

import pytest
import torch
from benchmarks import __main__ as bench
from benchmarks.gpu.bare import NAMED, find_with_needed
from benchmarks.gpu.golden import find_vectors
from benchmarks.gpu.merge import merge
from benchmarks.gpu.pack import pack
from benchmarks.gpu.report import Report, Section, attempt


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


def test_what_fails_on_an_accelerator_costs_one_row(tmp_path):
    def rows(bench):
        yield attempt("good", lambda: ["1"])
        yield attempt("bad", lambda: [str(1 // 0)])
        raise RuntimeError("the rest is lost")

    report = Report(tmp_path, torch.device("cpu"), "one visit")
    report.run("some", Section(rows, ["row", "value"], 9), None, 9)
    data = json.loads((tmp_path / "gpu.json").read_text())
    assert data["sections"]["some"]["rows"][0] == ["good", "1"]
    assert [error["row"] for error in data["errors"]] == ["bad", "the section"]
    assert "1 // 0" in data["errors"][0]["traceback"]
    assert "| good | 1 |" in (tmp_path / "gpu.md").read_text()


def test_a_section_ends_when_its_time_is_over(tmp_path):
    def rows(bench):
        yield ["first"]
        try:
            time.sleep(60)
        except Exception:  # as a library would take it for a failure of its own
            yield ["swallowed"]

    report = Report(tmp_path, torch.device("cpu"), "one visit")
    report.run("slow", Section(rows, ["row"], 9), None, 0.2)
    assert report.sections["slow"]["rows"] == [["first"]]
    assert "were over" in report.sections["slow"]["ended"]
    assert not report.errors


def test_parts_of_a_visit_are_put_together_with_what_a_reader_has_to_know():
    rows = {"columns": ["a"], "rows": [["1"]], "ended": "", "seconds": 1.0}
    first = {"device": "one", "head": "a visit", "sections": {"golden": rows}, "errors": []}
    second = first | {"sections": {"whole": rows}, "errors": [{"section": "whole", "row": "x", "error": "y"}]}
    merged = merge([first, second], ["alone"])
    assert list(merged["sections"]) == ["golden", "whole"]
    assert (merged["notes"], len(merged["errors"])) == (["alone"], 1)
    with pytest.raises(ValueError, match="measured elsewhere"):
        merge([first, second | {"device": "another"}], [])


def test_a_pack_has_sources_the_vectors_of_each_engine_and_what_training_reads(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "one.jpg").write_bytes(b"a photograph")
    out = tmp_path / "pack"
    assert pack(out, {"photos": photos, "teachers": None}, wheels=False) < 30e6
    assert {path.name for path in out.iterdir()} == {"src", "benchmarks", "golden", "photos", "run.sh", "weights.lock"}
    assert [name.split()[0] for name, _ in find_vectors(out / "golden")] == ["pasd", "sr3", "stablesr"]
    assert not list(out.rglob("__pycache__"))


def test_a_bare_environment_has_what_is_named_and_what_that_needs():
    found = set(find_with_needed(NAMED))
    assert {*NAMED, "huggingface-hub", "tokenizers"} <= found
    assert not {"diffusers", "srcli", "scikit-image"} & found


def test_a_pack_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.gpu.pack.MOST", 1 << 20)
    with pytest.raises(SystemExit, match="fewer photographs"):
        pack(tmp_path / "pack", {}, wheels=False)
