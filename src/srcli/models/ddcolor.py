"""DDColor (Kang et al. 2023): a ConvNeXt encoder, a U-Net decoder, and a transformer with 100 learned colour queries.

Key names below `decoder` are the official ones; the encoder is transformers' ConvNeXt.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ConvNextBackbone, ConvNextConfig

DDCOLOR_HEADS = 8  # attention heads, the only size that the weights do not show
QUERY_LEVELS = 3  # levels of the U-Net that the queries attend to
ENCODER_STAGES = 4
DDCOLOR_SIDE_MULTIPLE = 32  # the input's sides must be multiples of it
LAST_FACTOR = 4  # upsampling of the last pixel shuffle, back to the input's size
BAND = 1 << 12  # pixels before the last pixel shuffle that are processed at once
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
UNUSED = r"mean|std|encoder\.arch\.norm\..*|encoder\.arch\.head_cls\..*"
RENAMED = (
    (r"encoder\.arch\.downsample_layers\.0\.0\.", r"encoder.embeddings.patch_embeddings."),
    (r"encoder\.arch\.downsample_layers\.0\.1\.", r"encoder.embeddings.layernorm."),
    (r"encoder\.arch\.downsample_layers\.(\d+)\.", r"encoder.encoder.stages.\1.downsampling_layer."),
    (r"encoder\.arch\.stages\.(\d+)\.(\d+)\.norm\.", r"encoder.encoder.stages.\1.layers.\2.layernorm."),
    (r"encoder\.arch\.stages\.(\d+)\.(\d+)\.gamma$", r"encoder.encoder.stages.\1.layers.\2.layer_scale_parameter"),
    (r"encoder\.arch\.stages\.(\d+)\.(\d+)\.", r"encoder.encoder.stages.\1.layers.\2."),
    (r"refine_net\.0\.0\.", r"merge."),
)


@dataclass(frozen=True, slots=True)
class Shape:
    """The widths and depths, in which the variants differ."""

    widths: tuple[int, ...]  # of the encoder's stages
    depths: tuple[int, ...]
    features: int  # of the U-Net's first two levels; the third and the output have half as many
    hidden: int  # of a query
    feed_forward: int
    queries: int
    layers: int

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Shape:
        """From the official file's tensors. KeyError or IndexError for another network's file."""
        queries = "decoder.color_decoder."
        return cls(
            widths=tuple(state[f"encoder.arch.norm{i}.weight"].shape[0] for i in range(ENCODER_STAGES)),
            depths=tuple(_count(state, rf"encoder\.arch\.stages\.{i}\.\d+\.gamma") for i in range(ENCODER_STAGES)),
            features=state["decoder.layers.0.conv.0.weight_orig"].shape[0],
            hidden=state[f"{queries}query_feat.weight"].shape[1],
            feed_forward=state[f"{queries}transformer_ffn_layers.0.linear1.weight"].shape[0],
            queries=state[f"{queries}query_feat.weight"].shape[0],
            layers=_count(state, re.escape(queries) + r"transformer_ffn_layers\.\d+\.linear1\.weight"),
        )


TINY_SHAPE = Shape((96, 192, 384, 768), (3, 3, 9, 3), 512, 256, 2048, 100, 9)
LARGE_SHAPE = Shape((192, 384, 768, 1536), (3, 3, 27, 3), 512, 256, 2048, 100, 9)


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return sum(re.fullmatch(pattern, name) is not None for name in state)


def convert_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the official file's tensors for `DDColor`: fold spectral norms, drop what inference does not use."""
    used = {name: tensor for name, tensor in state.items() if not re.fullmatch(UNUSED, name)}
    return {_rename_key(name): tensor for name, tensor in fold_spectral_norm(used).items()}


