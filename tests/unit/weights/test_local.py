"""Weights that the user has: by path, added under a name, brought for a name that the lock knows."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from srcli.errors import WeightsError
from srcli.weights import care
from srcli.weights.header import hash_weights
from srcli.weights.lock import Entry, File
from srcli.weights.overlay import format_lock, write_entry
from srcli.weights.store import Store

GOLDEN = Path(__file__).parents[2] / "golden" / "pasd"
BASE, SINGLE = GOLDEN / "tiny" / "base", GOLDEN / "personalized" / "ldm_checkpoint_fp16.safetensors"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store that knows one file to be brought, one packaged file's place, and nothing else."""
    brought = Entry(
        name="majic",
        kind="base",
        family="sd15",
        license="author's terms",
        title="majic",
        source="https://example.org/majic",
        files={"majic.safetensors": File("majic.safetensors", None, hash_weights(SINGLE))},
    )
    lock = tmp_path / "packaged.lock"
    lock.write_text(format_lock({"majic": brought}), encoding="utf-8")
    return Store(packaged=lock, offline=True)


def test_a_file_by_path_needs_no_lock_and_tells_its_hash(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_file({"model.diffusion_model.a.attn2.to_k.weight": torch.zeros(2, 768)}, path)
    found = store.resolve(str(path), kind="base")
    assert (found.file, found.family, found.kind) == (path, "sd15", "base")
    assert found.provenance()["own.safetensors/own.safetensors"] == hash_weights(path)


def test_a_known_file_is_recognised_by_its_hash(store: Store, tmp_path: Path) -> None:
    shutil.copy(SINGLE, tmp_path / "renamed.safetensors")
    assert store.resolve(str(tmp_path / "renamed.safetensors")).name == "majic"


def test_a_folder_by_path(store: Store) -> None:
    found = store.resolve(str(BASE), kind="base")
    assert found.family == "width32" and found.part("unet").is_dir()
    assert found.file is None
    assert "unet/diffusion_pytorch_model.safetensors" in found.sha256
    with pytest.raises(WeightsError, match="has no image_encoder"):
        found.part("image_encoder")
    assert set(store.resolve(str(BASE), parts=("vae",)).files) == {
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    }


def test_a_folder_without_weights_and_a_path_to_nothing(store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="holds no weights"):
        store.resolve(str(tmp_path / "empty"))
    for what in ("./nowhere/x.safetensors", "gone.safetensors", "/no/such/folder"):
        with pytest.raises(WeightsError, match="no such file or folder"):
            store.resolve(what)
    with pytest.raises(WeightsError, match="no base named 'gone': choose one of majic"):
        store.resolve("gone", kind="base")


IMPOSSIBLE = ["./a/" + "n" * 300, "n" * 300 + ".safetensors", "~nosuchuser/x", "~nosuchuser", "a/b\x00c", "/dev/null/x"]


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_a_name_that_no_disk_can_hold_is_one_line_too(what: str, store: Store) -> None:
    with pytest.raises(WeightsError, match="no such file or folder"):
        store.resolve(what)
    for name in ("mine", "majic"):
        with pytest.raises(WeightsError, match="no such file or folder"):
            care.add_entry(store, name, what, "base")


@pytest.mark.parametrize("name", ["HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"])
@pytest.mark.parametrize("folder", ["~nosuchuser/x", "/" + "n" * 300])
def test_folders_that_cannot_be_are_one_line_or_none(
    name: str, folder: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, folder)
    try:
        here = Store(packaged=store.packaged, offline=True)
        assert here.resolve(str(BASE), parts=("vae",)).part("vae").is_dir()
        assert here.list_here() == [] and care.remove_garbage(here) == []
    except WeightsError as error:
        assert name in str(error) and (name == "XDG_CONFIG_HOME" or folder[0] == "~")


@pytest.mark.parametrize(
    "damage",
    ["", "[1]", "[[1, 2], 3]", '["ab"]', '[[1, 2, 3], "short"]', "null", "7", '{"a": 1}', '[[[1], 2, 3], "x"]'],
)
def test_a_damaged_record_only_costs_reading_again(damage: str, store: Store, tmp_path: Path) -> None:
    path = Path(shutil.copy(SINGLE, tmp_path / "x.safetensors"))
    for text in (damage, f'{{"{path.resolve()}": {damage or "{"}}}', "[" * 20_000):
        store.stamps.path.parent.mkdir(parents=True, exist_ok=True)
        store.stamps.path.write_text(text, encoding="utf-8")
        assert not store.stamps.known(path)
        assert store.stamps.sha256(path) == hash_weights(path)
        assert store.stamps.known(path)


def test_what_must_be_brought_says_where_it_is_got(store: Store) -> None:
    with pytest.raises(WeightsError, match=r"get majic.safetensors from https://example.org/majic, then run srcli"):
        store.resolve("majic")


def test_what_was_brought_is_held_against_the_lock(store: Store, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, other)
    with pytest.raises(WeightsError, match="it is another file, so add it under another name"):
        care.add_entry(store, "majic", str(other), "base")
    copy = shutil.copy(SINGLE, tmp_path / "any-name.safetensors")
    care.add_entry(store, "majic", str(copy), "base")
    found = store.resolve("majic", kind="base")
    assert found.file == Path(copy) and found.license == "author's terms"
    assert care.read_state(store, store.lock()["majic"]) == care.CHECKED
    with pytest.raises(WeightsError, match="it is another file"):
        care.add_entry(store, "majic", str(other), "base")


def test_what_was_added_is_enforced_like_any_lock(store: Store, tmp_path: Path) -> None:
    path = Path(shutil.copy(SINGLE, tmp_path / "mine.safetensors"))
    entry = care.add_entry(store, "mine", str(path), "base")
    assert (entry.family, entry.kind) == ("width32", "base")
    assert store.resolve("mine").sha256 == {"mine.safetensors": hash_weights(path)}
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(WeightsError, match="has sha256 .* and the lock says"):
        store.resolve("mine")
    path.unlink()
    with pytest.raises(WeightsError, match="gone since it was added"):
        store.resolve("mine")
    assert care.forget_entry(store, store.lock()["mine"]) == 0
    assert "mine" not in store.lock()


def test_a_lora_is_added_as_one(store: Store) -> None:
    entry = care.add_entry(store, "hand", str(GOLDEN / "personalized" / "lora_kohya.safetensors"), "base")
    assert (entry.kind, entry.family) == ("lora", "width32")


def test_a_folder_is_added_whole(store: Store) -> None:
    care.add_entry(store, "tiny", str(BASE), "base")
    assert store.resolve("tiny", kind="base", parts=("vae",)).part("vae") == BASE / "vae"


@pytest.mark.parametrize(
    ("name", "target", "kind", "said"),
    [
        ("Bad Name", str(SINGLE), "base", "not a valid name"),
        ("x", str(SINGLE), "boss", "not a kind of weight"),
        ("x", "/nowhere", "base", "no such file or folder"),
    ],
)
def test_what_cannot_be_added(name: str, target: str, kind: str, said: str, store: Store) -> None:
    with pytest.raises(WeightsError, match=said):
        care.add_entry(store, name, target, kind)
    assert not store.places.overlay.exists()


def test_a_packaged_name_is_not_taken_over(store: Store) -> None:
    lock = store.lock() | {
        "sd15": Entry(name="sd15", kind="base", family="sd15", license="mit", repo="a/b", include=("*",))
    }
    store.packaged.write_text(format_lock(lock), encoding="utf-8")
    with pytest.raises(WeightsError, match="a name of srcli's own weights"):
        care.add_entry(store, "sd15", str(SINGLE), "base")


def test_a_pickle_is_converted_once_and_only_when_allowed(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "old.ckpt"
    torch.save({"state_dict": {"a": torch.arange(3.0)}}, path)
    with pytest.raises(WeightsError, match="old.ckpt is a pickle, which can run code: add `allow_pickle`"):
        store.resolve(str(path))
    found = store.resolve(str(path), allow_pickle=True)
    assert found.file is not None and found.file.suffix == ".safetensors"
    assert found.provenance()["old.ckpt/old.safetensors"] == hash_weights(path)
    before = found.file.stat().st_mtime_ns
    assert store.resolve(str(path), allow_pickle=True).file == found.file
    assert found.file.stat().st_mtime_ns == before
    found.file.write_bytes(b"damaged")
    store.resolve(str(path), allow_pickle=True)
    assert found.file.read_bytes() != b"damaged"


def test_a_pickled_folder_becomes_one_that_transformers_opens(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "captioner"
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    torch.save({"a": torch.arange(3.0)}, folder / "pytorch_model.bin")
    found = store.resolve(str(folder), kind="captioner", allow_pickle=True)
    assert sorted(path.name for path in found.folder.iterdir()) == ["config.json", "model.safetensors"]
    assert sorted(found.files) == ["config.json", "model.safetensors"]


def test_a_conversion_does_not_outlive_an_edit_of_what_lies_beside_the_pickle(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "captioner"
    folder.mkdir()
    torch.save({"a": torch.arange(3.0)}, folder / "pytorch_model.bin")
    for text in ("{}", '{"new": 1}', "{}"):
        (folder / "config.json").write_text(text, encoding="utf-8")
        found = store.resolve(str(folder), kind="captioner", allow_pickle=True)
        assert found.folder.joinpath("config.json").read_text(encoding="utf-8") == text


def test_conversions_that_nothing_names_are_collected(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "old.ckpt"
    torch.save({"a": torch.arange(3.0)}, path)
    found = store.resolve(str(path), allow_pickle=True)
    entry = Entry(name="old", kind="base", family="any", license="x", local=str(path), files={"f": File("f")})
    write_entry(store.places.overlay, replace(entry, files={"old.ckpt": File("old.ckpt", None, hash_weights(path))}))
    assert care.remove_garbage(store) == []
    care.forget_entry(store, store.lock()["old"])
    assert [gone for gone, _ in care.remove_garbage(store)] == [found.folder.parent]
    assert not found.folder.exists() and path.exists()
