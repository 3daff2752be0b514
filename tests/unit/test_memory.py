"""The ladder, with an allocator that fails as told."""

from __future__ import annotations

import gc
import os
import platform
import subprocess
import sys
import weakref
from dataclasses import replace

import pytest
import torch

from srcli.engines.runtime.oom_fallback import SAVING_STEPS, MemorySavings, OomFallback
from srcli.errors import MachineError, PictureError, TooLarge
from srcli.memory import is_out_of_memory, tune_allocator


class Allocator:
    """Fails until so many steps have been taken, and remembers what it was asked for."""

    def __init__(self, needs: int, error: Exception) -> None:
        self.needs, self.error, self.asked = needs, error, []

    def __call__(self, savings: MemorySavings) -> MemorySavings:
        self.asked.append(savings)
        if len(set(self.asked)) <= self.needs:
            raise self.error
        return savings


@pytest.mark.parametrize("steps", range(len(SAVING_STEPS) + 1))
def test_each_step_is_taken_when_the_ones_before_did_not_do(steps: int, said: list[str]) -> None:
    oom_fallback, work = OomFallback(), Allocator(steps, torch.OutOfMemoryError("CUDA out of memory."))
    reached = oom_fallback.run(work)
    assert len(work.asked) == steps + 1
    assert [line.removeprefix("out of memory: going on with ") for line in said] == [
        words for _, words, _ in SAVING_STEPS[:steps]
    ]
    assert reached == replace(MemorySavings(), **{name: value for name, _, value in SAVING_STEPS[:steps]})


def test_steps_that_mean_nothing_to_an_engine_are_not_taken(said: list[str]) -> None:
    oom_fallback = OomFallback(supported={"tile"})
    assert oom_fallback.run(Allocator(1, MemoryError())) == MemorySavings(tile=0.75)
    with pytest.raises(TooLarge):
        OomFallback(supported=()).run(Allocator(1, MemoryError()))
    assert len(said) == 1


def test_steps_add_up() -> None:
    last = MemorySavings()
    for name, _, value in SAVING_STEPS:
        assert getattr(last, name) != value
        last = replace(last, **{name: value})
    assert last == MemorySavings(share=0.0, split_guidance=True, band=0.25, tile=0.75, offload=True)
    assert [savings.batch(16) for savings in (MemorySavings(), MemorySavings(share=0.5), last)] == [16, 8, 1]


def test_the_level_is_remembered(said: list[str]) -> None:
    oom_fallback = OomFallback()
    oom_fallback.run(Allocator(2, MemoryError()))
    second = Allocator(0, MemoryError())
    assert oom_fallback.run(second) == MemorySavings(share=0.0)
    assert len(second.asked) == 1
    assert len(said) == 2


def test_the_bottom_is_an_error_of_the_machine() -> None:
    oom_fallback = OomFallback()
    with pytest.raises(MachineError, match="does not fit into memory") as caught:
        oom_fallback.run(Allocator(99, RuntimeError("CUDA error: out of memory\nmore")))
    assert caught.value.exit_code == 5
    assert isinstance(caught.value, TooLarge)
    assert "\n" not in str(caught.value)


def test_other_errors_are_not_retried() -> None:
    work = Allocator(1, PictureError("no picture"))
    with pytest.raises(PictureError):
        OomFallback().run(work)
    assert len(work.asked) == 1


def test_what_a_failed_try_held_is_gone_before_the_next() -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def work(savings: MemorySavings) -> bool:
        if held:
            return held[0]() is None
        large = torch.zeros(10)
        held.append(weakref.ref(large))
        raise torch.OutOfMemoryError("no")

    gc.disable()
    try:
        assert OomFallback().run(work)
    finally:
        gc.enable()


def test_a_real_allocation_that_fails_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: out of memory",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "std::bad_alloc",
        "MPS backend out of memory (MPS allocated: 1 GB)",
    ],
)
def test_ways_to_say_it(text: str) -> None:
    assert is_out_of_memory(RuntimeError(text))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(ValueError(text))


HEAP = """
import resource
import sys
from pathlib import Path
from srcli.memory import reuse_freed_memory, tune_allocator

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20

def give_back(piece):
    bytearray(31 << 20)  # when this goes, the C library takes all up to its size from one heap
    held = [bytearray(piece) for _ in range(10)]
    last, before = bytearray(100_000), resident()  # and what is last in a heap keeps it from shrinking
    del held
    return before - resident()

if "tuned" in sys.argv:
    tune_allocator()
if "reused" in sys.argv:
    before = resident()
    with reuse_freed_memory():
        while_reused = give_back(9 << 20)
    print(while_reused, resident() - before)
else:
    print(give_back(9 << 20))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_large_pieces_that_are_free_leave_the_process():
    # Two processes: what one run leaves free in the heap, the next would fill before it asks for more.
    (kept,), (left,) = _run_heap(), _run_heap("tuned")
    assert kept < 10
    assert left > 80


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_freed_pieces_are_reused_while_steps_repeat_and_leave_the_process_after_them():
    given_back, kept_afterwards = _run_heap("tuned", "reused")
    assert given_back < 10
    assert kept_afterwards < 10


def _run_heap(*how: str) -> list[int]:
    done = subprocess.run([sys.executable, "-c", HEAP, *how], capture_output=True, text=True, check=True)
    return [int(count) for count in done.stdout.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no segments that grow")
@pytest.mark.parametrize(("older", "set_by_us"), [(None, "expandable_segments:True"), ("backend:native", None)])
def test_segments_grow_on_a_gpu_unless_the_user_set_something(monkeypatch, older, set_by_us):
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "to be undone")
    monkeypatch.delenv("PYTORCH_ALLOC_CONF")
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)
    if older:
        monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", older)
    tune_allocator()
    assert os.environ.get("PYTORCH_ALLOC_CONF") == set_by_us
