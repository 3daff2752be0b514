"""VGG-16's convolutions (Simonyan and Zisserman 2014), for perceptual metrics."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

VGG16_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
Pool = Callable[[Tensor], Tensor]


class Vgg16(nn.Module):
    """The layers have the key names of the published checkpoints, `features.N`."""

    features: nn.Sequential

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for stage in VGG16_STAGES:
            for wider in stage:
                layers += [nn.Conv2d(width, wider, 3, padding=1), nn.ReLU()]
                width = wider
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor, pool: Pool | None = None) -> list[Tensor]:
        """The last activation of each stage. `pool` replaces the maximum pooling between stages."""
        activations = []
        last = len(self.features) - 1
        for index, layer in enumerate(self.features):
            if isinstance(layer, nn.MaxPool2d):
                activations.append(x)
                if index == last:
                    break
                x = layer(x) if pool is None else pool(x)
            else:
                x = layer(x)
        return activations
