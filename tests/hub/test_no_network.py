"""Once pulled, opening a whole engine and running every command touches no network; the libraries below too."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from srcli.cli import app
from srcli.engines.load import load_engine
from srcli.settings import DeviceChoice, ModelChoice
from srcli.weights.store import Store
from tests.cli.conftest import QUICK
from tests.hub.server import Hub

TINY = Path(__file__).parents[1] / "golden" / "pasd" / "tiny"
SINGLE = TINY.parent / "personalized" / "ldm_checkpoint_fp16.safetensors"
KINDS = {"base": "base", "pasd": "adapter", "pasd_light": "adapter"}
COMMANDS = {
    "upscale": ("tiny-pasd", "--scale", "1.5"),
    "stylize": ("tiny-pasd",),
    "restore-old-photo": ("tiny-pasd",),
    "colorize": ("tiny-pasd-light",),
}

Srcli = Callable[..., str]


@pytest.fixture
def srcli(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Srcli:
    """Run the program, which must go well, with this Hub as its own; it serves a tiny PASD set."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    for name in KINDS:
        shutil.copytree(TINY / name, hub.folder / "tiny" / name)

    def run(*words: object) -> str:
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, (result.output, result.exception)
        return result.stdout

    return run


@pytest.fixture
def gone(srcli: Srcli, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The set is pulled, then the Hub goes, and whoever wants the network fails."""
    names = {name: f"tiny-{name.replace('_', '-')}" for name in KINDS}
    for name, kind in KINDS.items():
        srcli("models", "add", names[name], f"tiny/{name}", "--kind", kind)
    srcli("models", "pull", *names.values())
    hub.close()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was touched")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_pasd_opens_from_what_was_pulled_with_every_socket_refused(gone: None) -> None:
    assert Store().lock()["tiny-base"].family == "width32"
    choice = ModelChoice(engine="pasd", adapter="tiny-pasd", base="tiny-base")
    _, engine = load_engine(choice, DeviceChoice(device="cpu", dtype="float32"))
    weights = {name for name in engine.provenance() if name.startswith("tiny-")}
    assert "tiny-base/vae/diffusion_pytorch_model.safetensors" in weights
    assert Store().has("tiny-pasd")


def test_a_single_file_takes_what_it_lacks_from_a_base_that_is_here(gone: None) -> None:
    choice = ModelChoice(engine="pasd", adapter="tiny-pasd", base=str(SINGLE))
    _, engine = load_engine(choice, DeviceChoice(device="cpu", dtype="float32"))
    assert any(name.startswith(SINGLE.name) for name in engine.provenance())


def test_all_four_commands_run_from_what_was_pulled_with_every_socket_refused(
    gone: None, srcli: Srcli, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 56, 3), np.uint8)).save(photo)
    for command, (adapter, *options) in COMMANDS.items():
        words = ("--engine", "pasd", "--base-model", "tiny-base", "--adapter", adapter, "--caption", "none", *options)
        (line,) = srcli(command, photo, *words, *QUICK).splitlines()
        with Image.open(line) as made:
            assert made.size == ((84, 60) if command == "upscale" else (56, 40))
            assert adapter in made.info["srcli"]
