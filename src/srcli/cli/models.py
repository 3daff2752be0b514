"""`srcli models`: list, download, check, add and remove weights."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Annotated

import typer

from srcli.cli import complete
from srcli.cli.boundary import print_message, write_line
from srcli.cli.downloads import fetch_weights
from srcli.engines.choose import check_adapter
from srcli.errors import InputError, WeightsError
from srcli.files import expand_user, path_exists
from srcli.imaging.printable import format_bytes, format_count, printable
from srcli.messages import name_flags
from srcli.weights import care
from srcli.weights.lock import AddedKind, Entry, find_entry
from srcli.weights.store import ANY, Store, describe_licence

models_app = typer.Typer(
    name="models", help="The weights: list, info, pull, verify, add, lock, remove.", no_args_is_help=True
)

Names = Annotated[
    list[str],
    typer.Argument(
        help="Names from `srcli models list`, or hub ids (org/name\\[@revision]).",
        autocompletion=complete.complete_weights,
    ),
]
Name = Annotated[str, typer.Argument(help="A name from `srcli models list`.", autocompletion=complete.complete_weights)]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")]
Offline = Annotated[bool, typer.Option("--offline", help="Touch no network.")]


@models_app.command("list")
def list_models(
    as_json: Json = False,
    every: Annotated[bool, typer.Option("--all", help="Other forms too: half precision, single files.")] = False,
    size: Annotated[bool, typer.Option("--size", help="What is on this disk, by size, and what can go.")] = False,
) -> None:
    """Show every weight srcli knows: what it is, whether it is here, its size and licence."""
    store = Store()
    if size:
        _print_sizes(store, as_json)
        return
    entries = [entry for entry in store.lock().values() if every or as_json or not entry.form_of]
    states = {entry.name: care.read_state(store, entry) for entry in entries}
    if as_json:
        for entry in entries:
            print(json.dumps(_entry_facts(entry, states[entry.name])))
        return
    from srcli.cli.model_table import print_table

    print_table(entries, states, store.places.hub)


def _print_sizes(store: Store, as_json: bool) -> None:
    """The entries that are here, largest first, and what gc would delete."""
    rows = [
        (entry.name, sum(copy.path.stat().st_size for copy in care.find_copies(store, entry)))
        for entry in store.lock().values()
    ]
    rows = sorted((row for row in rows if row[1]), key=lambda row: -row[1])
    left = sum(size for _, size in care.find_garbage(store))
    for name, size in (*rows, ("leftovers", left)):
        print(json.dumps({"name": name, "bytes": size}) if as_json else f"{format_bytes(size):>9}  {printable(name)}")
    print_message(
        "srcli models remove NAME deletes an entry, srcli models gc the leftovers; files of two entries are kept once"
    )


def _entry_facts(entry: Entry, state: str) -> dict[str, object]:
    own = ("size", "license", "terms", "repo", "address", "revision", "pinned", "needs", "form_of", "local")
    names = ("name", "kind", "family", "title", "state", *own)
    facts = {name: state if name == "state" else getattr(entry, name) for name in names}
    return {key: value for key, value in facts.items() if value not in (None, "", ())}


@models_app.command("pull")
def pull_models(
    names: Names,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would come.")] = False,
    alone: Annotated[bool, typer.Option("--alone", help="Leave out what the entry needs beside itself.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before more than 1 GB.")] = False,
) -> None:
    """Fetch weights and all they need, check every hash, and go on where a broken download stopped."""
    store = Store(tell=print_message)
    wanted = _collect_entries(store, names, alone)
    plans = [(entry, store.plan(entry, parts)) for entry, parts in wanted if not _is_verified(store, entry, parts)]
    if dry_run:
        for entry, planned in plans:
            for remote in planned.missing:
                print(f"{entry.name}\t{remote.path}\t{remote.size}")
        return
    fetch_weights(store, plans, yes=yes)
    print_message(f"{', '.join(names)}: here and as locked")


def _is_verified(store: Store, entry: Entry, parts: Sequence[str]) -> bool:
    """Whether an entry is present and matches the lock; a bad file is moved aside and reported."""
    if not store.is_here(entry, parts):
        return False
    try:
        store.check(entry, parts)
    except WeightsError as error:
        print_message(name_flags(str(error)))
        return False
    return True


def _collect_entries(store: Store, names: Sequence[str], alone: bool) -> list[tuple[Entry, tuple[str, ...]]]:
    """The entries to pull, each once, without those that the user provides or that are part of srcli."""
    wanted: dict[str, tuple[Entry, tuple[str, ...]]] = {}
    for name in names:
        family = store.with_dependencies(name)
        if family[0][0].user_supplied:
            store.open(family[0][0])  # raises with instructions
        for entry, parts in family[:1] if alone else family:
            _, before = wanted.get(entry.name, (entry, parts))
            every = () if () in (before, parts) else tuple(sorted({*before, *parts}))
            wanted[entry.name] = (entry, every)
    return [(entry, parts) for entry, parts in wanted.values() if entry.origin is not None]


@models_app.command("info")
def describe_model(name: Name, as_json: Json = False) -> None:
    """Say what an entry is, which files it has, what it needs besides, and how much of that is still to come."""
    store = Store(offline=True)
    entry = find_entry(store.lock(), name)
    facts = _entry_facts(entry, care.read_state(store, entry)) | {"to_fetch": store.missing_size([name])}
    if as_json:
        files = {path: {"size": file.size, "sha256": file.sha256} for path, file in entry.files.items()}
        print(json.dumps(facts | {"files": files}))
        return
    from srcli.cli.model_table import print_entry

    print_entry(entry, facts)


@models_app.command("verify")
def verify_models(
    names: Annotated[list[str] | None, typer.Argument(help="Names; none means all that are here.")] = None,
    subset: Annotated[str, typer.Option(help="Read only a random part, such as 10%.")] = "100%",
    as_json: Json = False,
) -> None:
    """Read weights again and hold them against the lock. Bad files are moved aside and named."""
    store = Store(tell=print_message)
    entries = [find_entry(store.lock(), name) for name in names] if names else list(store.lock().values())
    found = {copy.path: copy for entry in entries for copy in care.find_copies(store, entry)}
    if names and not found:
        raise WeightsError(f"{', '.join(names)}: not on this disk: run srcli models pull {' '.join(names)}")
    verdicts = []
    for verdict in care.verify_copies(store, list(found.values()), _parse_share(subset)):
        verdicts.append(verdict)
        _print_verdict(verdict, as_json)
    bad = sorted({verdict.copy.entry.name for verdict in verdicts if verdict.wrong})
    if bad:
        count = sum(1 for verdict in verdicts if verdict.wrong)
        raise WeightsError(f"{count} of {len(verdicts)} files are not as locked: run srcli models pull {' '.join(bad)}")
    print_message(f"{format_count(len(verdicts), 'file')} as locked")


def _print_verdict(verdict: care.Verdict, as_json: bool) -> None:
    copy = verdict.copy
    if as_json:
        facts = {"name": copy.entry.name, "file": copy.file.path, "wrong": verdict.wrong}
        print(json.dumps(facts | {"moved_to": printable(verdict.aside) if verdict.aside else None}))
    elif verdict.wrong:
        print(f"{copy.entry.name}/{copy.file.path}")
    if verdict.wrong:
        where = f"; moved to {verdict.aside}" if verdict.aside else "; left where it is"
        print_message(f"{copy.path} {verdict.wrong}{where}")


def _parse_share(text: str) -> float:
    try:
        share = float(text.removesuffix("%")) / 100
    except ValueError as error:
        raise InputError(f"--subset {text} is not a percentage: give one such as 10%") from error
    if not 0 < share <= 1:
        raise InputError(f"--subset {text} is out of range: give more than 0% and at most 100%")
    return share


@models_app.command("add")
def add_model(
    name: Annotated[str, typer.Argument(help="The short name to give it.")],
    target: Annotated[str, typer.Argument(help="A file, a folder, or a hub id (org/name\\[@revision]).")],
    kind: Annotated[AddedKind, typer.Option(help="What it is; a file that says so itself is believed.")] = "base",
    file: Annotated[str | None, typer.Option(help="The one file of a repository that is meant.")] = None,
    offline: Offline = False,
) -> None:
    """Give your own weights a name: a safetensors file, a diffusers folder, or a repository on the Hub."""
    if kind == "adapter" and path_exists(expand_user(target)):
        check_adapter(target)
    entry = care.add_entry(Store(offline=offline, tell=print_message), name, target, kind, file)
    what = entry.kind if entry.family == ANY else f"{entry.family} {entry.kind}"
    print_message(
        f"added {entry.name}: {what}, {format_count(len(entry.files), 'file')}; licence: {describe_licence(entry)}"
    )


@models_app.command("lock")
def lock_model(name: Name) -> None:
    """Ask the Hub for the revision and hashes of an entry and write them into your lock."""
    store = Store(tell=print_message)
    known = care.lock_entry(store, find_entry(store.lock(), name))
    print_message(f"{known.name} is locked at {(known.revision or '')[:8]}")


@models_app.command("remove")
def remove_models(names: Names) -> None:
    """Delete weights from the cache. Your own files are only forgotten."""
    store = Store(tell=print_message)
    entries = [find_entry(store.lock(), name) for name in names]
    freed = sum(care.forget_entry(store, entry) for entry in entries)
    print_message(f"removed {', '.join(names)}: {format_bytes(freed)} freed")


@models_app.command("path")
def print_path(
    name: Name, part: Annotated[str | None, typer.Argument(help="A part of it, such as vae.")] = None
) -> None:
    """Print where an entry lies, without touching the network."""
    parts = (part,) if part else ()
    found = Store(offline=True, tell=print_message).resolve(name, parts=parts)
    write_line(os.fsencode(found.file or (found.part(part) if part else found.folder)))


@models_app.command("gc")
def collect_garbage(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would go.")] = False,
) -> None:
    """Delete what broken downloads, bad files and old conversions left behind."""
    store = Store(tell=print_message)
    if dry_run:
        found = care.find_garbage(store)
        for item, _ in found:
            write_line(os.fsencode(item))
        size = format_bytes(sum(size for _, size in found))
        print_message(f"{format_count(len(found), 'leftover')}, {size}, would go")
        return
    gone = care.remove_garbage(store)
    for item, _ in gone:
        write_line(os.fsencode(item))
    print_message(f"{format_count(len(gone), 'leftover')} removed, {format_bytes(sum(size for _, size in gone))} freed")
