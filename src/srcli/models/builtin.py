"""The built-in model: a predictor of the mean, a head that firms edges, an SR3-style denoiser of what they miss.

All three work at the resolution of `Shape.fold` input pixels per cell and know nothing outside their receptive
field: no norm looks over the picture, so tiles agree with the whole.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

UP = 4
"""Result pixels per cell, each way; the detail of a cell is its UP x UP luma pixels."""
LUMA = (0.299, 0.587, 0.114)
QUIETEST, LOUDEST = -6.0, -0.5
EDGE_GAIN, DETAIL_GAIN = 2.4, 1.04
"""How much there is of either correction at full strength, which is twice the default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of the networks. `fold` input pixels (each way) make a cell: 1 gives x4, 2 gives x2."""

    fold: int = 1
    width: int = 64
    wide: int = 96
    before: int = 4
    deep: int = 4
    after: int = 8
    detail: tuple[int, int, int] = (64, 80, 112)
    edge: int = 32

    @property
    def scale(self) -> int:
        return UP // self.fold


class Prediction(NamedTuple):
    """What the predictor says of a picture: its mean, features and log scale of what the mean misses."""

    mean: Tensor
    features: Tensor
    spread: Tensor


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, size // 2 if stride == 1 else 0)


class Block(nn.Module):
    """conv, SiLU, conv on a shortcut; starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = conv(width, width), conv(width, width)
        with torch.no_grad():
            self.second.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.second(F.silu(self.first(x)))
        return x + added


class Up(nn.Module):
    """1x1 convolution and pixel shuffle to twice the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.mix = conv(inputs, 4 * outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.mix(x), 2)


class Predictor(nn.Module):
    """The mean of the result, by residual blocks at cell resolution around a wider-seeing half-resolution branch."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        w = shape.width
        self.fold = shape.fold
        self.head = conv(3 * shape.fold**2, w)
        self.before = nn.Sequential(*(Block(w) for _ in range(shape.before)))
        self.down = conv(w, shape.wide, 2, 2)
        self.deep = nn.Sequential(*(Block(shape.wide) for _ in range(shape.deep)))
        self.up = Up(shape.wide, w)
        self.after = nn.Sequential(*(Block(w) for _ in range(shape.after)))
        self.fuse = conv(w, w)
        self.pixels = conv(w, 3 * UP**2)
        self.spread = conv(w, 1)
        with torch.no_grad():
            self.pixels.weight.mul_(0.1)
            self.spread.weight.mul_(0.1)
            self.spread.get_parameter("bias").fill_(-3.0)

    def forward(self, picture: Tensor) -> Prediction:
        """`picture` is RGB in 0..1 whose sides are multiples of twice the fold."""
        base = F.interpolate(picture, scale_factor=UP / self.fold, mode="bicubic")
        head = self.head((F.pixel_unshuffle(picture, self.fold) - 0.5).to(self.head.weight.dtype))
        x = self.before(head)
        x = self.after(x + self.up(self.deep(self.down(x))))
        features = self.fuse(x) + head
        spread: Tensor = self.spread(features).float()
        mean = base + F.pixel_shuffle(self.pixels(features), UP).to(base.dtype)
        return Prediction(mean, features, spread.clamp(QUIETEST, LOUDEST))


class Edges(nn.Module):
    """A luma correction that firms edges, made at half the result's resolution and smoothed over its own grid."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        w = shape.edge
        self.head = conv(shape.width, 4 * w)
        self.body = nn.Sequential(Block(w), Block(w))
        self.pixels = conv(w, 4)
        nn.init.zeros_(self.pixels.weight)

    def forward(self, features: Tensor) -> Tensor:
        x = self.body(F.silu(F.pixel_shuffle(self.head(features), 2)))
        kernel = torch.tensor([1.0, 2.0, 1.0], device=x.device) / 4
        grey = F.pad(F.pixel_shuffle(self.pixels(x), 2).float(), (1, 1, 1, 1), mode="replicate")
        return F.conv2d(grey, torch.outer(kernel, kernel)[None, None])


class Level(nn.Module):
    """Embeds the continuous noise level sqrt(alpha-bar) as SR3 does."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.first, self.second = nn.Linear(size, size), nn.Linear(size, size)

    def forward(self, level: Tensor) -> Tensor:
        half = self.size // 2
        rates = torch.exp(torch.arange(half, device=level.device) * (-math.log(1e4) / half))
        angles = 1e3 * level[:, None] * rates
        waves = torch.cat([angles.sin(), angles.cos()], 1).to(self.first.weight.dtype)
        return F.silu(self.second(F.silu(self.first(waves))))


