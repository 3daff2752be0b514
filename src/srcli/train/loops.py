"""The training loop: seeded batches, a moving average of the weights, checkpoints that resume to the same state."""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from srcli.errors import InputError, MachineError
from srcli.files import replace_file
from srcli.models.builtin import Builtin, Shape
from srcli.train.data import Pairs, batches
from srcli.train.losses import Loss, loss_of

PARTS = {"predict": "predictor", "edges": "edges", "detail": "detail", "distil": "detail"}
"""Stage to the part of the model it trains, in the order of training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All that a checkpoint's numbers depend on; a resume with another one is refused."""

    stage: str
    task: str = "upscale"
    shape: Shape = field(default_factory=Shape)
    cells: int = 32
    batch: int = 8
    lr: float = 5e-4
    seed: int = 1
    keep: float = 0.998


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """When to stop: whichever comes first. The learning rate falls to nothing over the last part."""

    steps: float = math.inf
    minutes: float = math.inf
    warm: int = 100
    fall: float = 0.5

    def rate(self, step: int, seconds: float) -> float:
        done = max(step / self.steps, seconds / 60 / self.minutes)
        return min(1.0, (step + 1) / self.warm) * min(1.0, max(0.0, (1 - done) / self.fall))

    def over(self, step: int, seconds: float) -> bool:
        return step >= self.steps or seconds >= 60 * self.minutes


@dataclass
class Run:
    """A stage under way: the model, the average of the part that learns, the optimiser, and how far it is."""

    recipe: Recipe
    model: Builtin
    learn: Loss
    average: dict[str, Tensor]
    optimiser: torch.optim.AdamW
    step: int = 0
    seconds: float = 0.0
    loss: float = math.nan

    @property
    def part(self) -> nn.Module:
        return getattr(self.model, PARTS[self.recipe.stage])  # type: ignore[no-any-return]

    @property
    def device(self) -> torch.device:
        return next(self.part.parameters()).device

    @classmethod
    def begin(cls, recipe: Recipe, model: Builtin) -> "Run":
        part = getattr(model, PARTS[recipe.stage])
        learn = loss_of(recipe.stage, model)
        model.requires_grad_(False)
        part.requires_grad_(True)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        average = {k: v.clone() for k, v in part.state_dict().items()}
        optimiser = torch.optim.AdamW(part.parameters(), recipe.lr, betas=(0.9, 0.99), weight_decay=0.0)
        return cls(recipe, model, learn, average, optimiser)

    def state(self) -> dict[str, Any]:
        return {
            "recipe": asdict(self.recipe),
            "weights": self.part.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "loss": self.loss,
        }

    def restore(self, state: dict[str, Any]) -> None:
        changed = [k for k, v in asdict(self.recipe).items() if state["recipe"].get(k) != v]
        if changed:
            was = ", ".join(f"{k} {state['recipe'].get(k)}" for k in changed)
            raise InputError(f"the checkpoint was made with {was}: resume with the same settings or take another --out")
        self.part.load_state_dict(state["weights"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average = {name: value.to(self.device) for name, value in state["average"].items()}
        self.step, self.seconds, self.loss = state["step"], state["seconds"], state["loss"]

    def advance(self, small: Tensor, sharp: Tensor, rate: float) -> None:
        """One step of gradient descent, and the average after it."""
        dice = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + self.step)
        loss = self.learn(self.model, small.to(self.device), sharp.to(self.device), dice)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.part.parameters(), 1.0)
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.lr * rate
        self.optimiser.step()
        self.step += 1
        self._account(float(loss.detach()))

    def _account(self, loss: float) -> None:
        keep = min(self.recipe.keep, self.step / (self.step + 10))
        for name, value in self.part.state_dict().items():
            self.average[name].lerp_(value, 1 - keep)
        self.loss = loss if math.isnan(self.loss) else 0.99 * self.loss + 0.01 * loss

    @torch.no_grad()
    def meet(self, weights: dict[str, Tensor], average: dict[str, Tensor]) -> None:
        """Move half way to another process's weights."""
        for own, other in ((self.part.state_dict(), weights), (self.average, average)):
            for name, value in own.items():
                value.lerp_(other[name].to(value), 0.5)


def train(run: Run, pairs: Pairs, budget: Budget, jobs: int = 0) -> Iterator[Run]:
    """Yields the run after every step; whoever drives it saves and reports."""
    made = batches(pairs, run.step, jobs)
    while not budget.over(run.step, run.seconds):
        began = time.monotonic()
        run.advance(*next(made), budget.rate(run.step, run.seconds))
        run.seconds += time.monotonic() - began
        yield run


def save(state: dict[str, Any], path: Path) -> None:
    """A full disk or a kill leaves the last checkpoint whole."""
    try:
        with replace_file(path) as fresh, fresh.open("wb") as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:
        raise MachineError(f"cannot save {path} ({error}): free disk space, then --resume") from error


def load(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"{path} is not a checkpoint of this command: take another --out") from error
    return state
