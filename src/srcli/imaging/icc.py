"""Colour profiles: into sRGB for the model, and back to the source's own space for the file.

Eight bits go through LittleCMS. Pillow's binding stops there, so sixteen bits go through the profile's own curves and
matrix, which is what the profiles of cameras and editing spaces are made of, or out of its own tables, which is what
those of scanners are made of.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from srcli.imaging.bands import Array, split_rows
from srcli.imaging.icc_tables import read_tables

Curve = NDArray[np.float32]

SPACES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}
MIDDLE = 1 << 15
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION


@dataclass(frozen=True, slots=True)
class IccProfile:
    """A colour profile that works, and whether its colours are sRGB's anyhow."""

    data: bytes
    space: str  # Pillow's mode: RGB, L or CMYK
    same: bool = False
    one_way: bool = False  # colours can be converted from this space, and not into it


@cache
def srgb_profile() -> bytes:
    """An sRGB profile, the same bytes every time (LittleCMS writes the date of creation into it)."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data[24:36] = struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
    return bytes(data)


def check_profile(data: bytes, space: str, depth: int) -> IccProfile:
    """The profile of a picture stored in `space`. Raises ValueError with the reason if it cannot be used."""
    if len(data) < 128 or SPACES.get(data[16:20]) != space:
        raise ValueError("does not fit the picture's colour space")
    try:
        same = space != "CMYK" and _is_srgb(data, space)
        plain = same or read_shaper(data) is not None
        if depth == 16 and not plain and not _has_tables(data):
            raise ValueError("has tables that only 8-bit pictures can go through")
        if space == "CMYK":
            build_transform(srgb_profile(), data, "RGB", space)
    except (ImageCms.PyCMSError, OSError, struct.error, IndexError) as error:
        raise ValueError("is broken") from error
    return IccProfile(data, space, same, not plain and space == "RGB" and (depth == 16 or not _leads_back(data)))


def _is_srgb(data: bytes, space: str) -> bool:
    """Whether the profile leaves a grid of colours where sRGB has them (grey: a ramp)."""
    steps = np.linspace(0, 255, 18).astype(np.uint8)
    if space == "L":
        grid, want = steps[None], np.repeat(steps[None, :, None], 3, 2)
    else:
        grid = want = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 18, 3)
    got = np.asarray(
        ImageCms.applyTransform(Image.fromarray(grid), build_transform(data, srgb_profile(), space, "RGB"))
    )
    return bool(np.abs(got.astype(np.int16) - want).max() <= 1)


def build_transform(source: bytes, target: bytes, mode: str, out: str) -> ImageCms.ImageCmsTransform:
    """LittleCMS's way from one profile to another."""
    opened, back = (ImageCms.ImageCmsProfile(io.BytesIO(data)) for data in (source, target))
    return ImageCms.buildTransform(opened, back, mode, out, _INTENT, _FLAGS)


def convert_to_srgb(pixels: Array, given: IccProfile) -> Array:
    """Pixels of the source's space, (H, W) or (H, W, C), as (H, W, 3) sRGB."""
    out = np.empty((*pixels.shape[:2], 3), pixels.dtype)
    if pixels.dtype == np.uint8:
        way = build_transform(given.data, srgb_profile(), given.space, "RGB")
        return _by_bands(pixels, out, lambda band: _apply(band, way, given.space))
    encode = _inverse(_needed(srgb_profile())[0][0])
    if given.one_way:
        return _by_bands(pixels, out, lambda band: _encoded(_through_tables(band, given.data), [encode] * 3))
    curves, matrix = _needed(given.data)
    mix = matrix if matrix is None else np.linalg.inv(_srgb_matrix()) @ matrix
    return _by_bands(pixels, out, lambda band: _encoded(_mixed(_linear(band, curves), mix), [encode] * 3))


