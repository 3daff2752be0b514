"""What Windows lacks is asked for nowhere in a run: the real command line, with those names taken away."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.batch.fakes import draw
from tests.batch.rig import start

WITHOUT = """
import mmap, os, signal, sys

for module in ("fcntl", "resource", "termios", "tty", "pwd", "grp", "syslog"):
    sys.modules[module] = None
lacking = "fork geteuid getuid killpg nice posix_fallocate pread pwrite sched_getaffinity sysconf sysconf_names"
for name in (*lacking.split(), "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_DIRECTORY"):
    delattr(os, name)
for name in ("SIGHUP", "setitimer", "alarm", "pthread_sigmask"):
    delattr(signal, name)
for name in ("MADV_DONTNEED", "MAP_ANONYMOUS", "MAP_PRIVATE"):
    delattr(mmap, name)
"""


def test_a_batch_needs_nothing_that_windows_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "sitecustomize.py").write_text(WITHOUT)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'lib'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    for name in ("a.png", "b.jpg", "c.tif", "d.webp"):
        draw(tmp_path / "in" / name)
    (tmp_path / "in" / "e.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for workers, seed, fate in ((1, 0, "done"), (1, 0, "skipped"), (2, 1, "done")):
        options = ("--json", "--device", "cpu", "--workers", workers, "--seed", seed)
        run = start(tmp_path / "in", *options, "-o", tmp_path / "out")
        said, stderr = run.communicate(timeout=120)
        assert run.returncode == 3, stderr.decode()
        assert b"Traceback" not in stderr, stderr
        events = [json.loads(line)["event"] for line in said.splitlines()]
        assert {name: events.count(name) for name in (fate, "failed", "finished")} == {
            fate: 4,
            "failed": 1,
            "finished": 1,
        }
