"""How PASD samples: where its latents start, and what it predicts at each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor

from srcli.engines.latent.schedulers import apply_guidance, diffuse_latents, scale_initial_latents
from srcli.engines.runtime.device import Device
from srcli.models.patches.deepcache import DeepFeatures, count_outer_residuals, run_outer_layers
from srcli.models.patches.install import install
from srcli.models.patches.paca import PixelAware
from srcli.models.patches.shared_cfg_prefix import SharedCfgPrefix
from srcli.sampling.hint import to_unit_float
from srcli.sampling.noise import EXTRA_NOISE, START_NOISE, NoiseField
from srcli.sampling.tiling import Tile

# Of the two texts: what to keep away from, what to show.
AWAY, SHOWN, BOTH = slice(0, 1), slice(1, 2), slice(0, 2)


@dataclass(frozen=True)
class Nets:
    """The networks of every step."""

    unet: UNet2DConditionModel
    paca: PixelAware
    control: ControlNetModel
    device: Device
    prefix: SharedCfgPrefix | None = None

    def equal_halves(self) -> AbstractContextManager[None]:
        """Within, both halves of a batch differ in their text alone."""
        return nullcontext() if self.prefix is None else self.prefix.equal_halves()


@dataclass(frozen=True, slots=True)
class Deep:
    """What a call's deeper layers found, in host memory."""

    features: Tensor
    residuals: list[Tensor]

    @classmethod
    def of(cls, features: Tensor, residuals: Sequence[Tensor]) -> Deep:
        return cls(_to_host(features), [_to_host(residual) for residual in residuals])


