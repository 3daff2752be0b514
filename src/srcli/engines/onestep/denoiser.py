"""The denoiser of the one-step models. If PiSA-SR's two strengths differ, it batches two predictions."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from srcli.models.patches.low_rank import LowRank
from srcli.sampling.tiling import Tile


class Strengths(NamedTuple):
    """Weights of PiSA-SR's pixel-level and semantic LoRAs."""

    pixel: float = 1.0
    semantic: float = 1.0

    @classmethod
    def of_fidelity(cls, fidelity: float | None) -> Strengths:
        """fidelity 1: the pixel part alone, closest to the input; 0.5: both as trained; 0: 1.5 times the semantics."""
        if fidelity is None:
            return cls()
        return cls(1.0, 2 * (1 - fidelity) if fidelity >= 0.5 else 1.5 - fidelity)

    @property
    def terms(self) -> dict[float, float]:
        """Strength of the semantic LoRA on top of the merged weights -> factor of that prediction.

        Both parts are merged into the weights: at 0 a call predicts with both, at -1 with the pixel part alone.
        """
        terms = {0.0: self.semantic, -1.0: self.pixel - self.semantic}
        return {strength: factor for strength, factor in terms.items() if factor}


@dataclass(frozen=True)
class OneStepDenoiser:
    """The merged UNet with one prompt. `semantic`: PiSA-SR's semantic LoRA, also kept apart from the weights."""

    unet: UNet2DConditionModel
    text: Tensor
    semantic: LowRank | None = None
    strengths: Strengths = Strengths()
    one_by_one: bool = False  # the predictions in separate calls, in half the memory
    stride: int = 1
    _texts: dict[tuple[int, float], Tensor] = field(default_factory=dict)

    def __call__(self, x: Tensor, t: Tensor, hint: Tensor, where: Sequence[Tile] | None = None) -> Tensor:
        terms = self.strengths.terms
        if self.one_by_one:
            parts = [self._predict(x, t, [strength]) for strength in terms]
        else:
            parts = list(self._predict(x, t, list(terms)).chunk(len(terms)))
        return torch.stack([factor * part for factor, part in zip(terms.values(), parts, strict=True)]).sum(0)

    def _predict(self, x: Tensor, t: Tensor, strengths: Sequence[float]) -> Tensor:
        """Predictions for the batch at each of these strengths, stacked; fp32."""
        latents = x.to(self.unet.dtype).repeat(len(strengths), 1, 1, 1)
        with self._at(strengths, len(x)):
            step = t.to(x.device, non_blocking=True)
            text = self._text(len(latents), strengths[0])
            prediction: Tensor = self.unet(latents, step, text, return_dict=False)[0]
        return prediction.float()

    def _at(self, strengths: Sequence[float], rows: int) -> AbstractContextManager[None]:
        if self.semantic is None or not any(strengths):
            return nullcontext()
        return self.semantic.at(torch.tensor(strengths).repeat_interleave(rows))

    def _text(self, rows: int, strength: float) -> Tensor:
        """The text, one row per latent; the same tensor each time for the text KV cache."""
        if (rows, strength) not in self._texts:
            text = self.text.to(self.unet.device, self.unet.dtype)
            self._texts[rows, strength] = text.expand(rows, -1, -1).contiguous()
        return self._texts[rows, strength]
