"""Install patches in networks and remove them. Their order is fixed here, whatever order a caller names them in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType

from torch import nn

from srcli.models.patches.changes import Patch, Undo
from srcli.models.patches.compiled import Compiled
from srcli.models.patches.deepcache import DeepFeatures
from srcli.models.patches.low_rank import LowRank
from srcli.models.patches.paca import PixelAware
from srcli.models.patches.packed import PackedLayers
from srcli.models.patches.row_attention import RowAttention
from srcli.models.patches.shared_cfg_prefix import SharedCfgPrefix
from srcli.models.patches.spade import Modulation
from srcli.models.patches.text_kv_cache import TextKvCache

# From the innermost to the outermost.
ORDER: tuple[type, ...] = (
    LowRank,  # hooks on layers: they belong to the model itself, as do the next two
    PixelAware,
    Modulation,
    TextKvCache,
    RowAttention,  # takes the stock processors that are left
    PackedLayers,  # replaces a layer's own computation, so it must not come after what wraps it
    SharedCfgPrefix,  # wraps the computation of the first layers
    Compiled,  # compiles what all of the above made of a block; leaves out blocks with hooks inside
    DeepFeatures,  # comes and goes at each step, so nothing may have to be reinstalled above it
)


@dataclass(eq=False)
class _Installed:
    """One patch in one network."""

    patch: Patch
    net: nn.Module
    undo: list[Undo] = field(default_factory=list)

    @property
    def position(self) -> int:
        return next(index for index, kind in enumerate(ORDER) if isinstance(self.patch, kind))

    def apply(self) -> None:
        self.undo = list(self.patch.patch_layers(self.net))

    def take_back(self) -> None:
        while self.undo:
            self.undo.pop()()


STACK = "_srcli_patches"
"""A network's attribute that holds what is installed in it: kept anywhere else, it would keep the network alive."""


def _installed_in(net: nn.Module) -> list[_Installed]:
    found: list[_Installed] = net.__dict__.get(STACK, [])
    return found


class PatchHandle:
    """Installed patches, until `remove()`; as a context manager, until the block ends."""

    def __init__(self, installed: Iterable[_Installed]) -> None:
        self._installed = list(installed)

    def remove(self) -> None:
        """Restore the networks as they would be without these patches."""
        for mine in self._installed:
            _arrange(mine.net, [one for one in _installed_in(mine.net) if one is not mine])
        self._installed.clear()

    def __enter__(self) -> PatchHandle:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.remove()


def install(nets: Iterable[nn.Module], *patches: Patch) -> PatchHandle:
    """Install each patch in each network, in the order of `ORDER` also among those installed earlier.

    The networks have their precision and device by then: casting hooks of diffusers lie below all patches.
    """
    installed = []
    for net in nets:
        new = [_Installed(patch, net) for patch in patches]
        _arrange(net, sorted(_installed_in(net) + new, key=lambda one: one.position))
        installed += new
    return PatchHandle(installed)


def _arrange(net: nn.Module, wanted: list[_Installed]) -> None:
    """Change what is installed into `wanted`; what lies above the first difference is taken off and put on again."""
    now = _installed_in(net)
    pairs = enumerate(zip(now, wanted, strict=False))
    same = next((index for index, (one, other) in pairs if one is not other), min(len(now), len(wanted)))
    for one in reversed(now[same:]):
        one.take_back()
    for one in wanted[same:]:
        one.apply()
    net.__dict__[STACK] = wanted
