"""Two real processes (gloo) end with equal weights, which are those of one process with twice the batch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from tests import tiny_bases
from typer.testing import CliRunner

from srcli.cli import app

SCRIPT = Path(__file__).with_name("two_processes.py")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(out: Path, arguments: list[str], **env: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(SCRIPT), str(out), *arguments]
    return subprocess.Popen(command, env={**os.environ, **env}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said.decode()


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """PASD's two trained networks, with accumulation: what the official program never synchronises."""
    base, data = tiny_bases.sd15_base(tmp_path / "base"), tiny_bases.photographs(tmp_path / "data", 3, 64)
    port = str(free_port())

    def arguments(name: str, batch: int) -> list[str]:
        run = ["train", "pasd", "--data", str(data), "--out", str(tmp_path / name), "--batch", str(batch)]
        more = ["--steps", "2", "--accumulate", "2", "--validation", "0", "--device", "cpu", "--offline"]
        return [*run, *more, "--base-model", str(base), "--side", "64", "--lr", "1e-4", "--form", "light"]

    processes = []
    for rank in range(2):
        env = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        more = {"MASTER_PORT": port, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        processes.append(start(tmp_path, arguments("two", 1), **env, **more))
    for process in processes:
        finish(process)
    ranks = [load_file(tmp_path / f"rank-{rank}.safetensors") for rank in range(2)]
    assert all(torch.equal(ranks[0][name], ranks[1][name]) for name in ranks[0])
    assert CliRunner().invoke(app, arguments("one", 2)).exit_code == 0
    saved = load_file(max((tmp_path / "one" / "checkpoints").iterdir()) / "weights.safetensors")
    alone = {name.replace("pasd.", "0.", 1): value for name, value in saved.items()}
    assert alone.keys() == ranks[0].keys()
    moved = 2 * 1e-4  # Adam moves a weight by about its rate in each step
    off = torch.cat([(alone[name] - ranks[0][name]).abs().flatten() for name in alone])
    assert (off > 0.05 * moved).float().mean() < 0.01  # but for weights without a gradient to speak of
