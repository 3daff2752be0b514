"""The built-in engine: the project's own small diffusion model, shipped in the package.

A picture's mean, features and spread are worked out once; the denoiser then samples what the mean misses, and the
result is mean + strength x detail, so fidelity is exact and costs nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from srcli.engines.base import Canvas, EngineSpec, Request, Size
from srcli.engines.builtin.spec import SPEC, entry_name
from srcli.engines.builtin.weights import read
from srcli.engines.runtime.device import Device
from srcli.engines.runtime.memory_budget import PixelMemoryNeed
from srcli.errors import WeightsError
from srcli.files import expand_user
from srcli.models.builtin import UP, Builtin, Prediction
from srcli.sampling.cosine import Cosine
from srcli.sampling.hint import to_unit_float
from srcli.sampling.noise import NoiseField
from srcli.sampling.tiling import Tile
from srcli.settings import ModelChoice, Sampling
from srcli.weights.header import sha256
from srcli.weights.local import root_of
from srcli.weights.lock import read_lock
from srcli.weights.places import packaged_lock

GRID = 4
"""The denoiser halves its canvas twice, so a block begins and ends at a multiple of this many cells."""
BLOCK, HALO = 512, 40
SMALLER = (BLOCK, 384, 256, 192, 128, 64)
FEATURES, RENDERED = 536, 264
"""Of a block: values in the networks' precision for each pixel of the picture, and bytes of what is made of them."""


def load(choice: ModelChoice, device: Device) -> BuiltinEngine:
    """The packaged model for the task, or one trained by `srcli train builtin` (`--adapter FILE`)."""
    if choice.adapter:
        path = expand_user(choice.adapter)
        digest = sha256(path)
    else:
        path, digest = packaged(entry_name(choice.variant))
    return BuiltinEngine(read_model(path, device), device, digest, block=block_side(device))


def block_memory_need(device: Device) -> PixelMemoryNeed:
    """The memory that a block takes."""
    return PixelMemoryNeed("the built-in engine", FEATURES * device.dtype.itemsize + RENDERED)


def block_side(device: Device) -> int:
    """The largest block for the memory that may be used."""
    return block_memory_need(device).largest(SMALLER, HALO, device)


def packaged(name: str) -> tuple[Path, str]:
    """A file that came with the package, and its hash, which is the locked one."""
    entry = read_lock(packaged_lock())[name]
    path, digest = root_of(entry) / f"{name}.safetensors", str(entry.files[f"{name}.safetensors"].sha256)
    return verified(path, digest), digest


def verified(path: Path, wanted: str) -> Path:
    """`path`, if its bytes are the wanted ones."""
    if not path.is_file():
        raise WeightsError(f"{path.name} is missing from the package: install srcli again")
    if (found := sha256(path)) != wanted:
        raise WeightsError(f"{path} has SHA-256 {found}, not the packaged {wanted}: install srcli again")
    return path


def read_model(path: Path, device: Device) -> Builtin:
    """The model in a file, ready to compute."""
    return read(path).to(device.torch, device.dtype)


@dataclass(frozen=True)
class Margins:
    """Cells added around a block so that it lies on the picture's grid, whichever block it is."""

    top: int
    left: int
    bottom: int
    right: int

    @classmethod
    def of(cls, height: int, width: int, noise: NoiseField, fold: int) -> Margins:
        grid = GRID * fold
        top, left = noise.top % grid, noise.left % grid
        return cls(top, left, -(top + height) % grid, -(left + width) % grid)

    def around(self, picture: Tensor) -> Tensor:
        return F.pad(picture, (self.left, self.right, self.top, self.bottom), mode="replicate")

    def inside(self, result: Tensor, scale: int) -> Tensor:
        height, width = result.shape[-2:]
        rows = slice(self.top * scale, height - self.bottom * scale)
        return result[..., rows, self.left * scale : width - self.right * scale]


@dataclass(frozen=True)
class BuiltinDenoiser:
    """The denoiser with what the predictor said of this block."""

    model: Builtin
    guess: Prediction

    @property
    def stride(self) -> int:
        return self.model.shape.fold

    def __call__(self, x: Tensor, t: Tensor, hint: Tensor, where: Sequence[Tile] | None = None) -> Tensor:
        signal = torch.cos(t.float() * (torch.pi / 2)).to(x.device).expand(len(x))
        v: Tensor = self.model.detail(x, signal, self.guess.features, self.guess.spread)
        return v


@dataclass(frozen=True)
class BuiltinEngine:
    """Blind enlargement (or restoration) by the packaged model."""

    model: Builtin
    device: Device
    digest: str
    spec: EngineSpec = SPEC
    variant: str | None = None
    block: int = BLOCK
    halo: int = HALO
    supported_savings: Collection[str] = ()

    @property
    def factor(self) -> int:
        return self.model.shape.scale

    def passes(self, size: Size, target: Size) -> list[Size]:
        """Each pass enlarges by the model's factor at most; the last one gives `target`."""
        sizes = [target]
        while (wider := _before(sizes[0], self.factor))[0] > size[0] or wider[1] > size[1]:
            sizes.insert(0, wider)
        return sizes

    def working_size(self, size: Size, target: Size, request: Request) -> Size:
        """The picture itself: what is enlarged too far is reduced afterwards, which keeps all it shows."""
        return size

    def layout(self, height: int, width: int, sampling: Sampling) -> tuple[list[Tile], int] | None:
        return None

    def prepare(self, hint: Tensor, request: Request) -> Canvas:
        fold = self.model.shape.fold
        height, width = hint.shape[-2:]
        margins = Margins.of(height, width, request.noise, fold)
        picture = (
            margins.around(to_unit_float(hint)).to(self.device.torch).contiguous(memory_format=torch.channels_last)
        )
        guess = self.model.predictor(picture)
        noise = replace(
            request.noise,
            top=(request.noise.top - margins.top) // fold,
            left=(request.noise.left - margins.left) // fold,
        )
        _, _, height, width = guess.features.shape
        start = noise.draw((1, UP**2, height, width)).to(self.device.torch)
        strength = 1 - (0.5 if request.sampling.fidelity is None else request.sampling.fidelity)
        finish = partial(self._finish, guess=guess, margins=margins, strength=strength)
        return Canvas(start, picture, BuiltinDenoiser(self.model, guess), Cosine(request.sampling.steps or 6), finish)

    def _finish(self, x: Tensor, guess: Prediction, margins: Margins, strength: float) -> Tensor:
        return margins.inside(self.model.render(guess, x, strength), self.factor)

    def provenance(self) -> Mapping[str, str]:
        return {"model": f"srcli built-in, sha256 {self.digest}", "licence": "see docs/builtin-model.md"}


def _before(size: Size, factor: int) -> Size:
    """The smallest picture that one pass brings to `size`."""
    return -(-size[0] // factor), -(-size[1] // factor)
