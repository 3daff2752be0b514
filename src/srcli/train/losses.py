"""What each of the three networks learns from. All take the whole model, so later ones see the earlier."""

import torch
from torch import Tensor
from torch.nn import functional as F

from srcli.models.builtin import UP, Builtin, Prediction, gradients, luma, straight_edges
from srcli.sampling.cosine import levels

SHARPEN = 0.35
"""Unsharp mask of the edge head's target."""
KNEE = 170 / 255**2
"""The constant of GMSD, for luma in 0..1."""


def predict_loss(model: Builtin, small: Tensor, sharp: Tensor, dice: torch.Generator) -> Tensor:
    """Distance of the mean, stillness along straight edges, likelihood of the (detached) miss for the spread.

    Mostly squared distance: L1 seeks the median, and where texture may be noise (stars, sand) that is nothing at all.
    """
    with torch.autocast(small.device.type, torch.bfloat16):
        guess: Prediction = model.predictor(small)
    mean = guess.mean.float()
    grey, truth = luma(mean), luma(sharp)
    edge = straight_edges(truth)
    along = _along(grey - truth, edge.x, edge.y)
    miss = F.avg_pool2d((truth - grey.detach()) ** 2, UP)
    likely = guess.spread + 0.5 * miss * torch.exp(-2 * guess.spread)
    apart = mean - sharp
    far = 0.3 * apart.abs().mean() + 12 * apart.square().mean()
    return far + 0.2 * (edge.mask * along.abs()).mean() + 0.01 * likely.mean()


def _along(grey: Tensor, x: Tensor, y: Tensor) -> Tensor:
    dx, dy = gradients(grey)
    return dy * x - dx * y


def _across(grey: Tensor, x: Tensor, y: Tensor) -> Tensor:
    dx, dy = gradients(grey)
    return dx * x + dy * y


def edge_loss(model: Builtin, small: Tensor, sharp: Tensor, dice: torch.Generator) -> Tensor:
    """Near the truth, a little sharpened; gradients as steep as its own, across straight edges above all."""
    with torch.autocast(small.device.type, torch.bfloat16):
        with torch.no_grad():
            guess = model.predictor(small)
        step = model.edges(guess.features)
    truth = luma(sharp)
    grey = luma(guess.mean.float()) + step
    edge = straight_edges(truth)
    soft = F.avg_pool2d(F.pad(truth, (2, 2, 2, 2), mode="replicate"), 5, 1)
    target = truth + SHARPEN * (truth - soft)
    still = _along(grey, edge.x, edge.y) - _along(truth, edge.x, edge.y)
    steep = _across(grey, edge.x, edge.y).abs() - _across(truth, edge.x, edge.y).abs()
    masked = (edge.mask * (0.5 * still.abs() + 1.5 * steep.abs())).mean()
    loss: Tensor = (grey - target).abs().mean() + masked + 0.2 * _unlike(grey, truth)
    return loss


def _unlike(grey: Tensor, truth: Tensor) -> Tensor:
    """Gradient magnitude similarity deviation at half size, one an item, averaged."""
    one, other = (_magnitude(F.avg_pool2d(g, 2)) for g in (grey, truth))
    alike = (2 * one * other + KNEE) / (one**2 + other**2 + KNEE)
    return alike.flatten(1).std(1).mean()


def _magnitude(grey: Tensor) -> Tensor:
    dx, dy = gradients(grey)
    return torch.sqrt((2 * dx) ** 2 + (2 * dy) ** 2 + 1e-8)


def detail_loss(model: Builtin, small: Tensor, sharp: Tensor, dice: torch.Generator) -> Tensor:
    """The v-prediction error of the normalised luma residual, at noise levels that matter most."""
    with torch.no_grad(), torch.autocast(small.device.type, torch.bfloat16):
        guess: Prediction = model.predictor(small)
    miss = F.pixel_unshuffle(luma(sharp - guess.mean.float()), UP) * torch.exp(-guess.spread)
    count = len(small)
    time = torch.sigmoid(1.1 * torch.randn(count, generator=dice))
    even = torch.rand(count, generator=dice)
    time = torch.where(torch.rand(count, generator=dice) < 0.25, even, time)
    signal, spoil = (part[:, None, None, None] for part in levels(time.to(small.device)))
    noise = torch.randn(miss.shape, generator=dice).to(miss)
    with torch.autocast(small.device.type, torch.bfloat16):
        guessed = model.detail(signal * miss + spoil * noise, signal.flatten(), guess.features, guess.spread)
    scale = torch.exp(guess.spread)
    weight = (scale / scale.mean()).clamp(0.3, 3)
    loss: Tensor = (weight * (guessed.float() - (signal * noise - spoil * miss)) ** 2).mean()
    return loss
