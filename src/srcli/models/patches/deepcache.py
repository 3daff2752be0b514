"""DeepCache (Ma et al. 2023): run only the outermost layers of a UNet, with the deep features of an earlier step.

Deep features change slowly from step to step, while the outermost encoder and decoder blocks follow the latents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from srcli.models.patches.changes import Undo


def count_outer_residuals(unet: UNet2DConditionModel) -> int:
    """How many of the ControlNet's residuals, from the first, the outermost layers use."""
    return len(unet.up_blocks[-1].resnets)


class DeepFeatures:
    """Captures the input of the last decoder block whenever the whole UNet runs."""

    def __init__(self) -> None:
        self.captured: list[Tensor] = []

    def patch_layers(self, net: nn.Module) -> Iterator[Undo]:
        """Add a hook to a UNet's last decoder block."""
        blocks: Any = net.up_blocks
        yield blocks[-1].register_forward_pre_hook(self._capture, with_kwargs=True).remove

    def _capture(self, _block: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.captured.append(kwargs["hidden_states"])


def run_outer_layers(
    unet: UNet2DConditionModel, x: Tensor, t: Tensor, text: Tensor, deep: Tensor, residuals: Sequence[Tensor]
) -> Tensor:
    """The prediction from cached deep features and ControlNet residuals. The layers' hooks run as usual."""
    first, last = unet.down_blocks[0], unet.up_blocks[-1]
    step = {"temb": unet.time_embedding(unet.get_time_embed(sample=x, timestep=t))}
    skips = [unet.conv_in(x)]
    skips += first(hidden_states=skips[0], **step, **_texts(first, text))[1]
    outer = residuals[: count_outer_residuals(unet)]
    conditioned = tuple(skip + residual for skip, residual in zip(skips, outer, strict=False))
    decoded = last(hidden_states=deep, res_hidden_states_tuple=conditioned, **step, **_texts(last, text))
    out: Tensor = unet.conv_out(unet.conv_act(unet.conv_norm_out(decoded)))
    return out


def _texts(block: nn.Module, text: Tensor) -> dict[str, Tensor]:
    return {"encoder_hidden_states": text} if getattr(block, "has_cross_attention", False) else {}
