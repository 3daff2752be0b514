"""What a user sees of a run on a terminal, by the real program on a pseudo-terminal of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from tests.batch.fakes import draw
from tests.batch.rig import ROOT

CONTROL = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n])")
COLOR = re.compile(r"\x1b\[[0-9;]*3[0-9][0-9;]*m")


def screen_of(told: str, columns: int = 80) -> list[str]:
    """The lines that stand on a terminal after all of this; knows what rich and we send, and that long lines wrap."""
    lines, row, column = [""], 0, 0
    for found in CONTROL.finditer(told):
        number, command, end, text = found.groups()
        if end == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif end == "\r":
            column = 0
        elif command == "A":
            row = max(0, row - int(number or 1))
        elif command == "K":
            lines[row] = ""
        elif text:
            if column == columns:
                row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
            lines[row] = lines[row][:column].ljust(column) + text + lines[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines if line.strip()]


class Terminal:
    """The command line, run on a terminal of so many columns."""

    def __init__(self, *words: object, seconds: float = 0.5, columns: int = 80, **env: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        command = [sys.executable, "-m", "tests.batch.rig", str(seconds), "upscale", *map(str, words)]
        ends = {"stdin": slave, "stdout": slave, "stderr": slave}
        inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
        around = {**inherited, "TERM": "xterm-256color", **env}
        self.run = subprocess.Popen(command, cwd=ROOT, env=around, start_new_session=True, **ends)
        os.close(slave)
        self.told = ""

    def read(self, until: str | None = None) -> str:
        """All that is told, to the end or until this is."""
        while until is None or until not in self.told:
            try:
                self.told += os.read(self.master, 65536).decode()
            except OSError:  # the other end is closed
                assert until is None, self.told
                break
        return self.told

    def end(self) -> int:
        self.read()
        os.close(self.master)
        return self.run.wait(60)


@pytest.mark.parametrize(("columns", "env"), [(80, {}), (120, {"NO_COLOR": "1"})])
def test_results_stand_above_bars_of_which_nothing_is_left(tmp_path: Path, columns: int, env: dict[str, str]) -> None:
    inputs = [draw(tmp_path / f"{number}.png") for number in range(3)]
    terminal = Terminal(*inputs, columns=columns, **env)
    assert terminal.end() == 0
    shown = screen_of(terminal.told, columns=200)
    assert [line for line in shown if line.endswith(".png")] == [str(tmp_path / f"{n}_x4.png") for n in range(3)]
    assert shown[-1].startswith("3 done")
    assert not [line for line in shown if "━" in line]
    assert "0 of 3 pictures" in terminal.told
    assert "12x8 to 48x32 sampling" in terminal.told
    assert bool(COLOR.search(terminal.told)) == (not env)


@pytest.mark.parametrize("option", ["--explain", "--dry-run"])
def test_a_plan_stands_alone(tmp_path: Path, option: str) -> None:
    terminal = Terminal(draw(tmp_path / "a.png"), option, columns=120)
    assert terminal.end() == 0
    lines = screen_of(terminal.told, 120)
    assert lines
    assert not [line for line in lines if "loading" in line]
    assert "a.png" in lines[0]


def test_a_dumb_terminal_is_told_in_lines(tmp_path: Path) -> None:
    terminal = Terminal(draw(tmp_path / "a.png"), TERM="dumb")
    assert terminal.end() == 0
    assert "\x1b" not in terminal.told
    assert "a.png 12x8 to 48x32 sampling 0/4" in terminal.told


@pytest.mark.parametrize("columns", [80, 120])
def test_a_picture_s_percentage_only_grows(tmp_path: Path, columns: int) -> None:
    terminal = Terminal(draw(tmp_path / "a.png"), seconds=3, columns=columns)
    assert terminal.end() == 0
    assert re.search(r"a\.png 12x8 to 48x32 sampling step \d/4, tile \d/4", terminal.told)
    shares = [int(share) for share in re.findall(r"(\d+)%", terminal.told)]
    assert shares == sorted(shares) and len(set(shares)) > 3


def test_ctrl_c_takes_effect_between_tiles(tmp_path: Path) -> None:
    terminal = Terminal(draw(tmp_path / "a.png"), seconds=16)
    terminal.read("tile 1/4")
    os.write(terminal.master, b"\x03")  # which the terminal echoes as ^C into the bar
    terminal.run.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    assert "step 2/4" not in terminal.told
    shown = screen_of(terminal.told)
    assert shown[0] == "finishing the tile; press Ctrl-C again to stop now"
    assert shown[-1] == "interrupted: run the same command again to do what is left"


def test_ctrl_c_answers_at_once_and_a_second_one_gives_the_cursor_back(tmp_path: Path) -> None:
    terminal = Terminal(draw(tmp_path / "a.png"), seconds=1000)
    terminal.read("12x8 to 48x32")
    terminal.run.send_signal(signal.SIGINT)
    terminal.read("finishing the tile; press Ctrl-C again to stop now")
    while terminal.run.poll() is None:
        terminal.run.send_signal(signal.SIGINT)
        time.sleep(0.05)
    assert terminal.end() == 130
    assert terminal.told.rindex("\x1b[?25h") > terminal.told.rindex("\x1b[?25l")
