"""The parts that networks repeat, compiled one by one; what lies between them stays as it is.

Whole blocks would be cut into pieces wherever a text is remembered or a picture attended to. A part with a hook inside
is left out: the compiler uses its code for all parts of a kind, and does not look whether their hooks are the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from srcli.memory import is_out_of_memory
from srcli.models.spade import Spade
from srcli.models.time_encoder import TimeResidualBlock

PARTS = (BasicTransformerBlock, ResnetBlock2D, Spade, TimeResidualBlock)
log = logging.getLogger(__name__)

FORMS = 64  # of one kind: widths times shapes of tiles and batches; further ones are not compiled
CompilerBackend = str | Callable[..., Any]


def find_compilable(nets: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """What is worth compiling and can be."""
    for net in nets:
        for layer in net.modules():
            if isinstance(layer, PARTS) and not any(_hooked(inner) for inner in layer.modules() if inner is not layer):
                yield layer


def _hooked(layer: nn.Module) -> bool:
    return bool(layer._forward_hooks or layer._forward_pre_hooks)


class Compiled:
    """Parts of networks, each compiled when it is first called. What fails in that is said once; all go on plain."""

    def __init__(self, nets: Iterable[nn.Module], backend: CompilerBackend = "inductor") -> None:
        torch._dynamo.config.recompile_limit = FORMS  # in this thread, which has to be the one that computes
        for name in ("torch._dynamo", "torch._inductor"):  # what matters of what they say is raised, or is no failure
            logging.getLogger(name).setLevel(logging.ERROR)
        self.failed = False
        for part in find_compilable(nets):
            part.forward = self._or_plain(part.forward, backend)

    def _or_plain(self, plain: Callable[..., Any], backend: CompilerBackend) -> Callable[..., Any]:
        quick = torch.compile(plain, dynamic=False, backend=backend)

        def run(*args: Any, **kwargs: Any) -> Any:
            if self.failed:
                return plain(*args, **kwargs)
            try:
                return quick(*args, **kwargs)
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                self._give_up(error)
            return plain(*args, **kwargs)

        return run

    def _give_up(self, error: Exception) -> None:
        self.failed = True
        reason = " ".join(str(error).split())[:200]
        log.warning(f"compiling failed, so it goes on without ({type(error).__name__}: {reason})")
