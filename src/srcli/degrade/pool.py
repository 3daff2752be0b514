"""A pool of training pairs that mixes batches, since all samples of a batch share a degradation (Real-ESRGAN)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from srcli.errors import InputError


@dataclass
class PairPool:
    """Holds `size` samples. While it fills, batches are returned unchanged; then each is exchanged for random samples.

    Only for batches degraded as a whole: samples that draw for themselves are mixed already.
    """

    size: int
    held: list[tuple[Tensor, ...]] = field(default_factory=list)

    def exchange(self, batch: tuple[Tensor, ...], permutation: Tensor | None = None) -> tuple[Tensor, ...]:
        """`batch`: tensors of the same length, such as targets and inputs. `permutation`: of the whole pool."""
        count = len(batch[0])
        if self.size % count:
            raise InputError(f"a pool of {self.size} pairs does not divide into batches of {count}")
        if len(self.held) < self.size:
            self.held += zip(*(part.clone().unbind() for part in batch), strict=True)
            return batch
        order = torch.randperm(self.size) if permutation is None else permutation
        self.held = [self.held[index] for index in order.tolist()]
        out = tuple(torch.stack(part) for part in zip(*self.held[:count], strict=True))
        self.held[:count] = zip(*(part.clone().unbind() for part in batch), strict=True)
        return out
