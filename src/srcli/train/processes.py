"""The processes of a training run, through accelerate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from srcli.errors import MachineError, unknown_word

PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Processes:
    """This process among the others, and the precision of frozen networks."""

    accelerator: Any
    frozen: torch.dtype

    @classmethod
    def join(cls, accumulate: int, precision: str, cpu: bool) -> Processes:
        """Join the processes that `accelerate launch` started, or run alone. "auto": bfloat16 if the GPU has it."""
        try:
            from accelerate import Accelerator
        except ImportError as error:
            raise MachineError("training needs one more package: pip install 'srcli[train]'") from error
        if precision not in PRECISIONS:
            raise unknown_word("--dtype", precision, PRECISIONS)
        cpu = cpu or not torch.cuda.is_available()
        half = precision == "bfloat16" or (precision == "auto" and not cpu and torch.cuda.is_bf16_supported())
        mixed = "bf16" if half else "no"
        accelerator = Accelerator(gradient_accumulation_steps=accumulate, mixed_precision=mixed, cpu=cpu)
        return cls(accelerator, torch.bfloat16 if half else torch.float32)

    @property
    def rank(self) -> int:
        return int(self.accelerator.process_index)

    @property
    def count(self) -> int:
        return int(self.accelerator.num_processes)

    @property
    def first(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes."""
        return self.accelerator.reduce(values, "mean")  # type: ignore[no-any-return]

    def agree(self, number: int) -> int:
        """The largest number of all processes."""
        if self.count == 1:
            return number
        numbers = self.accelerator.gather(torch.tensor([number], device=self.accelerator.device))
        return int(numbers.max())