def fold_spectral_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Divide weights by their largest singular values, computed from the stored singular vectors."""
    folded = {}
    for name, tensor in state.items():
        stem, _, end = name.rpartition(".weight_")
        if end == "orig":
            u, v = state[f"{stem}.weight_u"].float(), state[f"{stem}.weight_v"].float()
            folded[f"{stem}.weight"] = tensor / torch.dot(u, tensor.float().flatten(1) @ v)
        elif end not in ("u", "v"):
            folded[name] = tensor
    return folded


def _rename_key(name: str) -> str:
    for pattern, own in RENAMED:
        name, count = re.subn("^" + pattern, own, name)
        if count:
            break
    return re.sub(r"^encoder\.arch\.norm(\d)\.", lambda m: f"encoder.hidden_states_norms.stage{int(m[1]) + 1}.", name)


class DDColor(nn.Module):
    """Predicts a and b of CIE Lab for a grey picture, whose sides are multiples of DDCOLOR_SIDE_MULTIPLE."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = build_encoder(shape)
        self.decoder = Decoder(shape)
        self.merge = nn.Conv2d(shape.queries + 3, 2, 1)

    def forward(self, rgb: Tensor) -> Tensor:
        """The ab channels for grey RGB in 0..1. The queries and the merge layer are multiplied to one small matrix, so
        that the queries' full-size maps are never computed."""
        normal = normalize(rgb)
        levels = self.decoder.decode(self.encode(normal))
        colors = self.decoder.color_decoder(levels)
        weight, queries = self.merge.weight[:, :, 0, 0], self.shape.queries
        ab = self.decoder.last_shuf.project(levels[-1], weight[:, :queries] @ colors)
        return ab + F.conv2d(normal, self.merge.weight[:, queries:], self.merge.bias)

    def encode(self, normal: Tensor) -> tuple[Tensor, ...]:
        """Normalized features of the four stages, for a normalized picture."""
        maps: tuple[Tensor, ...] = self.encoder(normal).feature_maps
        return maps


def normalize(rgb: Tensor) -> Tensor:
    """RGB in 0..1 with ImageNet's mean and deviation removed."""
    return (rgb - rgb.new_tensor(MEAN)[:, None, None]) / rgb.new_tensor(STD)[:, None, None]


def build_encoder(shape: Shape) -> ConvNextBackbone:
    """transformers' ConvNeXt. Each stage's features are normalized for the U-Net only, not for the next stage."""
    names = [f"stage{i + 1}" for i in range(ENCODER_STAGES)]
    config = ConvNextConfig(hidden_sizes=list(shape.widths), depths=list(shape.depths), out_features=names)
    return ConvNextBackbone(config)


