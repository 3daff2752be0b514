"""Pulling from a Hub that works: what comes, what is remembered, and what needs no network afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from srcli.errors import MachineError, WeightsError
from srcli.weights import care, pull
from srcli.weights.cache import PART
from srcli.weights.hub import Hub as Client
from srcli.weights.hub import OnBytes
from srcli.weights.listing import Remote
from srcli.weights.store import Store
from tests.hub.conftest import BASE, FILES, TENSORS, MakeStore
from tests.hub.server import Fault, Hub, sha256

VAE = "vae/diffusion_pytorch_model.safetensors"


def test_a_locked_entry_comes_whole_and_lies_in_the_hubs_own_layout(make_store: MakeStore, hub: Hub) -> None:
    found = make_store().resolve("base", kind="base")
    assert found.part("vae").joinpath("diffusion_pytorch_model.safetensors").read_bytes() == TENSORS
    assert sorted(found.files) == ["tokenizer/vocab.json", "vae/config.json", VAE]
    snapshots = Path(os.environ["HF_HOME"]) / "hub" / "models--owner--base" / "snapshots"
    assert found.folder == snapshots / (hub.head(BASE) or "")


def test_huggingface_hub_itself_finds_what_was_pulled(make_store: MakeStore, hub: Hub) -> None:
    make_store().resolve("base")
    code = (
        "from huggingface_hub import hf_hub_download, scan_cache_dir;"
        f"print(hf_hub_download('{BASE}', '{VAE}', revision='{hub.head(BASE)}', local_files_only=True));"
        "print(len(scan_cache_dir().warnings))"
    )
    path, warnings = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert Path(path).read_bytes() == TENSORS
    assert warnings == "0"


def test_what_huggingface_hub_pulled_is_taken_over(make_store: MakeStore, hub: Hub) -> None:
    wanted = ["tokenizer/vocab.json", "vae/config.json", VAE]
    code = (
        "from huggingface_hub import hf_hub_download\n"
        f"for path in {wanted}: hf_hub_download('{BASE}', path, revision='{hub.head(BASE)}')"
    )
    env = networked() | {"HF_ENDPOINT": hub.url}
    subprocess.check_call([sys.executable, "-c", code], env=env, stderr=subprocess.DEVNULL)
    hub.asked.clear()
    assert make_store().resolve("base").part("vae").is_dir()
    assert hub.asked == []


def test_only_the_parts_asked_for_are_fetched(make_store: MakeStore) -> None:
    found = make_store().resolve("base", parts=("tokenizer",))
    assert list(found.files) == ["tokenizer/vocab.json"]
    with pytest.raises(WeightsError, match="has no vae"):
        found.part("vae")


def test_once_pulled_nothing_touches_the_network(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    make_store().resolve("adapter")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    found = make_store().resolve("adapter")
    assert found.part("unet").is_dir()


def test_a_first_pull_learns_hashes_and_later_ones_enforce_them(make_store: MakeStore, hub: Hub) -> None:
    said: list[str] = []
    make_store(tell=said.append).resolve("adapter")
    assert any("2 hashes learned" in line for line in said)
    learned = make_store().lock()["adapter"]
    assert learned.pinned and learned.learned
    file = hub.folder / "owner/adapter/run/unet/config.json"
    file.write_bytes(b'{"_class_name": "Evil"}')
    shutil.rmtree(os.environ["HF_HOME"])
    old = make_store().resolve("adapter")  # the old commit is still served, and is what the lock asks for
    assert old.part("unet").joinpath("config.json").read_bytes() == b"{}"


def test_the_licence_is_shown_at_the_first_pull_only(make_store: MakeStore) -> None:
    said: list[str] = []
    make_store(tell=said.append).resolve("base")
    make_store(tell=said.append).resolve("base")
    assert [line for line in said if "licence: mit" in line] == said[:1]


def test_a_hub_id_is_pinned_where_it_was_first_met(make_store: MakeStore, hub: Hub) -> None:
    first = make_store().resolve("owner/base", kind="base")
    assert {path for path in first.files if path.endswith(".safetensors")} == {VAE}
    (hub.folder / BASE / "vae/config.json").write_bytes(b"changed")
    assert make_store().resolve("owner/base", kind="base").folder == first.folder
    hub.asked.clear()
    assert make_store(offline=True).resolve("owner/base").folder == first.folder
    assert hub.asked == []


def test_a_revision_can_be_named(make_store: MakeStore, hub: Hub) -> None:
    old = hub.head(BASE)
    (hub.folder / BASE / "vae/config.json").write_bytes(b"changed")
    found = make_store().resolve(f"owner/base@{old}", kind="base")
    assert found.part("vae").joinpath("config.json").read_bytes() == FILES[f"{BASE}/vae/config.json"]


@pytest.mark.parametrize("break_at", [1, 7000, 19999])
def test_a_broken_download_goes_on_in_a_later_run(make_store: MakeStore, hub: Hub, break_at: int) -> None:
    hub.faults += [Fault("cut", "*.safetensors", break_at, times=1), Fault("status", "/cdn/*", 500, skip=1)]
    with pytest.raises(WeightsError, match="try again later"):
        make_store().resolve("base")
    parts = list(Path(os.environ["HF_HOME"]).rglob(f"{sha256(TENSORS)}{PART}"))  # small files may be stopped too
    assert [part.stat().st_size for part in parts] == [break_at]
    hub.faults.clear()
    hub.asked.clear()
    make_store().resolve("base")
    ranges = [asked.headers.get("Range") for asked in hub.asked if asked.origin == "cdn"]
    assert ranges == [f"bytes={break_at}-"]
    assert not list(Path(os.environ["HF_HOME"]).rglob(f"*{PART}*"))


@pytest.mark.parametrize("plant", [Path.symlink_to, lambda part, other: os.mkfifo(part)])
def test_a_download_does_not_grow_behind_a_link(make_store: MakeStore, hub: Hub, tmp_path: Path, plant) -> None:
    """Nor is a pipe in its place waited for."""
    (tmp_path / "precious").write_bytes(b"precious")
    hub.faults += [Fault("cut", "*.safetensors", 5, times=1), Fault("status", "/cdn/*", 500, skip=1)]
    with pytest.raises(WeightsError):
        make_store().resolve("base")
    (part,) = Path(os.environ["HF_HOME"]).rglob(f"{sha256(TENSORS)}{PART}")
    part.unlink()
    plant(part, tmp_path / "precious")
    hub.faults.clear()
    assert make_store().resolve("base").files[VAE].read_bytes() == TENSORS
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_a_server_that_ignores_ranges_starts_the_file_over(make_store: MakeStore, hub: Hub) -> None:
    hub.faults += [Fault("cut", "*.safetensors", 7000, times=1), Fault("whole", "*")]
    assert make_store().resolve("base").files[VAE].read_bytes() == TENSORS


def test_the_token_goes_to_the_hub_and_not_to_the_cdn(
    make_store: MakeStore, hub: Hub, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    hub.token = "hf_verysecret"
    hub.private.add(BASE)
    make_store().resolve("base")
    with_token = {asked.origin for asked in hub.asked if "verysecret" in str(asked.headers)}
    assert with_token == {"hub"}
    hub.token = "hf_another"
    with pytest.raises(WeightsError) as error:
        make_store().resolve("owner/base@main")
    assert "verysecret" not in str(error.value) + "".join(capfd.readouterr())


def test_a_download_that_another_just_began_is_not_taken_for_a_bad_one(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = Client.fetch

    def overtaken(self: Client, repo: str, revision: str, remote: Remote, part: Path, on_bytes: OnBytes) -> None:
        fetch(self, repo, revision, remote, part, on_bytes)
        part.replace(part.with_name(remote.blob))
        part.write_bytes(b"{")

    monkeypatch.setattr(Client, "fetch", overtaken)
    assert make_store().resolve("base").files[VAE].read_bytes() == TENSORS
    assert care.find_abandoned_files(make_store().places.hub) == []


def test_two_pulls_at_once_end_with_one_good_file(make_store: MakeStore, hub: Hub) -> None:
    hub.faults.append(Fault("slow", "*", 0.01))
    failed: list[BaseException] = []

    def pull_it() -> None:
        try:
            make_store().resolve("base")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=pull_it) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert make_store().resolve("base").files[VAE].read_bytes() == TENSORS
    assert care.find_abandoned_files(make_store().places.hub) == []


def test_two_pulls_at_once_are_safe_where_locks_do_nothing(
    make_store: MakeStore, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    test_two_pulls_at_once_end_with_one_good_file(make_store, hub)


def test_a_part_that_another_process_publishes_before_it_is_checked_is_a_download_too(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pull.hash_weights

    def publish_first(path: Path) -> str:
        if path.name.endswith(PART):
            path.replace(path.with_name(path.name.removesuffix(PART)))
        return real(path)

    monkeypatch.setattr(pull, "hash_weights", publish_first)
    assert make_store().resolve("base").files


PROGRAM = """
import sys
from pathlib import Path
from srcli.weights.hub import Hub
from srcli.weights.store import Store
Store(packaged=Path(sys.argv[1]), hub=Hub(sys.argv[2], pause=0.01)).resolve("base")
"""


def start(store: Store) -> subprocess.Popen[bytes]:
    """Pull in a process of its own."""
    command = [sys.executable, "-c", PROGRAM, str(store.packaged), store.hub.endpoint]
    return subprocess.Popen(command, env=networked(), stderr=subprocess.DEVNULL)


def networked() -> dict[str, str]:
    """The environment without the suite's ban."""
    return {name: value for name, value in os.environ.items() if "OFFLINE" not in name}


