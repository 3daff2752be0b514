"""Many workers as spawned processes of this machine."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from srcli.batch.settings import PipelineFactory
from srcli.errors import MachineError, PictureError, WeightsError
from srcli.imaging.picture import Picture
from srcli.settings import DeviceChoice, ModelChoice
from tests.batch.fakes import FakeFactory, Repeat, draw, factory, go


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are no more workers than cores, and tests run on machines with one."""
    monkeypatch.setattr("srcli.batch.workers.processes.count_usable_cores", lambda: 2)


def content(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("*.png")}


def pictures(folder: Path, count: int) -> Path:
    for number in range(count):
        draw(folder / f"{number:02}.png", seed=number)
    return folder


def misbehave(picture: Picture) -> None:
    """What goes wrong with pictures of this width."""
    if picture.width == 13:
        raise PictureError("bad luck", "unlucky")
    if picture.width == 14:
        os.kill(os.getpid(), signal.SIGKILL)
    if picture.width == 15:
        time.sleep(60)


def die_once(picture: Picture) -> None:
    """The worker that gets this picture first is killed."""
    mark = Path(picture.name + ".hit")
    if picture.width == 13 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Talker(FakeFactory):
    """Its pipeline has something to say of every picture."""

    def load(self, tell, preview=None) -> Repeat:
        tell("loaded")
        return Repeat(0.1, before=lambda picture: tell(f"{picture.name} is fine"))


@dataclass(frozen=True, slots=True)
class Dying(FakeFactory):
    """Its process ends while it loads."""

    def load(self, tell, preview=None) -> Repeat:
        os._exit(1)


def test_two_workers_make_the_same_pictures_and_say_the_same(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", 6)
    who = Talker(ModelChoice(engine="builtin"), DeviceChoice(device="cpu"))
    alone = go(folder, path=str(tmp_path / "one"), who=who)
    heard = go(folder, path=str(tmp_path / "many"), workers=1000, who=who)
    assert heard.report.done == 6
    assert content(tmp_path / "many") == content(tmp_path / "one")
    assert len(content(tmp_path / "one")) == 6
    assert heard.notes[0] == "2 workers instead of 1000: each needs a core of its own"
    assert set(heard.notes[1:]) == set(alone.notes)
    assert set(heard.report.times) == set(alone.report.times)
    assert all(spent > 0 for spent in heard.report.times.values())


def test_the_built_in_engine_makes_the_same_pictures_too(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for number in range(3):
        draw(folder / f"{number}.png", 40, 30, seed=number)
    real = PipelineFactory(ModelChoice(engine="builtin"), DeviceChoice(device="cpu", dtype="float32", threads=1))
    go(folder, path=str(tmp_path / "one"), who=real)
    go(folder, path=str(tmp_path / "two"), who=real, workers=2)
    assert content(tmp_path / "two") == content(tmp_path / "one")
    assert len(content(tmp_path / "one")) == 3


def test_what_goes_wrong_with_one_picture_is_its_own_affair(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", 4)
    for width in (13, 14, 15):
        draw(folder / f"{width}.png", width)
    who = factory(pipeline=Repeat(before=misbehave))
    heard = go(folder, path=str(tmp_path / "out"), workers=2, timeout=20, who=who)
    fates = heard.fate()
    assert {fates.pop("13.png"), fates.pop("14.png"), fates.pop("15.png")} == {"unlucky", "killed", "timeout"}
    assert set(fates.values()) == {"done"}
    assert len(fates) == 4


def test_a_worker_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", 3)
    draw(folder / "13.png", 13)
    heard = go(folder, path=str(tmp_path / "out"), workers=2, who=factory(pipeline=Repeat(before=die_once)))
    assert (heard.report.done, heard.report.exit_code) == (4, 0)
    assert heard.notes == ["a worker died: other workers take over its pictures"]


def test_a_signal_means_what_it_means_without_workers(tmp_path: Path) -> None:
    folder, out = pictures(tmp_path / "in", 8), tmp_path / "out"
    killer = threading.Thread(target=when, args=(lambda: content(out), lambda: os.kill(os.getpid(), signal.SIGTERM)))
    killer.start()
    heard = go(folder, path=str(out), workers=2, who=factory(pipeline=Repeat(seconds=1)))
    killer.join()
    assert heard.report.exit_code == 128 + signal.SIGTERM
    assert 0 < heard.report.done == len(content(out)) < 8
    assert go(folder, path=str(out)).report.exit_code == 0
    assert len(content(out)) == 8


def when(ready: Callable[[], object], then: Callable[[], None]) -> None:
    while not ready():
        time.sleep(0.05)
    then()


def test_missing_weights_end_the_run(tmp_path: Path) -> None:
    pictures(tmp_path, 3)
    with pytest.raises(WeightsError, match="pull"):
        go(tmp_path, workers=2, who=factory(error=WeightsError("no weights: pull them")))


def test_workers_that_end_at_once_end_the_run(tmp_path: Path) -> None:
    pictures(tmp_path, 3)
    with pytest.raises(MachineError, match="die while they load"):
        go(tmp_path, workers=2, who=Dying(ModelChoice(engine="builtin"), DeviceChoice(device="cpu")))


def test_no_run_of_workers_listens_on_any_socket(tmp_path: Path) -> None:
    """Nobody else on this machine or its network has anything to say to them."""
    seen: set[str] = set()
    folder, out = pictures(tmp_path / "in", 4), tmp_path / "out"
    before = listening()
    watcher = threading.Thread(target=when, args=(lambda: content(out), lambda: seen.update(listening() - before)))
    watcher.start()
    go(folder, path=str(out), workers=2, ray="local", who=factory(pipeline=Repeat(seconds=0.5)))
    watcher.join()
    assert seen == set()


def listening() -> set[str]:
    """Listening TCP sockets of this process and those below it, as the kernel knows them."""
    found = set()
    for table in ("tcp", "tcp6"):
        rows = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        found |= {f"socket:[{row.split()[9]}]" for row in rows if row.split()[3] == "0A"}
    family, held = {os.getpid()}, set()
    parents = {int(p.name): parent(p) for p in Path("/proc").iterdir() if p.name.isdigit()}
    for _ in range(5):
        family |= {pid for pid, above in parents.items() if above in family}
    for pid in family:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                held.add(os.readlink(link))
            except OSError:
                continue
    return found & held


def parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
