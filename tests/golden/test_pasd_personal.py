"""Personalised bases and LoRA files, entering as the official program lets them."""

import re
from pathlib import Path

import pytest
import torch
from tests.golden.cases import Case, each_group, off_by, picture

from srcli.engines.pasd.weights import PasdNetworks, open_pasd
from srcli.settings import LoraChoice, ModelChoice
from srcli.weights.families import detect_family
from srcli.weights.lock import Entry, File
from srcli.weights.overlay import write_entry
from srcli.weights.places import find_places
from srcli.weights.store import Store

PART = re.compile(r"(?P<kind>\w+)\.(?P<how>none|ckpt_alpha|lora_mult)(?P<amount>[0-9.]*)\.")


@pytest.fixture
def usual_base(case: Case) -> None:
    """The base that PASD takes when none is chosen: here the tiny one, from the user's own lock."""
    folder = case.root / "tiny" / "base"
    located = Store(offline=True).resolve(str(folder), "base")
    write_entry(find_places().overlay, entry(folder, dict(located.sha256)))


def entry(folder: Path, hashes: dict[str, str]) -> Entry:
    files = {path: File(path, (folder / path).stat().st_size, digest) for path, digest in hashes.items()}
    return Entry(name="sd15", kind="base", family="any", license="none", local=str(folder), files=files)


def personal(case: Case, kind: str) -> str:
    """The file of this kind beside the vectors, whatever its name."""
    found = (case.root / "personalized").glob("*.safetensors")
    return str(next(path for path in found if detect_family(path).kind == kind))


def loaded(case: Case, part: str) -> PasdNetworks:
    said = PART.fullmatch(part)
    adapter = str(case.root / "tiny" / said["kind"])
    choice = ModelChoice(engine="pasd", adapter=adapter)
    if said["how"] == "ckpt_alpha":
        base, blend = personal(case, "checkpoint"), float(said["amount"])
        choice = ModelChoice(engine="pasd", adapter=adapter, base=base, blend=blend)
    if said["how"] == "lora_mult":
        lora = LoraChoice(source=personal(case, "lora"), weight=float(said["amount"]))
        choice = ModelChoice(engine="pasd", adapter=adapter, loras=(lora,), lora_alpha=False)
    return open_pasd(choice, Store(offline=True))


@pytest.mark.usefixtures("usual_base")
@each_group("pasd", "k_personalized*", lambda case: case.groups("unet_out"))
@torch.inference_mode()
def test_personalised(case: Case, part: str) -> None:
    given, parts = case.tensors, loaded(case, part)
    for net in (parts.unet, parts.paca, parts.control, parts.base.text_encoder, parts.base.vae):
        net.float()  # as `place` would
    x, text, t = given["sample"], given["encoder_hidden_states"], torch.tensor(int(case.notes["timestep"]))
    down, mid = parts.control(x, t, text, picture(given["controlnet_cond_u8"]), return_dict=False)
    with parts.paca.attending(down):
        out = parts.unet(x, t, text, down_block_additional_residuals=down, mid_block_additional_residual=mid).sample
    assert off_by(out, given[f"{part}unet_out"]) <= 1e-5
    embeds = parts.base.text_encoder(given["input_ids"]).last_hidden_state
    assert off_by(embeds, given[f"{part}text_embeds"]) <= 1e-5
    if (want := given.get(f"{part}vae_decode")) is not None:
        assert off_by(parts.base.vae.decode(x).sample, want) <= 1e-5
