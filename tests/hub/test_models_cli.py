"""`srcli models` as a user types it, against a Hub that is there, then gone."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from srcli.cli import app, downloads
from srcli.cli.models import _collect_entries
from srcli.weights.overlay import format_lock
from tests.hub.conftest import ADAPTER, BASE, TENSORS, MakeStore
from tests.hub.server import Fault, Hub

VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
def srcli(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    """Run the program with the Hub in its environment."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments: str, exit_code: int = 0) -> Result:
        result = CliRunner().invoke(app, ["models", *arguments])
        assert result.exit_code == exit_code, result.output
        return result

    return run


def states(result: Result) -> dict[str, str]:
    return {facts["name"]: facts["state"] for facts in map(json.loads, result.stdout.splitlines())}


def test_a_weights_life(srcli, hub: Hub) -> None:
    added = srcli("add", "tiny", BASE)
    assert "added tiny" in added.stderr and added.stdout == ""
    assert states(srcli("list", "--json"))["tiny"] == "no"
    assert srcli("pull", "tiny", "--dry-run").stdout.splitlines() == [
        "tiny\ttokenizer/vocab.json\t2",
        f"tiny\tvae/config.json\t{len((hub.folder / BASE / 'vae/config.json').read_bytes())}",
        f"tiny\t{VAE}\t{len(TENSORS)}",
    ]
    assert not (Path(os.environ["HF_HOME"]) / "hub").exists()
    pulled = srcli("pull", "tiny")
    assert "licence" in pulled.stderr and "tiny: here and as locked" in pulled.stderr and pulled.stdout == ""
    hub.close()
    assert states(srcli("list", "--json"))["tiny"] == "checked"
    assert srcli("pull", "tiny").stderr == "tiny: here and as locked\n"
    assert "3 files as locked" in srcli("verify", "tiny").stderr
    path = Path(srcli("path", "tiny", "vae").stdout.strip())
    assert (path / "config.json").is_file()
    assert "freed" in srcli("remove", "tiny").stderr
    assert not path.joinpath("config.json").exists()
    assert "no weight named 'tiny'" in srcli("path", "tiny", exit_code=4).stderr
    assert "part of srcli" in srcli("remove", "builtin-upscale", exit_code=4).stderr


def test_a_hub_id_can_be_pulled_as_it_is(srcli) -> None:
    srcli("pull", f"{ADAPTER}@main", exit_code=4)  # a base has its parts at the top; this one has none
    assert "here and as locked" in srcli("pull", BASE).stderr


