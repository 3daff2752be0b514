"""Convert between the colour profile of a file and sRGB.

8-bit pictures are converted by LittleCMS. Pillow's binding has no 16 bits, so 16-bit pictures are converted here: by
the curves and the matrix of a profile (cameras, editing spaces), or from its tables (scanners).
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
    """A usable colour profile."""

    data: bytes
    space: str  # Pillow's mode: RGB, L or CMYK
    same: bool = False  # its colours are those of sRGB
    one_way: bool = False  # colours can be converted from this space, but not to it


@cache
def srgb_profile() -> bytes:
    """An sRGB profile with a fixed creation date, so that its bytes are always the same."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data[24:36] = struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
    return bytes(data)


def check_profile(data: bytes, space: str, depth: int) -> IccProfile:
    """Check the profile of a picture in `space`. Raises ValueError with the reason if it cannot be used."""
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
    return IccProfile(data, space, same, not plain and space == "RGB" and (depth == 16 or not _is_invertible(data)))


def _is_srgb(data: bytes, space: str) -> bool:
    """Whether the profile maps a grid of colours (grey: a ramp) like sRGB, to within one level."""
    steps = np.linspace(0, 255, 18).astype(np.uint8)
    if space == "L":
        grid, expected = steps[None], np.repeat(steps[None, :, None], 3, 2)
    else:
        grid = expected = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 18, 3)
    transform = build_transform(data, srgb_profile(), space, "RGB")
    converted = np.asarray(ImageCms.applyTransform(Image.fromarray(grid), transform))
    return bool(np.abs(converted.astype(np.int16) - expected).max() <= 1)


def build_transform(source: bytes, target: bytes, mode: str, out: str) -> ImageCms.ImageCmsTransform:
    """LittleCMS's transform from one profile to another."""
    before, after = (ImageCms.ImageCmsProfile(io.BytesIO(data)) for data in (source, target))
    return ImageCms.buildTransform(before, after, mode, out, _INTENT, _FLAGS)


def convert_to_srgb(pixels: Array, profile: IccProfile) -> Array:
    """Convert pixels in the profile's space, (H, W) or (H, W, C), to sRGB (H, W, 3)."""
    out = np.empty((*pixels.shape[:2], 3), pixels.dtype)
    if pixels.dtype == np.uint8:
        transform = build_transform(profile.data, srgb_profile(), profile.space, "RGB")
        return _convert_bands(pixels, out, lambda band: _apply(band, transform, profile.space))
    encode = _invert_curve(_require_shaper(srgb_profile())[0][0])
    if profile.one_way:
        return _convert_bands(pixels, out, lambda band: _encode(_through_tables(band, profile.data), [encode] * 3))
    curves, matrix = _require_shaper(profile.data)
    mix = matrix if matrix is None else np.linalg.inv(_srgb_matrix()) @ matrix
    return _convert_bands(pixels, out, lambda band: _encode(_mix(_linearize(band, curves), mix), [encode] * 3))


def convert_from_srgb(pixels: Array, profile: IccProfile) -> Array:
    """Convert sRGB (H, W, 3) to the profile's space."""
    channels = {"RGB": (3,), "L": (), "CMYK": (4,)}[profile.space]
    out = np.empty((*pixels.shape[:2], *channels), pixels.dtype)
    if pixels.dtype == np.uint8:
        transform = build_transform(srgb_profile(), profile.data, "RGB", profile.space)
        return _convert_bands(pixels, out, lambda band: _apply(band, transform, "RGB"))
    curves, matrix = _require_shaper(profile.data)
    inverse = [_invert_curve(curve) for curve in curves]
    decode = _require_shaper(srgb_profile())[0]
    if matrix is None:
        weights = _srgb_matrix()[1:2]
        return _convert_bands(
            pixels, out, lambda band: _encode(_mix(_linearize(band, decode), weights), inverse)[..., 0]
        )
    mix = np.linalg.inv(matrix) @ _srgb_matrix()
    return _convert_bands(pixels, out, lambda band: _encode(_mix(_linearize(band, decode), mix), inverse))


def _has_tables(data: bytes) -> bool:
    """Whether 16-bit pictures can be converted by the profile's tables. Raises ValueError if they are broken."""
    try:
        return read_tables(data, _tags(data), _curve) is not None
    except (ValueError, OverflowError) as error:
        raise ValueError("is broken") from error


def _is_invertible(data: bytes) -> bool:
    """Whether colours can also be converted to this RGB space; scanners' profiles may lack that direction."""
    try:
        build_transform(srgb_profile(), data, "RGB", "RGB")
    except (ImageCms.PyCMSError, OSError):
        return False
    return True


