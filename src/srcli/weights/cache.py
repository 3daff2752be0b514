"""huggingface_hub's cache on disk, without network: find files in it and add files to it."""

import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from srcli.errors import MachineError
from srcli.files import is_dir, is_file, open_guard, path_exists, try_lock

PART = ".srcli-part"
BAD = ".bad"
POLL = 0.1


@dataclass(frozen=True)
class Repo:
    """One model repository in the cache."""

    hub: Path
    id: str

    @property
    def root(self) -> Path:
        return self.hub / ("models--" + self.id.replace("/", "--"))

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    def snapshot(self, revision: str) -> Path:
        """The folder with this commit's files under their own names."""
        return self.root / "snapshots" / revision

    def find(self, revision: str, path: str) -> Path | None:
        """A commit's file if it is in the cache, which may be read-only."""
        file = self.snapshot(revision) / path
        return file if is_file(file) else None

    def part(self, name: str) -> Path:
        """The unfinished download of a file, by its hash."""
        return self.blobs / (name + PART)

    def blob(self, name: str) -> Path:
        return self.blobs / name

    def link(self, revision: str, path: str, blob: Path) -> Path:
        """Add a blob to a snapshot, as a link, or by moving it if links do not work."""
        target = self.snapshot(revision) / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            fresh = target.with_name(f".{uuid.uuid4().hex[:8]}.srcli-link")
            if links_allowed() and _symlink(os.path.relpath(blob, target.parent), fresh):
                fresh.replace(target)
            elif not (target.is_file() and target.samefile(blob)):
                shutil.move(blob, target)
        except OSError as error:
            raise cache_write_error(target, error) from error
        return target


@contextmanager
def exclusive_lock(part: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Lock a download against other processes of this machine; they wait, calling `waiting` repeatedly.

    It only saves bandwidth: on a disk without locks two processes write the same bytes to the same positions.
    """
    guard = part.with_name(part.name + ".lock")
    try:
        guard.parent.mkdir(parents=True, exist_ok=True)
        file = open_guard(guard)
    except OSError as error:
        raise cache_write_error(guard, error) from error
    with file:
        while not try_lock(file.fileno()):
            waiting()
            time.sleep(POLL)
        yield
        guard.unlink(missing_ok=True)


def is_downloading(path: Path) -> bool:
    """Whether a process of this machine is downloading this file now."""
    guard = path if path.suffix == ".lock" else path.with_name(path.name + ".lock")
    if not path_exists(guard):
        return False
    try:
        with open_guard(guard) as file:
            return not try_lock(file.fileno())
    except OSError:  # no lock of ours
        return False


def links_allowed() -> bool:
    """Whether the user allows links in the cache."""
    return os.environ.get("HF_HUB_DISABLE_SYMLINKS", "").upper() not in ("1", "ON", "YES", "TRUE")


def _symlink(source: str, link: Path) -> bool:
    try:
        link.symlink_to(source)
    except (OSError, NotImplementedError):  # FAT, some network disks, Windows without the right
        return False
    return True


def link_file(path: Path, blob: Path) -> bool:
    """Hard-link a file of another repository as a blob; False if that is not possible."""
    try:
        blob.parent.mkdir(parents=True, exist_ok=True)
        os.link(path.resolve(), blob)
    except (OSError, NotImplementedError):  # another disk, or one that has no such links
        return False
    return True


def cache_write_error(path: Path, error: OSError) -> MachineError:
    """The error for a failed write to the cache."""
    return MachineError(f"{path}: cannot be written ({error.strerror}): free some space, or set HF_HOME elsewhere")


def set_aside(path: Path) -> Path | None:
    """Rename a bad file (behind its link) so that it is not used again; None if the cache is read-only."""
    real = path.resolve()
    aside = real.with_name(real.name + BAD)
    try:
        real.replace(aside)
        if path.is_symlink():
            path.unlink()
    except OSError:
        return None
    return aside


def remove_file(path: Path) -> int:
    """Remove a snapshot's file, and its blob if no other snapshot uses it; returns the bytes freed."""
    real = path.resolve()
    size = real.stat().st_size if real.is_file() else 0
    path.unlink(missing_ok=True)
    if real == path:
        return size
    snapshots = real.parent.parent / "snapshots"
    if any(other.is_symlink() and other.resolve() == real for other in snapshots.rglob("*")):
        return 0
    real.unlink(missing_ok=True)
    return size


def find_abandoned_files(hub: Path) -> list[Path]:
    """Unfinished downloads that no process is writing, and files set aside, in the whole cache."""
    if not is_dir(hub):
        return []
    names = (f"*{PART}*", f"*{BAD}", "*.srcli-link")
    found = {path for name in names for path in hub.glob(f"models--*/**/{name}")}
    return sorted(path for path in found if not is_downloading(path))
