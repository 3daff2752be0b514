"""Install patches in networks and remove them, always in the order that is fixed here."""

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
    LowRank,  # hooks on layers, part of the model itself, as are the next two
    PixelAware,
    Modulation,
    TextKvCache,
    RowAttention,  # replaces the remaining stock processors
    PackedLayers,  # replaces the forward of layers, so it must come before patches that wrap it
    SharedCfgPrefix,  # wraps the forward of the first layers
    Compiled,  # compiles blocks with all patches above; leaves out blocks with hooks inside
    DeepFeatures,  # installed and removed at each step, so it must be outermost: others would be reinstalled
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

    def revert(self) -> None:
        while self.undo:
            self.undo.pop()()


STACK = "_srcli_patches"
"""The attribute of a network with its installed patches. A list outside the network would keep it alive."""


def _list_installed(net: nn.Module) -> list[_Installed]:
    installed: list[_Installed] = net.__dict__.get(STACK, [])
    return installed


class PatchHandle:
    """Installed patches. They are removed by `remove()`, or at the end of a `with` block."""

    def __init__(self, installed: Iterable[_Installed]) -> None:
        self._installed = list(installed)

    def remove(self) -> None:
        for mine in self._installed:
            _rearrange(mine.net, [one for one in _list_installed(mine.net) if one is not mine])
        self._installed.clear()

    def __enter__(self) -> PatchHandle:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.remove()


def install(nets: Iterable[nn.Module], *patches: Patch) -> PatchHandle:
    """Install each patch in each network, at its place in `ORDER` among those installed earlier.

    The networks must already have their precision and device: diffusers' casting hooks must be below all patches.
    """
    installed = []
    for net in nets:
        new = [_Installed(patch, net) for patch in patches]
        _rearrange(net, sorted(_list_installed(net) + new, key=lambda one: one.position))
        installed += new
    return PatchHandle(installed)


def _rearrange(net: nn.Module, wanted: list[_Installed]) -> None:
    """Change the installed patches to `wanted`: all above the first difference are reverted and applied again."""
    now = _list_installed(net)
    pairs = enumerate(zip(now, wanted, strict=False))
    same = next((index for index, (one, other) in pairs if one is not other), min(len(now), len(wanted)))
    for one in reversed(now[same:]):
        one.revert()
    for one in wanted[same:]:
        one.apply()
    net.__dict__[STACK] = wanted
