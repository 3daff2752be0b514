"""The built-in engine: a small network of our own, shipped in the package. One pass, no sampling."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from srcli.engines.base import Canvas, EngineSpec, PixelSize, Request
from srcli.engines.builtin.spec import DAMAGE_PRESETS, FIDELITY, LICENSE, SPEC, entry_name
from srcli.engines.builtin.weights import read_model
from srcli.engines.runtime.device import Device
from srcli.engines.runtime.memory_budget import PixelMemoryNeed
from srcli.errors import WeightsError
from srcli.files import expand_user, hash_file
from srcli.models.builtin import DAMAGES, MOST_DAMAGE, Builtin
from srcli.sampling.hint import pixels_to_tensor, to_unit_float
from srcli.sampling.noise import NoiseField
from srcli.sampling.tiling import Tile
from srcli.settings import ModelChoice, Sampling
from srcli.tasks import Job
from srcli.weights.local import find_entry_root
from srcli.weights.lock import read_lock
from srcli.weights.places import packaged_lock

BLOCK_SIDE, HALO = 512, 64
"""In hint pixels. Cells up to 28 away influence a result; restoration's cells are two pixels wide."""
SMALLER = (BLOCK_SIDE, 384, 256, 192, 128, 64)
FEATURES, RENDERED = 260, 150
"""Memory of a block per picture pixel: values in the network's precision, and bytes of the rendered result."""
PIECE_SIDE, PIECES = 256, 4
"""Damage is estimated on at most 4x4 evenly spread crops of this side."""


def load_builtin(choice: ModelChoice, device: Device) -> BuiltinEngine:
    """Load the packaged model for the task, or one trained by `srcli train builtin` (`--adapter FILE`)."""
    if choice.adapter:
        path = expand_user(choice.adapter)
        digest = hash_file(path)
    else:
        path, digest = find_packaged(entry_name(choice.variant))
    model = read_model(path).to(device.torch, device.dtype)
    return BuiltinEngine(model, device, digest, block=block_side(device))


def inspect_damage(choice: ModelChoice, job: Job, device: Device, pixels: NDArray[Any]) -> Mapping[str, float]:
    """The damage that a run would estimate in the picture, or that `--damage` sets."""
    request = Request(job.task, SPEC.complete_sampling(job.sampling, choice.variant), job.prompt, NoiseField(job.seed))
    return _load_once(choice, device).survey(pixels, request).findings


_load_once = lru_cache(1)(load_builtin)
"""So that inspecting many pictures loads the model once."""


def block_memory_need(device: Device) -> PixelMemoryNeed:
    return PixelMemoryNeed("the built-in engine", FEATURES * device.dtype.itemsize + RENDERED)


def block_side(device: Device) -> int:
    """The side of the largest block that fits into the device's memory."""
    return block_memory_need(device).largest(SMALLER, HALO, device)


def find_packaged(name: str) -> tuple[Path, str]:
    """A packaged model's file and SHA-256, verified against weights.lock."""
    entry = read_lock(packaged_lock())[name]
    path, digest = find_entry_root(entry) / f"{name}.safetensors", str(entry.files[f"{name}.safetensors"].sha256)
    return check_packaged(path, digest), digest


def check_packaged(path: Path, wanted: str) -> Path:
    """`path`; WeightsError if its SHA-256 is not the wanted one."""
    if not path.is_file():
        raise WeightsError(f"{path.name} is missing from the package: install srcli again")
    if (digest := hash_file(path)) != wanted:
        raise WeightsError(f"{path} has SHA-256 {digest}, not the packaged {wanted}: install srcli again")
    return path