def test_two_processes_pulling_at_once_do_not_harm_each_other(make_store: MakeStore, hub: Hub) -> None:
    hub.faults.append(Fault("slow", "*.safetensors", 0.1))
    pulls = [start(make_store()) for _ in range(2)]
    assert [pull.wait(60) for pull in pulls] == [0, 0]
    hub.asked.clear()
    assert make_store().resolve("base").files[VAE].read_bytes() == TENSORS
    assert hub.asked == [] and care.find_abandoned_files(make_store().places.hub) == []


def test_a_killed_pull_goes_on_in_the_next_run(make_store: MakeStore, hub: Hub) -> None:
    hub.faults.append(Fault("slow", "*.safetensors", 0.2))
    pull = start(make_store())
    cache = make_store().places.hub
    while not any(part.stat().st_size for part in cache.glob(f"*/blobs/{sha256(TENSORS)}{PART}")):
        assert pull.poll() is None
        time.sleep(0.01)
    assert care.remove_garbage(make_store()) == []  # what another process is at is no leftover
    pull.kill()
    pull.wait()
    assert any(path.name.endswith(PART) for path in care.find_abandoned_files(cache))
    hub.faults.clear()
    hub.asked.clear()
    assert make_store().resolve("base").files[VAE].read_bytes() == TENSORS
    (asked,) = [asked for asked in hub.asked if asked.origin == "cdn"]
    assert int(asked.headers["Range"].removeprefix("bytes=").rstrip("-")) > 0


