"""The training system of PASD, for restoring and enlarging pictures or for colorizing them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor

from srcli.degrade.settings import Degradation
from srcli.engines.latent.bases import read_tensors
from srcli.engines.latent.schedulers import build_scheduler
from srcli.engines.pasd.weights import PACA_FORMS, PasdAdapter, open_control, read_network_config
from srcli.errors import InputError, WeightsError
from srcli.models.patches.install import install
from srcli.models.patches.paca import PixelAware
from srcli.settings import ModelChoice
from srcli.train.pairs import DegradedPairs, GrayPairs, PairMaker
from srcli.train.systems.base import Batch, OptimizerSettings, SampleNoise
from srcli.train.systems.diffusion import cumulated_alphas, decode_latents, latent_shape
from srcli.train.systems.frozen import FrozenBase, FrozenBaseSystem, open_frozen
from srcli.train.systems.pasd_networks import EMBEDDING_WIDTHS, new_control, new_paca
from srcli.train.systems.pasd_step import COLOR_WEIGHT, PasdInputs, PasdStep
from srcli.train.writing import write_component
from srcli.weights.families import EPSILON
from srcli.weights.open import load_into
from srcli.weights.store import Store

FULL_FORM, LIGHT_FORM = "full", "light"
RESTORE_TASK, COLORIZE_TASK = "restore", "colorize"
PASD_SAMPLING_STEPS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PasdSettings:
    """`start`: an adapter to start from; without one new layers are initialized like the official ones."""

    base: str = "sd15"
    form: str = FULL_FORM
    rrdb: bool = False
    zero: bool = False
    start: str | None = None
    task: str = RESTORE_TASK
    side: int = 512
    degradation: Degradation
    optimizer: OptimizerSettings = OptimizerSettings(clip=1.0)
    checkpointing: bool = False
    widths: tuple[int, ...] = EMBEDDING_WIDTHS

    def __post_init__(self) -> None:
        if self.form not in (FULL_FORM, LIGHT_FORM):
            raise InputError(f"--form {self.form!r} is unknown: choose {FULL_FORM} or {LIGHT_FORM}")
        if self.task not in (RESTORE_TASK, COLORIZE_TASK):
            raise InputError(f"--task {self.task!r} is unknown: choose {RESTORE_TASK} or {COLORIZE_TASK}")
        if self.side % 64:
            raise InputError(f"--side {self.side} must be a multiple of 64")


class PasdSystem(FrozenBaseSystem):
    """PASD's networks: ControlNet and PACA are trained."""

    name = "pasd"

    def __init__(self, settings: PasdSettings, frozen: FrozenBase, paca: PixelAware, control: ControlNetModel) -> None:
        super().__init__(settings, frozen, frozen.base.schedule, (paca, control))
        self._paca, self._control = paca, control
        install([frozen.unet], paca)
        if settings.checkpointing:
            control.enable_gradient_checkpointing()
        alphas = cumulated_alphas(self._schedule)
        color = COLOR_WEIGHT if settings.task == COLORIZE_TASK else 0.0
        prediction = str(self._schedule.get("prediction_type", EPSILON))
        self._step: PasdStep = PasdStep(control, paca, frozen.unet, frozen.base.vae, alphas, prediction, color)

    @classmethod
    def open(cls, settings: PasdSettings, store: Store, seed: int, allow_pickle: bool = False) -> PasdSystem:
        """Load a base model, and load an adapter or create new layers. Raises WeightsError."""
        frozen = open_frozen(settings.base, "sd15", store, allow_pickle)
        if settings.start is not None:
            return cls(settings, frozen, *_open_start(settings, frozen, store))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            control = new_control(frozen.unet, settings.widths, settings.rrdb)
            paca = new_paca(frozen.config, settings.form == LIGHT_FORM, settings.zero)
        return cls(settings, frozen, paca, control)

    @property
    def pairs(self) -> PairMaker:
        if self.options.task == COLORIZE_TASK:
            return GrayPairs(self.options.side)
        return DegradedPairs(self.options.side, self.options.degradation)

    def inputs(self, batch: Batch, noise: SampleNoise, step: int) -> PasdInputs:
        shape = latent_shape(self._frozen.base.vae, batch.target)
        posterior, gaussian = noise.normals(shape), noise.normals(shape)
        timesteps = noise.integers(len(cumulated_alphas(self._schedule)))
        parts = (batch.target * 2 - 1, batch.degraded, posterior, gaussian, timesteps)
        target, condition, posterior, gaussian, timesteps = (part.to(self._device) for part in parts)
        text = self._prompts(batch.captions)
        return PasdInputs(target.contiguous(), condition.contiguous(), text, posterior, gaussian, timesteps)

    @torch.no_grad()
    def restore(self, batch: Batch, noise: SampleNoise) -> Tensor:
        """Results sampled from noise without guidance, as in training."""
        x = noise.normals(latent_shape(self._frozen.base.vae, batch.target)).to(self._device)
        scheduler = build_scheduler("unipc", self._schedule, PASD_SAMPLING_STEPS)
        condition, text = batch.degraded.to(self._device), self._prompts(batch.captions)
        for t in scheduler.timesteps:
            when = torch.full((len(x),), int(t), device=self._device)
            predicted = self._step.predict(x, PasdInputs(x, condition, text, x, x, when))[0]
            x = scheduler.step(predicted.float(), t, x).prev_sample
        self._step.close()
        return decode_latents(self._frozen.base.vae, x)

    def write(self, folder: Path) -> None:
        """`unet` also contains the base's weights, since the official program expects both in one file."""
        unet: UNet2DConditionModel = self._frozen.unet
        state = {**unet.state_dict(), **self._paca.state_dict()}
        write_component(folder / "unet", state, dict(unet.config))
        write_component(folder / "controlnet", self._control.state_dict(), self._control_config())
        write_component(folder / "scheduler", None, dict(self._schedule), "scheduler_config.json")

    def _control_config(self) -> dict[str, Any]:
        embedding = self._control.controlnet_cond_embedding
        more = {"use_rrdb": hasattr(embedding, "preprocesser"), "return_rgbs": True}
        return {**dict(self._control.config), **more}


def _open_start(settings: PasdSettings, frozen: FrozenBase, store: Store) -> tuple[PixelAware, ControlNetModel]:
    """Load the networks of an adapter to start from."""
    adapter = PasdAdapter.find(ModelChoice(engine="pasd", adapter=settings.start), store)
    detected = adapter.detect()
    if detected.family != frozen.family:
        raise WeightsError(
            f"{settings.start}: is for {detected.family}, and the base is {frozen.family}: choose another"
        )
    if (PACA_FORMS[detected.kind].__name__ == "LightPaca") != (settings.form == LIGHT_FORM):
        other = LIGHT_FORM if settings.form == FULL_FORM else FULL_FORM
        raise InputError(f"--from {settings.start} is of another form: give --form {other}")
    paca = adapter.build_paca()
    folder = adapter.folder / "unet"
    load_into(paca, read_tensors(folder, set(paca.state_dict())), folder)
    control = open_control(adapter)
    read_network_config(adapter.folder / "controlnet", set())
    return paca.float(), control.float()
