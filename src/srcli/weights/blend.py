"""PASD's personalized models: blend a base model's UNet weights with the adapter's."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from srcli.errors import WeightsError


def blend_unet(
    own: Mapping[str, Tensor], other: Mapping[str, Tensor], alpha: float, source: Path | str
) -> dict[str, Tensor]:
    """`alpha * other + (1 - alpha) * own` for every name in `other`; other names keep their own weights.

    `other` is multiplied in its own dtype as in the official code, so an fp16 file is rounded once more.
    """
    for name, tensor in other.items():
        if name not in own:
            raise WeightsError(f"{source}: {name} is not in this UNet: choose a base model of the adapter's family")
        if tensor.shape != own[name].shape:
            raise WeightsError(
                f"{source}: {name} is {tuple(tensor.shape)}, and this UNet has {tuple(own[name].shape)}: "
                "choose a base model of the adapter's family"
            )
    return {name: _blend(tensor, other.get(name), alpha) for name, tensor in own.items()}


def _blend(own: Tensor, other: Tensor | None, alpha: float) -> Tensor:
    if other is None:
        return own
    return ((alpha * other).to(own) + (1 - alpha) * own).to(own)
