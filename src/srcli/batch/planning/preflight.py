"""Checks before any model is loaded: output folders can be written and have space, a preview replaces no other file."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from srcli.batch.planning.plan import BatchPlan
from srcli.batch.settings import BatchSettings
from srcli.errors import InputError, MachineError
from srcli.files import is_dir, open_own_file, path_or_link_exists, same_file, try_lock
from srcli.imaging.formats import parse_format
from srcli.imaging.printable import printable
from srcli.imaging.write import TEMPORARY

PROBE = ".srcli-probe-"
DISK_RESERVE = 16 << 20  # bytes that a run leaves free
MEBIBYTE = 1 << 20


def check_folders(folders: Iterable[Path], option: str = "-o") -> None:
    """Create, rename and remove a file in each folder, or in its nearest existing parent. Raises MachineError."""
    seen: set[Path] = set()
    for folder in folders:
        if folder not in seen:
            seen.add(folder)
            _probe(_nearest_folder(folder, option), folder, option)
            remove_leftovers(folder)


def _nearest_folder(folder: Path, option: str = "-o") -> Path:
    """The folder, or its nearest existing parent."""
    for path in (folder, *folder.parents):
        if is_dir(path):
            return path
        if path_or_link_exists(path):
            raise MachineError(f"{printable(path)} is not a folder: give another {option}")
    return Path()


def _probe(folder: Path, wanted: Path, option: str) -> None:
    try:
        with contextlib.suppress(FileNotFoundError):
            wanted.lstat()  # raises for names that the file system does not allow
        number, name = tempfile.mkstemp(prefix=PROBE, dir=folder)
        os.close(number)
        probe = Path(name)
        with contextlib.suppress(FileNotFoundError):
            probe.rename(probe.with_name(probe.name + "-")).unlink()
    except OSError as error:
        text = f"nothing can be written to {printable(wanted)} ({error.strerror}): give another folder with {option}"
        raise MachineError(text) from error


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of killed runs; running ones hold a lock on theirs."""
    for path in folder.glob(TEMPORARY):
        with contextlib.suppress(OSError):
            file = open_own_file(path, os.O_RDWR)
            try:
                if try_lock(file):
                    path.unlink()
            finally:
                os.close(file)
    for path in folder.glob(PROBE + "*"):
        with contextlib.suppress(OSError):
            os.close(open_own_file(path, os.O_RDWR))
            path.unlink()


def check_output_space(folder: Path, size: int, factor: float, format: str | None) -> None:
    """Raise MachineError if the results cannot fit on the disk; their size is estimated low."""
    share = 0.02 if format is not None and parse_format(format).quality else 0.125
    needed = int(size * max(1.0, factor**2) * share) + DISK_RESERVE
    free = shutil.disk_usage(_nearest_folder(folder)).free
    if free < needed:
        raise MachineError(
            f"{printable(folder)} has {free // MEBIBYTE} MiB free, {needed // MEBIBYTE} MiB or more are needed:"
            " make room, or give another folder with -o"
        )


def check_preview_file(
    file: Path, settings: BatchSettings, plan: BatchPlan, read_provenance: Callable[[Path], dict[str, Any] | None]
) -> None:
    """Check that the preview can be written and overwrites nothing else. Removes an earlier preview from the inputs."""
    is_own = bool((read_provenance(file) or {}).get("preview"))
    plan.leave_out(lambda path, has_source: is_own and same_file(path, file))
    readable = (item.found for item in plan if not item.found.problem)
    sides = (side for found in readable for side in settings.input.sides_for(found.path, found.root).by_role().values())
    if plan.has(file) or any(same_file(side, file) for side in sides):
        raise InputError(f"--preview {printable(file)} is itself an input: give another name")
    if plan.claim(file, file) is not None:
        raise InputError(f"--preview {printable(file)} is where a result is written: give another name")
    if path_or_link_exists(file) and not is_own and settings.output.on_exists != "overwrite":
        raise InputError(
            f"--preview {printable(file)} exists and was not written by --preview: choose another name or --overwrite"
        )
    check_folders([file.parent], "--preview")
