"""The StableSR engine: Stable Diffusion 2.1 with a time-aware encoder and CFW fusion (Wang et al. 2024)."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from srcli.engines.base import Canvas, EngineSpec, PixelSize, Request, Unblocked
from srcli.engines.latent.codec import Codec
from srcli.engines.latent.prompts import TextEncoder
from srcli.engines.latent.schedulers import SD_SCHEDULE, build_scheduler, diffuse_latents, scale_initial_latents
from srcli.engines.latent.sizes import ensure_short_side
from srcli.engines.runtime.compiling import DeferredCompile
from srcli.engines.runtime.device import Device
from srcli.engines.runtime.memory_budget import Placement, plan_placement
from srcli.engines.runtime.oom_fallback import ALL_SAVINGS
from srcli.engines.runtime.placement import network_memory_need, place_step_networks
from srcli.engines.stablesr.forecast import count_stablesr_flop, limit_tiles
from srcli.engines.stablesr.spec import SPEC
from srcli.engines.stablesr.weights import StableSRNetworks, open_stablesr
from srcli.models.cfw import keep_features
from srcli.models.patches.spade import Modulation
from srcli.models.patches.text_kv_cache import TextKvCache
from srcli.models.time_encoder import TimeEncoder
from srcli.sampling.ancestral import Ancestral, make_scaled_linear_betas
from srcli.sampling.hint import to_unit_float
from srcli.sampling.layout import lay_tiles
from srcli.sampling.noise import POSTERIOR_NOISE, START_NOISE
from srcli.sampling.tiling import Tile, pad_to_multiple
from srcli.settings import ModelChoice, Sampling
from srcli.weights.store import Store

# StableSR's noise schedule, which replaces the base's; sampling starts at its last timestep.
STABLESR_SCHEDULE = {**SD_SCHEDULE, "trained_betas": None, "timestep_spacing": "trailing"}
log = logging.getLogger(__name__)


def load_stablesr(choice: ModelChoice, device: Device, store: Store) -> StableSREngine:
    """Load StableSR with the chosen weights on the device."""
    return StableSREngine.of(open_stablesr(choice, store, device.dtype), device)


@dataclass(frozen=True)
class StableSRDenoiser:
    """The modulated UNet as a denoiser. Its hint is the degraded picture's latents, the input of the encoder.

    The encoder's maps depend on the step, so they are computed in each call.
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
            prediction: Tensor = self.unet(x.to(dtype), step, encoder_hidden_states=self._text(x)).sample
        return prediction.to(x.dtype)

    def _text(self, x: Tensor) -> Tensor:
        """The text, one row per latent. The same tensor each time, since the text KV cache compares identity."""
        if len(x) not in self._texts:
            self._texts[len(x)] = self.text.to(x.device, self.unet.dtype).expand(len(x), -1, -1).contiguous()
        return self._texts[len(x)]


@dataclass(frozen=True)
class StableSREngine(Unblocked):
    """Loaded StableSR networks, on a device."""

    loaded: StableSRNetworks
    codec: Codec
    texts: TextEncoder
    device: Device
    placement: Placement
    spec: EngineSpec = SPEC
    supported_savings: Collection[str] = ALL_SAVINGS - {"split_guidance"}  # it samples without guidance

    @classmethod
    def of(cls, loaded: StableSRNetworks, device: Device) -> StableSREngine:
        steps, base = (loaded.unet, loaded.encoder, loaded.modulation), loaded.base
        need = network_memory_need("StableSR", steps, (base.vae, base.text_encoder), device.dtype)
        placement = plan_placement(need, device)
        place_step_networks([loaded.unet], device, placement, TextKvCache())
        place_step_networks((loaded.encoder, loaded.modulation), device, placement)
        texts = TextEncoder.of(base.tokenizer, base.text_encoder, device, placement)
        return cls(loaded, Codec.of(base.vae, need.beside(placement, device), placement), texts, device, placement)

    @property
    def variant(self) -> str:
        return self.loaded.variant.name

    @cached_property
    def _deferred_compile(self) -> DeferredCompile:
        return DeferredCompile(
            (self.loaded.unet, self.loaded.encoder, self.loaded.modulation), self.device, self.placement
        )

    def working_size(self, size: PixelSize, target: PixelSize, request: Request) -> PixelSize:
        """The result's size, at least the size that the model was trained with."""
        return ensure_short_side(target, request.sampling.process_size or self.loaded.variant.process)

    def layout(self, height: int, width: int, sampling: Sampling) -> tuple[list[Tile], int] | None:
        limits = limit_tiles(self.loaded.variant.process // self.codec.factor)
        tiles = lay_tiles(height, width, sampling, count_stablesr_flop, limits)
        if tiles is None:
            return None
        return tiles, max(1, self.placement.latents // (tiles[0].height * tiles[0].width))

    def prepare(self, hint: Tensor, request: Request) -> Canvas:
        self._deferred_compile.begin(request.savings)
        weight = float(request.sampling.fidelity or 0)
        fusion = self.loaded.fusion.net if weight else None
        scheduler, features = self._build_scheduler(request.sampling), dict[int, Tensor]()
        whole = pad_to_multiple(to_unit_float(hint), self.codec.factor)
        shape = (1, 4, whole.shape[2] // self.codec.factor, whole.shape[3] // self.codec.factor)
        codec = self.codec.with_less(request.savings)
        z = codec.encode(whole, request.noise.draw(shape, POSTERIOR_NOISE), keep_features(features) if fusion else None)
        alpha = scheduler.alphas_cumprod[int(scheduler.timesteps[0])]
        noisy = diffuse_latents(z, request.noise.draw(shape, START_NOISE).to(z), alpha)
        start, text = scale_initial_latents(scheduler, noisy), self._encode_prompt(request)
        denoiser = StableSRDenoiser(self.loaded.unet, self.loaded.encoder, self.loaded.modulation, text)
        mix = fusion and fusion.mixing(features, weight, codec.bands, self.device.torch)
        height, width = hint.shape[2:]
        # Not clamped, which would shift the means and deviations that the colour fix uses.
        return Canvas(start, z, denoiser, scheduler, lambda x: codec.decode(x, mix)[:, :, :height, :width])

    def provenance(self) -> Mapping[str, str]:
        return {**self.loaded.weights_used, **self.loaded.fusion.weights_used, **self.placement.provenance()}

    def _encode_prompt(self, request: Request) -> Tensor:
        """Embeddings of the user's prompt, or of the empty one that StableSR was trained with."""
        if request.prompt.negative:
            log.info("StableSR samples without guidance: the negative prompt has no effect")
        return self.texts.with_less(request.savings).encode([request.prompt.text])

    def _build_scheduler(self, sampling: Sampling) -> Any:
        name, steps, prediction = str(sampling.scheduler), int(sampling.steps or 1), self.loaded.variant.prediction
        if name != "ddpm":
            return build_scheduler(
                name, {**self.loaded.base.schedule, **STABLESR_SCHEDULE, "prediction_type": prediction}, steps
            )
        scheduler = Ancestral(make_scaled_linear_betas(), prediction)
        scheduler.set_timesteps(steps)
        return scheduler
