"""Blur kernels: six kinds of Gaussians and plateaus, and the sinc filter, which simulates ringing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from srcli.degrade.draws import Draws
from srcli.degrade.settings import SINC, BlurKernels

KERNEL_SIDE = 21
"""Side that all kernels are padded to, for a single convolution per batch."""
SMALL = 13
"""From this side on, sinc kernels may have a lower cutoff."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelShape:
    """The parameters of a kernel. `beta`: exponent of generalized and plateau kinds. `omega`: cutoff of sinc."""

    kind: str
    size: int
    sigma_x: float = 1.0
    sigma_y: float | None = None
    theta: float = 0.0
    beta: float = 1.0
    omega: float = math.pi


def make_kernel(shape: KernelShape) -> Tensor:
    """The normalized kernel, float64, without padding."""
    kernel = _sinc(shape) if shape.kind == SINC else _profile(shape)
    return kernel / kernel.sum()


def pad_kernel(kernel: Tensor) -> Tensor:
    """The kernel, centred in one of full size, float32."""
    return pad(kernel, [(KERNEL_SIDE - kernel.shape[-1]) // 2] * 4).float()


def unit_pulse() -> Tensor:
    """The identity kernel."""
    return pad_kernel(torch.ones(1, 1, dtype=torch.float64))


def _grid(size: int) -> tuple[Tensor, Tensor]:
    """Coordinates along columns and rows, zero in the middle."""
    line = torch.arange(size, dtype=torch.float64) - size // 2
    return line.expand(size, size), line[:, None].expand(size, size)


def _profile(shape: KernelShape) -> Tensor:
    distance = _mahalanobis(shape)
    if shape.kind.startswith("plateau"):
        return 1 / (1 + distance**shape.beta)
    return torch.exp(-(distance**shape.beta if shape.kind.startswith("generalized") else distance) / 2)


def _mahalanobis(shape: KernelShape) -> Tensor:
    """Squared Mahalanobis distance from the middle."""
    x, y = _grid(shape.size)
    if shape.sigma_y is None:
        return (x**2 + y**2) / shape.sigma_x**2
    cos, sin = math.cos(shape.theta), math.sin(shape.theta)
    return ((x * cos + y * sin) / shape.sigma_x) ** 2 + ((y * cos - x * sin) / shape.sigma_y) ** 2


def _sinc(shape: KernelShape) -> Tensor:
    """The ideal circular low-pass filter, whose Fourier transform is a disc."""
    x, y = _grid(shape.size)
    distance = torch.hypot(x, y)
    middle = shape.size // 2
    distance[middle, middle] = 1.0
    kernel: Tensor = shape.omega * torch.special.bessel_j1(shape.omega * distance) / (2 * math.pi * distance)
    kernel[middle, middle] = shape.omega**2 / (4 * math.pi)
    return kernel


def draw_kernel(settings: BlurKernels, draws: Draws, name: str) -> KernelShape:
    """Draw a stage's blur kernel. The names and the order of the draws are part of the interface."""
    size = draws.choice(f"{name}.size", _equally(settings.sizes))
    if draws.uniform(f"{name}.u_sinc") < settings.sinc:
        lowest = math.pi / 3 if size < SMALL else math.pi / 5
        return KernelShape(kind=SINC, size=size, omega=draws.uniform(f"{name}.omega", lowest, math.pi))
    kind = draws.choice(f"{name}.kind", settings.kinds)
    sigma_x, sigma_y, theta = draws.uniform(f"{name}.sigma_x", *settings.sigma), None, 0.0
    if kind.endswith("aniso"):
        sigma_y = draws.uniform(f"{name}.sigma_y", *settings.sigma)
        theta = draws.uniform(f"{name}.theta", -math.pi, math.pi)
    beta = _draw_beta(kind, settings, draws, name)
    return KernelShape(kind=kind, size=size, sigma_x=sigma_x, sigma_y=sigma_y, theta=theta, beta=beta)


def _draw_beta(kind: str, settings: BlurKernels, draws: Draws, name: str) -> float:
    """Half of the time below 1, half above. Plateaus have no values below 1: half of them are exactly 1."""
    if kind in ("iso", "aniso"):
        return 1.0
    low, high = settings.beta_plateau if kind.startswith("plateau") else settings.beta_generalized
    below = draws.uniform(f"{name}.u_beta") < 0.5
    return draws.uniform(f"{name}.beta", *((low, 1.0) if below else (1.0, high)))


def draw_final_kernel(settings: BlurKernels, probability: float, draws: Draws, name: str) -> KernelShape | None:
    """Draw the sinc filter at the end of the chain, or none."""
    if draws.uniform(f"{name}.u_sinc") >= probability:
        return None
    size = draws.choice(f"{name}.size", _equally(settings.sizes))
    return KernelShape(kind=SINC, size=size, omega=draws.uniform(f"{name}.omega", math.pi / 3, math.pi))


def _equally(options: tuple[int, ...]) -> Mapping[int, float]:
    return dict.fromkeys(options, 1.0)
