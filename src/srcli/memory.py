"""Process memory: recognize that it ran out, and return it to the system."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # glibc's numbers for them
LARGE_BLOCK, STEP_BLOCK = 4 << 20, 32 << 20  # from which size blocks come from the system: in general, while sampling
FREE_TOP = 1 << 17  # what glibc keeps free at the top of its heap by default
GIB = 1 << 30

OUT_OF_MEMORY_WORDS = (  # in messages of errors that have no class of their own
    "out of memory",
    "alloc_failed",
    "bad_alloc",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "failed to allocate",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out. Libraries report it in many ways; accelerate's list misses some."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in text for word in OUT_OF_MEMORY_WORDS)


def measure_memory() -> int | None:
    """Bytes of memory in this machine; None if the system does not tell."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def tune_allocator() -> None:
    """Allocate large blocks directly from the system, in large pages, so that freeing a block returns its memory.

    By default the C library keeps freed blocks of up to 32 MiB, into which later blocks of other sizes do not fit.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # both are read by torch when it first allocates
    if sys.platform == "linux" and "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:  # its older name
        os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")  # so that tiles of other sizes fit
    _malloc.tuned = True
    _set_malloc({MMAP_THRESHOLD: LARGE_BLOCK})


@contextmanager
def reuse_freed_memory() -> Iterator[None]:
    """Keep freed blocks for later ones while steps repeat the same work, and return them to the system at the end.

    Otherwise every step has all its pages zeroed by the system. Does nothing without `tune_allocator`: the allocator is
    then another program's to set.
    """
    if not _malloc.tuned:
        yield
        return
    _set_malloc({MMAP_THRESHOLD: STEP_BLOCK, TRIM_THRESHOLD: GIB})
    try:
        yield
    finally:
        _set_malloc({MMAP_THRESHOLD: LARGE_BLOCK, TRIM_THRESHOLD: FREE_TOP})
        trim_heap()


def trim_heap() -> None:
    """Return to the system what is free in the C library's heap, between blocks in use too."""
    _call_libc("malloc_trim", 0)


@dataclass
class _Malloc:
    tuned: bool = False


_malloc = _Malloc()


def _set_malloc(options: Mapping[int, int]) -> None:
    for option, value in options.items():
        _call_libc("mallopt", option, value)


def _call_libc(name: str, *numbers: int) -> None:
    with suppress(OSError, TypeError, AttributeError):  # no C library by this name, or one without the function
        getattr(ctypes.CDLL(None), name)(*numbers)


def release_memory() -> None:
    """Free unreachable objects, and the memory that torch keeps for later tensors."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is None:
        return
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
