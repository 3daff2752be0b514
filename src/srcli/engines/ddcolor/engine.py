"""The DDColor engine: chroma from one pass over a small square, upsampled along the picture's edges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from srcli.engines.base import Canvas, EngineSpec, Request, WholePicture
from srcli.engines.ddcolor.spec import NETWORK_SIDE, SPEC
from srcli.engines.ddcolor.weights import open_network
from srcli.engines.runtime.device import Device
from srcli.imaging.bands import split_rows
from srcli.imaging.chroma import ChromaField, Floats, lab_to_rgb, levels_to_unit, rgb_to_lab
from srcli.imaging.picture import PixelArray
from srcli.models.ddcolor import DDCOLOR_SIDE_MULTIPLE, DDColor
from srcli.settings import JOINT, ModelChoice
from srcli.weights.store import Store


def load(choice: ModelChoice, device: Device, store: Store) -> DDColorEngine:
    """Load the chosen network on the device."""
    loaded = open_network(choice, store)
    network = loaded.network.to(device.torch, device.dtype)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return DDColorEngine(network, device, loaded.weights_used, choice.variant)


@dataclass(frozen=True)
class DDColorEngine(WholePicture):
    """A loaded DDColor network, on a device."""

    network: DDColor
    device: Device
    weights_used: Mapping[str, str]
    variant: str | None = None
    spec: EngineSpec = SPEC

    def prepare(self, hint: Tensor, request: Request) -> Canvas:
        """Run the network; `finish` upsamples its chroma."""
        picture = hint[0].permute(1, 2, 0).numpy()
        ab = self.predict(picture, request.sampling.process_size or NETWORK_SIDE)
        method = request.sampling.chroma_upsampling or JOINT
        return Canvas(hint, hint, None, None, lambda _: paint(picture, ab, method))

    def predict(self, picture: PixelArray, side: int) -> Floats:
        """The a and b channels of Lab, (side, side, 2), for a picture of any shape."""
        square = torch.from_numpy(prepare_input(picture, side)).permute(2, 0, 1)[None]
        ab = self.network(square.to(self.device.torch, self.device.dtype, memory_format=torch.channels_last))
        return np.ascontiguousarray(ab[0].float().permute(1, 2, 0).cpu().numpy())

    def provenance(self) -> Mapping[str, str]:
        return self.weights_used


def prepare_input(picture: PixelArray, side: int) -> Floats:
    """The network's input: the picture resized to a square without its chroma, as RGB in 0..1."""
    side = -(-side // DDCOLOR_SIDE_MULTIPLE) * DDCOLOR_SIDE_MULTIPLE
    lab = rgb_to_lab(cv2.resize(levels_to_unit(picture), (side, side), interpolation=cv2.INTER_LINEAR))
    lab[..., 1:] = 0
    return lab_to_rgb(lab)


def paint(picture: PixelArray, ab: Floats, method: str) -> Tensor:
    """RGB (1, 3, H, W) from this chroma and the picture's own L, band by band to save memory."""
    height, width = picture.shape[:2]
    field, out = ChromaField.fit(ab, picture, method), torch.empty(1, 3, height, width)
    for rows in split_rows(height, width):
        lab = rgb_to_lab(levels_to_unit(picture[rows]))
        lab[..., 1:] = field.rows(lab[..., 0], rows)
        out[0, :, rows] = torch.from_numpy(lab_to_rgb(lab)).permute(2, 0, 1)
    return out
