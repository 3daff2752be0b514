"""Arrays too large for memory: in a file without a name, which goes when the last user does."""

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

LARGE = 1 << 30  # bytes; a smaller array stays in memory
LASTING = Path("/var/tmp")  # /tmp may itself be memory


def space(shape: tuple[int, ...], dtype: DTypeLike, large: int = LARGE) -> NDArray[Any]:
    """An array of anything, in memory or in a file."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return np.empty(shape, dtype) if size < max(1, large) else spilled(shape, dtype)


def spilled(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An array in a file. Its room on the disk is taken at once: a write that finds none would end the process."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    folder = os.environ.get("TMPDIR") or (str(LASTING) if LASTING.is_dir() else None)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
            return np.frombuffer(mmap.mmap(file.fileno(), size), dtype).reshape(shape)
    except OSError as error:
        text = f"a result of {size >> 20} MiB finds no room in {folder or tempfile.gettempdir()} ({error.strerror})"
        raise MachineError(f"{text}: free some space, or set TMPDIR to another folder") from error


def forget(array: NDArray[Any]) -> None:
    """Let what has been read or written of a spilled array leave memory; it stays in the file."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
