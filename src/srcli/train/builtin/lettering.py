"""Drawn patches: lines, polygons, stripes and lettering, which are rare in a few hundred photographs."""

from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFont

from srcli.imaging.picture import Pixels8
from srcli.train.builtin.operations import resize_pixels

SUPERSAMPLING = 3
"""Factor of supersampling, for smooth edges."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789&%$#@!?.,:;-+/()ÄÖÜäöüßéèñç"


@cache
def find_fonts() -> tuple[str, ...]:
    """The fonts that are installed on the machine."""
    roots = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), Path("/Library/Fonts"), Path("C:/Windows/Fonts"))
    return tuple(sorted(str(f) for root in roots if root.is_dir() for f in root.rglob("*.[to]tf")))


def draw_colour(rng: Generator) -> tuple[int, int, int]:
    value = rng.integers(0, 256, 3) if rng.random() < 0.6 else np.repeat(rng.integers(0, 256), 3)
    return int(value[0]), int(value[1]), int(value[2])


def draw_ground(side: int, rng: Generator) -> Pixels8:
    """A plain background or a soft gradient."""
    corners = np.array([draw_colour(rng) for _ in range(4)], np.float32).reshape(2, 2, 3)
    if rng.random() < 0.6:
        corners = corners[:1, :1] + (corners - corners[:1, :1]) * 0.15
    smooth = cv2.resize(corners, (side, side), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(np.clip(smooth, 0, 255).astype(np.uint8))


def draw_lines(canvas: Pixels8, rng: Generator) -> None:
    side = canvas.shape[0]
    for _ in range(int(rng.integers(2, 12))):
        start, end = (tuple(int(v) for v in rng.integers(-side // 4, side + side // 4, 2)) for _ in range(2))
        cv2.line(canvas, start, end, draw_colour(rng), int(rng.integers(2, 8 * SUPERSAMPLING)))


def draw_polygons(canvas: Pixels8, rng: Generator) -> None:
    side = canvas.shape[0]
    for _ in range(int(rng.integers(1, 6))):
        points = rng.integers(-side // 6, side + side // 6, (int(rng.integers(3, 6)), 2)).astype(np.int32)
        cv2.fillPoly(canvas, [points], draw_colour(rng))
    if rng.random() < 0.3:
        middle = tuple(int(v) for v in rng.integers(0, side, 2))
        cv2.circle(
            canvas, middle, int(rng.integers(side // 12, side // 2)), draw_colour(rng), int(rng.choice([-1, 6, 15]))
        )


def draw_stripes(canvas: Pixels8, rng: Generator) -> None:
    """Parallel bars with one period, like facades, fences and blinds."""
    side, angle = canvas.shape[0], rng.uniform(0, np.pi)
    if rng.random() < 0.4:
        angle = rng.integers(0, 2) * np.pi / 2 + rng.normal(0, 0.05)
    period = rng.uniform(5, 24) * SUPERSAMPLING
    y, x = np.mgrid[:side, :side].astype(np.float32)
    phase = ((x * np.cos(angle) + y * np.sin(angle)) / period + rng.random()) % 1
    if rng.random() < 0.3:
        across = ((y * np.cos(angle) - x * np.sin(angle)) / (period * rng.uniform(0.4, 2.5))) % 1
        phase = np.maximum(phase, across)
    canvas[phase < rng.uniform(0.15, 0.6)] = draw_colour(rng)


def draw_words(canvas: Pixels8, rng: Generator) -> None:
    """Lettering in a random font of the machine, or Pillow's default, sometimes slightly rotated and sheared."""
    picture = Image.fromarray(canvas)
    files, side = find_fonts(), canvas.shape[0]
    ink, size = draw_colour(rng), int(rng.integers(9, 60) * SUPERSAMPLING)
    draw = ImageDraw.Draw(picture)
    name = files[int(rng.integers(len(files)))] if files else ""
    font = ImageFont.truetype(name, size) if name and rng.random() < 0.85 else ImageFont.load_default(size)
    top = int(rng.integers(-size, side // 2))
    while top < side:
        text = "".join(rng.choice(list(LETTERS + "   "), int(rng.integers(3, 24))))
        draw.text((int(rng.integers(-size, side // 3)), top), text, ink, font)
        top += int(size * rng.uniform(1.1, 1.6))
    canvas[:] = np.asarray(picture)
    if rng.random() < 0.5:
        turn = cv2.getRotationMatrix2D((side / 2, side / 2), rng.normal(0, 12), rng.uniform(0.8, 1.2))
        turn[:, :2] @= np.array([[1, rng.normal(0, 0.15)], [0, 1]])
        canvas[:] = cv2.warpAffine(canvas, turn, (side, side), borderMode=cv2.BORDER_REFLECT)


def draw_waves(canvas: Pixels8, rng: Generator) -> None:
    """Sine waves over the whole patch, another in each channel."""
    y, x = np.mgrid[: canvas.shape[0], : canvas.shape[1]].astype(np.float32) / canvas.shape[0]
    for channel in range(3):
        angle, waves = rng.uniform(0, 2 * np.pi), rng.uniform(2, 20) * 2 * np.pi
        wave = np.sin(waves * (x * np.cos(angle) + y * np.sin(angle)))
        canvas[..., channel] = np.clip(rng.uniform(80, 176) + rng.uniform(20, 70) * wave, 0, 255)


def draw_patch(side: int, rng: Generator) -> Pixels8:
    """A patch of `side` x `side`: zero to three of the above on a plain background, sometimes with noise."""
    canvas = draw_ground(side * SUPERSAMPLING, rng)
    drawers = (draw_lines, draw_polygons, draw_stripes, draw_words, draw_words, draw_waves)
    for index in rng.choice(len(drawers), int(rng.integers(0, 4))):
        drawers[index](canvas, rng)
    small = resize_pixels(canvas, side, side, Image.Resampling.BOX)
    if rng.random() < 0.3:
        grain = rng.normal(0, rng.uniform(1, 6), (side, side, 1))
        return np.clip(small + grain, 0, 255).astype(np.uint8)
    return small
