"""The one call of the UNet; where PiSA-SR's two strengths differ, both of its predictions in one batch."""

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
    """How strongly PiSA-SR's pixel part and its semantic part count."""

    pixel: float = 1.0
    semantic: float = 1.0

    @classmethod
    def of_fidelity(cls, fidelity: float | None) -> Strengths:
        """1: the pixel part alone, closest to the input; 0.5: both as trained; 0: half as much semantics again."""
        if fidelity is None:
            return cls()
        return cls(1.0, 2 * (1 - fidelity) if fidelity >= 0.5 else 1.5 - fidelity)

    @property
    def terms(self) -> dict[float, float]:
        """Strength of the semantic change on top of the merged weights -> factor of that prediction.

        The weights have both parts merged in, so at 0 a call predicts with both, and at -1 with the pixel part alone.
        """
        terms = {0.0: self.semantic, -1.0: self.pixel - self.semantic}
        return {strength: factor for strength, factor in terms.items() if factor}


@dataclass(frozen=True)
class OneStepDenoiser:
    """The merged UNet under one text. `semantic` is PiSA-SR's semantic part once more, beside the weights."""

    unet: UNet2DConditionModel
    text: Tensor
    semantic: LowRank | None = None
    strengths: Strengths = Strengths()
    one_by_one: bool = False  # one prediction after the other, in half the memory
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
        """Predictions for the batch at each of these strengths, in a row; fp32."""
        given = x.to(self.unet.dtype).repeat(len(strengths), 1, 1, 1)
        with self._at(strengths, len(x)):
            step = t.to(x.device, non_blocking=True)
            found: Tensor = self.unet(given, step, self._text(len(given), strengths[0]), return_dict=False)[0]
        return found.float()

    def _at(self, strengths: Sequence[float], rows: int) -> AbstractContextManager[None]:
        if self.semantic is None or not any(strengths):
            return nullcontext()
        return self.semantic.at(torch.tensor(strengths).repeat_interleave(rows))

    def _text(self, rows: int, strength: float) -> Tensor:
        """The text as rows. The same tensor for the same weights: attention keeps its keys and values by identity."""
        if (rows, strength) not in self._texts:
            text = self.text.to(self.unet.device, self.unet.dtype)
            self._texts[rows, strength] = text.expand(rows, -1, -1).contiguous()
        return self._texts[rows, strength]
