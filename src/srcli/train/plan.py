"""The settings of a training run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srcli.errors import InputError, unknown_word

CONSTANT, COSINE = "constant", "cosine"
SCHEDULES = (CONSTANT, COSINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The learning rate schedule, as a factor of the optimizer's rate."""

    kind: str = CONSTANT
    warm_up: int = 0

    def __post_init__(self) -> None:
        if self.kind not in SCHEDULES:
            raise unknown_word("--schedule", self.kind, SCHEDULES)

    def rate(self, step: int, steps: int) -> float:
        """The factor at update number `step`, counted from 0."""
        rising = min(1.0, (step + 1) / (self.warm_up + 1))
        falling = (1 + math.cos(math.pi * step / steps)) / 2 if self.kind == COSINE else 1.0
        return rising * falling


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainPlan:
    """The settings of all systems. `data`: None if all pairs are made already. `batch`: samples per process.

    `jobs`: worker processes that prepare batches.
    """

    data: Path | None
    out: Path
    steps: int
    batch: int = 4
    accumulate: int = 1
    seed: int = 1
    schedule: Schedule = Schedule()
    drop_caption: float = 0.0
    precision: str = "auto"
    cpu: bool = False
    jobs: int = 0
    save_every: int = 1000
    validate_every: int = 1000
    validation: int = 4
    log_every: int = 10
    keep: int = 2
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "save_every", "validate_every", "log_every", "keep"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)} must be at least 1")
        if not 0 <= self.drop_caption <= 1:
            raise InputError(f"--drop-caption {self.drop_caption} must lie between 0 and 1")

    @property
    def checkpoints(self) -> Path:
        return self.out / "checkpoints"

    @property
    def result(self) -> Path:
        return self.out / "adapter"

    def numbers(self, processes: int) -> Mapping[str, Any]:
        """The settings that determine the result: a run is only resumed with the same ones."""
        return {
            "batch": self.batch * processes,
            "accumulate": self.accumulate,
            "seed": self.seed,
            "schedule": self.schedule.kind,
            "warm_up": self.schedule.warm_up,
            "drop_caption": self.drop_caption,
            "precision": self.precision,
            **({"steps": self.steps} if self.schedule.kind == COSINE else {}),
        }
