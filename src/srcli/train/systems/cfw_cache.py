"""CFW's training data: degraded crops, their targets, and a trained StableSR's latents for them.

Computing them takes longer than the training, so they are cached as PNG files and latents with the same name. Each
file is written atomically, so that a pair is complete or missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import Dataset

from srcli.engines.stablesr.weights import StableSRNetworks
from srcli.errors import InputError, unwritable_file
from srcli.files import is_file, replace_file
from srcli.sampling.ancestral import Ancestral, make_scaled_linear_betas
from srcli.train.pictures import read_as_tensor, to_levels
from srcli.train.systems.base import Batch, SampleNoise
from srcli.train.systems.diffusion import add_noise, latent_shape, sample_latents
from srcli.train.systems.frozen import FrozenPromptEncoder
from srcli.train.training_set import Share, TrainingSet, shuffle_order

TARGETS, INPUTS, LATENTS = "targets", "inputs", "latents"
LATENT = "latent"
FillProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class CachedPair:
    """The three files of a pair."""

    target: Path
    degraded: Path
    latent: Path

    @classmethod
    def of(cls, cache: Path, name: str) -> CachedPair:
        return cls(cache / TARGETS / f"{name}.png", cache / INPUTS / f"{name}.png", latent_file(cache, name))

    def exists(self) -> bool:
        return all(is_file(path) for path in (self.target, self.degraded, self.latent))


def latent_file(cache: Path, name: str) -> Path:
    return cache / LATENTS / f"{name}.safetensors"


@dataclass(frozen=True)
class LatentMaker:
    """A trained StableSR that samples latents for degraded pictures, with an empty prompt."""

    loaded: StableSRNetworks
    device: torch.device
    steps: int

    def __post_init__(self) -> None:
        loaded = self.loaded
        for net in (loaded.unet, loaded.encoder, loaded.modulation, loaded.base.vae, loaded.base.text_encoder):
            net.to(self.device).eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, degraded: Tensor, noise: SampleNoise) -> Tensor:
        """Scaled latents of degraded pictures in 0..1."""
        loaded, vae = self.loaded, self.loaded.base.vae
        shape = latent_shape(vae, degraded)
        condition = sample_latents(vae, (degraded * 2 - 1).to(self.device), noise.normals(shape).to(self.device))
        scheduler = Ancestral(make_scaled_linear_betas(), loaded.variant.prediction)
        scheduler.set_timesteps(self.steps)
        last = scheduler.alphas_cumprod[-1].to(condition).expand(len(condition))
        x = add_noise(condition, noise.normals(shape).to(condition), last)
        text = FrozenPromptEncoder(loaded.base.tokenizer, loaded.base.text_encoder, self.device)([""])
        for t in scheduler.timesteps:
            when = torch.full((len(x),), int(t), device=self.device)
            with loaded.modulation.leading(loaded.encoder(condition, when)):
                predicted = loaded.unet(x, when, text.expand(len(x), -1, -1), return_dict=False)[0]
            x = scheduler.step(predicted.float(), t, x, noise.normals(shape).to(x)).prev_sample
        return x


def fill_cache(
    cache: Path, count: int, source: TrainingSet, make: LatentMaker, share: Share, progress: FillProgress
) -> None:
    """Compute this process's share of the missing pairs. Raises MachineError."""
    try:
        for folder in (TARGETS, INPUTS, LATENTS):
            (cache / folder).mkdir(parents=True, exist_ok=True)
        for index in range(share.rank, count, share.count):
            pair = CachedPair.of(cache, f"{index:07d}")
            if not pair.exists():
                batch = source[index]
                _write(pair, batch, make(batch.degraded, SampleNoise(source.seed, index, batch.places)))
            progress(index + 1, count)
    except OSError as error:
        raise unwritable_file(cache, error, "make room") from error


def _write(pair: CachedPair, batch: Batch, latent: Tensor) -> None:
    for path, picture in ((pair.target, batch.target), (pair.degraded, batch.degraded)):
        with replace_file(path) as fresh:
            Image.fromarray(to_levels(picture[0])).save(fresh, "PNG")
    with replace_file(pair.latent) as fresh:
        save_file({LATENT: latent[0].float().cpu().contiguous()}, fresh)


def find_pairs(cache: Path) -> list[str]:
    """Names of all complete pairs. Raises InputError if there are none."""
    names = sorted(path.stem for path in (cache / LATENTS).glob("*.safetensors"))
    complete = [name for name in names if CachedPair.of(cache, name).exists()]
    if not complete:
        raise InputError(f"{cache} holds no pairs: let srcli train cfw make them with --pairs")
    return complete


@dataclass(frozen=True)
class CachedSet(Dataset[Batch]):
    """Endless batches of cached pairs."""

    cache: Path
    names: Sequence[str]
    share: Share
    seed: int

    def __getitem__(self, micro: int) -> Batch:
        names = [self._name(micro * self.share.whole + place) for place in self.share.places]
        return read_pairs(self.cache, names, micro, tuple(self.share.places))

    def _name(self, position: int) -> str:
        lap, index = divmod(position, len(self.names))
        return self.names[int(shuffle_order(self.seed, lap, len(self.names))[index])]

    def fingerprint(self) -> list[Any]:
        return [len(self.names), self.names[0], self.names[-1]]


def read_pairs(cache: Path, names: Sequence[str], micro: int, places: tuple[int, ...]) -> Batch:
    """Read pairs as a batch. Raises PictureError, InputError."""
    pairs = [CachedPair.of(cache, name) for name in names]
    targets, degraded = (
        torch.stack([read_as_tensor(getattr(pair, part)) for pair in pairs]) for part in ("target", "degraded")
    )
    latents = torch.stack([_read_latent(pair.latent) for pair in pairs])
    return Batch(targets, degraded, ("",) * len(names), tuple(names), micro, places, latent=latents)


def _read_latent(path: Path) -> Tensor:
    try:
        latent: Tensor = load_file(path)[LATENT]
    except (OSError, KeyError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read: remove it, and it is made again") from error
    return latent
