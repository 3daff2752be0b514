"""StableSR's controllable feature wrapping (CFW): the decoder mixes in what the encoder saw of the picture.

It stands beside a stock AutoencoderKL, whose decoder it enters by hooks after the last residual block of its two
inner levels. With a weight of zero the VAE is itself, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = (1, 2)  # halvings of the picture at which features are taken and mixed in
PREFIX = "decoder.fusion_layer_"


class Residual(nn.Module):
    """Norm, swish, convolution, twice; the skip is widened where it must be."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(32, before, eps=1e-6)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.norm2 = nn.GroupNorm(32, after, eps=1e-6)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.conv_out = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return self.conv_out(x) + h  # type: ignore[no-any-return]


class Dense(nn.Module):
    """Five convolutions, each seeing all before it; a fifth of their sum is added."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        for index in range(1, 5):
            self.add_module(f"conv{index}", nn.Conv2d(width + (index - 1) * growth, growth, 3, padding=1))
        self.conv5 = nn.Conv2d(width + 4 * growth, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for index in range(1, 5):
            new = F.leaky_relu(self.get_submodule(f"conv{index}")(seen), 0.2)
            seen = torch.cat([seen, new], dim=1)
        return x + 0.2 * self.conv5(seen)  # type: ignore[no-any-return]


class DenseChain(nn.Module):
    """Three dense blocks in a residual of their own (RRDB)."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        for index in range(1, 4):
            self.add_module(f"rdb{index}", Dense(width, growth))

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for part in self.children():
            h = part(h)
        return x + 0.2 * h


class Fusion(nn.Module):
    """What the encoder's and the decoder's features of one level add to the decoder's."""

    def __init__(self, width: int, growth: int, chains: int) -> None:
        super().__init__()
        self.encode_enc_1 = Residual(2 * width, width)
        self.encode_enc_2 = nn.Sequential(*(DenseChain(width, growth) for _ in range(chains)))
        self.encode_enc_3 = Residual(width, width)

    def forward(self, seen: Tensor, made: Tensor) -> Tensor:
        found = self.encode_enc_1(torch.cat([seen, made], dim=1))
        return self.encode_enc_3(self.encode_enc_2(found))  # type: ignore[no-any-return]


class Wrapping(nn.Module):
    """The fusion layers of both levels, and the features that the encoder left for them."""

    def __init__(self, widths: Mapping[int, int], growth: int, chains: int) -> None:
        super().__init__()
        for level in LEVELS:
            self.add_module(f"fusion_layer_{level}", Fusion(widths[level], growth, chains))
        self._weight = 0.0
        self._seen: dict[int, Tensor] | None = None

    def attach(self, vae: AutoencoderKL) -> None:
        """Enter `vae`, for good."""
        for level in LEVELS:
            vae.encoder.down_blocks[level].resnets[-1].register_forward_hook(partial(self._keep, level))
            site = vae.decoder.up_blocks[-1 - level].resnets[-1]
            site.register_forward_hook(partial(self._mix, level))

    @contextmanager
    def watching(self) -> Iterator[dict[int, Tensor]]:
        """Collect the features of the picture that is encoded inside."""
        self._seen = {}
        try:
            yield self._seen
        finally:
            self._seen = None

    @contextmanager
    def mixing(self, seen: dict[int, Tensor], weight: float) -> Iterator[None]:
        """Mix `weight` of the collected features into what is decoded inside."""
        self._seen, self._weight = seen, weight
        try:
            yield
        finally:
            self._seen, self._weight = None, 0.0

    def fused(self, level: int, seen: Tensor, made: Tensor, weight: float) -> Tensor:
        """The decoder's features of a level with the encoder's mixed in."""
        return made + weight * self.get_submodule(f"fusion_layer_{level}")(seen, made)  # type: ignore[no-any-return]

    def _keep(self, level: int, _site: nn.Module, _args: object, out: Tensor) -> None:
        if self._seen is not None and not self._weight:
            self._seen[level] = out

    def _mix(self, level: int, _site: nn.Module, _args: object, out: Tensor) -> Any:
        if self._seen is None or not self._weight:
            return out
        return self.fused(level, self._seen[level], out, self._weight)


def wrapping_state(checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The fusion layers of an official CFW checkpoint, whose VAE and loss are left behind."""
    return {key.removeprefix("decoder."): v for key, v in checkpoint.items() if key.startswith(PREFIX)}


def build(state: Mapping[str, Tensor]) -> Wrapping:
    """The fusion layers that a state dict is for, without memory behind their weights."""
    convs = {level: state[f"fusion_layer_{level}.encode_enc_3.conv1.weight"] for level in LEVELS}
    growth = state["fusion_layer_1.encode_enc_2.0.rdb1.conv1.weight"].shape[0]
    chains = len({key.split(".")[2] for key in state if key.startswith("fusion_layer_1.encode_enc_2.")})
    with torch.device("meta"):
        return Wrapping({level: conv.shape[0] for level, conv in convs.items()}, growth, chains).eval()
