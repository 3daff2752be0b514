"""Load an engine and the preview writer for a choice of weights and a device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from srcli.engines.registry import find_engine
from srcli.settings import DeviceChoice, ModelChoice
from srcli.weights.store import Store

if TYPE_CHECKING:
    from srcli.engines.base import Engine
    from srcli.engines.latent.preview import Preview
    from srcli.engines.runtime.device import Device


def load_engine(choice: ModelChoice, device: DeviceChoice) -> tuple[Device, Engine]:
    """Load the engine that `choice` names, on the device that `device` asks for."""
    where, store = _device_and_store(choice, device)
    return where, find_engine(choice.engine).load(choice, where, store)


def load_preview(file: Path, choice: ModelChoice, device: DeviceChoice) -> Preview:
    """Load the decoder that writes previews to `file` while the chosen engine samples."""
    from srcli.engines.latent.preview import Preview

    return Preview.open(file, *_device_and_store(choice, device))


def _device_and_store(choice: ModelChoice, device: DeviceChoice) -> tuple[Device, Store]:
    from srcli.engines.runtime.device import choose_device

    return choose_device(device), Store(offline=choice.offline)
