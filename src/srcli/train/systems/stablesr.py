"""StableSR's first stage as a system to train: the time-aware encoder and the modulation of a frozen UNet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srcli.degrade.settings import Degradation
from srcli.engines.latent.schedulers import build_scheduler
from srcli.engines.stablesr.weights import ENCODER, StableSRAdapter
from srcli.errors import InputError
from srcli.models import time_encoder
from srcli.models.patches import spade
from srcli.models.patches.install import install
from srcli.settings import ModelChoice
from srcli.train.pairs import DegradedPairs, PairMaker
from srcli.train.systems.base import Batch, OptimizerSettings, Phase, SampleNoise
from srcli.train.systems.diffusion import add_noise, cumulated_alphas, decode_latents, latent_shape, sample_latents
from srcli.train.systems.frozen import FrozenBase, FrozenPromptEncoder, bytes_of, open_frozen
from srcli.train.systems.stablesr_step import StableSRInputs, StableSRStep, initialize_encoder
from srcli.train.writing import to_plain_json, write_tensors
from srcli.weights.families import EPSILON, LDM_UNET
from srcli.weights.open import load_into, load_state
from srcli.weights.store import Store

STABLESR_FILE = "stablesr.safetensors"
STABLESR_SAMPLING_STEPS = 20
LEAST_TRAINED_SIDE = 128  # at half of that, the deepest level has one place, and norms have nothing to work with
# What StableSR trains with, whatever the base says of its own.
TRAINED_SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StableSRSettings:
    """`start` is an adapter to go on from; without one the new layers begin as the official code begins them."""

    base: str = "sd21-base"
    start: str | None = None
    side: int = 512
    degradation: Degradation
    optimizer: OptimizerSettings = OptimizerSettings()
    checkpointing: bool = False
    encoder: time_encoder.TimeEncoderShape = time_encoder.TimeEncoderShape()

    def __post_init__(self) -> None:
        if self.side % 64 or self.side < LEAST_TRAINED_SIDE:
            raise InputError(f"--side {self.side} must be a multiple of 64, and {LEAST_TRAINED_SIDE} at least")


class StableSRSystem:
    """The networks and their one phase."""

    name = "stablesr"

    def __init__(
        self,
        settings: StableSRSettings,
        frozen: FrozenBase,
        encoder: time_encoder.TimeEncoder,
        modulation: spade.Modulation,
    ) -> None:
        self.options, self._frozen, self._encoder, self._modulation = settings, frozen, encoder, modulation
        base = frozen.base
        prediction = str(base.schedule.get("prediction_type", EPSILON))
        self._schedule = {**TRAINED_SCHEDULE, "prediction_type": prediction}
        self._prompts = FrozenPromptEncoder(base.tokenizer, base.text_encoder)
        install([frozen.unet], modulation)
        for net in (encoder, modulation):
            net.requires_grad_(True).train()
        if settings.checkpointing:
            frozen.unet.enable_gradient_checkpointing()
            frozen.unet.train()  # it checkpoints in this mode only; there is no dropout in it
        alphas = cumulated_alphas(self._schedule)
        self._step = StableSRStep(encoder, modulation, frozen.unet, base.vae, alphas, prediction)
        self._device = torch.device("cpu")

    @classmethod
    def open(cls, settings: StableSRSettings, store: Store, seed: int, allow_pickle: bool = False) -> StableSRSystem:
        """From a base model, and from an adapter or with new layers. Raises WeightsError."""
        frozen = open_frozen(settings.base, "sd21", store, allow_pickle)
        if settings.start is not None:
            return cls(settings, frozen, *_opened(settings.start, frozen, store, allow_pickle))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = initialize_encoder(time_encoder.TimeEncoder(settings.encoder))
            modulation = spade.Modulation(frozen.unet, settings.encoder.out)
        return cls(settings, frozen, encoder, modulation)

    @property
    def phases(self) -> Sequence[Phase]:
        return [Phase(self.name, self._step, self.options.optimizer)]

    @property
    def pairs(self) -> PairMaker:
        return DegradedPairs(self.options.side, self.options.degradation)

    @property
    def least_side(self) -> int:
        """Smaller pictures are enlarged; ones far smaller teach blur."""
        return self.options.side // 4

    def settings(self) -> Mapping[str, Any]:
        return {**to_plain_json(self.options), "made_of": dict(self.made_of())}

    def to(self, device: torch.device, frozen: torch.dtype) -> None:
        base = self._frozen.base
        for net in (base.vae, base.text_encoder, self._frozen.unet):
            net.to(device, frozen)
        self._step.to(device)
        self._device = self._prompts.device = device

    def inputs(self, batch: Batch, noise: SampleNoise, step: int) -> StableSRInputs:
        shape = latent_shape(self._frozen.base.vae, batch.target)
        first, second = noise.normals(shape), noise.normals(shape)
        timesteps, gaussian = noise.integers(TRAINED_SCHEDULE["num_train_timesteps"]), noise.normals(shape)  # type: ignore[arg-type]
        given = (batch.target * 2 - 1, batch.degraded * 2 - 1, first, second, timesteps, gaussian)
        target, degraded, first, second, timesteps, gaussian = (part.to(self._device) for part in given)
        text = self._prompts([""])
        return StableSRInputs(target.contiguous(), degraded.contiguous(), text, first, second, timesteps, gaussian)

    @torch.no_grad()
    def restore(self, batch: Batch, noise: SampleNoise) -> Tensor:
        """Sampled from the degraded picture's latents, diffused to the last step."""
        vae = self._frozen.base.vae
        shape = latent_shape(vae, batch.target)
        degraded = (batch.degraded * 2 - 1).to(self._device)
        seen = sample_latents(vae, degraded, noise.normals(shape).to(self._device))
        made = build_scheduler("ddim", self._schedule, STABLESR_SAMPLING_STEPS)
        last = made.alphas_cumprod[int(made.timesteps[0])].to(seen).expand(len(seen))
        x = add_noise(seen, noise.normals(shape).to(seen), last)
        for t in made.timesteps:
            when = torch.full((len(x),), int(t), device=self._device)
            inputs = StableSRInputs(x, x, self._prompts([""]), x, x, when, x)
            x = made.step(self._step.predict(x, seen, inputs).float(), t, x).prev_sample
        self._step.close()
        return decode_latents(vae, x)

    def write(self, folder: Path) -> None:
        """The small file that holds what was trained, under the official names."""
        state = {f"{ENCODER}{name}": tensor for name, tensor in self._encoder.state_dict().items()}
        for name, tensor in self._modulation.state_dict().items():
            state[f"{LDM_UNET}{spade.to_official_path(name)}"] = tensor
        write_tensors(folder / STABLESR_FILE, state)

    def made_of(self) -> Mapping[str, str]:
        return self._frozen.base.made_of

    def frozen_bytes(self) -> int:
        base = self._frozen.base
        return bytes_of([self._frozen.unet, base.vae, base.text_encoder])


def _opened(
    start: str, frozen: FrozenBase, store: Store, allow_pickle: bool
) -> tuple[time_encoder.TimeEncoder, spade.Modulation]:
    """The networks of an adapter, as a start."""
    choice = ModelChoice(engine="stablesr", adapter=start, allow_pickle=allow_pickle)
    adapter = StableSRAdapter.find(choice, store)
    state = load_state(adapter.path, ENCODER)
    encoder = load_into(time_encoder.build_time_encoder(state), state, adapter.path)
    state = spade.modulation_state(adapter.read_part(LDM_UNET, modulation=True))
    return encoder.float(), load_into(spade.build_modulation(frozen.unet, state), state, adapter.path).float()
