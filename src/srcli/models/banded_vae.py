"""A stock VAE over pictures of any size, in bands of rows, with the same result as in one piece.

Norms need the statistics of a whole map and attention the whole map; all other layers look one row around. So bands
stream through the layers, and a map is only kept whole where a norm needs its statistics first. At the finest level
(`Bands.lean`) not even then: the map is computed for its statistics, dropped, and computed again. Attention runs
once, at an eighth of the size.
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

After = Callable[[int, Tensor], Tensor]  # level, its map before resampling -> the map to continue with


@dataclass(frozen=True)
class Stream:
    """A map whose bands are computed each time they are read."""

    rows: Callable[[], MapBands]
    height: int
    width: int

    last: Callable[[], MapBands] | None = None  # like `rows`, but frees the memory of what they are computed from

    def norm(self, layer: nn.GroupNorm) -> Norm:
        return ChannelMoments(self.rows()).norm(layer)

    def final(self) -> MapBands:
        """The bands, for the last time that they are read."""
        return self.last() if self.last else self.rows()


@dataclass(frozen=True)
class Whole(Stream):
    """A map in memory."""

    map: Tensor = field(kw_only=True)
    moments: ChannelMoments | None = None  # if they are already measured

    def norm(self, layer: nn.GroupNorm) -> Norm:
        return (self.moments or ChannelMoments(self.rows())).norm(layer)


@dataclass(frozen=True)
class Banded:
    """Runs a VAE's layers in bands, on maps with the device, precision and batch size of `like`."""

    bands: Bands
    like: Tensor

    def whole(self, x: Tensor, moments: ChannelMoments | None = None) -> Whole:
        rows = partial(self.bands.rows, x, self.like.device)
        return Whole(rows, x.shape[2], x.shape[3], partial(rows, last=True), moments, map=x)

    def keep(self, x: Stream, channels: int) -> Whole:
        """Compute a map and keep it in memory."""
        out, moments = self.bands.new(self.like, channels, x.height, x.width), ChannelMoments()
        for top, part in number_bands(moments.measure(x.rows())):
            out[:, :, top : top + part.shape[2]] = part
        return self.whole(out, moments)

    def conv(self, conv: nn.Conv2d, x: Stream, norm: Norm | None = None) -> Stream:
        return Stream(lambda: convolve_rows(conv, x.rows(), x.height, norm), x.height, x.width)

    def upsample(self, conv: nn.Conv2d, x: Tensor) -> Stream:
        rows = partial(upsample_rows, conv, x, self.bands, self.like.device)
        return Stream(rows, 2 * x.shape[2], 2 * x.shape[3], partial(rows, last=True))

    def downsample(self, conv: nn.Conv2d, x: Tensor) -> Whole:
        rows = partial(downsample_rows, conv, x, self.bands, self.like.device)
        return self.keep(Stream(rows, x.shape[2] // 2, x.shape[3] // 2), conv.out_channels)

    def level(self, layers: Iterable[Any], x: Stream, lean: bool) -> Whole:
        first, *others = layers
        out = self.resnet(first, x, lean)
        for layer in others:
            out = self.resnet(layer, out, lean)
        return out

    def resnet(self, layer: Any, x: Stream, lean: bool = False) -> Whole:
        """A residual block. The input map is consumed: the result may reuse its memory."""
        first = x.norm(layer.norm1)
        second = self.conv(layer.conv1, x, first).norm(layer.norm2) if lean else None
        x, out = self._save_skip(x, layer)
        hidden = self.conv(layer.conv1, x, first)
        if second is None:
            hidden = self.keep(hidden, layer.conv1.out_channels)
            second = hidden.norm(layer.norm2)
        moments = ChannelMoments()
        for top, part in number_bands(self.conv(layer.conv2, hidden, second).rows()):
            skip = out[:, :, top : top + part.shape[2]]
            part.add_(skip.to(part.device))
            moments.add(part)
            skip.copy_(part)
        return self.whole(out, moments)

    def _save_skip(self, x: Stream, layer: Any) -> tuple[Stream, Tensor]:
        """The map, and a tensor that receives its skip connection while its bands are read."""
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
        return self.keep(last, net.conv_out.out_channels).map.to(self.like.device)


@torch.no_grad()
def decode_in_bands(vae: AutoencoderKL, z: Tensor, bands: Bands, after: After | None = None) -> Tensor:
    """Decode unscaled latents to a picture in -1..1. `after` may change a level's map before it is upsampled."""
    decoder, work = vae.decoder, Banded(bands, z)
    z = z if vae.post_quant_conv is None else vae.post_quant_conv(z)
    out = work.whole(decoder.mid_block(decoder.conv_in(z)).to(bands.store or z.device))
    x: Stream = out
    for level, block in enumerate(decoder.up_blocks):
        out = work.level(block.resnets, x, bands.lean and not block.upsamplers)
        out = work.whole(after(level, out.map)) if after else out
        for layer in block.upsamplers or ():
            x = work.upsample(layer.conv, out.map)
    return work.end(decoder, out)


@torch.no_grad()
def encode_in_bands(
    vae: AutoencoderKL,
    picture: Tensor,
    bands: Bands,
    after: After | None = None,
    prepare: Callable[[Tensor], Tensor] = lambda part: part,
) -> Tensor:
    """Mean and log variance of the posterior of a picture. `prepare` converts its bands to -1..1."""
    like = prepare(picture[:, :, :0])
    encoder, work = vae.encoder, Banded(bands, like)
    source = Stream(lambda: map(prepare, bands.rows(picture, picture.device)), *picture.shape[2:])
    x = work.conv(encoder.conv_in, source)
    for level, block in enumerate(encoder.down_blocks):
        out = work.level(block.resnets, x, bands.lean and level == 0)
        x = out = work.whole(after(level, out.map)) if after else out
        for layer in block.downsamplers or ():
            x = out = work.downsample(layer.conv, out.map)
    moments = work.end(encoder, work.whole(encoder.mid_block(out.map.to(like.device))))
    return moments if vae.quant_conv is None else vae.quant_conv(moments)


@torch.no_grad()
def run_resnet(layer: Any, x: Tensor, bands: Bands, device: torch.device) -> Tensor:
    """Run a residual block of the VAE's kind. `x` is consumed: the result may reuse its memory."""
    work = Banded(bands, x[:, :0].to(device))
    return work.resnet(layer, work.whole(x)).map