@dataclass(frozen=True)
class BuiltinEngine:
    """Blind super-resolution or restoration by the packaged model."""

    model: Builtin
    device: Device
    digest: str
    variant: str | None = None
    block: int = BLOCK_SIDE
    halo: int = HALO
    supported_savings: Collection[str] = ()
    spec: EngineSpec = SPEC

    @property
    def factor(self) -> int:
        return self.model.shape.scale

    def passes(self, size: PixelSize, target: PixelSize) -> list[PixelSize]:
        """Passes that each enlarge by at most the model's factor; the last result has the size `target`."""
        sizes = [target]
        while (wider := _before(sizes[0], self.factor))[0] > size[0] or wider[1] > size[1]:
            sizes.insert(0, wider)
        return sizes

    def working_size(self, size: PixelSize, target: PixelSize, request: Request) -> PixelSize:
        """The picture's own size: a result that is too large is reduced afterwards, which loses nothing."""
        return size

    def layout(self, height: int, width: int, sampling: Sampling) -> tuple[list[Tile], int] | None:
        return None

    @torch.inference_mode()
    def survey(self, hint: NDArray[Any], request: Request) -> Request:
        """The damage of the whole picture: from `--damage` for the first pass, else estimated from crops."""
        preset = request.sampling.damage or "auto"
        if preset != "auto" and request.noise.layer == 0:
            return replace(request, findings=dict(zip(DAMAGES, DAMAGE_PRESETS[preset], strict=True)))
        observations = [self.model.observe(self._tensor(crop)) for crop in _cut_crops(hint)]
        damage = self.model.estimator.conclude(torch.stack(observations).mean(0))[0]
        damage = damage.clamp(max=MOST_DAMAGE)  # dithered pictures exceed it, and became black or coloured
        return replace(request, findings=dict(zip(DAMAGES, damage.tolist(), strict=True)))

    def prepare(self, hint: Tensor, request: Request) -> Canvas:
        """The picture padded to whole cells; the network runs in `finish`."""
        height, width = hint.shape[-2:]
        fold = self.model.shape.fold
        # So that a block has the same cells as the whole picture, wherever it begins.
        top, left = request.noise.top % fold, request.noise.left % fold
        margins = (left, -(left + width) % fold, top, -(top + height) % fold)
        picture = F.pad(to_unit_float(hint), margins, mode="replicate")
        picture = picture.to(self.device.torch).contiguous(memory_format=torch.channels_last)
        damage = torch.tensor([[request.findings.get(name, 0.0) for name in DAMAGES]])
        fidelity = FIDELITY if request.sampling.fidelity is None else request.sampling.fidelity
        inside = Tile(*(v * self.factor for v in (top, left, height, width)))
        return Canvas(
            picture, picture, None, None, partial(self._draw, damage=damage, fidelity=fidelity, inside=inside)
        )

    def _draw(self, picture: Tensor, damage: Tensor, fidelity: float, inside: Tile) -> Tensor:
        """RGB: the faithful and the crisp output, mixed by `fidelity`. An output with weight 0 is not computed."""
        inner = picture.to(self.device.dtype)
        film = self.model.modulation(damage.to(inner))
        features = self.model.encode(inner, film)
        result = self.model.enlarge(picture)
        if fidelity > 0:
            result += fidelity * self.model.draw_faithful(features, film).to(result)
        if fidelity < 1:
            result += (1 - fidelity) * self.model.draw_crisp(features, film).to(result)
        return inside.crop(result).clamp_(0, 1)

    def _tensor(self, pixels: NDArray[Any]) -> Tensor:
        return to_unit_float(pixels_to_tensor(pixels)).to(self.device.torch, self.device.dtype)

    def provenance(self) -> Mapping[str, str]:
        return {"model": f"srcli built-in, sha256 {self.digest}", "licence": LICENSE}


def _cut_crops(hint: NDArray[Any]) -> list[NDArray[Any]]:
    """Evenly spread crops with even sides; small pictures are first mirrored to at least 16 pixels."""
    import numpy as np

    height, width = hint.shape[:2]
    if min(height, width) < 16:
        pad = [(0, max(0, 16 - side)) for side in (height, width)]
        hint = np.pad(hint, (*pad, (0, 0)), mode="symmetric")
        height, width = hint.shape[:2]
    rows, columns = (_spread(side) for side in (height, width))
    return [
        hint[r : r + PIECE_SIDE, c : c + PIECE_SIDE][: _even(height - r), : _even(width - c)]
        for r in rows
        for c in columns
    ]


def _even(side: int) -> int:
    return min(side, PIECE_SIDE) // 2 * 2


def _spread(side: int) -> list[int]:
    """Origins of the crops along a side."""
    count = min(PIECES, -(-side // PIECE_SIDE))
    return (
        [round(index * (side - PIECE_SIDE) / max(1, count - 1)) for index in range(count)] if side > PIECE_SIDE else [0]
    )


def _before(size: PixelSize, factor: int) -> PixelSize:
    """The smallest size that one pass enlarges to `size`."""
    return -(-size[0] // factor), -(-size[1] // factor)
