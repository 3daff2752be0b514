"""Everything that goes wrong between here and the Hub: one line, exit 4, and what was good stays good."""

from __future__ import annotations

import json
import os
import re
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from srcli.errors import WeightsError
from srcli.weights import care
from srcli.weights.hub import Hub as Client
from srcli.weights.listing import parse_commit
from tests.hub.conftest import BASE, TENSORS, MakeStore
from tests.hub.server import Fault, Hub

VAE = "vae/diffusion_pytorch_model.safetensors"
API, ANY, CDN = "/api/*", "*", "/cdn/*"

# what happens, what the user reads, what must be said to do
ROWS = {
    "404": ([Fault("status", API, 404)], "owner/base is not on the Hub, or private", "check the name"),
    "401": ([Fault("status", API, 401)], "owner/base is not on the Hub, or private", "HF_TOKEN"),
    "gated": ([Fault("gated", API)], "owner/base is gated", "accept its terms at http"),
    "gated file": ([Fault("gated", "*/resolve/*")], "owner/base is gated", "accept its terms at http"),
    "403": ([Fault("status", API, 403)], "owner/base is gated", "HF_TOKEN"),
    "418": ([Fault("status", API, 418)], "the Hub answers 418", "try again later"),
    "file gone": ([Fault("status", CDN, 404)], "has no vae/", "check the lock"),
    "429 for ever": ([Fault("status", API, 429)], "the Hub answers 429", "try again later"),
    "500 for ever": ([Fault("status", API, 500)], "the Hub answers 500", "try again later"),
    "503 on a file": ([Fault("status", CDN, 503)], "the Hub answers 503", "try again later"),
    "no answer": ([Fault("leave", API)], "cannot be reached or broke off", "try again later"),
    "no answer on a file": ([Fault("leave", CDN)], "cannot be reached or broke off", "try again later"),
    "login page": ([Fault("html", API)], "does not answer like the Hub", "proxy"),
    "login page for a file": ([Fault("html", CDN)], "does not answer like the Hub", "proxy"),
    "cut at once, for ever": ([Fault("cut", ANY, 0)], "broke off", "try again later"),
    "wrong bytes": ([Fault("wrong", "*.safetensors")], "came with sha256", "try another network"),
    "wrong small file": ([Fault("wrong", "*.json")], "came with sha256", "try another network"),
}
SHA = "0" * 40


def listing(*siblings: object, **facts: object) -> bytes:
    return json.dumps({"sha": SHA, "siblings": siblings} | facts).encode()


def sibling(**facts: object) -> dict[str, object]:
    return {"rfilename": "a.json", "size": 1, "blobId": SHA} | facts


# What the Hub may say of a commit instead of the truth.
LIES = {
    "nothing": b"",
    "a number": b"1" * 5000,
    "no table": b"[]",
    "nested": b"[" * 200_000,
    "no text": b"\xff\xfe",
    "no files": listing(sha=SHA, siblings=None),
    "files as words": listing("a.json"),
    "files as a table": listing(siblings={"a": 1}),
    "no commit": listing(sibling(), sha=None),
    "a commit of a number": listing(sibling(), sha=5),
    "a name of a number": listing(sibling(rfilename=5)),
    "no name": listing({"size": 1}),
    "a negative size": listing(sibling(size=-1)),
    "an endless size": listing(sibling(size=10**400)),
    "a size in words": listing(sibling(size="1")),
    "half a size": listing(sibling(size=0.5)),
    "true as size": listing(sibling(size=True)),
    "a hash of a number": listing(sibling(blobId=7)),
    "a hash that is a path": listing(sibling(blobId="../../x")),
    "lfs as words": listing(sibling(lfs="x", blobId=None)),
    "lfs with git's hash": listing(sibling(lfs={"sha256": SHA})),
    "a surrogate": listing(sibling(rfilename="\ud800.json")),
    "a way out": listing(sibling(rfilename="../a.json")),
    "a long name": listing(sibling(rfilename="a" * 300)),
    "an escape sequence": listing(sibling(rfilename="\x1b[2Ja.json")),
    "a file in a file": listing(sibling(), sibling(rfilename="a.json/b.json")),
}


