"""What the official StableSR scripts do and the product does otherwise: kept for parity, by the product's own parts.

Pixel patches that share their noise, padding that stays, DDIM coefficients and steps from different grids, and the
face model's pull towards a reference.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from tests.golden.stablesr_tiny import tiny
from torch import Tensor
from torch.nn import functional as F

from srcli.engines.latent.codec import Codec
from srcli.engines.latent.schedulers import diffuse_latents
from srcli.engines.runtime.device import Device
from srcli.models.cfw import keep_features
from srcli.sampling.ancestral import Ancestral, make_scaled_linear_betas
from srcli.sampling.colorfix import fix_colors_by_adain, fix_colors_by_wavelet
from srcli.sampling.sampler import Denoiser, Tiled
from srcli.sampling.tiling import find_origins, gaussian_weight, lay_grid
from srcli.settings import Tiling

PAD = 32


def codec() -> Codec:
    return Codec.of(tiny().vae, Device(torch.device("cpu"), torch.float32))


def scheduler(steps: int, parameterization: str = "eps") -> Ancestral:
    made = Ancestral(
        make_scaled_linear_betas(), prediction_type={"eps": "epsilon", "v": "v_prediction"}[parameterization]
    )
    made.set_timesteps(steps)
    return made


def tiled(denoiser: Denoiser, latent: Tensor, size: int, overlap: int, batch: int = 1) -> Denoiser:
    height, width = latent.shape[-2:]
    return Tiled(denoiser, lay_grid(height, width, Tiling(size=size, overlap=overlap)), batch)


def reverse(
    denoiser: Denoiser,
    schedule: Ancestral,
    x: Tensor,
    hint: Tensor,
    noises: Tensor,
    pull: Callable[[int, Tensor], Tensor] | None = None,
    seen: Callable[[Tensor, Tensor], None] | None = None,
) -> Tensor:
    """The product's chain with the noise of each step given. `pull` may move the clean estimate of chain index i."""
    for step, t in enumerate(schedule.timesteps.tolist()):
        prediction = denoiser(x, torch.tensor(t), hint)
        now, posterior = x, schedule.posterior(t)
        x = schedule.step(prediction, t, x, noises[step]).prev_sample
        if pull is not None:
            clean = schedule.clean(prediction, t, now)
            x = x + posterior.mean_clean * (pull(len(schedule.timesteps) - 1 - step, clean) - clean)
        if seen is not None:
            seen(prediction, x)
    return x


def drowned(latent: Tensor, noise: Tensor) -> Tensor:
    """The start of the canvas scripts: the latent at the last step of the full table."""
    return diffuse_latents(latent, noise, (1 - make_scaled_linear_betas()).prod())


def encode(picture: Tensor, noise: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
    """A posterior sample of -1..1 pixels, scaled, and the features that the encoder leaves on the way."""
    seen: dict[int, Tensor] = {}
    latent = codec().encode(picture / 2 + 0.5, noise, keep_features(seen))
    return latent, seen


def decode(latent: Tensor, seen: dict[int, Tensor], weight: float) -> Tensor:
    mix = tiny().wrapping.mixing(seen, weight, codec().bands, latent.device) if weight else None
    return codec().decode(latent, mix) * 2 - 1


def fixed(kind: str, result: Tensor, source: Tensor) -> Tensor:
    return {"adain": fix_colors_by_adain, "wavelet": fix_colors_by_wavelet, "nofix": lambda result, _: result}[kind](
        result, source
    )


def truncated(picture: Tensor) -> Tensor:
    """Clamped -1..1 pixels (1, 3, H, W) as (H, W, 3) levels, cut off rather than rounded."""
    return ((picture[0].clamp(-1, 1) + 1) / 2 * 255).permute(1, 2, 0).to(torch.uint8)


class CanvasScript:
    """The official tiled script on given noise; it keeps what the vectors look at."""

    def __init__(self, notes: Mapping[str, Any], noise: Mapping[str, Tensor], denoiser: Denoiser) -> None:
        self.notes, self.noise, self.denoiser = notes, noise, denoiser
        self.latents: list[tuple[Tensor, Tensor]] = []

    def run(self, levels: Tensor) -> Tensor:
        """(H, W, 3) levels in and out."""
        picture = levels.permute(2, 0, 1)[None].float() / 255 * 2 - 1
        height, width = picture.shape[-2:]
        scale = max(self.notes["input_size"] / min(height, width), self.notes["upscale"])
        large = F.interpolate(picture, (int(height * scale), int(width * scale)), mode="bicubic").clamp(-1, 1)
        self.kept = large.shape[-2:]
        self.padded = self.pad(large)
        limit = self.notes["vqgantile_size"]
        whole = max(self.padded.shape[-2:]) <= limit
        self.merged = self.patch(self.padded) if whole else self.patches(limit)
        result = self.merged.clamp(-1, 1)
        if scale > self.notes["upscale"]:
            back = self.notes["upscale"] / scale
            size = [int(side * back) for side in result.shape[-2:]]
            result = F.interpolate(result, size, mode="bicubic")
        return truncated(result[..., : self.kept[0], : self.kept[1]])

    def pad(self, large: Tensor) -> Tensor:
        height, width = large.shape[-2:]
        if height % PAD == 0 and width % PAD == 0:
            return large
        return F.pad(large, (0, PAD - width % PAD, 0, PAD - height % PAD), mode="reflect")

    def patch(self, picture: Tensor) -> Tensor:
        """Everything, on one patch; the seed is set again for each, so all share their noise."""
        latent, seen = encode(picture, self.noise["z_noise"])
        start = drowned(latent, self.noise["x_noise"])
        size = self.notes["input_size"] // 8
        denoiser = tiled(self.denoiser, latent, size, self.notes["tile_overlap"])
        final = reverse(denoiser, scheduler(self.notes["ddpm_steps"]), start, latent, self.noise["step_noise"])
        self.latents.append((latent, final))
        self.start = start
        return fixed(self.notes["colorfix_type"], decode(final, seen, self.notes["dec_w"]), picture)

    def patches(self, limit: int) -> Tensor:
        height, width = self.padded.shape[-2:]
        overlap = limit - self.notes["vqgantile_stride"]
        total, cover = torch.zeros_like(self.padded), torch.zeros_like(self.padded)
        weight = gaussian_weight(limit, limit).float()
        for left in find_origins(width, limit, overlap):
            for top in find_origins(height, limit, overlap):
                place = (..., slice(top, top + limit), slice(left, left + limit))
                total[place] += weight * self.patch(self.padded[place])
                cover[place] += weight
        return total / cover
