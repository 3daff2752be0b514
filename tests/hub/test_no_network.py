"""Once pulled, opening a whole engine touches no network: the libraries below are held to it too."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from srcli import engines
from srcli.settings import DeviceChoice, ModelChoice
from srcli.weights import care
from srcli.weights.store import Store
from tests.hub.conftest import MakeStore
from tests.hub.server import Hub

TINY = Path(__file__).parents[1] / "golden" / "pasd" / "tiny"


def test_pasd_opens_from_what_was_pulled_with_every_socket_refused(
    make_store: MakeStore, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("base", "pasd"):
        shutil.copytree(TINY / name, hub.folder / "tiny" / name)
    store = make_store()
    for name, kind in (("base", "base"), ("pasd", "adapter")):
        store.pull(care.add(store, f"tiny-{name}", f"tiny/{name}", kind))
    assert store.lock()["tiny-base"].family == "width32"
    hub.close()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was touched")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("srcli.weights.store.packaged_lock", store.packaged.absolute)
    choice = ModelChoice(engine="pasd", adapter="tiny-pasd", base="tiny-base")
    _, engine = engines.load(choice, DeviceChoice(device="cpu", dtype="float32"), print)
    weights = {name for name in engine.provenance() if name.startswith("tiny-")}
    assert "tiny-base/vae/diffusion_pytorch_model.safetensors" in weights
    assert Store().has("tiny-pasd")
