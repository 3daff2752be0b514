"""The help of the picture commands: common options with `--help`, all options by engine with `--help-all`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from textwrap import wrap
from typing import Any, Literal

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperCommand, TyperOption

from srcli.cli.options import OPTIONS, TOPICS, Option, field_default, field_types, list_choices
from srcli.engines.base import EngineSpec
from srcli.engines.registry import engines_for
from srcli.settings import AUTO, ModelChoice, Sampling
from srcli.tasks import TASKS, Task

FLAGS_WIDTH = 25  # columns of the flags; longer ones get their own line
NO_BREAK_SPACE = "\xa0"  # a space at which no line is broken
PLACEHOLDERS: Mapping[type, str] = {int: "N", float: "X"}
CONFIG_HELP = "File with your own settings; srcli config show lists them."
LAST_ROWS = (
    ("--config FILE", CONFIG_HELP),
    ("-h, --help", "Show this help."),
    ("--help-all", "Show all options, and which engines take them."),
)
EXAMPLES = {
    "upscale": ("scan.tif --scale 4", "album/ --recursive -o large/ --to a4@300"),
    "stylize": ("portrait.jpg --base-model anime", "portrait.jpg --base-model ghibli --strength 0.8 --seed 7"),
    "restore-old-photo": ("album/ -o restored/ --recursive", "print.tif --mask scratches.png --fidelity 0.8"),
    "watch": ("inbox/ -o large/", "scans/ -o restored/ --task restore-old-photo --recursive"),
    "colorize": ("grandmother.png", 'street.tif --prompt "a red tram, green trees" --seed 7'),
}

Sections = Mapping[str, Sequence[tuple[str, str]]]  # by heading: rows of flags and description


class PictureCommand(TyperCommand):
    """A command with two helps, whose options take no other option for their value."""

    own_options: Sequence[tuple[str, str]] = ()  # besides those of the picture commands

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = [option for option in self.params if isinstance(option, TyperOption)]
        options = {name: option for option in own for name in (*option.opts, *option.secondary_opts)}
        for word, following in pairwise(args[: args.index("--")] if "--" in args else args):
            if word in options and following in options and not options[word].is_flag:
                ctx.fail(f"{word} needs a value, and {following} is an option")
        return super().parse_args(ctx, args)

    def find_task(self, ctx: Any) -> Task:
        return TASKS[str(self.name)]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        task = self.find_task(ctx)
        _print_help(self, ctx, {"Options": [*self.own_options, *list_common_options(task), *LAST_ROWS]}, task)

    def print_all(self, ctx: typer.Context) -> None:
        task = self.find_task(ctx)
        own_options = {"Watching": self.own_options} if self.own_options else {}
        _print_help(self, ctx, {**own_options, **group_by_engine(task), "Settings and help": LAST_ROWS}, task)


def show_all_help(ctx: typer.Context, wanted: bool) -> None:
    """Print the help of all options, for `--help-all`. The command has a method `print_all`."""
    if wanted:
        command: Any = ctx.command
        command.print_all(ctx)
        raise typer.Exit


TaskName = Literal["upscale", "stylize", "restore-old-photo", "colorize"]
DEFAULT_TASK: TaskName = "upscale"


class WatchCommand(PictureCommand):
    """Takes the options of all tasks, and shows those of the task that is named."""

    own_options = (
        ("--task NAME", f"The command to run on each picture. [{'|'.join(TASKS)}]"),
        ("--every SECONDS", "Interval of looking at the folders; a file that changes in between is not complete."),
    )

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse `--task` first, wherever it was typed: the settings read from a file depend on it."""
        return super().parse_args(ctx, put_task_first(args))

    def find_task(self, ctx: Any) -> Task:
        return TASKS[str(ctx.params["task"])]


def put_task_first(args: list[str]) -> list[str]:
    """Move --task to the front; add the default if it is missing."""
    words = args[: args.index("--")] if "--" in args else args
    for index, word in enumerate(words):
        if word == "--task" or word.startswith("--task="):
            end = index + (2 if word == "--task" else 1)
            return [*args[index:end], *args[:index], *args[end:]]
    return ["--task", DEFAULT_TASK, *args]


def list_common_options(task: Task) -> list[tuple[str, str]]:
    """The options that most runs need."""
    return [
        (format_flags(settings, option), describe_option(settings, option, task, tell_engines=True))
        for settings, option in _all_options()
        if task.name in option.common
    ]


