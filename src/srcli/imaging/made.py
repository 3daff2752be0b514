"""Whether a file is srcli's own work, from its headers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from srcli.imaging import xmp
from srcli.imaging.metadata import packet
from srcli.imaging.names import shown
from srcli.imaging.opened import opened
from srcli.imaging.read import limits
from srcli.imaging.sniff import HEAD, sniff


def read_made(path: Path) -> dict[str, Any] | None:
    """How srcli made this file; None for files of others, and for what cannot be opened."""
    try:
        with opened(path, shown(path)) as file:
            kind = sniff(file.read(HEAD), shown(path))
            file.seek(0)
            with limits(None, False), Image.open(file, formats=[kind]) as picture:
                return xmp.made(packet(picture))
    except Exception:  # whatever a strange file makes a decoder do, it is not ours
        return None
