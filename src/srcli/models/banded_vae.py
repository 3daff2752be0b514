"""A stock VAE over a picture of any size, band by band, with the same result as in one piece.

Normalisation needs statistics of a whole map, and attention all of it; everything else looks one row around. So a
map is kept whole (in host memory if asked), statistics are merged over its bands, and only what a layer needs
besides its input and output is bounded by the band. Attention runs once, at an eighth of the size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from weakref import ReferenceType, ref

import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, pad, silu

from srcli.imaging.spill import forget, spilled

After = Callable[[int, Tensor], Tensor]  # level, its map before it is resampled -> the map to go on with
Layer = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Bands:
    """How large a piece of a map is worked on at once, and where whole maps are kept."""

    area: int = 1 << 16  # rows x columns; 32 rows of a picture 2048 wide
    store: torch.device | None = None  # None: where the network is

    def cut(self, height: int, width: int) -> Iterator[tuple[int, int]]:
        """First and last row of each band."""
        rows = max(1, self.area // width)
        for top in range(0, height, rows):
            yield top, min(top + rows, height)

    def new(self, like: Tensor, channels: int, height: int, width: int) -> Tensor:
        return torch.empty(like.shape[0], channels, height, width, dtype=like.dtype, device=self.store or like.device)


@dataclass(frozen=True, slots=True)
class Spilling(Bands):
    """Whole maps are kept on the disk, and only the band at work is in memory."""

    maps: list[ReferenceType[NDArray[Any]]] = field(default_factory=list)

    def cut(self, height: int, width: int) -> Iterator[tuple[int, int]]:
        for rows in Bands.cut(self, height, width):
            yield rows
            self.maps[:] = [kept for kept in self.maps if kept() is not None]
            for kept in self.maps:
                if (array := kept()) is not None:
                    forget(array)

    def new(self, like: Tensor, channels: int, height: int, width: int) -> Tensor:
        array = spilled((like.shape[0], channels, height, width), str(like.dtype).removeprefix("torch."))
        self.maps.append(ref(array))
        return torch.from_numpy(array)


def decode(vae: AutoencoderKL, z: Tensor, bands: Bands, after: After | None = None) -> Tensor:
    """The picture (-1..1) of unscaled latents. `after` may change a level's map before it is enlarged."""
    decoder, device = vae.decoder, z.device
    x = decoder.conv_in(z if vae.post_quant_conv is None else vae.post_quant_conv(z))
    x = decoder.mid_block(x).to(bands.store or device)
    for level, block in enumerate(decoder.up_blocks):
        for layer in block.resnets:
            x = resnet(layer, x, bands, device)
        x = after(level, x) if after else x
        for layer in block.upsamplers or ():
            x = _enlarged(layer.conv, x, bands, device)
    return _normed_conv(decoder.conv_norm_out, decoder.conv_out, x, bands, device).to(device)


def encode(vae: AutoencoderKL, picture: Tensor, bands: Bands, after: After | None = None) -> Tensor:
    """The posterior's moments (mean and log variance) of a picture in -1..1."""
    encoder, device = vae.encoder, picture.device
    x = _conv(encoder.conv_in, picture, bands, device)
    for level, block in enumerate(encoder.down_blocks):
        for layer in block.resnets:
            x = resnet(layer, x, bands, device)
        x = after(level, x) if after else x
        for layer in block.downsamplers or ():
            x = _reduced(layer.conv, x, bands, device)
    x = encoder.mid_block(x.to(device))
    moments = _normed_conv(encoder.conv_norm_out, encoder.conv_out, x, bands, device).to(device)
    return moments if vae.quant_conv is None else vae.quant_conv(moments)


def resnet(layer: Any, x: Tensor, bands: Bands, device: torch.device) -> Tensor:
    """A residual block of the VAE's kind. `x` is used up: the result may lie in its memory."""
    hidden = _normed_conv(layer.norm1, layer.conv1, x, bands, device)
    second = norm(layer.norm2, hidden, bands, device)
    width = layer.conv2.out_channels
    out = x[:, :width] if width <= x.shape[1] else bands.new(x, width, *x.shape[2:])
    for top, bottom in bands.cut(*x.shape[2:]):
        skip = x[:, :, top:bottom].to(device)
        skip = skip if layer.conv_shortcut is None else layer.conv_shortcut(skip)
        out[:, :, top:bottom] = skip + _conv3(layer.conv2, _rows(hidden, top - 1, bottom + 1, device, second))
    return out