class Shuffle(nn.Module):
    """Upsampling by a pixel shuffle, then a 2x2 mean against its grid pattern."""

    def __init__(self, inner: int, outer: int, factor: int, normed: bool = True) -> None:
        super().__init__()
        self.factor, width = factor, outer * factor**2
        layers = [nn.Conv2d(inner, width, 1, bias=not normed), *([nn.BatchNorm2d(width)] if normed else [])]
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return _blur(F.pixel_shuffle(F.relu(self.conv(x)), self.factor))

    def project(self, x: Tensor, weight: Tensor) -> Tensor:
        """The result times a (B, K, C) matrix, in bands of rows, so that no map with C channels is whole in memory."""
        rows = max(1, BAND // x.shape[3])
        bands = [self._project_rows(x[:, :, top : top + rows], weight) for top in range(0, x.shape[2], rows)]
        return _blur(F.pixel_shuffle(torch.cat(bands, 2), self.factor))

    def _project_rows(self, x: Tensor, weight: Tensor) -> Tensor:
        places = self.factor**2
        wide = torch.unflatten(F.relu_(self.conv(x)), 1, (-1, places))
        return torch.einsum("bkc,bcshw->bkshw", weight, wide).flatten(1, 2)


def _blur(x: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(x, (1, 0, 1, 0), mode="replicate"), 2, stride=1)


class UNetBlock(nn.Module):
    """Upsampling by 2, concatenated with the encoder's features of that level."""

    def __init__(self, inner: int, skip: int, outer: int, shuffled: int) -> None:
        super().__init__()
        self.shuf = Shuffle(inner, shuffled, 2)
        self.bn = nn.BatchNorm2d(skip)
        convolution = nn.Conv2d(shuffled + skip, outer, 3, padding=1, bias=False)
        self.conv = nn.Sequential(convolution, nn.ReLU(), nn.BatchNorm2d(outer))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        out: Tensor = self.conv(F.relu(torch.cat([self.shuf(x), self.bn(skip)], 1)))
        return out


class Decoder(nn.Module):
    """The U-Net's decoder, and the colour queries that attend to its levels."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        features, widths = shape.features, shape.widths
        outer = (features, features, features // 2)
        inner = (widths[3], *outer[:-1])
        self.layers = nn.ModuleList(UNetBlock(inner[i], widths[2 - i], outer[i], outer[i]) for i in range(QUERY_LEVELS))
        self.last_shuf = Shuffle(outer[-1], outer[-1], LAST_FACTOR, normed=False)
        self.color_decoder = ColorDecoder(shape, outer)

    def decode(self, maps: tuple[Tensor, ...]) -> list[Tensor]:
        """The U-Net's three levels, from the encoder's four stages."""
        x, levels = maps[-1], []
        for block, skip in zip(self.layers, maps[-2::-1], strict=True):
            x = block(x, skip)
            levels.append(x)
        return levels


class ColorDecoder(nn.Module):
    """Colour queries that attend to the U-Net's levels; returns (B, queries, features of a pixel)."""

    def __init__(self, shape: Shape, widths: tuple[int, ...]) -> None:
        super().__init__()
        hidden = shape.hidden
        self.query_feat = nn.Embedding(shape.queries, hidden)
        self.query_embed = nn.Embedding(shape.queries, hidden)
        self.level_embed = nn.Embedding(QUERY_LEVELS, hidden)
        self.input_proj = nn.ModuleList(nn.Conv2d(width, hidden, 1) for width in widths)
        layers = range(shape.layers)
        self.transformer_cross_attention_layers = nn.ModuleList(CrossAttention(hidden) for _ in layers)
        self.transformer_self_attention_layers = nn.ModuleList(SelfAttention(hidden) for _ in layers)
        self.transformer_ffn_layers = nn.ModuleList(FeedForward(hidden, shape.feed_forward) for _ in layers)
        self.decoder_norm = nn.LayerNorm(hidden)
        self.color_embed = Perceptron(hidden, widths[-1])

    def forward(self, levels: list[Tensor]) -> Tensor:
        sources = [self._source(index, level) for index, level in enumerate(levels)]
        place = self.query_embed.weight[None]
        x = self.query_feat.weight[None].expand(len(levels[0]), -1, -1)
        stacks = (
            self.transformer_cross_attention_layers,
            self.transformer_self_attention_layers,
            self.transformer_ffn_layers,
        )
        for index, (cross, own, feed_forward) in enumerate(zip(*stacks, strict=True)):
            x = cross(x, place, *sources[index % QUERY_LEVELS])
            x = feed_forward(own(x, place))
        out: Tensor = self.color_embed(self.decoder_norm(x))
        return out

    def _source(self, index: int, level: Tensor) -> tuple[Tensor, Tensor]:
        """Keys, with position encodings, and values, without."""
        values = self.input_proj[index](level).flatten(2).transpose(1, 2) + self.level_embed.weight[index]
        positions = encode_positions(level.shape[2], level.shape[3], values.shape[2]).to(values)
        return values + positions.flatten(1).T, values


def encode_positions(height: int, width: int, channels: int) -> Tensor:
    """Sines and cosines of the row, then of the column: (channels, height, width)."""
    half = channels // 2
    period = 10000 ** (2 * torch.arange(half // 2) / half)
    rows, columns = (
        (2 * math.pi * torch.arange(1, side + 1) / (side + 1e-6))[:, None] / period for side in (height, width)
    )
    y, x = (torch.stack([each.sin(), each.cos()], 2).flatten(1).T for each in (rows, columns))
    return torch.cat([y[:, :, None].expand(-1, -1, width), x[:, None, :].expand(-1, height, -1)])


class CrossAttention(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.multihead_attn = nn.MultiheadAttention(hidden, DDCOLOR_HEADS, batch_first=True)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x: Tensor, place: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        out: Tensor = self.norm(x + self.multihead_attn(x + place, keys, values, need_weights=False)[0])
        return out


class SelfAttention(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(hidden, DDCOLOR_HEADS, batch_first=True)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x: Tensor, place: Tensor) -> Tensor:
        placed = x + place
        out: Tensor = self.norm(x + self.self_attn(placed, placed, x, need_weights=False)[0])
        return out


class FeedForward(nn.Module):
    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(hidden, inner), nn.Linear(inner, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x + self.linear2(F.relu(self.linear1(x))))
        return out


class Perceptron(nn.Module):
    """Three linear layers."""

    def __init__(self, hidden: int, outer: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(hidden, width) for width in (hidden, hidden, outer))

    def forward(self, x: Tensor) -> Tensor:
        first, second, last = self.layers
        out: Tensor = last(F.relu(second(F.relu(first(x)))))
        return out
