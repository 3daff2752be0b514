"""Runs that are killed, again and again: the folder ends as if nothing had happened."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from PIL import Image

from tests.batch.fakes import draw
from tests.batch.rig import start

KILLS = 30
PICTURES = 40


def pictures(folder: Path) -> None:
    endings = ("png", "jpg", "webp", "bmp", "tif")
    for number in range(PICTURES):
        draw(folder / f"{number % 3}" / f"{number:02}.{endings[number % 5]}", 40, 30, seed=number)


def content(folder: Path) -> dict[str, str]:
    """Every file of a result tree, hidden ones too; only the journal tells of its own times."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != ".srcli-journal.jsonl")
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def whole(path: Path) -> None:
    if path.suffix != ".part" and not path.name.startswith("."):
        with Image.open(path) as picture:
            picture.load()


def finish(run: subprocess.Popen[bytes]) -> None:
    _, stderr = run.communicate(timeout=120)
    assert run.returncode == 0, stderr


def test_any_number_of_kills_leaves_what_an_undisturbed_run_leaves(tmp_path: Path) -> None:
    pictures(tmp_path / "in")
    order = (tmp_path / "in", "--recursive", "--scale", "2", "-o")
    finish(start(*order, tmp_path / "calm"))
    chance, out, kills = random.Random(7), tmp_path / "out", 0
    while kills < KILLS:
        run = start(*order, out, seconds=0.02)
        size = progress(out)
        # A moment after it has begun to do something new: anywhere between two lines of the journal.
        while progress(out) < size + 2 and run.poll() is None:
            time.sleep(0.002)
        time.sleep(chance.random() * 0.03)
        with suppress(ProcessLookupError):
            os.killpg(run.pid, chance.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)))
        run.communicate()
        for path in out.rglob("*.*"):
            whole(path)
        if run.returncode:
            kills += 1
        else:  # it was done before it could be killed
            assert content(out) == content(tmp_path / "calm")
            shutil.rmtree(out)
    finish(start(*order, out))
    assert content(out) == content(tmp_path / "calm")
    told = [json.loads(line) for line in (out / ".srcli-journal.jsonl").read_bytes().splitlines() if line[-1:] == b"}"]
    assert not [r for r in told if r.get("status") == "failed"]


def progress(out: Path) -> int:
    try:
        return (out / ".srcli-journal.jsonl").read_bytes().count(b"\n")
    except OSError:
        return 0
