"""FLOP and memory of a run of PASD."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from srcli.engines.base import PixelSize
from srcli.engines.latent.forecast import LatentNetworks, forecast_latent, plan_tiles
from srcli.engines.latent.sizes import ensure_short_side
from srcli.engines.runtime.device import Device
from srcli.engines.runtime.forecast import Forecast
from srcli.sampling.layout import Cost, Limits
from srcli.sampling.tiling import Tile
from srcli.settings import Sampling
from srcli.tasks import Job

# FLOP of one call, as measured: a linear and (attention) a quadratic term in the tile's latents.
PASD_LINEAR, PASD_QUADRATIC = 267e6, 18930.0
OUTER_LINEAR, OUTER_QUADRATIC = 62e6, 14080.0  # of the outermost layers alone (--reuse)
EMBEDDED = 320  # values per latent of the hint's embedding, which is kept
DEEP = 1600  # values per latent and prompt that --reuse keeps: the deep features and three residuals


def forecast_pasd(job: Job, size: PixelSize, device: Device) -> Forecast:
    """The plan for a picture of this size."""
    sampling, target = job.sampling, job.target(*size)
    short = sampling.process_size or 512
    hint = grey_size(size, short) if job.task.grey_hint else ensure_short_side(target, short)
    tiles = plan_tiles(PASD_NETWORKS, hint, sampling, Limits())
    cost = mean_cost(sampling) if sampling.reuse else None
    plan = forecast_latent(
        PASD_NETWORKS, sampling, target, tiles, device, count_kept_bytes(tiles, sampling, device), cost
    )
    host = count_deep_feature_bytes(tiles, sampling, device.dtype) if sampling.reuse and device.accelerated else 0
    return replace(plan, host=host)


def count_pasd_flop(latents: int) -> float:
    """FLOP of one prediction for a tile of this many latents."""
    return PASD_LINEAR * latents + PASD_QUADRATIC * latents**2


PASD_NETWORKS = LatentNetworks(
    name="pasd", title="PASD", steps=1.469e9, vae=0.084e9, others=0.123e9, cost=count_pasd_flop
)


def outer_cost(latents: int) -> float:
    """FLOP of one prediction that reuses the deep features of an earlier step."""
    return OUTER_LINEAR * latents + OUTER_QUADRATIC * latents**2


def mean_cost(sampling: Sampling) -> Cost:
    """Mean FLOP of a prediction, where only every `reuse`-th step runs the deep layers."""
    steps = int(sampling.steps or 1)
    share = math.ceil(steps / (sampling.reuse or 1)) / steps
    return lambda latents: share * count_pasd_flop(latents) + (1 - share) * outer_cost(latents)


def count_kept_bytes(tiles: Sequence[Tile], sampling: Sampling, device: Device) -> int:
    """Bytes on the device that are kept from step to step."""
    embedded = EMBEDDED * device.dtype.itemsize * sum(tile.height * tile.width for tile in tiles)
    return embedded if device.accelerated else embedded + count_deep_feature_bytes(tiles, sampling, device.dtype)


def count_deep_feature_bytes(tiles: Sequence[Tile], sampling: Sampling, dtype: torch.dtype) -> int:
    """Bytes of host memory for the deep features that `--reuse` keeps."""
    if (sampling.reuse or 1) == 1:
        return 0
    texts = 1 if (sampling.guidance or 0) <= 1 else 2 if sampling.guidance_interval is None else 3
    return DEEP * texts * dtype.itemsize * sum(tile.height * tile.width for tile in tiles)


def grey_size(size: PixelSize, short: int) -> PixelSize:
    """The size scaled to `short` pixels on the short side, or to 2 * `short` on the long side if that is smaller."""
    long = int(short * max(size) / min(size))
    if long > 2 * short:
        short, long = int(2 * short * short / long), 2 * short
    return (long, short) if size[0] > size[1] else (short, long)
