"""A contact sheet: crops at 100 % of the places where the pictures differ most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from srcli.compare.layers import Layer
from srcli.imaging.picture import Pixels8
from srcli.imaging.resize import resize_array
from srcli.metrics.edges import compute_full_range_luma

GRID_CELL = 16  # pixels of a cell of the grid on which crops are placed
LABEL_HEIGHT, LABEL_GAP = 22, 4


@dataclass(frozen=True, slots=True)
class Crop:
    """A square of one motif in all pictures, and how much the first two differ there."""

    motif: str
    parts: tuple[Pixels8, ...]
    difference: float


def find_crops(motif: str, layers: Sequence[Layer], side: int, count: int) -> list[Crop]:
    """The squares where the first two pictures differ most, the largest difference first; none overlap."""
    width, height = layers[0].size
    side = min(side, width, height)
    scores = _window_means(_difference_map(layers[0].pixels, _at_size(layers[1], (width, height))), side)
    crops = []
    for y, x in _find_peaks(scores, side, count):
        top, left = min(y * GRID_CELL, height - side), min(x * GRID_CELL, width - side)
        parts = tuple(_at_size(layer, (width, height))[top : top + side, left : left + side] for layer in layers)
        crops.append(Crop(motif, parts, float(scores[y, x])))
    return crops


def _at_size(layer: Layer, size: tuple[int, int]) -> Pixels8:
    """Resize a picture to this size; small ones with hard pixels, so that no detail is invented."""
    return resize_array(layer.pixels, size, "nearest" if layer.size[0] < size[0] else "bicubic")


def _difference_map(one: Pixels8, other: Pixels8) -> NDArray[np.float64]:
    """Mean squared difference of luma over the cells of a grid."""
    height, width = one.shape[:2]
    out = np.empty((-(-height // GRID_CELL), -(-width // GRID_CELL)))
    for row in range(out.shape[0]):
        rows = slice(row * GRID_CELL, min((row + 1) * GRID_CELL, height))
        columns = ((compute_full_range_luma(one[rows]) - compute_full_range_luma(other[rows])) ** 2).mean(0)
        padded = np.pad(columns, (0, -width % GRID_CELL), mode="edge")
        out[row] = padded.reshape(-1, GRID_CELL).mean(1)
    return out


def _window_means(cells: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """For each cell, the mean over the square that begins there, if it fits."""
    span = max(1, min(side // GRID_CELL, *cells.shape))
    means = cv2.blur(cells, (span, span), anchor=(0, 0), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(means[: cells.shape[0] - span + 1, : cells.shape[1] - span + 1], np.float64)


def _find_peaks(scores: NDArray[np.float64], side: int, count: int) -> Iterator[tuple[int, int]]:
    left = scores.copy()
    span = -(-side // GRID_CELL)
    for _ in range(count):
        y, x = (int(i) for i in np.unravel_index(int(left.argmax()), left.shape))
        if not np.isfinite(left[y, x]):
            return
        yield y, x
        left[max(0, y - span + 1) : y + span, max(0, x - span + 1) : x + span] = -np.inf


def draw_sheet(names: Sequence[str], crops: Sequence[Crop]) -> Image.Image:
    """A row per crop, a column per picture, names on top, the motif under each row."""
    side = max(crop.parts[0].shape[0] for crop in crops)
    across, down = side + LABEL_GAP, side + LABEL_HEIGHT + LABEL_GAP
    sheet = Image.new("RGB", (len(names) * across - LABEL_GAP, LABEL_HEIGHT + len(crops) * down), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for x, name in enumerate(names):
        draw.text((x * across + 2, 3), _shorten_to_fit(draw, font, name, side), "black", font)
        for y, crop in enumerate(crops):
            sheet.paste(Image.fromarray(np.ascontiguousarray(crop.parts[x])), (x * across, LABEL_HEIGHT + y * down))
    for y, crop in enumerate(crops):
        text = _shorten_to_fit(draw, font, crop.motif, sheet.width - LABEL_GAP)
        draw.text((2, LABEL_HEIGHT + y * down + side + 1), text, "#555555", font)
    return sheet


def _shorten_to_fit(
    draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, text: str, width: int
) -> str:
    """The text, shortened in the middle if it is too long."""
    whole = text
    while len(text) > 5 and draw.textlength(text, font=font) > width - 4:
        keep = (len(text) - 4) // 2
        text = whole[:keep] + "..." + whole[-keep:]
    return text
