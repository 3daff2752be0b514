"""How a run ends when it is told or made to: the real program, in a process of its own."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.batch.fakes import draw
from tests.batch.rig import start

MANY = 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(MANY):
        draw(tmp_path / "in" / f"{number}.png", seed=number)
    return tmp_path / "in"


def wait_for(path: Path) -> None:
    for _ in range(3000):
        if path.exists():
            return
        time.sleep(0.01)
    raise AssertionError(f"{path} never came")


def journal(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / ".srcli-journal.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_one_signal_ends_a_run_in_good_order(folder: Path, tmp_path: Path, number: int, code: int) -> None:
    out = tmp_path / "out"
    run = start(folder, "-o", out, seconds=0.3)
    wait_for(out / "1_x4.png")
    run.send_signal(number)
    stdout, stderr = run.communicate(timeout=60)
    assert run.returncode == code
    assert b"Traceback" not in stderr
    done = [r["target"] for r in journal(out) if r.get("status") == "done"]
    assert sorted(done) == sorted(p.name for p in out.iterdir() if p.suffix == ".png")
    assert 2 <= len(done) < MANY
    assert len(stdout.splitlines()) == len(done)
    assert not list(out.glob("*.part"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("waits_for", [("--from", "-"), ("-",)])
def test_one_signal_ends_the_wait_for_a_silent_stdin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits_for: tuple[str, ...], number: int, code: int
) -> None:
    monkeypatch.setenv("RIG_TELLS", str(tmp_path))
    run = start(*waits_for, "-o", f"{tmp_path}/out/", stdin=subprocess.PIPE)
    wait_for(tmp_path / "asked")
    run.send_signal(number)
    assert run.wait(60) == code  # stdin is open all the while
    assert run.stderr.read() in (b"", b"interrupted: run the same command again to do what is left\n")
    run.communicate()


def test_two_signals_end_it_at_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIG_TELLS", str(tmp_path))
    run = start(folder, "-o", tmp_path / "out", seconds=10_000)  # no step of it will end
    wait_for(tmp_path / "begun")
    run.send_signal(signal.SIGINT)
    while run.poll() is None:  # two that come together may be one to Python
        run.send_signal(signal.SIGINT)
        time.sleep(0.05)
    run.communicate()
    assert run.returncode == 130


def test_a_reader_that_went_away_is_no_reason_for_noise(folder: Path, tmp_path: Path) -> None:
    run = start(folder, "-o", tmp_path / "out", seconds=0.1)
    run.stdout.close()
    stderr = run.stderr.read()
    run.wait(60)
    run.stderr.close()
    assert b"Traceback" not in stderr
    assert b"BrokenPipe" not in stderr
    assert run.returncode == 141


def test_that_nobody_hears_notes_is_no_reason_to_stop(folder: Path, tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        for number, kind in enumerate(({"stderr": full}, {"preexec_fn": lambda: os.close(2)})):
            run = start(folder, "-o", tmp_path / str(number), **kind)
            stdout, _ = run.communicate(timeout=60)
            assert (run.returncode, len(stdout.splitlines())) == (0, MANY)


def test_results_that_cannot_be_told_end_the_run(folder: Path, tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        run = start(folder, "-o", tmp_path / "out", stdout=full)
        _, stderr = run.communicate(timeout=60)
    assert (run.returncode, stderr.count(b"\n")) == (5, 1)
    assert b"standard output cannot be written" in stderr


def test_a_closed_stdout_asks_for_no_paths(folder: Path, tmp_path: Path) -> None:
    run = start(folder, "-o", tmp_path / "out", preexec_fn=lambda: os.close(1))
    _, stderr = run.communicate(timeout=60)
    assert run.returncode == 0, stderr
    assert len(list((tmp_path / "out").glob("*.png"))) == MANY


def test_stdin_to_stdout(folder: Path) -> None:
    run = start("-", "-o", "-", stdin=subprocess.PIPE)
    stdout, stderr = run.communicate((folder / "0.png").read_bytes(), timeout=60)
    assert run.returncode == 0, stderr
    with Image.open(io.BytesIO(stdout)) as made:
        assert made.size == (48, 32)


def test_a_full_disk_ends_the_run_and_leaves_nothing_half(tmp_path: Path) -> None:
    for number in range(6):
        draw(tmp_path / "in" / f"{number}.png", 100, 100, seed=number)
    out = tmp_path / "out"
    limit = (32 << 10, 32 << 10)
    run = start(tmp_path / "in", "-o", out, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    _, stderr = run.communicate(timeout=60)
    assert run.returncode == 5
    assert b"free some space" in stderr
    assert b"Traceback" not in stderr
    assert [p.name for p in out.iterdir()] == [".srcli-journal.jsonl"]