@pytest.mark.parametrize("row", LIES)
def test_a_lie_about_a_commit_is_one_line(row: str, make_store: MakeStore, hub: Hub) -> None:
    hub.faults.append(Fault("body", API, content=LIES[row]))
    with pytest.raises(WeightsError) as error:
        make_store().resolve("adapter")
    assert "\n" not in str(error.value) and error.value.exit_code == 4


@pytest.mark.parametrize(
    ("card", "said"),
    [({"license": ["mit", "other"]}, "mit, other"), ({"license": "\ud800"}, None), ([], None), (7, None)],
)
def test_a_card_of_any_form_is_no_danger(card: object, said: str | None) -> None:
    assert parse_commit("a/b", listing(sibling(), cardData=card)).license == said


@pytest.mark.parametrize("path", [API, "*/resolve/*"])
@pytest.mark.parametrize("fault", [Fault("packed"), Fault("endless", value=200), Fault("endless", value=404)])
def test_an_answer_that_unfolds_or_never_ends_is_given_up(
    fault: Fault, path: str, make_store: MakeStore, hub: Hub
) -> None:
    hub.faults.append(replace(fault, path=path))
    with pytest.raises(WeightsError) as error:
        make_store().resolve("base")
    assert "\n" not in str(error.value) and error.value.exit_code == 4


