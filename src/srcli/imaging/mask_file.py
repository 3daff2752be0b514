"""The mask of detected damage, NAME_mask.png beside a result, which users can check, edit and pass as `--mask`."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from srcli.errors import unwritable_file
from srcli.files import hash_file, is_regular, name_beside, numbered_names, path_or_link_exists, replace_file
from srcli.imaging.inpaint import Marks
from srcli.imaging.picture import Picture
from srcli.imaging.printable import printable
from srcli.imaging.write import write_picture
from srcli.messages import name_flags
from srcli.settings import MASK_ENDING


def encode_mask(marks: Marks, provenance: Mapping[str, object]) -> bytes:
    """The bytes of the PNG, white where there is damage; deterministic."""
    facts = {"tool": provenance.get("tool"), "mask of": provenance.get("input_sha256")}
    buffer = io.BytesIO()
    pixels = np.broadcast_to(marks[:, :, None], (*marks.shape, 3))
    write_picture(Picture(pixels=pixels, grey=True), buffer, format="png", provenance=facts)
    return buffer.getvalue()


def write_mask(result: Path, content: bytes, known: str | None) -> Path:
    """Write the mask of a result; returns its path. Another file or an edited mask is not replaced: a number is added.

    `known`: the hash of the mask that an earlier run wrote for this result, and that may be replaced.
    """
    plain, own = name_beside(result, MASK_ENDING), (hashlib.sha256(content).hexdigest(), known)
    path = next(
        path
        for path in chain([plain], numbered_names(plain))
        if not path_or_link_exists(path) or (is_regular(path) and hash_file(path) in own)
    )
    try:
        with replace_file(path) as fresh:
            fresh.write_bytes(content)
    except OSError as error:
        raise unwritable_file(printable(path), error, "check the folder") from error
    return path


def mask_of_result(provenance: Mapping[str, Any] | None) -> str | None:
    """The hash of a result's mask, from the result's provenance."""
    repaired = (provenance or {}).get("repaired")
    damage = repaired.get("damage") if isinstance(repaired, Mapping) else None
    digest = damage.get("sha256") if isinstance(damage, Mapping) else None
    return digest if isinstance(digest, str) else None


def describe_found(facts: Mapping[str, Any], path: Path | None) -> str:
    """The message about detected damage."""
    if not facts["percent"]:
        return "no scratches were found"
    marked = f"{facts['percent']:.2g} % was taken for scratches"
    where = f", see {printable(path)}" if path else ""
    if facts["filled"]:
        return f"{marked} and filled{where}"
    remedy = name_flags(f"correct the mask and give it as `mask`, or raise `mask_limit` {facts['limit']:g}")
    return f"{marked}, too much to be filled unseen{where}: {remedy}"
