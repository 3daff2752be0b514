"""Lines on logarithmic axes, drawn with Pillow."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SIZE, LEFT, RIGHT, TOP, BOTTOM = (1200, 800), 110, 40, 60, 90
COLOURS = ("#c0392b", "#7f8c8d", "#2980b9", "#1e8449")


@dataclass(frozen=True)
class Line:
    """A named row of points."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """One logarithmic axis: values to pixels."""

    low: float
    high: float
    start: int
    end: int

    def at(self, value: float) -> float:
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> Iterator[float]:
        """Powers of ten, or of two where there are not two of those."""
        base = 10.0 if self.high / self.low >= 100 else 2.0
        power = math.ceil(math.log(self.low, base) - 1e-9)
        while base**power <= self.high * 1.001:
            yield base**power
            power += 1


def axes(lines: Sequence[Line]) -> tuple[Axis, Axis]:
    xs, ys = ([point[i] for line in lines for point in line.points] for i in (0, 1))
    wide, high = SIZE
    return Axis(min(xs), max(xs), LEFT, wide - RIGHT), Axis(min(ys), max(ys) * 1.2, high - BOTTOM, TOP)


def draw(lines: Sequence[Line], across: str, up: str, file: Path) -> None:
    """Write the plot to a PNG file."""
    image = Image.new("RGB", SIZE, "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(20)
    x, y = axes(lines)
    frame(pen, x, y, font)
    pen.text(((LEFT + SIZE[0] - RIGHT) / 2, SIZE[1] - 30), across, "black", font, "mm")
    pen.text((LEFT, TOP / 2), up, "black", font, "lm")
    for index, (line, colour) in enumerate(zip(lines, COLOURS, strict=True)):
        pen.line([(x.at(a), y.at(b)) for a, b in line.points], colour, 4)
        row = TOP + 30 + 32 * index
        pen.line([(LEFT + 30, row), (LEFT + 80, row)], colour, 4)
        pen.text((LEFT + 95, row), line.name, "black", font, "lm")
    image.quantize(64).save(file, optimize=True)


def frame(pen: ImageDraw.ImageDraw, x: Axis, y: Axis, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> None:
    """Axes with ticks and a light grid."""
    for value in x.ticks():
        pen.line([(x.at(value), y.start), (x.at(value), y.end)], "#dddddd")
        pen.text((x.at(value), y.start + 22), f"{value:,.0f}", "black", font, "mm")
    for value in y.ticks():
        pen.line([(x.start, y.at(value)), (x.end, y.at(value))], "#dddddd")
        pen.text((x.start - 12, y.at(value)), f"{value:,.0f}", "black", font, "rm")
    pen.rectangle([(x.start, y.end), (x.end, y.start)], outline="black")
