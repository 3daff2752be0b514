"""Read the provenance of a file that srcli wrote, from its headers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from srcli.imaging import xmp
from srcli.imaging.decode import SNIFFED_BYTES
from srcli.imaging.detect_format import detect_format
from srcli.imaging.metadata import read_xmp
from srcli.imaging.pillow_reader import open_with_pillow, pillow_limits
from srcli.imaging.printable import printable
from srcli.imaging.safe_open import open_regular


def read_provenance(path: Path) -> dict[str, Any] | None:
    """The provenance of a file; None for other files and unreadable ones."""
    try:
        with open_regular(path, printable(path)) as file:
            row = detect_format(file.read(SNIFFED_BYTES), printable(path))
            with pillow_limits(None, False), open_with_pillow(file, row) as picture:
                return xmp.parse_provenance(read_xmp(picture))
    except Exception:  # decoders may raise anything for other programs' files
        return None
