"""The user's settings: defaults for options, from a TOML file and from environment variables.

Top-level keys are options of all picture commands; a table named after a command applies to that command.
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

from srcli.cli.options import OPTIONS, Option, list_choices
from srcli.errors import InputError
from srcli.files import path_exists, read_regular
from srcli.imaging.printable import printable
from srcli.settings import TargetSize
from srcli.tasks import TASKS
from srcli.weights.places import find_places

config_app = typer.Typer(name="config", help="Show your own settings.", no_args_is_help=True)

CONFIG_NAME, CONFIG_VARIABLE = "config.toml", "SRCLI_CONFIG"
MAX_SETTINGS_BYTES = 1 << 20
BY_NAME: Mapping[str, tuple[type, Option]] = {
    option.long.removeprefix("--"): (kind, option) for kind, options in OPTIONS.items() for option in options
}
# Options that exclude each other: one from a stronger source overrides those from weaker ones.
EXCLUSIVE_OPTIONS = (
    tuple(option.parameter for option in OPTIONS[TargetSize]),
    ("on_exists", "overwrite", "skip_existing"),
    ("prompt", "prompt_file"),
)
SOURCES = ("DEFAULT", "DEFAULT_MAP", "ENVIRONMENT", "COMMANDLINE")  # the last one wins

Values = Mapping[str, Any]


@dataclass(frozen=True)
class ConfiguredValue:
    """A setting and its source."""

    command: str  # "" for all commands
    name: str
    value: Any
    source: str


def user_settings_file() -> Path:
    """The default path of the settings file."""
    return find_places().overlay.with_name(CONFIG_NAME)


def find_settings_file(path: Path | None) -> Path | None:
    """The settings file to use: the named one, or the user's own if it exists."""
    if path is not None:
        return path
    return user_settings_file() if path_exists(user_settings_file()) else None


def use_config(ctx: typer.Context, path: Path | None) -> Path | None:
    """Make the file's settings the command's defaults, for `--config`."""
    if not ctx.resilient_parsing and (file := find_settings_file(path)) is not None:
        ctx.default_map = select_settings(read_settings_file(file), str(ctx.params.get("task") or ctx.command.name))
    return path


def select_settings(config: Values, command: str) -> dict[str, Any]:
    """The settings of a file for one command, by parameter."""
    common = {name: value for name, value in config.items() if name not in TASKS}
    return {BY_NAME[name][1].parameter: value for name, value in (common | config.get(command, {})).items()}


def read_settings_file(path: Path) -> Values:
    """Read a settings file: values by flag, and tables of single commands."""
    try:
        given = tomllib.loads(read_regular(path, MAX_SETTINGS_BYTES).decode("utf-8"))
    except OSError as error:
        raise InputError(f"{printable(path)} cannot be read ({error.strerror}): give another --config") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{printable(path)} is not TOML: {error}") from error
    tables = {
        name: _check_options(path, table) for name, table in given.items() if name in TASKS and isinstance(table, dict)
    }
    return {**_check_options(path, {name: value for name, value in given.items() if name not in tables}), **tables}


def _check_options(path: Path, given: Values) -> Values:
    """The values by flag. Raises InputError for unknown options and wrong values."""
    named = {name.replace("_", "-"): value for name, value in given.items()}
    for name, value in named.items():
        if name not in BY_NAME:
            near = get_close_matches(name, [*BY_NAME, *TASKS], n=1)
            remedy = f"did you mean {near[0]}?" if near else "srcli upscale --help-all lists the options"
            raise InputError(f"{printable(path)}: {printable(name)} is not an option: {remedy}")
        words = list_choices(*BY_NAME[name])
        if isinstance(value, dict) or (words and value not in words):
            expected = f"choose one of {', '.join(words)}" if words else "give a number, a text or true"
            raise InputError(f"{printable(path)}: {name} cannot be {printable(str(value))}: {expected}")
    return named


def drop_overridden(ctx: typer.Context, values: Values) -> Values:
    """Reset values to their defaults where an exclusive option from a stronger source is set."""
    kept, defaults = dict(values), {parameter.name: parameter.default for parameter in ctx.command.params}
    for names in EXCLUSIVE_OPTIONS:
        sources = {name: SOURCES.index(getattr(ctx.get_parameter_source(name), "name", "DEFAULT")) for name in names}
        kept |= {name: defaults[name] for name in names if sources[name] < max(sources.values())}
    return kept


@config_app.command("show")
def print_settings(
    config: Annotated[
        Path | None, typer.Option(envvar=CONFIG_VARIABLE, help="Settings file, in place of your own.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show the settings of your file and of SRCLI_* variables, which the command line overrides."""
    file = find_settings_file(config)
    if not as_json:
        print(f"# {printable(file or user_settings_file())}{'' if file else ' (not there)'}")
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
    """All settings, first those for all commands; variables override the file."""
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
