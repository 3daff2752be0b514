"""A stock VAE over a picture of any size, band by band, with the same result as in one piece.

Normalisation needs statistics of a whole map, and attention all of it; everything else looks one row around. So
bands stream through the layers, and a map is kept whole only where the next statistics must be known first. At the
finest level even that is spared, if asked: what a norm measures is worked out, forgotten, and worked out again.
Attention runs once, at an eighth of the size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from srcli.models.row_bands import (
    Bands,
    ChannelMoments,
    MapBands,
    Norm,
    convolve_rows,
    downsample_rows,
    number_bands,
    upsample_rows,
)

After = Callable[[int, Tensor], Tensor]  # level, its map before it is resampled -> the map to go on with


@dataclass(frozen=True)
class Stream:
    """A map whose bands are worked out each time they are asked for."""

    rows: Callable[[], MapBands]
    height: int
    width: int

    last: Callable[[], MapBands] | None = None  # as `rows`, giving back the memory of what they are made of

    def norm(self, layer: nn.GroupNorm) -> Norm:
        return ChannelMoments(self.rows()).norm(layer)

    def final(self) -> MapBands:
        """The bands, which nobody will ask for again."""
        return self.last() if self.last else self.rows()


@dataclass(frozen=True)
class Whole(Stream):
    """A map that is kept."""

    map: Tensor = field(kw_only=True)
    moments: ChannelMoments | None = None  # where they were gathered already

    def norm(self, layer: nn.GroupNorm) -> Norm:
        return (self.moments or ChannelMoments(self.rows())).norm(layer)


@dataclass(frozen=True)
class Banded:
    """A VAE's layers at work in bands, on maps like this tensor in device, precision and number."""

    bands: Bands
    like: Tensor

    def whole(self, x: Tensor, moments: ChannelMoments | None = None) -> Whole:
        rows = partial(self.bands.rows, x, self.like.device)
        return Whole(rows, x.shape[2], x.shape[3], partial(rows, last=True), moments, map=x)

    def kept(self, x: Stream, channels: int) -> Whole:
        out, moments = self.bands.new(self.like, channels, x.height, x.width), ChannelMoments()
        for top, part in number_bands(moments.watching(x.rows())):
            out[:, :, top : top + part.shape[2]] = part
        return self.whole(out, moments)

    def conv(self, conv: nn.Conv2d, x: Stream, norm: Norm | None = None) -> Stream:
        return Stream(lambda: convolve_rows(conv, x.rows(), x.height, norm), x.height, x.width)

    def enlarged(self, conv: nn.Conv2d, x: Tensor) -> Stream:
        rows = partial(upsample_rows, conv, x, self.bands, self.like.device)
        return Stream(rows, 2 * x.shape[2], 2 * x.shape[3], partial(rows, last=True))

    def reduced(self, conv: nn.Conv2d, x: Tensor) -> Whole:
        small = Stream(
            partial(downsample_rows, conv, x, self.bands, self.like.device), x.shape[2] // 2, x.shape[3] // 2
        )
        return self.kept(small, conv.out_channels)

    def level(self, layers: Iterable[Any], x: Stream, lean: bool) -> Whole:
        first, *others = layers
        found = self.resnet(first, x, lean)
        for layer in others:
            found = self.resnet(layer, found, lean)
        return found

    def resnet(self, layer: Any, x: Stream, lean: bool = False) -> Whole:
        """A residual block. A map that was kept is used up: the result may lie in its memory."""
        first = x.norm(layer.norm1)
        second = self.conv(layer.conv1, x, first).norm(layer.norm2) if lean else None
        x, out = self._leaving_skip(x, layer)
        hidden = self.conv(layer.conv1, x, first)
        if second is None:
            hidden = self.kept(hidden, layer.conv1.out_channels)
            second = hidden.norm(layer.norm2)
        moments = ChannelMoments()
        for top, part in number_bands(self.conv(layer.conv2, hidden, second).rows()):
            there = out[:, :, top : top + part.shape[2]]
            part.add_(there.to(part.device))
            moments.add(part)
            there.copy_(part)
        return self.whole(out, moments)

    def _leaving_skip(self, x: Stream, layer: Any) -> tuple[Stream, Tensor]:
        """The map, and where its skip lies as soon as its rows have passed."""
        skip = layer.conv_shortcut
        if isinstance(x, Whole) and skip is None:
            return x, x.map
        out = self.bands.new(self.like, layer.conv2.out_channels, x.height, x.width)

        def rows() -> MapBands:
            for top, part in number_bands(x.final()):
                out[:, :, top : top + part.shape[2]] = part if skip is None else skip(part)
                yield part

        return Stream(rows, x.height, x.width), out

    def end(self, net: Any, x: Stream) -> Tensor:
        """The last norm and convolution of an encoder or decoder."""
        last = self.conv(net.conv_out, x, x.norm(net.conv_norm_out))
        return self.kept(last, net.conv_out.out_channels).map.to(self.like.device)


@torch.no_grad()
def decode_in_bands(vae: AutoencoderKL, z: Tensor, bands: Bands, after: After | None = None) -> Tensor:
    """The picture (-1..1) of unscaled latents. `after` may change a level's map before it is enlarged."""
    decoder, work = vae.decoder, Banded(bands, z)
    z = z if vae.post_quant_conv is None else vae.post_quant_conv(z)
    found = work.whole(decoder.mid_block(decoder.conv_in(z)).to(bands.store or z.device))
    x: Stream = found
    for level, block in enumerate(decoder.up_blocks):
        found = work.level(block.resnets, x, bands.lean and not block.upsamplers)
        found = work.whole(after(level, found.map)) if after else found
        for layer in block.upsamplers or ():
            x = work.enlarged(layer.conv, found.map)
    return work.end(decoder, found)


@torch.no_grad()
def encode_in_bands(
    vae: AutoencoderKL,
    picture: Tensor,
    bands: Bands,
    after: After | None = None,
    ready: Callable[[Tensor], Tensor] = lambda part: part,
) -> Tensor:
    """The posterior's moments (mean and log variance) of a picture, whose bands `ready` brings to -1..1."""
    like = ready(picture[:, :, :0])
    encoder, work = vae.encoder, Banded(bands, like)
    entering = Stream(lambda: map(ready, bands.rows(picture, picture.device)), *picture.shape[2:])
    x = work.conv(encoder.conv_in, entering)
    for level, block in enumerate(encoder.down_blocks):
        found = work.level(block.resnets, x, bands.lean and level == 0)
        x = found = work.whole(after(level, found.map)) if after else found
        for layer in block.downsamplers or ():
            x = found = work.reduced(layer.conv, found.map)
    out = work.end(encoder, work.whole(encoder.mid_block(found.map.to(like.device))))
    return out if vae.quant_conv is None else vae.quant_conv(out)


@torch.no_grad()
def run_resnet(layer: Any, x: Tensor, bands: Bands, device: torch.device) -> Tensor:
    """A residual block of the VAE's kind. `x` is used up: the result may lie in its memory."""
    work = Banded(bands, x[:, :0].to(device))
    return work.resnet(layer, work.whole(x)).map
