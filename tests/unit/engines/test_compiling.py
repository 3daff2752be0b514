"""When networks are compiled, for whom it is refused, and what float32 means beside it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.unit.engines.test_pasd import PICTURE, chosen, job, pipeline
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from srcli.engines.runtime.compiling import CACHE, DeferredCompile
from srcli.engines.runtime.device import Device, allow_tf32, choose_device, prepare_process
from srcli.engines.runtime.memory_budget import AMPLE
from srcli.engines.runtime.oom_fallback import MemorySavings, OomFallback
from srcli.errors import InputError
from srcli.settings import DeviceChoice

COMPILED = Device(torch.device("cpu"), torch.float32, compiled=True)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(CACHE, default_cache_dir())  # as torch itself sets it
    return tmp_path / "srcli" / "compiled"


def begin(device: Device, pictures: int) -> None:
    """So many begin. The network has no part that the compiler would be loaded for."""
    later = DeferredCompile([torch.nn.Identity()], device, AMPLE)
    for _ in range(pictures):
        later.begin(MemorySavings())


def test_networks_are_compiled_from_the_second_picture_on(cache, said):
    begin(COMPILED, 1)
    assert said == []
    assert os.environ[CACHE] != str(cache)
    begin(COMPILED, 3)
    assert len(said) == 1
    assert os.environ[CACHE] == str(cache)


def test_a_picture_that_is_tried_again_with_less_memory_is_no_second_one(cache, said):
    later, short = DeferredCompile([torch.nn.Identity()], COMPILED, AMPLE), [MemoryError(), MemoryError()]

    def work(savings: MemorySavings) -> None:
        later.begin(savings)
        if short:
            raise short.pop()

    oom_fallback = OomFallback()
    oom_fallback.run(work)
    assert not [text for text in said if "compiling" in text]
    oom_fallback.run(work)
    assert len([text for text in said if "compiling" in text]) == 1


def test_nothing_is_compiled_unasked(cache, said):
    begin(replace(COMPILED, compiled=False), 3)
    assert said == []


def test_a_folder_that_the_user_set_is_kept(cache, monkeypatch):
    monkeypatch.setenv(CACHE, "elsewhere")
    begin(COMPILED, 2)
    assert os.environ[CACHE] == "elsewhere"


def test_an_engine_counts_its_pictures(cache, said):
    line = pipeline(chosen(), COMPILED)
    in_eight_bits = replace(line.engine, placement=replace(AMPLE, weights_fp8=True))
    line = replace(line, engine=in_eight_bits)
    first = line.run(PICTURE, job())
    assert not said
    second = line.run(PICTURE, job())
    assert said == ["weights in 8 bits are not compiled: `compile` has no effect in so little memory"]
    assert (first.pixels == second.pixels).all()


def test_on_a_cpu_it_is_refused():
    with pytest.raises(InputError, match="`compile` only loses time on a CPU: leave it out"):
        choose_device(DeviceChoice(device="cpu", compiled=True))


@pytest.mark.parametrize(("dtype", "allowed"), [("float32", False), ("bfloat16", True)])
def test_float32_is_exact_where_it_is_asked_for(dtype, allowed):
    before, threads = torch.backends.cudnn.allow_tf32, torch.get_num_threads()
    try:
        prepare_process(choose_device(DeviceChoice(device="cpu", dtype=dtype)))
        assert torch.backends.cuda.matmul.allow_tf32 is torch.backends.cudnn.allow_tf32 is allowed
    finally:
        allow_tf32(before)
        torch.set_num_threads(threads)
