"""Target sizes by use: a screen, a sheet of paper, a print with sides in mm, cm or inches."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from srcli.errors import InputError

SCREENS: Mapping[str, tuple[int, int]] = MappingProxyType({"4k": (3840, 2160), "8k": (7680, 4320)})
PAPERS: Mapping[str, tuple[float, float]] = MappingProxyType(  # millimetres
    {
        "a0": (841, 1189),
        "a1": (594, 841),
        "a2": (420, 594),
        "a3": (297, 420),
        "a4": (210, 297),
        "a5": (148, 210),
        "a6": (105, 148),
        "letter": (215.9, 279.4),
    }
)
MILLIMETRES: Mapping[str, float] = MappingProxyType({"mm": 1.0, "cm": 10.0, "in": 25.4})
INCH = 25.4
NUMBER = r"(\d+(?:\.\d+)?)"
LOWEST_DPI, HIGHEST_DPI = 10, 4800
MAX_SIDE = 1_000_000  # pixels; more is a typing error


@dataclass(frozen=True, slots=True)
class Box:
    """Pixels that a result must fit into, in either orientation; `dpi` is set for prints."""

    long: int
    short: int
    dpi: float | None = None

    def sides(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the box, in the orientation of a picture of this size."""
        return (self.long, self.short) if width >= height else (self.short, self.long)


def parse_box(text: str) -> Box:
    """Parse `to`: 4k, 8k, a4@300, 30x40cm@300dpi."""
    word = text.lower().replace(" ", "")
    if word in SCREENS:
        return Box(*SCREENS[word])
    name, _, density = word.partition("@")
    dpi = re.fullmatch(rf"{NUMBER}(dpi)?", density)
    paper = PAPERS.get(name) or _parse_sides(name)
    if paper is None or dpi is None:
        raise InputError(
            f"`to` {text!r} is unknown: give 4k, 8k, a paper such as a4@300, or a print such as 30x40cm@300dpi"
        )
    if not LOWEST_DPI <= float(dpi[1]) <= HIGHEST_DPI:
        raise InputError(f"`to` {text!r} is out of range: print with {LOWEST_DPI} to {HIGHEST_DPI} dpi")
    short, long = sorted(round(side / INCH * float(dpi[1])) for side in paper)
    if not 0 < short <= long <= MAX_SIDE:
        raise InputError(f"`to` {text!r} is out of range: {long}x{short} pixels")
    return Box(long, short, float(dpi[1]))


def _parse_sides(text: str) -> tuple[float, float] | None:
    found = re.fullmatch(rf"{NUMBER}x{NUMBER}(mm|cm|in)", text)
    return None if found is None else (float(found[1]) * MILLIMETRES[found[3]], float(found[2]) * MILLIMETRES[found[3]])


def parse_fit(text: str) -> tuple[int, int]:
    """Parse `fit` of the command line: WIDTHxHEIGHT in pixels."""
    found = re.fullmatch(r"(\d{1,7})x(\d{1,7})", text.lower())
    if found is None:
        raise InputError(f"`fit` {text!r} is not a size: give WIDTHxHEIGHT in pixels, such as 1920x1080")
    return int(found[1]), int(found[2])
