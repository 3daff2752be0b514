"""Standard streams that are closed or full, and no current folder: nothing is lost, and no traceback is printed."""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from srcli.cli import app
from srcli.cli.boundary import flush_stdout, is_on_terminal, open_streams

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such streams")


class Full(io.StringIO):
    """Stdout on a full disk. With `late`, a flush alone fails, as of what is buffered."""

    def __init__(self, late: bool = False) -> None:
        super().__init__()
        self._late = late

    def write(self, text: str) -> int:
        if not self._late:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)

    def flush(self) -> None:
        if self._late:
            raise OSError(errno.ENOSPC, "No space left on device")

    def fileno(self) -> int:
        return self._spare

    _spare = -1


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.new("RGB", (8, 6), "teal").save(tmp_path / "a.png")
    return tmp_path / "a.png"


@contextmanager
def closed_stdout() -> Iterator[None]:
    """Not a fixture: between setup and call pytest opens stdout again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        open_streams()
        with sys.stdout:
            yield


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        app([str(word) for word in words])
    return int(str(ended.value.code))


def test_a_picture_is_made_without_stdout(photo: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with closed_stdout():
        assert run("upscale", photo, "--scale", 2, "--engine", "builtin") == 0
    with Image.open(photo.with_name("a_x2.png")) as made:
        assert made.size == (16, 12)
    assert "srcli:" not in capfd.readouterr().err


def test_a_picture_for_a_closed_stdout_is_refused_before_the_work(
    photo: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with closed_stdout():
        assert run("upscale", photo, "-o", "-") == 2
    assert capfd.readouterr().err == "srcli: standard output is closed: give -o a file, or redirect it\n"


@pytest.mark.parametrize("words", ["--help", "--version", "config show", "models list", "upscale --help"])
def test_what_would_be_printed_on_a_closed_stdout_is_dropped(words: str) -> None:
    with closed_stdout():
        assert run(*words.split()) == 0


def test_a_current_folder_that_was_deleted_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert run("models", "list") == 5
    told = "srcli: the current folder cannot be used (No such file or directory): change to another one\n"
    assert capfd.readouterr().err == told


def test_nobody_is_asked_on_a_closed_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert not is_on_terminal()


@pytest.mark.parametrize("words", ["--help", "--version", "config show"])
def test_a_full_stdout_is_told_in_one_line(
    words: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with (tmp_path / "spare").open("wb") as spare:
        monkeypatch.setattr(Full, "_spare", spare.fileno())
        monkeypatch.setattr(sys, "stdout", Full())
        assert run(*words.split()) == 5
        monkeypatch.setattr(sys, "stdout", Full(late=True))
        with pytest.raises(SystemExit, match="5"):
            flush_stdout()
    told = "srcli: the output cannot be written (No space left on device): make room on its disk, or choose another\n"
    assert capfd.readouterr().err == 2 * told
