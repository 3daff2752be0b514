"""A VAE of a few million weights (AutoencoderTiny) in bands of rows: any size, and the result is that of one piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from diffusers import AutoencoderTiny
from torch import Tensor

LATENT_PIXELS = 8  # pixels of a latent's side
TINY_VAE_ROWS = 64  # latents of a band
TINY_VAE_REACH = 24  # latents above and below a row that bear on it; it is all convolutions


def encode_tiny(net: AutoencoderTiny, picture: Tensor) -> Tensor:
    """Scaled latents of a picture in -1..1, whose sides are multiples of 8."""

    def run(top: int, bottom: int) -> Tensor:
        found: Tensor = net.encode(picture[:, :, top * LATENT_PIXELS : bottom * LATENT_PIXELS]).latents
        return found

    return _in_bands(run, picture.shape[2] // LATENT_PIXELS, 1)


def decode_tiny(net: AutoencoderTiny, latents: Tensor) -> Tensor:
    """The picture in about -1..1."""

    def run(top: int, bottom: int) -> Tensor:
        found: Tensor = net.decode(latents[:, :, top:bottom]).sample
        return found

    return _in_bands(run, latents.shape[2], LATENT_PIXELS)


def _in_bands(run: Callable[[int, int], Tensor], height: int, factor: int) -> Tensor:
    """What `run` gives for all rows; it is asked for some at a time, with those around that bear on them."""
    parts = []
    for top, bottom in _bands(height):
        first, last = max(0, top - TINY_VAE_REACH), min(height, bottom + TINY_VAE_REACH)
        parts.append(run(first, last)[:, :, (top - first) * factor : (bottom - first) * factor])
    return torch.cat(parts, 2)


def _bands(height: int) -> Iterator[tuple[int, int]]:
    for top in range(0, height, TINY_VAE_ROWS):
        yield top, min(top + TINY_VAE_ROWS, height)
