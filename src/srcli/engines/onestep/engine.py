"""The one-step engine: encode, one call of the UNet, decode (Wu et al. 2024; Sun et al. 2024)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

from torch import Tensor

from srcli.engines.base import Canvas, EngineSpec, PixelSize, Request, Unblocked
from srcli.engines.latent.captions import Describer
from srcli.engines.latent.codec import Codec
from srcli.engines.latent.prompts import join_phrases
from srcli.engines.latent.schedulers import diffuse_latents
from srcli.engines.latent.sizes import ensure_short_side
from srcli.engines.latent.tiny_codec import TinyCodec
from srcli.engines.onestep.denoiser import OneStepDenoiser, Strengths
from srcli.engines.onestep.forecast import ONESTEP_LIMITS, count_onestep_flop
from srcli.engines.onestep.spec import PISA, PROCESS, SPEC, OneStepVariant
from srcli.engines.onestep.weights import OneStepNetworks, open_onestep
from srcli.engines.runtime.compiling import DeferredCompile
from srcli.engines.runtime.device import Device
from srcli.engines.runtime.memory_budget import Placement, plan_placement
from srcli.engines.runtime.oom_fallback import ALL_SAVINGS
from srcli.engines.runtime.placement import network_memory_need, place_network, place_step_networks
from srcli.models.patches.text_kv_cache import TextKvCache
from srcli.sampling.hint import to_unit_float
from srcli.sampling.layout import lay_tiles
from srcli.sampling.noise import POSTERIOR_NOISE, START_NOISE
from srcli.sampling.one_step import OneStep, alpha_bar
from srcli.sampling.tiling import Tile, gaussian_weight, pad_to_multiple
from srcli.settings import ModelChoice, Sampling
from srcli.weights.store import Store

# Words of a caption that name no visible thing; the models were trained on lists of nouns.
FUNCTION_WORDS = (
    "a an the of in on at by to with and or from for into over under near next is are was be been being has have had "
    "there it its this that these those his her their some many two three four"
)


def load_onestep(choice: ModelChoice, device: Device, store: Store) -> OneStepEngine:
    """Load the chosen one-step model on the device."""
    describer = Describer(store, device, choice.allow_pickle)
    return OneStepEngine.of(open_onestep(choice, device, store), device, describer, store)


@dataclass(frozen=True)
class OneStepEngine(Unblocked):
    """Loaded networks of a one-step model, on a device."""

    loaded: OneStepNetworks
    codec: Codec
    device: Device
    placement: Placement
    describer: Describer
    store: Store
    spec: EngineSpec = SPEC

    @classmethod
    def of(cls, loaded: OneStepNetworks, device: Device, describer: Describer, store: Store) -> OneStepEngine:
        need = network_memory_need("OneStep", [loaded.unet], [loaded.vae], device.dtype)
        placement = plan_placement(need, device)
        place_step_networks([loaded.unet], device, placement, TextKvCache())
        if loaded.semantic is not None:
            place_network(loaded.semantic, device)
        codec = Codec.of(loaded.vae, need.beside(placement, device), placement)
        return cls(loaded, codec, device, placement, describer, store)

    @property
    def variant(self) -> str:
        return self._model.name

    @property
    def supported_savings(self) -> Collection[str]:
        """Only PiSA-SR may need two predictions, which can be separate calls."""
        return ALL_SAVINGS if self._model.kind == PISA else ALL_SAVINGS - {"split_guidance"}

    @property
    def _model(self) -> OneStepVariant:
        return self.loaded.variant

    @cached_property
    def _deferred_compile(self) -> DeferredCompile:
        return DeferredCompile([self.loaded.unet], self.device, self.placement)

    @cached_property
    def _tiny(self) -> TinyCodec:
        return TinyCodec.open(self.store, self.device, self.placement)

    def working_size(self, size: PixelSize, target: PixelSize, request: Request) -> PixelSize:
        """The result's size, at least the size that the models were trained with."""
        return ensure_short_side(target, request.sampling.process_size or PROCESS)

    def layout(self, height: int, width: int, sampling: Sampling) -> tuple[list[Tile], int] | None:
        if sampling.tile is not None and height * width <= sampling.tile**2:  # by area, as in the official code
            return None
        tiles = lay_tiles(height, width, sampling, count_onestep_flop, ONESTEP_LIMITS)
        if tiles is None:
            return None
        return tiles, max(1, self.placement.latents // (tiles[0].height * tiles[0].width))

    def prepare(self, hint: Tensor, request: Request) -> Canvas:
        self._deferred_compile.begin(request.savings)
        text = self._encode_prompt(hint, request)
        start = self._encode_start(hint, request)
        denoiser = OneStepDenoiser(
            self.loaded.unet,
            text,
            self.loaded.semantic,
            Strengths.of_fidelity(request.sampling.fidelity),
            request.savings.split_guidance,
        )
        step = OneStep(self._model.timestep, self._model.residual)
        codec = (self._tiny if request.sampling.tiny_vae else self.codec).with_less(request.savings)
        height, width = hint.shape[2:]
        weight = partial(gaussian_weight, half_up=self._model.half_up)
        # Not clamped, which would shift the means and deviations that the colour fix uses.
        return Canvas(start, start, denoiser, step, lambda x: codec.decode(x)[:, :, :height, :width], weight)

    def provenance(self) -> Mapping[str, str]:
        return {**self.loaded.weights_used, **self.placement.provenance()}

    def _encode_start(self, hint: Tensor, request: Request) -> Tensor:
        """Latents of the picture; for GDPO-SR diffused, to another timestep than the one that the UNet is given."""
        factor = self.codec.factor
        whole = pad_to_multiple(to_unit_float(hint), factor)
        shape = (1, 4, whole.shape[2] // factor, whole.shape[3] // factor)
        if request.sampling.tiny_vae and self._model.kind == PISA:  # the other models trained their encoders
            z = self._tiny.with_less(request.savings).encode(whole)
        else:
            z = self.codec.with_less(request.savings).encode(whole, request.noise.draw(shape, POSTERIOR_NOISE))
        if self._model.noise_timestep is None:
            return z
        return diffuse_latents(z, request.noise.draw(shape, START_NOISE).to(z), alpha_bar(self._model.noise_timestep))

    def _encode_prompt(self, hint: Tensor, request: Request) -> Tensor:
        """Embeddings of the caption, the user's prompt and the words that the model was trained with."""
        caption, kind = "", request.prompt.caption
        if kind != "auto" or self._model.described:
            caption = extract_nouns(self.describer.describe(hint, kind))
        text = join_phrases([caption, request.prompt.text, self._model.words])
        return self.loaded.texts.encode(text, keep=not caption)


def extract_nouns(caption: str) -> str:
    """The words of a caption that may be nouns, without repeats, like the tags that the models were trained with."""
    words = re.findall(r"[^\W\d_]+(?:-[^\W\d_]+)*", caption.lower())
    ignored = frozenset(FUNCTION_WORDS.split())
    nouns = [word for word in words if word not in ignored and not word.endswith("ing")]
    return join_phrases(dict.fromkeys(nouns))
