"""What is done of a picture, kept on the disk, so that a run of hours that was ended goes on where it was."""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srcli.errors import WeightsError
from srcli.files import is_dir, is_own_folder, is_regular, open_own_file, replace_file
from srcli.imaging.picture import AnyPixels
from srcli.sampling.sampler import Scheduler
from srcli.sampling.tiling import Tile
from srcli.weights.places import find_places

log = logging.getLogger(__name__)

FIRST_SAVE_AFTER = 60.0  # seconds of work that are not worth keeping
SAVE_INTERVAL = 30.0  # seconds between two states of one sampling
KEPT_SECONDS = 7 * 86400.0  # seconds after which nobody comes back for a picture

STEP = "step"
SavedState = dict[str, Any]  # of tensors, numbers, texts, and lists and dicts of these
OnProgress = Callable[[str, int, int], None]  # stage, done, of
# Levels of a finished block, where it lies in the result of its pass, and width and height of that.
OnBlock = Callable[[AnyPixels, Tile, tuple[int, int]], None]
OnExpected = Callable[[Tensor], None]  # what a sampler expects after a step


class ResumeState:
    """One picture's folder. What cannot be kept, or cannot be read again, costs the time to redo it, and no more."""

    def __init__(self, folder: Path | None, name: str = "") -> None:
        self._folder, self._name = folder, name or "the picture"
        self._from, self._last = time.monotonic() + FIRST_SAVE_AFTER, dict[str, float]()
        self._able = folder is not None

    def find(self, what: str) -> SavedState | None:
        """What was kept under this name by a run that was ended."""
        if not self.has(what):
            return None
        try:
            with os.fdopen(open_own_file(self._file(what), os.O_RDONLY), "rb") as file:
                kept = file.read()
        except OSError:
            return None
        if kept[:32] != self._seal(kept[32:]):
            log.warning(f"what was kept of {self._name} is damaged: doing that part again")
            return None
        found: SavedState = torch.load(io.BytesIO(kept[32:]), weights_only=True)
        return found

    def has(self, what: str) -> bool:
        return self._folder is not None and is_own_folder(self._folder) and is_regular(self._folder / what)

    def resuming(self, place: str) -> None:
        log.info(f"resuming {self._name} after {place}")

    def due(self, what: str, every: float = 0.0) -> bool:
        """Whether the picture has taken long, and this was not kept just now."""
        return self._able and time.monotonic() >= max(self._from, self._last.get(what, 0.0) + every)

    def keep(self, what: str, state: SavedState) -> None:
        self._last[what] = time.monotonic()
        try:
            self._write(what, state)
        except OSError as error:
            self._able = False
            self.drop()  # the room may be the result's
            why = error.strerror or type(error).__name__
            log.warning(f"{self._name} cannot be resumed if it is ended now ({why}): free some space in {self._folder}")

    def drop(self) -> None:
        """The picture is finished, or its state cannot be kept."""
        if self._folder is not None and is_own_folder(self._folder):
            shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, what: str) -> Path:
        return (self._folder or Path()) / what

    def _write(self, what: str, state: SavedState) -> None:
        file, data = self._file(what), io.BytesIO()
        if not is_dir(file.parent):
            file.parent.mkdir(0o700, parents=True, exist_ok=True)  # a picture may be nobody else's business
            remove_stale(file.parent.parent)
        if not is_own_folder(file.parent):
            raise OSError(errno.EPERM, "its folder is a link, or belongs to another user")
        torch.save(state, data)
        with replace_file(file) as fresh, fresh.open("wb") as out:
            out.write(self._seal(data.getbuffer()))
            out.write(data.getbuffer())

    def _seal(self, data: bytes | memoryview) -> bytes:
        """Holds for these bytes, and for this picture, only."""
        sealed = hashlib.sha256(self._file("").name.encode())
        sealed.update(data)
        return sealed.digest()


def find_resume_folder(key: str) -> Path | None:
    """The folder for a picture, in the user's cache. None for a user without a home."""
    try:
        return find_places().data / "unfinished" / key
    except WeightsError:
        return None


def remove_stale(home: Path) -> None:
    """Remove what was left for long."""
    for folder in home.iterdir():
        with suppress(OSError):
            if folder.stat().st_mtime < time.time() - KEPT_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def hash_picture(pixels: NDArray[Any], *recipe: object) -> str:
    """A name for this picture under this recipe."""
    digest = hashlib.sha256(repr((pixels.shape, pixels.dtype.str, *recipe)).encode("utf-8", "surrogateescape"))
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class BlockProgress:
    """One block of one pass on a picture's way: who hears how far it is, and where that is kept."""

    on_progress: OnProgress
    kept: ResumeState
    layer: int = 0
    index: int = 0
    count: int = 1
    on_block: OnBlock | None = None
    on_expected: OnExpected | None = None

    @property
    def name(self) -> str:
        return f"{self.layer}-{self.index}"

    def tell(self, stage: str, done: int, total: int) -> None:
        """One block's progress, as a share of the whole pass."""
        self.on_progress(stage, self.index * total + done, self.count * total)

    def blocks(self, count: int) -> list[BlockProgress]:
        """Those of this pass."""
        parts = [replace(self, index=index, count=count) for index in range(count)]
        if 0 < (done := sum(self.kept.has(part.name) for part in parts)) < count:
            self.kept.resuming(f"block {done} of {count}")
        return parts

    def levels(self) -> AnyPixels | None:
        """This block, where it was done before."""
        found = self.kept.find(self.name)
        return None if found is None else found["levels"].numpy()

    def keep_levels(self, levels: AnyPixels) -> None:
        if self.kept.due(self.name):
            self.kept.keep(self.name, {"levels": torch.from_numpy(levels)})

    def resumed(self, start: Tensor, scheduler: Scheduler, tiles: str) -> tuple[Tensor, int]:
        """The canvas to go on from, and how many steps lie behind it. Other tiles would give another picture."""
        found = self.kept.find(STEP)
        if found is None or found["at"] != [self.name, tiles]:
            return start, 0
        vars(scheduler).update(found["scheduler"])
        self.kept.resuming(f"step {found['done']} of {len(scheduler.timesteps)}")
        return found["x"], found["done"]

    def keep_step(self, done: int, x: Tensor, scheduler: Scheduler, tiles: str) -> None:
        """Schedulers of several steps look back at the ones before, so theirs is kept too; but nothing broken."""
        if self.kept.due(STEP, SAVE_INTERVAL) and bool(torch.isfinite(x).all()):
            memory = {name: value for name, value in vars(scheduler).items() if _plain(value)}
            self.kept.keep(STEP, {"at": [self.name, tiles], "done": done, "x": x, "scheduler": memory})


def _plain(value: object) -> bool:
    if type(value) is list:
        return all(map(_plain, value))
    return value is None or isinstance(value, Tensor) or type(value) in (bool, int, float, str)
