"""Working sizes: the size in which a latent model processes a picture."""

from __future__ import annotations

from srcli.engines.base import PixelSize

MAX_ASPECT = 16


def ensure_short_side(size: PixelSize, short: int) -> PixelSize:
    """The size, enlarged to at least `short` pixels on the short side with the same aspect."""
    if min(size) >= short:
        return size
    long = int(short * max(size) / min(size))
    # A narrow strip is not enlarged to megapixels only to reach `short`.
    if long > (most := max(max(size), MAX_ASPECT * short)):
        short, long = max(min(size), int(most * min(size) / max(size))), most
    return (long, short) if size[0] > size[1] else (short, long)
