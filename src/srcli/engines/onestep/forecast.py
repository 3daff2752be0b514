"""FLOP and memory of a run of a one-step model."""

from __future__ import annotations

from dataclasses import replace

from srcli.engines.base import PixelSize
from srcli.engines.latent.forecast import (
    LatentNetworks,
    count_canvas_latents,
    count_vae_flop,
    forecast_latent,
    plan_tiles,
)
from srcli.engines.latent.sizes import ensure_short_side
from srcli.engines.onestep.denoiser import Strengths
from srcli.engines.onestep.spec import PISA, PROCESS, find_onestep_variant
from srcli.engines.runtime.device import Device
from srcli.engines.runtime.forecast import Forecast
from srcli.sampling.layout import Limits
from srcli.settings import ModelChoice, Sampling
from srcli.tasks import Job

# FLOP of one call, as counted at full size: a linear and (attention) a quadratic term in the tile's latents.
ONESTEP_LINEAR, ONESTEP_QUADRATIC = 167.1e6, 7197.0
# From the training size to the authors' largest tile. With one step no later one hides seams: a larger overlap.
ONESTEP_LIMITS = Limits(smallest=64, largest=96, overlap=32)
# FLOP per latent, as counted at full size: the VAE's encoder, TAESD's encoder and decoder.
ENCODE, TINY_ENCODE, TINY_DECODE = 273e6, 30e6, 34.4e6


def forecast_onestep(choice: ModelChoice, job: Job, size: PixelSize, device: Device) -> Forecast:
    """The plan for a picture of this size."""
    sampling, target, variant = job.sampling, job.target(*size), find_onestep_variant(choice.variant)
    tiles = plan_tiles(
        ONESTEP_NETWORKS, ensure_short_side(target, sampling.process_size or PROCESS), sampling, ONESTEP_LIMITS
    )
    calls = len(Strengths.of_fidelity(sampling.fidelity).terms)
    plan = forecast_latent(
        ONESTEP_NETWORKS, sampling, target, tiles, device, cost=lambda latents: calls * count_onestep_flop(latents)
    )
    latents = count_canvas_latents(tiles)
    ends = count_codec_flop(latents, sampling, both=variant.kind == PISA)
    return replace(plan, flop=plan.flop - count_vae_flop(latents) + ends)


def count_codec_flop(latents: int, sampling: Sampling, both: bool) -> float:
    """FLOP to encode and decode. With the tiny VAE (drafts), that does only the decoding, or `both`."""
    if not sampling.tiny_vae:
        return count_vae_flop(latents)
    return ((TINY_ENCODE if both else ENCODE) + TINY_DECODE) * latents


def count_onestep_flop(latents: int) -> float:
    """FLOP of one prediction for a tile of this many latents."""
    return ONESTEP_LINEAR * latents + ONESTEP_QUADRATIC * latents**2


ONESTEP_NETWORKS = LatentNetworks(
    name="onestep", title="OneStep", steps=0.87e9, vae=0.084e9, others=0.0, cost=count_onestep_flop
)
