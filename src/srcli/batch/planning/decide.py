"""Which pictures need work: all that are not done, and whose result has a place to go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from srcli.batch.journal.file import result_key
from srcli.batch.journal.previous_runs import Attempt, PreviousRuns
from srcli.batch.planning.output_names import numbered_names
from srcli.batch.planning.plan import Item, Plan
from srcli.batch.report import FAILED, SKIPPED, Outcome
from srcli.batch.settings import STDIO, InputOptions, recipe_with_mask
from srcli.files import exists, hash_file, lexists
from srcli.imaging.printable import printable

CRASH = "crash"
READY = "up to date"
ALL_FAILED = 1


@dataclass(frozen=True, slots=True)
class Decider:
    """Decides about one picture at a time, just before its turn."""

    plan: Plan
    input: InputOptions
    memory: PreviousRuns
    recipe: str
    on_exists: str
    read_made: Callable[[Path], dict[str, Any] | None]

    def decide(self, item: Item) -> Item | Outcome:
        """The item, if there is work to do; else what has become of it."""
        if item.found.problem:
            kind, message = item.found.problem
            return Outcome(item.path, FAILED, kind=kind, message=message, exit_code=ALL_FAILED)
        mask = self.input.mask_for(item.path, item.found.root)
        item = replace(item, mask=mask, recipe=recipe_with_mask(self.recipe, mask))
        if item.target == Path(STDIO):
            return item
        past = self.memory.of(item.path, item.recipe, item.target)
        if past is not None and past.target is not None:
            # A result whose name was taken got a number once, and keeps it.
            item = replace(item, target=item.target.with_name(past.target.name))
        if past is not None and (outcome := self._as_before(item, past)) is not None:
            return outcome
        return self._occupied(item) if lexists(item.target) else item

    def _as_before(self, item: Item, past: Attempt) -> Outcome | None:
        if past.kind == CRASH and past.same_input(item.path):
            text = f"{printable(item.path)} killed its reader in an earlier run and was left alone: save it anew"
            return _failed(item, CRASH, text)
        if past.status == "done" and past.stands() and past.same_input(item.path):
            return Outcome(item.path, SKIPPED, item.target, READY)
        return None

    def _occupied(self, item: Item) -> Item | Outcome:
        """Something stands where the result shall go."""
        if self.on_exists == "skip":
            return Outcome(item.path, SKIPPED, item.target, "exists")
        if self.plan.has(item.target):
            if self.on_exists == "rename":
                return self._renamed(item)
            return _failed(
                item, "over-input", f"{printable(item.target)} is itself an input: give another -o or --suffix"
            )
        if self.on_exists == "overwrite" or self.memory.made(item.target, item.path):
            return replace(item, replace=True)
        if self._stands(item):
            return Outcome(item.path, SKIPPED, item.target, READY)
        if self.on_exists == "rename":
            return self._renamed(item)
        return _failed(
            item, "exists", f"{printable(item.target)} exists: --overwrite replaces it, --on-exists has more ways"
        )

    def _stands(self, item: Item) -> bool:
        """Does the file itself say that it is this very result?"""
        made = self.read_made(item.target)
        try:
            return made is not None and made.get("key") == result_key(hash_file(item.path), item.recipe)
        except OSError:
            return False

    def _renamed(self, item: Item) -> Item:
        free = (p for p in numbered_names(item.target) if not exists(p) and self.plan.claim(p, item.path) is None)
        return replace(item, target=next(free))


def _failed(item: Item, kind: str, message: str) -> Outcome:
    return Outcome(item.path, FAILED, kind=kind, message=message, exit_code=ALL_FAILED)
