"""Damage for whole batches on any device: sharp (N, 3, 4h, 4w) to spoiled (N, 3, h, w), in 0..1.

Kinds, ranges of blur, noise and JPEG differ from sample to sample; sizes and resize filters are shared by a batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from srcli.models.builtin import UPSCALE

KERNEL = 21
LUMA_WEIGHTS = (0.299, 0.587, 0.114)
# Quantization of JPEG's annex K.
LUMA_TABLE = (
    "16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62 "
    "18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"
)
CHROMA_TABLE = "17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99" + " 99" * 36


class Draws:
    """Random numbers on a device, all from one seed."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.device = device
        self.host = torch.Generator().manual_seed(seed)
        self.generator = torch.Generator(device).manual_seed(seed)

    def uniform(self, count: int, low: float, high: float) -> Tensor:
        return torch.rand(count, generator=self.generator, device=self.device) * (high - low) + low

    def chance(self, count: int, probability: float) -> Tensor:
        """True with this probability, for each sample."""
        return torch.rand(count, generator=self.generator, device=self.device) < probability

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.device)

    def number(self, low: float, high: float) -> float:
        """One number for a whole batch."""
        return low + (high - low) * float(torch.rand((), generator=self.host))

    def choice(self, *weights: float) -> int:
        return int(torch.multinomial(torch.tensor(weights), 1, generator=self.host))


def reduce_antialiased(sharp: Tensor, factor: int = UPSCALE, mode: str = "bicubic") -> Tensor:
    """The usual reduction of super-resolution test sets: bicubic with a kernel widened by the factor."""
    size = sharp.shape[-2] // factor, sharp.shape[-1] // factor
    return F.interpolate(sharp, size=size, mode=mode, antialias=True, align_corners=False)


def blur_kernels(count: int, low: float, high: float, sinc: float, draws: Draws) -> Tensor:
    """Gaussian, generalized and plateau kernels, round or not, and some sinc: (N, 21, 21), each of sum one."""
    axis = torch.arange(KERNEL, device=draws.device, dtype=torch.float32) - KERNEL // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    first, second = draws.uniform(count, low, high), draws.uniform(count, low, high)
    second = torch.where(draws.chance(count, 0.55), first, second)
    angle = draws.uniform(count, -math.pi, math.pi)
    cos, sin = (f(angle)[:, None, None] for f in (torch.cos, torch.sin))
    along, across = (x * cos + y * sin) / first[:, None, None], (y * cos - x * sin) / second[:, None, None]
    q = along.square() + across.square()
    power = torch.where(draws.chance(count, 0.5), draws.uniform(count, 0.5, 1), draws.uniform(count, 1, 3))
    kind = draws.uniform(count, 0, 1)[:, None, None]
    q_power = (q + 1e-8) ** power[:, None, None]
    kernel = torch.where(kind < 0.7, torch.exp(-q / 2), torch.exp(-q_power / 2))
    kernel = torch.where(kind > 0.85, 1 / (1 + q_power.clamp(max=1e6)), kernel)
    kernel = torch.where(draws.chance(count, sinc)[:, None, None], sinc_kernels(count, math.pi / 4, draws), kernel)
    return kernel / kernel.sum((1, 2), keepdim=True)


def sinc_kernels(count: int, low: float, draws: Draws) -> Tensor:
    """Ideal low passes of a cut-off from `low` to pi, (N, 21, 21): they ring, as sharpened pictures do."""
    axis = torch.arange(KERNEL, device=draws.device, dtype=torch.float32) - KERNEL // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    far = torch.hypot(x, y)
    cut = draws.uniform(count, low, math.pi)[:, None, None]
    kernel = cut * torch.special.bessel_j1(cut * far) / (2 * math.pi * far.clamp(min=1e-6))
    kernel = torch.where(far == 0, cut.square() / (4 * math.pi), kernel)
    return kernel / kernel.sum((1, 2), keepdim=True)


def filter_each(pictures: Tensor, kernels: Tensor) -> Tensor:
    """Each picture through its own kernel, by FFT: 21x21 depthwise convolutions are slow everywhere."""
    pad, (height, width) = KERNEL // 2, pictures.shape[-2:]
    padded = F.pad(pictures, (pad, pad, pad, pad), mode="reflect")
    size = height + 2 * pad, width + 2 * pad
    spectrum = torch.fft.rfft2(padded) * torch.fft.rfft2(kernels.flip(1, 2), s=size)[:, None]
    filtered: Tensor = torch.fft.irfft2(spectrum, s=size)
    return filtered[..., 2 * pad :, 2 * pad :]


