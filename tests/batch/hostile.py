"""Files that kill or stall what reads them. No such file is known for today's codecs, so a codec is made that bad."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

BAD_CODEC = """
import os, signal, time
from pathlib import Path

if "srcli.batch.reading.child" in Path("/proc/self/cmdline").read_text():
    from PIL import Image
    real, TRIED = Image.open, Path(__file__).with_name("tried")

    def bad(file, *args, **more):
        head = file.read(64)
        file.seek(0)
        if b"KILL" in head:
            os.kill(os.getpid(), signal.SIGSEGV)
        if b"OOM" in head or (b"ONCE" in head and not TRIED.exists()):
            TRIED.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if b"WAIT" in head:
            time.sleep(100)
        if b"FILL" in head:
            bytearray(1 << 45)
        return real(file, *args, **more)

    Image.open = bad
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the reading process get the bad codec with its Python."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(BAD_CODEC)
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")


def hostile(path: Path, word: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + word + bytes(100))
    return path
