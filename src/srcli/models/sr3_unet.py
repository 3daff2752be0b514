"""SR3's conditional U-Net (Saharia et al. 2021), with the key names of its best-known implementation.

There are two variants: `sr3` is conditioned on the noise level (the square root of alpha bar), `ddpm` on the timestep.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PERIOD = math.log(1e4)


@dataclass(frozen=True, slots=True, kw_only=True)
class SR3Shape:
    """The sizes of a checkpoint's U-Net. `attention`: which levels have attention; the middle always does."""

    variant: str = "sr3"
    in_channel: int = 6
    out_channel: int = 3
    inner_channel: int = 64
    norm_groups: int = 32
    multiplier: tuple[int, ...] = (1, 2, 4, 8, 8)
    res_blocks: int = 2
    attention: tuple[bool, ...] = (False, False, False, True, False)
    dropout: float = 0.0

    @property
    def factor(self) -> int:
        """The unit that both sides of a picture must be multiples of."""
        return 1 << (len(self.multiplier) - 1)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> SR3Shape:
        """From the `model` section of an official configuration."""
        unet, size = config["unet"], config["diffusion"]["image_size"]
        multiplier = tuple(unet["channel_multiplier"])
        return cls(
            variant=config["which_model_G"],
            in_channel=unet["in_channel"],
            out_channel=unet["out_channel"],
            inner_channel=unet["inner_channel"],
            norm_groups=unet.get("norm_groups") or 32,
            multiplier=multiplier,
            res_blocks=unet["res_blocks"],
            attention=tuple(size >> level in unet["attn_res"] for level in range(len(multiplier))),
            dropout=unet["dropout"],
        )

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> SR3Shape:
        """From a state dict, which does not contain the number of norm groups: see `_guess_groups`."""
        first = state["downs.0.weight"]
        inner = first.shape[0]
        levels = _levels(state)
        multiplier = tuple(state[f"{block}.block2.block.3.weight"].shape[0] // inner for block, _ in levels)
        return cls(
            variant="sr3" if "noise_level_mlp.1.weight" in state else "ddpm",
            in_channel=first.shape[1],
            out_channel=state["final_conv.block.3.weight"].shape[0],
            inner_channel=inner,
            norm_groups=_guess_groups(inner, multiplier),
            multiplier=multiplier,
            res_blocks=sum(f"downs.{i}.res_block.block1.block.0.weight" in state for i in range(1, 99)) // len(levels),
            attention=tuple(attended for _, attended in levels),
        )


def _levels(state: Mapping[str, Tensor]) -> list[tuple[str, bool]]:
    """The first block of each level, and whether it has attention."""
    levels, index, fresh = [], 1, True
    while any(key.startswith(f"downs.{index}.") for key in state):
        down = f"downs.{index}"
        if fresh:
            levels.append((f"{down}.res_block", f"{down}.attn.qkv.weight" in state))
        fresh = f"{down}.conv.weight" in state
        index += 1
    return levels


def _guess_groups(inner: int, multiplier: Sequence[int]) -> int:
    """32, the official default, or 16 as in the published 64 -> 512 network, the only one with a multiplier of 16."""
    return math.gcd(16 if max(multiplier) == 16 else 32, inner)


class LevelEncoding(nn.Module):
    """Sines, then cosines of the unscaled noise level."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pairs = width // 2

    def forward(self, level: Tensor) -> Tensor:
        steps = torch.arange(self.pairs, dtype=level.dtype, device=level.device) / self.pairs
        angles = level[:, :, None] * torch.exp(-PERIOD * steps)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class StepEncoding(nn.Module):
    """Sines, then cosines of the timestep; the frequencies are a buffer in the checkpoint."""

    inv_freq: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("inv_freq", torch.exp(torch.arange(0, width, 2) * (-PERIOD / width)))

    def forward(self, step: Tensor) -> Tensor:
        angles = step[:, None].to(self.inv_freq) * self.inv_freq
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class LevelShift(nn.Module):
    """Adds the embedded noise level, without an activation before the linear layer; `affine`: also scales."""

    def __init__(self, width: int, channels: int, affine: bool = False) -> None:
        super().__init__()
        self.affine = affine
        self.noise_func = nn.Sequential(nn.Linear(width, channels * (1 + affine)))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        shift: Tensor = self.noise_func(embedding).view(x.shape[0], -1, 1, 1)
        if not self.affine:
            return x + shift
        gamma, beta = shift.chunk(2, dim=1)
        return (1 + gamma) * x + beta


class SR3Attention(nn.Module):
    """Attention over all positions. As in the official code, the scale is that of all channels, not of one head."""

    def __init__(self, channels: int, groups: int, heads: int = 1) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv2d(channels, channels * 3, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        # A copy with the channels innermost, as in models/time_encoder.py.
        split = self.qkv(self.norm(x)).view(n, self.heads, -1, h * w).transpose(2, 3)
        q, k, v = split.clone(memory_format=torch.contiguous_format).chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(q, k, v, scale=c**-0.5).transpose(2, 3).reshape(n, c, h, w)
        return x + self.out(mixed)  # type: ignore[no-any-return]


class Half(nn.Module):
    """Norm, swish, dropout, convolution."""

    def __init__(self, before: int, after: int, groups: int, dropout: float = 0.0) -> None:
        super().__init__()
        conv = nn.Conv2d(before, after, 3, padding=1)
        self.block = nn.Sequential(nn.GroupNorm(groups, before), nn.SiLU(), nn.Dropout(dropout), conv)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)  # type: ignore[no-any-return]


class SR3ResidualBlock(nn.Module):
    """Two `Half` blocks with the embedding added between them."""

    def __init__(self, before: int, after: int, shape: SR3Shape) -> None:
        super().__init__()
        width, groups = shape.inner_channel, shape.norm_groups
        if shape.variant == "sr3":
            self.noise_func = LevelShift(width, after)
        else:
            self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(width, after))
        self.block1 = Half(before, after, groups)
        self.block2 = Half(after, after, groups, shape.dropout)
        self.res_conv = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.block1(x)
        h = self.noise_func(h, embedding) if hasattr(self, "noise_func") else h + self.mlp(embedding)[..., None, None]
        return self.block2(h) + self.res_conv(x)  # type: ignore[no-any-return]


class SR3Block(nn.Module):
    """A residual block, followed by attention on levels that have it."""

    def __init__(self, before: int, after: int, shape: SR3Shape, attended: bool) -> None:
        super().__init__()
        self.res_block = SR3ResidualBlock(before, after, shape)
        self.attn = SR3Attention(after, shape.norm_groups) if attended else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return self.attn(self.res_block(x, embedding))  # type: ignore[no-any-return]


class Resample(nn.Module):
    """Downsampling by a strided convolution, or nearest-neighbour upsampling followed by a convolution."""

    def __init__(self, channels: int, up: bool) -> None:
        super().__init__()
        self.up = up
        self.conv = nn.Conv2d(channels, channels, 3, stride=1 if up else 2, padding=1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0) if self.up else x)  # type: ignore[no-any-return]


class SR3UNet(nn.Module):
    """Predicts the noise in a picture. Input: the condition, then the noisy picture, as channels."""

    def __init__(self, shape: SR3Shape) -> None:
        super().__init__()
        self.shape = shape
        width = shape.inner_channel
        encode = LevelEncoding(width) if shape.variant == "sr3" else StepEncoding(width)
        mlp = nn.Sequential(encode, nn.Linear(width, width * 4), nn.SiLU(), nn.Linear(width * 4, width))
        self.mlp_name = "noise_level_mlp" if shape.variant == "sr3" else "time_mlp"
        self.add_module(self.mlp_name, mlp)
        self.downs, skips = self._build_down()
        deep = skips[-1]
        self.mid = nn.ModuleList([SR3Block(deep, deep, shape, True), SR3Block(deep, deep, shape, False)])
        self.ups = self._build_up(skips)
        self.final_conv = Half(width * shape.multiplier[0], shape.out_channel, shape.norm_groups)

    def _build_down(self) -> tuple[nn.ModuleList, list[int]]:
        shape = self.shape
        parts: list[nn.Module] = [nn.Conv2d(shape.in_channel, shape.inner_channel, 3, padding=1)]
        skips = [shape.inner_channel]
        for level, (times, attended) in enumerate(zip(shape.multiplier, shape.attention, strict=True)):
            for _ in range(shape.res_blocks):
                parts.append(SR3Block(skips[-1], shape.inner_channel * times, shape, attended))
                skips.append(shape.inner_channel * times)
            if level + 1 < len(shape.multiplier):
                parts.append(Resample(skips[-1], up=False))
                skips.append(skips[-1])
        return nn.ModuleList(parts), skips

    def _build_up(self, skips: list[int]) -> nn.ModuleList:
        shape, parts, now = self.shape, list[nn.Module](), skips[-1]
        left = list(skips)
        for level in reversed(range(len(shape.multiplier))):
            after = shape.inner_channel * shape.multiplier[level]
            for _ in range(shape.res_blocks + 1):
                parts.append(SR3Block(now + left.pop(), after, shape, shape.attention[level]))
                now = after
            if level:
                parts.append(Resample(now, up=True))
        return nn.ModuleList(parts)

    def forward(self, x: Tensor, noise_level: Tensor) -> Tensor:
        """`noise_level`: of each picture, (n, 1), for sr3; for ddpm its timestep, (n,), which stands for it."""
        embedding = self.get_submodule(self.mlp_name)(noise_level)
        x = self.downs[0](x)
        skips = [x]
        for part in self.downs[1:]:
            x = part(x, embedding)
            skips.append(x)
        for part in self.mid:
            x = part(x, embedding)
        for part in self.ups:
            x = part(x if isinstance(part, Resample) else torch.cat([x, skips.pop()], dim=1), embedding)
        return self.final_conv(x)  # type: ignore[no-any-return]


def build_sr3_unet(shape: SR3Shape) -> SR3UNet:
    """The network on the meta device."""
    with torch.device("meta"):
        return SR3UNet(shape).eval()


def extract_network_state(checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's tensors from an official checkpoint, without the buffers of its noise schedule."""
    prefix = "denoise_fn."
    return {key.removeprefix(prefix): value for key, value in checkpoint.items() if key.startswith(prefix)}


def noise_loss(
    unet: SR3UNet, clean: Tensor, condition: Tensor | None, noise: Tensor, keep: Tensor, noise_level: Tensor
) -> Tensor:
    """The training loss: mean absolute error of the predicted noise. `keep` (n, 1): the square root of alpha bar."""
    keep = keep.view(-1, 1, 1, 1)
    noisy = keep * clean + (1 - keep.square()).sqrt() * noise
    return F.l1_loss(unet(noisy if condition is None else torch.cat([condition, noisy], dim=1), noise_level), noise)
