"""The help of the picture commands: what most runs need with `--help`, everything by engine with `--help-all`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from textwrap import wrap
from typing import Any, Literal

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperCommand

from srcli.cli.options import OPTIONS, TOPICS, Option, choices, field_default, field_types
from srcli.engines.base import EngineSpec
from srcli.engines.registry import engines_for
from srcli.settings import AUTO, ModelChoice, Sampling
from srcli.tasks import TASKS, Task

NAMES = 25  # columns of the flags; longer ones have a line of their own
NO_BREAK_SPACE = "\xa0"  # a space at which no line is broken
PLACEHOLDERS: Mapping[type, str] = {int: "N", float: "X"}
CONFIG_HELP = "File with settings of your own; srcli config show tells which hold."
ENDING = (
    ("--config FILE", CONFIG_HELP),
    ("-h, --help", "Show this help."),
    ("--help-all", "Show all options, and which engines take them."),
)
EXAMPLES = {
    "upscale": ("scan.tif --scale 4", "album/ --recursive -o large/ --to a4@300"),
    "stylize": ("portrait.jpg --base-model anime", "portrait.jpg --base-model ghibli --strength 0.8 --seed 7"),
    "restore-old-photo": ("album/ -o restored/ --recursive", "print.tif --mask scratches.png --fidelity 0.8"),
    "watch": ("inbox/ -o large/", "scans/ -o mended/ --task restore-old-photo --recursive"),
    "colorize": ("grandmother.png", 'street.tif --prompt "a red tram, green trees" --seed 7'),
}

Sections = Mapping[str, Sequence[tuple[str, str]]]  # by heading: flags and what is said of them


class PictureCommand(TyperCommand):
    """A command with two helps."""

    own: Sequence[tuple[str, str]] = ()  # options of its own

    def find_task(self, ctx: Any) -> Task:
        return TASKS[str(self.name)]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        task = self.find_task(ctx)
        _print(self, ctx, {"Options": [*self.own, *brief(task), *ENDING]}, task)

    def print_all(self, ctx: typer.Context) -> None:
        task = self.find_task(ctx)
        own = {"Watching": self.own} if self.own else {}
        _print(self, ctx, {**own, **by_engine(task), "Settings and help": ENDING}, task)


TaskName = Literal["upscale", "stylize", "restore-old-photo", "colorize"]
USUAL_TASK: TaskName = "upscale"


class WatchCommand(PictureCommand):
    """Takes the options of all tasks, and shows those of the one that is named."""

    own = (
        ("--task NAME", f"Which command does it. [{'|'.join(TASKS)}]"),
        ("--every SECONDS", "Between two looks at the folders; what changes between them is not complete."),
    )

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """`--task` first, wherever it was typed: which settings of a file hold depends on it."""
        return super().parse_args(ctx, put_task_first(args))

    def find_task(self, ctx: Any) -> Task:
        return TASKS[str(ctx.params["task"])]


def put_task_first(args: list[str]) -> list[str]:
    """The same arguments, with the task in front, the usual one if none is named."""
    words = args[: args.index("--")] if "--" in args else args
    for index, word in enumerate(words):
        if word == "--task" or word.startswith("--task="):
            end = index + (2 if word == "--task" else 1)
            return [*args[index:end], *args[:index], *args[end:]]
    return ["--task", USUAL_TASK, *args]


def show_all(ctx: typer.Context, wanted: bool) -> None:
    """What `--help-all` does."""
    if wanted:
        assert isinstance(ctx.command, PictureCommand)
        ctx.command.print_all(ctx)
        raise typer.Exit


def brief(task: Task) -> list[tuple[str, str]]:
    """The options that most runs need."""
    return [
        (flags(settings, option), describe(settings, option, task, tell_engines=True))
        for settings, option in _rows()
        if task.name in option.common
    ]


def by_engine(task: Task) -> Sections:
    """All options: first, by topic, those that every engine takes; then those of fewer and fewer engines."""
    sections: dict[tuple[int, str], list[tuple[str, str]]] = {}
    able = engines_for(task)
    for settings, option in _rows():
        takers = [spec.name for spec in able if spec.takes(option.like or option.field)]
        everybody = len(takers) == len(able)
        heading = TOPICS[settings] if everybody else f"Only {' and '.join(_in_words(takers))}"
        if takers and task.name in option.tasks:
            row = flags(settings, option), describe(settings, option, task, tell_engines=False)
            sections.setdefault((-len(takers), heading), []).append(row)
    return {heading: rows for (_, heading), rows in sorted(sections.items(), key=lambda section: section[0][0])}


def _in_words(names: list[str]) -> list[str]:
    """a, b and c: the last two are joined by the caller."""
    return [", ".join(names[:-1]), names[-1]] if len(names) > 1 else names


def _rows() -> Iterable[tuple[type, Option]]:
    return ((settings, option) for settings, options in OPTIONS.items() for option in options)


def flags(settings: type, option: Option) -> str:
    """As they are typed: "-o, --output PATH"."""
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


def describe(settings: type, option: Option, task: Task, *, tell_engines: bool) -> str:
    """What an option does, its choices, who takes it, and what holds without it."""
    able = engines_for(task)
    takers = [spec for spec in able if spec.takes(option.like or option.field)]
    words = (AUTO, *(spec.name for spec in able)) if option.field == "engine" else choices(settings, option)
    default = _default(settings, option, task, takers)
    parts = [
        option.help,
        f"[{'|'.join(words)}]" if words else "",
        f"({', '.join(spec.name for spec in takers)})" if tell_engines and len(takers) < len(able) else "",
        f"[default: {default}]".replace(" ", NO_BREAK_SPACE) if default else "",
    ]
    return " ".join(filter(None, parts))


def _default(settings: type, option: Option, task: Task, takers: list[EngineSpec]) -> str:
    if option.default:
        return option.default.format(scale=task.scale)
    if settings is ModelChoice and option.field == "base":
        return "must be given" if task.needs_base else "the engine's"
    if settings is Sampling:
        return _engine_defaults(option.field, takers)
    default = field_default(settings, option.field)
    return str(default) if type(default) in (int, float, str) else ""


def _engine_defaults(field: str, takers: list[EngineSpec]) -> str:
    """One value where all agree, else each engine's."""
    values = {spec.name: getattr(spec.profile.defaults, field) for spec in takers}
    known = {name: str(value) for name, value in values.items() if value is not None}
    if len(set(known.values())) == 1:
        return next(iter(known.values()))
    return ", ".join(f"{name} {value}" for name, value in known.items())


def _print(command: PictureCommand, ctx: typer.Context, sections: Sections, task: Task) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(Text.assemble(("Usage: ", "bold"), f"{ctx.command_path} [OPTIONS] INPUT..."))
    console.print(f"\n{command.help}\n")
    console.print(Text("Examples:", "bold"))
    for example in EXAMPLES[str(command.name)]:
        console.print(f"  srcli {command.name} {example}")
    for heading, rows in sections.items():
        console.print(Text(f"\n{heading}:", "bold"))
        for names, text in rows:
            console.print(_row(names, text, console.width))


def _row(names: str, text: str, width: int) -> Text:
    """Two columns; long names push their text to the next line."""
    first, *others = wrap(text, max(20, width - NAMES), break_on_hyphens=False)
    gap = " " * (NAMES - 2 - len(names)) if len(names) + 4 <= NAMES else f"\n{' ' * NAMES}"
    lines = [first, *(f"{' ' * NAMES}{other}" for other in others)]
    return Text.assemble("  ", (names, "cyan"), gap, "\n".join(lines).replace(NO_BREAK_SPACE, " "))
