"""A Hub with tiny repositories, and a store whose packaged lock names them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save

from srcli.weights.hub import Hub as Client
from srcli.weights.lock import Entry, File
from srcli.weights.overlay import format_lock
from srcli.weights.store import Store
from tests.hub.server import Hub, sha256

TENSORS = save({"weight": np.arange(5000, dtype=np.float32)})
CONFIG = json.dumps({"_class_name": "AutoencoderKL"}).encode()
BASE, ADAPTER = "owner/base", "owner/adapter"
FILES = {
    f"{BASE}/vae/config.json": CONFIG,
    f"{BASE}/vae/diffusion_pytorch_model.safetensors": TENSORS,
    f"{BASE}/vae/diffusion_pytorch_model.bin": b"a pickle",
    f"{BASE}/vae/diffusion_pytorch_model.fp16.safetensors": b"half",
    f"{BASE}/tokenizer/vocab.json": b"{}",
    f"{BASE}/README.md": b"hello",
    f"{ADAPTER}/run/unet/config.json": b"{}",
    f"{ADAPTER}/run/unet/diffusion_pytorch_model.safetensors": save({"weight": np.ones(9, np.float32)}),
}

MakeStore = Callable[..., Store]


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lift the suite's ban on the network."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def hub(tmp_path: Path, online: None) -> Iterator[Hub]:
    for path, content in FILES.items():
        file = tmp_path / "hub" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    with Hub(tmp_path / "hub") as server:
        yield server


def entries(hub: Hub) -> dict[str, Entry]:
    """A base that is locked in full, and an adapter whose hashes a first pull must learn."""
    base = [path.removeprefix(f"{BASE}/") for path in FILES if path.startswith(f"{BASE}/")]
    locked = {
        path: File(path, len(FILES[f"{BASE}/{path}"]), sha256(FILES[f"{BASE}/{path}"]))
        for path in base
        if not path.endswith((".md", ".bin", "fp16.safetensors"))
    }
    common = {"family": "sd15", "license": "mit"}
    revision = hub.head(BASE)
    return {
        "base": Entry(name="base", kind="base", repo=BASE, revision=revision, files=locked, **common),
        "adapter": Entry(
            name="adapter",
            kind="adapter",
            repo=ADAPTER,
            folder="run",
            include=("run/*",),
            needs=("base/vae",),
            **common,
        ),
    }


@pytest.fixture
def make_store(hub: Hub, tmp_path: Path) -> MakeStore:
    """Make a store over the current environment, as each run of the program would."""
    lock = tmp_path / "weights.lock"
    lock.write_text(format_lock(entries(hub)), encoding="utf-8")

    def make(**options: object) -> Store:
        given = {"packaged": lock, "hub": Client(hub.url, pause=0.001, tries=3)} | options
        return Store(**given)  # type: ignore[arg-type]

    return make
