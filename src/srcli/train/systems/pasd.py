"""PASD as a system to train: restoring (and enlarging) pictures, or colouring them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from srcli.train.systems.base import Batch, OptimizerSettings, Phase, SampleNoise
from srcli.train.systems.diffusion import cumulated_alphas, decode_latents, latent_shape
from srcli.train.systems.frozen import FrozenBase, FrozenPromptEncoder, bytes_of, open_frozen
from srcli.train.systems.pasd_networks import EMBEDDING_WIDTHS, new_control, new_paca
from srcli.train.systems.pasd_step import COLOR_WEIGHT, PasdInputs, PasdStep
from srcli.train.writing import to_plain_json, write_component
from srcli.weights.families import EPSILON
from srcli.weights.open import load_into
from srcli.weights.store import Store

FULL_FORM, LIGHT_FORM = "full", "light"
RESTORE_TASK, COLORIZE_TASK = "restore", "colorize"
PASD_SAMPLING_STEPS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PasdSettings:
    """`start` is an adapter to go on from; without one the new layers begin as the official code begins them."""

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


class PasdSystem:
    """The networks and their one phase."""

    name = "pasd"

    def __init__(self, settings: PasdSettings, frozen: FrozenBase, paca: PixelAware, control: ControlNetModel) -> None:
        self.options, self._frozen, self._paca, self._control = settings, frozen, paca, control
        base = frozen.base
        self._schedule = base.schedule
        self._prompts = FrozenPromptEncoder(base.tokenizer, base.text_encoder)
        install([frozen.unet], paca)
        for net in (paca, control):
            net.requires_grad_(True).train()
        if settings.checkpointing:
            frozen.unet.enable_gradient_checkpointing()
            control.enable_gradient_checkpointing()
            frozen.unet.train()  # it checkpoints in this mode only; there is no dropout in it
        alphas = cumulated_alphas(self._schedule)
        color = COLOR_WEIGHT if settings.task == COLORIZE_TASK else 0.0
        prediction = str(self._schedule.get("prediction_type", EPSILON))
        self._step = PasdStep(control, paca, frozen.unet, base.vae, alphas, prediction, color)
        self._device = torch.device("cpu")

    @classmethod
    def open(cls, settings: PasdSettings, store: Store, seed: int, allow_pickle: bool = False) -> PasdSystem:
        """From a base model, and from an adapter or with new layers. Raises WeightsError."""
        frozen = open_frozen(settings.base, "sd15", store, allow_pickle)
        if settings.start is not None:
            return cls(settings, frozen, *_opened(settings, frozen, store))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            control = new_control(frozen.unet, settings.widths, settings.rrdb)
            paca = new_paca(frozen.config, settings.form == LIGHT_FORM, settings.zero)
        return cls(settings, frozen, paca, control)

    @property
    def phases(self) -> Sequence[Phase]:
        return [Phase(self.name, self._step, self.options.optimizer)]

    @property
    def pairs(self) -> PairMaker:
        if self.options.task == COLORIZE_TASK:
            return GrayPairs(self.options.side)
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

    def inputs(self, batch: Batch, noise: SampleNoise, step: int) -> PasdInputs:
        shape = latent_shape(self._frozen.base.vae, batch.target)
        posterior, gaussian = noise.normals(shape), noise.normals(shape)
        timesteps = noise.integers(len(cumulated_alphas(self._schedule)))
        given = (batch.target * 2 - 1, batch.degraded, posterior, gaussian, timesteps)
        target, condition, posterior, gaussian, timesteps = (part.to(self._device) for part in given)
        text = self._prompts(batch.captions)
        return PasdInputs(target.contiguous(), condition.contiguous(), text, posterior, gaussian, timesteps)

    @torch.no_grad()
    def restore(self, batch: Batch, noise: SampleNoise) -> Tensor:
        """Sampled from noise without guidance, as the network was trained."""
        x = noise.normals(latent_shape(self._frozen.base.vae, batch.target)).to(self._device)
        made = build_scheduler("unipc", self._schedule, PASD_SAMPLING_STEPS)
        condition, text = batch.degraded.to(self._device), self._prompts(batch.captions)
        for t in made.timesteps:
            when = torch.full((len(x),), int(t), device=self._device)
            predicted = self._step.predict(x, PasdInputs(x, condition, text, x, x, when))[0]
            x = made.step(predicted.float(), t, x).prev_sample
        self._step.close()
        vae = self._frozen.base.vae
        return decode_latents(vae, x)

    def write(self, folder: Path) -> None:
        """`unet` holds the base's weights too, as the official program wants them in one file."""
        unet: UNet2DConditionModel = self._frozen.unet
        state = {**unet.state_dict(), **self._paca.state_dict()}
        write_component(folder / "unet", state, dict(unet.config))
        write_component(folder / "controlnet", self._control.state_dict(), self._control_config())
        write_component(folder / "scheduler", None, dict(self._schedule), "scheduler_config.json")

    def _control_config(self) -> dict[str, Any]:
        embedding = self._control.controlnet_cond_embedding
        more = {"use_rrdb": hasattr(embedding, "preprocesser"), "return_rgbs": True}
        return {**dict(self._control.config), **more}

    def made_of(self) -> Mapping[str, str]:
        return self._frozen.base.made_of

    def frozen_bytes(self) -> int:
        base = self._frozen.base
        return bytes_of([self._frozen.unet, base.vae, base.text_encoder])


def _opened(settings: PasdSettings, frozen: FrozenBase, store: Store) -> tuple[PixelAware, ControlNetModel]:
    """The networks of an adapter, as a start."""
    adapter = PasdAdapter.find(ModelChoice(engine="pasd", adapter=settings.start), store)
    found = adapter.detect()
    if found.family != frozen.family:
        raise WeightsError(f"{settings.start}: is for {found.family}, and the base is {frozen.family}: choose another")
    if (PACA_FORMS[found.kind].__name__ == "LightPaca") != (settings.form == LIGHT_FORM):
        other = LIGHT_FORM if settings.form == FULL_FORM else FULL_FORM
        raise InputError(f"--from {settings.start} is of another form: give --form {other}")
    paca = adapter.build_paca()
    folder = adapter.folder / "unet"
    load_into(paca, read_tensors(folder, set(paca.state_dict())), folder)
    control = open_control(adapter)
    read_network_config(adapter.folder / "controlnet", set())
    return paca.float(), control.float()