def norm(layer: nn.GroupNorm, x: Tensor, bands: Bands, device: torch.device) -> Layer:
    """Group norm and SiLU with the statistics of all of `x`, to be used on any part of it."""
    count, mean, spread = 0, torch.zeros(1), torch.zeros(1)
    for top, bottom in bands.cut(*x.shape[2:]):
        part = x[:, :, top:bottom].to(device).float().reshape(x.shape[0], layer.num_groups, -1)
        variance, centre = (v.cpu().double() for v in torch.var_mean(part, dim=2, correction=0))
        size, shift = part.shape[2], centre - mean
        spread = spread + variance * size + shift.square() * (count * size / (count + size))
        mean, count = mean + shift * (size / (count + size)), count + size
    wide = x.shape[1] // layer.num_groups
    slope = (spread / count + layer.eps).rsqrt().repeat_interleave(wide, 1) * layer.weight.cpu().double()
    offset = layer.bias.cpu().double() - mean.repeat_interleave(wide, 1) * slope
    factor, summand = (v[:, :, None, None].float().to(device) for v in (slope, offset))
    return lambda part: silu(torch.addcmul(summand, part.float(), factor)).to(part.dtype)


def _rows(x: Tensor, top: int, bottom: int, device: torch.device, layer: Layer | None = None) -> Tensor:
    """Rows of a map after `layer`, with zeros beyond the map's edges."""
    part = x[:, :, max(top, 0) : bottom].to(device)
    part = layer(part) if layer else part
    return pad(part, (0, 0, max(-top, 0), max(bottom - x.shape[2], 0)))


def _conv3(conv: nn.Conv2d, rows: Tensor) -> Tensor:
    """A 3x3 convolution of rows that bring the row above and the row below."""
    return conv2d(rows, conv.weight, conv.bias, padding=(0, 1))


def _conv(conv: nn.Conv2d, x: Tensor, bands: Bands, device: torch.device, layer: Layer | None = None) -> Tensor:
    out = bands.new(x, conv.out_channels, *x.shape[2:])
    for top, bottom in bands.cut(*x.shape[2:]):
        out[:, :, top:bottom] = _conv3(conv, _rows(x, top - 1, bottom + 1, device, layer))
    return out


def _normed_conv(layer: nn.GroupNorm, conv: nn.Conv2d, x: Tensor, bands: Bands, device: torch.device) -> Tensor:
    return _conv(conv, x, bands, device, norm(layer, x, bands, device))


def _enlarged(conv: nn.Conv2d, x: Tensor, bands: Bands, device: torch.device) -> Tensor:
    """Twice the size by repetition, then a convolution."""
    height, width = x.shape[2:]
    out = bands.new(x, conv.out_channels, 2 * height, 2 * width)
    for top, bottom in bands.cut(height, 2 * width):
        rows = interpolate(_rows(x, top - 1, bottom + 1, device), scale_factor=2.0, mode="nearest")
        out[:, :, 2 * top : 2 * bottom] = _conv3(conv, rows[:, :, 1:-1])
    return out


def _reduced(conv: nn.Conv2d, x: Tensor, bands: Bands, device: torch.device) -> Tensor:
    """Half the size: a convolution of stride 2 that looks past the right and lower edges only."""
    height, width = (x.shape[2] - 2) // 2 + 1, (x.shape[3] - 2) // 2 + 1
    out = bands.new(x, conv.out_channels, height, width)
    for top, bottom in bands.cut(height, 2 * width):
        rows = pad(_rows(x, 2 * top, 2 * bottom + 1, device), (0, 1))
        out[:, :, top:bottom] = conv2d(rows, conv.weight, conv.bias, stride=2)
    return out
