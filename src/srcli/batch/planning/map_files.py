"""Names of the maps of uncertainty, and the check that no map replaces another file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srcli.batch.planning.output_names import check_one_input, frame_suffix
from srcli.batch.planning.plan import BatchPlan, Item
from srcli.batch.settings import STDIO, BatchSettings
from srcli.errors import InputError
from srcli.files import hash_file, is_dir, name_beside, path_exists, path_or_link_exists, same_file
from srcli.imaging.printable import printable
from srcli.settings import MAP_ENDING

ReadProvenance = Callable[[Path], dict[str, Any] | None]


@dataclass(frozen=True, slots=True)
class MapNamer:
    """Where the map of a result goes: one file, or RESULT_map.png in a folder."""

    file: Path | None = None
    folder: Path | None = None

    @classmethod
    def from_settings(cls, settings: BatchSettings) -> MapNamer:
        """Raises InputError if `--map` names neither a folder nor a PNG file, or one file for several inputs."""
        text = settings.output.map
        if text is None:
            return cls()
        if text == STDIO:
            raise InputError("--map - cannot go to standard output: give a PNG file or a folder")
        path = Path(text)
        if text.endswith(("/", os.sep)) or is_dir(path) or (not path.suffix and not path_exists(path)):
            return cls(folder=path)
        if path.suffix.lower() != ".png":
            raise InputError(f"--map {printable(path)} is neither a folder nor a PNG file: end it in .png, or in /")
        check_one_input("--map", path, settings.input)
        return cls(file=path)

    def path(self, item: Item) -> Path | None:
        """The map's path for an item whose target is final; None without `--map`."""
        if self.file is not None:
            return self.file.with_name(self.file.stem + frame_suffix(item.found) + self.file.suffix)
        if self.folder is None:
            return None
        from_stdin = item.path == Path(STDIO)
        source = Path("stdin") if from_stdin else item.path
        inside = Path() if from_stdin else item.path.parent.relative_to(item.found.root)
        named = source if item.target == Path(STDIO) else item.target
        return name_beside(self.folder / inside / named.name, MAP_ENDING)

    def folders(self, items: Iterable[Item]) -> Iterable[Path]:
        """The folders that maps are written to."""
        return (path.parent for item in items if not item.found.problem and (path := self.path(item)) is not None)


def find_map_conflict(
    path: Path, item: Item, plan: BatchPlan, overwrite: bool, provenance: ReadProvenance
) -> str | None:
    """Why the map cannot be written to `path`, or None. An earlier map of the same picture may be replaced."""
    if plan.has(path) or any(same_file(path, side) for side in item.sides.by_role().values()):
        return f"the map {printable(path)} would replace an input: give another --map"
    if (other := plan.claim(path, item.path)) is not None:
        what = f"the map {printable(path)} would replace the result of {printable(other)}"
        return f"{what}: give another --map, or rename one"
    if path_or_link_exists(path) and not overwrite and not _is_map_of(path, item, provenance):
        return f"the map {printable(path)} exists: give --overwrite to replace it, or another --map"
    return None


def _is_map_of(path: Path, item: Item, provenance: ReadProvenance) -> bool:
    """Whether the file is a map of this picture, or of the result to be replaced, whose input may have changed."""
    facts = provenance(path) or {}
    if not facts.get("is_map"):
        return False
    mapped = facts.get("input_sha256")
    if item.replace and mapped == (provenance(item.target) or {}).get("input_sha256"):
        return True
    try:
        return bool(mapped == hash_file(item.path))
    except OSError:
        return False
