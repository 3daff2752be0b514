"""PASD: Stable Diffusion 1.5 led by the picture, pixel by pixel."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from srcli.engines.base import Canvas, Request, Size, Tell
from srcli.engines.budget import Demand, Room, arrange, budget
from srcli.engines.captions import Describer
from srcli.engines.compiling import Later
from srcli.engines.device import Device
from srcli.engines.latent import Codec, guided_steps, least, scheduler
from srcli.engines.pasd_sampling import Led, Nets, serving, start
from srcli.engines.pasd_weights import Loaded, open_all
from srcli.engines.placing import demand, settle
from srcli.engines.prompts import TextEncoder, positive
from srcli.memory import ALL_SAVINGS
from srcli.models.memory import remember_text
from srcli.models.prefix import Prefix
from srcli.sampling.layout import Limits, lay
from srcli.sampling.noise import POSTERIOR
from srcli.sampling.tiling import Tile
from srcli.settings import ModelChoice, Sampling
from srcli.weights.store import Store

# FLOP of one call as measured: linear in the tile's latents, and quadratic where attention is.
LINEAR, QUADRATIC = 267e6, 18930.0
OUTER_LINEAR, OUTER_QUADRATIC = 62e6, 14080.0  # of the outermost layers alone
EMBEDDED = 320  # values of each latent that stay of the picture's embedding
DEEP = 1600  # values of each latent that --reuse keeps for a text: what enters those layers, and three residuals


def load(choice: ModelChoice, device: Device, store: Store, tell: Tell) -> Pasd:
    """PASD as chosen, on the device."""
    return Pasd.of(open_all(choice, store, tell), device, Describer(store, device, choice.allow_pickle))


@dataclass(frozen=True)
class Pasd:
    """PASD's engine."""

    nets: Nets
    codec: Codec
    texts: TextEncoder
    schedule: Mapping[str, Any]
    made_of: Mapping[str, str]
    describer: Describer
    demand: Demand
    room: Room
    memory: int | None = None  # that was free before anything was loaded
    name: str = "pasd"
    factor: int = 1
    block: int | None = None
    halo: int = 0
    supported_savings: Collection[str] = ALL_SAVINGS

    @classmethod
    def of(cls, loaded: Loaded, device: Device, describer: Describer) -> Pasd:
        for net in (loaded.unet, loaded.control):
            remember_text(net)
        steps, base = (loaded.unet, loaded.paca, loaded.control), loaded.base
        need = demand("PASD", steps, (base.vae, base.text_encoder), device.dtype)
        room, memory = arrange(need, device), budget(device)
        settle(steps, device, room)
        nets = Nets(*steps, device, Prefix(loaded.unet, loaded.control))
        texts = TextEncoder.of(base.tokenizer, base.text_encoder, device, room)
        codec = Codec.of(base.vae, need.beside(room, device), room)
        return cls(nets, codec, texts, loaded.schedule, loaded.made_of, describer, need, room, memory)

    @cached_property
    def _later(self) -> Later:
        return Later((self.nets.unet, self.nets.paca, self.nets.control), self.nets.device, self.room)

    def passes(self, size: Size, target: Size) -> list[Size]:
        return [target]

    def working_size(self, size: Size, target: Size, request: Request) -> Size:
        """As large as the result, at least what PASD was tuned for, in whole latents; colours need no more."""
        least_side = request.sampling.process_size or 0
        width, height = grey_size(size, least_side) if request.task.grey_hint else least(target, least_side)
        unit = self.codec.factor
        return max(unit, width // unit * unit), max(unit, height // unit * unit)

    def layout(self, height: int, width: int, sampling: Sampling) -> tuple[list[Tile], int] | None:
        tiles = lay(height, width, sampling, cost, Limits())
        if tiles is None:
            return None
        return tiles, max(1, self._latents(tiles, sampling) // (tiles[0].height * tiles[0].width))

    def _latents(self, tiles: Sequence[Tile], sampling: Sampling) -> int:
        """Of all tiles in a call, beside what stays from step to step. TooLarge: a CPU has no room left for any."""
        device = self.nets.device
        need = replace(self.demand, kept=kept(tiles, sampling, device))
        return need.latents(self.room, self.memory) if device.accelerated else arrange(need, device).latents

    def prepare(self, hint: Tensor, request: Request) -> Canvas:
        self._later.begin(request.savings, request.tell)
        sampling = request.sampling
        made = scheduler(str(sampling.scheduler), self.schedule, int(sampling.steps or 1))
        shape = (1, 4, hint.shape[2] // self.codec.factor, hint.shape[3] // self.codec.factor)
        codec = self.codec.with_less(request.savings)
        z = codec.encode(hint, request.noise.draw(shape, POSTERIOR))
        led = Led(
            self.nets,
            self._text(hint, request),
            float(sampling.guidance or 0),
            1.0 if sampling.conditioning_scale is None else sampling.conditioning_scale,
            guided_steps(made.timesteps, sampling.guidance_interval),
            request.savings.split_guidance,
            serving(made.timesteps, sampling.reuse or 1),
        )
        finish = partial(_finish, codec)
        return Canvas(start(z, made, request.noise, sampling.noise_level), hint, led, made, finish)

    def provenance(self) -> Mapping[str, str]:
        return {**self.made_of, **self.room.said()}

    def _text(self, hint: Tensor, request: Request) -> Tensor:
        """Embeddings of what to keep away from and of what to show."""
        task, prompt = request.task, request.prompt
        caption = self.describer.describe(hint, prompt.caption, request.tell)
        shown = positive(task, prompt.text, caption)
        away = task.negative_prompt if prompt.negative is None else prompt.negative
        for text in (shown, away):
            if (count := len(self.texts.pieces(text))) > 1:
                request.tell(f"the prompt is longer than {self.texts.length} tokens: it is read in {count} pieces")
        return self.texts.with_less(request.savings).encode([away, shown])


def _finish(codec: Codec, x: Tensor) -> Tensor:
    return codec.decode(x).clamp_(0, 1)


def cost(latents: int) -> float:
    """FLOP of one prediction for a tile of so many latents."""
    return LINEAR * latents + QUADRATIC * latents**2


def outer_cost(latents: int) -> float:
    """FLOP of one prediction around deep features of an earlier step."""
    return OUTER_LINEAR * latents + OUTER_QUADRATIC * latents**2


def kept(tiles: Sequence[Tile], sampling: Sampling, device: Device) -> int:
    """Bytes on the device that stay from step to step."""
    embedded = EMBEDDED * device.dtype.itemsize * sum(tile.height * tile.width for tile in tiles)
    return embedded if device.accelerated else embedded + deep(tiles, sampling, device.dtype)


def deep(tiles: Sequence[Tile], sampling: Sampling, dtype: torch.dtype) -> int:
    """Bytes of host memory for deep features that serve several steps."""
    if (sampling.reuse or 1) == 1:
        return 0
    texts = 1 if (sampling.guidance or 0) <= 1 else 2 if sampling.guidance_interval is None else 3
    return DEEP * texts * dtype.itemsize * sum(tile.height * tile.width for tile in tiles)


def grey_size(size: Size, short: int) -> Size:
    """Exactly `short` pixels on the short side, unless the long one would pass twice that."""
    long = int(short * max(size) / min(size))
    if long > 2 * short:
        short, long = int(2 * short * short / long), 2 * short
    return (long, short) if size[0] > size[1] else (short, long)
