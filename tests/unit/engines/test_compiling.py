"""When networks are compiled, for whom it is refused, and what float32 means beside it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.unit.engines.test_pasd import PICTURE, chosen, job, pipeline
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from srcli.engines.budget import AMPLE
from srcli.engines.compiling import CACHE, Later
from srcli.engines.device import Device, pick, tf32
from srcli.errors import InputError
from srcli.memory import MemorySavings, OomFallback
from srcli.settings import DeviceChoice

COMPILED = Device(torch.device("cpu"), torch.float32, compiled=True)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(CACHE, default_cache_dir())  # as torch itself sets it
    return tmp_path / "srcli" / "compiled"


def begun(device: Device, pictures: int) -> list[str]:
    """What is said while so many begin. The network has no part that the compiler would be loaded for."""
    said: list[str] = []
    later = Later([torch.nn.Identity()], device, AMPLE)
    for _ in range(pictures):
        later.begin(MemorySavings(), said.append)
    return said


def test_networks_are_compiled_from_the_second_picture_on(cache):
    assert begun(COMPILED, 1) == []
    assert os.environ[CACHE] != str(cache)
    assert len(begun(COMPILED, 3)) == 1
    assert os.environ[CACHE] == str(cache)


def test_a_picture_that_is_tried_again_with_less_memory_is_no_second_one(cache):
    later, said, short = Later([torch.nn.Identity()], COMPILED, AMPLE), [], [MemoryError(), MemoryError()]

    def work(savings: MemorySavings) -> None:
        later.begin(savings, said.append)
        if short:
            raise short.pop()

    ladder = OomFallback(lambda text: None)
    ladder.run(work)
    assert not said
    ladder.run(work)
    assert len(said) == 1


def test_nothing_is_compiled_unasked(cache):
    assert begun(replace(COMPILED, compiled=False), 3) == []


def test_a_folder_that_the_user_set_is_kept(cache, monkeypatch):
    monkeypatch.setenv(CACHE, "elsewhere")
    begun(COMPILED, 2)
    assert os.environ[CACHE] == "elsewhere"


def test_an_engine_counts_its_pictures(cache):
    line, said = pipeline(chosen(), COMPILED), []
    in_eight_bits = replace(line.engine, room=replace(AMPLE, eighth=True))
    line = replace(line, engine=in_eight_bits, tell=said.append)
    first = line.run(PICTURE, job())
    assert not said
    second = line.run(PICTURE, job())
    assert said == ["weights in 8 bits are not compiled: --compile has no effect in so little memory"]
    assert (first.pixels == second.pixels).all()


def test_on_a_cpu_it_is_refused():
    with pytest.raises(InputError, match="--compile only loses time on a CPU: leave it out"):
        pick(DeviceChoice(device="cpu", compiled=True))


@pytest.mark.parametrize(("dtype", "allowed"), [("float32", False), ("bfloat16", True)])
def test_float32_is_exact_where_it_is_asked_for(dtype, allowed):
    before, threads = torch.backends.cudnn.allow_tf32, torch.get_num_threads()
    try:
        pick(DeviceChoice(device="cpu", dtype=dtype))
        assert torch.backends.cuda.matmul.allow_tf32 is torch.backends.cudnn.allow_tf32 is allowed
    finally:
        tf32(before)
        torch.set_num_threads(threads)