def convert_from_srgb(pixels: Array, given: IccProfile, out: Array | None = None) -> Array:
    """The way back: (H, W, 3) sRGB in the source's own space."""
    channels = {"RGB": (3,), "L": (), "CMYK": (4,)}[given.space]
    out = np.empty((*pixels.shape[:2], *channels), pixels.dtype) if out is None else out
    if pixels.dtype == np.uint8:
        way = build_transform(srgb_profile(), given.data, "RGB", given.space)
        return _by_bands(pixels, out, lambda band: _apply(band, way, "RGB"))
    curves, matrix = _needed(given.data)
    inverse = [_inverse(curve) for curve in curves]
    decode = _needed(srgb_profile())[0]
    if matrix is None:
        weights = _srgb_matrix()[1:2]
        return _by_bands(pixels, out, lambda band: _encoded(_mixed(_linear(band, decode), weights), inverse)[..., 0])
    mix = np.linalg.inv(matrix) @ _srgb_matrix()
    return _by_bands(pixels, out, lambda band: _encoded(_mixed(_linear(band, decode), mix), inverse))


def _has_tables(data: bytes) -> bool:
    """Whether 16 bits can be brought out of an RGB space by tables. Raises ValueError if they are broken."""
    try:
        return read_tables(data, _tags(data), _curve) is not None
    except (ValueError, OverflowError) as error:
        raise ValueError("is broken") from error


def _leads_back(data: bytes) -> bool:
    """Whether colours can be converted into an RGB space too: a scanner's profile may describe one way only."""
    try:
        build_transform(srgb_profile(), data, "RGB", "RGB")
    except (ImageCms.PyCMSError, OSError):
        return False
    return True


def gamut_residual(pixels: Array, working: Array, given: IccProfile) -> NDArray[np.uint16] | None:
    """What sRGB could not hold of the source: source minus what comes back, around `MIDDLE`. None if it is nothing.

    Put upon the result (`restored`), it gives the colours outside of sRGB back.
    """
    if given.space != "RGB":
        return None
    step = pixels.dtype.itemsize  # 16-bit differences are halved, to fit
    back = convert_from_srgb(working, given)
    out = np.empty(pixels.shape, np.uint16)
    for rows in split_rows(*pixels.shape[:2]):
        out[rows] = (pixels[rows].astype(np.int32) - back[rows]) // step + MIDDLE
    small = 2 if step == 1 else 256
    return out if out.max() > MIDDLE + small or out.min() < MIDDLE - small else None


def restore_gamut(own: Array, working: Array, gamut: NDArray[np.uint16]) -> None:
    """Put what sRGB lost (in the result's size) upon the result in its own space, where that is at sRGB's edge."""
    top, step = np.iinfo(own.dtype).max, own.dtype.itemsize
    edge, slope = top // 24, top // 16
    red, green, blue = (working[..., c] for c in range(3))
    lowest, highest = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
    inner = np.minimum(lowest, top - highest)
    near = inner < edge + slope
    share = np.clip((edge + slope - inner[near].astype(np.float32)) / slope, 0, 1)[:, None]
    change = (gamut[near].astype(np.int32) - MIDDLE) * step
    own[near] = np.clip(own[near] + np.rint(change * share).astype(np.int32), 0, top)


def _by_bands(pixels: Array, out: Array, way: Any) -> Array:
    for rows in split_rows(*pixels.shape[:2]):
        out[rows] = way(pixels[rows])
    return out


def _apply(band: Array, way: ImageCms.ImageCmsTransform, mode: str) -> Array:
    height, width = band.shape[:2]
    picture = Image.frombuffer(mode, (width, height), np.ascontiguousarray(band), "raw", mode, 0, 1)
    return np.asarray(ImageCms.applyTransform(picture, way))


def _linear(band: Array, curves: tuple[Curve, ...]) -> NDArray[np.float32]:
    if band.ndim == 2:
        return curves[0][band][..., None]
    return np.stack([curve[band[..., c]] for c, curve in enumerate(curves)], -1)


def _through_tables(band: Array, data: bytes) -> NDArray[np.float32]:
    """Convert 16-bit levels to linear sRGB by the tables of their profile."""
    tables = read_tables(data, _tags(data), _curve)
    if tables is None:
        raise ValueError("the profile has no tables")
    xyz = tables.convert(band.reshape(-1, 3) / np.float32(65535))
    to_linear: NDArray[np.float64] = np.linalg.inv(_srgb_matrix()).astype(np.float64)
    return _mixed(xyz, to_linear).reshape(band.shape)


