"""Decide which pictures need work, and what to do where a result exists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from srcli.batch.journal.file import STARTED, result_key
from srcli.batch.journal.previous_runs import Attempt, PreviousRuns
from srcli.batch.planning.map_files import MapNamer, find_map_conflict
from srcli.batch.planning.plan import BatchPlan, Item
from srcli.batch.report import ALL_FAILED, DONE, FAILED, SKIPPED, Outcome
from srcli.batch.settings import STDIO, BatchSettings, OnExists, recipe_of_picture
from srcli.files import hash_file, numbered_names, path_or_link_exists
from srcli.imaging.printable import printable

CRASH = "crash"
UP_TO_DATE = "up to date"


@dataclass
class Decider:
    """Decides for one picture at a time, just before it is read."""

    settings: BatchSettings
    plan: BatchPlan
    previous: PreviousRuns
    read_provenance: Callable[[Path], dict[str, Any] | None]
    confirm: Callable[[Item], None] | None = None  # called when a result turns out to be finished

    def __post_init__(self) -> None:
        self.maps = MapNamer.from_settings(self.settings)  # at once, so that a wrong --map is refused in any case

    @cached_property
    def recipe(self) -> str:
        return self.settings.recipe()

    @property
    def on_exists(self) -> OnExists:
        return self.settings.output.on_exists

    def decide(self, item: Item) -> Item | Outcome:
        """Return the item if there is work to do, else its outcome."""
        decided = self._decide_result(item)
        return decided if isinstance(decided, Outcome) else self._decide_map(decided)

    def _decide_result(self, item: Item) -> Item | Outcome:
        if item.found.problem:
            kind, message = item.found.problem
            return _failed_outcome(item, kind, message)
        sides = self.settings.input.sides_for(item.path, item.found.root)
        item = replace(item, sides=sides, recipe=recipe_of_picture(self.recipe, sides, item.found.frame))
        if item.target == Path(STDIO):
            return item
        attempt = self.previous.last_attempt(item.path, item.recipe, item.target)
        if attempt is not None and attempt.target is not None:
            # A result that was numbered in an earlier run keeps its number.
            item = replace(item, target=item.target.with_name(attempt.target.name))
        if attempt is not None and (outcome := self._find_earlier_outcome(item, attempt)) is not None:
            return outcome
        return self._resolve_conflict(item) if path_or_link_exists(item.target) else item

    def _decide_map(self, item: Item) -> Item | Outcome:
        path = self.maps.path(item)
        if path is None:
            return item
        overwrite = self.on_exists == "overwrite"
        conflict = find_map_conflict(path, item, self.plan, overwrite, self.read_provenance)
        return replace(item, map=path) if conflict is None else _failed_outcome(item, "exists", conflict)

    def _lacks_map(self, item: Item) -> bool:
        path = self.maps.path(item)
        return path is not None and not path_or_link_exists(path)

    def _find_earlier_outcome(self, item: Item, attempt: Attempt) -> Outcome | None:
        if attempt.kind == CRASH and attempt.has_same_input(item.path):
            text = f"{printable(item.path)} crashed its decoder in an earlier run and was not opened:"
            text += " save it again with another program"
            return _failed_outcome(item, CRASH, text)
        if self._lacks_map(item):
            return None
        if attempt.status in (DONE, STARTED) and attempt.has_result() and attempt.has_same_input(item.path):
            if attempt.status == STARTED and self.confirm:
                self.confirm(item)  # the run was killed after the result was renamed into place
            return Outcome(item.path, SKIPPED, item.target, UP_TO_DATE, frame=item.found.frame)
        return None

    def _resolve_conflict(self, item: Item) -> Item | Outcome:
        """Decide for a target that exists."""
        if self.on_exists == "skip":
            return Outcome(item.path, SKIPPED, item.target, "exists", frame=item.found.frame)
        if self.plan.has(item.target):
            if self.on_exists == "rename":
                return self._number_target(item)
            return _failed_outcome(
                item, "over-input", f"{printable(item.target)} is itself an input: give another -o or --suffix"
            )
        if self.on_exists == "overwrite":
            return replace(item, replace=True)
        provenance = self.read_provenance(item.target)
        if provenance is not None and self.previous.wrote(item.target, item.path):
            return replace(item, replace=True)  # the journal alone is not trusted: it may come from someone else
        if provenance is not None and _is_result_of(item, provenance):
            if self._lacks_map(item):
                return replace(item, replace=True)
            return Outcome(item.path, SKIPPED, item.target, UP_TO_DATE, frame=item.found.frame)
        if self.on_exists == "rename":
            return self._number_target(item)
        return _failed_outcome(
            item, "exists", f"{printable(item.target)} exists: give --overwrite to replace it, or see --on-exists"
        )

    def _number_target(self, item: Item) -> Item:
        names = numbered_names(item.target)
        free = (path for path in names if not path_or_link_exists(path) and self.plan.claim(path, item.path) is None)
        return replace(item, target=next(free))


def _is_result_of(item: Item, provenance: dict[str, Any]) -> bool:
    """Return whether the file's metadata says that it is this result."""
    try:
        return bool(provenance.get("key") == result_key(hash_file(item.path), item.recipe))
    except OSError:
        return False


def _failed_outcome(item: Item, kind: str, message: str) -> Outcome:
    return Outcome(item.path, FAILED, kind=kind, message=message, exit_code=ALL_FAILED, frame=item.found.frame)