def test_the_table_fits_and_reads(srcli, monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in (80, 120):
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = srcli("list").stdout.splitlines()
        assert max(map(len, lines)) <= columns or not lines[-1].startswith("in ")
        assert "base models" in lines and any("OpenRAIL-M" in line and "sd15" in line for line in lines)
        assert not any("sd15-fp16" in line for line in lines)
    assert any("sd15-fp16" in line for line in srcli("list", "--all").stdout.splitlines())


def test_verify_names_what_is_bad_and_pull_mends_it(srcli) -> None:
    srcli("add", "tiny", BASE)
    srcli("pull", "tiny")
    real = (Path(srcli("path", "tiny").stdout.strip()) / VAE).resolve()
    real.write_bytes(TENSORS[:-1] + b"?")
    bad = srcli("verify", "tiny", exit_code=4)
    assert bad.stdout == f"tiny/{VAE}\n"
    assert "1 of 3 files are not as locked: run srcli models pull tiny" in bad.stderr and ".bad" in bad.stderr
    assert states(srcli("list", "--json"))["tiny"] == "part"
    srcli("pull", "tiny")
    facts = [json.loads(line) for line in srcli("verify", "tiny", "--json").stdout.splitlines()]
    assert {fact["wrong"] for fact in facts} == {None} and len(facts) == 3
    assert srcli("gc").stdout.strip().endswith(".bad")


def test_pull_replaces_what_changed_in_the_cache(srcli) -> None:
    srcli("add", "tiny", BASE)
    srcli("pull", "tiny")
    path = Path(srcli("path", "tiny").stdout.strip()) / VAE
    path.resolve().write_bytes(b"short")
    assert "has 5 bytes and the lock says" in srcli("pull", "tiny").stderr
    assert path.read_bytes() == TENSORS


def test_a_path_comes_byte_for_byte_so_that_scripts_can_open_it(srcli, tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9 \xe2\x80\xae\x1b[1m.safetensors"
    Path(os.fsdecode(raw)).write_bytes(TENSORS)
    assert srcli("path", os.fsdecode(raw)).stdout_bytes == raw + b"\n"


@pytest.mark.parametrize("share", ["0%", "200%", "some"])
def test_a_share_that_is_none(srcli, share: str) -> None:
    assert "--subset" in srcli("verify", "--subset", share, exit_code=2).stderr


def test_lock_fills_in_every_hash_without_the_weights(srcli, hub: Hub) -> None:
    srcli("add", "tiny", BASE)
    assert "is locked at" in srcli("lock", "tiny").stderr
    (facts,) = [f for f in map(json.loads, srcli("list", "--json").stdout.splitlines()) if f["name"] == "tiny"]
    assert facts["pinned"] and facts["revision"] == hub.head(BASE)
    assert facts["state"] == "part"
    assert not any(asked.origin == "cdn" for asked in hub.asked)


def test_what_fails_is_one_line_with_its_exit_code(srcli, hub: Hub) -> None:
    assert srcli("pull", "no-such-thing", exit_code=4).stderr.startswith("srcli: no weight named 'no-such-thing'")
    assert "majicmix must be downloaded by hand" in srcli("pull", "majicmix", exit_code=4).stderr
    assert "srcli models pull sd15" in srcli("path", "sd15", exit_code=4).stderr
    hub.faults.append(Fault("gated", "/api/*"))
    failed = srcli("add", "x", BASE, exit_code=4)
    assert failed.stderr.startswith("srcli: owner/base is gated") and failed.stderr.count("\n") == 1


def test_the_token_is_never_shown(srcli, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    hub.token, hub.private = "hf_other", {BASE}
    for arguments in (("add", "tiny", BASE), ("pull", BASE)):
        assert "verysecret" not in srcli(*arguments, exit_code=4).output
    hub.token = "hf_verysecret"
    for arguments in (("add", "tiny", BASE), ("pull", "tiny"), ("list", "--json"), ("lock", "tiny"), ("verify",)):
        assert "verysecret" not in srcli(*arguments).output


def test_removing_one_weight_leaves_what_another_shares(srcli, hub: Hub) -> None:
    srcli("add", "one", BASE)
    srcli("add", "two", BASE)
    srcli("pull", "one", "two")
    srcli("remove", "one")
    assert states(srcli("list", "--json"))["two"] == "checked"
    srcli("remove", "two")
    assert not list(Path(os.environ["HF_HOME"]).rglob("*.safetensors"))


def test_a_damaged_lock_is_named_with_its_line(srcli) -> None:
    srcli("add", "tiny", BASE)
    path = Path(os.environ["XDG_CONFIG_HOME"]) / "srcli" / "weights.lock"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("size = 2", "size = 2 2"), encoding="utf-8")
    failed = srcli("list", exit_code=4)
    line = next(n for n, found in enumerate(text.splitlines(), 1) if "size = 2" in found)
    assert failed.stderr.startswith(f"srcli: {path}:{line}: ") and failed.stderr.count("\n") == 1


def test_of_several_lora_files_one_must_be_chosen(srcli, hub: Hub) -> None:
    for name in ("one", "two"):
        (hub.folder / BASE / f"{name}.safetensors").write_bytes(TENSORS)
    said = srcli("add", "fast", BASE, "--kind", "lora", exit_code=4).stderr
    assert "--file FILE" in said and "one.safetensors" in said
    assert (
        "added fast: lora, 1 file;" in srcli("add", "fast", BASE, "--kind", "lora", "--file", "two.safetensors").stderr
    )
    srcli("pull", "fast")
    assert srcli("path", "fast").stdout.strip().endswith("two.safetensors")


def test_two_weights_that_need_different_parts_of_a_third_get_both(hub: Hub, make_store: MakeStore) -> None:
    store = make_store()
    lock = store.lock()
    lock |= {"other": replace(lock["adapter"], name="other", needs=("base/tokenizer",))}
    store.packaged.write_text(format_lock(lock), encoding="utf-8")
    parts = {entry.name: parts for entry, parts in _collect_entries(store, ["adapter", "other"], False)}
    assert parts["base"] == ("tokenizer", "vae")
    assert [entry.name for entry, _ in _collect_entries(store, ["adapter", "other"], True)] == ["adapter", "other"]
    parts = {entry.name: parts for entry, parts in _collect_entries(store, ["adapter", "base"], False)}
    assert parts["base"] == ()


def test_an_entry_is_described_with_what_is_still_to_come(srcli, hub: Hub) -> None:
    srcli("add", "tiny", BASE)
    size = len(TENSORS) + len((hub.folder / BASE / "vae/config.json").read_bytes()) + 2
    facts = json.loads(srcli("info", "tiny", "--json").stdout)
    assert (facts["state"], facts["to_fetch"], facts["files"][VAE]["size"]) == ("no", size, len(TENSORS))
    assert f"  {VAE}" in srcli("info", "tiny").stdout
    srcli("pull", "tiny")
    assert json.loads(srcli("info", "tiny", "--json").stdout)["to_fetch"] == 0


def test_what_is_here_is_listed_by_size_with_what_can_go(srcli, hub: Hub) -> None:
    srcli("add", "tiny", BASE)
    srcli("pull", "tiny")
    left = Path(os.environ["HF_HOME"]) / "hub" / "models--owner--base" / "blobs" / f"{'0' * 40}.bad"
    left.write_bytes(b"12345")
    rows = [json.loads(line) for line in srcli("list", "--size", "--json").stdout.splitlines()]
    assert rows[0]["bytes"] >= rows[-2]["bytes"] > 0
    assert rows[-1] == {"name": "leftovers", "bytes": 5}
    assert srcli("gc", "--dry-run").stdout == f"{left}\n"
    assert left.exists()


@pytest.mark.parametrize(("answer", "code"), [("n\n", 4), ("y\n", 0)])
def test_much_is_fetched_on_a_terminal_only_after_a_yes(srcli, hub: Hub, monkeypatch, answer: str, code: int) -> None:
    srcli("add", "tiny", BASE)
    monkeypatch.setattr(downloads, "ASK_ABOVE", 0)
    monkeypatch.setattr(downloads, "is_on_terminal", lambda: True)
    result = CliRunner().invoke(app, ["models", "pull", "tiny"], input=answer)
    assert (result.exit_code, "Fetch " in result.stderr) == (code, True)
    assert states(srcli("list", "--json"))["tiny"] == ("checked" if code == 0 else "no")


def test_yes_is_not_asked(srcli, hub: Hub, monkeypatch) -> None:
    srcli("add", "tiny", BASE)
    monkeypatch.setattr(downloads, "ASK_ABOVE", 0)
    monkeypatch.setattr(downloads, "is_on_terminal", lambda: True)
    assert "Fetch " not in srcli("pull", "tiny", "--yes").stderr
