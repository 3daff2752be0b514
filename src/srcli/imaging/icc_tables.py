"""Convert RGB to XYZ by table-based ICC profiles in floating point, because Pillow's LittleCMS has 8 bits only.

Supported are `lut8Type` and `lut16Type` (mft1, mft2) and `lutAToBType` (mAB), from RGB to Lab or XYZ.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

UnitColors = NDArray[Any]  # (N, 3) of float32, 0 to 1
CurveStep = Callable[[UnitColors], UnitColors]

WHITE = np.array([0.9642, 1.0, 0.8249], np.float32)  # D50
_XYZ_TOP = 1 + 32767 / 32768
_LARGEST_GRID = 129
TAGS = (b"A2B1", b"A2B0")  # relative colorimetric first


@dataclass(frozen=True)
class Tables:
    """The steps from RGB to the profile's connection space, and from there to XYZ."""

    steps: list[CurveStep] = field(default_factory=list)

    def convert(self, levels: UnitColors) -> UnitColors:
        """Convert to XYZ under D50, with LittleCMS's black point compensation."""
        for step in self.steps:
            levels = step(levels)
        return levels


def read_tables(data: bytes, tags: dict[bytes, bytes], curve: Callable[[bytes], Any]) -> Tables | None:
    """The tables of an RGB profile; None if it has none. `curve` reads a tone curve as a table of 16-bit values."""
    tag = next((tags[name] for name in TAGS if name in tags), None)
    space = data[20:24]
    if tag is None or data[16:20] != b"RGB " or space not in (b"Lab ", b"XYZ "):
        return None
    if tag[8:10] != b"\x03\x03":
        raise ValueError("is broken")
    kind = tag[:4]
    steps = _read_mab(tag, curve) if kind == b"mAB " else _read_mft(tag)
    if space == b"Lab ":
        top = 65280 if kind == b"mft2" else 65535  # encoding of L* = 100, which differs in version 2
        steps.append(lambda levels: _lab_to_xyz(levels * np.float32(65535 / top)))
    else:
        steps.append(lambda levels: levels * np.float32(_XYZ_TOP))
    return Tables([*steps, _black_to_zero(Tables(steps))])


def _black_to_zero(way: Tables) -> CurveStep:
    """Black point compensation: map the darkest colour to black."""
    darkest = float(np.clip(way.convert(np.zeros((1, 3), np.float32))[0, 1], 0, 0.184))  # L* at most 50
    return lambda xyz: (xyz - darkest * WHITE) / np.float32(1 - darkest)


def _read_mft(tag: bytes) -> list[CurveStep]:
    grid, wide = tag[10], tag[:4] == b"mft2"
    if tag[:4] not in (b"mft1", b"mft2") or grid < 2:
        raise ValueError("is broken")
    before, after = struct.unpack_from(">2H", tag, 48) if wide else (256, 256)
    counts = (3 * before, 3 * grid**3, 3 * after)
    numbers = np.frombuffer(tag, ">u2" if wide else "u1", sum(counts), 52 if wide else 48) / (65535 if wide else 255)
    first, table, last = np.split(numbers.astype(np.float32), np.cumsum(counts)[:2])
    return [_curves(first.reshape(3, -1)), _table(table.reshape(grid, grid, grid, 3)), _curves(last.reshape(3, -1))]


def _read_mab(tag: bytes, curve: Callable[[bytes], Any]) -> list[CurveStep]:
    """The A curves, table, M curves, matrix and B curves, as far as present."""
    b, matrix, m, table, a = struct.unpack_from(">5L", tag, 12)
    steps: list[CurveStep] = []
    if a and table:
        grid, wide = tuple(tag[table : table + 3]), tag[table + 16] == 2
        if min(grid) < 2 or max(grid) > _LARGEST_GRID:
            raise ValueError("is broken")
        count = 3 * grid[0] * grid[1] * grid[2]
        numbers = np.frombuffer(tag, ">u2" if wide else "u1", count, table + 20) / (65535 if wide else 255)
        steps += [_curves(_read_three_curves(tag, a, curve)), _table(numbers.astype(np.float32).reshape(*grid, 3))]
    if m and matrix:
        values = np.array(struct.unpack_from(">12i", tag, matrix), np.float32) / 65536
        steps.append(_curves(_read_three_curves(tag, m, curve)))
        steps.append(lambda levels: levels @ values[:9].reshape(3, 3).T + values[9:])
    return [*steps, _curves(_read_three_curves(tag, b, curve))]


def _read_three_curves(tag: bytes, at: int, curve: Callable[[bytes], Any]) -> NDArray[np.float32]:
    """Three consecutive curves, each aligned to four bytes."""
    curves = []
    for _ in range(3):
        curves.append(curve(tag[at:]))
        if tag[at : at + 4] == b"para":
            size = 12 + 4 * (1, 3, 4, 5, 7)[struct.unpack_from(">H", tag, at + 8)[0]]
        else:
            size = 12 + 2 * struct.unpack_from(">L", tag, at + 8)[0]
        at += size + -size % 4
    return np.stack(curves)


def _curves(tables: NDArray[np.float32]) -> CurveStep:
    points = np.linspace(0, 1, tables.shape[1])

    def apply(levels: UnitColors) -> UnitColors:
        channels = [np.interp(levels[:, channel], points, tables[channel]) for channel in range(3)]
        return np.stack(channels, -1).astype(np.float32)

    return apply


def _table(grid: NDArray[np.float32]) -> CurveStep:
    """Interpolate trilinearly in a grid."""
    tops = np.array(grid.shape[:3]) - 1

    def apply(levels: UnitColors) -> UnitColors:
        place = np.clip(levels, 0, 1) * tops.astype(np.float32)
        low = np.minimum(place.astype(np.int32), tops - 1)
        share = place - low
        out = np.zeros_like(levels)
        for corner in itertools.product((0, 1), repeat=3):
            weight = np.prod(np.where(corner, share, 1 - share), axis=1, keepdims=True)
            out += weight * grid[tuple((low + corner).T)]
        return out

    return apply


def _lab_to_xyz(levels: UnitColors) -> UnitColors:
    """Convert Lab, encoded in 0..1 for L* in 0..100 and a*, b* in -128..127."""
    light, a, b = levels[:, 0] * 100, levels[:, 1] * 255 - 128, levels[:, 2] * 255 - 128
    y = (light + 16) / 116
    root = np.stack([y + a / 500, y, y - b / 200], -1)
    cubic = np.where(root > 6 / 29, root**3, (root - 4 / 29) * 3 * (6 / 29) ** 2)
    return np.asarray(cubic * WHITE, np.float32)
