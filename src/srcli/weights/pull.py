"""Download an entry's files to the Hub's cache: planned for one commit, checked, then published."""

import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from srcli.errors import MachineError, WeightsError
from srcli.files import is_file, path_exists
from srcli.weights.cache import Repo, cache_write_error, exclusive_lock, link_file, set_aside
from srcli.weights.header import hash_weights
from srcli.weights.hub import Hub
from srcli.weights.listing import Commit, Remote
from srcli.weights.lock import PICKLES, Entry, File
from srcli.weights.parts import SUFFIX, choose_files
from srcli.weights.trust import Stamps, git_blob

WORKERS = 4
PULL_RESERVE = 64 << 20
UNKNOWN = "see its page"
OnPulled = Callable[[str, int, int], None]  # path, bytes here, bytes in all


def ignore_progress(path: str, here: int, size: int) -> None:
    """The default for `report`."""


class _Stopped(Exception):
    """Another file failed, or the user interrupted."""


@dataclass(frozen=True)
class PullPlan:
    """The plan of a pull: the entry with all its files, and those that must be downloaded."""

    entry: Entry
    repo: Repo
    revision: str
    wanted: tuple[Remote, ...]
    missing: tuple[Remote, ...]
    held: Mapping[str, Path] = field(default_factory=dict)  # sha256 -> a file of another entry with these bytes

    @property
    def bytes(self) -> int:
        """Bytes to download."""
        held = (self.repo.part(remote.blob) for remote in self.missing)
        return sum(remote.size for remote in self.missing) - sum(p.stat().st_size for p in held if is_file(p))


def is_wanted(entry: Entry, path: str, parts: Sequence[str]) -> bool:
    """Whether a file of the entry belongs to one of `parts`; always if there are none."""
    own = path.removeprefix(entry.folder + "/") if entry.folder else path
    return not parts or any(own == part or own.startswith(part + "/") for part in parts)


def size_of_parts(entry: Entry, parts: Sequence[str]) -> int:
    """Bytes of an entry's files in `parts`, or the entry's approximate size if the files' are not known."""
    sizes = [file.size for path, file in entry.files.items() if is_wanted(entry, path, parts)]
    known = [size for size in sizes if size is not None]
    return sum(known) if entry.listed and len(known) == len(sizes) else entry.about or 0


def plan_pull(
    entry: Entry,
    commit: Commit,
    hub_cache: Path,
    parts: Sequence[str],
    held: Mapping[str, Path],
) -> PullPlan:
    """Check a commit's listing against the lock, and list the files to download."""
    paths = _paths(entry, commit)
    listed = {path: _combine_facts(entry, commit.files[path]) for path in paths}
    repo = Repo(hub_cache, commit.repo)
    wanted = tuple(commit.files[path] for path in paths if is_wanted(entry, path, parts))
    if not wanted:
        raise WeightsError(f"{entry.name}: {commit.repo} holds nothing of {', '.join(parts) or 'it'}: check its page")
    absent = (remote for remote in wanted if repo.find(commit.revision, remote.path) is None)
    missing = tuple(remote for remote in absent if listed[remote.path].sha256 not in held)
    full = replace(entry, revision=commit.revision, files=listed, include=())
    if entry.license == UNKNOWN and commit.license:
        full = replace(full, license=commit.license)
    return PullPlan(full, repo, commit.revision, wanted, missing, held)


def _paths(entry: Entry, commit: Commit) -> list[str]:
    for path in entry.files:
        if path not in commit.files:
            mirrors = f"try a mirror ({', '.join(entry.mirrors)})" if entry.mirrors else "check its page"
            raise WeightsError(f"{commit.repo}@{commit.revision[:8]} has no {path}: {mirrors}")
    matching = [p for p in commit.files if any(fnmatchcase(p, pattern) for pattern in entry.include)]
    found = sorted({*choose_files(matching), *entry.files})
    several = [path for path in found if path.endswith((SUFFIX, *PICKLES))]
    if entry.kind == "lora" and len(several) > 1:
        raise WeightsError(
            f"{commit.repo} holds {len(several)} files ({', '.join(several[:2])}, ...): "
            f"choose one with srcli models add NAME {commit.repo} --kind lora --file FILE"
        )
    return found


def _combine_facts(entry: Entry, remote: Remote) -> File:
    """Combine what lock and Hub say about a file; WeightsError if they contradict."""
    known = entry.files.get(remote.path, File(remote.path))
    differs = None
    if None not in (known.sha256, remote.sha256) and known.sha256 != remote.sha256:
        differs = f"sha256 {remote.sha256} on the Hub and the lock says {known.sha256}"
    elif known.size not in (None, remote.size):
        differs = f"{remote.size} bytes on the Hub and the lock says {known.size}"
    if differs:
        text = f"{remote.path} of {entry.repo} has {differs}: do not use it unless you know why it changed"
        raise WeightsError(text)
    return replace(known, size=remote.size, sha256=known.sha256 or remote.sha256)