def add_noise(pictures: Tensor, low: float, high: float, draws: Draws, gray: float = 0.4) -> Tensor:
    """Gaussian or signal-dependent noise of sigma `low`..`high` levels, grey or coloured, fine or clumped."""
    count, _, height, width = pictures.shape
    field = draws.normal(count, 3, height, width)
    field = torch.where(draws.chance(count, gray)[:, None, None, None], field[:, :1], field)
    clumped = (
        F.avg_pool2d(F.pad(field, (1, 1, 1, 1), mode="reflect"), 3, 1)
        * draws.uniform(count, 1.2, 3)[:, None, None, None]
    )
    field = torch.where(draws.chance(count, 0.25)[:, None, None, None], clumped, field)
    sigma = draws.uniform(count, low, high)[:, None, None, None] / 255
    shot = torch.where(draws.chance(count, 0.4)[:, None, None, None], (2 * pictures.clamp(0, 1)).sqrt(), 1.0)
    return (pictures + field * sigma * shot).clamp(0, 1)


def _table(text: str, device: torch.device) -> Tensor:
    return torch.tensor([float(v) for v in text.split()], device=device).view(8, 8)


def _dct(device: torch.device) -> Tensor:
    k = torch.arange(8, device=device, dtype=torch.float32)
    matrix = torch.cos((2 * k[None] + 1) * k[:, None] * math.pi / 16) * 0.5
    matrix[0] *= 1 / math.sqrt(2)
    return matrix


