"""The training loop, independent of the system: each step updates all phases on the same batches.

It runs in one process or several (accelerate). A run that is killed resumes from its last checkpoint, and ends with
the same weights as without the interruption.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from srcli.errors import MachineError
from srcli.train.checkpoints import Checkpoint, check_same, load_newest, remove_unfinished, save_checkpoint
from srcli.train.plan import TrainPlan
from srcli.train.processes import Processes
from srcli.train.stopping import Stopped, catch_signals
from srcli.train.systems.base import Batch, BatchSource, OptimizerSettings, Phase, SampleNoise, System
from srcli.train.training_set import iterate_batches
from srcli.train.watching import Watcher

log = logging.getLogger(__name__)

Terms = dict[str, float]
Validate = Callable[[int], Terms]


@dataclass
class _Learner:
    """A phase with its module, prepared by accelerate, and its optimizer."""

    phase: Phase
    module: nn.Module
    optimizer: Any

    def update(self, inputs: Sequence[Any], rate: float, processes: Processes) -> dict[str, Tensor]:
        """Accumulate the gradients of all batches; returns the mean of their terms and the gradient's norm."""
        totals: dict[str, Tensor] = {}
        for group in self.optimizer.param_groups:
            group["lr"] = self.phase.optimizer.lr * rate
        self.optimizer.zero_grad(set_to_none=True)
        for each in inputs:
            with processes.accelerator.accumulate(self.module):
                terms = self.module(each)
                processes.accelerator.backward(terms["loss"])
            self.phase.module.close()
            for name, value in terms.items():
                totals[name] = totals.get(name, torch.zeros_like(value)) + value.detach() / len(inputs)
        limit = self.phase.optimizer.clip
        totals["gradient"] = nn.utils.clip_grad_norm_(self.phase.parameters, math.inf if limit is None else limit)
        return totals


@dataclass
class Trainer:
    """A training run and its state."""

    plan: TrainPlan
    system: System
    source: BatchSource
    watcher: Watcher
    processes: Processes
    validate: Validate
    step: int = 0
    seconds: float = 0.0
    learners: list[_Learner] = field(default_factory=list)

    def run(self) -> None:
        """Train from the newest checkpoint, or from the start, to the end. Raises Stopped, MachineError, InputError."""
        self.prepare()
        with ExitStack() as stack:
            received = stack.enter_context(catch_signals())
            batches = iterate_batches(self.source, self.step * self.plan.accumulate, self.plan.jobs)
            while self.step < self.plan.steps:
                began = time.monotonic()
                self._advance([next(batches) for _ in range(self.plan.accumulate)])
                self.seconds += time.monotonic() - began
                stop = self.processes.agree(received.signal)
                if stop or self.step % self.plan.save_every == 0 or self.step == self.plan.steps:
                    self.save()
                if stop:
                    raise Stopped(stop, self.step)
                if self.step % self.plan.validate_every == 0 and self.step < self.plan.steps:
                    self._validate()
        self._validate()

    def prepare(self) -> None:
        """Move networks to the device, create optimizers, and load the newest checkpoint."""
        accelerator = self.processes.accelerator
        self.system.to(accelerator.device, self.processes.frozen)
        for phase in self.system.phases:
            optimizer = make_optimizer(phase)
            self.learners.append(_Learner(phase, accelerator.prepare(phase.module), optimizer))
        if self.processes.first:
            remove_unfinished(self.plan.checkpoints)
        self.processes.wait()
        checkpoint = load_newest(self.plan.checkpoints)
        if checkpoint is not None:
            self._restore(checkpoint)

    def settings(self) -> dict[str, Any]:
        numbers = self.plan.numbers(self.processes.count)
        return {"system": self.system.name, **self.system.settings(), **numbers, "data": self.source.fingerprint()}

    def _advance(self, group: Sequence[Batch]) -> None:
        """One step: the update of every phase, on the same batches."""
        for batch in group:
            for problem in batch.problems:
                log.info(f"left out: {problem}")
        dropout_seed = (self.plan.seed * 1_000_003 + self.step) * 1009 + self.processes.rank
        torch.manual_seed(dropout_seed % 2**64)
        inputs = [self.system.inputs(b, SampleNoise(self.plan.seed, b.micro, b.places), self.step) for b in group]
        rate = self.plan.schedule.rate(self.step, self.plan.steps)
        terms: dict[str, Tensor] = {}
        for learner in self.learners:
            own = learner.update(inputs, rate, self.processes)
            self._refuse_nan(own, group)
            learner.optimizer.step()
            prefix = "" if len(self.learners) == 1 else f"{learner.phase.name}."
            terms |= {f"{prefix}{name}": value for name, value in own.items()}
        self.step += 1
        rates = {"lr": self.learners[0].optimizer.param_groups[0]["lr"]}
        self.watcher.step(self.step, self.plan, terms, rates, self.processes)

    def _refuse_nan(self, terms: dict[str, Tensor], group: Sequence[Batch]) -> None:
        """MachineError with the pictures' names, before the update. The gradient's norm is that of all processes."""
        if bool(torch.isfinite(torch.stack([terms["loss"].float(), terms["gradient"].float()])).all()):
            return
        names = ", ".join(name for batch in group for name in batch.names)
        last = f"the newest checkpoint in {self.plan.checkpoints} is intact"
        raise MachineError(f"step {self.step + 1} gave NaN or infinity for {names}: lower --lr; {last}")

    def save(self) -> None:
        """Write a checkpoint in the first process; the others wait."""
        if self.processes.first:
            weights = {
                f"{learner.phase.name}.{name}": tensor.detach().cpu()
                for learner in self.learners
                for name, tensor in learner.phase.module.state_dict().items()
            }
            optimizers = {learner.phase.name: learner.optimizer.state_dict() for learner in self.learners}
            now = Checkpoint(self.step, self.seconds, self.settings(), weights, optimizers)
            save_checkpoint(self.plan.checkpoints, now, self.plan.keep)
        self.processes.wait()

    def _restore(self, checkpoint: Checkpoint) -> None:
        check_same(self.plan.out, checkpoint.settings, self.settings())
        for learner in self.learners:
            prefix = f"{learner.phase.name}."
            own = {k.removeprefix(prefix): v for k, v in checkpoint.weights.items() if k.startswith(prefix)}
            learner.phase.module.load_state_dict(own)
            learner.optimizer.load_state_dict(checkpoint.optimizers[learner.phase.name])
        self.step, self.seconds = checkpoint.step, checkpoint.seconds
        log.info(f"resuming from step {checkpoint.step}")

    def _validate(self) -> None:
        if self.processes.first and self.plan.validation:
            self.watcher.report_validation(self.step, self.validate(self.step))
        self.processes.wait()


def make_optimizer(phase: Phase) -> torch.optim.Optimizer:
    """The phase's optimizer. Raises MachineError if 8-bit moments are requested without bitsandbytes."""
    own: OptimizerSettings = phase.optimizer
    options: dict[str, Any] = {"lr": own.lr, "betas": own.betas, "eps": 1e-8, "weight_decay": own.decay}
    if own.bits == 8:
        try:
            import bitsandbytes
        except ImportError as error:
            raise MachineError("--optimizer-bits 8 needs one more package: pip install bitsandbytes") from error
        kind = bitsandbytes.optim.AdamW8bit if own.kind == "adamw" else bitsandbytes.optim.Adam8bit
        return kind(phase.parameters, **options)  # type: ignore[no-any-return]
    cls = torch.optim.AdamW if own.kind == "adamw" else torch.optim.Adam
    return cls(phase.parameters, **options)
