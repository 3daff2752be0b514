"""Folders from somebody else: what lies in them is never followed, waited for or believed too much."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pty
import signal
from pathlib import Path

import pytest

from srcli import files
from srcli.batch.journal.file import JOURNAL_NAME, FileStamp, JournalFile
from srcli.batch.journal.previous_runs import summarize_journal
from srcli.batch.planning.preflight import check_folders, remove_leftovers
from srcli.batch.reading.reader import ReaderPool
from srcli.batch.report import Report
from srcli.batch.settings import InputOptions
from srcli.errors import InputError, MachineError, PictureError
from tests.batch.fakes import draw, go
from tests.batch.rig import start


def album(folder: Path) -> Path:
    for name in ("a.png", "b.png"):
        draw(folder / name, seed=ord(name[0]))
    return folder


def test_a_journal_is_not_written_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"")
    (album(tmp_path / "in") / JOURNAL_NAME).symlink_to(victim)
    with pytest.raises((InputError, MachineError), match="symbolic link"):
        go(tmp_path / "in")
    with pytest.raises(MachineError, match="symbolic link"):
        JournalFile(tmp_path / "in")
    assert victim.read_bytes() == b""


def test_a_journal_with_a_second_name_is_not_written(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"")
    (album(tmp_path / "in") / JOURNAL_NAME).hardlink_to(victim)
    with pytest.raises(MachineError, match="second name"):
        go(tmp_path / "in")
    assert victim.read_bytes() == b""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_journal_of_another_user_is_not_written(tmp_path: Path) -> None:
    journal = album(tmp_path / "in") / JOURNAL_NAME
    journal.touch()
    os.chown(journal, 12345, -1)
    with pytest.raises(MachineError, match="another user"):
        go(tmp_path / "in")


def test_leftovers_are_plain_files(tmp_path: Path) -> None:
    """A pipe would be waited for, a folder cannot be unlinked, and a link leads elsewhere."""
    os.mkfifo(tmp_path / ".srcli-00000000.part")
    (tmp_path / ".srcli-probe-x").mkdir()
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / ".srcli-11111111.part").symlink_to(tmp_path / "mine")
    (tmp_path / ".srcli-22222222.part").write_bytes(b"half")
    remove_leftovers(tmp_path)
    left = [".srcli-00000000.part", ".srcli-11111111.part", ".srcli-probe-x", "mine"]
    assert sorted(path.name for path in tmp_path.iterdir()) == left


def test_probes_are_plain_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what lies under a probe's name is followed or waited for, nor what is planted under a new one's."""
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / ".srcli-probe-link").symlink_to(tmp_path / "mine")
    os.mkfifo(tmp_path / ".srcli-probe-pipe")
    (tmp_path / ".srcli-probe-old").write_bytes(b"")
    monkeypatch.setattr("tempfile._get_candidate_names", lambda: iter(["link", "pipe", "new"]))
    check_folders([tmp_path])
    left = [".srcli-probe-link", ".srcli-probe-pipe", "mine"]
    assert sorted(path.name for path in tmp_path.iterdir()) == left
    assert (tmp_path / "mine").read_bytes() == b"mine"


def record(folder: Path, source: str, target: str) -> str:
    """What a journal would say if this had been done."""
    put, given = folder / target, folder / source
    return json.dumps(
        {
            "event": "picture",
            "source": source,
            "target": target,
            "status": "done",
            "recipe": "r",
            "input": {"sha256": hashlib.sha256(given.read_bytes()).hexdigest(), "stamp": None},
            "output": {
                "sha256": hashlib.sha256(put.read_bytes()).hexdigest(),
                "stamp": FileStamp.of(put).fields(),
            },
        }
    )


def test_a_journal_does_not_let_a_file_be_written_over(tmp_path: Path) -> None:
    folder = album(tmp_path / "in")
    before = draw(folder / "a_x2.png", 5, 5).read_bytes()
    (folder / JOURNAL_NAME).write_text(record(folder, "a.png", "a_x2.png") + "\n")
    heard = go(folder / "a.png", folder / "b.png")
    assert heard.fate() == {"a.png": "exists", "b.png": "done"}
    assert (folder / "a_x2.png").read_bytes() == before


