"""The help: short by default, whole on demand, the same in the docs; and what a shell is told to complete."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from typer.testing import CliRunner

from srcli.batch.settings import InputOptions, RunOptions
from srcli.cli import app
from srcli.cli.options import OPTIONS, list_choices
from srcli.engines.registry import all_engines, engines_for
from srcli.settings import Repair, Sampling
from srcli.tasks import TASKS, Job

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHOWN = re.compile(r"```text\n\$ srcli ([^\n]*--help(?:-all)?)\n(.*?)```", re.DOTALL)
OTHERS = ("watch", "doctor", "report", "evaluate", "degrade", "compare", "models list", "models pull", "models add")
# Fields that are no options: the inputs are arguments, a job is put together, and the rest is internal.
NOT_OFFERED = {
    InputOptions: {"inputs"},
    Job: {"task", "size", "sampling", "prompt", "repair", "guided", "mapped"},
    Repair: {"find_scratches"},
    Sampling: {"tiny_vae"},
    RunOptions: {"ahead"},
}


def helped(*words: str, columns: int = 80) -> str:
    result = CliRunner().invoke(app, words, env={"COLUMNS": str(columns), "TERM": "dumb"}, prog_name="srcli")
    assert result.exit_code == 0, result.output
    return result.stdout


TRAININGS = [f"train {name}" for name in ("pasd", "stablesr", "cfw", "sr3", "builtin")]


@pytest.mark.parametrize("command", [*TASKS, *OTHERS, *TRAININGS])
def test_help_fits_one_screen(command):
    lines = helped(*command.split(), "--help").splitlines()
    assert len(lines) < 40
    assert max(map(len, lines)) <= 80


def test_a_training_shows_common_options_and_all_on_demand():
    rare = ("--optimizer-bits", "--save-every", "--lr")
    short, whole = (helped("train", "pasd", which, columns=200) for which in ("--help", "--help-all"))
    assert all(flag in short and flag in whole for flag in ("--data", "--out", "--base-model", "--help-all"))
    assert all(flag in whole and flag not in short for flag in rare)
    assert "--optimizer-bits" in helped("train", "pasd", "--help-all", columns=200)  # also after the short one


@pytest.mark.parametrize("task", TASKS.values(), ids=str)
def test_the_short_help_shows_defaults_and_two_examples(task):
    told = helped(task.name, "--help")
    assert len(re.findall(rf"^  srcli {task.name} \S", told, re.MULTILINE)) == 2
    assert f"Enlargement factor. [default: {task.scale:g}]" in told
    assert len(re.findall(r"^  -", told, re.MULTILINE)) <= 17
    words = "|".join(("auto", *(spec.name for spec in engines_for(task))))
    assert f"[{words}]" in told


def test_the_whole_help_says_which_engines_take_an_option():
    told = helped("upscale", "--help-all", columns=200)
    sections = dict(re.findall(r"^(\S[^\n]*):\n((?:  [^\n]*\n)+)", told, re.MULTILINE))
    assert "--damage" in sections["Only builtin"]
    assert "--guidance" in sections["Only pasd"]
    assert "pasd 20, stablesr 200, sr3 2000" in sections["Only pasd, stablesr and sr3"]
    assert "--damage" not in helped("colorize", "--help-all")


@pytest.mark.parametrize("settings", OPTIONS, ids=lambda settings: settings.__name__)
def test_every_setting_is_an_option_and_shown(settings):
    offered = {option.field for option in OPTIONS[settings]}
    assert offered == {field.name for field in fields(settings)} - NOT_OFFERED.get(settings, set())
    told = "".join(helped(task, "--help-all", columns=200) for task in TASKS)
    for option in OPTIONS[settings]:
        assert re.search(rf"--(no-|\[no-\])?{option.long[2:]}[ ,\n]", told), option.long


@pytest.mark.parametrize(
    ("page", "words", "shown"), [(p.name, *f) for p in PAGES for f in SHOWN.findall(p.read_text())]
)
def test_the_docs_show_the_help_as_it_is(page, words, shown):
    assert helped(*words.split()).rstrip() == shown.rstrip()


def completed(*words: str) -> list[str]:
    line = {
        "_SRCLI_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(("srcli", *words)),
        "COMP_CWORD": str(len(words)),
    }
    result = CliRunner().invoke(app, [], env=line, prog_name="srcli")
    return result.stdout.split()


CHOICES = [(option.long, list_choices(kind, option)) for kind, options in OPTIONS.items() for option in options]


@pytest.mark.parametrize(("flag", "words"), [pair for pair in CHOICES if pair[1]], ids=lambda value: str(value)[:20])
def test_every_choice_is_completed(flag, words):
    assert completed("upscale", flag, "") == list(words)


def test_names_are_completed_from_the_registry_and_the_lock():
    assert completed("upscale", "--engine", "") == ["auto", *all_engines()]
    assert {"anime", "sd15"} <= set(completed("stylize", "--base-model", ""))
    assert completed("stylize", "--base-model", "ghi") == ["ghibli"]
    assert "lcm-lora" in completed("stylize", "--lora", "")
    assert {"light-rrdb", "turbo", "pisa", "tiny"} <= set(completed("upscale", "--variant", ""))
    assert "pasd-light" in completed("upscale", "--adapter", "pasd")
    assert {"png", "jpeg"} <= set(completed("upscale", "--format", ""))
    assert completed("upscale", "--to", "a4") == ["a4@300"]
    assert "osediff-face" in completed("models", "pull", "ose")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("train", "pasd", "--form", ""), {"full", "light"}),
        (("train", "stablesr", "--degradation", ""), {"pasd", "stablesr", "realesrgan", "old-photo"}),
        (("train", "sr3", "--schedule", ""), {"constant", "cosine"}),
        (("train", "builtin", "--task", ""), {"upscale", "restore"}),
        (("degrade", "--preset", "b"), {"bicubic-x2", "bicubic-x3", "bicubic-x4"}),
        (("evaluate", "--metric", "psnr"), {"psnr", "psnr-y"}),
        (("models", "add", "--kind", "ada"), {"adapter"}),
    ],
)
def test_other_commands_complete_their_choices_too(words, found):
    assert found <= set(completed(*words))


def test_paths_are_completed_once_they_are_begun(tmp_path):
    (tmp_path / "own.safetensors").touch()
    (tmp_path / "own-folder").mkdir()
    begun = f"{tmp_path}/ow"
    assert completed("stylize", "--base-model", begun) == [f"{begun}n-folder/", f"{begun}n.safetensors"]


def test_completing_loads_no_heavy_library():
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print(*(m for m in ('torch', 'diffusers') if m in sys.modules)))\n"
        "from srcli.cli import app\n"
        "app(prog_name='srcli')"
    )
    line = {"_SRCLI_COMPLETE": "complete_bash", "COMP_WORDS": "srcli stylize --base-model ghi", "COMP_CWORD": "3"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **line})
    assert done.stdout.split() == ["ghibli"]
