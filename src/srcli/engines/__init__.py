"""Engines, found by name and imported only when one is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from srcli.engines.base import Engine, Tell
    from srcli.engines.device import Device
    from srcli.settings import DeviceChoice, ModelChoice


def load(choice: ModelChoice, device: DeviceChoice, tell: Tell) -> tuple[Device, Engine]:
    """Load the engine that `choice` names, on the device that `device` asks for."""
    from srcli.engines.device import pick
    from srcli.weights.hub import go_offline
    from srcli.weights.store import Store

    if choice.offline:
        go_offline()
    where = pick(device)
    module = import_module(f"srcli.engines.{choice.engine}")
    engine: Engine = module.load(choice, where, Store(offline=choice.offline, tell=tell), tell)
    return where, engine
