"""Features of an ImageNet classifier: how far apart two pictures look, as a loss or as a measure.

The network is EfficientNet-Lite with its normalisation folded into the convolutions, stored as plain layers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

REPEATS = {"lite0": (1, 2, 2, 3, 3, 4, 1), "lite1": (1, 3, 3, 4, 4, 5, 1), "lite2": (1, 3, 3, 4, 4, 5, 1)}
STRIDES = (1, 2, 2, 2, 1, 2, 1)
BATCH_NORM_EPSILON = 1e-3


@dataclass(frozen=True, slots=True)
class ConvLayer:
    """One convolution and what surrounds it."""

    stride: int = 1
    grouped: bool = False
    active: bool = True  # ReLU6 after it
    skip_from: bool = False  # the input is kept for the next `skip_to`
    skip_to: bool = False  # what was kept is added
    tap: bool = False  # the output is one of the features


def fold_efficientnet_lite(state: Mapping[str, Tensor], name: str, stages: int = 5) -> dict[str, object]:
    """The first `stages` of a published EfficientNet-Lite checkpoint as layers and their tensors."""
    tensors: dict[str, Tensor] = {}
    layers: list[ConvLayer] = []

    def add(conv: str, norm: str, layer: ConvLayer) -> None:
        gain = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + BATCH_NORM_EPSILON).sqrt()
        tensors[f"{len(layers):03d}.weight"] = state[f"{conv}.weight"] * gain[:, None, None, None]
        tensors[f"{len(layers):03d}.bias"] = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * gain
        layers.append(layer)

    add("_conv_stem", "_bn0", ConvLayer(stride=2))
    block = 0
    for stage, (count, stride) in enumerate(zip(REPEATS[name][:stages], STRIDES, strict=False)):
        for repeat in range(count):
            key, skip, last = f"_blocks.{block}", repeat > 0, repeat == count - 1
            if f"{key}._expand_conv.weight" in state:
                add(f"{key}._expand_conv", f"{key}._bn0", ConvLayer(skip_from=skip))
            first = ConvLayer(stride=stride if repeat == 0 else 1, grouped=True, skip_from=skip and stage == 0)
            add(f"{key}._depthwise_conv", f"{key}._bn1", first)
            add(f"{key}._project_conv", f"{key}._bn2", ConvLayer(active=False, skip_to=skip, tap=last))
            block += 1
    return {"tensors": tensors, "layers": layers}


def write_features(file: Path, folded: Mapping[str, object]) -> None:
    tensors: dict[str, Tensor] = folded["tensors"]  # type: ignore[assignment]
    layers: Sequence[ConvLayer] = folded["layers"]  # type: ignore[assignment]
    halves = {name: t.half().contiguous() for name, t in tensors.items()}
    save_file(halves, file, {"layers": json.dumps([asdict(layer) for layer in layers])})


class FeatureNetwork(nn.Module):
    """Features at several resolutions, each scaled to unit length along its channels."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        with safe_open(file, "pt") as opened:
            self.layers = [ConvLayer(**given) for given in json.loads(opened.metadata()["layers"])]
            names = sorted(name for name in opened.keys() if name.endswith("weight"))  # noqa: SIM118
            self.weights = nn.ParameterList(opened.get_tensor(n).float() for n in names)
            self.biases = nn.ParameterList(opened.get_tensor(n.replace("weight", "bias")).float() for n in names)
        self.requires_grad_(False).eval()

    def forward(self, pictures: Tensor) -> list[Tensor]:
        x = (pictures * 255 - 127) / 128
        kept, found = x, []
        for layer, weight, bias in zip(self.layers, self.weights, self.biases, strict=True):
            kept = x if layer.skip_from else kept
            groups = len(weight) if layer.grouped else 1
            before = (weight.shape[-1] - layer.stride) // 2  # as TensorFlow pads even sides
            after = weight.shape[-1] - layer.stride - before
            x = F.pad(x, (before, after, before, after))
            x = F.conv2d(x, weight, bias, stride=layer.stride, groups=groups)
            x = x + kept if layer.skip_to else x
            x = x.clamp(0, 6) if layer.active else x
            if layer.tap:
                found.append(x / (x.float().square().sum(1, keepdim=True).sqrt() + 1e-6))
        return found


def feature_distance(network: FeatureNetwork, pictures: Tensor, truth: Tensor) -> Tensor:
    """Mean distance of the normalised features, over all resolutions: 0 for equal pictures, at most about 2."""
    with torch.no_grad():
        wanted = network(truth)
    apart = [
        (a.float() - b.float()).square().sum(1).add(1e-8).sqrt().mean()
        for a, b in zip(network(pictures), wanted, strict=True)
    ]
    return torch.stack(apart).mean()
