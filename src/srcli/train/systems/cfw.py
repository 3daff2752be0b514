"""The training system of CFW, StableSR's second stage: fusion layers against a discriminator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from srcli.engines.stablesr.spec import FUSION
from srcli.errors import WeightsError
from srcli.models.cfw import FUSED_LEVELS, FUSION_PREFIX, Wrapping, build_cfw
from srcli.models.lpips import Lpips, build_lpips
from srcli.models.patchgan import WIDTH, PatchGan, initialize_weights
from srcli.models.rrdb import initialize_rrdb
from srcli.train.systems.base import Batch, OptimizerSettings, Phase, SampleNoise
from srcli.train.systems.cfw_step import CfwDiscriminatorStep, CfwGeneratorStep, CfwInputs, reconstruct_picture
from srcli.train.systems.frozen import count_network_bytes
from srcli.train.writing import to_plain_json, write_tensors
from srcli.weights.header import read_header
from srcli.weights.open import load_component, load_into, load_state
from srcli.weights.store import Store

CFW_FILE = "cfw.safetensors"
DECODER_PREFIX, PERCEPTUAL_PREFIX = "decoder.", "loss.perceptual_loss."
CFW_VAE_PREFIXES = ("encoder.", DECODER_PREFIX, "quant_conv.", "post_quant_conv.")
CFW_GROWTH, CFW_CHAINS = 32, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class CfwSettings:
    """`lpips`: LPIPS weights, alone or inside the published CFW checkpoint. `start`: fusion layers to start from."""

    base: str = "sd21-base"
    lpips: str = FUSION
    start: str | None = None
    adaptive: bool = False
    width: int = WIDTH
    growth: int = CFW_GROWTH
    optimizer: OptimizerSettings = OptimizerSettings(kind="adam", betas=(0.5, 0.9), decay=0.0)


class CfwSystem:
    """The networks, and the two phases of a step."""

    name = "cfw"

    def __init__(
        self,
        settings: CfwSettings,
        vae: AutoencoderKL,
        wrapping: Wrapping,
        discriminator: PatchGan,
        lpips: Lpips,
        weights_used: Mapping[str, str],
        published: Path | None = None,
    ) -> None:
        """`published`: a file with the same VAE under its official names."""
        self._published = published
        self.options, self._vae, self._wrapping, self._lpips = settings, vae, wrapping, lpips
        self._weights_used = weights_used
        for frozen in (vae, lpips):
            frozen.eval().requires_grad_(False)
        wrapping.requires_grad_(True)
        self._generator = CfwGeneratorStep(wrapping, vae, lpips, discriminator, settings.adaptive)
        self._discriminator = CfwDiscriminatorStep(discriminator.train().requires_grad_(True), wrapping, vae)
        self._device = torch.device("cpu")

    @classmethod
    def open(cls, settings: CfwSettings, store: Store, seed: int, allow_pickle: bool = False) -> CfwSystem:
        """Load a base model's VAE and LPIPS, and create or load fusion layers. Raises WeightsError."""
        base = store.resolve(settings.base, "base", ("vae",), allow_pickle)
        vae = load_component(AutoencoderKL, base.part("vae"))
        source = store.resolve(settings.lpips, allow_pickle=allow_pickle).only_file()
        lpips = _open_lpips(source)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            discriminator = initialize_weights(PatchGan(settings.width))
            wrapping = new_wrapping(vae, settings.growth)
        if settings.start is not None:
            wrapping = _open_wrapping(settings.start, store, allow_pickle)
        return cls(settings, vae, wrapping, discriminator, lpips, base.provenance(), source)

    @property
    def phases(self) -> Sequence[Phase]:
        optimizer = self.options.optimizer
        return [
            Phase("generator", self._generator, optimizer),
            Phase("discriminator", self._discriminator, optimizer),
        ]

    def settings(self) -> Mapping[str, Any]:
        return {**to_plain_json(self.options), "made_of": dict(self.weights_used())}

    def to(self, device: torch.device, frozen: torch.dtype) -> None:
        """The VAE stays in float32, because the fusion layers learn small corrections to its output."""
        for net in (self._vae, self._lpips, self._generator, self._discriminator):
            net.to(device)
        self._device = device

    def inputs(self, batch: Batch, noise: SampleNoise, step: int) -> CfwInputs:
        if batch.latent is None:
            raise ValueError("CFW trains on cached latents")
        parts = (batch.target * 2 - 1, batch.degraded * 2 - 1, batch.latent)
        target, degraded, latent = (part.to(self._device).contiguous() for part in parts)
        return CfwInputs(target, degraded, latent, step)

    @torch.no_grad()
    def restore(self, batch: Batch, noise: SampleNoise) -> Tensor:
        return (reconstruct_picture(self._vae, self._wrapping, self.inputs(batch, noise, 0)) / 2 + 0.5).clamp(0, 1)

    def write(self, folder: Path) -> None:
        """Write the fusion layers under their official names, together with the published file's VAE, if it is here.

        The official program expects both in one file.
        """
        state = {f"{DECODER_PREFIX}{name}": tensor for name, tensor in self._wrapping.state_dict().items()}
        write_tensors(folder / CFW_FILE, {**_published_vae(self._published), **state})

    def weights_used(self) -> Mapping[str, str]:
        return self._weights_used

    def frozen_bytes(self) -> int:
        return count_network_bytes([self._vae, self._lpips])


def new_wrapping(vae: AutoencoderKL, growth: int = CFW_GROWTH) -> Wrapping:
    """Fusion layers for a VAE, initialized like the official ones."""
    widths = {level: vae.config.block_out_channels[level] for level in FUSED_LEVELS}
    wrapping = Wrapping(widths, growth, CFW_CHAINS)
    for level in FUSED_LEVELS:
        initialize_rrdb(wrapping.fusion(level).encode_enc_2)
    return wrapping


def _published_vae(path: Path | None) -> dict[str, Tensor]:
    """The VAE's tensors from a published CFW checkpoint; empty if there are none."""
    if path is None:
        return {}
    names = [
        name for name in read_header(path).shapes if name.startswith(CFW_VAE_PREFIXES) and FUSION_PREFIX not in name
    ]
    return load_state(path, names=names)


def _open_lpips(path: Path) -> Lpips:
    prefix = PERCEPTUAL_PREFIX if any(key.startswith(PERCEPTUAL_PREFIX) for key in read_header(path).shapes) else ""
    state = load_state(path, prefix)
    if "lin0.model.1.weight" not in state:
        raise WeightsError(f"{path}: holds no LPIPS weights: pull {FUSION} again, or give --lpips FILE.safetensors")
    return load_into(build_lpips(state), state, path).float()


def _open_wrapping(name: str, store: Store, allow_pickle: bool) -> Wrapping:
    path = store.resolve(name, allow_pickle=allow_pickle).only_file()
    names = [key for key in read_header(path).under(DECODER_PREFIX) if key.startswith(FUSION_PREFIX)]
    state = load_state(path, DECODER_PREFIX, names)
    if not state:
        raise WeightsError(f"{path}: holds no fusion layers: choose a CFW file")
    return load_into(build_cfw(state), state, path).float()
