"""Open PASD from full-size float32 files, like the published ones, to measure memory.

The files are sparse and take no disk space; memory and FLOP do not depend on the values.

python -m benchmarks.memory_pasd [--dtype bfloat16]     measures only the opening
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks.pasd_step import SD15
from benchmarks.tables import MIB, peak
from srcli.engines.pasd.engine import PasdEngine, load_pasd
from srcli.engines.runtime.device import Device
from srcli.models.control import build_control_net
from srcli.models.patches.paca import Paca
from srcli.models.stock import build_stock
from srcli.settings import ModelChoice
from srcli.weights.store import Store

BLOCKS = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
VAE = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, **BLOCKS}
TEXT = {"vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
MARKS = ("<|startoftext|>", "<|endoftext|>")


def engine(device: Device) -> PasdEngine:
    """PASD, opened from temporary files."""
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder))
        base, adapter = str(Path(folder) / "base"), str(Path(folder) / "adapter")
        opened = load_pasd(ModelChoice(engine="pasd", base=base, adapter=adapter), device, Store(offline=True))
    for layer in (opened.codec.net.quant_conv, opened.codec.net.decoder.conv_out):
        layer.bias.copy_(torch.linspace(-0.5, 0.5, len(layer.bias)))  # a picture whose values are all equal is refused
    return opened


def write_files(folder: Path) -> None:
    """Write a base in diffusers' layout and an adapter as PASD publishes it."""
    text = CLIPTextConfig(**TEXT, num_hidden_layers=12)
    with torch.device("meta"):
        paca, encoder = Paca(SD15), CLIPTextModel(text)
    unet, vae = build_stock(UNet2DConditionModel, SD15), build_stock(AutoencoderKL, VAE)
    write_part(folder / "base" / "unet", SD15, unet)
    write_part(folder / "base" / "vae", VAE, vae)
    write_part(folder / "base" / "text_encoder", text.to_dict(), encoder)
    write_part(folder / "adapter" / "unet", SD15, unet, paca)
    write_part(folder / "adapter" / "controlnet", SD15, build_control_net(SD15, ()))
    write_json(folder / "base" / "scheduler" / "scheduler_config.json", SCHEDULE)
    write_json(folder / "base" / "tokenizer" / "vocab.json", {mark: number for number, mark in enumerate(MARKS)})
    (folder / "base" / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")


def write_part(folder: Path, config: Mapping[str, Any], *nets: nn.Module) -> None:
    """Write a component: its configuration, and float32 zeros for its weights."""
    write_json(folder / "config.json", config)
    header, at = {}, 0
    for name, tensor in ((name, tensor) for net in nets for name, tensor in net.state_dict().items()):
        end = at + 4 * tensor.numel()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    name = "model" if folder.name == "text_encoder" else "diffusion_pytorch_model"
    with (folder / f"{name}.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + at)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    dtype = getattr(torch, parser.parse_args().dtype)
    before = peak()
    opened = engine(Device(torch.device("cpu"), dtype))
    fixed = opened.memory_need.fixed(opened.placement)
    print(f"PASD in {dtype}: peak {peak() / MIB:,.0f} MiB ({before / MIB:,.0f} before), {fixed / MIB:,.0f} planned")


if __name__ == "__main__":
    main()