def test_a_journal_is_not_believed_about_other_folders(tmp_path: Path) -> None:
    folder, out = album(tmp_path / "in"), tmp_path / "out"
    go(folder, path=str(out))
    (out / JOURNAL_NAME).unlink()
    target = out / "a_x2.png"
    (folder / JOURNAL_NAME).write_text(record(folder, "a.png", str(target)) + "\n")
    heard = go(folder, path=str(out), seed=5)
    assert heard.fate() == {"a.png": "exists", "b.png": "exists"}


def test_nested_and_endless_lines_of_a_journal_are_passed_over(tmp_path: Path) -> None:
    journal = album(tmp_path) / JOURNAL_NAME
    journal.write_bytes(b"[" * 200_000 + b"\n" + b"x" * (3 << 20) + b"\n" + b'{"event": "run"}\n')
    assert summarize_journal(tmp_path).runs == 1
    assert go(tmp_path).fate() == {"a.png": "done", "b.png": "done"}


def test_loops_of_links_end(tmp_path: Path) -> None:
    folder = album(tmp_path / "in")
    (folder / "loop").symlink_to("loop")
    lines = [{"event": "picture", "source": "loop/a.png", "target": "loop/x.png", "status": "done"}, {"event": "run"}]
    (folder / JOURNAL_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
    heard = go(folder, folder / "loop" / "c.png", path=str(tmp_path / "out"))
    assert heard.fate() | {"loop": "unreadable"} == {
        "a.png": "done",
        "b.png": "done",
        "c.png": "unreadable",
        "loop": "unreadable",
    }
    with pytest.raises(MachineError):
        go(folder / "a.png", path=f"{folder}/loop/deep/")


def test_a_report_on_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        summarize_journal(tmp_path / "pipe")


def test_a_silent_stdin_is_given_up_after_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    silent = io.TextIOWrapper(io.FileIO(reading))
    monkeypatch.setattr("sys.stdin", silent)
    readers = ReaderPool(InputOptions(inputs=("-",)), timeout=0.3)
    with pytest.raises(PictureError, match="standard input did not end within") as caught:
        readers.read(Path("-"))
    assert caught.value.kind == "timeout"
    readers.close()
    os.close(writing)  # which ends the thread that waits
    silent.close()


def test_a_list_with_nul_needs_its_option(tmp_path: Path) -> None:
    picture = draw(tmp_path / "a.png")
    (tmp_path / "list").write_bytes(os.fsencode(picture) + b"\0")
    with pytest.raises(InputError, match="give -0"):
        go(listed=str(tmp_path / "list"), path=str(tmp_path / "out"))
    assert go(listed=str(tmp_path / "list"), null=True, path=str(tmp_path / "out")).fate() == {"a.png": "done"}


def test_a_signal_that_comes_when_all_is_done_changes_no_exit_code() -> None:
    told = {"total": 2, "done": 2, "skipped": 0, "seconds": 1.0, "signal": int(signal.SIGTERM)}
    assert Report(**told, failed=0).exit_code == 0
    assert Report(**told | {"done": 1}, failed=0).exit_code == 143
    assert Report(**told | {"done": 1}, failed=1).exit_code == 3


def test_a_new_folder_s_name_is_made_to_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(files, "sync_folder", synced.append)
    files.create_folder(tmp_path / "a" / "b")
    assert set(synced) == {tmp_path, tmp_path / "a"}
    files.create_folder(tmp_path / "a" / "b")
    assert len(synced) == 2


ESCAPE = "\x1b]0;owned\x07"


def test_names_reach_a_terminal_harmless_and_a_pipe_exactly(tmp_path: Path) -> None:
    picture = draw(tmp_path / f"{ESCAPE}a.png")
    result = os.fsencode(tmp_path / f"{ESCAPE}a_x4.png")
    run = start(picture, "--print0")
    assert run.communicate(timeout=120)[0] == result + b"\0"
    above, below = pty.openpty()
    run = start(picture, stdout=below)
    run.communicate(timeout=120)
    shown = os.read(above, 1 << 16)
    os.close(below)
    os.close(above)
    assert b"owned" in shown
    assert b"\x1b]0;owned" not in shown