class Toned(nn.Module):
    """A block whose inner features are scaled and shifted by the noise level."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.first, self.second = conv(width, width), conv(width, width)
        self.tone = nn.Linear(size, 2 * width)
        with torch.no_grad():
            self.second.weight.mul_(0.1)
            self.tone.weight.mul_(0.1)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        scale, shift = self.tone(level)[..., None, None].chunk(2, 1)
        added: Tensor = self.second(F.silu(self.first(x) * (1 + scale) + shift))
        return x + added


class Detail(nn.Module):
    """Predicts v for the folded, normalised luma residual, led by the predictor's features."""

    def __init__(self, shape: Shape, size: int = 128) -> None:
        super().__init__()
        a, b, c = shape.detail
        self.level = Level(size)
        self.head = conv(UP**2 + shape.width + 1, a)
        self.enter, self.leave = Toned(a, size), Toned(a, size)
        self.down_b, self.enter_b, self.leave_b = conv(a, b, 2, 2), Toned(b, size), Toned(b, size)
        self.down_c, self.mid, self.last = conv(b, c, 2, 2), Toned(c, size), Toned(c, size)
        self.up_b, self.up_a = Up(c, b), Up(b, a)
        self.pixels = conv(a, UP**2)
        with torch.no_grad():
            self.pixels.weight.mul_(0.1)

    def forward(self, x: Tensor, level: Tensor, features: Tensor, spread: Tensor) -> Tensor:
        """`x` is (n, 16, h, w) with h and w multiples of 4; `level` is sqrt(alpha-bar), one an item."""
        tone = self.level(level)
        a = self.enter(self.head(torch.cat([x.to(features), features, spread.to(features)], 1)), tone)
        b = self.enter_b(self.down_b(a), tone)
        c = self.last(self.mid(self.down_c(b), tone), tone)
        b = self.leave_b(b + self.up_b(c), tone)
        pixels: Tensor = self.pixels(self.leave(a + self.up_a(b), tone))
        return pixels.float()


class Builtin(nn.Module):
    """The three networks under one roof; `shape` rebuilds it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.predictor = Predictor(shape)
        self.edges = Edges(shape)
        self.detail = Detail(shape)

    def render(self, guess: Prediction, x: Tensor, strength: float) -> Tensor:
        """The mean with firmer edges and sampled detail, less of it on straight edges, in 0..1.

        Edges grow with the strength, and so does the detail's energy.
        """
        firmer = self.edges(guess.features)
        sampled = F.pixel_shuffle(x.float() * torch.exp(guess.spread), UP)
        mask = straight_edges(luma(guess.mean) + firmer).mask
        detail = math.sqrt(strength) * DETAIL_GAIN * (1 - mask) * sampled
        rgb: Tensor = guess.mean + strength * EDGE_GAIN * firmer + detail
        return rgb.clamp(0, 1)


def luma(rgb: Tensor) -> Tensor:
    return torch.einsum("nchw,c->nhw", rgb, rgb.new_tensor(LUMA))[:, None]


def gradients(grey: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along x and y, the border repeated."""
    wide = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    return (wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]) / 2, (wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]) / 2


class Edge(NamedTuple):
    """Where straight edges are (0..1) and the unit vector across them."""

    mask: Tensor
    x: Tensor
    y: Tensor


def straight_edges(grey: Tensor, knee: float = 0.03) -> Edge:
    """Coherence times strength of the structure tensor, and its main direction."""
    dx, dy = gradients(grey)
    products = torch.cat([dx * dx, dy * dy, dx * dy], 1)
    for _ in range(2):
        products = F.avg_pool2d(F.pad(products, (2, 2, 2, 2), mode="replicate"), 5, 1)
    xx, yy, xy = products.chunk(3, 1)
    trace, apart = xx + yy, torch.sqrt((xx - yy) ** 2 + 4 * xy**2 + 1e-12)
    mask = apart / (trace + 1e-6) * trace / (trace + knee**2)
    cosine = ((xx - yy) / apart).clamp(-1, 1)
    return Edge(mask, torch.sqrt((1 + cosine) / 2), torch.sqrt((1 - cosine) / 2) * torch.sign(xy))
