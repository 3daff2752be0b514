"""StableSR's controllable feature wrapping (CFW): the VAE's decoder mixes in features of its encoder.

It is separate from the stock AutoencoderKL, and runs between the last residual block and the resampling of two inner
levels. With weight 0 it does not run, and the VAE's result is bit-identical. Like the VAE it works in bands, in
place; `forward` and the two functions at the end are the plain path with gradients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn.functional import silu

from srcli.models.banded_vae import After, run_resnet
from srcli.models.row_bands import Bands
from srcli.models.rrdb import Rrdb

FUSED_LEVELS = (1, 2)  # levels whose features are mixed, as the number of halvings of the picture
FUSION_PREFIX = "fusion_layer_"  # of the tensor names in the decoder of an official CFW checkpoint
DENSE_BLOCK_REACH = 5  # rows on either side that influence a dense block's row


class VaeResidualBlock(nn.Module):
    """A residual block of the VAE's kind with the official key names; `run_resnet` runs it in bands."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(32, before, eps=1e-6)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.norm2 = nn.GroupNorm(32, after, eps=1e-6)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.conv_out = nn.Conv2d(before, after, 1) if before != after else None

    @property
    def conv_shortcut(self) -> nn.Module | None:
        """diffusers' name for the convolution of the skip connection."""
        return self.conv_out

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous()  # torch 2.13's group norm crashes in its backward pass on channels-last input
        h = self.conv2(silu(self.norm2(self.conv1(silu(self.norm1(x))))))
        return h + (x if self.conv_out is None else self.conv_out(x))  # type: ignore[no-any-return]


class Chain(Rrdb):
    """An RRDB that can run in bands."""

    def run(self, x: Tensor, bands: Bands, device: torch.device) -> Tensor:
        """In bands, each computed with surrounding rows that are cut off again."""
        h = x
        for part in self.children():
            h = _run_in_bands(part, h, bands, device)
        return h.mul_(0.2).add_(x)


class Fusion(nn.Module):
    """The residual to the decoder's features of one level, from the encoder's and the decoder's features."""

    encode_enc_2: Any

    def __init__(self, width: int, growth: int, chains: int) -> None:
        super().__init__()
        self.encode_enc_1 = VaeResidualBlock(2 * width, width)
        self.encode_enc_2 = nn.Sequential(*(Chain(width, growth) for _ in range(chains)))
        self.encode_enc_3 = VaeResidualBlock(width, width)

    def forward(self, encoded: Tensor, decoded: Tensor) -> Tensor:
        h = self.encode_enc_1(torch.cat([encoded, decoded], dim=1))
        return self.encode_enc_3(self.encode_enc_2(h))  # type: ignore[no-any-return]

    def run(self, encoded: Tensor, decoded: Tensor, bands: Bands, device: torch.device) -> Tensor:
        h = run_resnet(self.encode_enc_1, torch.cat([encoded.to(decoded), decoded], dim=1), bands, device)
        for chain in self.encode_enc_2:
            h = chain.run(h, bands, device)
        return run_resnet(self.encode_enc_3, h, bands, device)


class Wrapping(nn.Module):
    """The fusion layers of both levels."""

    def __init__(self, widths: Mapping[int, int], growth: int, chains: int) -> None:
        super().__init__()
        for level in FUSED_LEVELS:
            self.add_module(f"fusion_layer_{level}", Fusion(widths[level], growth, chains))

    def mixing(self, features: Mapping[int, Tensor], weight: float, bands: Bands, device: torch.device) -> After:
        """A function that mixes the encoder's features of the same size into each decoder level, with `weight`."""

        def mix(level: int, decoded: Tensor) -> Tensor:
            halvings = len(FUSED_LEVELS) + 1 - level
            if halvings not in FUSED_LEVELS:
                return decoded
            self.to(device, decoded.dtype)  # the VAE may have switched to fp32
            return decoded.add_(self.fusion(halvings).run(features[halvings], decoded, bands, device), alpha=weight)

        return mix

    def fusion(self, level: int) -> Fusion:
        return self.get_submodule(f"fusion_layer_{level}")  # type: ignore[return-value]


def keep_features(features: dict[int, Tensor]) -> After:
    """A function that stores the encoder's features of the fused levels in `features`."""

    def keep(level: int, encoded: Tensor) -> Tensor:
        if level in FUSED_LEVELS:
            features[level] = encoded
        return encoded

    return keep


def _run_in_bands(part: nn.Module, x: Tensor, bands: Bands, device: torch.device) -> Tensor:
    out = torch.empty_like(x)
    for top, bottom in bands.cut(*x.shape[2:]):
        first, last = max(0, top - DENSE_BLOCK_REACH), min(x.shape[2], bottom + DENSE_BLOCK_REACH)
        out[:, :, top:bottom] = part(x[:, :, first:last].to(device))[:, :, top - first : bottom - first]
    return out


def build_cfw(state: Mapping[str, Tensor]) -> Wrapping:
    """The fusion layers for a state dict, on the meta device."""
    convs = {level: state[f"fusion_layer_{level}.encode_enc_3.conv1.weight"] for level in FUSED_LEVELS}
    growth = state["fusion_layer_1.encode_enc_2.0.rdb1.conv1.weight"].shape[0]
    chains = len({key.split(".")[2] for key in state if key.startswith("fusion_layer_1.encode_enc_2.")})
    with torch.device("meta"):
        return Wrapping({level: conv.shape[0] for level, conv in convs.items()}, growth, chains).eval()


def encoder_features(vae: AutoencoderKL, picture: Tensor) -> dict[int, Tensor]:
    """The encoder's features of pictures in -1..1 at the fused levels."""
    x, features = vae.encoder.conv_in(picture), dict[int, Tensor]()
    for level, block in enumerate(vae.encoder.down_blocks[: max(FUSED_LEVELS) + 1]):
        for part in block.resnets:
            x = part(x, temb=None)
        if level in FUSED_LEVELS:
            features[level] = x
        for part in block.downsamplers or ():
            x = part(x)
    return features


def decode_with_features(
    vae: AutoencoderKL, wrapping: Wrapping, latent: Tensor, features: Mapping[int, Tensor]
) -> Tensor:
    """Decode unscaled latents to -1..1 with the features mixed in at weight 1. No gradient before the first level."""
    decoder = vae.decoder
    with torch.no_grad():
        x = decoder.mid_block(decoder.conv_in(vae.post_quant_conv(latent)))
    for level, block in enumerate(decoder.up_blocks):
        halvings = len(FUSED_LEVELS) + 1 - level
        for part in block.resnets:
            x = part(x, temb=None)
        if halvings in FUSED_LEVELS:
            x = x + wrapping.fusion(halvings)(features[halvings], x)
        for part in block.upsamplers or ():
            x = part(x)
    return decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(x)))  # type: ignore[no-any-return]
