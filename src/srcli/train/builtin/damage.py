"""The damage of training pairs, from none to heavy, and its measurement."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from srcli.degrade.chain import MODES, degrade_pictures
from srcli.degrade.draws import Draws
from srcli.degrade.operations import gaussian_noise
from srcli.degrade.presets import REALESRGAN
from srcli.degrade.settings import BlurKernels, Degradation, DegradationStage
from srcli.models.builtin import MOST_DAMAGE, UPSCALE_FACTOR

LUMA_WEIGHTS = (0.299, 0.587, 0.114)
UNCHANGED = {"keep": 1.0}
LIGHT_DAMAGE = Degradation(
    first=DegradationStage(
        blur=0.7,
        kernels=BlurKernels(sinc=0.05),
        resize=UNCHANGED,
        factor=(1.0, 1.0),
        sigma=(0.0, 3.0),
        poisson=(0.0, 0.2),
        jpeg=(95.0, 100.0),
    ),
    second=DegradationStage(
        blur=0.0, resize=UNCHANGED, factor=(1.0, 1.0), sigma=(0.0, 7.0), poisson=(0.0, 0.8), jpeg=(60.0, 100.0)
    ),
    final_sinc=0.0,
    back="none",
)
"""A good camera and one JPEG of high quality."""
HEAVY_DAMAGE = replace(REALESRGAN, first=replace(REALESRGAN.first, factor=(0.25, 1.5)), sharpen_target=False)
"""Real-ESRGAN's degradation: repeated blur, resizing, noise and JPEG."""

RAW_SIGMA, RAW_GRAY = (0.0, 50.0), 0.4
"""Noise without JPEG compression: strength in 8-bit levels, and the probability of grey noise."""


def reduce_antialiased(sharp: Tensor, factor: int = UPSCALE_FACTOR) -> Tensor:
    """The usual downsampling of super-resolution test sets: antialiased bicubic."""
    size = sharp.shape[-2] // factor, sharp.shape[-1] // factor
    return F.interpolate(sharp, size=size, mode="bicubic", antialias=True, align_corners=False)


def reduce_randomly(sharp: Tensor, draws: Draws) -> Tensor:
    """Downsampling with a random filter, which may alias."""
    size = sharp.shape[-2] // UPSCALE_FACTOR, sharp.shape[-1] // UPSCALE_FACTOR
    return F.interpolate(sharp, size=size, mode=draws.choice("reduce.mode", MODES)).clamp(0, 1)


def damage_pictures(sharp: Tensor, settings: Degradation, draws: Draws) -> Tensor:
    """Degrade sharp pictures (N, 3, 4h, 4w) to (N, 3, h, w), in 0..1."""
    return degrade_pictures(sharp, settings, draws).degraded


def add_raw_noise(sharp: Tensor, draws: Draws) -> Tensor:
    """Downsample sharp pictures (N, 3, 4h, 4w) to (N, 3, h, w) and add white noise like that of a sensor."""
    return gaussian_noise(reduce_antialiased(sharp), draws, "raw", RAW_SIGMA, RAW_GRAY)


def quantize_to_uint8(pictures: Tensor) -> Tensor:
    """Floats in 0..1 as 8-bit integers."""
    return (pictures.clamp(0, 1) * 255).round().to(torch.uint8)


def measure_damage(damaged: Tensor, clean: Tensor) -> Tensor:
    """Blur, noise, colour noise and JPEG blocks of `damaged` relative to `clean`, (N, 4); heavy is about 1."""
    luma_weights = torch.tensor(LUMA_WEIGHTS, device=clean.device)[:, None, None]
    difference = damaged - clean
    luma = (difference * luma_weights).sum(1, keepdim=True)
    chroma = difference - luma
    detail = _high_pass((clean * luma_weights).sum(1, keepdim=True))
    lost = -(_high_pass(luma) * detail).mean((1, 2, 3)) / (detail.square().mean((1, 2, 3)) + 1e-5)
    rest = luma + lost[:, None, None, None] * detail
    noise, color = (v.square().mean((1, 2, 3)).sqrt() * 255 / 20 for v in (rest, chroma))
    blocks = measure_blockiness(damaged) - measure_blockiness(clean)
    return torch.stack((lost.clamp(0, 1.5), noise, 1.5 * color, blocks), 1).clamp(0, MOST_DAMAGE)


def _high_pass(plane: Tensor) -> Tensor:
    return plane - F.avg_pool2d(F.pad(plane, (1, 1, 1, 1), mode="reflect"), 3, 1)


def measure_blockiness(pictures: Tensor) -> Tensor:
    """How much steeper luma changes at the borders of 8x8 blocks than elsewhere, (N)."""
    luma = (pictures * torch.tensor(LUMA_WEIGHTS, device=pictures.device)[:, None, None]).sum(1)
    return (_border_steepness(luma) + _border_steepness(luma.transpose(1, 2))) / 4


def _border_steepness(plane: Tensor) -> Tensor:
    """The same along rows: the steepest of the eight phases relative to their median."""
    step = plane.diff(dim=-1)
    bend = (step[..., :-2] + step[..., 2:] - 2 * step[..., 1:-1]).abs()
    count, height, width = bend.shape
    by_phase = bend[..., : width // 8 * 8].reshape(count, height, -1, 8).mean((1, 2))
    return (by_phase.amax(-1) / (by_phase.median(-1).values + 2e-3) - 1.2).clamp(min=0)
