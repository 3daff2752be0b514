"""A perceptual distance from the features of an ImageNet classifier, as a loss and as a metric.

The network is an EfficientNet-Lite with its norms folded into the convolutions, stored as a list of layers; see
benchmarks/features.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class ConvLayer:
    """A convolution, its activation and its skip connections."""

    stride: int = 1
    grouped: bool = False
    active: bool = True  # ReLU6 after it
    skip_from: bool = False  # its input is stored for the next `skip_to`
    skip_to: bool = False  # the stored input is added
    tap: bool = False  # the output is one of the features


class FeatureNetwork(nn.Module):
    """Features at several resolutions, normalized to unit length over the channels."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        with safe_open(file, "pt") as opened:
            self.layers = [ConvLayer(**fields) for fields in json.loads(opened.metadata()["layers"])]
            names = sorted(name for name in opened.keys() if name.endswith("weight"))  # noqa: SIM118
            self.weights = nn.ParameterList(opened.get_tensor(n).float() for n in names)
            self.biases = nn.ParameterList(opened.get_tensor(n.replace("weight", "bias")).float() for n in names)
        self.requires_grad_(False).eval()

    def forward(self, pictures: Tensor) -> list[Tensor]:
        x = (pictures * 255 - 127) / 128
        skip, features = x, []
        for layer, weight, bias in zip(self.layers, self.weights, self.biases, strict=True):
            skip = x if layer.skip_from else skip
            groups = len(weight) if layer.grouped else 1
            before = (weight.shape[-1] - layer.stride) // 2  # TensorFlow's padding for even sides
            after = weight.shape[-1] - layer.stride - before
            x = F.pad(x, (before, after, before, after))
            x = F.conv2d(x, weight, bias, stride=layer.stride, groups=groups)
            x = x + skip if layer.skip_to else x
            x = x.clamp(0, 6) if layer.active else x
            if layer.tap:
                features.append(x / (x.float().square().sum(1, keepdim=True).sqrt() + 1e-6))
        return features


def feature_distance(network: FeatureNetwork, pictures: Tensor, truth: Tensor) -> Tensor:
    """Mean distance of the normalized features over all resolutions: 0 for equal pictures, at most 2."""
    with torch.no_grad():
        target = network(truth)
    distances = [
        (a.float() - b.float()).square().sum(1).add(1e-8).sqrt().mean()
        for a, b in zip(network(pictures), target, strict=True)
    ]
    return torch.stack(distances).mean()
