"""Whole runs over real files, with a pipeline that needs no models."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from srcli.batch.journal.previous_runs import summarize_journal
from srcli.errors import InputError, MachineError, WeightsError
from srcli.settings import TargetSize
from tests.batch.fakes import Repeat, draw, factory, go
from tests.batch.hostile import hostile, install


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


def test_one_picture_goes_beside_its_input(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    heard = go(tmp_path / "a.png")
    assert heard.report.exit_code == 0
    assert names(tmp_path) == ["a.png", "a_x2.png"]
    with Image.open(tmp_path / "a_x2.png") as made:
        assert made.size == (24, 16)
    assert not (tmp_path / ".srcli-journal.jsonl").exists(), "one picture needs no journal"


def test_a_folder_goes_to_a_folder_in_order(tmp_path: Path) -> None:
    for name in ("c.png", "a.jpg", "b.webp"):
        draw(tmp_path / "in" / name)
    heard = go(tmp_path / "in", path=str(tmp_path / "out"))
    assert [o.target.name for o in heard.outcomes] == ["a_x2.jpg", "b_x2.webp", "c_x2.png"]
    assert names(tmp_path / "out") == ["a_x2.jpg", "b_x2.webp", "c_x2.png"]


def test_a_second_run_does_nothing_again(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw(tmp_path / name)
    go(tmp_path)
    before = (tmp_path / "a_x2.png").stat().st_mtime_ns
    who = factory()
    heard = go(tmp_path, who=who)
    assert heard.fate() == {"a.png": "skipped", "b.png": "skipped"}
    assert (heard.left_out, heard.report.exit_code, who.loads) == (2, 0, [])
    assert (tmp_path / "a_x2.png").stat().st_mtime_ns == before


def test_a_second_run_of_one_picture_knows_its_result_by_what_the_file_says(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    go(tmp_path / "a.png")
    assert go(tmp_path / "a.png").fate() == {"a.png": "skipped"}
    heard = go(tmp_path / "a.png", seed=1)
    assert (heard.fate(), heard.report.exit_code) == ({"a.png": "exists"}, 1)


def test_changed_inputs_and_settings_are_done_again(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw(tmp_path / "in" / name)
    out = str(tmp_path / "out")
    go(tmp_path / "in", path=out)
    draw(tmp_path / "in" / "b.png", seed=5)
    assert go(tmp_path / "in", path=out).fate() == {"a.png": "skipped", "b.png": "done"}
    assert go(tmp_path / "in", path=out, seed=3).fate() == {"a.png": "done", "b.png": "done"}


def test_a_result_that_somebody_edited_is_not_written_over(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw(tmp_path / "in" / name)
    out = tmp_path / "out"
    go(tmp_path / "in", path=str(out))
    draw(out / "a_x2.png", seed=9)
    heard = go(tmp_path / "in", path=str(out), seed=3)
    assert (heard.fate(), heard.report.exit_code) == ({"a.png": "exists", "b.png": "done"}, 3)


@pytest.mark.parametrize(
    ("policy", "fate", "left"),
    [
        ("fail", "exists", ["a.png", "a_x2.png"]),
        ("skip", "skipped", ["a.png", "a_x2.png"]),
        ("rename", "done", ["a.png", "a_x2-2.png", "a_x2.png"]),
        ("overwrite", "done", ["a.png", "a_x2.png"]),
    ],
)
def test_what_stands_in_the_way(tmp_path: Path, policy: str, fate: str, left: list[str]) -> None:
    draw(tmp_path / "a.png")
    foreign = draw(tmp_path / "a_x2.png", 3, 3).read_bytes()
    assert go(tmp_path / "a.png", on_exists=policy).fate() == {"a.png": fate}
    assert names(tmp_path) == left
    assert ((tmp_path / "a_x2.png").read_bytes() == foreign) == (policy != "overwrite")


def test_a_bad_picture_does_not_stop_the_rest(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    (tmp_path / "c.jpg").write_text("<html>not found</html>")
    draw(tmp_path / "d.png")
    heard = go(tmp_path)
    assert heard.fate() == {"a.png": "done", "b.png": "empty", "c.jpg": "not-a-picture", "d.png": "done"}
    assert heard.report.exit_code == 3


def test_fail_fast_leaves_the_rest(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    for name in "bcdefgh":
        draw(tmp_path / f"{name}.png")
    heard = go(tmp_path, fail_fast=True, who=factory(pipeline=Repeat(seconds=0.2)))
    assert heard.report.failed == 1
    assert heard.report.left >= 5
    assert heard.report.exit_code == 1


def test_all_failed_is_another_exit_code(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "b.png").write_bytes(b"")
    assert go(tmp_path).report.exit_code == 1


def test_no_model_is_loaded_where_no_picture_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n....")
    who = factory()
    go(tmp_path / "a.png", who=who)
    assert who.loads == []


def test_limits_of_a_format_are_met_before_a_model_is_loaded(tmp_path: Path) -> None:
    draw(tmp_path / "wide.webp", 9000, 1)
    who = factory()
    heard = go(tmp_path / "wide.webp", who=who)
    assert heard.fate() == {"wide.webp": "format-limit"}
    assert who.loads == []


def test_missing_weights_end_the_run(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    with pytest.raises(WeightsError, match="pull"):
        go(tmp_path / "a.png", who=factory(error=WeightsError("no weights: pull them")))


def test_a_surprise_in_one_picture_is_its_own_affair(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    draw(tmp_path / "b.png", 5, 5)

    def stumble(picture) -> None:
        if picture.width == 5:
            raise ZeroDivisionError("by surprise")

    heard = go(tmp_path, who=factory(pipeline=Repeat(before=stumble)))
    assert heard.fate() == {"a.png": "done", "b.png": "ZeroDivisionError"}


def test_the_machine_is_given_up_after_three_failures_in_a_row(tmp_path: Path) -> None:
    for name in "abcdefgh":
        draw(tmp_path / f"{name}.png")

    def fail(picture) -> None:
        raise MachineError("the device is gone: restart it")

    with pytest.raises(MachineError, match="gone"):
        go(tmp_path, who=factory(pipeline=Repeat(before=fail)))


def test_a_picture_has_only_so_much_time(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    heard = go(tmp_path / "a.png", timeout=0.2, who=factory(pipeline=Repeat(seconds=2)))
    assert heard.fate() == {"a.png": "timeout"}
    assert names(tmp_path) == ["a.png"]


@pytest.mark.parametrize("inputs", [["none.png"], ["empty"], ["pipe"]])
def test_nothing_to_do_is_a_usage_error(tmp_path: Path, inputs: list[str]) -> None:
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="no picture found"):
        go(*(tmp_path / name for name in inputs))


def test_missing_files_among_others_fail_alone(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    heard = go(tmp_path / "none.png", tmp_path / "a.png")
    assert (heard.fate(), heard.report.exit_code) == ({"none.png": "missing", "a.png": "done"}, 3)


def test_two_inputs_for_one_output_stop_the_run(tmp_path: Path) -> None:
    draw(tmp_path / "x" / "a.png")
    draw(tmp_path / "y" / "a.png")
    out = str(tmp_path / "out")
    with pytest.raises(InputError, match="both be written"):
        go(tmp_path / "x" / "a.png", tmp_path / "y" / "a.png", path=out)
    assert not (tmp_path / "out").exists()
    heard = go(tmp_path / "x" / "a.png", tmp_path / "y" / "a.png", path=out, on_exists="rename")
    assert [o.target.name for o in heard.outcomes] == ["a_x2.png", "a_x2-2.png"]


def test_an_input_is_never_written_over(tmp_path: Path) -> None:
    path = draw(tmp_path / "a.png")
    (tmp_path / "link.png").hardlink_to(path)
    before = path.read_bytes()
    for target in ("a.png", "link.png"):
        with pytest.raises(InputError, match="overwritten by its own result"):
            go(path, path=str(tmp_path / target), on_exists="overwrite")
    with pytest.raises(InputError, match="overwritten by its own result"):
        go(path, suffix="", on_exists="overwrite")
    assert path.read_bytes() == before


def test_a_tree_is_mirrored_and_the_output_folder_left_out(tmp_path: Path) -> None:
    for name in ("a.png", "sub/b.png", "sub/deep/c.png", ".hidden/d.png", "sub/._b.png"):
        draw(tmp_path / name)
    draw(tmp_path / "out" / "old.png")
    heard = go(tmp_path, recursive=True, path=str(tmp_path / "out"))
    made = sorted(str(o.target.relative_to(tmp_path / "out")) for o in heard.outcomes)
    assert made == ["a_x2.png", "sub/b_x2.png", "sub/deep/c_x2.png"]


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/1").exists(), reason="needs a folder that refuses root")
def test_a_folder_that_cannot_be_written_is_found_first(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    (tmp_path / "file").write_text("")
    who = factory()
    for bad in (tmp_path / "file" / "out", Path("/proc/1/nowhere")):
        with pytest.raises(MachineError):
            go(tmp_path / "a.png", path=f"{bad}/", who=who)
    assert who.loads == []


def test_too_little_disk_is_found_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path / "a.png")
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1 << 20}))
    with pytest.raises(MachineError, match="free"):
        go(tmp_path / "a.png")


def test_time_is_accounted_for_and_stages_overlap(tmp_path: Path) -> None:
    for number in range(6):
        draw(tmp_path / f"{number}.png", 300, 300, seed=number)
    heard = go(tmp_path, who=factory(pipeline=Repeat(seconds=0.3)))
    times = heard.report.times
    assert set(times) == {"loading", "reading", "computing", "writing", "waiting"}
    assert times["computing"] >= 6 * 0.3
    assert all(spent > 0 for name, spent in times.items() if name != "loading")
    assert times["waiting"] < times["computing"], "pictures are read and written while others are computed"


def test_another_suffix_is_another_result(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw(tmp_path / name)
    go(tmp_path, suffix="_one")
    assert go(tmp_path, suffix="_two").fate() == {"a.png": "done", "b.png": "done"}
    heard = go(tmp_path, suffix="_one")
    assert heard.fate() == {"a.png": "skipped", "b.png": "skipped"}
    assert heard.outcomes[0].target == tmp_path / "a_one.png"
    assert go(tmp_path, suffix="_two", seed=4).fate() == {"a.png": "done", "b.png": "done"}


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "tiff", "avif"])
@pytest.mark.parametrize("path", [None, "out"])
def test_results_under_another_suffix_are_no_inputs_without_a_journal(
    tmp_path: Path, kind: str, path: str | None
) -> None:
    for name in ("a.png", "b.png"):
        draw(tmp_path / "in" / name)
    go(tmp_path / "in", suffix="one", format=kind, journal=False)
    result = next((tmp_path / "in").glob("aone.*"))
    out = path and str(tmp_path / path)
    heard = go(tmp_path / "in", suffix="_two", format=kind, journal=False, path=out)
    assert (heard.fate(), heard.left_out) == ({"a.png": "done", "b.png": "done"}, 2)
    named = go(tmp_path / "in", result, suffix="_three", format=kind, journal=False, path=out)
    assert named.fate() == {"a.png": "done", "b.png": "done", result.name: "done"}


@pytest.mark.parametrize("kind", ["bmp", "ppm"])
def test_results_that_cannot_say_it_are_known_by_the_journal(tmp_path: Path, kind: str) -> None:
    for name in ("a.png", "b.png"):
        draw(tmp_path / name)
    go(tmp_path, suffix="_one", format=kind)
    assert go(tmp_path, suffix="_two", format=kind).fate() == {"a.png": "done", "b.png": "done"}
    draw(tmp_path / f"a_one.{kind}", seed=9)
    assert go(tmp_path, suffix="_three", format=kind).fate()[f"a_one.{kind}"] == "done", "it is the user's now"


def test_a_file_that_kills_its_reader_is_not_taken_for_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "codec", monkeypatch)
    draw(tmp_path / "in" / "a.png")
    hostile(tmp_path / "in" / "a_x2.png", b"KILL")
    heard = go(tmp_path / "in", path=str(tmp_path / "out"))
    assert heard.fate() == {"a.png": "done", "a_x2.png": "crash"}


def test_a_number_once_given_is_kept(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw(tmp_path / "in" / name)
    draw(tmp_path / "out" / "a_x2.png", seed=8)
    for fate in ("done", "skipped"):
        heard = go(tmp_path / "in", path=str(tmp_path / "out"), on_exists="rename")
        assert heard.fate() == {"a.png": fate, "b.png": fate}
        assert [o.target.name for o in heard.outcomes] == ["a_x2-2.png", "b_x2.png"]


def test_results_are_the_inputs_of_a_next_step(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw(tmp_path / "in" / name)
    go(tmp_path / "in", path=str(tmp_path / "one"))
    assert go(tmp_path / "one", path=str(tmp_path / "two")).report.done == 2
    go(tmp_path / "in")
    assert go(tmp_path / "in", path=str(tmp_path / "three")).report.done == 2, "beside their inputs they are none"


def test_a_file_called_dash_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path / "-", format="PNG")
    monkeypatch.chdir(tmp_path)
    assert [o.target for o in go("./-").outcomes] == [tmp_path / "-_x2.png"]
    (tmp_path / "list").write_text("-\n")
    assert [o.source for o in go(listed="list", path="out").outcomes] == [tmp_path / "-"], "also in a list"
    assert [o.source for o in go(".", path="out").outcomes] == [tmp_path / "-"], "also in a folder"


def forget_the_end(journal: Path, after: int = 0) -> None:
    """What a kill before the last word leaves, in the runs after so many lines."""
    lines = journal.read_text().splitlines()
    kept = lines[:after] + [line for line in lines[after:] if '"done"' not in line]
    journal.write_text("\n".join(kept) + "\n")


@pytest.mark.parametrize("kind", ["png", "bmp"])
def test_a_file_put_where_a_killed_run_was_about_to_write_is_not_ours(tmp_path: Path, kind: str) -> None:
    for name in ("a.png", "b.png"):
        draw(tmp_path / "in" / name)
    out = tmp_path / "out"
    go(tmp_path / "in", path=str(out), format=kind)
    forget_the_end(out / ".srcli-journal.jsonl")
    mine = draw(out / f"a_x2.{kind}", 3, 3).read_bytes()
    heard = go(tmp_path / "in", path=str(out), format=kind)
    assert heard.fate() == {"a.png": "exists", "b.png": "skipped"}, "b's result took its place before the kill"
    assert (out / f"a_x2.{kind}").read_bytes() == mine
    assert summarize_journal(out).done == 1


def test_own_pictures_with_a_result_s_name_are_taken_and_results_are_counted(tmp_path: Path) -> None:
    for name in ("a.png", "a_x2.png", "a_restored.png"):
        draw(tmp_path / name, seed=len(name))
    heard = go(tmp_path, suffix="_big")
    assert heard.fate() == {"a.png": "done", "a_x2.png": "done", "a_restored.png": "done"}
    again = go(tmp_path, suffix="_large")
    assert (len(again.outcomes), again.left_out) == (3, 3)
    assert again.notes == ["3 results of earlier runs left out: name a file to include it"]


def test_a_kill_before_a_changed_picture_took_its_place_leaves_the_old_result_ours(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw(tmp_path / "in" / name)
    out = tmp_path / "out"
    go(tmp_path / "in", path=str(out))
    journal = out / ".srcli-journal.jsonl"
    before, result = len(journal.read_text().splitlines()), (out / "a_x2.png").read_bytes()
    draw(tmp_path / "in" / "a.png", seed=5)
    go(tmp_path / "in", path=str(out))
    forget_the_end(journal, before)
    (out / "a_x2.png").write_bytes(result)
    assert go(tmp_path / "in", path=str(out)).fate() == {"a.png": "done", "b.png": "skipped"}
    assert (out / "a_x2.png").read_bytes() != result


@pytest.mark.parametrize("size", [{"width": 100}, {"long_side": 90}])
def test_a_run_in_which_nothing_can_be_named_reports_each(tmp_path: Path, size: dict[str, int]) -> None:
    (tmp_path / "notes.jpg").write_text("no picture")
    heard = go(tmp_path / "notes.jpg", size=TargetSize(**size))
    assert heard.fate() == {"notes.jpg": "not-a-picture"}
    assert heard.report.exit_code == 1


def test_a_journal_of_nonsense_tells_nothing(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw(tmp_path / name)
    odd = [None, 5, 1e999, 10**30, [1], {"a": 1}, "x", "a\0b/c", "\ud800", "a.png"]
    names = ("source", "target", "status", "recipe", "kind", "message", "seconds", "input", "output")
    records = [{"event": "picture", "source": "a.png", name: value} for name in names for value in odd]
    parts = [{"source": "a.png", n: {"sha256": value, "stamp": value}} for n in ("input", "output") for value in odd]
    lines = [*records, *({"event": "picture"} | part for part in parts), {"event": "run"}, [1], None, "x"]
    journal = tmp_path / ".srcli-journal.jsonl"
    journal.write_bytes("\n".join(map(json.dumps, lines)).encode() + b"\n\xff\xfe\0\n{")
    assert go(tmp_path).fate() == {"a.png": "done", "b.png": "done"}
    assert summarize_journal(journal).done == 2


def test_without_a_journal_nothing_is_remembered(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw(tmp_path / "in" / name)
    out = str(tmp_path / "out")
    go(tmp_path / "in", path=out)
    heard = go(tmp_path / "in", path=out, journal=False, on_exists="overwrite")
    assert heard.fate() == {"a.png": "done", "b.png": "done"}


def test_an_output_that_names_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="-o is empty"):
        go(draw(tmp_path / "a.png"), path="")


def test_a_name_too_long_for_the_disk_fails_like_any_other(tmp_path: Path) -> None:
    heard = go(draw(tmp_path / "a.png"), tmp_path / ("x" * 300 + ".png"), path=str(tmp_path / "out"))
    assert sorted(heard.fate().values()) == ["done", "unreadable"]
    with pytest.raises((InputError, MachineError)):
        go(tmp_path / "a.png", path=str(tmp_path / ("y" * 300) / "z.png"))
