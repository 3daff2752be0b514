"""PASD's sampling: its initial latents, and the denoiser of each step."""

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

# Rows of the two prompts' embeddings.
NEGATIVE, POSITIVE, BOTH = slice(0, 1), slice(1, 2), slice(0, 2)


@dataclass(frozen=True)
class Nets:
    """The networks that run at every step."""

    unet: UNet2DConditionModel
    paca: PixelAware
    control: ControlNetModel
    device: Device
    prefix: SharedCfgPrefix | None = None

    def equal_halves(self) -> AbstractContextManager[None]:
        """A context in which both halves of a batch differ only in their text."""
        return nullcontext() if self.prefix is None else self.prefix.equal_halves()


@dataclass(frozen=True, slots=True)
class HostFeatures:
    """The deep features of one call and the ControlNet's outer residuals, in host memory."""

    features: Tensor
    residuals: list[Tensor]

    @classmethod
    def of(cls, features: Tensor, residuals: Sequence[Tensor]) -> HostFeatures:
        return cls(_to_host(features), [_to_host(residual) for residual in residuals])


@dataclass(frozen=True)
class PasdDenoiser:
    """The base's UNet with ControlNet and PACA, under classifier-free guidance, as a denoiser."""

    nets: Nets
    text: Tensor  # embeddings of the negative and the positive prompt, two rows
    guidance: float
    conditioning_scale: float
    guided_timesteps: frozenset[float]
    split_guidance: bool = False  # the prompts in separate calls, in half the memory
    feature_source: Mapping[float, float] = field(default_factory=dict)  # timestep -> that of the features it reuses
    _embedded: dict[Tile | None, Tensor] = field(default_factory=dict)
    _texts: dict[tuple[int, int, int], Tensor] = field(default_factory=dict)
    _deep: dict[float, dict[tuple[object, ...], HostFeatures]] = field(default_factory=dict)

    @property
    def stride(self) -> int:
        return 8

    def __call__(self, x: Tensor, t: Tensor, hint: Tensor, where: Sequence[Tile] | None = None) -> Tensor:
        embedding = self._embedding(hint, where)
        if self.guidance <= 1 or float(t) not in self.guided_timesteps:
            return self.predict(x, t, embedding, POSITIVE, where)
        if self.split_guidance:
            negative, positive = (self.predict(x, t, embedding, texts, where) for texts in (NEGATIVE, POSITIVE))
            return apply_guidance(negative, positive, self.guidance)
        with self.nets.equal_halves():
            halves = self.predict(torch.cat([x, x]), t, torch.cat([embedding, embedding]), BOTH, where)
        negative, positive = halves.chunk(2)
        return apply_guidance(negative, positive, self.guidance)

    def predict(
        self, x: Tensor, t: Tensor, embedding: Tensor, texts: slice, where: Sequence[Tile] | None = None
    ) -> Tensor:
        """Predictions without guidance, for `x` stacked once per text in `texts`."""
        latents, text = x.to(self.nets.device.dtype), self._text(len(x), texts)
        step = t.to(x.device, non_blocking=True)  # once; else each network copies it, and waits
        if not self.feature_source:
            return self._run_all_layers(latents, step, text, embedding)[0].to(x.dtype)
        key, cache = (where and tuple(where), texts.start, texts.stop), self._features_at(self.feature_source[float(t)])
        if key in cache:
            return self._run_outer_layers(cache[key], latents, step, text).to(x.dtype)
        deep = DeepFeatures()
        with install([self.nets.unet], deep):
            out, down = self._run_all_layers(latents, step, text, embedding)
        cache[key] = HostFeatures.of(deep.captured[0], down[: count_outer_residuals(self.nets.unet)])
        return out.to(x.dtype)

    def _features_at(self, timestep: float) -> dict[tuple[object, ...], HostFeatures]:
        """The features of this timestep, by tiles and texts. Those of earlier timesteps are dropped."""
        if timestep not in self._deep:
            self._deep.clear()
        return self._deep.setdefault(timestep, {})

    def _run_all_layers(self, x: Tensor, t: Tensor, text: Tensor, embedding: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """The prediction, and the ControlNet's residuals."""
        nets, scale = self.nets, self.conditioning_scale
        down, mid = nets.control(x, t, text, embedding, conditioning_scale=scale, return_dict=False)
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

    def _run_outer_layers(self, cached: HostFeatures, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        """The prediction from the outermost layers and cached deep features (DeepCache)."""
        residuals = [residual.to(x.device, non_blocking=True) for residual in cached.residuals]
        features = cached.features.to(x.device, non_blocking=True)
        with self.nets.paca.attending(residuals):
            return run_outer_layers(self.nets.unet, x, t, text, features, residuals)

    def _text(self, rows: int, texts: slice) -> Tensor:
        """The texts, one row per latent. The same tensor each time, since the text KV cache compares identity."""
        if (rows, texts.start, texts.stop) not in self._texts:
            chosen = self.text[texts].to(self.nets.device.torch, self.nets.device.dtype)
            self._texts[rows, texts.start, texts.stop] = chosen.repeat_interleave(rows // len(chosen), 0)
        return self._texts[rows, texts.start, texts.stop]

    def _embedding(self, hint: Tensor, where: Sequence[Tile] | None) -> Tensor:
        """The hint's embedding, computed at the first step and reused, by tile."""
        places: Sequence[Tile | None] = where or [None]
        new = [i for i, place in enumerate(places) if place not in self._embedded]
        if new:
            crops = to_unit_float(hint if where is None else hint[new])
            crops = crops.to(self.nets.device.torch, self.nets.device.dtype)
            embedding = self.nets.control.controlnet_cond_embedding(crops)
            parts = embedding.split(len(embedding) // len(new))
            self._embedded.update(zip([places[i] for i in new], parts, strict=True))
        return torch.cat([self._embedded[place] for place in places])


def _to_host(x: Tensor) -> Tensor:
    """A copy in host memory, pinned for a GPU, so that it can be copied back while the GPU computes."""
    return torch.empty(x.shape, dtype=x.dtype, pin_memory=x.is_cuda).copy_(x)


def feature_source_steps(timesteps: Tensor, reuse: int) -> dict[float, float]:
    """Each timestep -> the one whose deep features it reuses: the first of each group of `reuse` steps."""
    times = [float(t) for t in timesteps]
    return {t: times[i - i % reuse] for i, t in enumerate(times)} if reuse > 1 else {}


def draw_initial_latents(z: Tensor, scheduler: Any, noise: NoiseField, level: int | None) -> Tensor:
    """Initial latents: `z` diffused to the first timestep, then once more to timestep `level` with new noise.

    Without a level: pure noise.
    """
    first = noise.draw(z.shape, START_NOISE).to(z)
    if level is None:
        return scale_initial_latents(scheduler, first)
    alphas = scheduler.alphas_cumprod
    once = diffuse_latents(z, first, alphas[int(scheduler.timesteps[0])])
    twice = diffuse_latents(once, noise.draw(z.shape, EXTRA_NOISE).to(z), alphas[level])
    return scale_initial_latents(scheduler, twice)
