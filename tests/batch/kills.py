"""Kill a batch at random moments, again and again, and compare what is left with an undisturbed run's.

    python -m tests.batch.kills --count 200 [--workers 2] [--seed 7]

Each run gets one signal, in half of the cases its whole process group. After each the results so far must be whole
pictures; in the end every file must be equal to that of the undisturbed run, and nothing else may lie there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from tests.batch.fakes import draw
from tests.batch.rig import start

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
ENDINGS = ("png", "jpg", "webp", "bmp", "tif")
JOURNAL = ".srcli-journal.jsonl"
POLL = 0.004  # seconds
TOLD = 20  # kills from one line of figures to the next
SPREAD = 0.03  # seconds between the moment that a run has moved on and its signal, at most


def draw_tree(folder: Path, count: int) -> None:
    """Pictures of several formats in three folders."""
    for number in range(count):
        draw(folder / f"{number % 3}" / f"{number:02}.{ENDINGS[number % 5]}", 40, 30, seed=number)


def hash_tree(folder: Path) -> dict[str, str]:
    """Every file of a result tree, hidden ones too; only the journal tells of its own times."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != JOURNAL)
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def check_whole(folder: Path) -> None:
    """Every result opens to its last pixel."""
    for path in folder.rglob("*.*"):
        if not path.name.startswith("."):
            with Image.open(path) as picture:
                picture.load()


def count_lines(out: Path) -> int:
    """How far a run is, by its journal."""
    try:
        return (out / JOURNAL).read_bytes().count(b"\n")
    except OSError:
        return 0


def finish(run: subprocess.Popen[bytes]) -> None:
    """Let a run come to its end, which must be a good one."""
    _, stderr = run.communicate(timeout=600)
    assert run.returncode == 0, stderr


@dataclass
class Killer:
    """One batch that is never left in peace."""

    source: Path
    out: Path
    calm: dict[str, str]
    workers: int
    chance: random.Random
    sent: Counter[str] = field(default_factory=Counter)  # signals that ended a run
    codes: Counter[int] = field(default_factory=Counter)  # exit codes of those runs
    batches: int = 0  # that came to their end in spite of all

    def start(self, seconds: float) -> subprocess.Popen[bytes]:
        more = ("--workers", self.workers) if self.workers > 1 else ()
        order = (self.source, "--recursive", "--scale", "2", "--device", "cpu", *more, "-o", self.out)
        return start(*order, seconds=seconds)

    def kill_once(self) -> None:
        """Start a run, and send a signal somewhere between two lines of the journal."""
        number, group = self.chance.choice(SIGNALS), self.chance.random() < 0.5
        run, lines = self.start(0.02), count_lines(self.out)
        while count_lines(self.out) < lines + 2 and run.poll() is None:
            time.sleep(POLL)
        time.sleep(self.chance.random() * SPREAD)
        with suppress(ProcessLookupError):
            os.killpg(run.pid, number) if group else os.kill(run.pid, number)
        _, stderr = run.communicate(timeout=600)
        assert b"Traceback" not in stderr, stderr
        check_whole(self.out)
        if run.returncode:
            self.sent[number.name] += 1
            self.codes[run.returncode] += 1
        else:  # it was done before it could be killed
            self.compare()

    def compare(self) -> None:
        """All is there, nothing else is, and nothing is reported as failed. Then all begins anew."""
        assert hash_tree(self.out) == self.calm
        lines = (self.out / JOURNAL).read_bytes().splitlines()
        told = [json.loads(line) for line in lines if line.endswith(b"}") and line.startswith(b"{")]
        assert not [record for record in told if record.get("status") == "failed"]
        shutil.rmtree(self.out)
        self.batches += 1

    def __str__(self) -> str:
        sent, codes = dict(self.sent), dict(self.codes)
        return (
            f"{self.sent.total()} runs killed {sent}, exit codes {codes}, {self.batches} batches ended as undisturbed"
        )

    def kill(self, count: int) -> None:
        while self.sent.total() < count:
            self.kill_once()
            if self.sent.total() % TOLD == 0:
                print(self, flush=True)
        finish(self.start(0.0))
        self.compare()


def run_kills(folder: Path, count: int, workers: int = 1, seed: int = 7, pictures: int = 40) -> Killer:
    """Kill so many runs of a batch of so many pictures. AssertionError says what is not as it should be."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background: runs would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    draw_tree(folder / "in", pictures)
    finish(start(folder / "in", "--recursive", "--scale", "2", "--device", "cpu", "-o", folder / "calm"))
    calm = hash_tree(folder / "calm")
    assert len(calm) == pictures
    killer = Killer(folder / "in", folder / "out", calm, workers, random.Random(seed))
    killer.kill(count)
    return killer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("count", 200), ("workers", 1), ("seed", 7), ("pictures", 40)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        done = run_kills(Path(folder), asked.count, asked.workers, asked.seed, asked.pictures)
    print(done)


if __name__ == "__main__":
    main()
