"""Simulates a scanned old print: tone and paper, lens blur, grain, dust, scratches, and JPEG."""

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from srcli.imaging.picture import Pixels8
from srcli.train.builtin.operations import (
    FILTERS,
    add_camera_noise,
    blur_randomly,
    resize_pixels,
    round_to_uint8,
    store_any_jpeg,
)

GreyPlane = NDArray[np.float32]


def print_picture(pixels: Pixels8, rng: Generator) -> Pixels8:
    """A new print of the picture: in colour one time in four, else grey or toned, with a paper's contrast."""
    black, white = rng.uniform(0, 0.22), rng.uniform(0.75, 1)
    if rng.random() < 0.25:
        return round_to_uint8(255 * black + np.float32(white - black) * pixels)
    weights = rng.dirichlet((2.0, 3.5, 1.0)).astype(np.float32)
    grey = np.asarray((pixels @ weights) / 255, np.float32) ** np.float32(rng.uniform(0.75, 1.35))
    return round_to_uint8(255 * _tint(np.asarray(black + (white - black) * grey, np.float32), rng))


def _tint(grey: GreyPlane, rng: Generator) -> GreyPlane:
    """RGB of a grey picture: half of the time neutral, else brown, yellow or cold in midtones and highlights."""
    flat = np.repeat(grey[..., None], 3, axis=2)
    if rng.random() < 0.5:
        return flat
    cold = rng.random() < 0.15
    paper = np.array([0.96, 1.0, 1.0] if cold else [1.0, rng.uniform(0.86, 0.99), rng.uniform(0.62, 0.95)])
    middle = np.array([0, 0, 0.03] if cold else [0.06, 0.01, -0.06]) * rng.uniform(0, 1)
    return np.asarray(flat * paper + middle * (4 * flat * (1 - flat)), np.float32)


def add_grain(pixels: Pixels8, rng: Generator) -> Pixels8:
    """Film grain: blurred noise, strongest in the midtones."""
    field = rng.standard_normal(pixels.shape[:2], dtype=np.float32)
    field = cv2.GaussianBlur(field, (0, 0), rng.uniform(0.4, 1.3))
    middle = pixels.mean(2) / 255
    strength = rng.uniform(2, 11) / max(float(field.std()), 1e-6)
    spread = strength * (0.4 + 2.4 * middle * (1 - middle))
    return round_to_uint8(pixels + (field * spread)[..., None].astype(np.float32))


def add_scratches(pixels: Pixels8, rng: Generator) -> Pixels8:
    """Scratches, hairs, cracks and dust: light like missing emulsion, or dark like something on the print."""
    mask = np.zeros(pixels.shape[:2], np.uint8)
    height, width = pixels.shape[:2]
    for _ in range(int(rng.poisson(1.2))):
        _draw_scratch(mask, rng)
    for _ in range(int(rng.poisson(3))):
        middle = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(1, 5)), int(rng.integers(1, 5)))
        cv2.ellipse(mask, middle, axes, float(rng.uniform(0, 180)), 0, 360, 255, -1)
    if rng.random() < 0.4:
        specks = (rng.random(mask.shape) < rng.uniform(0.0003, 0.004)).astype(np.uint8) * 255
        mask = np.maximum(mask, cv2.dilate(specks, np.ones((2, 2), np.uint8)))
    soft = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.4, 1.0)).astype(np.float32)[..., None] / 255
    tone = rng.uniform(0.8, 1) if rng.random() < 0.7 else rng.uniform(0, 0.25)
    ink = pixels.reshape(-1, 3).max(0) * np.float32(tone)
    return round_to_uint8(pixels + soft * np.float32(rng.uniform(0.5, 1)) * (ink - pixels))


def _draw_scratch(mask: NDArray[np.uint8], rng: Generator) -> None:
    """Draw a wandering thin line, more often vertical, like the scratches of film transport."""
    side = max(mask.shape)
    start = rng.uniform(-0.1, 1.1, 2) * side
    angle = rng.normal(np.pi / 2, 0.2) if rng.random() < 0.5 else rng.uniform(0, np.pi)
    turns = angle + np.cumsum(rng.normal(0, rng.choice([0.02, 0.4]), 12))
    steps = np.stack([np.cos(turns), np.sin(turns)], 1) * rng.uniform(0.03, 0.15) * side
    points = np.cumsum(np.concatenate([start[None], steps]), 0).astype(np.int32)
    cv2.polylines(mask, [points], False, 255, int(rng.choice([1, 1, 2, 3])), cv2.LINE_AA)


def make_old_print(pixels: Pixels8, scale: int, rng: Generator) -> Pixels8:
    """A scan of an old print of the picture, `scale` times smaller."""
    height, width = (side // scale for side in pixels.shape[:2])
    if rng.random() < 0.8:
        pixels = blur_randomly(pixels, rng, 0.4, 3.0)
    if rng.random() < 0.3:
        pixels = add_grain(pixels, rng)
    small = resize_pixels(pixels, width, height, FILTERS[int(rng.integers(len(FILTERS)))])
    if rng.random() < 0.7:
        small = add_grain(small, rng)
    if rng.random() < 0.6:
        small = add_scratches(small, rng)
    noisy = rng.random()
    if noisy < 0.3:  # weak noise of a good scan, or strong noise of an underexposed one
        small = add_camera_noise(small, rng, 6 if noisy < 0.15 else 45)
    return store_any_jpeg(small, rng, 45, 96) if rng.random() < 0.6 else small
