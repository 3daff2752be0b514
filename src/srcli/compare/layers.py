"""The pictures of one page, ready to be shown, with their facts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from srcli.errors import PictureError
from srcli.files import name_beside
from srcli.imaging.bands import split_rows
from srcli.imaging.picture import Picture, Pixels8
from srcli.imaging.printable import printable
from srcli.imaging.provenance import read_provenance
from srcli.settings import MAP_ENDING

ReadPicture = Callable[[Path], Picture]
DIMMED = 0.6  # brightness of the result under a map
GUESSED = (255, 96, 0)  # the color of guesses
SAME_SHAPE = 0.02  # largest relative difference of two aspect ratios


@dataclass(frozen=True)
class Layer:
    """A picture as it is shown, and its facts by name."""

    name: str
    pixels: Pixels8
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        return int(self.pixels.shape[1]), int(self.pixels.shape[0])


def read_layer(path: Path, name: str, read: ReadPicture) -> Layer:
    """Read a picture as bytes in sRGB, with transparency on white."""
    picture = read(path)
    return Layer(name, to_opaque_bytes(picture), picture_facts(path, picture))


def read_map_of(path: Path, result: Layer, read: ReadPicture) -> Layer | None:
    """The map of uncertainty beside a result, laid over it; None if there is none for the same input."""
    map_path = name_beside(path, MAP_ENDING)
    provenance = read_provenance(map_path) or {}
    if not provenance.get("is_map") or provenance.get("input_sha256") != result.facts.get("input_sha256"):
        return None
    found = read(map_path)
    if found.pixels.shape != result.pixels.shape:
        return None
    return Layer(f"{result.name}: guessed", tint_guesses(result.pixels, np.asarray(found.pixels[..., 0], np.uint8)))


def tint_guesses(pixels: Pixels8, guessed: Pixels8) -> Pixels8:
    """The picture in dim grey, with guesses in orange: the stronger, the more likely."""
    out = np.empty_like(pixels)
    for rows in split_rows(*pixels.shape[:2]):
        grey = pixels[rows].mean(2, keepdims=True) * DIMMED
        share = guessed[rows, :, None].astype(np.float32) / 255
        out[rows] = np.rint(grey * (1 - share) + np.array(GUESSED, np.float32) * share)
    return out


def to_opaque_bytes(picture: Picture) -> Pixels8:
    top = np.iinfo(picture.pixels.dtype).max
    if picture.alpha is None and top == 255:
        return np.asarray(picture.pixels, np.uint8)
    out = np.empty(picture.pixels.shape, np.uint8)
    for rows in split_rows(picture.height, picture.width):
        part = picture.pixels[rows].astype(np.float32) / top
        if picture.alpha is not None:
            share = picture.alpha[rows].astype(np.float32)[..., None] / top
            part = part * share + (1 - share)
        out[rows] = np.rint(part * 255)
    return out


def picture_facts(path: Path, picture: Picture) -> dict[str, str]:
    """Facts of a file for the page."""
    facts = {
        "file": printable(path.name),
        "format": picture.format,
        "pixels": f"{picture.width} x {picture.height}",
        "bits a channel": str(picture.depth),
        "bytes": f"{path.stat().st_size:,}",
        "color profile": "own, shown in sRGB" if picture.profile else "none, taken as sRGB",
        "transparency": "shown on white" if picture.alpha is not None else "none",
        "SHA-256": picture.sha256,
    }
    return facts | flatten_facts(read_provenance(path) or {})


def flatten_facts(provenance: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested provenance as one line per fact."""
    facts: dict[str, str] = {}
    for key, value in provenance.items():
        if isinstance(value, Mapping):
            facts |= flatten_facts(value, f"{prefix}{key}: ")
        else:
            facts[f"{prefix}{key}"] = printable(str(value))
    return facts


def check_shapes(layers: list[Layer]) -> None:
    """Raises PictureError if the aspect ratios differ, so that the pictures cannot be laid over each other."""
    first = layers[0]
    for layer in layers[1:]:
        one, other = (width / height for width, height in (first.size, layer.size))
        if abs(one / other - 1) > SAME_SHAPE:
            sizes = " and ".join(f"{name.size[0]}x{name.size[1]}" for name in (first, layer))
            raise PictureError(f"{first.name} and {layer.name} differ in shape ({sizes}): compare one motif", "size")