def _mixed(linear: NDArray[np.float32], mix: NDArray[np.float64] | None) -> NDArray[np.float32]:
    if mix is None:
        return np.repeat(linear, 3, -1)
    return np.clip(linear @ mix.T.astype(np.float32), 0, 1)


def _encoded(linear: NDArray[np.float32], tables: list[NDArray[np.uint16]]) -> NDArray[np.uint16]:
    # The tables go by the square root, which spends their entries where the eye and the curves need them: in the darks.
    index = (np.sqrt(linear) * (len(tables[0]) - 1) + 0.5).astype(np.int32)
    return np.stack([table[index[..., c % index.shape[-1]]] for c, table in enumerate(tables)], -1)


def _inverse(curve: Curve, size: int = 1 << 18) -> NDArray[np.uint16]:
    linear = np.linspace(0, 1, size) ** 2
    return np.rint(np.interp(linear, np.maximum.accumulate(curve), np.arange(65536))).astype(np.uint16)


def _srgb_matrix() -> NDArray[np.float64]:
    matrix = _needed(srgb_profile())[1]
    if matrix is None:
        raise ValueError("LittleCMS made an sRGB profile without a matrix")
    return matrix


def _needed(data: bytes) -> tuple[tuple[Curve, ...], NDArray[np.float64] | None]:
    found = read_shaper(data)
    if found is None:
        raise ValueError("the profile has no curves and matrix")
    return found


@cache
def read_shaper(data: bytes) -> tuple[tuple[Curve, ...], NDArray[np.float64] | None] | None:
    """Curves and matrix (to XYZ) of a profile that has them; a grey one has a curve alone."""
    tags = _tags(data)
    if data[16:20] == b"GRAY" and b"kTRC" in tags:
        return (_curve(tags[b"kTRC"]),), None
    names = (b"rTRC", b"gTRC", b"bTRC", b"rXYZ", b"gXYZ", b"bXYZ")
    if data[16:20] != b"RGB " or any(name not in tags for name in names):
        return None
    columns = [np.array(struct.unpack(">3i", tags[name][8:20])) / 65536 for name in names[3:]]
    matrix = np.stack(columns, 1)
    if abs(np.linalg.det(matrix)) < 1e-6:
        raise ValueError("is broken")
    return tuple(_curve(tags[name]) for name in names[:3]), matrix


def _tags(data: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">L", data, 128)
    rows = (struct.unpack_from(">4sLL", data, 132 + 12 * i) for i in range(min(count, 200)))
    return {name: data[start : start + size] for name, start, size in rows}


def _curve(tag: bytes) -> Curve:
    """A tone curve as a table over all 16-bit levels."""
    x = np.linspace(0, 1, 65536)
    if tag[:4] == b"para":
        y = _parametric(x, *_parameters(tag))
    else:
        (count,) = struct.unpack_from(">L", tag, 8)
        points = np.frombuffer(tag, ">u2", count, 12)
        if count == 0:
            y = x
        elif count == 1:
            y = x ** (float(points[0]) / 256)
        else:
            y = np.interp(x, np.linspace(0, 1, count), points / 65535)
    return np.clip(y, 0, 1).astype(np.float32)


def _parameters(tag: bytes) -> tuple[int, list[float]]:
    (kind,) = struct.unpack_from(">H", tag, 8)
    counts = (1, 3, 4, 5, 7)
    return kind, [v / 65536 for v in struct.unpack_from(f">{counts[kind]}i", tag, 12)]


def _parametric(x: NDArray[np.float64], kind: int, p: list[float]) -> NDArray[np.float64]:
    """The five parametric curves of the ICC specification."""
    g = p[0]
    a, b = (p[1], p[2]) if kind else (1.0, 0.0)
    power = np.maximum(a * x + b, 0) ** g
    if kind == 0:
        return power
    if kind in (1, 2):
        c = p[3] if kind == 2 else 0.0
        return np.asarray(np.where(x >= -b / a, power + c, c))
    e, f = (p[5], p[6]) if kind == 4 else (0.0, 0.0)
    return np.asarray(np.where(x >= p[4], power + e, p[3] * x + f))
