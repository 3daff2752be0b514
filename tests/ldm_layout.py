"""Stable Diffusion 1.5 and 2.1 at full width as one file in the original layout, without weights: all of it zero.

The names and shapes are those of the published checkpoints. The file is sparse and takes no room on the disk.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WIDTHS = (320, 640, 1280, 1280)
VAE_WIDTHS = (128, 256, 512, 512)
TIME = 1280
Shapes = Iterator[tuple[str, tuple[int, ...]]]


@dataclass(frozen=True)
class Layout:
    """What tells the two families apart: the width of texts, and how the UNet projects into its transformers."""

    text: int
    linear: bool

    def shapes(self) -> dict[str, tuple[int, ...]]:
        text = open_clip(self.text) if self.linear else clip(self.text)
        parts = [("model.diffusion_model.", unet(self)), ("first_stage_model.", vae()), ("cond_stage_model.", text)]
        schedule = {name: (1000,) for name in ("betas", "alphas_cumprod", "sqrt_alphas_cumprod")}
        return schedule | {prefix + name: shape for prefix, part in parts for name, shape in part}


SD15, SD21 = Layout(768, linear=False), Layout(1024, linear=True)


def write_sparse(path: Path, layout: Layout) -> Path:
    """The file, in single precision."""
    header, end = {}, 0
    for name, shape in layout.shapes().items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return path


def layer(name: str, out: int, *inner: int, bias: bool = True) -> Shapes:
    yield f"{name}.weight", (out, *inner)
    if bias:
        yield f"{name}.bias", (out,)


def unet(layout: Layout) -> Shapes:
    yield from layer("time_embed.0", TIME, WIDTHS[0])
    yield from layer("time_embed.2", TIME, TIME)
    yield from layer("input_blocks.0.0", WIDTHS[0], 4, 3, 3)
    skips, width, index = [WIDTHS[0]], WIDTHS[0], 1
    for level, wide in enumerate(WIDTHS):
        for _ in range(2):
            yield from residual(f"input_blocks.{index}.0", width, wide)
            if level < 3:
                yield from transformer(f"input_blocks.{index}.1", wide, layout)
            skips, width, index = [*skips, wide], wide, index + 1
        if level < 3:
            yield from layer(f"input_blocks.{index}.0.op", wide, wide, 3, 3)
            skips, index = [*skips, wide], index + 1
    yield from residual("middle_block.0", width, width)
    yield from transformer("middle_block.1", width, layout)
    yield from residual("middle_block.2", width, width)
    for index in range(12):
        level = 3 - index // 3
        wide = WIDTHS[level]
        yield from residual(f"output_blocks.{index}.0", width + skips.pop(), wide)
        if level < 3:
            yield from transformer(f"output_blocks.{index}.1", wide, layout)
        if index % 3 == 2 and level:
            yield from layer(f"output_blocks.{index}.{2 if level < 3 else 1}.conv", wide, wide, 3, 3)
        width = wide
    yield from layer("out.0", width)
    yield from layer("out.2", 4, width, 3, 3)


def residual(name: str, inner: int, out: int) -> Shapes:
    yield from layer(f"{name}.in_layers.0", inner)
    yield from layer(f"{name}.in_layers.2", out, inner, 3, 3)
    yield from layer(f"{name}.emb_layers.1", out, TIME)
    yield from layer(f"{name}.out_layers.0", out)
    yield from layer(f"{name}.out_layers.3", out, out, 3, 3)
    if inner != out:
        yield from layer(f"{name}.skip_connection", out, inner, 1, 1)


def transformer(name: str, width: int, layout: Layout) -> Shapes:
    kernel = () if layout.linear else (1, 1)
    yield from layer(f"{name}.norm", width)
    yield from layer(f"{name}.proj_in", width, width, *kernel)
    block = f"{name}.transformer_blocks.0"
    for attention, seen in (("attn1", width), ("attn2", layout.text)):
        yield from layer(f"{block}.{attention}.to_q", width, width, bias=False)
        yield from layer(f"{block}.{attention}.to_k", width, seen, bias=False)
        yield from layer(f"{block}.{attention}.to_v", width, seen, bias=False)
        yield from layer(f"{block}.{attention}.to_out.0", width, width)
    yield from layer(f"{block}.ff.net.0.proj", 8 * width, width)
    yield from layer(f"{block}.ff.net.2", width, 4 * width)
    for norm in ("norm1", "norm2", "norm3"):
        yield from layer(f"{block}.{norm}", width)
    yield from layer(f"{name}.proj_out", width, width, *kernel)


def vae() -> Shapes:
    deepest = VAE_WIDTHS[-1]
    yield from layer("encoder.conv_in", VAE_WIDTHS[0], 3, 3, 3)
    width = VAE_WIDTHS[0]
    for level, wide in enumerate(VAE_WIDTHS):
        for block in range(2):
            yield from vae_block(f"encoder.down.{level}.block.{block}", width, wide)
            width = wide
        if level < 3:
            yield from layer(f"encoder.down.{level}.downsample.conv", wide, wide, 3, 3)
    yield from vae_middle("encoder", deepest)
    yield from layer("encoder.norm_out", deepest)
    yield from layer("encoder.conv_out", 8, deepest, 3, 3)
    yield from layer("decoder.conv_in", deepest, 4, 3, 3)
    yield from vae_middle("decoder", deepest)
    for level in (3, 2, 1, 0):
        for block in range(3):
            yield from vae_block(f"decoder.up.{level}.block.{block}", width, VAE_WIDTHS[level])
            width = VAE_WIDTHS[level]
        if level:
            yield from layer(f"decoder.up.{level}.upsample.conv", width, width, 3, 3)
    yield from layer("decoder.norm_out", width)
    yield from layer("decoder.conv_out", 3, width, 3, 3)
    yield from layer("quant_conv", 8, 8, 1, 1)
    yield from layer("post_quant_conv", 4, 4, 1, 1)


def vae_block(name: str, inner: int, out: int) -> Shapes:
    yield from layer(f"{name}.norm1", inner)
    yield from layer(f"{name}.conv1", out, inner, 3, 3)
    yield from layer(f"{name}.norm2", out)
    yield from layer(f"{name}.conv2", out, out, 3, 3)
    if inner != out:
        yield from layer(f"{name}.nin_shortcut", out, inner, 1, 1)


def vae_middle(part: str, width: int) -> Shapes:
    yield from vae_block(f"{part}.mid.block_1", width, width)
    yield from layer(f"{part}.mid.attn_1.norm", width)
    for name in ("q", "k", "v", "proj_out"):
        yield from layer(f"{part}.mid.attn_1.{name}", width, width, 1, 1)
    yield from vae_block(f"{part}.mid.block_2", width, width)


def clip(width: int) -> Shapes:
    yield "transformer.text_model.embeddings.position_ids", (1, 77)
    yield "transformer.text_model.embeddings.token_embedding.weight", (49408, width)
    yield "transformer.text_model.embeddings.position_embedding.weight", (77, width)
    for index in range(12):
        block = f"transformer.text_model.encoder.layers.{index}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from layer(f"{block}.self_attn.{name}", width, width)
        yield from layer(f"{block}.mlp.fc1", 4 * width, width)
        yield from layer(f"{block}.mlp.fc2", width, 4 * width)
        for name in ("layer_norm1", "layer_norm2"):
            yield from layer(f"{block}.{name}", width)
    yield from layer("transformer.text_model.final_layer_norm", width)


def open_clip(width: int) -> Shapes:
    yield "model.positional_embedding", (77, width)
    yield "model.text_projection", (width, width)
    yield "model.logit_scale", ()
    yield "model.token_embedding.weight", (49408, width)
    for index in range(24):
        block = f"model.transformer.resblocks.{index}"
        yield f"{block}.attn.in_proj_weight", (3 * width, width)
        yield f"{block}.attn.in_proj_bias", (3 * width,)
        yield from layer(f"{block}.attn.out_proj", width, width)
        yield from layer(f"{block}.mlp.c_fc", 4 * width, width)
        yield from layer(f"{block}.mlp.c_proj", width, 4 * width)
        for name in ("ln_1", "ln_2"):
            yield from layer(f"{block}.{name}", width)
    yield from layer("model.ln_final", width)
