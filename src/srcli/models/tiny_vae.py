"""TAESD (AutoencoderTiny) in bands of rows, for pictures of any size, with the same result as in one piece."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import AutoencoderTiny
from torch import Tensor

LATENT_PIXELS = 8  # side of one latent in pixels
TINY_VAE_ROWS = 64  # rows of latents per band
TINY_VAE_REACH = 24  # rows of latents above and below a band that influence it: the network is all convolutions


def encode_tiny(net: AutoencoderTiny, picture: Tensor) -> Tensor:
    """Scaled latents of a picture in -1..1, whose sides are multiples of 8."""

    def run(top: int, bottom: int) -> Tensor:
        latents: Tensor = net.encode(picture[:, :, top * LATENT_PIXELS : bottom * LATENT_PIXELS]).latents
        return latents

    return _run_in_bands(run, picture.shape[2] // LATENT_PIXELS, 1)


def decode_tiny(net: AutoencoderTiny, latents: Tensor) -> Tensor:
    """The picture in about -1..1."""

    def run(top: int, bottom: int) -> Tensor:
        picture: Tensor = net.decode(latents[:, :, top:bottom]).sample
        return picture

    return _run_in_bands(run, latents.shape[2], LATENT_PIXELS)


def _run_in_bands(run: Callable[[int, int], Tensor], height: int, factor: int) -> Tensor:
    """The result of `run` for all rows of latents, called with one band and its surroundings at a time."""
    parts = []
    for top in range(0, height, TINY_VAE_ROWS):
        bottom = min(top + TINY_VAE_ROWS, height)
        first, last = max(0, top - TINY_VAE_REACH), min(height, bottom + TINY_VAE_REACH)
        parts.append(run(first, last)[:, :, (top - first) * factor : (bottom - first) * factor])
    return torch.cat(parts, 2)
