"""Previews show what the scheduler expects, cost the result not one bit, and never the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from PIL import Image
from tests.taesd_folder import write_taesd

from srcli.engines.latent import preview
from srcli.engines.latent.captions import tensor_to_pixels
from srcli.engines.latent.preview import Preview
from srcli.engines.runtime.device import Device
from srcli.errors import WeightsError
from srcli.imaging.picture import Picture
from srcli.imaging.provenance import read_provenance
from srcli.pipeline import EnginePipeline
from srcli.settings import DeviceChoice, ModelChoice, Prompt, Sampling, TargetSize
from srcli.tasks import UPSCALE, Job
from srcli.weights.store import Store

TINY = Path(__file__).parents[2] / "golden/pasd/tiny"
PASD = ModelChoice(engine="pasd", base=str(TINY / "base"), adapter=str(TINY / "pasd"), offline=True)
CPU = Device(torch.device("cpu"), torch.float32)
PICTURE = Picture(pixels=np.random.default_rng(3).integers(0, 256, (40, 56, 3), np.uint8))


class Witness(Preview):
    """Remembers what it was to show."""

    def show(self, latents: torch.Tensor) -> None:
        self.seen = [*getattr(self, "seen", []), latents]
        super().show(latents)


@pytest.fixture
def net(tmp_path: Path) -> AutoencoderTiny:
    return write_taesd(tmp_path / "taesd")


@pytest.fixture
def shown(net: AutoencoderTiny, tmp_path: Path) -> Witness:
    return Witness.open(tmp_path / "look.png", CPU, Store(offline=True))


def pixels(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file).convert("RGB")).astype(int)


def decoded(net: AutoencoderTiny, latents: torch.Tensor) -> np.ndarray:
    return tensor_to_pixels(net.decode(latents).sample / 2 + 0.5).astype(int)


@pytest.fixture(scope="module")
def line() -> EnginePipeline:
    return EnginePipeline.load(PASD, DeviceChoice(device="cpu", dtype="float32", threads=1))


@pytest.mark.parametrize("scheduler", ["unipc", "euler"])
def test_the_file_is_the_expected_latents_decoded_and_the_result_the_same(
    monkeypatch, line, shown, net, scheduler
) -> None:
    monkeypatch.setattr(preview, "PREVIEW_INTERVAL", 0.0)
    monkeypatch.setattr(preview, "PREVIEW_TIME_SHARE", float("inf"))
    sampling = Sampling(steps=2, process_size=32, scheduler=scheduler)
    job = Job(task=UPSCALE, size=TargetSize(scale=1), sampling=sampling, prompt=Prompt(caption="none"))
    plain = line.run(PICTURE, job).pixels
    assert np.array_equal(replace(line, preview=shown).run(PICTURE, job).pixels, plain)
    assert len(shown.seen) == 2
    assert np.abs(pixels(shown._file) - decoded(net, shown.seen[-1])).max() <= 1


def test_a_link_in_its_place_is_replaced_and_not_written_through(shown, tmp_path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    shown._file.symlink_to(tmp_path / "precious")
    shown.show(torch.randn(1, 4, 8, 8))
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert pixels(shown._file).shape == (64, 64, 3)
    assert not shown._file.is_symlink()


def test_the_first_is_shown_at_once_and_the_next_after_a_while(monkeypatch, shown, net) -> None:
    first, second = torch.randn(2, 1, 4, 8, 8)
    assert np.abs(decoded(net, first) - decoded(net, second)).max() > 50
    shown.show(first)
    shown.show(second)
    assert np.abs(pixels(shown._file) - decoded(net, first)).max() <= 1
    monkeypatch.setattr(shown, "_due", 0.0)
    shown.show(second)
    assert np.abs(pixels(shown._file) - decoded(net, second)).max() <= 1


def test_what_takes_long_to_decode_is_shown_less_often(monkeypatch, shown) -> None:
    now = iter([100.0, 102.0])
    monkeypatch.setattr(preview, "monotonic", lambda: next(now))
    shown._write(torch.zeros(1, 4, 2, 2))
    assert shown._due == 102 + 2 / preview.PREVIEW_TIME_SHARE


@pytest.mark.parametrize(("sides", "size"), [((24, 16), (192, 128)), ((128, 128), (512, 512)), ((1, 9000), (8, 48568))])
def test_a_preview_is_small_whatever_is_made(shown, sides, size) -> None:
    shown.show(torch.zeros(1, 4, *sides))
    assert pixels(shown._file).shape[:2] == size


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_a_preview_says_what_it_is(shown, suffix) -> None:
    shown._file = shown._file.with_suffix("." + suffix)
    shown.show(torch.zeros(1, 4, 2, 2))
    assert read_provenance(shown._file)["preview"]


def full(monkeypatch: pytest.MonkeyPatch, shown: Preview) -> None:
    """The device has no room left."""

    def decode(latents: torch.Tensor) -> None:
        raise torch.OutOfMemoryError("no room\nby far")

    monkeypatch.setattr(shown._net, "decode", decode)


def closed(monkeypatch: pytest.MonkeyPatch, shown: Preview) -> None:
    """A folder came to be where the file shall go."""
    shown._file.mkdir()


@pytest.mark.parametrize(("trouble", "why"), [(full, "no room"), (closed, "cannot be written")])
def test_trouble_is_said_once_and_ends_the_previews_alone(monkeypatch, shown, said, trouble, why) -> None:
    trouble(monkeypatch, shown)
    for _ in range(2):
        shown.show(torch.zeros(1, 4, 2, 2))
    assert len(said) == 1
    assert said[0].startswith("previews stop, the run goes on: ")
    assert why in said[0]
    assert "\n" not in said[0]


def test_without_its_weights_nothing_begins(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="srcli models pull taesd"):
        EnginePipeline.load(replace(PASD, base="./nowhere"), DeviceChoice(device="cpu"), tmp_path / "look.png")