def gamut_residual(pixels: Array, working: Array, profile: IccProfile) -> NDArray[np.uint16] | None:
    """The source minus its round trip through sRGB, offset by MIDDLE; None if the difference is negligible.

    `restore_gamut` adds it to a result, which restores colours outside of sRGB.
    """
    if profile.space != "RGB":
        return None
    step = pixels.dtype.itemsize  # 16-bit differences are halved, to fit
    back = convert_from_srgb(working, profile)
    out = np.empty(pixels.shape, np.uint16)
    for rows in split_rows(*pixels.shape[:2]):
        out[rows] = (pixels[rows].astype(np.int32) - back[rows]) // step + MIDDLE
    small = 2 if step == 1 else 256
    return out if out.max() > MIDDLE + small or out.min() < MIDDLE - small else None


def restore_gamut(own: Array, working: Array, gamut: NDArray[np.uint16]) -> None:
    """Add the gamut residual, in the result's size, to the result `own`, near the limits of sRGB."""
    top, step = np.iinfo(own.dtype).max, own.dtype.itemsize
    edge, slope = top // 24, top // 16
    red, green, blue = (working[..., c] for c in range(3))
    lowest, highest = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
    inner = np.minimum(lowest, top - highest)
    near = inner < edge + slope
    share = np.clip((edge + slope - inner[near].astype(np.float32)) / slope, 0, 1)[:, None]
    change = (gamut[near].astype(np.int32) - MIDDLE) * step
    own[near] = np.clip(own[near] + np.rint(change * share).astype(np.int32), 0, top)


def _convert_bands(pixels: Array, out: Array, transform: Any) -> Array:
    for rows in split_rows(*pixels.shape[:2]):
        out[rows] = transform(pixels[rows])
    return out


def _apply(band: Array, transform: ImageCms.ImageCmsTransform, mode: str) -> Array:
    height, width = band.shape[:2]
    picture = Image.frombuffer(mode, (width, height), np.ascontiguousarray(band), "raw", mode, 0, 1)
    return np.asarray(ImageCms.applyTransform(picture, transform))


def _linearize(band: Array, curves: tuple[Curve, ...]) -> NDArray[np.float32]:
    if band.ndim == 2:
        return curves[0][band][..., None]
    return np.stack([curve[band[..., c]] for c, curve in enumerate(curves)], -1)


def _through_tables(band: Array, data: bytes) -> NDArray[np.float32]:
    """Convert 16-bit integers to linear sRGB by the tables of their profile."""
    tables = read_tables(data, _tags(data), _curve)
    if tables is None:
        raise ValueError("the profile has no tables")
    xyz = tables.convert(band.reshape(-1, 3) / np.float32(65535))
    to_linear: NDArray[np.float64] = np.linalg.inv(_srgb_matrix()).astype(np.float64)
    return _mix(xyz, to_linear).reshape(band.shape)


def _mix(linear: NDArray[np.float32], mix: NDArray[np.float64] | None) -> NDArray[np.float32]:
    if mix is None:
        return np.repeat(linear, 3, -1)
    return np.clip(linear @ mix.T.astype(np.float32), 0, 1)


def _encode(linear: NDArray[np.float32], tables: list[NDArray[np.uint16]]) -> NDArray[np.uint16]:
    # The tables are indexed by the square root, which gives more entries to dark colours.
    index = (np.sqrt(linear) * (len(tables[0]) - 1) + 0.5).astype(np.int32)
    return np.stack([table[index[..., c % index.shape[-1]]] for c, table in enumerate(tables)], -1)


def _invert_curve(curve: Curve) -> NDArray[np.uint16]:
    linear = np.linspace(0, 1, 1 << 18) ** 2
    return np.rint(np.interp(linear, np.maximum.accumulate(curve), np.arange(65536))).astype(np.uint16)


def _srgb_matrix() -> NDArray[np.float64]:
    matrix = _require_shaper(srgb_profile())[1]
    if matrix is None:
        raise ValueError("LittleCMS made an sRGB profile without a matrix")
    return matrix


def _require_shaper(data: bytes) -> tuple[tuple[Curve, ...], NDArray[np.float64] | None]:
    shaper = read_shaper(data)
    if shaper is None:
        raise ValueError("the profile has no curves and matrix")
    return shaper


@cache
def read_shaper(data: bytes) -> tuple[tuple[Curve, ...], NDArray[np.float64] | None] | None:
    """Curves and matrix (to XYZ) of a profile, or only the curve of a grey one; None if it has none."""
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
    """A tone curve as a table of all 16-bit values."""
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
