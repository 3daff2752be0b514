"""The store: resolves a name, a folder, a file or a hub id to checked files on this disk.

Locked files on this disk need no network. Missing files are pulled unless offline. Hashes that a first pull learns
are written to the user's lock and enforced from then on.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from srcli.errors import WeightsError
from srcli.files import expand_user, path_exists
from srcli.imaging.printable import format_bytes
from srcli.messages import Tell
from srcli.weights import local
from srcli.weights.cache import Repo
from srcli.weights.hub import Hub, RetryLater, find_hub, is_offline
from srcli.weights.listing import Commit
from srcli.weights.local import Located
from srcli.weights.lock import HUB_NAME, Entry, find_entry, read_lock
from srcli.weights.overlay import merge_locks, read_overlay, write_entry
from srcli.weights.parts import DIFFUSERS
from srcli.weights.places import Places, find_places, packaged_lock
from srcli.weights.pull import (
    UNKNOWN,
    OnPulled,
    Puller,
    PullPlan,
    check_pull_space,
    ignore_progress,
    is_wanted,
    plan_pull,
    size_of_parts,
)
from srcli.weights.raw_files import RawFiles
from srcli.weights.trust import Stamps, find_fault, quarantine_file

ANY = "any"


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Store:
    """Access to all weights that srcli knows."""

    offline: bool = False
    tell: Tell = log.info
    report: OnPulled = ignore_progress
    places: Places = field(default_factory=find_places)
    hub: Hub = field(default_factory=find_hub)
    packaged: Path = field(default_factory=packaged_lock)

    @cached_property
    def stamps(self) -> Stamps:
        """The cache of file hashes."""
        return Stamps(self.places.data / "stamps.json")

    def lock(self) -> dict[str, Entry]:
        """The packaged lock merged with the user's, as they are now."""
        return merge_locks(read_lock(self.packaged), read_overlay(self.places.overlay))

    def resolve(self, what: str, kind: str = "", parts: Sequence[str] = (), allow_pickle: bool = False) -> Located:
        """The checked files of a name in the lock, a hub id (`org/name@revision`), a folder or a file.

        `parts`: only fetch and check these folders or files ("vae", "unet/config.json"). Missing files are pulled
        unless offline; files that differ from the lock are never used.
        """
        entries = self.lock()
        path = expand_user(what)
        if what not in entries and path_exists(path):
            found = local.locate_path(path, self.stamps, self.places.data, entries, parts, allow_pickle)
            return replace(found, kind=kind or found.kind)
        if what not in entries and HUB_NAME.fullmatch(what):
            entries[what] = entry_for_hub_id(what, kind or "base")
        elif what not in entries and (what.startswith("~") or "/" in what or what.endswith(".safetensors")):
            raise WeightsError(f"{what}: no such file or folder, and no hub id: check the path")
        return self.open(find_entry(entries, what, kind), parts, allow_pickle)

    def open(self, entry: Entry, parts: Sequence[str] = (), allow_pickle: bool = False) -> Located:
        """The checked files of one entry; missing files are pulled."""
        if entry.user_supplied:
            name = next(iter(entry.files), "the file")
            raise WeightsError(
                f"{entry.name} must be downloaded by hand: get {name} from {entry.source}, "
                f"then run srcli models add {entry.name} FILE"
            )
        found = self._open_repository(entry, parts) if entry.origin else local.locate_entry(entry, self.stamps, parts)
        return local.convert_pickles(found, self.places.data, self.stamps, allow_pickle)

    def _open_repository(self, entry: Entry, parts: Sequence[str]) -> Located:
        if self.local_files(entry, parts) is None:
            entry = self.pull(entry, parts)
        files = self.check(entry, parts)
        local.refuse_strays(entry, files)
        root = Repo(self.places.hub, entry.origin or "").snapshot(entry.revision or "")
        return local.describe_entry(entry, root / entry.folder if entry.folder else root, files)

    def check(self, entry: Entry, parts: Sequence[str] = ()) -> dict[str, Path]:
        """Check an entry's files in the cache against the lock; a bad file is set aside and raises WeightsError."""
        files = self.local_files(entry, parts)
        if files is None:
            raise WeightsError(f"{entry.name}: some of its files are missing: run srcli models pull {entry.name}")
        for path, file in files.items():
            if what := find_fault(file, entry.files[path], self.stamps):
                raise quarantine_file(file, what)
        return files

    def local_files(self, entry: Entry, parts: Sequence[str] = ()) -> dict[str, Path] | None:
        """An entry's files in the cache; None unless all are here and locked. Reads no content."""
        if entry.origin is None or entry.revision is None or not entry.listed:
            return None
        repo = Repo(self.places.hub, entry.origin)
        wanted = [file for path, file in entry.files.items() if is_wanted(entry, path, parts)]
        found = {file.path: repo.find(entry.revision, file.path) for file in wanted if file.sha256}
        complete = {path: file for path, file in found.items() if file is not None}
        return complete if wanted and len(complete) == len(wanted) else None

    def has(self, name: str) -> bool:
        """Whether an entry and its dependencies are on this disk. Reads no content and uses no network."""
        return all(self.is_here(entry, parts) for entry, parts in self.with_dependencies(name))

    def missing_size(self, names: Sequence[str]) -> int:
        """Bytes to download for these entries and their dependencies, as far as sizes are known."""
        missing = {
            entry.name: size_of_parts(entry, parts)
            for name in names
            for entry, parts in self.with_dependencies(name)
            if entry.origin is not None and not self.is_here(entry, parts)
        }
        return sum(missing.values())

    def can_open(self, name: str, allow_pickle: bool) -> bool:
        """Whether an entry and its dependencies are on this disk, and any pickles are allowed or converted."""
        if not self.has(name):
            return False
        entry = self.lock()[name]
        if allow_pickle or not any(file.pickled for file in entry.files.values()):
            return True
        try:
            self.open(entry)
        except WeightsError:
            return False
        return True

    def files_here(self, entry: Entry) -> list[Path]:
        """An entry's files on this disk; empty unless all are here. Reads no content."""
        if entry.repo is None:
            return list(local.list_entry_files(entry).values()) if local.has_all_files(entry) else []
        return list((self.local_files(entry) or {}).values())

    def known_names(self, what: str) -> tuple[str, ...]:
        """The lock's name for a name, file or folder (by hash), and the entry that this is another form of."""
        entries = self.lock()
        name = what if what in entries else local.name_by_hash(expand_user(what), entries, self.stamps)
        return (name, entries[name].form_of) if name else ()

    def list_here(self) -> list[str]:
        """Names of the entries on this disk, regardless of their dependencies."""
        return [name for name, entry in self.lock().items() if self.is_here(entry)]

    def bases(self) -> list[str]:
        """Names of all base models, without other forms."""
        return [name for name, entry in self.lock().items() if entry.kind == "base" and not entry.form_of]

    def find_base(self, family: str, parts: Sequence[str], usual: str) -> str | None:
        """A base of this family with all these parts on this disk, preferably `usual`; None if there is none."""
        entries = [entry for entry in self.lock().values() if entry.kind == "base" and entry.family == family]
        ordered = sorted(entries, key=lambda entry: entry.name != usual)
        return next((entry.name for entry in ordered if self.has_parts(entry, parts)), None)

    def has_parts(self, entry: Entry, parts: Sequence[str]) -> bool:
        """Whether an entry has all these parts, with all their files on this disk."""
        if not self.is_here(entry, parts):
            return False
        return all(any(is_wanted(entry, path, (part,)) for path in entry.files) for part in parts)

    def is_here(self, entry: Entry, parts: Sequence[str] = ()) -> bool:
        """Whether all files of an entry, or of these parts, are on this disk and locked."""
        if entry.user_supplied:
            return False
        if entry.origin is None:
            return local.has_all_files(entry)
        return self.local_files(entry, parts) is not None

    def with_dependencies(self, name: str) -> list[tuple[Entry, tuple[str, ...]]]:
        """An entry and its dependencies, each with the parts that are needed of it (empty: all)."""
        entries = self.lock()
        wanted: dict[str, set[str]] = {}
        queue = [(name, "")]
        while queue:
            key, part = queue.pop(0)
            if key not in wanted:
                queue += [parse_need(text) for text in (entries.get(key) or self._unknown(entries, key)).needs]
            wanted.setdefault(key, set()).add(part)
        known = ((entries.get(key) or self._unknown(entries, key), parts) for key, parts in wanted.items())
        return [(entry, () if "" in parts else tuple(sorted(parts))) for entry, parts in known]

    def _unknown(self, entries: Mapping[str, Entry], name: str) -> Entry:
        return entry_for_hub_id(name, "base") if HUB_NAME.fullmatch(name) else find_entry(entries, name)

    def plan(self, entry: Entry, parts: Sequence[str] = ()) -> PullPlan:
        """Plan a pull of this entry, with the Hub's listing."""
        return self.plan_commit(entry, self.commit(entry), parts)

    def commit(self, entry: Entry) -> Commit:
        """The Hub's listing of the entry's revision, or of its branch if no revision is known."""
        if self.offline or is_offline():
            said = f"{self._needs(entry)} and the network is forbidden"
            raise WeightsError(f"{said}: run srcli models pull {entry.name} where there is one, or give a file")
        try:
            server = self._server(entry)
            if isinstance(server, RawFiles):
                return server.listed(entry.origin or "", entry.revision or "", entry.files)
            return server.commit(entry.repo or "", entry.revision or entry.branch or None)
        except WeightsError as error:
            unreached = isinstance(error.__cause__, RetryLater)
            said = f"{self._needs(entry)}; {error}, or give a file" if unreached else str(error)
            if entry.mirrors:
                said += f"; or give a copy a name of its own: {', '.join(entry.mirrors)}"
            raise WeightsError(said) from error

    def _needs(self, entry: Entry) -> str:
        size = self.missing_size([entry.name]) if entry.name in self.lock() else 0
        return f"{entry.name} needs {format_bytes(size) if size else 'files'} from the Hub"

    def plan_commit(self, entry: Entry, commit: Commit, parts: Sequence[str] = ()) -> PullPlan:
        """Plan a pull of this entry from this commit, checked against the lock."""
        return plan_pull(entry, commit, self.places.hub, parts, self._find_duplicates(entry))

    def _server(self, entry: Entry) -> Hub:
        """The server of this entry's files: the Hub, or the entry's address."""
        return self.hub if entry.address is None else RawFiles(entry.address, self.hub.pause, self.hub.tries)

    def _find_duplicates(self, entry: Entry) -> dict[str, Path]:
        """Files of other entries on this disk, by hash, so that the same bytes are not downloaded or stored twice."""
        found = {}
        for other in self.lock().values():
            if other.origin and other.revision and other.origin != entry.origin:
                repo = Repo(self.places.hub, other.origin)
                for file in other.files.values():
                    if file.sha256 and (path := repo.find(other.revision, file.path)):
                        found[file.sha256] = path
        return found

    def pull(self, entry: Entry, parts: Sequence[str] = ()) -> Entry:
        """Download and check an entry's files, and record learned hashes; returns the completed entry."""
        planned = self.plan(entry, parts)
        check_pull_space([planned], self.places.hub)
        if planned.missing:
            self.tell(f"pulling {entry.name} ({planned.bytes / 1e6:,.1f} MB); licence: {describe_licence(entry)}")
        return self.fetch(entry, planned)

    def fetch(self, entry: Entry, planned: PullPlan) -> Entry:
        known = self._add_family(Puller(self._server(entry), self.stamps, self.report).run(planned))
        if known.files != entry.files or known.revision != entry.revision:
            self._learn(entry, known)
        return known

    def _add_family(self, known: Entry) -> Entry:
        """The entry of a user's base or LoRA with its family, read from the downloaded header."""
        files = self.local_files(known) if known.family == ANY and known.kind in ("base", "lora") else None
        if not files:
            return known
        root = Repo(self.places.hub, known.origin or "").snapshot(known.revision or "")
        return replace(known, family=local.read_family(root / known.folder))

    def _learn(self, entry: Entry, known: Entry) -> None:
        packaged = read_lock(self.packaged)
        if entry.name in packaged and packaged[entry.name].origin == entry.origin:
            known = replace(known, learned=True)
        write_entry(self.places.overlay, known)
        new = sum(1 for path, file in known.files.items() if file.sha256 and not _hash(entry, path))
        self.tell(f"{entry.name}: {new} hashes learned at commit {(known.revision or '')[:8]}, enforced from now on")


def _hash(entry: Entry, path: str) -> str | None:
    return entry.files[path].sha256 if path in entry.files else None


def parse_need(text: str) -> tuple[str, str]:
    """Split "sd15/vae" into the entry's name and the part of it."""
    name, _, part = text.partition("/")
    return name, part


def entry_for_hub_id(what: str, kind: str) -> Entry:
    """An entry for a hub id that is not in the lock: a diffusers folder for a base, else all weights there."""
    repo, _, branch = what.partition("@")
    return Entry(
        name=what,
        kind=kind,
        family=ANY,
        license=UNKNOWN,
        title=PurePosixPath(repo).name,
        repo=repo,
        branch=branch,
        include=DIFFUSERS if kind == "base" else ("*",),
    )


def describe_licence(entry: Entry) -> str:
    """An entry's licence and terms, as text."""
    return f"{entry.license} ({entry.terms})" if entry.terms else entry.license
