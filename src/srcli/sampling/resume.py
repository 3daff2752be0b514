"""State of an unfinished picture on the disk, so that an interrupted run of hours can be resumed."""

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

FIRST_SAVE_AFTER = 60.0  # seconds; less work than this is not worth saving
SAVE_INTERVAL = 30.0  # seconds between two saves while sampling
STATE_LIFETIME = 7 * 86400.0  # age at which the state of an unfinished picture is removed

STEP = "step"
SavedState = dict[str, Any]  # tensors, numbers, strings, and lists and dicts of these
OnProgress = Callable[[str, int, int], None]  # stage, done, total
# Pixels of a finished block, its place in the result of its pass, and width and height of that result.
OnBlock = Callable[[AnyPixels, Tile, tuple[int, int]], None]
OnExpected = Callable[[Tensor], None]  # what a sampler expects after a step


class ResumeState:
    """The saved state of one picture, in its own folder. If saving or reading fails, the work is only repeated."""

    def __init__(self, folder: Path | None, name: str = "") -> None:
        self._folder, self._name = folder, name or "the picture"
        self._from, self._last = time.monotonic() + FIRST_SAVE_AFTER, dict[str, float]()
        self._enabled = folder is not None

    def find(self, what: str) -> SavedState | None:
        """The state that an interrupted run saved under this name; None if there is none or it is damaged."""
        if not self.has(what):
            return None
        try:
            with os.fdopen(open_own_file(self._file(what), os.O_RDONLY), "rb") as file:
                content = file.read()
        except OSError:
            return None
        if content[:32] != self._hash(content[32:]):
            log.warning(f"the saved state of {self._name} is damaged: doing that part again")
            return None
        state: SavedState = torch.load(io.BytesIO(content[32:]), weights_only=True)
        return state

    def has(self, what: str) -> bool:
        return self._folder is not None and is_own_folder(self._folder) and is_regular(self._folder / what)

    def log_resuming(self, place: str) -> None:
        log.info(f"resuming {self._name} after {place}")

    def due(self, what: str, every: float = 0.0) -> bool:
        """Whether the picture has taken long enough, and the last save is at least `every` seconds ago."""
        return self._enabled and time.monotonic() >= max(self._from, self._last.get(what, 0.0) + every)

    def save(self, what: str, state: SavedState) -> None:
        self._last[what] = time.monotonic()
        try:
            self._write(what, state)
        except OSError as error:
            self._enabled = False
            self.delete()  # the result may need the space
            why = error.strerror or type(error).__name__
            log.warning(f"{self._name} cannot be resumed if it is ended now ({why}): free some space in {self._folder}")

    def delete(self) -> None:
        """Delete the state: the picture is finished, or its state cannot be saved."""
        if self._folder is not None and is_own_folder(self._folder):
            shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, what: str) -> Path:
        return (self._folder or Path()) / what

    def _write(self, what: str, state: SavedState) -> None:
        file, data = self._file(what), io.BytesIO()
        if not is_dir(file.parent):
            file.parent.mkdir(0o700, parents=True, exist_ok=True)  # pictures may be private
            remove_stale(file.parent.parent)
        if not is_own_folder(file.parent):
            raise OSError(errno.EPERM, "its folder is a link, or belongs to another user")
        torch.save(state, data)
        with replace_file(file) as fresh, fresh.open("wb") as out:
            out.write(self._hash(data.getbuffer()))
            out.write(data.getbuffer())

    def _hash(self, data: bytes | memoryview) -> bytes:
        """A checksum of these bytes and this picture's key."""
        digest = hashlib.sha256(self._file("").name.encode())
        digest.update(data)
        return digest.digest()


def find_resume_folder(key: str) -> Path | None:
    """The folder for a picture's state, in the user's cache; None for a user without a home."""
    try:
        return find_places().data / "unfinished" / key
    except WeightsError:
        return None


def remove_stale(home: Path) -> None:
    """Remove states older than STATE_LIFETIME."""
    for folder in home.iterdir():
        with suppress(OSError):
            if folder.stat().st_mtime < time.time() - STATE_LIFETIME:
                shutil.rmtree(folder, ignore_errors=True)


def hash_picture(pixels: NDArray[Any], *recipe: object) -> str:
    """A key for this picture with this recipe (everything else that determines the result)."""
    digest = hashlib.sha256(repr((pixels.shape, pixels.dtype.str, *recipe)).encode("utf-8", "surrogateescape"))
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class BlockProgress:
    """Progress and saved state of one block in one pass (`layer`) over a picture."""

    on_progress: OnProgress
    resume_state: ResumeState
    layer: int = 0
    index: int = 0
    count: int = 1
    on_block: OnBlock | None = None
    on_expected: OnExpected | None = None

    @property
    def name(self) -> str:
        return f"{self.layer}-{self.index}"

    def report(self, stage: str, done: int, total: int) -> None:
        """Report this block's progress as part of the whole pass."""
        self.on_progress(stage, self.index * total + done, self.count * total)

    def split(self, count: int) -> list[BlockProgress]:
        parts = [replace(self, index=index, count=count) for index in range(count)]
        if 0 < (done := sum(self.resume_state.has(part.name) for part in parts)) < count:
            self.resume_state.log_resuming(f"block {done} of {count}")
        return parts

    def find_pixels(self) -> AnyPixels | None:
        """The saved result of this block, if there is one."""
        state = self.resume_state.find(self.name)
        return None if state is None else state["levels"].numpy()

    def save_pixels(self, pixels: AnyPixels) -> None:
        if self.resume_state.due(self.name):
            self.resume_state.save(self.name, {"levels": torch.from_numpy(pixels)})

    def resume(self, start: Tensor, scheduler: Scheduler, tiles: str) -> tuple[Tensor, int]:
        """The saved canvas and its number of finished steps, or `start` and 0. Valid for the same tiles only."""
        state = self.resume_state.find(STEP)
        if state is None or state["at"] != [self.name, tiles]:
            return start, 0
        vars(scheduler).update(state["scheduler"])
        self.resume_state.log_resuming(f"step {state['done']} of {len(scheduler.timesteps)}")
        return state["x"], state["done"]

    def save_step(self, done: int, x: Tensor, scheduler: Scheduler, tiles: str) -> None:
        """Save the canvas, unless it is not finite, and the scheduler's state: multistep solvers need earlier steps."""
        if self.resume_state.due(STEP, SAVE_INTERVAL) and bool(torch.isfinite(x).all()):
            memory = {name: value for name, value in vars(scheduler).items() if _is_saveable(value)}
            self.resume_state.save(STEP, {"at": [self.name, tiles], "done": done, "x": x, "scheduler": memory})


def _is_saveable(value: object) -> bool:
    if type(value) is list:
        return all(map(_is_saveable, value))
    return value is None or isinstance(value, Tensor) or type(value) in (bool, int, float, str)
