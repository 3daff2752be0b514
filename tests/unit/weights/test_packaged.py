"""Single files open with what is in the package: no other download, whatever the family."""

from __future__ import annotations

import hashlib
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from tests.ldm_layout import SD15, SD21, write_sparse

from srcli.engines.latent.bases import Base, find_lender, open_file
from srcli.errors import WeightsError
from srcli.models.stock import build_stock
from srcli.weights import care
from srcli.weights.local import Located
from srcli.weights.lock import read_lock
from srcli.weights.open import load_into, read_config
from srcli.weights.overlay import format_lock
from srcli.weights.packaged import MERGES, load_clip_tokenizer, packaged_base
from srcli.weights.places import packaged_lock
from srcli.weights.store import Store

GOLDEN = Path(__file__).parents[2] / "golden" / "pasd"
BASE, SINGLE = GOLDEN / "tiny" / "base", GOLDEN / "personalized" / "ldm_checkpoint_fp16.safetensors"
LAYOUTS = {"sd15": SD15, "sd21": SD21}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store that knows nothing, where every socket is refused."""

    def refuse(*_: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    lock = tmp_path / "packaged.lock"
    lock.write_text(format_lock({}), encoding="utf-8")
    return Store(packaged=lock)


def open_path(store: Store, path: Path, family: str, usual: str = "usual") -> Base:
    # Described by hand: what is resolved is hashed, and these files are large.
    return open_file(Located("own", "base", family, "", path.parent, {}, {}, path), path, store, usual, family)


def without(path: Path, prefix: str) -> Path:
    """The tiny single file without what begins so."""
    save_file({name: held for name, held in load_file(SINGLE).items() if not name.startswith(prefix)}, path)
    return path


def test_the_merges_are_those_of_every_stable_diffusion() -> None:
    entries = read_lock(packaged_lock())
    locked = {entries[name].files["tokenizer/merges.txt"].sha256 for name in ("sd15", "sd21")}
    assert locked == {hashlib.sha256(MERGES.read_bytes()).hexdigest()}


@pytest.mark.parametrize(("family", "padding"), [("sd15", 49407), ("sd21", 0)])
def test_the_tokenizer_gives_the_known_numbers(family: str, padding: int) -> None:
    base = packaged_base(family)
    assert base is not None
    tokenizer = load_clip_tokenizer(base.part("tokenizer"))
    ids = tokenizer("a photo of a cat", padding="max_length", max_length=77).input_ids
    assert ids == [49406, 320, 1125, 539, 320, 2368, 49407, *[padding] * 70]
    assert tokenizer.model_max_length == 77 and len(tokenizer) == 49408
    assert tokenizer("Émile's café, 8k!").input_ids == tokenizer("émile's  café , 8 k !").input_ids


@pytest.mark.parametrize("family", LAYOUTS)
def test_a_checkpoint_of_full_width_opens_whole(family: str, store: Store, tmp_path: Path) -> None:
    base = open_path(store, write_sparse(tmp_path / "own.safetensors", LAYOUTS[family]), family)
    lent = find_lender(store, "usual", family)
    unet = load_into(build_stock(UNet2DConditionModel, read_config(lent.part("unet"))), base.unet or {}, base.source)
    count = sum(weight.numel() for net in (unet, base.vae, base.text_encoder) for weight in net.parameters())
    assert count == {"sd15": 1_066_235_307, "sd21": 1_289_952_427}[family]
    assert base.schedule["prediction_type"] == "epsilon"


def test_what_a_file_says_that_it_predicts_is_believed(store: Store, tmp_path: Path) -> None:
    store = with_own_base(store)
    path = tmp_path / "v.safetensors"
    save_file(load_file(SINGLE), path, {"modelspec.prediction_type": "v"})
    assert open_path(store, path, "width32").schedule["prediction_type"] == "v_prediction"


def with_own_base(store: Store) -> Store:
    """With the tiny base registered as the user's own."""
    care.add_entry(store, "mine", str(BASE), "base")
    return store


def test_a_registered_base_lends_what_a_file_lacks(store: Store, tmp_path: Path) -> None:
    path = without(tmp_path / "own.safetensors", "first_stage_model.")
    store = with_own_base(store)
    lent = load_file(BASE / "vae" / "diffusion_pytorch_model.safetensors")
    vae = open_path(store, path, "width32").vae.state_dict()
    assert torch.equal(vae["decoder.conv_out.weight"], lent["decoder.conv_out.weight"])


def test_a_damaged_base_lends_nothing(store: Store, tmp_path: Path) -> None:
    store = with_own_base(store)
    gone = replace(store.lock()["mine"], local=str(tmp_path / "gone"))
    assert not store.has_parts(gone, ("vae",))
    assert not store.has_parts(store.lock()["mine"], ("image_encoder",))


def test_without_any_base_the_usual_one_is_asked_for() -> None:
    with pytest.raises(WeightsError, match="sd15 needs .* and the network is forbidden"):
        find_lender(Store(offline=True), "sd15", "sd15", ("vae",))
