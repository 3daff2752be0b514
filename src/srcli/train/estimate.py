"""What a training step takes, counted on networks without memory behind their weights: nothing is computed."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from srcli.train.systems.base import Phase

T = TypeVar("T")
GRADIENT_BYTES, STATE_BYTES = 4, 12  # bytes of a trained parameter: its gradient; itself and Adam's two moments


@dataclass(frozen=True, slots=True)
class StepEstimate:
    """FLOP of all phases, bytes that the forward pass keeps for the backward one, and trained parameters."""

    flop: float
    kept: int
    trained: int

    def memory(self, frozen: int) -> int:
        """The peak: gradients come while what was kept for them goes."""
        return frozen + STATE_BYTES * self.trained + max(self.kept, GRADIENT_BYTES * self.trained)


def estimate_step(phases: Sequence[Phase], inputs: Any) -> StepEstimate:
    """For one batch, in float32. `inputs` are what a phase's module takes."""
    given = type(inputs)(*(_meta(part) for part in inputs))
    flop, kept = 0.0, 0
    for phase in phases:
        module = without_memory(phase.module)
        found = _SavedTensors(module)
        with FlopCounterMode(display=False) as counted:
            with torch.autograd.graph.saved_tensors_hooks(found.note, _same):
                loss = module(given)["loss"]
            loss.backward()
        module.close()
        flop += counted.get_total_flops()
        kept = max(kept, found.bytes)
    return StepEstimate(flop, kept, sum(p.numel() for phase in phases for p in phase.parameters))


class _SavedTensors:
    """Counts what autograd saves: each piece of memory once, and weights not at all."""

    def __init__(self, module: nn.Module) -> None:
        self.bytes = 0
        self._seen = {tensor.untyped_storage()._cdata for tensor in tensors_of(module)}
        self._held: list[Tensor] = []

    def note(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._seen:
            self._seen.add(storage._cdata)
            self._held.append(tensor)  # so that its address is not given to another one
            self.bytes += storage.nbytes()
        return tensor


def _same(tensor: Tensor) -> Tensor:
    return tensor


def without_memory(module: Any) -> Any:
    """A copy of a module, and of the frozen ones that it keeps, on the meta device."""
    memo = {}
    for tensor in tensors_of(module):
        empty = torch.empty_like(tensor, device="meta")
        parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if parameter else empty
    return copy.deepcopy(module, memo)


def tensors_of(module: nn.Module) -> Iterator[Tensor]:
    """Weights and buffers, also of modules that are kept in plain attributes."""
    inside = (value for value in vars(module).values() if isinstance(value, tuple))
    others = (each for value in inside for each in value if isinstance(each, nn.Module))
    for net in (module, *others):
        yield from net.parameters()
        yield from net.buffers()


def _meta(value: T) -> Any:
    return value.to("meta") if isinstance(value, Tensor) else value
