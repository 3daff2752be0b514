"""What `srcli serve` refuses before it listens."""

from __future__ import annotations

import socket
import sys

import pytest
from typer.testing import CliRunner

from srcli.cli import app
from srcli.files import open_guard, try_lock


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--host", "0.0.0.0"], 2, "lets other machines in: give --token"),
        (["--host", "0.0.0.0", "--token", "short"], 2, "--token is too short"),
        (["--port", "99999"], 2, "out of range"),
        (["--max-memory", "lots"], 2, "is not a size"),
        (["--device", "abacus"], 5, "no device 'abacus' here"),
        (["--device", "cpu", "--dtype", "float16"], 2, "float16 on a CPU"),
        (["--host", "a..b", "--token", "x" * 16], 2, "--host a..b is not a name or an address"),
        (["--host", "192.0.2.1", "--token", "x" * 16], 5, "give another --host"),
    ],
)
def test_what_makes_no_sense_is_said(tmp_path, words, code, said):
    done = CliRunner().invoke(app, ["serve", "--folder", str(tmp_path / "jobs"), *words])
    assert done.exit_code == code and said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "jobs").exists()


def test_a_file_cannot_be_the_folder(tmp_path):
    (tmp_path / "jobs").write_bytes(b"mine")
    done = CliRunner().invoke(app, ["serve", "-o", str(tmp_path / "jobs")])
    assert done.exit_code == 2 and done.stderr.endswith("jobs is a file: name a folder for jobs and results\n")
    assert (tmp_path / "jobs").read_bytes() == b"mine"


def test_a_folder_whose_lock_cannot_be_opened_is_refused(tmp_path):
    (tmp_path / ".srcli-lock").mkdir()
    done = CliRunner().invoke(app, ["serve", "-o", str(tmp_path), "--port", "0"])
    assert done.exit_code == 5 and ".srcli-lock cannot be written" in done.stderr


def test_a_port_in_use_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = CliRunner().invoke(app, ["serve", "--folder", str(tmp_path / "jobs"), "--port", port])
    assert done.exit_code == 5 and f"cannot listen on 127.0.0.1:{port}" in done.stderr


def test_two_servers_do_not_share_a_folder(tmp_path):
    with open_guard(tmp_path / ".srcli-lock") as lock:
        assert try_lock(lock.fileno())
        done = CliRunner().invoke(app, ["serve", "--folder", str(tmp_path), "--port", "0"])
    assert done.exit_code == 2 and "is used by another server" in done.stderr


def test_without_its_packages_it_says_which_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    done = CliRunner().invoke(app, ["serve", "--folder", str(tmp_path)])
    assert done.exit_code == 2 and "pip install 'srcli[web]'" in done.stderr
