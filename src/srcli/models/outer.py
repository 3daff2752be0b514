"""The outermost layers of a UNet around what its deeper ones found at an earlier step (DeepCache, Ma et al. 2023).

Deep features change slowly from step to step; the outermost encoder and decoder blocks keep up with the canvas.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffusers import UNet2DConditionModel
from torch import Tensor, nn


class Outer:
    """A UNet's outermost layers. Sees what enters the last decoder block whenever the whole network runs."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self.unet, self.deep = unet, Tensor()
        unet.up_blocks[-1].register_forward_pre_hook(self._see, with_kwargs=True)

    def __call__(self, x: Tensor, t: Tensor, text: Tensor, deep: Tensor, residuals: Sequence[Tensor]) -> Tensor:
        """The prediction with deep features and ControlNet residuals from elsewhere; hooks stay in force."""
        unet, first, last = self.unet, self.unet.down_blocks[0], self.unet.up_blocks[-1]
        step = {"temb": unet.time_embedding(unet.get_time_embed(sample=x, timestep=t))}
        skips = [unet.conv_in(x)]
        skips += first(hidden_states=skips[0], **step, **_texts(first, text))[1]
        led = [skip + residual for skip, residual in zip(skips, residuals[: len(last.resnets)], strict=False)]
        decoded = last(hidden_states=deep, res_hidden_states_tuple=tuple(led), **step, **_texts(last, text))
        out: Tensor = unet.conv_out(unet.conv_act(unet.conv_norm_out(decoded)))
        return out

    def _see(self, block: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        self.deep = given["hidden_states"]


def _texts(block: nn.Module, text: Tensor) -> dict[str, Tensor]:
    return {"encoder_hidden_states": text} if getattr(block, "has_cross_attention", False) else {}
