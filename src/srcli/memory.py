"""Process memory: recognize that it ran out, and give it back."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from contextlib import suppress

MMAP_THRESHOLD = -3  # glibc's number for it
LARGE_BLOCK = 4 << 20
GIB = 1 << 30

OUT_OF_MEMORY_WORDS = (  # of errors that have no class of their own
    "out of memory",
    "alloc_failed",
    "bad_alloc",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "failed to allocate",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Libraries say it in many ways; accelerate's list of them misses some."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in text for word in OUT_OF_MEMORY_WORDS)


def measure_memory() -> int | None:
    """Bytes of memory in this machine; None where the system does not say."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def tune_allocator() -> None:
    """Have every large piece of memory come from the system, in large pages, and go back when it is free.

    Left to itself the C library keeps pieces of up to 32 MiB for later ones, of other sizes, that do not fit.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # both are read by torch when it first allocates
    if sys.platform == "linux" and "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:  # its older name
        os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")  # tiles of other sizes fit again
    with suppress(OSError, TypeError, AttributeError):  # no C library by this name, or one that cannot
        ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, LARGE_BLOCK)


def release_memory() -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is None:
        return
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
