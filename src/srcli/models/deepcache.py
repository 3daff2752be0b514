"""The outermost layers of a UNet around what its deeper ones found at an earlier step (DeepCache, Ma et al. 2023).

Deep features change slowly from step to step; the outermost encoder and decoder blocks keep up with the canvas.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from diffusers import UNet2DConditionModel
from torch import Tensor, nn


def count_outer_residuals(unet: UNet2DConditionModel) -> int:
    """ControlNet residuals that the outermost layers take: the first ones."""
    return len(unet.up_blocks[-1].resnets)


@contextmanager
def capture_deep_features(unet: UNet2DConditionModel) -> Iterator[list[Tensor]]:
    """What enters the last decoder block while the whole network runs within."""
    found: list[Tensor] = []

    def see(block: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        found.append(given["hidden_states"])

    hook = unet.up_blocks[-1].register_forward_pre_hook(see, with_kwargs=True)
    try:
        yield found
    finally:
        hook.remove()


def run_outer_layers(
    unet: UNet2DConditionModel, x: Tensor, t: Tensor, text: Tensor, deep: Tensor, residuals: Sequence[Tensor]
) -> Tensor:
    """The prediction with deep features and ControlNet residuals from elsewhere; hooks stay in force."""
    first, last = unet.down_blocks[0], unet.up_blocks[-1]
    step = {"temb": unet.time_embedding(unet.get_time_embed(sample=x, timestep=t))}
    skips = [unet.conv_in(x)]
    skips += first(hidden_states=skips[0], **step, **_texts(first, text))[1]
    led = [skip + residual for skip, residual in zip(skips, residuals[: count_outer_residuals(unet)], strict=False)]
    decoded = last(hidden_states=deep, res_hidden_states_tuple=tuple(led), **step, **_texts(last, text))
    out: Tensor = unet.conv_out(unet.conv_act(unet.conv_norm_out(decoded)))
    return out


def _texts(block: nn.Module, text: Tensor) -> dict[str, Tensor]:
    return {"encoder_hidden_states": text} if getattr(block, "has_cross_attention", False) else {}