def _code_plane(plane: Tensor, table: Tensor) -> Tensor:
    """Quantize a plane (N, H, W) of 0..255, H and W multiples of 8, in blocks of the discrete cosine transform."""
    dct = _dct(plane.device)
    count, height, width = plane.shape
    blocks = plane.view(count, height // 8, 8, width // 8, 8).permute(0, 1, 3, 2, 4) - 128
    coded = dct @ blocks @ dct.T
    coded = (coded / table).round() * table
    blocks = dct.T @ coded @ dct + 128
    return blocks.permute(0, 1, 3, 2, 4).reshape(count, height, width)


def jpeg(pictures: Tensor, quality: Tensor) -> Tensor:
    """What JPEG of this quality (N) leaves: chroma halved half of the time, blocks quantized, 8 bits."""
    count, _, height, width = pictures.shape
    padded = F.pad(pictures, (0, -width % 16, 0, -height % 16), mode="replicate") * 255
    red, green, blue = padded.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = torch.stack(((blue - luma) * 0.564334, (red - luma) * 0.713267), 1) + 128
    factor = torch.where(quality < 50, 50 / quality, 2 - quality / 50)[:, None, None, None, None]
    device = pictures.device
    tables = [(_table(t, device) * factor + 0.5).floor().clamp(1, 255) for t in (LUMA_TABLE, CHROMA_TABLE)]
    luma = _code_plane(luma, tables[0])
    small = F.avg_pool2d(chroma, 2)
    planes = _code_plane(small.flatten(0, 1), tables[1].repeat_interleave(2, 0)).view_as(small)
    blue, red = F.interpolate(planes, scale_factor=2.0, mode="bilinear").sub(128).unbind(1)
    rgb = torch.stack((luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue), 1)
    return (rgb[..., :height, :width].clamp(0, 255)).round() / 255


def sometimes(changed: Tensor, pictures: Tensor, probability: float, draws: Draws) -> Tensor:
    """`changed` with this probability for each sample, else as it was."""
    return torch.where(draws.chance(len(pictures), probability)[:, None, None, None], changed, pictures)


def resize_any(pictures: Tensor, height: int, width: int, draws: Draws) -> Tensor:
    """To a size, by one of four filters, two of which alias."""
    mode = draws.choice(0.3, 0.25, 0.25, 0.2)
    if mode == 0:
        return F.interpolate(pictures, size=(height, width), mode="area")
    name = "bilinear" if mode == 1 else "bicubic"
    return F.interpolate(pictures, size=(height, width), mode=name, antialias=mode < 3, align_corners=False).clamp(0, 1)


def spoil_lightly(sharp: Tensor, draws: Draws) -> Tensor:
    """What a sound camera and one careful save do."""
    count, _, height, width = sharp.shape
    soft = filter_each(sharp, blur_kernels(count, 0.2, 3.0, 0.05, draws)).clamp(0, 1)
    soft = sometimes(soft, sharp, 0.7, draws)
    small = resize_any(soft, height // UPSCALE, width // UPSCALE, draws)
    small = sometimes(add_noise(small, 0.5, 7, draws), small, 0.6, draws)
    return sometimes(jpeg(small, draws.uniform(count, 60, 98)), small, 0.6, draws)


def spoil_heavily(sharp: Tensor, draws: Draws) -> Tensor:
    """Blur, resize, noise and JPEG, twice over: what a picture meets on its way through the world."""
    count, _, height, width = sharp.shape
    x = filter_each(sharp, blur_kernels(count, 0.2, 3.2, 0.1, draws)).clamp(0, 1)
    way = draws.choice(0.2, 0.7, 0.1)
    factor = draws.number(1, 1.5) if way == 0 else draws.number(0.25, 1) if way == 1 else 1.0
    if way < 2:
        x = resize_any(x, round(height * factor), round(width * factor), draws)
    x = sometimes(add_noise(x, 1, 30, draws), x, 0.8, draws)
    x = sometimes(jpeg(x, draws.uniform(count, 30, 95)), x, 0.8, draws)
    x = sometimes(filter_each(x, blur_kernels(count, 0.2, 1.5, 0.1, draws)).clamp(0, 1), x, 0.6, draws)
    factor = draws.number(0.6, 1.2)
    x = resize_any(x, round(height // UPSCALE * factor), round(width // UPSCALE * factor), draws)
    x = sometimes(add_noise(x, 1, 25, draws), x, 0.7, draws)
    ringing = sinc_kernels(count, math.pi / 3, draws)
    size = height // UPSCALE, width // UPSCALE
    if draws.choice(0.5, 0.5):
        x = resize_any(x, *size, draws)
        x = sometimes(filter_each(x, ringing).clamp(0, 1), x, 0.6, draws)
        return jpeg(x, draws.uniform(count, 30, 95))
    x = jpeg(x, draws.uniform(count, 30, 95))
    x = resize_any(x, *size, draws)
    return sometimes(filter_each(x, ringing).clamp(0, 1), x, 0.6, draws)


def quantize(pictures: Tensor) -> Tensor:
    """To 8-bit levels."""
    return (pictures.clamp(0, 1) * 255).round().to(torch.uint8)


def measure_damage(spoiled: Tensor, clean: Tensor) -> Tensor:
    """How far `spoiled` is from the clean reduction: blur, noise, colour noise, JPEG blocks (N, 4), heavy about 1."""
    luma_weights = torch.tensor(LUMA_WEIGHTS, device=clean.device)[:, None, None]
    apart = spoiled - clean
    luma = (apart * luma_weights).sum(1, keepdim=True)
    chroma = apart - luma
    detail = _high_pass((clean * luma_weights).sum(1, keepdim=True))
    lost = -(_high_pass(luma) * detail).mean((1, 2, 3)) / (detail.square().mean((1, 2, 3)) + 1e-5)
    rest = luma + lost[:, None, None, None] * detail
    noise, color = (v.square().mean((1, 2, 3)).sqrt() * 255 / 20 for v in (rest, chroma))
    return torch.stack((lost.clamp(0, 1.5), noise, 1.5 * color, blockiness(spoiled) - blockiness(clean)), 1).clamp(0, 2)


def _high_pass(plane: Tensor) -> Tensor:
    return plane - F.avg_pool2d(F.pad(plane, (1, 1, 1, 1), mode="reflect"), 3, 1)


def blockiness(pictures: Tensor) -> Tensor:
    """How much steeper luma steps across the borders of 8x8 blocks than elsewhere (N)."""
    luma = (pictures * torch.tensor(LUMA_WEIGHTS, device=pictures.device)[:, None, None]).sum(1)
    return (_border_steepness(luma) + _border_steepness(luma.transpose(1, 2))) / 4


def _border_steepness(plane: Tensor) -> Tensor:
    """The same along rows (N): the steepest of the eight phases against the middle one."""
    step = plane.diff(dim=-1)
    bend = (step[..., :-2] + step[..., 2:] - 2 * step[..., 1:-1]).abs()
    count, height, width = bend.shape
    by_phase = bend[..., : width // 8 * 8].reshape(count, height, -1, 8).mean((1, 2))
    return (by_phase.amax(-1) / (by_phase.median(-1).values + 2e-3) - 1.2).clamp(min=0)
