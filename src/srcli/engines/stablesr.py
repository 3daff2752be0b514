"""StableSR: Stable Diffusion 2.1 led by a time-aware encoder, decoded with the picture's own features."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from srcli.engines.base import Canvas, Request, Size, Tell
from srcli.engines.budget import Room, arrange
from srcli.engines.compiling import Later
from srcli.engines.device import Device
from srcli.engines.latent import (
    Codec,
    entering,
    least,
    noised,
    scheduler,
)
from srcli.engines.placing import demand, settle
from srcli.engines.prompts import TextEncoder
from srcli.engines.stablesr_weights import Loaded, Variant, open_all
from srcli.memory import ALL_SAVINGS
from srcli.models.banded_vae import After
from srcli.models.cfw import keeping
from srcli.models.memory import remember_text
from srcli.models.spade import Modulation
from srcli.models.time_encoder import TimeEncoder
from srcli.sampling.ancestral import Ancestral, scaled_linear
from srcli.sampling.hint import lit
from srcli.sampling.layout import Limits, lay
from srcli.sampling.noise import POSTERIOR, START
from srcli.sampling.tiling import Tile, filled_up
from srcli.settings import ModelChoice, Sampling
from srcli.weights.store import Store

# FLOP of one call as counted at full size: linear in the tile's latents, and quadratic where attention is.
LINEAR, QUADRATIC = 198e6, 9305.0
OVERLAP = 16  # of neighbouring tiles, in latents, where the user names none
# The noise schedule that StableSR was trained with, whatever a base says of its own; it starts at its last step.
TRAINED = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "trained_betas": None,
    "timestep_spacing": "trailing",
}


def load(choice: ModelChoice, device: Device, store: Store, tell: Tell) -> StableSR:
    """StableSR as chosen, on the device."""
    return StableSR.of(open_all(choice, store), device)


@dataclass(frozen=True)
class Led:
    """The modulated UNet as a denoiser. Its hint is the degraded picture's latent, which the encoder sees.

    The encoder's maps depend on the step, so they are made once for each tile and step: in each call.
    """

    unet: UNet2DConditionModel
    encoder: TimeEncoder
    modulation: Modulation
    text: Tensor
    stride: int = 1
    _texts: dict[int, Tensor] = field(default_factory=dict)

    def __call__(self, x: Tensor, t: Tensor, hint: Tensor, where: Sequence[Tile] | None = None) -> Tensor:
        dtype, step = self.unet.dtype, torch.as_tensor(t).to(x.device, non_blocking=True).expand(len(x))
        with self.modulation.leading(self.encoder(hint.to(dtype), step)):
            found: Tensor = self.unet(x.to(dtype), step, encoder_hidden_states=self._text(x)).sample
        return found.to(x.dtype)

    def _text(self, x: Tensor) -> Tensor:
        """The text for each of x. The same tensor each time: attention remembers it by its identity."""
        if len(x) not in self._texts:
            self._texts[len(x)] = self.text.to(x.device, self.unet.dtype).expand(len(x), -1, -1).contiguous()
        return self._texts[len(x)]


@dataclass(frozen=True)
class StableSR:
    """StableSR's engine."""

    loaded: Loaded
    codec: Codec
    texts: TextEncoder
    device: Device
    room: Room
    factor: int = 1
    block: int | None = None
    halo: int = 0
    supported_savings: Collection[str] = ALL_SAVINGS - {"split_guidance"}  # it samples without guidance

    @classmethod
    def of(cls, loaded: Loaded, device: Device) -> StableSR:
        remember_text(loaded.unet)
        steps, base = (loaded.unet, loaded.encoder, loaded.modulation), loaded.base
        need = demand("StableSR", steps, (base.vae, base.text_encoder), device.dtype)
        room = arrange(need, device)
        settle(steps, device, room)
        texts = TextEncoder.of(base.tokenizer, base.text_encoder, device, room)
        return cls(loaded, Codec.of(base.vae, need.beside(room, device), room), texts, device, room)

    @property
    def name(self) -> str:
        """Turbo has defaults of its own, so it has a name of its own."""
        return "stablesr-turbo" if self.variant.name == "turbo" else "stablesr"

    @property
    def variant(self) -> Variant:
        return self.loaded.variant

    @cached_property
    def _later(self) -> Later:
        return Later((self.loaded.unet, self.loaded.encoder, self.loaded.modulation), self.device, self.room)

    def passes(self, size: Size, target: Size) -> list[Size]:
        return [target]

    def working_size(self, size: Size, target: Size, request: Request) -> Size:
        """As large as the result, and at least what the model was trained with."""
        return least(target, request.sampling.process_size or self.variant.process)

    def layout(self, height: int, width: int, sampling: Sampling) -> tuple[list[Tile], int] | None:
        tiles = lay(height, width, sampling, cost, limits(self.variant.process // self.codec.factor))
        if tiles is None:
            return None
        return tiles, max(1, self.room.latents // (tiles[0].height * tiles[0].width))

    def prepare(self, hint: Tensor, request: Request) -> Canvas:
        self._later.begin(request.savings, request.tell)
        weight = float(request.sampling.fidelity or 0)
        fusion = self.loaded.fusion.net if weight else None
        made, seen = self._scheduler(request.sampling), dict[int, Tensor]()
        whole = filled_up(lit(hint), self.codec.factor)
        shape = (1, 4, whole.shape[2] // self.codec.factor, whole.shape[3] // self.codec.factor)
        codec = self.codec.with_less(request.savings)
        z = codec.encode(whole, request.noise.draw(shape, POSTERIOR), keeping(seen) if fusion else None)
        alpha = made.alphas_cumprod[int(made.timesteps[0])]
        start = entering(made, noised(z, request.noise.draw(shape, START).to(z), alpha))
        text = self._text(request)
        led = Led(self.loaded.unet, self.loaded.encoder, self.loaded.modulation, text)
        mix = fusion and fusion.mixing(seen, weight, codec.bands, self.device.torch)
        return Canvas(start, z, led, made, partial(_finish, codec, (hint.shape[2], hint.shape[3]), mix))

    def provenance(self) -> Mapping[str, str]:
        return {**self.loaded.made_of, **self.loaded.fusion.made_of, **self.room.said()}

    def _text(self, request: Request) -> Tensor:
        """What the user says of the picture, if anything: StableSR was trained without words."""
        if request.prompt.negative:
            request.tell("StableSR samples without guidance: the negative prompt has no effect")
        return self.texts.with_less(request.savings).encode([request.prompt.text])

    def _scheduler(self, sampling: Sampling) -> Any:
        name, steps, config = str(sampling.scheduler), int(sampling.steps or 1), self.loaded.base.schedule
        if name != "ddpm":
            return scheduler(name, {**config, **TRAINED, "prediction_type": self.variant.prediction}, steps)
        made = Ancestral(scaled_linear(), self.variant.prediction)
        made.set_timesteps(steps)
        return made


def _finish(codec: Codec, size: tuple[int, int], mix: After | None, x: Tensor) -> Tensor:
    """Not clamped: the colour fix looks at means and deviations, which clamping would move."""
    return codec.decode(x, mix)[:, :, : size[0], : size[1]]


def limits(side: int) -> Limits:
    """Tiles from the size of training to half as much again."""
    return Limits(smallest=side, largest=side * 3 // 2, overlap=OVERLAP)


def cost(latents: int) -> float:
    """FLOP of one prediction for a tile of so many latents."""
    return LINEAR * latents + QUADRATIC * latents**2
