"""Engines, found by name and imported only when one is asked for."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from srcli.engines.base import Engine, Tell
    from srcli.engines.device import Device
    from srcli.engines.preview import Preview
    from srcli.settings import DeviceChoice, ModelChoice
    from srcli.weights.store import Store


def load(choice: ModelChoice, device: DeviceChoice, tell: Tell) -> tuple[Device, Engine]:
    """Load the engine that `choice` names, on the device that `device` asks for."""
    where, store = _ground(choice, device, tell)
    module = import_module(f"srcli.engines.{choice.engine}")
    engine: Engine = module.load(choice, where, store, tell)
    return where, engine


def load_preview(file: Path, choice: ModelChoice, device: DeviceChoice, tell: Tell) -> Preview:
    """Load what keeps this file showing a picture while an engine of this choice samples it."""
    from srcli.engines.preview import Preview

    return Preview.open(file, *_ground(choice, device, tell), tell)


def _ground(choice: ModelChoice, device: DeviceChoice, tell: Tell) -> tuple[Device, Store]:
    """Where to compute, and where weights come from."""
    from srcli.engines.device import pick
    from srcli.weights.hub import go_offline
    from srcli.weights.store import Store

    if choice.offline:
        go_offline()
    return pick(device), Store(offline=choice.offline, tell=tell)
