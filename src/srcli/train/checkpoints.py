"""Checkpoints: folders that are written atomically. Only folders with a checkpoint's name are ever removed."""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from srcli.errors import InputError, MachineError, WeightsError
from srcli.files import UNFINISHED_PREFIX, is_dir, is_file, sync_folder

log = logging.getLogger(__name__)

CHECKPOINT_NAME = re.compile(r"step-(\d{9})")
WEIGHTS_PART, OPTIMIZERS_PART, STATE_PART = "weights.safetensors", "optimizers.pt", "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a run resumes from. Random numbers depend only on the settings' seed and the step."""

    step: int
    seconds: float
    settings: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    optimizers: Mapping[str, Any]


def save_checkpoint(root: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write a checkpoint below `root`, then remove all but the newest `keep`. Raises MachineError."""
    target = root / f"step-{checkpoint.step:09d}"
    with writing_folder(target) as fresh:
        save_file({name: tensor.contiguous() for name, tensor in checkpoint.weights.items()}, fresh / WEIGHTS_PART)
        torch.save(dict(checkpoint.optimizers), fresh / OPTIMIZERS_PART)
        state = {"step": checkpoint.step, "seconds": checkpoint.seconds, "settings": dict(checkpoint.settings)}
        (fresh / STATE_PART).write_text(json.dumps(state, indent=1), encoding="utf-8")
    for old in _list_folders(root)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


@contextmanager
def writing_folder(target: Path) -> Iterator[Path]:
    """Yields a new folder, which replaces `target` when all of it is on the disk, or is removed after an error."""
    fresh = target.with_name(UNFINISHED_PREFIX + secrets.token_hex(4))
    old = target.with_name(UNFINISHED_PREFIX + secrets.token_hex(4))
    try:
        fresh.mkdir(parents=True)
        yield fresh
        for path in sorted(fresh.rglob("*")):
            if is_file(path):
                _sync(path)
        if is_dir(target):
            target.rename(old)
        fresh.rename(target)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors raise their own for a full disk
        reason = getattr(error, "strerror", None) or error
        raise MachineError(f"{target} cannot be written ({reason}): make room; what was there is intact") from error
    finally:
        for leftover in (fresh, old):
            shutil.rmtree(leftover, ignore_errors=True)
    sync_folder(target.parent)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def remove_unfinished(root: Path) -> None:
    """Remove unfinished checkpoints of a process that was killed."""
    if is_dir(root):
        for folder in root.glob(f"{UNFINISHED_PREFIX}*"):
            with suppress(OSError):
                shutil.rmtree(folder)


def _list_folders(root: Path) -> list[Path]:
    """All checkpoints, oldest first."""
    return sorted(path for path in root.glob("step-*") if CHECKPOINT_NAME.fullmatch(path.name)) if is_dir(root) else []


def load_newest(root: Path) -> Checkpoint | None:
    """The newest readable checkpoint; unreadable ones are reported. Raises WeightsError if none is readable."""
    folders = _list_folders(root)
    for folder in reversed(folders):
        try:
            return _load(folder)
        except (OSError, ValueError, KeyError, RuntimeError, EOFError, UnpicklingError, SafetensorError) as error:
            log.info(f"{folder} cannot be read ({type(error).__name__}): taking the one before")
    if folders:
        raise WeightsError(f"no checkpoint in {root} can be read: move the folder away to begin again")
    return None


def _load(folder: Path) -> Checkpoint:
    state = json.loads((folder / STATE_PART).read_text(encoding="utf-8"))
    weights = load_file(folder / WEIGHTS_PART)
    optimizers = torch.load(folder / OPTIMIZERS_PART, map_location="cpu", weights_only=True)
    return Checkpoint(int(state["step"]), float(state["seconds"]), state["settings"], weights, optimizers)


def check_same(root: Path, was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises InputError with the changed settings if a run would be resumed with other ones."""
    now = json.loads(json.dumps(now))
    changed = [name for name in sorted({*was, *now}) if was.get(name) != now.get(name)]
    if changed:
        name = changed[0]
        if isinstance(was.get(name), dict) and isinstance(now.get(name), dict):
            check_same(root, was[name], now[name])
        change = f"{name} was {was.get(name)!r} and is {now.get(name)!r}"
        raise InputError(f"{root} holds a run of other settings ({change}): give the same ones, or another --out")
