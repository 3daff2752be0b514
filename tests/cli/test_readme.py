"""What the README says of the command line is so."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from srcli import errors
from srcli.cli import app
from srcli.engines.registry import all_engines
from srcli.tasks import TASKS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines() if line.startswith("srcli ")]


def helped(*command: str) -> str:
    whole = "--help-all" if command[0] in TASKS else "--help"
    result = CliRunner().invoke(app, [*command, whole], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0
    return result.stdout


def test_the_readme_is_a_front_page():
    assert len(README.splitlines()) <= 90


def test_the_readme_shows_each_of_the_four_commands():
    assert {shlex.split(line)[1] for line in COMMANDS} >= {"upscale", "stylize", "restore-old-photo", "colorize"}


@pytest.mark.parametrize("line", COMMANDS)
def test_every_option_of_an_example_exists(line):
    words = shlex.split(line)[1:]
    known = helped(words[0])
    for word in words:
        if word.startswith("-") and word != "-":
            assert re.search(rf"(^|[\s,│]){re.escape(word)}[\s,]", known), f"{word} is not in srcli {words[0]} --help"


@pytest.mark.parametrize("option", sorted(set(re.findall(r"`(--[a-z][a-z-]*)", README))))
def test_every_option_that_the_text_names_exists(option):
    assert any(option in helped(command) for command in ("upscale", "stylize", "colorize", "doctor"))


@pytest.mark.parametrize(("kind", "code"), [(errors.InputError, 2), (errors.WeightsError, 4), (errors.MachineError, 5)])
def test_the_table_of_exit_codes_holds_those_of_the_errors(kind, code):
    assert kind.exit_code == code
    assert f"| {code} |" in (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


def test_the_make_targets_it_names_exist():
    targets = re.findall(r"^make (\w+)", "\n".join(BLOCKS), re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_the_table_of_engines_is_the_registry():
    rows = [f"| `{spec.name}` | {spec.about} | {spec.needs} |" for spec in all_engines().values()]
    table = README.split("|---|---|---|---|---|\n")[1].split("\n\n")[0].splitlines()
    assert [row for row, line in zip(rows, table, strict=True) if not line.startswith(row)] == []
