"""The help of the training commands: common options with `--help`, all options with `--help-all`."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption

from srcli.cli.help import show_all_help

# What `--help` shows besides the required options.
COMMON_OPTIONS = frozenset(
    {"data", "budget", "task", "teachers", "resume", "batch", "base_model", "start", "form", "size", "degradation"}
    | {"adapter", "device", "help_all"}
)


class TrainCommand(TyperCommand):
    """A command with two helps."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        rare = [p for p in self.params if not (p.required or p.name in COMMON_OPTIONS)]
        options = [p for p in rare if isinstance(p, TyperOption) and not p.hidden]
        for option in options:
            option.hidden = True
        super().format_help(ctx, formatter)
        for option in options:
            option.hidden = False

    def print_all(self, ctx: typer.Context) -> None:
        super().format_help(ctx, ctx.make_formatter())


HelpAll = Annotated[
    bool, typer.Option("--help-all", is_eager=True, callback=show_all_help, help="Show all options and exit.")
]
