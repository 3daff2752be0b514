"""Many workers, by a real Ray on this machine."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from srcli.batch.settings import PipelineFactory
from srcli.errors import MachineError, PictureError, WeightsError
from srcli.imaging.picture import Picture
from srcli.settings import DeviceChoice, ModelChoice
from tests.batch.fakes import FakeFactory, Repeat, draw, factory, go

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]  # Ray's own are its own

TOKEN = "0" * 32
FAST = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}


@pytest.fixture(autouse=True)
def one_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray keeps its token at home, and each test has another home."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)


@pytest.fixture(scope="module")
def cluster() -> Iterator[object]:
    """A head that computes nothing, and nodes to lose."""
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_TOKEN=TOKEN)
    made = cluster_utils.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": FAST, "include_dashboard": False}
    )
    yield made
    made.shutdown()


def content(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("*.png")}


def pictures(folder: Path, count: int) -> Path:
    for number in range(count):
        draw(folder / f"{number:02}.png", seed=number)
    return folder


def strange(picture: Picture) -> None:
    """What goes wrong with pictures of this width."""
    if picture.width == 13:
        raise PictureError("bad luck", "unlucky")
    if picture.width == 14:
        os.kill(os.getpid(), signal.SIGKILL)
    if picture.width == 15:
        time.sleep(60)


def terminated_once(picture: Picture) -> None:
    """The worker that gets this picture first is told to end."""
    mark = Path(picture.name + ".hit")
    if picture.width == 13 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)


@dataclass(frozen=True, slots=True)
class Talker(FakeFactory):
    """Its pipeline has something to say of every picture."""

    def load(self, tell, preview=None) -> Repeat:
        tell("loaded")
        return Repeat(0.1, before=lambda picture: tell(f"{picture.name} is fine"))


def test_any_number_of_workers_makes_the_same_pictures_and_says_the_same(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", 10)
    who = Talker(ModelChoice(engine="builtin"), DeviceChoice(device="cpu"))
    alone = go(folder, path=str(tmp_path / "one"), who=who)
    heard = go(folder, path=str(tmp_path / "many"), workers=1000, who=who)
    assert heard.report.done == 10
    assert content(tmp_path / "many") == content(tmp_path / "one")
    assert len(content(tmp_path / "one")) == 10
    assert "workers instead of 1000" in heard.notes[0]
    assert set(heard.notes[1:]) == set(alone.notes)
    assert len(alone.notes) == 11
    assert set(heard.report.times) == set(alone.report.times)
    assert heard.report.times["computing"] >= 10 * 0.1
    assert all(spent > 0 for spent in heard.report.times.values())


def test_the_built_in_engine_makes_the_same_pictures_too(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for number in range(4):
        draw(folder / f"{number}.png", 40, 30, seed=number)
    real = PipelineFactory(ModelChoice(engine="builtin"), DeviceChoice(device="cpu", dtype="float32"))
    go(folder, path=str(tmp_path / "one"), who=real)
    go(folder, path=str(tmp_path / "two"), who=real, workers=2)
    assert content(tmp_path / "two") == content(tmp_path / "one")
    assert len(content(tmp_path / "one")) == 4


def test_what_goes_wrong_with_one_picture_is_its_own_affair(tmp_path: Path, cluster) -> None:
    node = cluster.add_node(num_cpus=2, include_dashboard=False)
    cluster.wait_for_nodes()
    folder = pictures(tmp_path / "in", 6)
    for width in (13, 14, 15):
        draw(folder / f"{width}.png", width)
    who = factory(pipeline=Repeat(before=strange))
    heard = go(folder, path=str(tmp_path / "out"), ray=cluster.address, workers=2, timeout=5, who=who)
    cluster.remove_node(node)
    fates = heard.fate()
    assert {fates.pop("13.png"), fates.pop("14.png"), fates.pop("15.png")} == {"unlucky", "killed", "timeout"}
    assert set(fates.values()) == {"done"}
    assert len(fates) == 6


def test_a_worker_that_is_terminated_loses_nothing(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", 4)
    draw(folder / "13.png", 13)
    heard = go(folder, path=str(tmp_path / "out"), workers=2, who=factory(pipeline=Repeat(before=terminated_once)))
    assert (heard.report.done, heard.report.exit_code) == (5, 0)
    assert heard.notes == ["a worker was lost: what it had is done again by others"]


def test_a_signal_means_with_ray_what_it_means_without(tmp_path: Path) -> None:
    """Ray puts handlers of its own in place, which abort."""
    folder, out = pictures(tmp_path / "in", 12), tmp_path / "out"
    killer = threading.Thread(target=_when, args=(lambda: content(out), lambda: os.kill(os.getpid(), signal.SIGTERM)))
    killer.start()
    heard = go(folder, path=str(out), workers=2, who=factory(pipeline=Repeat(seconds=0.5)))
    killer.join()
    assert heard.report.exit_code == 128 + signal.SIGTERM
    assert 0 < heard.report.done == len(content(out)) < 12
    assert go(folder, path=str(out)).report.exit_code == 0
    assert len(content(out)) == 12


def _when(ready: Callable[[], object], then: Callable[[], None]) -> None:
    while not ready():
        time.sleep(0.05)
    then()


def test_missing_weights_end_the_run(tmp_path: Path, cluster) -> None:
    node = cluster.add_node(num_cpus=2, include_dashboard=False)
    cluster.wait_for_nodes()
    pictures(tmp_path, 3)
    with pytest.raises(WeightsError, match="pull"):
        go(tmp_path, ray=cluster.address, workers=2, who=factory(error=WeightsError("no weights: pull them")))
    cluster.remove_node(node)


def test_a_cluster_that_is_not_there_is_said(tmp_path: Path) -> None:
    pictures(tmp_path, 1)
    with pytest.raises(MachineError, match="no Ray cluster at"):
        go(tmp_path, ray="127.0.0.1:1")


def test_a_lost_node_loses_nothing(tmp_path: Path, cluster) -> None:
    folder = pictures(tmp_path / "in", 24)
    nodes = [cluster.add_node(num_cpus=1, include_dashboard=False) for _ in range(2)]
    cluster.wait_for_nodes()
    out = tmp_path / "out"
    lose = partial(cluster.remove_node, nodes[0], allow_graceful=False)
    killer = threading.Thread(target=_when, args=(lambda: len(content(out)) >= 4, lose))
    killer.start()
    heard = go(folder, path=str(out), ray=cluster.address, workers=2, who=factory(pipeline=Repeat(seconds=0.4)))
    killer.join()
    cluster.remove_node(nodes[1])
    assert heard.report.done == 24
    assert sorted(o.source.name for o in heard.outcomes) == sorted(p.name for p in folder.iterdir())
    go(folder, path=str(tmp_path / "calm"))
    assert content(out) == content(tmp_path / "calm")
    told = (out / ".srcli-journal.jsonl").read_text()
    assert told.count('"status": "done"') == 24