@dataclass(frozen=True)
class PasdDenoiser:
    """A denoiser: the base's UNet, led by the picture through ControlNet and PACA, and by two texts."""

    nets: Nets
    text: Tensor  # two rows: what to keep away from, what to show
    guidance: float
    strength: float
    guided_at: frozenset[float]
    split_guidance: bool = False  # one text after the other, in half the memory
    feature_source_step: Mapping[float, float] = field(
        default_factory=dict
    )  # timestep -> the one whose deep features serve it
    _embedded: dict[Tile | None, Tensor] = field(default_factory=dict)
    _texts: dict[tuple[int, int, int], Tensor] = field(default_factory=dict)
    _deep: dict[float, dict[tuple[object, ...], Deep]] = field(default_factory=dict)

    @property
    def stride(self) -> int:
        return 8

    def __call__(self, x: Tensor, t: Tensor, hint: Tensor, where: Sequence[Tile] | None = None) -> Tensor:
        embedding = self._embedding(hint, where)
        if self.guidance <= 1 or float(t) not in self.guided_at:
            return self.predict(x, t, embedding, SHOWN, where)
        if self.split_guidance:
            away, shown = (self.predict(x, t, embedding, texts, where) for texts in (AWAY, SHOWN))
            return apply_guidance(away, shown, self.guidance)
        with self.nets.equal_halves():
            halves = self.predict(torch.cat([x, x]), t, torch.cat([embedding, embedding]), BOTH, where)
        away, shown = halves.chunk(2)
        return apply_guidance(away, shown, self.guidance)

    def predict(
        self, x: Tensor, t: Tensor, embedding: Tensor, texts: slice, where: Sequence[Tile] | None = None
    ) -> Tensor:
        """The plain predictions for these texts, as many of x in a row for each."""
        given, text = x.to(self.nets.device.dtype), self._text(len(x), texts)
        here = t.to(x.device, non_blocking=True)  # else both networks bring it there, and wait for it
        if not self.feature_source_step:
            return self._whole(given, here, text, embedding)[0].to(x.dtype)
        key, kept = (where and tuple(where), texts.start, texts.stop), self._kept(self.feature_source_step[float(t)])
        if key in kept:
            return self._around(kept[key], given, here, text).to(x.dtype)
        deep = DeepFeatures()
        with install([self.nets.unet], deep):
            out, down = self._whole(given, here, text, embedding)
        kept[key] = Deep.of(deep.found[0], down[: count_outer_residuals(self.nets.unet)])
        return out.to(x.dtype)

    def _kept(self, feature_source_step: float) -> dict[tuple[object, ...], Deep]:
        """Deep features that were found at this timestep, by tiles and texts; those of others serve no more."""
        if feature_source_step not in self._deep:
            self._deep.clear()
        return self._deep.setdefault(feature_source_step, {})

    def _whole(self, x: Tensor, t: Tensor, text: Tensor, embedding: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """What all layers predict, and the ControlNet's residuals."""
        nets = self.nets
        down, mid = nets.control(x, t, text, embedding, conditioning_scale=self.strength, return_dict=False)
        with nets.paca.attending(down):
            out: Tensor = nets.unet(
                x,
                t,
                text,
                down_block_additional_residuals=down,
                mid_block_additional_residual=mid,
                return_dict=False,
            )[0]
        return out, down

    def _around(self, kept: Deep, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        """What the outermost layers predict around deep features of an earlier step."""
        residuals = [residual.to(x.device, non_blocking=True) for residual in kept.residuals]
        with self.nets.paca.attending(residuals):
            return run_outer_layers(
                self.nets.unet, x, t, text, kept.features.to(x.device, non_blocking=True), residuals
            )

    def _text(self, rows: int, texts: slice) -> Tensor:
        """The texts as rows. The same tensor each time: attention remembers it by its identity."""
        if (rows, texts.start, texts.stop) not in self._texts:
            chosen = self.text[texts].to(self.nets.device.torch, self.nets.device.dtype)
            self._texts[rows, texts.start, texts.stop] = chosen.repeat_interleave(rows // len(chosen), 0)
        return self._texts[rows, texts.start, texts.stop]

    def _embedding(self, hint: Tensor, where: Sequence[Tile] | None) -> Tensor:
        """The hint's features, made at the first step. One crop has the same ones at all others."""
        places: Sequence[Tile | None] = where or [None]
        new = [i for i, place in enumerate(places) if place not in self._embedded]
        if new:
            crops = to_unit_float(hint if where is None else hint[new])
            made = self.nets.control.controlnet_cond_embedding(crops.to(self.nets.device.torch, self.nets.device.dtype))
            self._embedded.update(zip([places[i] for i in new], made.split(len(made) // len(new)), strict=True))
        return torch.cat([self._embedded[place] for place in places])


def _to_host(x: Tensor) -> Tensor:
    """In host memory that a GPU copies from while it computes, which needs pinned pages."""
    return torch.empty(x.shape, dtype=x.dtype, pin_memory=x.is_cuda).copy_(x)


def feature_source_steps(timesteps: Tensor, reuse: int) -> dict[float, float]:
    """Each timestep, and the one whose deep features serve it: the first of so many."""
    times = [float(t) for t in timesteps]
    return {t: times[i - i % reuse] for i, t in enumerate(times)} if reuse > 1 else {}


def draw_initial_latents(
    z: Tensor, scheduler: Any, noise: NoiseField, level: int | None, official: bool = False
) -> Tensor:
    """Latents to start from: diffused to the first timestep, then once more to `level` with fresh noise.

    Without a level the start is pure noise. `official` looks the level up among the steps, as the official program
    does with newer diffusers, and silently takes the last step where it is none of them.
    """
    first = noise.draw(z.shape, START_NOISE).to(z)
    if level is None:
        return scale_initial_latents(scheduler, first)
    alphas = scheduler.alphas_cumprod
    if official and level not in [int(t) for t in scheduler.timesteps]:
        level = int(scheduler.timesteps[-1])
    once = diffuse_latents(z, first, alphas[int(scheduler.timesteps[0])])
    return scale_initial_latents(
        scheduler, diffuse_latents(once, noise.draw(z.shape, EXTRA_NOISE).to(z), alphas[level])
    )
