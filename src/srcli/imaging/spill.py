"""Arrays too large for memory, in unnamed temporary files that vanish with their last user."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from srcli.errors import MachineError

SPILL_BYTES = 1 << 30  # bytes; a smaller array stays in memory
LEAST_MAPPING = 1 << 20  # bytes; smaller arrays are not worth their own mapping
SPILL_FOLDER = Path("/var/tmp")  # /tmp may itself be memory


def allocate_array(shape: tuple[int, ...], dtype: DTypeLike, large: int = SPILL_BYTES) -> NDArray[Any]:
    """An uninitialized array, in memory or, from `large` bytes, in a file."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return np.empty(shape, dtype) if size < max(1, large) else allocate_in_file(shape, dtype)


def allocate_in_file(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An array in a file. Its disk space is allocated now, since a later write without space would kill the process."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    folder = os.environ.get("TMPDIR") or (str(SPILL_FOLDER) if SPILL_FOLDER.is_dir() else None)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
            return np.frombuffer(mmap.mmap(file.fileno(), size), dtype).reshape(shape)
    except OSError as error:
        text = f"a result of {size >> 20} MiB does not fit in {folder or tempfile.gettempdir()} ({error.strerror})"
        raise no_room(text) from error


def no_room(text: str) -> MachineError:
    """The error for a temporary file that does not fit on its disk."""
    return MachineError(f"{text}: free some space, or set TMPDIR to another folder")


class _Memory(mmap.mmap):
    """Anonymous memory."""


def allocate_reclaimable(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An array whose beginning can be released while the rest is in use, if the system supports it."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < LEAST_MAPPING or not hasattr(mmap, "MAP_ANONYMOUS"):
        return np.empty(shape, dtype)
    return np.frombuffer(_Memory(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), dtype).reshape(shape)


def reclaim_start(array: NDArray[Any], size: int) -> None:
    """Release the first bytes of such an array, which are not read again."""
    mapping = _mapping(array)
    if isinstance(mapping, _Memory) and hasattr(mmap, "MADV_DONTNEED") and size >= mmap.PAGESIZE:
        mapping.madvise(mmap.MADV_DONTNEED, 0, size // mmap.PAGESIZE * mmap.PAGESIZE)


def evict_pages(array: NDArray[Any]) -> None:
    """Remove the pages of a spilled array from memory; they stay in the file."""
    mapping = _mapping(array)
    if mapping is not None and not isinstance(mapping, _Memory) and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


def _mapping(array: NDArray[Any]) -> mmap.mmap | None:
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    return base if isinstance(base, mmap.mmap) else None
