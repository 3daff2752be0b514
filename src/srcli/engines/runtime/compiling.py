"""When networks are compiled, and where compiled code is cached."""

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
    """Compiles networks when the second picture begins. For a single picture compiling takes longer than it saves;
    from the second on it may pay off, and the cache serves later runs too.
    """

    def __init__(self, nets: Iterable[nn.Module], device: Device, placement: Placement) -> None:
        self._nets, self._enabled, self._placement, self._pictures = tuple(nets), device.compiled, placement, 0
        self._savings: MemorySavings | None = None

    def begin(self, savings: MemorySavings) -> None:
        """Count a picture. Other savings than before mean a retry of the same picture after running out of memory."""
        retry, self._savings = self._savings not in (None, savings), savings
        self._pictures += not retry
        if retry or not self._enabled or self._pictures != 2:
            return
        if self._placement.weights_fp8:
            log.info("weights in 8 bits are not compiled: `compile` has no effect in so little memory")
            return
        _set_cache_folder()
        log.info("compiling from here on: a tile's shape that is new takes minutes, once")
        install(self._nets, Compiled())


def _set_cache_folder() -> None:
    """Cache compiled code in the user's data folder; torch's default, set on import, is a temporary folder."""
    if os.environ.get(CACHE, default_cache_dir()) == default_cache_dir():
        os.environ[CACHE] = str(find_places().data / "compiled")
