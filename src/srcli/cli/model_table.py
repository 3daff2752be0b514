"""The tables of `srcli models`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from srcli.imaging.printable import format_bytes, printable
from srcli.weights import care
from srcli.weights.lock import Entry

KIND_TITLES = {
    "engine": "built in",
    "adapter": "adapters",
    "base": "base models",
    "lora": "LoRA",
    "vae": "decoders",
    "captioner": "captions and labels",
    "classifier": "captions and labels",
    "detector": "captions and labels",
    "damage": "finding damage",
    "preview": "previews",
    "metric": "metrics",
}
LICENCES = {
    "apache-2.0": "Apache 2.0",
    "bsd-3-clause": "BSD 3",
    "creativeml-openrail-m": "OpenRAIL-M",
    "mit": "MIT",
    "openrail++": "OpenRAIL++",
    "S-Lab 1.0": "S-Lab 1.0 (NC)",
    "stabilityai-community": "Stability",
}
RESTRICTED = ("non-commercial", "limited commercial use")
MARKS = {
    care.CHECKED: ("●", "*", "green"),
    care.HERE: ("○", "o", "green"),
    care.SOME: ("◐", "-", "yellow"),
    care.YOURS: ("+", "+", "cyan"),
    care.NO: ("·", ".", "dim"),
}
MEANS = {
    care.CHECKED: "here, checked",
    care.HERE: "here, not yet checked",
    care.SOME: "in part",
    care.YOURS: "yours to bring",
}


def print_table(entries: Sequence[Entry], states: Mapping[str, str], hub: Path) -> None:
    """Print the table of weights on stdout, one block per kind."""
    console = Console(highlight=False)
    order, longest = list(KIND_TITLES), max(len(printable(entry.name)) for entry in entries)
    for heading, members in groupby(
        sorted(entries, key=lambda e: order.index(e.kind)), key=lambda e: KIND_TITLES[e.kind]
    ):
        console.print(Text(f"\n{heading}", style="bold"))
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False, expand=True)
        table.add_column(width=1)
        table.add_column(width=longest, no_wrap=True)
        table.add_column(width=7, justify="right", no_wrap=True)
        table.add_column(width=14, no_wrap=True)
        table.add_column(ratio=1)
        for entry in members:
            table.add_row(*_make_row(entry, states[entry.name], console))
        console.print(table)
    console.print(_make_legend(states, console))
    console.print(Text(f"in {printable(hub)}", style="dim"), soft_wrap=True)


def print_entry(entry: Entry, facts: Mapping[str, object]) -> None:
    """Print one entry on stdout: its facts, then its files."""
    console, table = Console(highlight=False), Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    sizes = {"size", "to_fetch"}
    for name, value in facts.items():
        shown = format_bytes(value) if name in sizes and isinstance(value, int) else value
        text = ", ".join(map(str, shown)) if isinstance(shown, list) else "?" if shown is None else str(shown)
        table.add_row(Text(name.replace("_", " "), style="bold"), Text(printable(text)))
    console.print(table)
    for path, file in entry.files.items():
        size = "?" if file.size is None else format_bytes(file.size)
        console.print(Text(f"{size:>9}  {printable(path)}"), soft_wrap=True)


def _make_row(entry: Entry, state: str, console: Console) -> tuple[Text, ...]:
    style = "bold" if state in (care.CHECKED, care.HERE) else ""
    title = Text(printable(entry.title))
    if any(file.pickled for file in entry.files.values()):
        title.append(" (pickle)", style="yellow")
    return (
        _make_mark(state, console),
        Text(printable(entry.name), style=style, overflow="fold"),
        Text(_format_size(entry)),
        Text(
            LICENCES.get(entry.license, printable(entry.license)), style="yellow" if entry.terms in RESTRICTED else ""
        ),
        title,
    )


def _make_mark(state: str, console: Console) -> Text:
    full, plain, style = MARKS[state]
    return Text(plain if console.options.ascii_only else full, style=style)


def _format_size(entry: Entry) -> str:
    if entry.size is None:
        return "?"
    exact = entry.listed and all(file.size is not None for file in entry.files.values())
    return ("" if exact else "~") + format_bytes(entry.size)


def _make_legend(states: Mapping[str, str], console: Console) -> Text:
    legend = Text("\n")
    for state, meaning in MEANS.items():
        if state in states.values():
            legend.append_text(_make_mark(state, console)).append(f" {meaning}   ", style="dim")
    return legend
