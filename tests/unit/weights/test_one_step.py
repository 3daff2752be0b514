"""Adapters of one-step models: which files are taken, and what is said of those that are not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from tests.golden.cases import HERE

from srcli.errors import WeightsError
from srcli.weights.families import detect_family
from srcli.weights.header import read_header
from srcli.weights.one_step import UNET_PART, VAE_PART, apply_changes, read_adapter
from srcli.weights.open import load_component
from srcli.weights.pickles import to_safetensors

TINY = HERE / "onestep" / "tiny"
OSEDIFF, PISA = TINY / "osediff.pkl", TINY / "pisa_sr.pkl"
Found = dict[str, Any]


@cache
def published(path: Path) -> Found:
    return torch.load(path, weights_only=True)


def converted(path: Path, change: Callable[[Found], object], folder: Path) -> Path:
    """The published file, changed, through the conversion."""
    found = copy.deepcopy(published(path))
    change(found)
    torch.save(found, folder / "changed.pkl")
    return to_safetensors(folder / "changed.pkl", folder / "changed.safetensors")


def without(part: str, name: str) -> Callable[[Found], object]:
    return lambda found: found[part].pop(name)


def replaced(part: str, name: str, tensor: torch.Tensor) -> Callable[[Found], object]:
    return lambda found: found[part].update({name: tensor})


LAST = "up_blocks.3.resnets.2.conv2"
WRONG = {
    "half of a pair": (OSEDIFF, without("state_dict_unet", f"{LAST}.lora_A.default_decoder.weight"), f"{LAST} lacks"),
    "a module without tensors": (
        OSEDIFF,
        lambda found: found["unet_lora_decoder_modules"].append("up_blocks.9.conv"),
        "lists up_blocks.9.conv and has no unet change",
    ),
    "a module that is not listed": (
        PISA,
        replaced("state_dict_unet", "conv_x.lora_A.default_encoder_pix.weight", torch.ones(4, 4)),
        "changes conv_x, which it does not list",
    ),
    "another rank": (PISA, lambda found: found.update(lora_rank_unet_sem=3), "is of rank 2 and the file says 3"),
    "no rank": (PISA, lambda found: found.pop("lora_rank_unet_sem"), "lacks lora_rank_unet_sem"),
    "no VAE": (OSEDIFF, lambda found: found.pop("state_dict_vae"), "lacks state_dict_vae"),
    "an empty VAE": (OSEDIFF, lambda found: found.update(state_dict_vae={}), "lists encoder.conv_in and has no vae"),
    "no list": (OSEDIFF, lambda found: found.pop("unet_lora_others_modules"), "lacks unet_lora_others_modules"),
    "no input convolution": (
        OSEDIFF,
        without("state_dict_unet", "conv_in.base_layer.bias"),
        r"lacks unet\.conv_in\.bias",
    ),
    "an input convolution too many": (
        PISA,
        replaced("state_dict_unet", "conv_in.base_layer.bias", torch.ones(16)),
        "conv_in.bias",
    ),
    "another adapter": (
        PISA,
        replaced("state_dict_unet", "conv_in.lora_A.default_encoder.weight", torch.ones(4, 4)),
        "belongs to no known adapter",
    ),
    "no change at all": (OSEDIFF, replaced("state_dict_unet", "conv_out.bias", torch.ones(4)), "is not part of a LoRA"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_published_file_that_is_not_whole_is_refused(case: str, tmp_path: Path) -> None:
    path, change, said = WRONG[case]
    with pytest.raises(WeightsError, match=said) as caught:
        converted(path, change, tmp_path)
    assert "\n" not in str(caught.value) and not (tmp_path / "changed.safetensors").exists()


@pytest.mark.parametrize("path", [OSEDIFF, PISA], ids=["osediff", "pisa"])
def test_a_truncated_pickle_is_refused(path: Path, tmp_path: Path) -> None:
    content = path.read_bytes()
    (tmp_path / "cut.pkl").write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match="or is damaged"):
        to_safetensors(tmp_path / "cut.pkl", tmp_path / "cut.safetensors")


def test_the_flat_form_says_what_it_is(tmp_path: Path) -> None:
    header = read_header(converted(OSEDIFF, lambda found: None, tmp_path))
    assert header.metadata | {"kind": "osediff", "lora_alpha": "8", "rank_unet": "4"} == dict(header.metadata)
    found = detect_family(header.path)
    assert (found.kind, found.family) == ("osediff", "width32")
    assert detect_family(TINY / "pisa_sr.safetensors").kind == "pisa-sr"


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({}, "not an OSEDiff or PiSA-SR adapter"),
        ({"kind": "osediff"}, "gives no lora_alpha"),
        ({"kind": "osediff", "lora_alpha": "8", "rank_unet": "four"}, "gives no rank_unet"),
        ({"kind": "pisa-sr", "lora_alpha": "8"}, r"lacks all of its pix\.unet part"),
    ],
)
def test_a_flat_file_with_other_metadata_is_refused(metadata: dict[str, str], said: str, tmp_path: Path) -> None:
    save_file(load_file(TINY / "osediff.safetensors"), tmp_path / "x.safetensors", {"format": "pt", **metadata})
    with pytest.raises(WeightsError, match=said):
        read_adapter(tmp_path / "x.safetensors")


def test_changes_of_another_network_are_refused() -> None:
    changes = read_adapter(TINY / "osediff.safetensors").changes
    unet = load_component(UNet2DConditionModel, TINY / "base" / "unet")
    with pytest.raises(WeightsError, match="encoder_conv_in is not in this UNet"):
        apply_changes(changes[VAE_PART], unet, "unet")
    narrow = UNet2DConditionModel.from_config({**unet.config, "block_out_channels": (8, 24, 24, 24)})
    with pytest.raises(WeightsError, match=r"conv_in\.(weight|bias) does not fit this base model"):
        apply_changes(changes[UNET_PART], narrow, "unet")
