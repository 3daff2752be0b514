"""Whether a file is srcli's own work, from its headers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from srcli.imaging import xmp
from srcli.imaging.detect_format import HEAD, detect_format
from srcli.imaging.metadata import read_xmp
from srcli.imaging.printable import printable
from srcli.imaging.read import pillow_limits
from srcli.imaging.safe_open import open_regular


def read_provenance(path: Path) -> dict[str, Any] | None:
    """How srcli made this file; None for files of others, and for what cannot be opened."""
    try:
        with open_regular(path, printable(path)) as file:
            kind = detect_format(file.read(HEAD), printable(path))
            file.seek(0)
            with pillow_limits(None, False), Image.open(file, formats=[kind]) as picture:
                return xmp.parse_provenance(read_xmp(picture))
    except Exception:  # whatever a strange file makes a decoder do, it is not ours
        return None
