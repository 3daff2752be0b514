"""Makes the small, spoiled picture that a sharp one is to be found from. Pictures are uint8 RGB arrays."""

import io
from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
FILTERS = (
    Image.Resampling.BICUBIC,
    Image.Resampling.BOX,
    Image.Resampling.LANCZOS,
    Image.Resampling.BILINEAR,
    Image.Resampling.HAMMING,
)


def resize(pixels: Pixels, width: int, height: int, method: Image.Resampling = FILTERS[0]) -> Pixels:
    return np.asarray(Image.fromarray(pixels).resize((width, height), method))


def shrink(pixels: Pixels, scale: int, method: Image.Resampling = FILTERS[0]) -> Pixels:
    return resize(pixels, pixels.shape[1] // scale, pixels.shape[0] // scale, method)


def jpeg(pixels: Pixels, quality: int, subsampling: int = 2) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(buffer).convert("RGB"))


def rounded(values: NDArray[np.float32]) -> Pixels:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


def blur(pixels: Pixels, rng: Generator, low: float, high: float) -> Pixels:
    """Gaussian blur, drawn out along a random direction two times in five."""
    sigma = rng.uniform(low, high)
    if rng.random() < 0.6:
        return np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma), np.uint8)
    angle, other = rng.uniform(0, np.pi), sigma * rng.uniform(0.2, 0.9)
    reach = int(np.ceil(3 * sigma))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kernel = np.exp(-0.5 * ((u / sigma) ** 2 + (v / max(other, 0.1)) ** 2))
    return np.asarray(cv2.filter2D(pixels, -1, kernel / kernel.sum()), np.uint8)


def noise(pixels: Pixels, rng: Generator, high: float) -> Pixels:
    """Noise of a camera: Gaussian, stronger in the light one time in three, the same on R, G and B two in five."""
    sigma = rng.uniform(0.5, high)
    channels = 1 if rng.random() < 0.4 else 3
    grain = rng.standard_normal((*pixels.shape[:2], channels), dtype=np.float32) * sigma
    if rng.random() < 0.35:
        grain = grain * np.sqrt(pixels / np.float32(110))
    return rounded(pixels + grain)


def any_filter(rng: Generator) -> Image.Resampling:
    return FILTERS[int(rng.integers(len(FILTERS)))]


def any_jpeg(pixels: Pixels, rng: Generator, low: int, high: int) -> Pixels:
    return jpeg(pixels, int(rng.integers(low, high + 1)), 2 if rng.random() < 0.7 else 0)


def first_stage(pixels: Pixels, rng: Generator) -> Pixels:
    """What happened to the picture while it was large: blur, a resize, noise, JPEG."""
    if rng.random() < 0.75:
        pixels = blur(pixels, rng, 0.2, 2.8)
    if rng.random() < 0.4:
        factor = rng.uniform(0.45, 1.1)
        size = [max(8, round(side * factor)) for side in pixels.shape[:2]]
        pixels = resize(pixels, size[1], size[0], any_filter(rng))
    if rng.random() < 0.3:
        pixels = noise(pixels, rng, 9)
    return any_jpeg(pixels, rng, 45, 95) if rng.random() < 0.35 else pixels


def degrade(pixels: Pixels, scale: int, rng: Generator) -> Pixels:
    """A third of the pictures is only reduced, a tenth reduced and stored well, the others went through a life."""
    height, width = (side // scale for side in pixels.shape[:2])
    fate = rng.random()
    if fate < 0.33:
        return resize(pixels, width, height)
    if fate < 0.43:
        return any_jpeg(resize(pixels, width, height, any_filter(rng)), rng, 75, 98)
    small = resize(first_stage(pixels, rng), width, height, any_filter(rng))
    if rng.random() < 0.5:
        small = noise(small, rng, 8)
    return any_jpeg(small, rng, 35, 96) if rng.random() < 0.75 else small


Degrade = Callable[[Pixels, int, Generator], Pixels]