def group_by_engine(task: Task) -> Sections:
    """All options: first, by topic, those of every engine; then, by engines, those of fewer and fewer."""
    sections: dict[tuple[int, str], list[tuple[str, str]]] = {}
    engines = engines_for(task)
    for settings, option in _all_options():
        takers = [spec.name for spec in engines if spec.takes(option.like or option.field)]
        everybody = len(takers) == len(engines)
        heading = TOPICS[settings] if everybody else f"Only {' and '.join(_split_last(takers))}"
        if takers and task.name in option.tasks:
            row = format_flags(settings, option), describe_option(settings, option, task, tell_engines=False)
            sections.setdefault((-len(takers), heading), []).append(row)
    return {heading: rows for (_, heading), rows in sorted(sections.items(), key=lambda section: section[0][0])}


def _split_last(names: list[str]) -> list[str]:
    """For "a, b and c": everything but the last name, joined, and the last one."""
    return [", ".join(names[:-1]), names[-1]] if len(names) > 1 else names


def _all_options() -> Iterable[tuple[type, Option]]:
    return ((settings, option) for settings, options in OPTIONS.items() for option in options)


def format_flags(settings: type, option: Option) -> str:
    """The flags as typed: "-o, --output PATH"."""
    kind, short = field_types(settings)[option.field], option.alias.startswith("-") and option.alias[1:2] != "-"
    names = [option.alias, option.long] if short else [option.long, option.alias]
    if field_default(settings, option.field) is True:
        names = [f"--no-{option.long.removeprefix('--')}"]
    elif kind == bool | None:
        names = [f"--[no-]{option.long.removeprefix('--')}"]
    return " ".join(filter(None, (", ".join(filter(None, names)), _placeholder(settings, option))))


def _placeholder(settings: type, option: Option) -> str:
    kind = field_types(settings)[option.field]
    if option.value or kind in (bool, bool | None):
        return option.value
    return next((word for plain, word in PLACEHOLDERS.items() if kind in (plain, plain | None)), "WORD")


def describe_option(settings: type, option: Option, task: Task, *, tell_engines: bool) -> str:
    """The help text, the choices, the engines that take the option, and its default."""
    engines = engines_for(task)
    takers = [spec for spec in engines if spec.takes(option.like or option.field)]
    words = (AUTO, *(spec.name for spec in engines)) if option.field == "engine" else list_choices(settings, option)
    default = _describe_default(settings, option, task, takers)
    parts = [
        option.help,
        f"[{'|'.join(words)}]" if words else "",
        f"({', '.join(spec.name for spec in takers)})" if tell_engines and len(takers) < len(engines) else "",
        f"[default: {default}]".replace(" ", NO_BREAK_SPACE) if default else "",
    ]
    return " ".join(filter(None, parts))


def _describe_default(settings: type, option: Option, task: Task, takers: list[EngineSpec]) -> str:
    if option.default:
        return option.default.format(scale=task.scale)
    if settings is ModelChoice and option.field == "base":
        return "must be given" if task.needs_base else "the engine's"
    if settings is Sampling:
        return _engine_defaults(option.field, takers)
    default = field_default(settings, option.field)
    return str(default) if type(default) in (int, float, str) else ""


def _engine_defaults(field: str, takers: list[EngineSpec]) -> str:
    """One value if all engines agree, else the value of each."""
    values = {spec.name: getattr(spec.profile.defaults, field) for spec in takers}
    known = {name: str(value) for name, value in values.items() if value is not None}
    if len(set(known.values())) == 1:
        return next(iter(known.values()))
    return ", ".join(f"{name} {value}" for name, value in known.items())


def _print_help(command: PictureCommand, ctx: typer.Context, sections: Sections, task: Task) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(Text.assemble(("Usage: ", "bold"), f"{ctx.command_path} [OPTIONS] INPUT..."))
    console.print(f"\n{command.help}\n")
    console.print(Text("Examples:", "bold"))
    for example in EXAMPLES[str(command.name)]:
        console.print(f"  srcli {command.name} {example}")
    for heading, rows in sections.items():
        console.print(Text(f"\n{heading}:", "bold"))
        for names, text in rows:
            console.print(_format_row(names, text, console.width))


def _format_row(names: str, text: str, width: int) -> Text:
    """Two columns; long names push their text to the next line."""
    first, *others = wrap(text, max(20, width - FLAGS_WIDTH), break_on_hyphens=False)
    gap = " " * (FLAGS_WIDTH - 2 - len(names)) if len(names) + 4 <= FLAGS_WIDTH else f"\n{' ' * FLAGS_WIDTH}"
    lines = [first, *(f"{' ' * FLAGS_WIDTH}{other}" for other in others)]
    return Text.assemble("  ", (names, "cyan"), gap, "\n".join(lines).replace(NO_BREAK_SPACE, " "))
