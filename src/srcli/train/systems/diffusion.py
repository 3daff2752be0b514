"""Noise, targets and latents, shared by the latent diffusion systems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler
from torch import Tensor

from srcli.weights.families import EPSILON
from srcli.weights.open import silence_libraries


def cumulated_alphas(schedule: Mapping[str, Any]) -> Tensor:
    """Alpha bar of each training timestep, from a scheduler's configuration."""
    silence_libraries()
    alphas: Tensor = DDPMScheduler.from_config(dict(schedule)).alphas_cumprod
    return alphas


def add_noise(latents: Tensor, noise: Tensor, alphas: Tensor) -> Tensor:
    """Latents diffused to each sample's alpha bar (`alphas`)."""
    keep = alphas.view(-1, 1, 1, 1)
    return keep.sqrt() * latents + (1 - keep).sqrt() * noise


def prediction_target(latents: Tensor, noise: Tensor, alphas: Tensor, prediction: str) -> Tensor:
    """The training target: the noise, or v for models that predict v."""
    if prediction == EPSILON:
        return noise
    keep = alphas.view(-1, 1, 1, 1)
    return keep.sqrt() * noise - (1 - keep).sqrt() * latents


@torch.no_grad()
def sample_latents(vae: AutoencoderKL, pictures: Tensor, noise: Tensor) -> Tensor:
    """Scaled latents of pictures in -1..1, float32: a sample of the posterior, with this noise."""
    posterior = vae.encode(pictures.to(vae.dtype).contiguous()).latent_dist
    latents: Tensor = vae.config.scaling_factor * (posterior.mean.float() + posterior.std.float() * noise)
    return latents


@torch.no_grad()
def decode_latents(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Decode scaled latents to pictures in 0..1."""
    pictures: Tensor = vae.decode((latents / vae.config.scaling_factor).to(vae.dtype)).sample
    return (pictures.float() / 2 + 0.5).clamp(0, 1)


def latent_shape(vae: AutoencoderKL, pictures: Tensor) -> tuple[int, int, int]:
    """The shape of one picture's latents: channels, height, width."""
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    return int(vae.config.latent_channels), pictures.shape[-2] // factor, pictures.shape[-1] // factor
