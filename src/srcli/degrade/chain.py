"""The second-order chain: two stages of blur, resize, noise and JPEG, and a sinc filter before or after the last JPEG.

Directions, factors, modes and orders are drawn once for a batch; kernels, strengths and qualities for each sample.
A batch of one therefore gives each sample a life of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from srcli.degrade.damage import age_print
from srcli.degrade.draws import Draws
from srcli.degrade.jpeg import compress_jpeg
from srcli.degrade.kernels import draw_final_kernel, draw_kernel, make_kernel, pad_kernel, unit_pulse
from srcli.degrade.operations import (
    apply_unsharp_mask,
    filter_each,
    gaussian_noise,
    poisson_noise,
    resize_by,
    resize_to,
)
from srcli.degrade.settings import BICUBIC, NONE, RANDOM, Degradation, DegradationStage
from srcli.errors import InputError

MODES = {"area": 1.0, "bilinear": 1.0, "bicubic": 1.0}
SMALLEST = 64
"""Least side in pixels for the widest kernels and the smallest factors."""
MapSize = tuple[int, int]


class TrainingPair(NamedTuple):
    """Targets and the model's degraded input, both in 0..1."""

    target: Tensor
    degraded: Tensor


class Kernels(NamedTuple):
    """The kernels of both stages and of the last filter, one per sample, (n, 21, 21)."""

    first: Tensor
    second: Tensor
    final: Tensor

    def to(self, device: torch.device) -> Kernels:
        return Kernels(*(kernel.to(device) for kernel in self))


def degrade_pictures(
    targets: Tensor, settings: Degradation, draws: Draws, kernels: Kernels | None = None
) -> TrainingPair:
    """Degrade sharp pictures (n, 3, h, w) in 0..1. Without `kernels` these are drawn first, for each sample."""
    size = _size(targets)
    if min(size) < SMALLEST:
        raise InputError(f"pictures of {size[1]}x{size[0]} are too small to degrade: take {SMALLEST} pixels or more")
    if kernels is None:
        kernels = join_kernels([draw_kernels(settings, draws, f"item{i}.") for i in range(len(targets))])
    kernels = kernels.to(targets.device)
    if settings.sharpen_target:
        targets = apply_unsharp_mask(targets)
    x = age_print(targets, settings.damage, draws) if settings.damage else targets
    x = store_as_jpeg(apply_stage(x, settings.first, settings, kernels.first, draws, "s1"), settings.first, draws, "s1")
    within = (size[0] / settings.scale, size[1] / settings.scale)
    x = apply_stage(x, settings.second, settings, kernels.second, draws, "s2", within)
    x = apply_last_stage(x, settings, kernels.final, draws, size)
    return finish_pair(targets, x, settings, draws)


def draw_kernels(settings: Degradation, draws: Draws, prefix: str = "") -> Kernels:
    """The three kernels of one sample; all are drawn, even if unused."""
    first = draw_kernel(settings.first.kernels, draws, f"{prefix}k1")
    second = draw_kernel(settings.second.kernels, draws, f"{prefix}k2")
    final = draw_final_kernel(settings.first.kernels, settings.final_sinc, draws, f"{prefix}k3")
    last = unit_pulse() if final is None else pad_kernel(make_kernel(final))
    return Kernels(pad_kernel(make_kernel(first))[None], pad_kernel(make_kernel(second))[None], last[None])


def join_kernels(each: Sequence[Kernels]) -> Kernels:
    return Kernels(*(torch.cat(parts) for parts in zip(*each, strict=True)))


def apply_stage(
    x: Tensor,
    stage: DegradationStage,
    settings: Degradation,
    kernels: Tensor,
    draws: Draws,
    name: str,
    within: tuple[float, float] | None = None,
) -> Tensor:
    """Blur, resize and noise. `within`: the size that the factor refers to, by default the picture's own."""
    if stage.blur >= 1 or draws.uniform(f"{name}.u_blur") < stage.blur:
        x = filter_each(x, kernels)
    x = _resize(x, _draw_factor(stage, draws, name), draws.choice(f"{name}.mode", MODES), within)
    if draws.uniform(f"{name}.u_gaussian") < stage.gaussian:
        return gaussian_noise(x, draws, name, stage.sigma, stage.gray)
    return poisson_noise(x, draws, name, stage.poisson, stage.gray, settings.poisson_levels)


def _draw_factor(stage: DegradationStage, draws: Draws, name: str) -> float:
    direction = draws.choice(f"{name}.updown", stage.resize)
    if direction == "keep":
        return 1.0
    return draws.uniform(f"{name}.scale", *((1.0, stage.factor[1]) if direction == "up" else (stage.factor[0], 1.0)))


def _resize(x: Tensor, factor: float, mode: str, within: tuple[float, float] | None) -> Tensor:
    if within is None:
        return resize_by(x, factor, mode)
    return resize_to(x, (int(within[0] * factor), int(within[1] * factor)), mode)


def store_as_jpeg(x: Tensor, stage: DegradationStage, draws: Draws, name: str) -> Tensor:
    """JPEG, each sample at its own quality."""
    return compress_jpeg(x.clamp(0, 1), draws.uniforms(f"{name}.quality", len(x), *stage.jpeg))


def apply_last_stage(x: Tensor, settings: Degradation, kernels: Tensor, draws: Draws, size: MapSize) -> Tensor:
    """Reduce to the target's size divided by the scale, then filter and JPEG, in either order."""
    small = (size[0] // settings.scale, size[1] // settings.scale)
    if draws.uniform("s3.u_order") < 0.5:
        x = filter_each(resize_to(x, small, draws.choice("s3.mode", MODES)), kernels)
        return store_as_jpeg(x, settings.second, draws, "s3")
    x = store_as_jpeg(x, settings.second, draws, "s3")
    return filter_each(resize_to(x, small, draws.choice("s3.mode", MODES)), kernels)


def finish_pair(targets: Tensor, x: Tensor, settings: Degradation, draws: Draws) -> TrainingPair:
    """Crop both, resize the degraded pictures to the targets' size, and round; or return clean pairs."""
    if settings.back == BICUBIC:
        x = x.clamp(0, 1)
    if settings.crop is not None:
        targets, x = _crop_both(targets, x, settings, draws)
    if settings.back != NONE:
        x = resize_to(x, _size(targets), draws.choice("s4.mode", MODES) if settings.back == RANDOM else BICUBIC)
    if settings.clean and draws.uniform("u_clean") < settings.clean:
        x = targets
    if settings.round_to_8_bits:
        x = (x * 255).round() / 255
    return TrainingPair(targets, x.clamp(0, 1))


def _crop_both(targets: Tensor, x: Tensor, settings: Degradation, draws: Draws) -> tuple[Tensor, Tensor]:
    """The same random square of both, aligned to the degraded picture's pixels."""
    scale, side = settings.scale, settings.crop or 0
    small = side // scale
    spare = [n - small for n in _size(x)]
    if min(spare) < 0:
        raise InputError(f"crop {side} is larger than the pictures: give larger pictures or a smaller crop")
    top, left = draws.integer("crop.top", spare[0]), draws.integer("crop.left", spare[1])
    large = targets[..., top * scale : top * scale + side, left * scale : left * scale + side]
    return large, x[..., top : top + small, left : left + small]


def _size(x: Tensor) -> MapSize:
    return x.shape[-2], x.shape[-1]
