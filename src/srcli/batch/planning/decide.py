"""Which pictures need work: all that are not done, and whose result has a place to go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from srcli.batch.journal.file import STARTED, result_key
from srcli.batch.journal.previous_runs import Attempt, PreviousRuns
from srcli.batch.planning.output_names import numbered_names
from srcli.batch.planning.plan import Item, Plan
from srcli.batch.report import DONE, FAILED, SKIPPED, Outcome
from srcli.batch.settings import STDIO, InputOptions, recipe_with_mask
from srcli.files import hash_file, lexists
from srcli.imaging.printable import printable

CRASH = "crash"
UP_TO_DATE = "up to date"
ALL_FAILED = 1


@dataclass(frozen=True, slots=True)
class Decider:
    """Decides about one picture at a time, just before its turn."""

    plan: Plan
    input: InputOptions
    previous: PreviousRuns
    recipe: str
    on_exists: str
    read_provenance: Callable[[Path], dict[str, Any] | None]
    confirm: Callable[[Item], None] | None = None  # a result turns out to be finished

    def decide(self, item: Item) -> Item | Outcome:
        """The item, if there is work to do; else what has become of it."""
        if item.found.problem:
            kind, message = item.found.problem
            return _failed(item, kind, message)
        mask = self.input.mask_for(item.path, item.found.root)
        item = replace(item, mask=mask, recipe=recipe_with_mask(self.recipe, mask))
        if item.target == Path(STDIO):
            return item
        attempt = self.previous.last_attempt(item.path, item.recipe, item.target)
        if attempt is not None and attempt.target is not None:
            # A result whose name was taken got a number once, and keeps it.
            item = replace(item, target=item.target.with_name(attempt.target.name))
        if attempt is not None and (outcome := self._as_before(item, attempt)) is not None:
            return outcome
        return self._resolve_conflict(item) if lexists(item.target) else item

    def _as_before(self, item: Item, attempt: Attempt) -> Outcome | None:
        if attempt.kind == CRASH and attempt.has_same_input(item.path):
            text = f"{printable(item.path)} crashed its decoder in an earlier run and was not opened: save it anew"
            return _failed(item, CRASH, text)
        if attempt.status in (DONE, STARTED) and attempt.has_result() and attempt.has_same_input(item.path):
            if attempt.status == STARTED and self.confirm:
                self.confirm(item)  # the run was killed after the result took its place
            return Outcome(item.path, SKIPPED, item.target, UP_TO_DATE)
        return None

    def _resolve_conflict(self, item: Item) -> Item | Outcome:
        """Something exists where the result is to go."""
        if self.on_exists == "skip":
            return Outcome(item.path, SKIPPED, item.target, "exists")
        if self.plan.has(item.target):
            if self.on_exists == "rename":
                return self._renamed(item)
            return _failed(
                item, "over-input", f"{printable(item.target)} is itself an input: give another -o or --suffix"
            )
        if self.on_exists == "overwrite":
            return replace(item, replace=True)
        provenance = self.read_provenance(item.target)
        if provenance is not None and self.previous.wrote(item.target, item.path):
            return replace(item, replace=True)  # the journal alone would not do: it may be somebody else's
        if provenance is not None and _is_result_of(item, provenance):
            return Outcome(item.path, SKIPPED, item.target, UP_TO_DATE)
        if self.on_exists == "rename":
            return self._renamed(item)
        return _failed(
            item, "exists", f"{printable(item.target)} exists: --overwrite replaces it, --on-exists has more ways"
        )

    def _renamed(self, item: Item) -> Item:
        names = numbered_names(item.target)
        free = (path for path in names if not lexists(path) and self.plan.claim(path, item.path) is None)
        return replace(item, target=next(free))


def _is_result_of(item: Item, provenance: dict[str, Any]) -> bool:
    """Does the file itself say that it is this very result?"""
    try:
        return bool(provenance.get("key") == result_key(hash_file(item.path), item.recipe))
    except OSError:
        return False


def _failed(item: Item, kind: str, message: str) -> Outcome:
    return Outcome(item.path, FAILED, kind=kind, message=message, exit_code=ALL_FAILED)
