"""Two real processes (gloo) end with equal weights, which are those of one process with twice the batch."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tests import tiny_bases
from tests.unit.train.runs import fork
from typer.testing import CliRunner

from srcli.cli import app
from srcli.train import running


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def train_as(rank: int, port: int, arguments: list[str], own_weights: Path) -> None:
    """One of two processes of a run: trains, then leaves the weights that it holds itself."""
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)  # what the run before the fork was
    GradientState._reset_state()
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    kept, prepare = [], running.Trainer.prepare

    def remember(trainer: running.Trainer) -> None:
        prepare(trainer)
        kept.append(trainer)

    running.Trainer.prepare = remember  # type: ignore[method-assign]
    app(arguments, standalone_mode=False)
    assert kept[0].processes.rank == rank and kept[0].processes.count == 2
    save_file(
        {
            f"{learner.phase.name}.{name}": parameter.detach().clone()
            for learner in kept[0].learners
            for name, parameter in learner.phase.module.named_parameters()
        },
        own_weights,
    )


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """PASD's two trained networks, with accumulation: what the official program never synchronises."""
    base, data = tiny_bases.sd15_base(tmp_path / "base"), tiny_bases.photographs(tmp_path / "data", 3, 64)

    def arguments(name: str, batch: int) -> list[str]:
        run = ["train", "pasd", "--data", str(data), "--out", str(tmp_path / name), "--batch", str(batch)]
        more = ["--steps", "2", "--accumulate", "2", "--validation", "0", "--device", "cpu", "--offline"]
        return [*run, *more, "--base-model", str(base), "--side", "64", "--lr", "1e-4", "--form", "light"]

    assert CliRunner().invoke(app, arguments("one", 2)).exit_code == 0
    alone = load_file(max((tmp_path / "one" / "checkpoints").iterdir()) / "weights.safetensors")
    port, files = free_port(), [tmp_path / f"rank-{rank}.safetensors" for rank in range(2)]
    children = [fork(lambda r=r: train_as(r, port, arguments("two", 1), files[r])) for r in range(2)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    ranks = [load_file(file) for file in files]
    assert alone.keys() == ranks[0].keys() == ranks[1].keys()
    assert all(torch.equal(ranks[0][name], ranks[1][name]) for name in alone)
    moved = 2 * 1e-4  # Adam moves a weight by about its rate in each step
    off = torch.cat([(alone[name] - ranks[0][name]).abs().flatten() for name in alone])
    assert (off > 0.05 * moved).float().mean() < 0.01  # but for weights without a gradient to speak of
