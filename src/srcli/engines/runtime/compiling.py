"""When networks are compiled, and where that is kept."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable

from torch import nn
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from srcli.engines.runtime.device import Device
from srcli.engines.runtime.memory_budget import Placement
from srcli.engines.runtime.oom_fallback import MemorySavings
from srcli.models.patches.compiled import Compiled
from srcli.models.patches.install import install
from srcli.weights.places import find_places

log = logging.getLogger(__name__)

CACHE = "TORCHINDUCTOR_CACHE_DIR"


class DeferredCompile:
    """Compiles networks when a second picture begins. The first might be the only one, which would never pay for it;
    what the second pays for is kept for all runs that follow, so there is no reason to wait longer.
    """

    def __init__(self, nets: Iterable[nn.Module], device: Device, placement: Placement) -> None:
        self._nets, self._wanted, self._room, self._pictures = tuple(nets), device.compiled, placement, 0
        self._thrift: MemorySavings | None = None

    def begin(self, savings: MemorySavings) -> None:
        """A picture begins; with other thrift than before, it is the same one that is tried again."""
        again, self._thrift = self._thrift not in (None, savings), savings
        self._pictures += not again
        if again or not self._wanted or self._pictures != 2:
            return
        if self._room.weights_fp8:
            log.info("weights in 8 bits are not compiled: `compile` has no effect in so little memory")
            return
        _keep()
        log.info("compiling from here on: a tile's shape that is new takes minutes, once")
        install(self._nets, Compiled())


def _keep() -> None:
    """Have what is compiled kept in the user's cache; torch itself names a temporary folder when it is imported."""
    if os.environ.get(CACHE, default_cache_dir()) == default_cache_dir():
        os.environ[CACHE] = str(find_places().data / "compiled")
