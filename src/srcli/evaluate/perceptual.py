"""Metrics with weights: LPIPS on AlexNet and VGG-16, DISTS on VGG-16.

The backbones are weights.lock's; the few weights fitted to human judgements come with torchmetrics, the extra
`srcli[metrics]`. Neither is downloaded automatically.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import conv2d

from srcli.errors import WeightsError
from srcli.metrics.network_metrics import PerceptualMetric
from srcli.metrics.registry import LOWER, TRUTH, Metric
from srcli.metrics.sample import Sample
from srcli.models.alexnet import AlexNet
from srcli.models.vgg16 import VGG16_STAGES, Vgg16

WIDTHS = [stage[-1] for stage in VGG16_STAGES]
_NETWORKS: dict[str, type[AlexNet | Vgg16]] = {"alexnet": AlexNet, "vgg16": Vgg16}
Distance = Callable[[Any, dict[str, Tensor], Tensor, Tensor], Tensor]


def compute_lpips(network: AlexNet | Vgg16, heads: dict[str, Tensor], result: Tensor, truth: Tensor) -> Tensor:
    """Zhang et al. 2018: weighted squared distances of normalised activations. RGB in 0..1, (1, 3, H, W)."""
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)
    ours, theirs = (network((rgb * 2 - 1 - shift) / scale) for rgb in (result, truth))
    total = torch.zeros(())
    for stage, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        gap = (_normalize_channels(a) - _normalize_channels(b)) ** 2
        total = total + conv2d(gap, heads[f"lin{stage}.model.1.weight"]).mean()
    return total


def _normalize_channels(x: Tensor) -> Tensor:
    return x / (x.square().sum(1, keepdim=True) + 1e-8).sqrt()


def compute_dists(vgg: Vgg16, heads: dict[str, Tensor], result: Tensor, truth: Tensor) -> Tensor:
    """Ding et al. 2020: likeness of the activations' means (texture) and of their covariances (structure)."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    ours, theirs = ([rgb, *vgg((rgb - mean) / std, pool=l2_pool)] for rgb in (result, truth))
    whole = heads["alpha"].sum() + heads["beta"].sum()
    texture, structure = (torch.split(heads[n] / whole, [3, *WIDTHS], dim=1) for n in ("alpha", "beta"))
    likeness = torch.zeros(())
    for a, b, alpha, beta in zip(ours, theirs, texture, structure, strict=True):
        mean_a, mean_b = (x.mean((2, 3), keepdim=True) for x in (a, b))
        var_a, var_b = (a - mean_a).square().mean((2, 3)), (b - mean_b).square().mean((2, 3))
        covariance = (a * b).mean((2, 3)) - (mean_a * mean_b)[..., 0, 0]
        means = (2 * mean_a * mean_b + 1e-6) / (mean_a**2 + mean_b**2 + 1e-6)
        likeness = (
            likeness
            + (alpha * means).sum()
            + (beta[..., 0, 0] * (2 * covariance + 1e-6) / (var_a + var_b + 1e-6)).sum()
        )
    return 1 - likeness


def l2_pool(x: Tensor) -> Tensor:
    """Blurred energy instead of the maximum: a Hann window of 3x3, every second sample."""
    window = torch.from_numpy(np.hanning(5)[1:-1]).float()
    kernel = torch.outer(window, window)
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, 3, 3)
    return (conv2d(x.square(), kernel, stride=2, padding=1, groups=x.shape[1]) + 1e-12).sqrt()


def load_metric(row: PerceptualMetric, backbone: AlexNet | Vgg16) -> Metric:
    """The metric of a row, with its network. Raises WeightsError."""
    distance = {"lpips": compute_lpips, "dists": compute_dists}[row.distance]
    measure = partial(_measure_sample, distance, backbone, read_heads(row))
    return Metric(row.name, row.title, measure, LOWER, row.protocol, TRUTH)


def _measure_sample(distance: Distance, network: AlexNet | Vgg16, heads: dict[str, Tensor], sample: Sample) -> float:
    result, truth = (torch.from_numpy(rgb / 255).float().permute(2, 0, 1)[None] for rgb in sample.rgb)
    with torch.inference_mode():
        return float(distance(network, heads, result, truth))


def read_heads(row: PerceptualMetric) -> dict[str, Tensor]:
    """The fitted weights in torchmetrics' folder, without importing it. Raises WeightsError."""
    spec = find_spec("torchmetrics")
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(f"{row.name} needs one more package: pip install 'srcli[metrics]'")
    path = Path(spec.submodule_search_locations[0]) / "functional" / "image" / row.heads
    if not path.is_file():
        raise WeightsError(f"torchmetrics has no {row.heads}: pip install --upgrade 'srcli[metrics]'")
    found: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return found


def read_backbone(name: str, path: Path) -> AlexNet | Vgg16:
    """A network of weights.lock from safetensors. Raises WeightsError."""
    network = _NETWORKS[name]()
    load_weights(network, name, path)
    return network


def load_weights(network: nn.Module, name: str, path: Path) -> None:
    """Fill a network for use; a classifier's further layers are not taken. Raises WeightsError."""
    wanted = network.state_dict()
    found: dict[str, Any] = {key: x for key, x in load_file(path).items() if key in wanted}
    try:
        network.load_state_dict(found)
    except RuntimeError as error:
        raise WeightsError(f"{path.name} does not hold {name}: run srcli models verify {name}") from error
    network.eval().requires_grad_(False)
