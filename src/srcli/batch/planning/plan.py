"""The plan of a run: every picture once, in a stable order, each with its own target."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from srcli.batch.planning.inputs import FoundFile
from srcli.batch.planning.output_names import OutputNamer, fold_case
from srcli.batch.settings import NO_SIDES, STDIO, InputOptions, SidePictures
from srcli.errors import InputError, PictureError
from srcli.files import numbered_names, path_exists, real_path, same_file
from srcli.imaging.printable import printable

PAGE = 1000
PLAN_COLUMNS = "id, turn, path, frame, root, size, dev, ino, kind, message, target"
PLAN_SCHEMA = """
CREATE TABLE found (id INTEGER PRIMARY KEY, turn INTEGER, path BLOB, root BLOB, size INTEGER, dev INTEGER,
                    ino INTEGER, kind TEXT, message TEXT, target BLOB,
                    whole BLOB, walked INTEGER, folder BLOB, stem BLOB, frame INTEGER DEFAULT 0,
                    UNIQUE (whole, frame));
CREATE INDEX by_order ON found (turn, path, frame);
CREATE INDEX by_stem ON found (folder, stem);
CREATE INDEX by_place ON found (dev, ino);
CREATE TABLE taken (key BLOB PRIMARY KEY, path BLOB, source BLOB);
"""


class SameTarget(InputError):
    """Two inputs would be written to the same file."""


@dataclass(frozen=True, slots=True)
class Item:
    """One planned picture."""

    id: int
    found: FoundFile
    target: Path = Path()  # meaningless where there is a problem
    replace: bool = False  # whether an existing target may be overwritten
    sides: SidePictures = NO_SIDES
    recipe: str = ""  # of its result
    map: Path | None = None  # where the map of uncertainty goes

    @property
    def path(self) -> Path:
        return self.found.path


class BatchPlan:
    """All pictures of a run, in a private temporary SQLite database, which moves from memory to disk when it grows."""

    def __init__(self, files: Iterable[FoundFile]) -> None:
        self._db = sqlite3.connect("")
        self._db.executescript(PLAN_SCHEMA)
        self._db.executemany(
            "INSERT INTO found (turn, path, root, size, dev, ino, kind, message, whole, walked, folder, stem)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (whole, frame) DO UPDATE SET walked = min(walked, excluded.walked)",
            map(_to_row, files),
        )

    def __len__(self) -> int:
        return int(self._fetch_one("SELECT count(*) FROM found")[0])

    @property
    def size(self) -> int:
        """Bytes of all inputs."""
        return int(self._fetch_one("SELECT coalesce(sum(size), 0) FROM found")[0])

    def __iter__(self) -> Iterator[Item]:
        """Items in order of the arguments, then by path; read in pages, without one long query."""
        last: tuple[int, bytes, int] = (-1, b"", 0)
        where = "WHERE (turn, path, frame) > (?, ?, ?) ORDER BY turn, path, frame"
        query = f"SELECT {PLAN_COLUMNS} FROM found {where} LIMIT {PAGE}"
        while rows := self._db.execute(query, last).fetchall():
            yield from map(_to_item, rows)
            last = rows[-1][1:4]

    def leave_out(self, is_own: Callable[[Path, bool], bool]) -> int:
        """Remove earlier results that were found in folders, not those named by the user. Returns their number."""
        left, before = len(self), [(b"", b"")]  # files whose names are prefixes of this one's
        query = "SELECT id, folder, stem, path, walked FROM found ORDER BY folder, stem"
        for id, folder, stem, path, walked in self._db.execute(query):
            while before and not (before[-1][0] == folder and stem.startswith(before[-1][1])):
                before.pop()
            has_source = any(shorter != stem for _, shorter in before)
            before.append((folder, stem))
            if walked and is_own(_decode_path(path), has_source):
                self._db.execute("DELETE FROM found WHERE id = ?", (id,))
        return left - len(self)

    def split_frames(self, count_frames: Callable[[Path], int]) -> None:
        """Make each page or frame of a file a picture of its own."""
        columns = "turn, path, root, size, dev, ino, whole, walked, folder, stem"
        copy = f"INSERT INTO found ({columns}, frame) SELECT {columns}, ? FROM found WHERE id = ?"
        for item in self:
            whole = not (item.found.problem or item.found.frame or item.path == Path(STDIO))
            if whole and (count := count_frames(item.path)) > 1:
                row = (item.found.size // count, item.id)
                self._db.execute("UPDATE found SET frame = 1, size = ? WHERE id = ?", row)
                self._db.executemany(copy, ((frame, item.id) for frame in range(2, count + 1)))

    def count_files(self) -> int:
        """Files that are to be read, however many pictures are in each."""
        return int(self._fetch_one("SELECT count(DISTINCT whole) FROM found")[0])

    def place(self, namer: OutputNamer, rename: bool, options: InputOptions | None = None) -> None:
        """Assign every picture its target. Raises InputError if two inputs have the same one."""
        for item in self:
            if item.found.problem:
                continue
            try:
                sides = options.sides_for(item.path, item.found.root) if options else NO_SIDES
                target = self._claim_target(item, namer.target(item.found), rename, sides)
            except PictureError as error:
                row = (error.kind, str(error), item.id)
                self._db.execute("UPDATE found SET kind = ?, message = ? WHERE id = ?", row)
            else:
                self._db.execute("UPDATE found SET target = ? WHERE id = ?", (os.fsencode(target), item.id))

    def _claim_target(self, item: Item, target: Path, rename: bool, sides: SidePictures) -> Path:
        if target == Path(STDIO):
            return target
        if any(same_file(target, path) for path in (item.path, *sides.by_role().values())):
            raise InputError(f"{printable(target)} would be overwritten by its own result: give another -o or --suffix")
        for path in chain([target], numbered_names(target)):
            other = self.claim(path, item.path)
            if other is None:
                return path
            if not rename:
                both = f"{printable(other)} and {printable(item.path)} would both be written to {printable(target)}"
                raise SameTarget(f"{both}: rename one, or give --on-exists rename")
        raise InputError(f"{printable(target)} has no free number left")

    def problem(self) -> str | None:
        """The first problem, if no input can be read at all, else None."""
        if self._fetch_one("SELECT count(*) FROM found WHERE kind IS NULL")[0]:
            return None
        first = next(iter(self), None)
        if first is None or first.found.problem is None:
            return "no picture found: give picture files, or folders that hold some (--recursive looks deeper)"
        return f"no picture found: {first.found.problem[1]}"

    def has(self, path: Path) -> bool:
        """Return whether this file is one of the inputs, under any name or link."""
        try:
            status = path.stat()
        except OSError:
            return False
        file_id = (_to_signed(status.st_dev), _to_signed(status.st_ino))
        return bool(self._fetch_one("SELECT count(*) FROM found WHERE dev = ? AND ino = ?", *file_id)[0])

    def claim(self, path: Path, source: Path) -> Path | None:
        """Reserve a target; returns the input that has it already, if any."""
        whole = _resolve_parent(path)
        key, row = fold_case(whole), (os.fsencode(whole), os.fsencode(source))
        if self._claim_key(key, row):
            return None
        taken, holder = self._fetch_one("SELECT path, source FROM taken WHERE key = ?", key)
        if taken != row[0] and not _ignores_case(whole):
            key = b"=" + row[0]
            if self._claim_key(key, row):
                return None
            (holder,) = self._fetch_one("SELECT source FROM taken WHERE key = ?", key)
        return Path(os.fsdecode(holder))

    def _claim_key(self, key: bytes, row: tuple[bytes, bytes]) -> bool:
        return self._db.execute("INSERT OR IGNORE INTO taken VALUES (?, ?, ?)", (key, *row)).rowcount > 0

    def _fetch_one(self, query: str, *values: object) -> tuple[Any, ...]:
        row: tuple[Any, ...] = self._db.execute(query, values).fetchone()
        return row


def _to_row(found: FoundFile) -> tuple[object, ...]:
    kind, message = found.problem or (None, None)
    path, whole = os.fsencode(found.path), _resolve_parent(found.path)
    dev, ino = map(_to_signed, found.file_id)
    place = (os.fsencode(whole), found.walked, os.fsencode(whole.parent), os.fsencode(whole.stem))
    return (found.turn, path, os.fsencode(found.root), found.size, dev, ino, kind, message, *place)


def _to_signed(value: int) -> int:
    """Convert an unsigned inode to SQLite's signed integers."""
    return value - (1 << 64) if value >= 1 << 63 else value


def _to_item(row: tuple[Any, ...]) -> Item:
    id, turn, path, frame, root, size, dev, ino, kind, message, target = row
    problem = (kind, message) if kind is not None else None
    found = FoundFile(_decode_path(path), _decode_path(root), turn, size, (dev, ino), problem, frame=frame)
    return Item(id, found, _decode_path(target or b""))


def _decode_path(name: bytes) -> Path:
    return Path(os.fsdecode(name))


def _resolve_parent(path: Path) -> Path:
    """The path with links in its folders resolved, but not a link that is the file itself."""
    return _resolve_cached(path.parent.absolute()) / path.name


@lru_cache(256)
def _resolve_cached(folder: Path) -> Path:
    return real_path(folder)


def _ignores_case(path: Path) -> bool:
    """Return whether the file system ignores case, tested on the nearest existing folder."""
    folder = next(parent for parent in path.parents if path_exists(parent))
    other = folder.with_name(folder.name.swapcase()) if folder.name else folder
    return other != folder and path_exists(other) and other.samefile(folder)
