"""Convert a published EfficientNet-Lite to the feature network that training and `benchmarks.quality` use.

python -m benchmarks.features CHECKPOINT NAME OUT

CHECKPOINT: weights of lite0, lite1 or lite2 (NAME) as safetensors, with the key names of efficientnet-pytorch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from srcli.train.builtin.features import ConvLayer

REPEATS = {"lite0": (1, 2, 2, 3, 3, 4, 1), "lite1": (1, 3, 3, 4, 4, 5, 1), "lite2": (1, 3, 3, 4, 4, 5, 1)}
STRIDES = (1, 2, 2, 2, 1, 2, 1)
BATCH_NORM_EPSILON = 1e-3


def fold_efficientnet_lite(
    state: Mapping[str, Tensor], name: str, stages: int = 5
) -> tuple[dict[str, Tensor], list[ConvLayer]]:
    """The first `stages` of a checkpoint as tensors and layers, with the norms folded into the convolutions."""
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
    return tensors, layers


def write_features(file: Path, tensors: Mapping[str, Tensor], layers: Sequence[ConvLayer]) -> None:
    """Write a feature network in half precision."""
    halves = {name: tensor.half().contiguous() for name, tensor in tensors.items()}
    save_file(halves, file, {"layers": json.dumps([asdict(layer) for layer in layers])})


def main(checkpoint: str, name: str, out: str) -> None:
    write_features(Path(out), *fold_efficientnet_lite(load_file(checkpoint), name))


if __name__ == "__main__":
    main(*sys.argv[1:])
