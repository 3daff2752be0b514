"""The training system of SR3: one network over pixels, conditioned on the bicubic enlargement."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from srcli.engines.sr3.spec import SR3_PREFIX, SR3_STEPS
from srcli.engines.sr3.weights import BETA_ENDS, build_sr3_network
from srcli.errors import InputError, unknown_word
from srcli.files import expand_user, is_file
from srcli.models.sr3_unet import SR3Shape, SR3UNet
from srcli.sampling.ancestral import Ancestral, compute_sqrt_alpha_bar, make_betas
from srcli.train.pairs import EnlargedPairs, PairMaker
from srcli.train.systems.base import Batch, OptimizerSettings, Phase, SampleNoise
from srcli.train.systems.sr3_step import SR3Inputs, SR3Step, initialize_orthogonally
from srcli.train.writing import to_plain_json, write_tensors
from srcli.weights.open import load_state
from srcli.weights.store import Store

SR3_FILE = "sr3.safetensors"
SR3_SAMPLING_STEPS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class SR3Size:
    """The sizes of a network that enlarges pictures by `scale` to `side` pixels."""

    side: int
    scale: int
    multiplier: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...] = ()
    groups: int = 32
    inner: int = 64
    dropout: float = 0.0
    lr: float = 1e-4
    steps: int = SR3_STEPS


SIZES: Mapping[str, SR3Size] = MappingProxyType(
    {
        "16-128": SR3Size(side=128, scale=8, multiplier=(1, 2, 4, 8, 8), blocks=2, attention=(16,), dropout=0.2),
        "64-512": SR3Size(side=512, scale=8, multiplier=(1, 2, 4, 8, 16), blocks=1, groups=16, lr=3e-6),
    }
)


def find_size(name: str) -> SR3Size:
    """A published size by name, or the size in an official configuration file. Raises InputError."""
    if name in SIZES:
        return SIZES[name]
    path = expand_user(name)
    if not is_file(path):
        raise unknown_word("--size", name, (*SIZES, "or give a JSON configuration"))
    try:
        return _read_size(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not an SR3 configuration ({type(error).__name__}: {error}): correct it") from error


def _read_size(config: Mapping[str, Any]) -> SR3Size:
    model, resolution = config["model"], config["datasets"]["train"]
    unet = model["unet"]
    return SR3Size(
        side=int(resolution["r_resolution"]),
        scale=int(resolution["r_resolution"]) // int(resolution["l_resolution"]),
        multiplier=tuple(unet["channel_multiplier"]),
        blocks=int(unet["res_blocks"]),
        attention=tuple(unet["attn_res"]),
        groups=int(unet.get("norm_groups") or 32),
        inner=int(unet["inner_channel"]),
        dropout=float(unet["dropout"]),
        lr=float(config.get("train", {}).get("optimizer", {}).get("lr", 1e-4)),
        steps=int(model["beta_schedule"]["train"]["n_timestep"]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SR3Settings:
    """`start`: a checkpoint to start from."""

    size: SR3Size
    start: str | None = None
    optimizer: OptimizerSettings

    def __post_init__(self) -> None:
        factor = 1 << (len(self.size.multiplier) - 1)
        if self.size.side % (factor * self.size.scale):
            raise InputError(f"--side {self.size.side} must be a multiple of {factor * self.size.scale}")


class SR3System:
    """The network and its one phase."""

    name = "sr3"

    def __init__(self, settings: SR3Settings, unet: SR3UNet, weights_used: Mapping[str, str]) -> None:
        self.options, self._unet, self._weights_used = settings, unet.requires_grad_(True).train(), weights_used
        self._step = SR3Step(unet)
        self._betas = make_betas("linear", settings.size.steps, *BETA_ENDS["sr3"])
        self._sqrt_alpha_bar = compute_sqrt_alpha_bar(self._betas).float()
        self._device = torch.device("cpu")

    @classmethod
    def open(cls, settings: SR3Settings, store: Store, seed: int, allow_pickle: bool = False) -> SR3System:
        """Create a network, or load it from a checkpoint. Raises WeightsError."""
        config = official_config(settings.size)
        if settings.start is not None:
            located = store.resolve(settings.start, "adapter", allow_pickle=allow_pickle)
            path = located.only_file()
            return cls(settings, build_sr3_network(path, load_state(path), config).float(), located.provenance())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            unet = initialize_orthogonally(SR3UNet(SR3Shape.from_config(config["model"])))
        return cls(settings, unet, {})

    @property
    def phases(self) -> Sequence[Phase]:
        return [Phase(self.name, self._step, self.options.optimizer)]

    @property
    def pairs(self) -> PairMaker:
        return EnlargedPairs(self.options.size.side, self.options.size.scale)

    @property
    def least_side(self) -> int:
        """A crop's own: enlarged pictures would teach blur."""
        return self.options.size.side

    def settings(self) -> Mapping[str, Any]:
        return {**to_plain_json(self.options), "made_of": dict(self.weights_used())}

    def to(self, device: torch.device, frozen: torch.dtype) -> None:
        self._step.to(device)
        self._device = device

    def inputs(self, batch: Batch, noise: SampleNoise, step: int) -> SR3Inputs:
        """One step of the schedule for the whole batch, as published; a level between it and the next for each."""
        t = noise.shared_integer(len(self._betas)) + 1
        low, high = self._sqrt_alpha_bar[t], self._sqrt_alpha_bar[t - 1]
        keep = (low + noise.uniforms() * (high - low)).float()[:, None]
        parts = (batch.target * 2 - 1, batch.degraded * 2 - 1, noise.normals(batch.target.shape[1:]), keep)
        target, condition, gaussian, keep = (part.to(self._device) for part in parts)
        return SR3Inputs(target.contiguous(), condition.contiguous(), gaussian, keep, keep)

    @torch.no_grad()
    def restore(self, batch: Batch, noise: SampleNoise) -> Tensor:
        self._unet.eval()
        scheduler = Ancestral(self._betas, clip=True)
        scheduler.set_timesteps(min(SR3_SAMPLING_STEPS, len(self._betas)))
        condition = (batch.degraded * 2 - 1).to(self._device)
        x = noise.normals(condition.shape[1:]).to(self._device)
        for t in scheduler.timesteps:
            when = torch.full((len(x), 1), float(self._sqrt_alpha_bar[int(t) + 1]), device=self._device)
            predicted = self._unet(torch.cat([condition, x], dim=1), when).float()
            x = scheduler.step(predicted, t, x, noise.normals(x.shape[1:]).to(x)).prev_sample
        self._unet.train()
        return (x / 2 + 0.5).clamp(0, 1)

    def write(self, folder: Path) -> None:
        """Write a checkpoint with the official tensor names, and its configuration beside it."""
        write_tensors(
            folder / SR3_FILE, {f"{SR3_PREFIX}{name}": tensor for name, tensor in self._unet.state_dict().items()}
        )
        config = json.dumps(official_config(self.options.size), indent=1)
        (folder / Path(SR3_FILE).with_suffix(".json")).write_text(config + "\n", encoding="utf-8")

    def weights_used(self) -> Mapping[str, str]:
        return self._weights_used

    def frozen_bytes(self) -> int:
        return 0


def official_config(size: SR3Size) -> dict[str, Any]:
    """The official configuration of this size, which the engine reads too."""
    start, end = BETA_ENDS["sr3"]
    schedule = {"schedule": "linear", "n_timestep": size.steps, "linear_start": start, "linear_end": end}
    unet = {
        "in_channel": 6,
        "out_channel": 3,
        "inner_channel": size.inner,
        "norm_groups": size.groups,
        "channel_multiplier": list(size.multiplier),
        "attn_res": list(size.attention),
        "res_blocks": size.blocks,
        "dropout": size.dropout,
    }
    diffusion = {"image_size": size.side, "channels": 3, "conditional": True}
    model = {"which_model_G": "sr3", "unet": unet, "diffusion": diffusion}
    model["beta_schedule"] = {"train": schedule, "val": schedule}
    resolution = {"l_resolution": size.side // size.scale, "r_resolution": size.side}
    return {"model": model, "datasets": {"train": resolution}}
