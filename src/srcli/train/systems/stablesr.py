"""The training system of StableSR's first stage: the time-aware encoder and the modulation of a frozen UNet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from srcli.degrade.settings import Degradation
from srcli.engines.latent.schedulers import SD_SCHEDULE, build_scheduler
from srcli.engines.stablesr.spec import SCHEDULE_STEPS
from srcli.engines.stablesr.weights import ENCODER, StableSRAdapter
from srcli.errors import InputError
from srcli.models import time_encoder
from srcli.models.patches import spade
from srcli.models.patches.install import install
from srcli.settings import ModelChoice
from srcli.train.pairs import DegradedPairs, PairMaker
from srcli.train.systems.base import Batch, OptimizerSettings, SampleNoise
from srcli.train.systems.diffusion import add_noise, cumulated_alphas, decode_latents, latent_shape, sample_latents
from srcli.train.systems.frozen import FrozenBase, FrozenBaseSystem, open_frozen
from srcli.train.systems.stablesr_step import StableSRInputs, StableSRStep, initialize_encoder
from srcli.train.writing import write_tensors
from srcli.weights.families import EPSILON, LDM_UNET
from srcli.weights.open import load_into, load_state
from srcli.weights.store import Store

STABLESR_FILE = "stablesr.safetensors"
STABLESR_SAMPLING_STEPS = 20
LEAST_TRAINED_SIDE = 128  # at half of that the deepest level has a single element, which norms cannot normalize


@dataclass(frozen=True, slots=True, kw_only=True)
class StableSRSettings:
    """`start`: an adapter to start from; without one new layers are initialized like the official ones."""

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


class StableSRSystem(FrozenBaseSystem):
    """StableSR's networks: time-aware encoder and modulation are trained."""

    name = "stablesr"

    def __init__(
        self,
        settings: StableSRSettings,
        frozen: FrozenBase,
        encoder: time_encoder.TimeEncoder,
        modulation: spade.Modulation,
    ) -> None:
        prediction = str(frozen.base.schedule.get("prediction_type", EPSILON))
        schedule = {**SD_SCHEDULE, "prediction_type": prediction}  # StableSR's own, which replaces the base's
        super().__init__(settings, frozen, schedule, (encoder, modulation))
        self._encoder, self._modulation = encoder, modulation
        install([frozen.unet], modulation)
        alphas = cumulated_alphas(self._schedule)
        self._step: StableSRStep = StableSRStep(encoder, modulation, frozen.unet, frozen.base.vae, alphas, prediction)

    @classmethod
    def open(cls, settings: StableSRSettings, store: Store, seed: int, allow_pickle: bool = False) -> StableSRSystem:
        """Load a base model, and load an adapter or create new layers. Raises WeightsError."""
        frozen = open_frozen(settings.base, "sd21", store, allow_pickle)
        if settings.start is not None:
            return cls(settings, frozen, *_open_start(settings.start, frozen, store, allow_pickle))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = initialize_encoder(time_encoder.TimeEncoder(settings.encoder))
            modulation = spade.Modulation(frozen.unet, settings.encoder.out)
        return cls(settings, frozen, encoder, modulation)

    @property
    def pairs(self) -> PairMaker:
        return DegradedPairs(self.options.side, self.options.degradation)

    def inputs(self, batch: Batch, noise: SampleNoise, step: int) -> StableSRInputs:
        shape = latent_shape(self._frozen.base.vae, batch.target)
        first, second = noise.normals(shape), noise.normals(shape)
        timesteps, gaussian = noise.integers(SCHEDULE_STEPS), noise.normals(shape)
        parts = (batch.target * 2 - 1, batch.degraded * 2 - 1, first, second, timesteps, gaussian)
        target, degraded, first, second, timesteps, gaussian = (part.to(self._device) for part in parts)
        text = self._prompts([""])
        return StableSRInputs(target.contiguous(), degraded.contiguous(), text, first, second, timesteps, gaussian)

    @torch.no_grad()
    def restore(self, batch: Batch, noise: SampleNoise) -> Tensor:
        """Results sampled from the degraded picture's latents, diffused to the last timestep."""
        vae = self._frozen.base.vae
        shape = latent_shape(vae, batch.target)
        degraded = (batch.degraded * 2 - 1).to(self._device)
        condition = sample_latents(vae, degraded, noise.normals(shape).to(self._device))
        scheduler = build_scheduler("ddim", self._schedule, STABLESR_SAMPLING_STEPS)
        last = scheduler.alphas_cumprod[int(scheduler.timesteps[0])].to(condition).expand(len(condition))
        x = add_noise(condition, noise.normals(shape).to(condition), last)
        for t in scheduler.timesteps:
            when = torch.full((len(x),), int(t), device=self._device)
            inputs = StableSRInputs(x, x, self._prompts([""]), x, x, when, x)
            x = scheduler.step(self._step.predict(x, condition, inputs).float(), t, x).prev_sample
        self._step.close()
        return decode_latents(vae, x)

    def write(self, folder: Path) -> None:
        """Write the trained tensors in a file with the official names."""
        state = {f"{ENCODER}{name}": tensor for name, tensor in self._encoder.state_dict().items()}
        for name, tensor in self._modulation.state_dict().items():
            state[f"{LDM_UNET}{spade.to_official_path(name)}"] = tensor
        write_tensors(folder / STABLESR_FILE, state)


def _open_start(
    start: str, frozen: FrozenBase, store: Store, allow_pickle: bool
) -> tuple[time_encoder.TimeEncoder, spade.Modulation]:
    """Load the networks of an adapter to start from."""
    choice = ModelChoice(engine="stablesr", adapter=start, allow_pickle=allow_pickle)
    adapter = StableSRAdapter.find(choice, store)
    state = load_state(adapter.path, ENCODER)
    encoder = load_into(time_encoder.build_time_encoder(state), state, adapter.path)
    state = spade.modulation_state(adapter.read_part(LDM_UNET, modulation=True))
    return encoder.float(), load_into(spade.build_modulation(frozen.unet, state), state, adapter.path).float()
