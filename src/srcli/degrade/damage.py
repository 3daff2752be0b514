"""Damage of old prints on batches in 0..1: fading, yellowing, grain, scratches, dust and stains."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from srcli.degrade.draws import Draws
from srcli.degrade.settings import PrintDamage

YELLOW = (1.0, 0.9, 0.62)
MOST_SCRATCHES, MOST_DUST = 4, 60
STAIN_CELLS = 5


def age_print(pictures: Tensor, damage: PrintDamage, draws: Draws) -> Tensor:
    """Age each picture. The kinds of damage are drawn once per batch, their strengths per sample."""
    x = _fade(pictures, damage, draws)
    if draws.uniform("print.u_stains") < damage.stains:
        x = _stain(x, draws)
    x = _add_grain(x, damage, draws)
    if draws.uniform("print.u_scratches") < damage.scratches:
        x = _cover(x, _draw_scratches(x, draws), draws, "print.scratch")
    if draws.uniform("print.u_dust") < damage.dust:
        x = _cover(x, _draw_dust(x, draws), draws, "print.dust")
    return x.clamp(0, 1)


def _each(draws: Draws, name: str, like: Tensor, bounds: tuple[float, float]) -> Tensor:
    return draws.uniforms(name, len(like), *bounds).to(like).view(-1, 1, 1, 1)


def _fade(x: Tensor, damage: PrintDamage, draws: Draws) -> Tensor:
    """Reduce contrast, lighten blacks, and turn the paper yellow."""
    contrast = _each(draws, "print.contrast", x, damage.contrast)
    black = _each(draws, "print.black", x, damage.black)
    tint = _each(draws, "print.tint", x, damage.tint)
    paper = 1 - tint * (1 - x.new_tensor(YELLOW).view(1, 3, 1, 1))
    return (black + x * contrast * (1 - black)) * paper


def _stain(x: Tensor, draws: Draws) -> Tensor:
    """Darken large soft patches, like water stains."""
    field = draws.normals("print.stain", (len(x), 1, STAIN_CELLS, STAIN_CELLS)).to(x)
    soft = interpolate(field, size=x.shape[-2:], mode="bicubic")
    return x * (1 - 0.3 * (soft - 0.7).clamp(0, 1))


def _add_grain(x: Tensor, damage: PrintDamage, draws: Draws) -> Tensor:
    """Add grey noise with a size of about two pixels, strongest in the midtones."""
    strength = _each(draws, "print.grain", x, damage.grain) / 255
    cells = (math.ceil(x.shape[-2] / 1.5), math.ceil(x.shape[-1] / 1.5))
    field = interpolate(draws.normals("print.field", (len(x), 1, *cells)).to(x), size=x.shape[-2:], mode="bilinear")
    middle = x.mean(1, keepdim=True)
    return x + field * strength * (0.4 + 4 * middle * (1 - middle))


def _coordinates(x: Tensor) -> tuple[Tensor, Tensor]:
    height, width = x.shape[-2:]
    rows = torch.arange(height, device=x.device, dtype=x.dtype).view(1, 1, height, 1)
    return rows, torch.arange(width, device=x.device, dtype=x.dtype).view(1, 1, 1, width)


def _draw_scratches(x: Tensor, draws: Draws) -> Tensor:
    """A mask in 0..1 of thin, slightly bent lines across the picture, mostly vertical."""
    rows, columns = _coordinates(x)
    height, width = x.shape[-2:]
    mask = torch.zeros_like(x[:, :1])
    for index in range(1 + draws.integer("print.scratches", MOST_SCRATCHES - 1)):
        start = _each(draws, f"print.scratch{index}.start", x, (-0.1, 1.1)) * width
        slope = _each(draws, f"print.scratch{index}.slope", x, (-0.4, 0.4))
        bend = _each(draws, f"print.scratch{index}.bend", x, (-0.05, 0.05)) * width
        thick = _each(draws, f"print.scratch{index}.width", x, (0.4, 1.6))
        middle = start + slope * rows + bend * torch.sin(rows * (math.pi / height))
        mask = torch.maximum(mask, (1.5 * thick - (columns - middle).abs()).clamp(0, 1))
    return mask


def _draw_dust(x: Tensor, draws: Draws) -> Tensor:
    """A mask in 0..1 of small discs."""
    rows, columns = _coordinates(x)
    height, width = x.shape[-2:]
    mask = torch.zeros_like(x[:, :1])
    for index in range(1 + draws.integer("print.dust", MOST_DUST - 1)):
        top = _each(draws, f"print.dust{index}.top", x, (0, 1)) * height
        left = _each(draws, f"print.dust{index}.left", x, (0, 1)) * width
        radius = _each(draws, f"print.dust{index}.radius", x, (0.5, 3.0))
        mask = torch.maximum(mask, (radius + 0.5 - torch.hypot(rows - top, columns - left)).clamp(0, 1))
    return mask


def _cover(x: Tensor, mask: Tensor, draws: Draws, name: str) -> Tensor:
    """Paint the mask light, like missing emulsion, or dark, like something on the print."""
    light = draws.uniform(f"{name}.u_light") < 0.7
    tone = _each(draws, f"{name}.tone", x, (0.8, 1.0) if light else (0.0, 0.25))
    return x + mask * (tone - x) * _each(draws, f"{name}.strength", x, (0.5, 1.0))
