"""The user's lock, with their own entries and the hashes that first pulls learned; merged with the packaged one."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from srcli.errors import MachineError, WeightsError
from srcli.files import open_guard, replace_file, wait_for_lock
from srcli.weights.lock import ENTRY_FIELDS, ENTRY_NAME, SCHEMA, Entry, read_lock

OVERLAY_HEADING = "# srcli's record of weights that this user added or pulled. Written by `srcli models`.\n"


ELSEWHERE = ": set XDG_CONFIG_HOME to another folder"


def read_overlay(path: Path) -> dict[str, Entry]:
    """Read the user's lock; empty if there is none, WeightsError if it cannot be read."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}){ELSEWHERE}") from error
    return read_lock(path)


def merge_locks(packaged: Mapping[str, Entry], own: Mapping[str, Entry]) -> dict[str, Entry]:
    """The packaged entries, replaced by the user's.

    A learned entry only replaces the packaged one if both have the same repository and commit and do not contradict.
    """
    entries = dict(packaged)
    for name, entry in own.items():
        if not entry.learned or (name in packaged and is_completed_by(packaged[name], entry)):
            entries[name] = entry
    return entries


def is_completed_by(packaged: Entry, learned: Entry) -> bool:
    """Whether a learned entry has the same repository and commit as the packaged one, and the same known hashes."""
    if packaged.origin != learned.origin or packaged.revision not in (None, learned.revision):
        return False
    return all(
        path in learned.files and file.sha256 in (None, learned.files[path].sha256)
        for path, file in packaged.files.items()
    )


def write_entry(path: Path, entry: Entry) -> None:
    """Add or replace an entry in the user's lock, atomically."""
    with _exclusive(path):
        _write(path, read_overlay(path) | {entry.name: entry})


def remove_entry(path: Path, name: str) -> bool:
    """Remove an entry from the user's lock; False if there is none."""
    with _exclusive(path):
        own = read_overlay(path)
        if name not in own:
            return False
        _write(path, {key: entry for key, entry in own.items() if key != name})
    return True


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Lock the user's lock file, so that two processes do not lose each other's entries."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_guard(path.with_name(".lock")) as guard:
            wait_for_lock(guard.fileno())
            yield
    except OSError as error:
        raise MachineError(f"{path}: cannot be written ({error.strerror}){ELSEWHERE}") from error


def _write(path: Path, entries: Mapping[str, Entry]) -> None:
    with replace_file(path) as fresh:
        fresh.write_text(OVERLAY_HEADING + format_lock(entries), encoding="utf-8")


def format_lock(entries: Mapping[str, Entry]) -> str:
    """Format entries as the text that `parse_lock` reads."""
    tables = "".join(_table(entries[name]) for name in sorted(entries))
    return f"schema = {SCHEMA}\n{tables}\n[end]\nentries = {len(entries)}\n"


def _table(entry: Entry) -> str:
    defaults = {item.name: item.default for item in fields(Entry)}
    name = entry.name if ENTRY_NAME.fullmatch(entry.name) and "." not in entry.name else _text(entry.name)
    lines = [f"\n[{name}]"]
    for key in ENTRY_FIELDS:
        value = getattr(entry, key)
        if key != "files" and value != defaults[key]:
            lines.append(f"{key} = {_value(value)}")
    if entry.files:
        lines.append(f"\n[{name}.files]")
    for path, file in sorted(entry.files.items()):
        facts = {"size": file.size, "sha256": file.sha256, "blob": file.blob}
        inner = ", ".join(f"{key} = {_value(value)}" for key, value in facts.items() if value is not None)
        lines.append(f"{_text(path)} = {{ {inner} }}" if inner else f"{_text(path)} = {{}}")
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(_text(item) for item in value) + "]"
    return str(value) if isinstance(value, int) else _text(str(value))


def _text(value: str) -> str:
    # A json string is a TOML basic string, but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
