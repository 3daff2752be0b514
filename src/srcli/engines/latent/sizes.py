"""Working sizes: how large the picture is that a latent model is shown."""

from __future__ import annotations

from srcli.engines.base import PixelSize

SLIMMEST = 16


def ensure_short_side(size: PixelSize, short: int) -> PixelSize:
    """At least `short` pixels on the short side, in the same shape."""
    if min(size) >= short:
        return size
    long = int(short * max(size) / min(size))
    # A strip has no short side worth filling: it is not blown up to a hint of megapixels for its sake.
    if long > (most := max(max(size), SLIMMEST * short)):
        short, long = max(min(size), int(most * min(size) / max(size))), most
    return (long, short) if size[0] > size[1] else (short, long)
