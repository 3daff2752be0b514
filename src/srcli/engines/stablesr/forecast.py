"""FLOP and memory of a run of StableSR."""

from __future__ import annotations

from srcli.engines.base import PixelSize
from srcli.engines.latent.forecast import LATENT_SIDE, LatentNetworks, forecast_latent, plan_tiles
from srcli.engines.latent.sizes import ensure_short_side
from srcli.engines.runtime.device import Device
from srcli.engines.runtime.forecast import Forecast
from srcli.engines.stablesr.spec import find_stablesr_variant
from srcli.sampling.layout import Limits
from srcli.settings import ModelChoice
from srcli.tasks import Job

# FLOP of one call, as counted at full size: a linear and (attention) a quadratic term in the tile's latents.
STABLESR_LINEAR, STABLESR_QUADRATIC = 198e6, 9305.0
OVERLAP = 16  # default overlap of neighbouring tiles, in latents


def forecast_stablesr(choice: ModelChoice, job: Job, size: PixelSize, device: Device) -> Forecast:
    """The plan for a picture of this size."""
    target, variant = job.target(*size), find_stablesr_variant(choice.variant)
    hint = ensure_short_side(target, job.sampling.process_size or variant.process)
    tiles = plan_tiles(STABLESR_NETWORKS, hint, job.sampling, limit_tiles(variant.process // LATENT_SIDE))
    return forecast_latent(STABLESR_NETWORKS, job.sampling, target, tiles, device)


def limit_tiles(side: int) -> Limits:
    """Tile sides from the training size (`side`, in latents) to 1.5 times that."""
    return Limits(smallest=side, largest=side * 3 // 2, overlap=OVERLAP)


def count_stablesr_flop(latents: int) -> float:
    """FLOP of one prediction for a tile of this many latents."""
    return STABLESR_LINEAR * latents + STABLESR_QUADRATIC * latents**2


STABLESR_NETWORKS = LatentNetworks(
    name="stablesr", title="StableSR", steps=1.0e9, vae=0.084e9, others=0.406e9, cost=count_stablesr_flop
)
