"""The PASD engine: Stable Diffusion 1.5, conditioned on the picture (Yang et al. 2024)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from srcli.engines.base import Canvas, EngineSpec, PixelSize, Request, Unblocked
from srcli.engines.latent.captions import Describer
from srcli.engines.latent.codec import Codec
from srcli.engines.latent.prompts import TextEncoder, build_positive_prompt
from srcli.engines.latent.schedulers import build_scheduler, guided_steps
from srcli.engines.latent.sizes import ensure_short_side
from srcli.engines.pasd.forecast import count_kept_bytes, count_pasd_flop, grey_size
from srcli.engines.pasd.sampling import Nets, PasdDenoiser, draw_initial_latents, feature_source_steps
from srcli.engines.pasd.spec import SPEC
from srcli.engines.pasd.weights import PasdNetworks, open_pasd
from srcli.engines.runtime.compiling import DeferredCompile
from srcli.engines.runtime.device import Device
from srcli.engines.runtime.memory_budget import MemoryNeed, Placement, find_memory_budget, plan_placement
from srcli.engines.runtime.oom_fallback import ALL_SAVINGS
from srcli.engines.runtime.placement import network_memory_need, place_step_networks
from srcli.models.patches.shared_cfg_prefix import SharedCfgPrefix
from srcli.models.patches.text_kv_cache import TextKvCache
from srcli.sampling.layout import Limits, lay_tiles
from srcli.sampling.noise import POSTERIOR_NOISE
from srcli.sampling.tiling import Tile
from srcli.settings import ModelChoice, Sampling
from srcli.weights.store import Store


def load_pasd(choice: ModelChoice, device: Device, store: Store) -> PasdEngine:
    """Load PASD with the chosen weights on the device."""
    describer = Describer(store, device, choice.allow_pickle)
    return replace(PasdEngine.of(open_pasd(choice, store, device.dtype), device, describer), variant=choice.variant)


@dataclass(frozen=True)
class PasdEngine(Unblocked):
    """Loaded PASD networks, on a device."""

    nets: Nets
    codec: Codec
    texts: TextEncoder
    schedule: Mapping[str, Any]
    weights_used: Mapping[str, str]
    describer: Describer
    memory_need: MemoryNeed
    placement: Placement
    memory: int | None = None  # bytes that were free before anything was loaded
    spec: EngineSpec = SPEC
    variant: str | None = None
    supported_savings: Collection[str] = ALL_SAVINGS

    @classmethod
    def of(cls, loaded: PasdNetworks, device: Device, describer: Describer) -> PasdEngine:
        steps, base = (loaded.unet, loaded.paca, loaded.control), loaded.base
        need = network_memory_need("PASD", steps, (base.vae, base.text_encoder), device.dtype)
        placement, memory = plan_placement(need, device), find_memory_budget(device)
        prefix = SharedCfgPrefix()
        place_step_networks((loaded.unet, loaded.control), device, placement, TextKvCache(), prefix)
        place_step_networks([loaded.paca], device, placement)
        nets = Nets(*steps, device, prefix)
        texts = TextEncoder.of(base.tokenizer, base.text_encoder, device, placement)
        codec = Codec.of(base.vae, need.beside(placement, device), placement)
        return cls(nets, codec, texts, loaded.schedule, loaded.weights_used, describer, need, placement, memory)

    @cached_property
    def _deferred_compile(self) -> DeferredCompile:
        return DeferredCompile((self.nets.unet, self.nets.paca, self.nets.control), self.nets.device, self.placement)

    def working_size(self, size: PixelSize, target: PixelSize, request: Request) -> PixelSize:
        """The result's size, at least `process_size`, in whole latents. Colorizing works at `process_size`."""
        least_side = request.sampling.process_size or 0
        width, height = grey_size(size, least_side) if request.task.grey_hint else ensure_short_side(target, least_side)
        unit = self.codec.factor
        return max(unit, width // unit * unit), max(unit, height // unit * unit)

    def layout(self, height: int, width: int, sampling: Sampling) -> tuple[list[Tile], int] | None:
        tiles = lay_tiles(height, width, sampling, count_pasd_flop, Limits())
        if tiles is None:
            return None
        return tiles, max(1, self._latents(tiles, sampling) // (tiles[0].height * tiles[0].width))

    def _latents(self, tiles: Sequence[Tile], sampling: Sampling) -> int:
        """Latents per call, beside what is kept from step to step. TooLarge if a CPU has no memory for any."""
        device = self.nets.device
        need = replace(self.memory_need, kept=count_kept_bytes(tiles, sampling, device))
        return need.latents(self.placement, self.memory) if device.accelerated else plan_placement(need, device).latents

    def prepare(self, hint: Tensor, request: Request) -> Canvas:
        self._deferred_compile.begin(request.savings)
        sampling = request.sampling
        scheduler = build_scheduler(str(sampling.scheduler), self.schedule, int(sampling.steps or 1))
        shape = (1, 4, hint.shape[2] // self.codec.factor, hint.shape[3] // self.codec.factor)
        codec = self.codec.with_less(request.savings)
        z = codec.encode(hint, request.noise.draw(shape, POSTERIOR_NOISE))
        denoiser = PasdDenoiser(
            self.nets,
            self._encode_prompts(hint, request),
            float(sampling.guidance or 0),
            1.0 if sampling.conditioning_scale is None else sampling.conditioning_scale,
            guided_steps(scheduler.timesteps, sampling.guidance_interval),
            request.savings.split_guidance,
            feature_source_steps(scheduler.timesteps, sampling.reuse or 1),
        )
        start = draw_initial_latents(z, scheduler, request.noise, sampling.noise_level)
        return Canvas(start, hint, denoiser, scheduler, lambda x: codec.decode(x).clamp_(0, 1))

    def provenance(self) -> Mapping[str, str]:
        return {**self.weights_used, **self.placement.provenance()}

    def _encode_prompts(self, hint: Tensor, request: Request) -> Tensor:
        """Embeddings of the negative and the positive prompt, two rows."""
        task, prompt = request.task, request.prompt
        caption = self.describer.describe(hint, prompt.caption)
        positive = build_positive_prompt(task, prompt.text, caption)
        negative = task.negative_prompt if prompt.negative is None else prompt.negative
        for text in (positive, negative):
            self.texts.report_pieces(text)
        return self.texts.with_less(request.savings).encode([negative, positive])
