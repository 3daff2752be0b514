"""Kill trainings at random moments, again and again: they end in the weights of an undisturbed one.

    python -m tests.unit.train.kills [--count 10] [--seed 7] [pasd] [stablesr] [cfw] [sr3]

Each start takes two steps; a kill comes within the time of a step after that: while a checkpoint is written, or in the
next step.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path

from tests import tiny_bases
from tests.unit.train.runs import BATCH, SYSTEMS, Home, estimating_once, fork, same_weights

STEPS = 3  # for each kill
POLL = 0.005  # seconds


def run_kills(home: Home, system: str, folder: Path, kills: int, seed: int = 7) -> None:
    """An undisturbed run in folder/whole, and one in folder/killed. Raises AssertionError where they differ."""
    whole, killed, steps = folder / "whole", folder / "killed", STEPS * kills
    done = home.train(system, whole, steps, "--validation", "1")
    assert done.exit_code == 0, done.output
    longest = BATCH / tiny_bases.read_log(whole)[-2]["samples_per_second"]
    chance, sent = random.Random(seed), 0
    while sent < kills:
        if kill_once(home, system, killed, steps, chance.random() * longest):
            sent += 1
        else:
            shutil.rmtree(killed)  # it was done before it could be killed: once more
            sent = 0
    last = home.train(system, killed, steps, "--save-every", "1")
    assert last.exit_code == 0, last.output
    assert "resuming from step" in last.stderr
    assert same_weights(whole, killed)
    assert not [path for path in (killed / "checkpoints").iterdir() if path.name.startswith(".")]


def kill_once(home: Home, system: str, out: Path, steps: int, delay: float) -> bool:
    """Start or go on, and kill this many seconds after the second step. False: the run came to its end before."""
    before = count_lines(out)
    child = fork(lambda: home.train(system, out, steps, "--save-every", "1"))
    while count_lines(out) < before + 2:
        ended, status = os.waitpid(child, os.WNOHANG)
        assert not ended, f"the run ended by itself, with status {status}"
        time.sleep(POLL)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def count_lines(out: Path) -> int:
    log = out / "log.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("systems", nargs="*", default=SYSTEMS, choices=SYSTEMS)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, estimating_once():
        home = Home(Path(folder))
        for system in given.systems:
            run_kills(home, system, Path(folder) / "runs" / system, given.count, given.seed)
            print(f"{system}: {given.count} kills, the same weights", flush=True)


if __name__ == "__main__":
    main()
