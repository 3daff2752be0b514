"""SR3 as published: a U-Net over pixels, led by the bicubic enlargement, from a checkpoint that the user has."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from srcli.engines.base import Canvas, Request, Size, Tell
from srcli.engines.budget import Area, size
from srcli.engines.device import Device
from srcli.errors import WeightsError
from srcli.models.sr3_unet import Shape, SR3UNet, build, weights_of
from srcli.sampling.ancestral import Ancestral, betas, levels
from srcli.sampling.hint import lit
from srcli.sampling.layout import Limits, lay
from srcli.sampling.noise import START
from srcli.sampling.tiling import Tile, filled_up
from srcli.settings import ModelChoice, Sampling
from srcli.weights.open import load_into, load_state
from srcli.weights.store import Store

STEPS = 2000
# First and last beta of the published configurations.
ENDS = {"sr3": (1e-6, 1e-2), "ddpm": (1e-4, 2e-2)}
PUBLISHED_FACTOR = 8  # 16 -> 128 and 64 -> 512
LIMITS = Limits(smallest=128, largest=512, step=32, overlap=32)
SIDES = (512, 448, 384, 320, 256, 192, 128)  # of the largest tile, as memory allows
VALUES = 24  # of all maps at once, for each pixel of a tile and each channel of the first level
CANVAS = 130  # bytes of all that is as large as the result, for each of its pixels


def load(choice: ModelChoice, device: Device, store: Store, tell: Tell) -> SR3:
    """The checkpoint that was named; there is none to pull."""
    if choice.adapter is None:
        raise WeightsError("SR3 has no weights of its own to pull: give a checkpoint, --adapter FILE")
    located = store.resolve(choice.adapter, "adapter", allow_pickle=choice.allow_pickle)
    path = located.only_file()
    state = load_state(path)
    config = beside(Path(choice.adapter))
    unet = opened(path, state, config).to(device.torch).requires_grad_(False)
    table = schedule(config, state, unet.shape.variant)
    limits = replace(LIMITS, largest=demand(unet, device).largest(SIDES, 0, device))
    return SR3(unet, table, factor_of(config), device, located.provenance(), limits)


def work(unet: SR3UNet, height: int, width: int) -> float:
    """FLOP of one prediction, counted without computing it."""
    net, shape = build(unet.shape), unet.shape
    with torch.device("meta"), FlopCounterMode(display=False) as counted:
        net(torch.empty(1, shape.in_channel, height, width), torch.empty((1, 1) if shape.variant == "sr3" else 1))
    return float(counted.get_total_flops())


def demand(unet: SR3UNet, device: Device) -> Area:
    """The memory that a tile takes."""
    each = VALUES * unet.shape.inner_channel * device.dtype.itemsize
    return Area("SR3", each, size([unet], torch.float32))


def opened(path: Path, state: Mapping[str, Tensor], config: Mapping[str, Any]) -> SR3UNet:
    """The network, after its configuration if there is one, else after the shapes of its weights."""
    own = weights_of(state)
    if "downs.0.weight" not in own:
        raise WeightsError(f"{path}: holds no SR3 network: choose an SR3 checkpoint")
    try:
        shape = Shape.from_config(config["model"]) if config else Shape.from_state(own)
        unet = build(shape)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise WeightsError(f"{path}: its layout is not SR3's ({error}): choose an SR3 checkpoint") from error
    if shape.in_channel != 2 * shape.out_channel:
        raise WeightsError(f"{path}: paints from nothing ({shape.in_channel} channels in): choose one that enlarges")
    return load_into(unet, own, path)


def beside(path: Path) -> Mapping[str, Any]:
    """The official configuration, where it lies beside the checkpoint as NAME.json or NAME_config.json."""
    for name in (f"{path.stem}.json", f"{path.stem}_config.json"):
        file = path.with_name(name)
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise WeightsError(f"{file}: not a configuration ({error}): correct it or move it away") from error
        if isinstance(found, dict) and isinstance(found.get("model"), dict):
            return found
    return {}


def schedule(config: Mapping[str, Any], state: Mapping[str, Tensor], variant: str) -> Tensor:
    """The betas: as configured, else those in the checkpoint, else the published ones. Straight ones in float64."""
    said = config.get("model", {}).get("beta_schedule", {}).get("val")
    if said:
        return betas(said["schedule"], said["n_timestep"], said["linear_start"], said["linear_end"])
    kept = state.get("betas")
    if kept is None:
        return betas("linear", STEPS, *ENDS[variant])
    straight = betas("linear", len(kept), float(kept[0]), float(kept[-1]))
    return straight if torch.allclose(straight, kept.double(), rtol=1e-3) else kept.double()


def factor_of(config: Mapping[str, Any]) -> int:
    """How many times larger one pass makes a picture: as in training."""
    data = config.get("datasets", {}).get("train", {})
    small, large = data.get("l_resolution", 1), data.get("r_resolution", PUBLISHED_FACTOR)
    return max(2, int(large) // int(small))


@dataclass(frozen=True)
class Levelled:
    """The U-Net as a denoiser. Its hint is the enlargement in -1..1; it is told the noise level, or the step."""

    unet: SR3UNet
    roots: Tensor  # of the cumulated alphas, after each step
    device: Device
    stride: int = 1

    def __call__(self, x: Tensor, t: Tensor, hint: Tensor, where: Sequence[Tile] | None = None) -> Tensor:
        when = torch.full((len(x), 1), float(self.roots[int(t) + 1]), device=x.device)
        if self.unet.shape.variant == "ddpm":
            when = torch.full((len(x),), int(t), device=x.device)
        half = self.device.dtype is not torch.float32
        with torch.autocast(x.device.type, self.device.dtype, enabled=half):
            found: Tensor = self.unet(torch.cat([hint, x], dim=1), when)
        return found.to(x.dtype)


@dataclass(frozen=True)
class SR3:
    """SR3's engine. Larger factors than it was trained for are reached in several passes."""

    unet: SR3UNet
    table: Tensor
    each: int
    device: Device
    made_of: Mapping[str, str]
    limits: Limits = LIMITS
    name: str = "sr3"
    factor: int = 1
    block: int | None = None
    halo: int = 0
    supported_savings: Collection[str] = ("share", "tile")

    def passes(self, size: Size, target: Size) -> list[Size]:
        """A cascade in equal steps, none larger than one of training."""
        scale = max(target[0] / size[0], target[1] / size[1], 1.0)
        count = max(1, math.ceil(math.log(scale) / math.log(self.each) - 1e-6))
        between = [scale ** (i / count) for i in range(1, count)]
        return [*((round(size[0] * s), round(size[1] * s)) for s in between), target]

    def working_size(self, size: Size, target: Size, request: Request) -> Size:
        return target

    def layout(self, height: int, width: int, sampling: Sampling) -> tuple[list[Tile], int] | None:
        unit = self.unet.shape.factor
        if sampling.tile is not None:  # a tile must survive all halvings
            tile = max(unit, sampling.tile // unit * unit)
            sampling = replace(sampling, tile=tile, overlap=sampling.overlap and min(sampling.overlap, tile - 1))
        tiles = lay(height, width, sampling, float, self.limits)
        return None if tiles is None else (tiles, 1)

    def prepare(self, hint: Tensor, request: Request) -> Canvas:
        made = Ancestral(self.table, clip=True)
        made.set_timesteps(min(int(request.sampling.steps or STEPS), len(self.table)))
        whole = filled_up(lit(hint).to(self.device.torch), self.unet.shape.factor) * 2 - 1
        start = request.noise.draw(whole.shape, START).to(whole)
        denoiser = Levelled(self.unet, levels(self.table), self.device)
        return Canvas(start, whole, denoiser, made, partial(_finish, (hint.shape[2], hint.shape[3])))

    def provenance(self) -> Mapping[str, str]:
        return self.made_of


def _finish(size: tuple[int, int], x: Tensor) -> Tensor:
    return x[:, :, : size[0], : size[1]] / 2 + 0.5