def test_a_disk_without_links_holds_the_files_themselves(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", refuse)
    found = make_store().resolve("base")
    assert not any(path.is_symlink() for path in found.files.values())
    assert make_store(offline=True).resolve("base").files[VAE].read_bytes() == TENSORS


def test_a_read_only_cache_can_be_used(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    make_store().resolve("base")
    cache = Path(os.environ["HF_HOME"])
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    folders = [cache, *(path for path in cache.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    before = written(cache)
    try:
        assert make_store(offline=True).resolve("base").files[VAE].read_bytes() == TENSORS
        assert written(cache) == before  # root may write anywhere, so not having tried is what counts
    finally:
        for path in folders:
            path.chmod(stat.S_IRWXU)


def written(folder: Path) -> dict[Path, int]:
    return {path: path.lstat().st_mtime_ns for path in (folder, *folder.rglob("*"))}


def test_a_cache_that_cannot_be_written_is_told(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "file"))
    with pytest.raises(MachineError, match=r"cannot be written \(Not a directory\).*set HF_HOME") as error:
        make_store().resolve("base")
    assert error.value.exit_code == 5


def test_a_disk_that_fills_up_on_the_way_loses_nothing(make_store: MakeStore, hub: Hub) -> None:
    store = make_store()
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n{PROGRAM}"
    command = [sys.executable, "-c", limit, str(store.packaged), hub.url]
    ended = subprocess.run(command, env=networked(), stderr=subprocess.PIPE, check=False, text=True)
    assert "MachineError" in ended.stderr and "free some space" in ended.stderr
    (part,) = store.places.hub.glob(f"*/blobs/{sha256(TENSORS)}{PART}")
    assert part.read_bytes() == TENSORS[:9000]
    assert make_store().resolve("base").files[VAE].read_bytes() == TENSORS


def test_an_interrupted_pull_ends_before_its_files_are_whole(make_store: MakeStore, hub: Hub) -> None:
    hub.faults.append(Fault("slow", "*.safetensors", 0.3))
    pull = start(make_store())
    while not any(asked.origin == "cdn" for asked in hub.asked):
        assert pull.poll() is None
        time.sleep(0.01)
    pull.send_signal(signal.SIGINT)
    assert pull.wait() != 0
    assert not list(make_store().places.hub.rglob("*.safetensors"))
    hub.faults.clear()
    assert make_store().resolve("base").files[VAE].read_bytes() == TENSORS


def test_a_full_disk_is_told_before_anything_is_fetched(
    make_store: MakeStore, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
    with pytest.raises(MachineError, match="free some space"):
        make_store().resolve("base")
    assert all(asked.origin == "hub" and "/api/" in asked.path for asked in hub.asked)


def test_a_stray_file_is_not_opened_in_place_of_a_locked_one(make_store: MakeStore) -> None:
    found = make_store().resolve("base")
    stray = found.part("vae") / "another.safetensors"
    stray.write_bytes(b"")
    with pytest.raises(WeightsError, match="not in the lock"):
        make_store().resolve("base")


def test_a_store_says_what_is_here(make_store: MakeStore) -> None:
    store = make_store()
    assert store.list_here() == [] and not store.has("adapter")
    store.resolve("adapter")
    assert store.list_here() == ["adapter"] and not store.has("adapter")
    store.resolve("base", parts=("vae",))
    assert store.has("adapter")
    assert store.bases() == ["base"]


def test_offline_forbids_and_says_what_to_do(make_store: MakeStore, hub: Hub) -> None:
    with pytest.raises(WeightsError, match="srcli models pull base"):
        make_store(offline=True).resolve("base")
    assert hub.asked == []


def test_a_store_needs_no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(WeightsError, match="set HF_HOME"):
        Store()
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert Store().places.hub == tmp_path / "hub"
    assert Store().places.overlay == tmp_path / "srcli" / "weights.lock"
