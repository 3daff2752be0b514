"""Progress of a training: JSON lines in its folder, optionally TensorBoard, and messages for the user."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srcli.errors import MachineError, unwritable_file
from srcli.train.plan import TrainPlan
from srcli.train.processes import Processes

log = logging.getLogger(__name__)

LOG = "log.jsonl"
StepProgress = Callable[[int, int, Mapping[str, float]], None]
"""Called with step, number of steps, and the latest loss terms."""


@dataclass
class Watcher:
    """Collects loss terms and reports their means every `log_every` steps, in the first process only."""

    out: Path
    progress: StepProgress
    board: Any = None
    _sums: dict[str, Tensor] = field(default_factory=dict)
    _count: int = 0
    _since: float = field(default_factory=time.monotonic)

    def step(
        self,
        step: int,
        plan: TrainPlan,
        terms: Mapping[str, Tensor],
        extra: Mapping[str, float],
        processes: Processes,
    ) -> None:
        """Add a step's terms. All processes must call this, since means are taken over them."""
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value, dtype=torch.float32)) + value.float()
        self._count += 1
        if step % plan.log_every and step != plan.steps:
            return
        means = processes.mean(torch.stack(list(self._sums.values())) / self._count).tolist()
        spent = time.monotonic() - self._since
        samples = plan.batch * plan.accumulate * processes.count
        speed = {"samples_per_second": self._count * samples / max(spent, 1e-9), "samples_per_step": samples}
        line = {**dict(zip(self._sums, means, strict=True)), **extra, **speed}
        self._sums, self._count, self._since = {}, 0, time.monotonic()
        if processes.first:
            self._write({"step": step, **line})
            self.progress(step, plan.steps, line)

    def report_validation(self, step: int, scores: Mapping[str, float]) -> None:
        """Log and show the scores of the validation pictures."""
        self._write({"step": step, **{f"validation.{name}": value for name, value in scores.items()}})
        listed = ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
        log.info(f"step {step}: validation {listed}")
        self._since = time.monotonic()

    def _write(self, line: Mapping[str, float]) -> None:
        try:
            with (self.out / LOG).open("a", encoding="utf-8") as file:
                file.write(json.dumps({name: _round(value) for name, value in line.items()}) + "\n")
        except OSError as error:
            raise unwritable_file(self.out / LOG, error, "make room") from error
        if self.board is not None:
            for name, value in line.items():
                self.board.add_scalar(name, value, line["step"])


def _round(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.6g}")


def open_board(out: Path) -> Any:
    """TensorBoard's writer. Raises MachineError if the package is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MachineError("--tensorboard needs one more package: pip install tensorboard") from error
    return SummaryWriter(str(out / "tensorboard"))
