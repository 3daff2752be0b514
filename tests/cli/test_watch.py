"""`srcli watch` from the command line: whose options it takes, and what it refuses."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from srcli.cli import app


def call(*words: object):
    return CliRunner().invoke(app, ["watch", *map(str, words)], env={"COLUMNS": "200", "TERM": "dumb"})


def test_the_help_shows_the_options_of_the_named_task():
    assert "--saturation" not in call("--help-all").stdout
    told = call("--task", "colorize", "--help-all").stdout
    assert "--saturation" in told and "--every SECONDS" in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere is not a folder: name folders to watch"),
        ([], "no picture named"),
        ([".", "--task", "stylize"], "stylize needs a base model"),
        ([".", "--task", "enlarge"], "'enlarge' is not one of"),
        ([".", "--every", "0", "--engine", "builtin"], "--every 0 is out of range"),
        ([".", "--saturation", "2"], "`--saturation`|--saturation goes with colorize"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_watched(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    done = call(*words)
    assert done.exit_code == 2
    assert any(part in " ".join(done.stderr.split()) for part in message.split("|"))


def test_a_settings_file_speaks_to_the_named_task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.toml").write_text("[restore-old-photo]\nworkers = 2\n")
    words = [".", "--engine", "builtin", "--config", "c.toml", "--every", "0"]
    assert "--every 0" in call(*words).stderr
    assert "leave out --workers" in call("--task", "restore-old-photo", *words).stderr
    assert "leave out --workers" in call(*words, "--task=restore-old-photo").stderr
    (tmp_path / "c.toml").write_text("[upscale]\nworkers = 2\n")
    assert "leave out --workers" in call(*words).stderr