def check_pull_space(plans: Sequence[PullPlan], hub_cache: Path) -> None:
    """MachineError if the disk has too little space for the pulls."""
    need = sum(item.bytes for item in plans)
    folder = next(path for path in (hub_cache, *hub_cache.parents) if path_exists(path))
    free = shutil.disk_usage(folder).free
    if need and need + PULL_RESERVE > free:
        room = f"{folder} has {free / 1e9:.1f} GB free and {need / 1e9:.1f} GB are to come"
        raise MachineError(f"{room}: free some space, or set HF_HOME elsewhere")


@dataclass(frozen=True)
class Puller:
    """Downloads the missing files of a plan, several at a time."""

    hub: Hub
    stamps: Stamps
    report: OnPulled = ignore_progress

    def run(self, plan: PullPlan) -> Entry:
        """Download all files; returns the entry with the learned hashes."""
        stop = threading.Event()
        with ThreadPoolExecutor(WORKERS) as pool:
            jobs = [pool.submit(self._pull_file, plan, remote, stop) for remote in plan.wanted]
            try:
                wait(jobs, return_when=FIRST_EXCEPTION)
            finally:
                stop.set()  # reached with work under way only if a file failed or the user gave up
        failed = [error for job in jobs if (error := job.exception()) is not None]
        if failed:
            raise min(failed, key=lambda error: isinstance(error, _Stopped))
        learned = {file.path: file for file in (job.result() for job in jobs)}
        return replace(plan.entry, files={**plan.entry.files, **learned})

    def _pull_file(self, plan: PullPlan, remote: Remote, stop: threading.Event) -> File:
        def on_bytes(here: int) -> None:
            if stop.is_set():
                raise _Stopped
            self.report(remote.path, here, remote.size)

        known = plan.entry.files[remote.path]
        here = plan.repo.find(plan.revision, remote.path)
        blob = here or self._find_blob(plan, remote, known)
        if blob is not None:
            digest = self.stamps.sha256(blob)
            if not _fault(blob, remote, known, digest):
                on_bytes(remote.size)
                return self._publish_file(plan, remote, blob, digest, linked=here is not None)
            set_aside(blob)
        digest = self._download(plan, remote, known, on_bytes)
        return self._publish_file(plan, remote, plan.repo.blob(remote.blob), digest, linked=False)

    def _find_blob(self, plan: PullPlan, remote: Remote, known: File) -> Path | None:
        """The file's blob if it is in the cache, or can be linked from another entry with the same bytes."""
        blob = plan.repo.blob(remote.blob)
        held = plan.held.get(known.sha256 or "")
        return blob if is_file(blob) or (held and link_file(held, blob)) else None

    def _publish_file(self, plan: PullPlan, remote: Remote, blob: Path, digest: str, linked: bool) -> File:
        shown = blob if linked else plan.repo.link(plan.revision, remote.path, blob)
        self.stamps.keep(shown, digest)
        return replace(plan.entry.files[remote.path], size=remote.size, sha256=digest)

    def _download(self, plan: PullPlan, remote: Remote, known: File, on_bytes: Callable[[int], None]) -> str:
        """Download and check a file, at most twice; returns its SHA-256."""
        part, blob = plan.repo.part(remote.blob), plan.repo.blob(remote.blob)
        for _ in range(2):
            with exclusive_lock(part, lambda: on_bytes(0)):
                if not blob.is_file():  # else another process was faster
                    self.hub.fetch(plan.repo.id, plan.revision, remote, part, on_bytes)
                whole, digest, fault = _check_download(part, blob, remote, known)
                if fault is None:
                    _publish(whole, blob)
                    part.unlink(missing_ok=True)
                    return digest
                aside = set_aside(whole)
        raise WeightsError(f"{remote.path} of {plan.repo.id} {fault} (kept as {aside}): try another network")


def _check_download(part: Path, blob: Path, remote: Remote, known: File) -> tuple[Path, str, str | None]:
    """The downloaded file, its SHA-256, and what is wrong with it.

    Where locks do nothing, another process may publish the part at any time; a part beside a blob is one it just began.
    """
    if not blob.is_file():
        try:
            digest = hash_weights(part)
            return part, digest, _fault(part, remote, known, digest)
        except (WeightsError, OSError):
            if not blob.is_file():
                raise
    digest = hash_weights(blob)
    return blob, digest, _fault(blob, remote, known, digest)


def _fault(path: Path, remote: Remote, known: File, digest: str) -> str | None:
    """How a file's content is wrong; None if it is right. Outside LFS the Hub gives git's hash, not SHA-256."""
    promised = known.sha256 or remote.sha256
    if promised is not None:
        return None if digest == promised else f"came with sha256 {digest} and should have {promised}"
    found = git_blob(path)
    return None if found == remote.blob else f"came as git blob {found} and should be {remote.blob}"


def _publish(part: Path, blob: Path) -> None:
    """Rename a checked download to its final name, unless another process did so first."""
    try:
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(blob)
    except OSError as error:
        if not blob.is_file():
            raise cache_write_error(blob, error) from error
