"""The chain's operations on batches of pictures in 0..1."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad

from srcli.degrade.draws import Draws

LUMA = (0.2989, 0.587, 0.114)
USM_RADIUS, USM_SIGMA = 25, 8.0
USM_WEIGHT, USM_THRESHOLD = 0.5, 10


def filter_each(pictures: Tensor, kernels: Tensor) -> Tensor:
    """Cross-correlate each picture with its own kernel, or all with one, with reflection padding."""
    count, channels, height, width = pictures.shape
    reach = kernels.shape[-1] // 2
    padded = pad(pictures, [reach] * 4, mode="reflect")
    each = kernels.expand(count, -1, -1).repeat_interleave(channels, 0)[:, None]
    flat = padded.reshape(1, count * channels, *padded.shape[-2:])
    return conv2d(flat, each, groups=count * channels).view(count, channels, height, width)


def resize_by(pictures: Tensor, factor: float, mode: str) -> Tensor:
    """Resize by a factor. The factor, not the rounded size, determines the sample positions."""
    return interpolate(pictures, scale_factor=factor, mode=mode)


def resize_to(pictures: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    return interpolate(pictures, size=size, mode=mode)


def gaussian_noise(
    pictures: Tensor, draws: Draws, name: str, sigma: tuple[float, float], gray_probability: float
) -> Tensor:
    """Add Gaussian noise, with a sigma per picture (in 8-bit levels); grey noise is the same in all channels."""
    count, _, height, width = pictures.shape
    low, high = sigma
    strength = _per_picture(low + draws.uniforms(f"{name}.u_sigma", count) * (high - low))
    gray = _per_picture(draws.uniforms(f"{name}.u_gray", count) < gray_probability)
    shared = draws.normals(f"{name}.field_gray", (height, width)) if bool(gray.any()) else None
    field = draws.normals(f"{name}.field_color", pictures.shape)
    if shared is not None:
        field = torch.where(gray, shared, field)
    return (pictures + field * strength / 255).clamp(0, 1)


def poisson_noise(
    pictures: Tensor,
    draws: Draws,
    name: str,
    scale: tuple[float, float],
    gray_probability: float,
    fewest_levels: int = 1,
) -> Tensor:
    """Add shot noise, scaled per picture, with a level that depends on the picture's number of different values."""
    count = len(pictures)
    low, high = scale
    strength = _per_picture(low + draws.uniforms(f"{name}.u_scale", count) * (high - low))
    gray = _per_picture(draws.uniforms(f"{name}.u_gray", count) < gray_probability)
    noise_gray = None
    if bool(gray.any()):
        noise_gray = _shot_noise(compute_luma(pictures), draws, f"{name}.counts_gray", fewest_levels)
    noise = _shot_noise(pictures, draws, f"{name}.counts_color", fewest_levels)
    if noise_gray is not None:
        noise = torch.where(gray, noise_gray, noise)
    return (pictures + strength * noise).clamp(0, 1)


def compute_luma(pictures: Tensor) -> Tensor:
    red, green, blue = pictures.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)[:, None]


def _shot_noise(pictures: Tensor, draws: Draws, name: str, fewest_levels: int) -> Tensor:
    rounded, levels = poisson_levels(pictures, fewest_levels)
    return draws.poisson(name, rounded * levels) / levels - rounded


def poisson_levels(pictures: Tensor, fewest: int = 1) -> tuple[Tensor, Tensor]:
    """The pictures at 8 bits, and for each its number of different values, rounded up to a power of two."""
    steps = (pictures * 255).round().clamp(0, 255)
    seen = torch.zeros(len(pictures), 256, device=pictures.device)
    seen.scatter_(1, steps.flatten(1).long(), 1.0)
    powers = 2.0 ** torch.arange(9, device=pictures.device)
    levels = powers[torch.bucketize(seen.sum(1).clamp(min=fewest), powers)]
    return steps / 255, _per_picture(levels)


def apply_unsharp_mask(pictures: Tensor) -> Tensor:
    """Unsharp masking where the picture clearly differs from its blur (Real-ESRGAN's sharpened targets)."""
    rest = pictures - _wide_blur(pictures)
    mask = _wide_blur((rest.abs() * 255 > USM_THRESHOLD).to(pictures))
    sharp = (pictures + USM_WEIGHT * rest).clamp(0, 1)
    return mask * sharp + (1 - mask) * pictures


def _wide_blur(pictures: Tensor) -> Tensor:
    line = unsharp_line().to(pictures)
    flat = pad(pictures, [USM_RADIUS] * 4, mode="reflect").flatten(0, 1)[:, None]
    return conv2d(conv2d(flat, line[None, None, :, None]), line[None, None, None]).view_as(pictures)


def unsharp_line() -> Tensor:
    """The Gaussian of the unsharp mask along one axis, float64; the kernel is its outer product with itself."""
    steps = torch.arange(-USM_RADIUS, USM_RADIUS + 1, dtype=torch.float64)
    line = torch.exp(-(steps**2) / (2 * USM_SIGMA**2))
    return line / line.sum()


def _per_picture(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
