"""AlexNet's convolutions (Krizhevsky 2014, one column), whose activations LPIPS compares."""

from __future__ import annotations

from torch import Tensor, nn

ALEXNET_WIDTHS = (64, 192, 384, 256, 256)


class AlexNet(nn.Module):
    """The layers have the key names of the published checkpoints, `features.N`."""

    features: nn.Sequential

    def __init__(self) -> None:
        super().__init__()
        one, two, three, four, five = ALEXNET_WIDTHS
        self.features = nn.Sequential(
            nn.Conv2d(3, one, 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(one, two, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(two, three, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(three, four, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(four, five, 3, padding=1),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """The activations of all five convolutions."""
        activations = []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                activations.append(x)
        return activations
