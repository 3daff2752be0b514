"""Compiles the repeated blocks of networks one by one, and nothing between them.

Larger parts would have graph breaks at each text KV cache and hook. Blocks with hooks inside are left out: the
compiler shares code between blocks of the same class, and does not check that their hooks are the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from srcli.memory import is_out_of_memory
from srcli.models.patches.changes import Undo, has_hooks, replace_forward
from srcli.models.patches.spade import Spade
from srcli.models.time_encoder import TimeResidualBlock

COMPILED_BLOCKS = (BasicTransformerBlock, ResnetBlock2D, Spade, TimeResidualBlock)
log = logging.getLogger(__name__)

RECOMPILE_LIMIT = 64  # compiled variants of one kind of block: widths times shapes of tiles and batches
CompilerBackend = str | Callable[..., Any]


def find_compilable(net: nn.Module) -> Iterator[nn.Module]:
    """The blocks that are worth compiling and have no hooks inside."""
    for layer in net.modules():
        if isinstance(layer, COMPILED_BLOCKS):
            _, *inner = layer.modules()
            if not any(map(has_hooks, inner)):
                yield layer


class Compiled:
    """Compiles each block at its first call. After a failure, which is logged, all blocks run uncompiled."""

    def __init__(self, backend: CompilerBackend = "inductor") -> None:
        torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT  # per thread, so this must be the computing one
        for name in ("torch._dynamo", "torch._inductor"):  # real failures are raised, not logged
            logging.getLogger(name).setLevel(logging.ERROR)
        self.failed = False
        self._backend = backend

    def patch_layers(self, net: nn.Module) -> Iterator[Undo]:
        for block in list(find_compilable(net)):
            yield replace_forward(block, self._compile_forward(block.forward))

    def _compile_forward(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        compiled = torch.compile(plain, dynamic=False, backend=self._backend)

        def run(*args: Any, **kwargs: Any) -> Any:
            if self.failed:
                return plain(*args, **kwargs)
            try:
                return compiled(*args, **kwargs)
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                self._give_up(error)
            return plain(*args, **kwargs)

        return run

    def _give_up(self, error: Exception) -> None:
        self.failed = True
        reason = " ".join(str(error).split())[:200]
        log.warning(f"compiling failed, continuing without it ({type(error).__name__}: {reason})")
