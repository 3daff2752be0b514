"""StableSR's modulation of the UNet, as hooks on a stock UNet.

A SPADE block follows the second convolution of each residual block, conditioned on the time-aware encoder's map of
that level. The official code calls them SFT, and their norm "parameter-free" although its affine part is trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from srcli.models.patches.changes import Undo

HIDDEN = 128
PER_BLOCK = 3  # official indices per diffusers block
ROOTS = {"input_blocks": "down_blocks", "middle_block": "mid_block", "output_blocks": "up_blocks"}


class Spade(nn.Module):
    """Norm, then scale and shift computed from the guiding map by convolutions (Park et al. 2019)."""

    def __init__(self, width: int, guide: int) -> None:
        super().__init__()
        self.param_free_norm = nn.GroupNorm(32, width)
        self.mlp_shared = nn.Sequential(nn.Conv2d(guide, HIDDEN, 3, padding=1), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(HIDDEN, width, 3, padding=1)
        self.mlp_beta = nn.Conv2d(HIDDEN, width, 3, padding=1)

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        if torch.is_grad_enabled():  # torch 2.13's group norm crashes in its backward pass on channels-last input
            x = x.contiguous()
        hidden = self.mlp_shared(guide)
        return self.param_free_norm(x) * (1 + self.mlp_gamma(hidden)) + self.mlp_beta(hidden)  # type: ignore[no-any-return]


class Modulation(nn.Module):
    """The SPADE blocks of a UNet, under the paths of its residual blocks."""

    def __init__(self, unet: UNet2DConditionModel, guide: int) -> None:
        super().__init__()
        self._maps: Sequence[Tensor] | None = None
        paths = [path for path, module in unet.named_modules() if isinstance(module, ResnetBlock2D)]
        self.sites = {path: _level(path, len(unet.down_blocks)) for path in paths}
        for path in self.sites:
            width = unet.get_submodule(path).conv2.out_channels
            _place(self, f"{path}.spade", Spade(width, guide))

    @contextmanager
    def leading(self, maps: Sequence[Tensor]) -> Iterator[None]:
        """Let the time-aware encoder's maps lead the UNet; outside it is the base's own."""
        self._maps = maps
        try:
            yield
        finally:
            self._maps = None

    def patch_layers(self, net: nn.Module) -> Iterator[Undo]:
        """Follow the second convolution of each residual block of a UNet."""
        for path, level in self.sites.items():
            hook = partial(self._modulate, self.get_submodule(f"{path}.spade"), level)
            yield net.get_submodule(f"{path}.conv2").register_forward_hook(hook).remove

    def _modulate(self, spade: nn.Module, level: int, _site: nn.Module, _args: object, out: Tensor) -> Any:
        return out if self._maps is None else spade(out, self._maps[level])


def _level(path: str, levels: int) -> int:
    """The number of halvings of the latents at this residual block."""
    root, block, *_ = path.split(".")
    if root == "mid_block":
        return levels - 1
    return int(block) if root == "down_blocks" else levels - 1 - int(block)


def _place(root: nn.Module, path: str, module: nn.Module) -> None:
    """Add `module` at a dotted path, creating the modules between."""
    *between, name = path.split(".")
    for part in between:
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = getattr(root, part)
    root.add_module(name, module)


def modulation_state(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The modulation's tensors from an official UNet, under our paths."""
    return {to_diffusers_path(key): value for key, value in official.items() if ".spade." in key}


def to_diffusers_path(official: str) -> str:
    """Translate an official key such as `input_blocks.4.0.spade...` to the path of diffusers' residual block."""
    root, index, *rest = official.split(".")
    if root == "middle_block":
        return ".".join([ROOTS[root], "resnets", str(int(index) // 2), *rest])
    block, layer = divmod(int(index) - (root == "input_blocks"), PER_BLOCK)
    return ".".join([ROOTS[root], str(block), "resnets", str(layer), *rest[1:]])


def to_official_path(ours: str) -> str:
    """The inverse of `to_diffusers_path`, for keys such as `down_blocks.1.resnets.0.spade...`."""
    root, *rest = ours.split(".")
    if root == "mid_block":
        return ".".join(["middle_block", str(2 * int(rest[1])), *rest[2:]])
    block, _, layer, *rest = rest
    index = PER_BLOCK * int(block) + int(layer) + (root == "down_blocks")
    name = next(official for official, diffusers in ROOTS.items() if diffusers == root)
    return ".".join([name, str(index), "0", *rest])


def build_modulation(unet: UNet2DConditionModel, state: Mapping[str, Tensor]) -> Modulation:
    """The modulation of `unet` for a state dict, on the meta device."""
    with torch.device("meta"):
        guide = next(v.shape[1] for key, v in state.items() if key.endswith("mlp_shared.0.weight"))
        return Modulation(unet, guide).eval()