def test_an_answer_that_trickles_is_given_up(make_store: MakeStore, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srcli.weights.hub.PACE_WINDOW", 0.2)
    monkeypatch.setattr("srcli.weights.hub.SLOWEST_RATE", 10**9)
    hub.faults.append(Fault("slow", "*.safetensors", 0.1))
    with pytest.raises(WeightsError, match="bytes in 0 s: try another network"):
        make_store().resolve("base")


@pytest.mark.parametrize("kind", ["drip", "drip-body"])
@pytest.mark.parametrize("path", [API, CDN])
def test_an_answer_that_drips_for_ever_is_given_up(
    kind: str, path: str, make_store: MakeStore, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No timeout of the HTTP library ends it: something comes with every moment."""
    names = ("srcli.weights.hub.PACE_WINDOW", "srcli.weights.hub.LONGEST_ANSWER")
    for name in (*names, "huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT"):
        monkeypatch.setattr(name, 0.3)
    hub.faults.append(Fault(kind, path))
    with pytest.raises(WeightsError, match="try another network|try again later") as error:
        make_store().resolve("base")
    assert "\n" not in str(error.value) and error.value.exit_code == 4


def test_breaking_off_after_every_byte_is_given_up(
    make_store: MakeStore, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress gives new patience, but not to a download that would take years."""
    monkeypatch.setattr("srcli.weights.hub.PACE_WINDOW", 0.2)
    hub.faults.append(Fault("cut", "*.safetensors", 1))
    with pytest.raises(WeightsError, match="broke off"):
        make_store().resolve("base")


PASSING = {
    "429 once": [Fault("status", API, 429, times=1)],
    "500 twice": [Fault("status", ANY, 500, times=2)],
    "cut often, but always further": [Fault("cut", "*.safetensors", 2500)],
    "no answer once": [Fault("leave", CDN, times=1)],
    "wrong bytes once": [Fault("wrong", "*.safetensors", times=1)],
    "slow": [Fault("slow", ANY, 0.002)],
}


def copy(faults: list[Fault]) -> list[Fault]:
    return [Fault(fault.kind, fault.path, fault.value, fault.times, fault.skip) for fault in faults]


@pytest.mark.parametrize("row", ROWS)
def test_a_fault_is_one_line_and_harms_nothing(row: str, make_store: MakeStore, hub: Hub) -> None:
    make_store().resolve("base", parts=("tokenizer",))
    faults, what, remedy = ROWS[row]
    hub.faults += copy(faults)
    with pytest.raises(WeightsError) as error:
        make_store().resolve("base")
    said = str(error.value)
    assert what in said and remedy in said
    assert "\n" not in said and "signature" not in said
    assert error.value.exit_code == 4
    hub.faults.clear()
    good = make_store(offline=True).resolve("base", parts=("tokenizer",))
    assert good.files["tokenizer/vocab.json"].read_bytes() == b"{}"
    assert make_store().resolve("base").files[VAE].read_bytes() == TENSORS


@pytest.mark.parametrize("row", PASSING)
def test_a_fault_that_passes_is_outlived(row: str, make_store: MakeStore, hub: Hub) -> None:
    hub.faults += copy(PASSING[row])
    assert make_store().resolve("base").files[VAE].read_bytes() == TENSORS


@pytest.mark.parametrize("row", ROWS)
def test_a_password_in_the_mirrors_address_is_never_said(row: str, make_store: MakeStore, hub: Hub) -> None:
    hub.faults += copy(ROWS[row][0])
    client = Client(hub.url.replace("://", "://me:s3cret@"), pause=0.001, tries=2)
    with pytest.raises(WeightsError) as error:
        make_store(hub=client).resolve("base")
    assert ROWS[row][1] in str(error.value) and "s3cret" not in str(error.value) and "me:" not in str(error.value)


@pytest.mark.parametrize(
    "address", ["me:pw@hub.test/a@b", "hub.test/a@b", "https://hub.test", "https://x@hub.test:8/a"]
)
def test_an_address_without_its_user(address: str) -> None:
    wanted = address.replace("me:pw@", "").replace("x@", "")
    assert Client(address).printable_endpoint == wanted


def test_wrong_bytes_are_set_aside_and_not_used(make_store: MakeStore, hub: Hub) -> None:
    hub.faults.append(Fault("wrong", "*.safetensors", times=1))
    store = make_store()
    assert store.resolve("base").files[VAE].read_bytes() == TENSORS
    (aside,) = care.find_abandoned_files(store.places.hub)
    assert aside.name.endswith(".bad") and aside.read_bytes() != TENSORS
    assert [path for path, _ in care.remove_garbage(store)] == [aside]
    assert care.find_abandoned_files(store.places.hub) == []


def test_a_hub_that_is_not_there(make_store: MakeStore) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(
        WeightsError, match=rf"base needs \d+\.\d kB from the Hub; .*{re.escape(url)} cannot be reached.*give a file"
    ):
        make_store(hub=Client(url, pause=0.001, tries=2)).resolve("base")


def test_a_repository_that_is_gone_points_to_its_copies(make_store: MakeStore) -> None:
    store = make_store()
    gone = replace(store.lock()["base"], name="gone", repo="owner/gone", mirrors=("other/copy",))
    with pytest.raises(WeightsError, match=r"owner/gone is not on the Hub.*other/copy"):
        store.open(gone)


def test_a_revision_that_is_gone(make_store: MakeStore) -> None:
    with pytest.raises(WeightsError, match="no revision 0000"):
        make_store().resolve(f"{BASE}@{'0' * 40}")


def test_a_hub_that_changed_a_locked_file_is_refused_before_anything_is_fetched(
    make_store: MakeStore, hub: Hub
) -> None:
    commit = hub.head(BASE) or ""
    hub.commits[BASE][commit] = hub.commits[BASE][commit] | {VAE: TENSORS[::-1]}
    with pytest.raises(WeightsError, match="on the Hub and the lock says"):
        make_store().resolve("base")
    assert not any(asked.origin == "cdn" for asked in hub.asked)


def test_a_locked_file_that_the_commit_lacks(make_store: MakeStore, hub: Hub) -> None:
    commit = hub.head(BASE) or ""
    del hub.commits[BASE][commit][VAE]
    with pytest.raises(WeightsError, match=f"has no {VAE}"):
        make_store().resolve("base")


def damage(path: Path) -> None:
    """Flip one bit, at the same size."""
    real = path.resolve()
    content = bytearray(real.read_bytes())
    content[-1] ^= 1
    real.write_bytes(content)


def test_a_file_that_changed_in_the_cache_is_never_used(make_store: MakeStore) -> None:
    damage(make_store().resolve("base").files[VAE])
    with pytest.raises(WeightsError, match=r"has sha256 .* and the lock says .*moved to .*\.bad") as error:
        make_store(offline=True).resolve("base")
    assert "srcli models pull" in str(error.value)
    assert make_store().resolve("base").files[VAE].read_bytes() == TENSORS


def test_a_file_that_was_only_touched_is_read_again_and_kept(make_store: MakeStore) -> None:
    path = make_store().resolve("base").files[VAE]
    os.utime(path.resolve(), (1, 1))
    store = make_store(offline=True)
    assert not store.stamps.known(path)
    store.resolve("base")
    assert store.stamps.known(path)


def test_a_config_that_changed_is_never_used(make_store: MakeStore) -> None:
    path = make_store().resolve("base").files["vae/config.json"]
    path.resolve().write_bytes(b'{"_class_name": "Evil"}')
    with pytest.raises(WeightsError, match=r"config\.json has \d+ bytes and the lock says"):
        make_store(offline=True).resolve("base")


def test_a_damaged_stamp_record_only_costs_reading(make_store: MakeStore) -> None:
    store = make_store()
    store.resolve("base")
    store.stamps.path.write_text("{cut", encoding="utf-8")
    assert make_store(offline=True).resolve("base").files[VAE].read_bytes() == TENSORS


def test_verify_finds_moves_and_names_what_rotted(make_store: MakeStore) -> None:
    store = make_store()
    found = store.resolve("base")
    real = found.files[VAE].resolve()
    times = real.stat()
    damage(real)
    os.utime(real, ns=(times.st_atime_ns, times.st_mtime_ns))  # as bit rot does: no stamp changes
    make_store(offline=True).resolve("base")
    verdicts = list(care.verify_copies(store, care.find_copies(store, store.lock()["base"])))
    (bad,) = [verdict for verdict in verdicts if verdict.wrong]
    assert bad.copy.file.path == VAE and bad.aside is not None and bad.aside.exists()
    assert len(verdicts) == 3 and not found.files[VAE].exists()


def test_verify_of_a_share_reads_no_more_than_it_must(make_store: MakeStore) -> None:
    store = make_store()
    store.resolve("base")
    copies = care.find_copies(store, store.lock()["base"])
    sizes = {item.path: item.path.stat().st_size for item in copies}
    for _ in range(20):
        drawn = [sizes[item.path] for item in care.draw_share(copies, 0.5)]
        assert sum(drawn) >= 0.5 * sum(sizes.values())
        assert sum(drawn[:-1]) < 0.5 * sum(sizes.values())


@pytest.mark.parametrize(("text", "seconds"), [("0", 0.0), ("7", 7.0), ("3600", 60.0), ("soon", None), ("-5", 0.0)])
def test_the_wait_that_the_hub_asks_for_is_honoured_within_reason(text: str, seconds: float | None) -> None:
    from srcli.weights.hub import retry_after

    asked = retry_after({"Retry-After": text})
    if seconds is None:
        assert asked is None
    else:
        assert Client("http://x")._wait(1, asked) == seconds


def test_the_pauses_grow_and_differ() -> None:
    client = Client("http://x", pause=1.0)
    waits = [{round(client._wait(failed, None), 9) for _ in range(50)} for failed in (1, 2, 3)]
    assert all(0.5 * 2**n <= wait <= 2**n for n, several in enumerate(waits) for wait in several)
    assert all(len(several) > 10 for several in waits)


def test_a_listing_that_leads_out_of_the_cache_is_refused(make_store: MakeStore, hub: Hub) -> None:
    commit = hub.head(BASE) or ""
    hub.commits[BASE][commit] = hub.commits[BASE][commit] | {"vae/../../../../evil.json": b"{}"}
    with pytest.raises(WeightsError, match="leaves its folder"):
        make_store().resolve(BASE)
    assert not list(make_store().places.hub.rglob("evil*"))
