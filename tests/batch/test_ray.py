"""Many workers, by a real Ray cluster on this machine."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from srcli.batch.run import run_batch
from srcli.errors import MachineError, WeightsError
from tests.batch.fakes import Repeat, Watcher, draw, factory, go, settings_for
from tests.batch.test_workers import content, misbehave, pictures, when

TOKEN = "0" * 32
SECRET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_TOKEN": TOKEN, "RAY_AUTH_MODE": "token"}
os.environ.update(SECRET)  # Ray reads some of it when it is imported

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]  # Ray's own are its own

FAST = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 3,
    "gcs_rpc_server_reconnect_timeout_s": 2,
}


@pytest.fixture(autouse=True)
def one_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray keeps its token at home, and each test has another home."""
    for name, value in SECRET.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def cluster() -> Iterator[object]:
    """A head that computes nothing, and nodes to lose."""
    os.environ.update(SECRET)
    made = cluster_utils.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": FAST, "include_dashboard": False}
    )
    yield made
    made.shutdown()


def test_what_goes_wrong_with_one_picture_is_its_own_affair(tmp_path: Path, cluster) -> None:
    node = cluster.add_node(num_cpus=2, include_dashboard=False)
    cluster.wait_for_nodes()
    folder = pictures(tmp_path / "in", 6)
    for width in (13, 14, 15):
        draw(folder / f"{width}.png", width)
    who = factory(pipeline=Repeat(before=misbehave))
    heard = go(folder, path=str(tmp_path / "out"), ray=cluster.address, workers=2, timeout=5, who=who)
    cluster.remove_node(node)
    fates = heard.fate()
    assert {fates.pop("13.png"), fates.pop("14.png"), fates.pop("15.png")} == {"unlucky", "killed", "timeout"}
    assert set(fates.values()) == {"done"}
    assert len(fates) == 6


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
    killer = threading.Thread(target=when, args=(lambda: len(content(out)) >= 4, lose))
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


def test_another_token_is_refused(tmp_path: Path, cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(tmp_path, 1)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "1" * 32)
    with pytest.raises(MachineError, match="Ray"):
        go(tmp_path, ray=cluster.address)


def test_a_cluster_that_goes_ends_the_run_with_a_summary(tmp_path: Path, cluster) -> None:
    """The last test: it kills the head's raylet, which the first run is connected to, and then the head itself."""
    folder = pictures(tmp_path / "in", 12)
    cluster.add_node(num_cpus=1, include_dashboard=False)
    cluster.wait_for_nodes()
    for part in (cluster.head_node.kill_raylet, cluster.head_node.kill_gcs_server):
        out, watcher = tmp_path / part.__name__, Watcher()
        killer = threading.Thread(target=when, args=(partial(content, out), part))
        killer.start()
        settings = settings_for(
            folder, path=str(out), ray=cluster.address, who=factory(pipeline=Repeat(seconds=1.0)), workers=2
        )
        with pytest.raises(MachineError, match="the Ray cluster is lost") as caught:
            run_batch(settings, watcher)
        killer.join()
        assert caught.value.exit_code == 5
        assert 0 < watcher.report.done == len(content(out)) < 12
        assert (watcher.report.failed, watcher.report.left) == (0, 12 - watcher.report.done)
