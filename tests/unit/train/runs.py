"""Trainings of tiny models through the command line, and what is left of them."""

from __future__ import annotations

import os
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pytest import MonkeyPatch
from safetensors.torch import load_file
from tests import tiny_bases
from tests.stablesr_folder import write_adapter, write_base
from typer.testing import CliRunner, Result

from srcli.cli import app
from srcli.train import checkpoints, running
from srcli.train.estimate import StepEstimate
from srcli.train.systems.base import Phase

SYSTEMS = ("pasd", "stablesr", "cfw", "sr3")
BATCH = 2


class Home:
    """Bases, weights and pictures, made once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sd15 = tiny_bases.sd15_base(root / "sd15")
        self.sd21, self.stablesr = write_base(root / "sd21"), write_adapter(root / "stablesr", fusion=False)
        self.lpips = tiny_bases.lpips_file(root / "lpips.safetensors")
        self.sr3 = tiny_bases.sr3_config(root / "sr3.json")
        self.data = tiny_bases.photographs(root / "data", 4, 128)
        self.single = tiny_bases.photographs(root / "single", 1, 128)

    def options(self, system: str) -> list[str]:
        cached = ["--cache", str(self.root / "cache"), "--pairs", "2", "--sampling-steps", "2"]
        return {
            "pasd": ["--base-model", str(self.sd15), "--side", "64", "--lr", "1e-3"],
            "stablesr": ["--base-model", str(self.sd21), "--side", "128", "--from", str(self.stablesr), "--lr", "1e-4"],
            "cfw": ["--base-model", str(self.sd21), "--side", "128", "--adapter", str(self.stablesr), *cached]
            + ["--lpips", str(self.lpips), "--batch", "1"],
            "sr3": ["--size", str(self.sr3)],
        }[system]

    def train(self, system: str, out: Path, steps: int, *more: str, data: Path | None = None) -> Result:
        common = ["--data", str(data or self.data), "--out", str(out), "--steps", str(steps), "--batch", str(BATCH)]
        common += ["--accumulate", "1", "--validation", "0", "--device", "cpu", "--offline", "--log-every", "1"]
        return CliRunner().invoke(app, ["train", system, *common, *self.options(system), *more])


@contextmanager
def estimating_once() -> Iterator[None]:
    """Each system's step is estimated in its first run only: that takes longer than all steps of a run."""
    known: dict[type, StepEstimate] = {}
    estimate = running.estimate_step

    def estimate_once(phases: Sequence[Phase], inputs: Any) -> StepEstimate:
        if type(inputs) not in known:
            known[type(inputs)] = estimate(phases, inputs)
        return known[type(inputs)]

    with MonkeyPatch.context() as patch:
        patch.setattr(running, "estimate_step", estimate_once)
        yield


def read_weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(max((out / "checkpoints").iterdir()) / checkpoints.WEIGHTS_PART)


def same_weights(one: Path, other: Path) -> bool:
    a, b = read_weights(one), read_weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def fork(work: Callable[[], object]) -> int:
    """A process that does this work, without the seconds that imports take. It ends with 1 if the work fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of newer Pythons, which count threads
        child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return child
