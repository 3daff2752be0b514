"""A weight at an https address, pinned by commit and git's name for its content: as good as one on the Hub."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from srcli.errors import WeightsError
from srcli.weights import care
from srcli.weights.cache import PART
from srcli.weights.lock import Entry, File
from srcli.weights.overlay import format_lock
from srcli.weights.store import Store
from tests.hub.conftest import BASE, MakeStore, entries
from tests.hub.server import Fault, Hub, git_blob, sha256

CODE, PATH = "author/Program", "preset/models/adapter.safetensors"
CONTENT = bytes(range(256)) * 80
RAW, FILE = "/raw/*", "*adapter.safetensors"


@pytest.fixture
def entry(hub: Hub) -> Entry:
    """What the lock says of the file: where, at which commit, and git's name for it."""
    file = hub.folder / CODE / PATH
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    return Entry(
        name="program",
        kind="adapter",
        family="sd21",
        license="apache-2.0",
        address=f"{hub.url}/raw/{CODE}",
        revision=hub.head(CODE),
        files={PATH: File(PATH, blob=git_blob(CONTENT))},
    )


@pytest.fixture
def make(entry: Entry, hub: Hub, make_store: MakeStore, tmp_path: Path) -> MakeStore:
    lock = tmp_path / "address.lock"

    def made(known: Entry = entry, **options: object) -> Store:
        lock.write_text(format_lock(entries(hub) | {"program": known}), encoding="utf-8")
        return make_store(packaged=lock, **options)

    return made


def test_a_first_pull_checks_the_blob_and_learns_the_hash(make: MakeStore, hub: Hub) -> None:
    said: list[str] = []
    found = make(tell=said.append).resolve("program")
    assert found.only_file().read_bytes() == CONTENT
    assert found.sha256 == {PATH: sha256(CONTENT)}
    assert "licence: apache-2.0" in said[0] and "1 hashes learned" in said[-1]
    known = make().lock()["program"]
    assert known.learned and known.pinned
    assert known.files[PATH] == File(PATH, len(CONTENT), sha256(CONTENT), git_blob(CONTENT))
    hub.close()
    assert make().resolve("program").only_file().read_bytes() == CONTENT


def test_the_learned_hash_is_enforced(make: MakeStore, hub: Hub) -> None:
    kept = make().resolve("program").only_file()
    kept.resolve().write_bytes(CONTENT[::-1])
    with pytest.raises(WeightsError, match="has sha256"):
        make().resolve("program")
    assert make().resolve("program").only_file().read_bytes() == CONTENT


def test_a_size_that_the_lock_knows_is_not_asked_for(make: MakeStore, entry: Entry, hub: Hub) -> None:
    sized = replace(entry, files={PATH: replace(entry.files[PATH], size=len(CONTENT))})
    make(sized).resolve("program")
    assert [asked.method for asked in hub.asked] == ["GET"]


def test_a_size_that_drips_for_ever_is_given_up(make: MakeStore, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srcli.weights.raw_files.LONGEST_ANSWER", 0.3)
    hub.faults.append(Fault("drip", RAW))
    with pytest.raises(WeightsError, match="nothing of use in 0 s: try another network"):
        make().resolve("program")


def test_the_token_is_not_for_others(make: MakeStore, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    make().resolve("program")
    assert hub.asked and not any("authorization" in map(str.lower, asked.headers) for asked in hub.asked)


ROWS = {
    "404": ([Fault("status", RAW, 404)], "has no preset/models/adapter.safetensors", "check the lock"),
    "403": ([Fault("status", RAW, 403)], "the server answers 403", "try again later"),
    "500 for ever": ([Fault("status", RAW, 500)], "the server answers 500", "try again later"),
    "no answer": ([Fault("leave", RAW)], "cannot be reached or broke off", "try again later"),
    "login page": ([Fault("html", RAW, skip=1)], "does not give the file", "check the network"),
    "cut for ever": ([Fault("cut", FILE, 0)], "broke off", "try again later"),
    "wrong bytes": ([Fault("wrong", FILE)], "came as git blob", "try another network"),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_fault_is_one_line_and_harms_nothing(row: str, make: MakeStore, hub: Hub) -> None:
    faults, what, remedy = ROWS[row]
    hub.faults += [replace(fault) for fault in faults]
    with pytest.raises(WeightsError) as error:
        make().resolve("program")
    said = str(error.value)
    assert what in said and remedy in said and "\n" not in said
    assert error.value.exit_code == 4
    hub.faults.clear()
    assert make().resolve("program").only_file().read_bytes() == CONTENT


def test_a_broken_download_goes_on_in_a_later_run(make: MakeStore, hub: Hub) -> None:
    # the head that asks for the size, a piece of the file, and then nothing
    hub.faults += [Fault("cut", FILE, 7000, times=1), Fault("status", RAW, 500, skip=2)]
    with pytest.raises(WeightsError, match="try again later"):
        make().resolve("program")
    parts = list(Path(os.environ["HF_HOME"]).rglob(f"*{PART}"))
    assert [part.stat().st_size for part in parts] == [7000]
    hub.faults.clear()
    hub.asked.clear()
    make().resolve("program")
    assert [asked.headers.get("Range") for asked in hub.asked if asked.method == "GET"] == ["bytes=7000-"]


def test_an_address_that_is_gone_points_to_its_copies(make: MakeStore, entry: Entry, hub: Hub) -> None:
    hub.close()
    with pytest.raises(WeightsError, match=r"or give a copy a name of its own: https://copy\.example/x"):
        make(replace(entry, mirrors=("https://copy.example/x",))).resolve("program")


def test_offline_forbids_and_says_what_to_do(make: MakeStore, hub: Hub) -> None:
    with pytest.raises(WeightsError, match="srcli models pull program"):
        make(offline=True).resolve("program")
    assert hub.asked == []


def test_it_is_looked_after_as_any_weight(make: MakeStore) -> None:
    store = make()
    assert care.read_state(store, store.lock()["program"]) == care.NO
    store.resolve("program")
    known = store.lock()["program"]
    assert care.read_state(store, known) == care.CHECKED
    assert [verdict.wrong for verdict in care.verify_copies(store, care.find_copies(store, known))] == [None]
    assert care.forget_entry(store, known) == len(CONTENT)
    assert care.read_state(store, known) == care.NO


def test_a_lock_can_learn_the_hash_alone(make: MakeStore, entry: Entry) -> None:
    assert care.lock_entry(make(), entry).pinned


def test_the_same_bytes_of_two_entries_are_fetched_and_kept_once(
    make_store: MakeStore, hub: Hub, tmp_path: Path
) -> None:
    vae = "vae/diffusion_pytorch_model.safetensors"
    content = (hub.folder / BASE / vae).read_bytes()
    other = hub.folder / "owner/other" / vae
    other.parent.mkdir(parents=True)
    other.write_bytes(content)
    known = entries(hub)
    twin = replace(known["base"], name="twin", repo="owner/other", revision=hub.head("owner/other"))
    twin = replace(twin, files={vae: File(vae, len(content), sha256(content))})
    (tmp_path / "twins.lock").write_text(format_lock(known | {"twin": twin}), encoding="utf-8")
    store = make_store(packaged=tmp_path / "twins.lock")
    first = store.resolve("base").files[vae]
    hub.asked.clear()
    assert store.plan(twin).missing == ()
    second = store.resolve("twin").files[vae]
    assert not [asked for asked in hub.asked if asked.path.endswith(vae)]
    assert second.resolve().samefile(first.resolve()) and second.resolve() != first.resolve()
    care.forget_entry(store, store.lock()["base"])
    assert second.read_bytes() == content
