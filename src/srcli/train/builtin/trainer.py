"""The training loop of the built-in network: learn teachers' outputs, then sharpen the crisp head."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srcli.errors import PictureError
from srcli.models.builtin import Builtin
from srcli.train.builtin.bank import DAMAGE_NONE, Bank
from srcli.train.builtin.features import FeatureNetwork, feature_distance
from srcli.train.builtin.losses import (
    Critic,
    balanced_gradient,
    colour_drift,
    critic_loss,
    generator_loss,
    pixel_distance,
)
from srcli.train.builtin.photos import rotate_and_flip


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStage:
    """One stage. Its learning rate warms up, then follows a cosine over `seconds`, or over `steps`."""

    name: str
    seconds: float
    rate: float
    batch: int
    features: float = 0.0  # weight of the feature distance to the truth, relative to the pixel loss
    critic: float = 0.0  # weight of the critic
    truth: float = 0.0  # share of samples whose crisp target is the truth instead of the teacher's output
    crisp_only: bool = False  # train only the crisp head
    warmup: int = 100
    average: float = 0.999
    steps: int | None = None  # instead of seconds

    def progress(self, seconds: float, steps: int) -> float:
        """The finished share of the stage."""
        return steps / self.steps if self.steps is not None else seconds / max(self.seconds, 1e-9)


FAITHFUL_DRIFT, CRISP_DRIFT = 4.0, 0.7
"""Weights of the colour drift: in the faithful head's loss, and relative to the crisp head's first gradient."""
CRITIC_RATE, ESTIMATOR_RATE = 3e-4, 3e-3
LEARNING = ("model", "average", "critic", "optimizer", "critic_optimizer", "estimator_optimizer")
PLACE = ("step", "stage", "done", "seconds")


class Training:
    """The state of a training: the network, its running average, the critic, and the optimizers."""

    def __init__(self, model: Builtin, features: FeatureNetwork | None, device: torch.device, seed: int) -> None:
        self.model = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
        self.critic = Critic().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.features, self.device, self.step = features, device, 0
        self.drawing = [p for name, p in self.model.named_parameters() if not name.startswith("estimator.")]
        self.optimizer = torch.optim.AdamW(self.drawing, lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-4)
        # Separate, since its gradients are small: clipped together with the others it would hardly train.
        self.estimator_optimizer = torch.optim.AdamW(self.model.estimator.parameters(), lr=3e-3)
        self.critic_optimizer = torch.optim.AdamW(self.critic.parameters(), lr=2e-4, betas=(0.5, 0.99))
        self.dice = torch.Generator(device).manual_seed(seed)
        self.turns = torch.Generator().manual_seed(seed)
        self.losses: dict[str, float] = {}
        self.stage, self.done, self.seconds = "", 0, 0.0

    def run(self, stage: TrainingStage, bank: Bank, on_step: Callable[[], None]) -> None:
        """Train until the stage's time or steps are over, including those before a resume."""
        if self.stage != stage.name:
            self.stage, self.done, self.seconds = stage.name, 0, 0.0
        began = time.monotonic() - self.seconds
        while (progress := stage.progress(self.seconds, self.done)) < 1:
            rate = stage.rate * min(1.0, (self.done + 1) / stage.warmup) * _cosine(progress)
            self._set_rate(rate, rate / stage.rate)
            self._step(stage, bank)
            self.done, self.seconds = self.done + 1, time.monotonic() - began
            on_step()

    def _set_rate(self, rate: float, share: float) -> None:
        """Set the learning rates: `rate` for trunk and heads, `share` of their own for critic and estimator."""
        rates = (self.optimizer, rate), (self.critic_optimizer, share * CRITIC_RATE)
        for optimizer, value in (*rates, (self.estimator_optimizer, share * ESTIMATOR_RATE)):
            for group in optimizer.param_groups:
                group["lr"] = value

    def _step(self, stage: TrainingStage, bank: Bank) -> None:
        indices = torch.randint(len(bank), (stage.batch,), generator=self.dice, device=self.device)
        damaged, sharp, answers, damage, kinds = bank.batch(indices)
        number = int(torch.randint(8, (), generator=self.turns))
        damaged, sharp, answers = rotate_and_flip(number, damaged, sharp, answers)
        damaged = damaged.contiguous(memory_format=torch.channels_last)
        clean = (kinds == DAMAGE_NONE)[:, None, None, None]
        estimate = self._estimate(damaged, damage, learn=not stage.crisp_only)
        known = self._draw_mask(stage.batch, 0.5)[:, None]
        noise = torch.randn(damage.shape, generator=self.dice, device=self.device)
        damage_input = torch.where(known, damage * (1 + 0.1 * noise), estimate)
        if stage.crisp_only:
            crisp, other = self._draw_crisp(damaged, damage_input), torch.zeros((), device=self.device)
        else:
            crisp, other = self._draw_both(damaged, damage_input, clean, sharp, answers)
        from_truth = self._draw_mask(stage.batch, stage.truth)[:, None, None, None]
        target = torch.where(from_truth, sharp, answers).contiguous()
        leaf = crisp.detach().contiguous().requires_grad_(True)
        # No benchmarking: trying every algorithm on the feature network's depthwise layers takes long.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False):
            gradient = self._find_crisp_gradient(stage, leaf, target, sharp.contiguous(), damaged.contiguous())
        self.optimizer.zero_grad(set_to_none=True)
        losses = (crisp,) if stage.crisp_only else (crisp, other)
        torch.autograd.backward(losses, (gradient, None)[: len(losses)])
        _clip_gradients(self.drawing)
        self.optimizer.step()
        self.step += 1
        self._update_average(min(stage.average, (1 + self.step) / (10 + self.step)))

    def _draw_crisp(self, damaged: Tensor, damage_input: Tensor) -> Tensor:
        with self._half():
            with torch.no_grad():
                film = self.model.modulation(damage_input)
                features = self.model.encode(damaged, film)
            added = self.model.draw_crisp(features, film)
        result: Tensor = self.model.enlarge(damaged) + added.float()
        return result

    def _draw_both(
        self, damaged: Tensor, damage_input: Tensor, clean: Tensor, sharp: Tensor, answers: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The crisp result, and the faithful head's loss."""
        with self._half():
            ends = self.model(damaged, damage_input)
        taught = clean & self._draw_mask(len(damaged), 0.5)[:, None, None, None]
        faithful = ends.faithful.float()
        loss = pixel_distance(faithful, torch.where(taught, answers, sharp), 0.1)
        loss = loss + FAITHFUL_DRIFT * colour_drift(faithful, sharp)
        if self.step % 50 == 0:
            self.losses["faithful"] = float(loss.detach())
        return ends.crisp.float(), loss

    def _draw_mask(self, count: int, probability: float) -> Tensor:
        return torch.rand(count, generator=self.dice, device=self.device) < probability

    def _estimate(self, damaged: Tensor, damage: Tensor, learn: bool) -> Tensor:
        """The estimated damage, detached; `learn`: train the estimator on the measured damage."""
        with self._half():
            estimate: Tensor = self.model.estimate(damaged).float()
        if learn:
            loss = F.smooth_l1_loss(estimate, damage, beta=0.05)
            self.estimator_optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            _clip_gradients(list(self.model.estimator.parameters()))
            self.estimator_optimizer.step()
            if self.step % 50 == 0:
                self.losses["damage"] = float(loss.detach())
        return estimate.detach()

    def _half(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16)

    def _find_crisp_gradient(
        self, stage: TrainingStage, crisp: Tensor, target: Tensor, sharp: Tensor, damaged: Tensor
    ) -> Tensor:
        """The gradient at the crisp result."""
        pixel = pixel_distance(crisp, target, 0.5)
        parts = {"pixel": (1.0, pixel), "drift": (CRISP_DRIFT, colour_drift(crisp, sharp))}
        if stage.features and self.features is not None:
            with self._half():
                parts["features"] = stage.features, feature_distance(self.features, crisp, sharp)
        if stage.critic:
            self._teach_critic(crisp.detach(), sharp, damaged)
            with self._half():
                logits = self.critic(sharp, damaged).detach(), self.critic(crisp, damaged)
            parts["critic"] = stage.critic, generator_loss(*logits)
        if self.step % 50 == 0:
            self.losses |= {name: float(loss.detach()) for name, (_, loss) in parts.items()}
        return balanced_gradient(crisp, list(parts.values()))

    def _teach_critic(self, crisp: Tensor, sharp: Tensor, damaged: Tensor) -> None:
        with self._half():
            loss = critic_loss(self.critic(sharp, damaged), self.critic(crisp, damaged))
        self.critic_optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.critic_optimizer.step()
        if self.step % 50 == 0:
            self.losses["critic's own"] = float(loss.detach())

    @torch.no_grad()
    def _update_average(self, keep: float) -> None:
        own, average = list(self.model.parameters()), list(self.average.parameters())
        torch._foreach_lerp_(average, own, 1 - keep)

    def state(self) -> dict[str, Any]:
        """Everything that is needed to resume the training exactly."""
        return {
            **{name: getattr(self, name).state_dict() for name in LEARNING},
            "dice": self.dice.get_state(),
            "turns": self.turns.get_state(),
            "place": {name: getattr(self, name) for name in PLACE},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Resume from a saved state."""
        for name in LEARNING:
            getattr(self, name).load_state_dict(state[name])
        self.dice.set_state(state["dice"])
        self.turns.set_state(state["turns"])
        for name in PLACE:
            setattr(self, name, state["place"][name])

    def check_finite(self) -> None:
        """Raises PictureError if the weights contain NaN or infinity."""
        if not all(bool(torch.isfinite(p).all()) for p in self.average.parameters()):
            raise PictureError(f"step {self.step} left weights that are not finite: lower --rate", "not-finite")


def _cosine(progress: float) -> float:
    """A cosine from 1 down to 0.02."""
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def _clip_gradients(parameters: list[nn.Parameter]) -> None:
    """Clip gradients to a norm of 1, and set those that are not finite to 0, without synchronizing the device."""
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm(grads)
    torch._foreach_mul_(grads, torch.nan_to_num((1 / (norm + 1e-6)).clamp(max=1.0), nan=0.0, posinf=0.0))
    for grad in grads:
        grad.nan_to_num_(0.0, 0.0, 0.0)
