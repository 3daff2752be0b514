"""What a run of a one-step model takes: the cost model, its share of PASD's, and when `auto` takes it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from tests.golden.cases import HERE
from torch.utils.flop_counter import FlopCounterMode

from srcli.engines import choose as choosing
from srcli.engines.choose import choose_engine
from srcli.engines.forecast import forecast_run
from srcli.engines.onestep.denoiser import OneStepDenoiser
from srcli.engines.onestep.forecast import count_onestep_flop
from srcli.engines.runtime.device import Device
from srcli.files import hash_file
from srcli.models.stock import build_stock
from srcli.settings import DeviceChoice, ModelChoice, Prompt, Sampling, TargetSize
from srcli.tasks import RESTORE, UPSCALE, Job
from srcli.weights.lock import Entry, File
from srcli.weights.overlay import write_entry
from srcli.weights.places import find_places

ONESTEP = HERE / "onestep"
CPU = Device(torch.device("cpu"), torch.float32)
HERE_ON = DeviceChoice(device="cpu")


@pytest.mark.parametrize("side", [64, 96])
def test_the_cost_model_is_what_the_full_network_computes(side: int) -> None:
    config = json.loads((ONESTEP / "manifest" / "base.configs.json").read_text())["unet"]
    unet = build_stock(UNet2DConditionModel, config)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counted:
        x, t = torch.empty(1, 4, side, side), torch.tensor(1)
        OneStepDenoiser(unet, torch.empty(1, 77, 1024))(x, t, x)
    assert count_onestep_flop(side * side) == pytest.approx(counted.get_total_flops(), rel=0.005)


def work(engine: str, variant: str | None = None, **sampling: object) -> float:
    """FLOP of one picture of 512x512."""
    job = Job(task=UPSCALE, size=TargetSize(scale=1), sampling=Sampling(process_size=512, **sampling))
    return forecast_run(ModelChoice(engine=engine, variant=variant), job, (512, 512), CPU).flop


def test_one_step_is_a_twelfth_of_pasds_work_or_less() -> None:
    assert work("onestep", "pisa") < work("pasd") / 12
    assert work("onestep", "osediff") == work("onestep", "pisa") == pytest.approx(4435e9, rel=0.02)
    assert work("onestep", "pisa", fidelity=0.2) == pytest.approx(5240e9, rel=0.02)


def test_a_draft_is_a_half_or_a_quarter_of_it() -> None:
    assert work("onestep", "osediff", quality="draft") == pytest.approx(2062e9, rel=0.02)
    assert work("onestep", "pisa", quality="draft") == pytest.approx(1068e9, rel=0.02)


# --- which engine runs

Add = Callable[..., None]


@pytest.fixture
def add(tmp_path: Path) -> Add:
    """Let weights of these names be here."""

    def added(*names: str, file: str = "weights.safetensors") -> None:
        for name in names:
            folder = tmp_path / name
            folder.mkdir()
            (folder / file).write_bytes(name.encode())
            known = {file: File(file, len(name), hash_file(folder / file))}
            local = str(folder)
            write_entry(
                find_places().overlay,
                Entry(name=name, kind="base", family="any", license="-", files=known, local=local),
            )

    return added


@pytest.fixture
def with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "_has_accelerator", lambda device: True)


def engine(sampling: Sampling | None = None, prompt: Prompt | None = None, **wish: object) -> str:
    task = wish.pop("task", UPSCALE)
    return choose_engine(task, ModelChoice(**wish), HERE_ON, sampling or Sampling(), (prompt or Prompt(),)).engine


def test_auto_takes_one_step_where_its_weights_are_here(add: Add, with_gpu: None, said: list[str]) -> None:
    add("pasd", "sd15")
    assert engine() == "pasd" and said == []
    add("pisa-sr", "sd21-base")
    assert engine() == "onestep"
    assert len(said) == 1 and "the quickest that is here" in said[0]


def test_auto_leaves_to_pasd_what_only_pasd_can_do(add: Add, with_gpu: None) -> None:
    add("pasd", "sd15", "osediff", "sd21-base")
    assert choose_engine(UPSCALE, ModelChoice(), HERE_ON).variant == "osediff"
    for sampling in (Sampling(quality="best"), Sampling(steps=30), Sampling(noise_level=500), Sampling(fidelity=0.2)):
        assert engine(sampling) == "pasd", sampling
    assert engine(prompt=Prompt(negative="people")) == "pasd"
    assert engine(variant="rrdb") == "pasd"
    assert engine(blend=0.5) == "pasd"
    assert engine(Sampling(quality="draft")) == "onestep"


def test_auto_opens_no_pickle_that_was_not_allowed(add: Add, with_gpu: None) -> None:
    add("pasd", "sd15", "sd21-base")
    add("pisa-sr", file="pisa_sr.pkl")
    assert engine() == "pasd"


def test_nobody_is_told_to_get_optional_weights(add: Add, with_gpu: None, said: list[str]) -> None:
    assert engine() == "builtin"
    assert re.search(r"PASD makes a better picture: srcli models pull pasd \(about \d+\.\d GB\)$", said[0]), said


def test_old_photographs_get_it_when_it_is_named(add: Add, with_gpu: None) -> None:
    add("pasd", "sd15", "realistic", "pisa-sr", "sd21-base")
    assert engine(task=RESTORE) == "pasd"
    assert engine(task=RESTORE, engine="onestep") == "onestep"


def test_without_an_accelerator_nothing_that_needs_one_is_advertised(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    monkeypatch.setattr(choosing, "_has_accelerator", lambda device: False)
    assert engine() == "builtin" and said == []
