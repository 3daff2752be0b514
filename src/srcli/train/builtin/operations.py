"""Degradations of uint8 RGB arrays, for aging prints: resize, blur, noise and JPEG."""

import io

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from srcli.imaging.picture import Pixels8

FILTERS = (
    Image.Resampling.BICUBIC,
    Image.Resampling.BOX,
    Image.Resampling.LANCZOS,
    Image.Resampling.BILINEAR,
    Image.Resampling.HAMMING,
)


def resize_pixels(pixels: Pixels8, width: int, height: int, method: Image.Resampling) -> Pixels8:
    return np.asarray(Image.fromarray(pixels).resize((width, height), method))


def round_to_uint8(values: NDArray[np.float32]) -> Pixels8:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


def blur_randomly(pixels: Pixels8, rng: Generator, low: float, high: float) -> Pixels8:
    """Gaussian blur, anisotropic two times in five."""
    sigma = rng.uniform(low, high)
    if rng.random() < 0.6:
        return np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma), np.uint8)
    angle, other = rng.uniform(0, np.pi), sigma * rng.uniform(0.2, 0.9)
    reach = int(np.ceil(3 * sigma))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kernel = np.exp(-0.5 * ((u / sigma) ** 2 + (v / max(other, 0.1)) ** 2))
    return np.asarray(cv2.filter2D(pixels, -1, kernel / kernel.sum()), np.uint8)


def add_camera_noise(pixels: Pixels8, rng: Generator, high: float) -> Pixels8:
    """Gaussian noise, signal-dependent one time in three, grey two times in five."""
    sigma = rng.uniform(0.5, high)
    channels = 1 if rng.random() < 0.4 else 3
    grain = rng.standard_normal((*pixels.shape[:2], channels), dtype=np.float32) * sigma
    if rng.random() < 0.35:
        grain = grain * np.sqrt(pixels / np.float32(110))
    return round_to_uint8(pixels + grain)


def store_any_jpeg(pixels: Pixels8, rng: Generator, low: int, high: int) -> Pixels8:
    quality, buffer = int(rng.integers(low, high + 1)), io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=2 if rng.random() < 0.7 else 0)
    return np.asarray(Image.open(buffer).convert("RGB"))
