"""FLOP and memory of a training step, counted on the meta device without computing anything."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from srcli.train.systems.base import Phase

GRADIENT_BYTES, STATE_BYTES = 4, 12  # per trained parameter: its gradient; its value and Adam's two moments


@dataclass(frozen=True, slots=True)
class StepEstimate:
    """FLOP of all phases, bytes that autograd keeps for the backward pass, and the number of trained parameters."""

    flop: float
    kept: int
    trained: int

    def memory(self, frozen: int) -> int:
        """Peak bytes. Gradients are allocated while what autograd kept is freed, so the larger of the two counts."""
        return frozen + STATE_BYTES * self.trained + max(self.kept, GRADIENT_BYTES * self.trained)


def estimate_step(phases: Sequence[Phase], inputs: Any) -> StepEstimate:
    """Estimate one batch in float32. `inputs`: the inputs of the phases' modules."""
    inputs = type(inputs)(*(part.to("meta") if isinstance(part, Tensor) else part for part in inputs))
    flop, kept = 0.0, 0
    for phase in phases:
        module = copy_to_meta(phase.module)
        saved = _SavedTensors(module)
        with FlopCounterMode(display=False) as counter:
            with torch.autograd.graph.saved_tensors_hooks(saved.note, lambda tensor: tensor):
                loss = module(inputs)["loss"]
            loss.backward()
        module.close()
        flop += counter.get_total_flops()
        kept = max(kept, saved.bytes)
    return StepEstimate(flop, kept, sum(p.numel() for phase in phases for p in phase.parameters))


class _SavedTensors:
    """Counts the bytes that autograd saves: each storage once, without the weights."""

    def __init__(self, module: nn.Module) -> None:
        self.bytes = 0
        self._seen = {tensor.untyped_storage()._cdata for tensor in tensors_of(module)}
        self._held: list[Tensor] = []

    def note(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._seen:
            self._seen.add(storage._cdata)
            self._held.append(tensor)  # so that its address is not reused
            self.bytes += storage.nbytes()
        return tensor


def copy_to_meta(module: Any) -> Any:
    """A copy of a module and its frozen networks on the meta device."""
    memo = {}
    for tensor in tensors_of(module):
        empty = torch.empty_like(tensor, device="meta")
        parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if parameter else empty
    return copy.deepcopy(module, memo)


def tensors_of(module: nn.Module) -> Iterator[Tensor]:
    """Weights and buffers, including those of frozen networks in tuple attributes."""
    inside = (value for value in vars(module).values() if isinstance(value, tuple))
    others = (each for value in inside for each in value if isinstance(each, nn.Module))
    for net in (module, *others):
        yield from net.parameters()
        yield from net.buffers()
