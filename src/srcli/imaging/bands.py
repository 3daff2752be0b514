"""Split pictures into bands of rows, so that no whole picture is in memory in a wider type than its own."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]  # pixels of any number type: rows, columns, and channels where there are several


def split_rows(height: int, width: int, pixels: int = 1 << 20) -> list[slice]:
    """Slices of rows with about `pixels` pixels each."""
    rows = max(1, pixels // max(1, width))
    return [slice(top, min(top + rows, height)) for top in range(0, height, rows)]
