"""Settings of the user's own: a TOML file and environment variables, which hold where nothing else is typed.

Top-level keys are options of all picture commands; a table named after a command is for that one.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer

from srcli.cli.options import OPTIONS, Option, choices
from srcli.errors import InputError
from srcli.files import path_exists, read_regular
from srcli.imaging.printable import printable
from srcli.settings import TargetSize
from srcli.tasks import TASKS
from srcli.weights.places import find_places

config_app = typer.Typer(name="config", help="Your own settings: show what holds.", no_args_is_help=True)

CONFIG_NAME, CONFIG_VARIABLE = "config.toml", "SRCLI_CONFIG"
LARGEST = 1 << 20
BY_NAME: Mapping[str, tuple[type, Option]] = {
    option.long.removeprefix("--"): (kind, option) for kind, options in OPTIONS.items() for option in options
}
# Options that exclude each other: what is typed takes the place of what a file or a variable says.
RIVALS = (
    tuple(option.parameter for option in OPTIONS[TargetSize]),
    ("on_exists", "overwrite", "skip_existing"),
    ("prompt", "prompt_file"),
)
SOURCES = ("DEFAULT", "DEFAULT_MAP", "ENVIRONMENT", "COMMANDLINE")  # the last one wins

Values = Mapping[str, Any]


@dataclass(frozen=True)
class ConfiguredValue:
    """A setting, and where it stands."""

    command: str  # "" for all commands
    name: str
    value: Any
    source: str


def user_file() -> Path:
    """Where the settings lie unless a path is given."""
    return find_places().overlay.with_name(CONFIG_NAME)


def chosen_file(path: Path | None) -> Path | None:
    """The file that holds: the one that is named, or the user's if there is one."""
    if path is not None:
        return path
    return user_file() if path_exists(user_file()) else None


def use_config(ctx: typer.Context, path: Path | None) -> Path | None:
    """What `--config` does: the file's settings become the command's defaults."""
    if not ctx.resilient_parsing and (file := chosen_file(path)) is not None:
        ctx.default_map = settings_for(read_settings_file(file), str(ctx.params.get("task") or ctx.command.name))
    return path


def settings_for(config: Values, command: str) -> dict[str, Any]:
    """What a file says for one command, by parameter."""
    common = {name: value for name, value in config.items() if name not in TASKS}
    return {BY_NAME[name][1].parameter: value for name, value in (common | config.get(command, {})).items()}


def read_settings_file(path: Path) -> Values:
    """The settings in a file, by their flags; those of single commands in tables."""
    try:
        given = tomllib.loads(read_regular(path, LARGEST).decode("utf-8"))
    except OSError as error:
        raise InputError(f"{printable(path)} cannot be read ({error.strerror}): give another --config") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{printable(path)} is no TOML: {error}") from error
    tables = {name: _checked(path, table) for name, table in given.items() if name in TASKS and isinstance(table, dict)}
    return {**_checked(path, {name: value for name, value in given.items() if name not in tables}), **tables}


def _checked(path: Path, given: Values) -> Values:
    """Names as flags are called; an error for what is no option, or no value for one."""
    named = {name.replace("_", "-"): value for name, value in given.items()}
    for name, value in named.items():
        if name not in BY_NAME:
            near = get_close_matches(name, [*BY_NAME, *TASKS], n=1)
            remedy = f"did you mean {near[0]}?" if near else "srcli upscale --help-all lists the options"
            raise InputError(f"{printable(path)}: {printable(name)} is no option: {remedy}")
        words = choices(*BY_NAME[name])
        if isinstance(value, dict) or (words and value not in words):
            expected = f"choose one of {', '.join(words)}" if words else "give a number, a text or true"
            raise InputError(f"{printable(path)}: {name} cannot be {printable(str(value))}: {expected}")
    return named


def settle_rivals(ctx: typer.Context, values: Values) -> Values:
    """The values without those that a rival from a stronger source takes the place of."""
    settled, defaults = dict(values), {parameter.name: parameter.default for parameter in ctx.command.params}
    for names in RIVALS:
        ranks = {name: SOURCES.index(getattr(ctx.get_parameter_source(name), "name", "DEFAULT")) for name in names}
        settled |= {name: defaults[name] for name in names if ranks[name] < max(ranks.values())}
    return settled


@config_app.command("show")
def print_settings(
    config: Annotated[
        Path | None, typer.Option(envvar=CONFIG_VARIABLE, help="Settings file, in place of your own.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show the settings of your file and of SRCLI_* variables, which the command line goes over."""
    file = chosen_file(config)
    if not as_json:
        print(f"# {printable(file or user_file())}{'' if file else ' (not there)'}")
    command = ""
    for found in find_settings(file):
        if as_json:
            print(json.dumps(vars(found)))
            continue
        if found.command != command:
            print(f"\n[{found.command}]")
            command = found.command
        print(
            f"{found.name} = {json.dumps(found.value)}" + (f"  # {found.source}" if found.source != CONFIG_NAME else "")
        )


def find_settings(file: Path | None) -> Iterator[ConfiguredValue]:
    """All that is set, first for all commands; a variable goes over a file."""
    config = read_settings_file(file) if file else {}
    variables = {name: os.environ.get(option.variable) for name, (_, option) in BY_NAME.items()}
    for command in ("", *TASKS):
        given = config.get(command, {}) if command else {k: v for k, v in config.items() if k not in TASKS}
        for name, value in given.items():
            if not variables[name]:
                yield ConfiguredValue(command, name, value, CONFIG_NAME)
        for name, text in variables.items() if not command else ():
            if text:
                yield ConfiguredValue(command, name, text, BY_NAME[name][1].variable)
