"""Watched folders: what comes is done once it is complete, and the end is a signal."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from srcli.batch.journal.previous_runs import PreviousRuns
from srcli.batch.report import Report
from srcli.batch.run import run_batch
from srcli.batch.settings import BatchSettings
from srcli.batch.watch import FolderWatch, RunRound, watch_folders
from srcli.errors import InputError
from tests.batch.fakes import Repeat, Watcher, draw, factory, settings_for

EVERY = 0.1


def watch_until(settings: BatchSettings, run_round: RunRound, over: Callable[[], bool]) -> int:
    """Watch, and interrupt when it is over. Returns the exit code."""

    def act() -> None:
        until = time.monotonic() + 100
        while not over() and not ended.is_set() and time.monotonic() < until:
            time.sleep(0.02)
        if not ended.is_set():
            os.kill(os.getpid(), signal.SIGINT)

    ended = threading.Event()
    thread = threading.Thread(target=act)
    thread.start()
    try:
        return watch_folders(settings, EVERY, run_round, print)
    finally:
        ended.set()
        thread.join()


@dataclass
class Rounds:
    """Real batches, and what was heard of each; `between` are done after the first, second, ... one."""

    between: list[Callable[[], object]] = field(default_factory=list)
    heard: list[Watcher] = field(default_factory=list)
    asked: int = 0

    def __call__(self, settings: BatchSettings, only: Callable[[Path], bool], previous: PreviousRuns) -> Report:
        watcher = Watcher()
        report = run_batch(settings, watcher, only, previous)
        if watcher.outcomes:
            self.heard.append(watcher)
            if len(self.heard) <= len(self.between):
                self.between[len(self.heard) - 1]()
        self.asked += 1
        return report

    def fates(self) -> list[dict[str, str]]:
        return [watcher.fate() for watcher in self.heard]


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def test_pictures_are_done_as_they_come_and_as_they_change_with_one_loaded_pipeline(inbox: Path) -> None:
    """A broken one fails alone, and so does one whose result has the name of another's."""
    out, who, whole = inbox.parent / "out", factory(), draw(inbox.parent / "c.png").read_bytes()
    between = [
        lambda: draw(inbox / "a.png", seed=1),
        lambda: (inbox / "b.png").write_bytes(whole[:40]),
        lambda: [draw(inbox / name, seed=len(name)) for name in ("d.bmp", "d.jpeg")],
    ]
    rounds = Rounds(between)
    draw(inbox / "a.png")
    settings = settings_for(inbox, path=f"{out}/", format="png", who=who)
    code = watch_until(settings, rounds, lambda: len(rounds.heard) == 5)
    assert rounds.fates() == [
        {"a.png": "done"},
        {"a.png": "done"},
        {"b.png": "damaged"},
        {"d.bmp": "done"},
        {"d.jpeg": "exists"},
    ]
    assert code == 3 and len(who.loads) == 1
    (inbox / "d.jpeg").unlink()
    again = Rounds()
    assert watch_until(settings, again, lambda: bool(again.heard)) == 3
    assert [fate["a.png"] for fate in again.fates()] == ["skipped"] and len(who.loads) == 1


def test_results_and_maps_in_the_watched_folder_are_no_inputs(inbox: Path) -> None:
    draw(inbox / "a.png")
    rounds = Rounds()
    assert watch_until(settings_for(inbox, map=f"{inbox}/"), rounds, lambda: rounds.asked == 2) == 0
    assert rounds.fates() == [{"a.png": "done"}]


def test_a_signal_in_a_picture_ends_it_and_leaves_the_rest(inbox: Path) -> None:
    begun = threading.Event()
    for name in ("a.png", "b.png"):
        draw(inbox / name)
    who, rounds = factory(pipeline=Repeat(90.0, before=lambda picture: begun.set())), Rounds()
    assert watch_until(settings_for(inbox, path=f"{inbox.parent}/out/", who=who), rounds, begun.is_set) == 130


def report_of(done: int = 0, failed: int = 0, **more: object) -> Report:
    return Report(done + failed, done, 0, failed, frozenset({1} if failed else ()), **more)


@pytest.mark.parametrize(
    ("reports", "code"),
    [
        ([report_of(2), report_of(1)], 0),
        ([report_of(2), report_of(0, 1)], 3),
        ([report_of(0, 1)], 1),
        ([report_of(1, signal=signal.SIGINT)], 0),
    ],
)
def test_the_exit_code_is_that_of_one_batch_over_all(inbox: Path, reports: list[Report], code: int) -> None:
    left = list(reports)

    def run_round(settings: BatchSettings, only: Callable[[Path], bool], previous: PreviousRuns) -> Report:
        draw(inbox / f"{len(left)}.png", seed=len(left))
        return left.pop(0)

    draw(inbox / "a.png")
    assert watch_until(settings_for(inbox), run_round, lambda: not left) == code


def test_the_first_failure_ends_it_where_that_is_asked_for(inbox: Path) -> None:
    draw(inbox / "a.png")
    assert watch_folders(settings_for(inbox, fail_fast=True), EVERY, lambda *of: report_of(0, 1), print) == 1


def test_a_first_failure_after_pictures_that_were_done_is_some_that_failed(inbox: Path) -> None:
    left = [report_of(2), replace(report_of(0, 1), total=2)]

    def run_round(settings: BatchSettings, only: Callable[[Path], bool], previous: PreviousRuns) -> Report:
        draw(inbox / f"{len(left)}.png", seed=len(left))
        return left.pop(0)

    draw(inbox / "a.png")
    assert watch_folders(settings_for(inbox, fail_fast=True), EVERY, run_round, print) == 3


def test_a_file_is_complete_when_two_looks_find_it_the_same(inbox: Path) -> None:
    watch = FolderWatch(settings_for(inbox))
    whole = draw(inbox / "source.png").read_bytes()
    (inbox / "source.png").unlink()
    copied = inbox / "a.png"
    for share in (0, 20, len(whole)):
        copied.write_bytes(whole[:share])
        assert watch.find_complete() == {}
    assert list(complete := watch.find_complete()) == [copied]
    watch.mark_done(complete)
    assert watch.find_complete() == {}


def test_empty_hidden_and_deleted_files_are_waited_for(inbox: Path) -> None:
    watch = FolderWatch(settings_for(inbox))
    (inbox / "a.png").touch()
    draw(inbox / ".b.png")
    gone = draw(inbox / "c.png")
    assert watch.find_complete() == {}
    gone.unlink()
    assert watch.find_complete() == watch.find_complete() == {}


def test_a_folder_that_is_away_for_a_while_is_waited_for(inbox: Path) -> None:
    watch = FolderWatch(settings_for(inbox))
    draw(inbox / "a.png")
    watch.find_complete()
    inbox.rename(inbox.with_name("away"))
    assert watch.find_complete() == {}
    inbox.with_name("away").rename(inbox)
    assert watch.find_complete() == {}
    assert len(watch.find_complete()) == 1


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"path": "-"}, "watch makes many"),
        ({"workers": 2}, "leave out --workers"),
        ({"journal": False}, "leave out --no-journal"),
        ({"listed": "names"}, "name them"),
    ],
)
def test_what_cannot_be_watched_is_refused(inbox: Path, more: dict[str, object], why: str) -> None:
    with pytest.raises(InputError, match=why):
        watch_folders(settings_for(inbox, **more), EVERY, run_batch, print)
    with pytest.raises(InputError, match="is not a folder"):
        watch_folders(settings_for(draw(inbox / "a.png")), EVERY, run_batch, print)
