"""StableSR's time-aware encoder: the first half of a U-Net, which conditions the denoiser at each step.

Its input is the latents of the degraded picture, without noise. Key names are the official ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor, nn
from torch.nn import functional as F

TIME_ENCODER_HEADS = 4
GROUPS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeEncoderShape:
    """The widths of the levels, which of them have attention, and the width of all outputs."""

    widths: tuple[int, ...] = (256, 256, 512, 512)
    attention: tuple[bool, ...] = (True, True, True, False)
    blocks: int = 2
    first: int = 256
    out: int = 256

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> TimeEncoderShape:
        """From an official state dict, without prefix."""
        count = max(int(key.split(".")[1]) for key in state if key.startswith("input_blocks."))
        levels = sum(f"input_blocks.{i}.0.op.weight" in state for i in range(count + 1)) + 1
        each = (count + 1) // levels  # per level: its blocks, and its downsampler or the first convolution
        firsts = [f"input_blocks.{level * each + 1}" for level in range(levels)]
        return cls(
            widths=tuple(state[f"{name}.0.out_layers.3.weight"].shape[0] for name in firsts),
            attention=tuple(f"{name}.1.qkv.weight" in state for name in firsts),
            blocks=each - 1,
            first=state["input_blocks.0.0.weight"].shape[0],
            out=state["fea_tran.0.out_layers.3.weight"].shape[0],
        )


class TimeResidualBlock(nn.Module):
    """Twice norm, swish and convolution, with the timestep's embedding added between."""

    def __init__(self, before: int, after: int, embedding: int) -> None:
        super().__init__()
        conv = nn.Conv2d(before, after, 3, padding=1)
        self.in_layers = nn.Sequential(nn.GroupNorm(GROUPS, before), nn.SiLU(), conv)
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, after))
        conv = nn.Conv2d(after, after, 3, padding=1)
        self.out_layers = nn.Sequential(nn.GroupNorm(GROUPS, after), nn.SiLU(), nn.Identity(), conv)
        self.skip_connection = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.in_layers(x) + self.emb_layers(embedding)[..., None, None]
        return self.skip_connection(x) + self.out_layers(h)  # type: ignore[no-any-return]


class TimeAttention(nn.Module):
    """Attention over all positions; the query, key and value channels are grouped by head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width)
        self.qkv = nn.Conv1d(width, width * 3, 1)
        self.proj_out = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        n, c = x.shape[:2]
        flat = x.flatten(2)
        split = self.qkv(self.norm(flat)).view(n, TIME_ENCODER_HEADS, -1, flat.shape[-1]).transpose(2, 3)
        # A copy with the channels innermost: otherwise attention falls back to materializing all scores. With a single
        # position `contiguous` copies nothing, and CUDA's kernels refuse the remaining strides.
        q, k, v = split.clone(memory_format=torch.contiguous_format).chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(n, c, -1)
        return (flat + self.proj_out(mixed)).view_as(x)  # type: ignore[no-any-return]


class Down(nn.Module):
    """Downsampling by a strided convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return self.op(x)  # type: ignore[no-any-return]


class TimeEncoder(nn.Module):
    """Maps latents and timestep to one feature map per level, at 1, 1/2, 1/4 and 1/8 of the latents' size."""

    input_blocks: Any

    def __init__(self, shape: TimeEncoderShape) -> None:
        super().__init__()
        embedding = shape.first * 4
        self.shape = shape
        self.time_embed = nn.Sequential(nn.Linear(shape.first, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.input_blocks = nn.ModuleList([nn.ModuleList([nn.Conv2d(4, shape.first, 3, padding=1)])])
        self.input_blocks.extend(nn.ModuleList(parts) for parts in _build_layers(shape, embedding))
        last = shape.widths[-1]
        self.middle_block = nn.ModuleList(
            [TimeResidualBlock(last, last, embedding), TimeAttention(last), TimeResidualBlock(last, last, embedding)]
        )
        self.fea_tran = nn.ModuleList(TimeResidualBlock(width, shape.out, embedding) for width in shape.widths)

    def forward(self, latent: Tensor, step: Tensor) -> list[Tensor]:
        """`step`: the training timestep (0..999) of each latent."""
        embedding = self.time_embed(embed_step(step, self.shape.first).to(latent.dtype))
        x, taps = self.input_blocks[0][0](latent), []
        for block in self.input_blocks[1:]:
            if isinstance(block[0], Down):
                taps.append(x)
            for part in block:
                x = part(x, embedding)
        for part in self.middle_block:
            x = part(x, embedding)
        return [out(tap, embedding) for out, tap in zip(self.fea_tran, [*taps, x], strict=True)]


def _build_layers(shape: TimeEncoderShape, embedding: int) -> Iterator[list[nn.Module]]:
    before = shape.first
    for level, (width, attended) in enumerate(zip(shape.widths, shape.attention, strict=True)):
        for _ in range(shape.blocks):
            yield [TimeResidualBlock(before, width, embedding), *([TimeAttention(width)] if attended else [])]
            before = width
        if level + 1 < len(shape.widths):
            yield [Down(width)]


def embed_step(step: Tensor, width: int) -> Tensor:
    """Cosines, then sines of the timestep."""
    embedding: Tensor = get_timestep_embedding(step, width, flip_sin_to_cos=True, downscale_freq_shift=0)
    return embedding


def build_time_encoder(state: Mapping[str, Tensor]) -> TimeEncoder:
    """The encoder for a state dict, on the meta device."""
    with torch.device("meta"):
        return TimeEncoder(TimeEncoderShape.from_state(state)).eval()
