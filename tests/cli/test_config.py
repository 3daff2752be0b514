"""Settings from a file and from the environment, under what is typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Srcli

from srcli.cli import pictures


@pytest.fixture
def file(home: Path) -> Path:
    path = home / "config" / "srcli" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text('quality = "draft"\nlong-side = 800\nlora = ["a:0.5", "b"]\n[upscale]\nseed = 7\noffline = true\n')
    return path


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What commands were given, in place of running them."""
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(pictures, "run_task", lambda task, values: given.append(dict(values)))
    return given


def test_the_file_holds_then_the_environment_then_what_is_typed(
    srcli: Srcli, file: Path, taken: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    srcli("upscale", "a.png")
    srcli("colorize", "a.png")
    monkeypatch.setenv("SRCLI_SEED", "8")
    srcli("upscale", "a.png")
    srcli("upscale", "a.png", "--seed", 9, "--quality", "best")
    assert [given["seed"] for given in taken] == [7, 0, 8, 9]
    assert [given["quality"] for given in taken] == ["draft", "draft", "draft", "best"]
    assert [given["offline"] for given in taken] == [True, False, True, True]
    assert list(taken[0]["lora"]) == ["a:0.5", "b"]


def test_what_is_typed_takes_the_place_of_what_it_excludes(
    srcli: Srcli, file: Path, taken: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SRCLI_ON_EXISTS", "rename")
    srcli("upscale", "a.png")
    srcli("upscale", "a.png", "--to", "4k", "--overwrite")
    sizes = [(given["long_side"], given["to"]) for given in taken]
    assert sizes == [(800, None), (None, "4k")]
    assert [(given["on_exists"], given["overwrite"]) for given in taken] == [("rename", False), ("fail", True)]


def test_another_file_is_named_by_an_option_or_a_variable(
    srcli: Srcli, file: Path, taken: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other.toml").write_text("seed = 1")
    srcli("upscale", "a.png", "--config", tmp_path / "other.toml")
    monkeypatch.setenv("SRCLI_CONFIG", str(tmp_path / "other.toml"))
    srcli("upscale", "a.png")
    assert [(given["seed"], given["quality"]) for given in taken] == [(1, None), (1, None)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("qualitie = 'best'", "qualitie is not an option: did you mean quality?"),
        ("quality = 'nice'", "quality cannot be nice: choose one of draft, standard, best"),
        ("[upscale.seed]", "seed cannot be {}"),
        ("seed 5", "is not TOML"),
        ("scale = 'x'", "invalid value for '--scale'"),
        ("[upscale]\nscale = 'x'", "invalid value for '--scale'"),
        ("[upscale]\nx = 1", "x is not an option"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(srcli: Srcli, file: Path, text: str, words: str) -> None:
    file.write_text(text)
    result = srcli("upscale", "a.png")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"srcli: {file}") and result.stderr.count("\n") == 1
    assert words in result.stderr


def test_a_file_that_is_named_must_be_there(srcli: Srcli, tmp_path: Path) -> None:
    result = srcli("upscale", "a.png", "--config", tmp_path / "none.toml")
    assert (result.exit_code, "cannot be read" in result.stderr) == (2, True)


def test_show_tells_what_holds_and_where_it_stands(srcli: Srcli, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRCLI_LONG_SIDE", "900")
    shown = srcli("config", "show").stdout
    assert shown.splitlines()[0] == f"# {file}"
    assert 'quality = "draft"\n' in shown and 'long-side = "900"  # SRCLI_LONG_SIDE\n' in shown
    assert shown.endswith("[upscale]\nseed = 7\noffline = true\n")
    facts = [json.loads(line) for line in srcli("config", "show", "--json").stdout.splitlines()]
    assert {"command": "upscale", "name": "seed", "value": 7, "source": "config.toml"} in facts
    file.unlink()
    assert srcli("config", "show").stdout.splitlines()[0] == f"# {file} (not there)"
