"""Work and memory of a run of a one-step model."""

from __future__ import annotations

from dataclasses import replace

from srcli.engines.base import PixelSize
from srcli.engines.latent.forecast import LatentNetworks, canvas_latents, forecast_latent, plan_tiles, vae_work
from srcli.engines.latent.sizes import ensure_short_side
from srcli.engines.onestep.denoiser import Strengths
from srcli.engines.onestep.spec import PISA, PROCESS, find_onestep_variant
from srcli.engines.runtime.device import Device
from srcli.engines.runtime.forecast import Forecast
from srcli.sampling.layout import Limits
from srcli.settings import ModelChoice, Sampling
from srcli.tasks import Job

# FLOP of one call as counted at full size: linear in the tile's latents, and quadratic where attention is.
ONESTEP_LINEAR, ONESTEP_QUADRATIC = 167.1e6, 7197.0
# Tiles from the size of training to the largest that the authors use; no later step mends a seam, so they overlap more.
ONESTEP_LIMITS = Limits(smallest=64, largest=96, overlap=32)
# FLOP of both ends for each latent, as counted at full size: the VAE's, and those of the tiny one in its place.
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
    latents = canvas_latents(tiles)
    ends = ends_work(latents, sampling, both=variant.kind == PISA)
    return replace(plan, flop=plan.flop - vae_work(latents) + ends)


def ends_work(latents: int, sampling: Sampling, both: bool) -> float:
    """FLOP of encoding and decoding; of a draft, by the tiny VAE at one end or `both`."""
    if not sampling.tiny_vae:
        return vae_work(latents)
    return ((TINY_ENCODE if both else ENCODE) + TINY_DECODE) * latents


def count_onestep_flop(latents: int) -> float:
    """FLOP of one prediction for a tile of so many latents."""
    return ONESTEP_LINEAR * latents + ONESTEP_QUADRATIC * latents**2


ONESTEP_NETWORKS = LatentNetworks(
    name="onestep", title="OneStep", steps=0.87e9, vae=0.084e9, others=0.0, cost=count_onestep_flop
)
