"""What each of the stages learns from. All take the whole model, so later ones see the earlier."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from srcli.engines.builtin.spec import STEPS
from srcli.models.builtin import UP, Builtin, Detail, Prediction, gradients, luma, straight_edges
from srcli.sampling.cosine import Cosine, levels

Loss = Callable[[Builtin, Tensor, Tensor, torch.Generator], Tensor]
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


def _missed(model: Builtin, small: Tensor, sharp: Tensor) -> tuple[Prediction, Tensor]:
    """What the frozen predictor says, and the normalised luma residual that it leaves to the denoiser."""
    with torch.no_grad(), torch.autocast(small.device.type, torch.bfloat16):
        guess: Prediction = model.predictor(small)
    return guess, F.pixel_unshuffle(luma(sharp - guess.mean.float()), UP) * torch.exp(-guess.spread)


def _weighted(spread: Tensor, error: Tensor) -> Tensor:
    """The mean of the squared error, which counts more where more is missing."""
    scale = torch.exp(spread)
    return ((scale / scale.mean()).clamp(0.3, 3) * error**2).mean()


def detail_loss(model: Builtin, small: Tensor, sharp: Tensor, dice: torch.Generator) -> Tensor:
    """The v-prediction error of the normalised luma residual, at noise levels that matter most."""
    guess, miss = _missed(model, small, sharp)
    count = len(small)
    time = torch.sigmoid(1.1 * torch.randn(count, generator=dice))
    even = torch.rand(count, generator=dice)
    time = torch.where(torch.rand(count, generator=dice) < 0.25, even, time)
    signal, spoil = (part[:, None, None, None] for part in levels(time.to(small.device)))
    noise = torch.randn(miss.shape, generator=dice).to(miss)
    with torch.autocast(small.device.type, torch.bfloat16):
        guessed = model.detail(signal * miss + spoil * noise, signal.flatten(), guess.features, guess.spread)
    return _weighted(guess.spread, guessed.float() - (signal * noise - spoil * miss))


@dataclass(frozen=True)
class Distil:
    """One step of the few that a picture is sampled in, against several of the denoiser as it was.

    Few steps of DDIM cut corners and end with less detail than there should be; the student learns to end where
    the teacher does.
    """

    teacher: Detail
    parts: int = 4

    def __call__(self, model: Builtin, small: Tensor, sharp: Tensor, dice: torch.Generator) -> Tensor:
        guess, miss = _missed(model, small, sharp)
        times = Cosine(STEPS).times.float().to(miss.device)
        place = torch.randint(STEPS, (len(miss),), generator=dice).to(miss.device)
        start, end = times[place], times[place + 1]
        noise = torch.randn(miss.shape, generator=dice).to(miss)
        signal, spoil = (part[:, None, None, None] for part in levels(start))
        x = signal * miss + spoil * noise
        turn, side = (part[:, None, None, None] for part in levels(start - end))
        with torch.autocast(small.device.type, torch.bfloat16):
            with torch.no_grad():
                wanted = (turn * x - self._walk(x, start, end, guess)) / side
            guessed = model.detail(x, signal.flatten(), guess.features, guess.spread)
        return _weighted(guess.spread, guessed.float() - wanted)

    def _walk(self, x: Tensor, start: Tensor, end: Tensor, guess: Prediction) -> Tensor:
        """Where the teacher ends. A step of DDIM is a turn in the plane of picture and noise."""
        stride = (start - end) / self.parts
        turn, side = (part[:, None, None, None] for part in levels(stride))
        for part in range(self.parts):
            signal, _ = levels(start - part * stride)
            x = turn * x - side * self.teacher(x, signal, guess.features, guess.spread)
        return x


def loss_of(stage: str, model: Builtin) -> Loss:
    """The loss of a stage that begins with `model` as it is now."""
    if stage == "distil":
        return Distil(deepcopy(model.detail).requires_grad_(False))
    return {"predict": predict_loss, "edges": edge_loss, "detail": detail_loss}[stage]
