"""Find scratches with the detector network, in pictures of any size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from srcli.engines.runtime.device import Device, choose_device
from srcli.errors import WeightsError
from srcli.imaging.bands import split_rows
from srcli.imaging.chroma import Floats
from srcli.imaging.inpaint import GROWTH, Marks, grow_marks
from srcli.imaging.picture import PixelArray
from srcli.models.scratch_detector import SCRATCH_SIDE_MULTIPLE, DetectorShape, ScratchDetector, fold_norms
from srcli.settings import DeviceChoice, ModelChoice, Repair
from srcli.weights.open import load_into, load_state
from srcli.weights.store import Store

DETECTOR_WINDOW = 1024  # pixels of the long side that are computed at once
WINDOW_HALO = 160  # pixels; more than the network's receptive field to either side
BT601 = np.array([19595, 38470, 7471], np.uint32)  # in 16-bit fixed point


@dataclass(frozen=True)
class DamageFinder:
    """A loaded detector. It sees pictures reduced to `mask_side` pixels on the short side."""

    network: ScratchDetector
    device: Device
    weights_used: Mapping[str, str]

    def find(self, pixels: PixelArray, repair: Repair) -> Marks:
        """Mark the damage of a picture. Marks are grown by the size of a pixel that the network saw, less what `fill`
        adds, so that they can be edited and passed as `mask`."""
        height, width = pixels.shape[:2]
        probability = self.predict(prepare_detector_input(reduce_to_grey(pixels), repair.mask_side))
        marks = threshold_rows(probability, (width, height), repair.mask_threshold)
        grown = math.ceil(min(width, height) / repair.mask_side) - GROWTH
        return grow_marks(marks, grown) if grown > 0 else marks

    @torch.inference_mode()
    def predict(self, seen: Floats) -> Floats:
        """Probabilities of damage, in the network's input size."""
        out = np.empty_like(seen)
        upright = seen.shape[0] > seen.shape[1]
        for outer, inner in cut_windows(max(seen.shape)):
            part = seen[outer] if upright else seen[:, outer]
            found = self._run_network(torch.from_numpy(np.ascontiguousarray(part))[None, None])
            kept = slice(inner.start - outer.start, inner.stop - outer.start)
            if upright:
                out[inner] = found[kept]
            else:
                out[:, inner] = found[:, kept]
        return out

    def _run_network(self, grey: Tensor) -> Floats:
        grey = grey.to(self.device.torch, self.device.dtype, memory_format=torch.channels_last)
        return np.asarray(self.network(grey)[0, 0].float().sigmoid().cpu().numpy(), np.float32)


def load_finder(repair: Repair, choice: ModelChoice, device: DeviceChoice) -> DamageFinder:
    """Load the detector named in the settings."""
    where, store = choose_device(device), Store(offline=choice.offline)
    located = store.resolve(repair.mask_model, "damage", allow_pickle=choice.allow_pickle)
    network = fold_norms(read_detector(located.only_file())).to(where.torch, where.dtype)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return DamageFinder(network, where, located.provenance())


def read_detector(path: Path) -> ScratchDetector:
    """Read the network from a file, in fp32. Every tensor is needed, except counters left by training."""
    state = load_state(path)
    try:
        shape = DetectorShape.from_state(state)
    except KeyError as error:
        raise WeightsError(f"{path}: holds no scratch detector: choose another file") from error
    with torch.device("meta"):
        network = ScratchDetector(shape)
    whole = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    load_into(network, whole, path)
    return network.requires_grad_(False).eval()


def find_network_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Width and height of the network's input: `side` on the short side, multiples of SCRATCH_SIDE_MULTIPLE."""
    short = min(width, height)
    return tuple(side if edge == short else round_to_unit(edge / short * side) for edge in (width, height))  # type: ignore[return-value]


def round_to_unit(edge: float) -> int:
    """The nearest multiple of SCRATCH_SIDE_MULTIPLE; halves go to the even factor."""
    return SCRATCH_SIDE_MULTIPLE * round(edge / SCRATCH_SIDE_MULTIPLE)


def reduce_to_grey(pixels: PixelArray) -> PixelArray:
    """Luminance, rounded as by Pillow."""
    grey = np.empty(pixels.shape[:2], pixels.dtype)
    for rows in split_rows(*pixels.shape[:2]):
        grey[rows] = (pixels[rows].astype(np.uint32) @ BT601 + (1 << 15)) >> 16
    return grey


def prepare_detector_input(grey: PixelArray, side: int) -> Floats:
    """Resize to the network's input, in -1..1. Pixels are averaged; the official program picks single pixels, which
    breaks thin scratches into dots."""
    top, size = np.iinfo(grey.dtype).max, find_network_size(grey.shape[1], grey.shape[0], side)
    if min(grey.shape) > side:
        small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    else:
        small = cv2.resize(grey.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    return np.asarray((small / np.float32(top) - np.float32(0.5)) / np.float32(0.5), np.float32)


def threshold_rows(probability: Floats, size: tuple[int, int], threshold: float) -> Marks:
    """Marks of 255 where the probability, enlarged to this size (width, height), reaches the threshold."""
    width, height = size
    marks = np.empty((height, width), np.uint8)
    scale = probability.shape[0] / height
    wide = cv2.resize(probability, (width, probability.shape[0]), interpolation=cv2.INTER_LINEAR)
    for rows in split_rows(height, width):
        where = (np.arange(rows.start, rows.stop) + 0.5) * scale - 0.5
        first = np.floor(where).astype(int)
        share = (where - first).astype(np.float32)[:, None]
        above, below = (wide[(first + step).clip(0, len(wide) - 1)] for step in (0, 1))
        marks[rows] = np.where(above + share * (below - above) >= threshold, 255, 0)
    return marks


def cut_windows(length: int) -> Iterator[tuple[slice, slice]]:
    """Split a long side into windows: for each the pixels that it reads, and those that it computes."""
    for start in range(0, length, DETECTOR_WINDOW):
        stop = min(length, start + DETECTOR_WINDOW)
        yield slice(max(0, start - WINDOW_HALO), min(length, stop + WINDOW_HALO)), slice(start, stop)
