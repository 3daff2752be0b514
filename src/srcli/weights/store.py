"""The store: from a name, a folder, a file or a hub id to checked files on this disk.

What is locked and here needs no network. What is not here is pulled, unless that is forbidden; what a first pull
learns goes into the user's lock and is enforced from then on.
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
    """All weights that srcli knows, and the way to them."""

    offline: bool = False
    tell: Tell = log.info
    report: OnPulled = ignore_progress
    places: Places = field(default_factory=find_places)
    hub: Hub = field(default_factory=find_hub)
    packaged: Path = field(default_factory=packaged_lock)

    @cached_property
    def stamps(self) -> Stamps:
        """The record of files that were hashed."""
        return Stamps(self.places.data / "stamps.json")

    def lock(self) -> dict[str, Entry]:
        """The packaged lock with the user's laid over it, as they are now."""
        return merge_locks(read_lock(self.packaged), read_overlay(self.places.overlay))

    def resolve(self, what: str, kind: str = "", parts: Sequence[str] = (), allow_pickle: bool = False) -> Located:
        """Return the files of a lock's name, a hub id (`org/name@revision`), a folder or a file.

        `parts` are folders or files inside ("vae", "unet/config.json"); no more than these is fetched or checked.
        Files that are missing are pulled unless offline; files that are not what the lock says are never used.
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
        """Return the checked files of one entry, pulling what is not here."""
        if entry.yours:
            name = next(iter(entry.files), "the file")
            raise WeightsError(
                f"{entry.name} must be downloaded by hand: get {name} from {entry.source}, "
                f"then run srcli models add {entry.name} FILE"
            )
        found = self._of_repo(entry, parts) if entry.origin else local.locate_entry(entry, self.stamps, parts)
        return local.convert_pickles(found, self.places.data, self.stamps, allow_pickle)

    def _of_repo(self, entry: Entry, parts: Sequence[str]) -> Located:
        if self.lying(entry, parts) is None:
            entry = self.pull(entry, parts)
        files = self.check(entry, parts)
        local.refuse_strays(entry, files)
        root = Repo(self.places.hub, entry.origin or "").snapshot(entry.revision or "")
        return local.describe_entry(entry, root / entry.folder if entry.folder else root, files)

    def check(self, entry: Entry, parts: Sequence[str] = ()) -> dict[str, Path]:
        """Hold the files of an entry that lie here against the lock; a bad one is moved aside and named."""
        files = self.lying(entry, parts)
        if files is None:
            raise WeightsError(f"{entry.name}: some of its files are missing: run srcli models pull {entry.name}")
        for path, file in files.items():
            if what := find_fault(file, entry.files[path], self.stamps):
                raise quarantine_file(file, what)
        return files

    def lying(self, entry: Entry, parts: Sequence[str] = ()) -> dict[str, Path] | None:
        """Return the files of an entry that lie here, None unless all do and all are locked. Reads no content."""
        if entry.origin is None or entry.revision is None or not entry.listed:
            return None
        repo = Repo(self.places.hub, entry.origin)
        wanted = [file for path, file in entry.files.items() if is_wanted(entry, path, parts)]
        found = {file.path: repo.find(entry.revision, file.path) for file in wanted if file.sha256}
        complete = {path: file for path, file in found.items() if file is not None}
        return complete if wanted and len(complete) == len(wanted) else None

    def has(self, name: str) -> bool:
        """Tell whether an entry and all that it needs are here. Touches neither network nor content."""
        return all(self.is_here(entry, parts) for entry, parts in self.family(name))

    def lacking_size(self, names: Sequence[str]) -> int:
        """Bytes that these entries and all that they need would bring, as far as sizes are known."""
        lacking = {
            entry.name: size_of_parts(entry, parts)
            for name in names
            for entry, parts in self.family(name)
            if entry.origin is not None and not self.is_here(entry, parts)
        }
        return sum(lacking.values())

    def opens(self, name: str, allow_pickle: bool) -> bool:
        """Tell whether an entry and all that it needs are here, and no pickle is in the way that was not allowed."""
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
        """The files of an entry that are on this disk, if all of them are. Reads no content."""
        if entry.repo is None:
            return list(local.files_of(entry).values()) if local.has_all_files(entry) else []
        return list((self.lying(entry) or {}).values())

    def known_names(self, what: str) -> tuple[str, ...]:
        """Names in the lock for a name, a file or a folder (by hash), and what that entry is another form of."""
        entries = self.lock()
        name = what if what in entries else local.name_by_hash(expand_user(what), entries, self.stamps)
        return (name, entries[name].form_of) if name else ()

    def here(self) -> list[str]:
        """Names of the entries that are here, without those they need."""
        return [name for name, entry in self.lock().items() if self.is_here(entry)]

    def bases(self) -> list[str]:
        """Names to choose a base model from."""
        return [name for name, entry in self.lock().items() if entry.kind == "base" and not entry.form_of]

    def find_base(self, family: str, parts: Sequence[str], usual: str) -> str | None:
        """The base of this family, `usual` before others, of which all these parts are here."""
        entries = [entry for entry in self.lock().values() if entry.kind == "base" and entry.family == family]
        ordered = sorted(entries, key=lambda entry: entry.name != usual)
        return next((entry.name for entry in ordered if self.has_parts(entry, parts)), None)

    def has_parts(self, entry: Entry, parts: Sequence[str]) -> bool:
        """Tell whether an entry has each of these parts, and all their files are here."""
        if not self.is_here(entry, parts):
            return False
        return all(any(is_wanted(entry, path, (part,)) for path in entry.files) for part in parts)

    def is_here(self, entry: Entry, parts: Sequence[str] = ()) -> bool:
        """Tell whether the files of one entry lie here, all locked."""
        if entry.yours:
            return False
        if entry.origin is None:
            return local.has_all_files(entry)
        return self.lying(entry, parts) is not None

    def family(self, name: str) -> list[tuple[Entry, tuple[str, ...]]]:
        """Return an entry and all that it needs, each with the parts needed of it (none: all of it)."""
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
        """Ask the Hub what a pull of this entry would bring."""
        return self.against(entry, self.commit(entry), parts)

    def commit(self, entry: Entry) -> Commit:
        """Ask what the entry's revision (its branch, until one is known) holds."""
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
        size = self.lacking_size([entry.name]) if entry.name in self.lock() else 0
        return f"{entry.name} needs {format_bytes(size) if size else 'files'} from the Hub"

    def against(self, entry: Entry, commit: Commit, parts: Sequence[str] = ()) -> PullPlan:
        """Hold a commit against the lock."""
        return plan_pull(entry, commit, self.places.hub, parts, self._held(entry))

    def _server(self, entry: Entry) -> Hub:
        """Who serves this entry: the Hub, or the address that it names."""
        return self.hub if entry.address is None else RawFiles(entry.address, self.hub.pause, self.hub.tries)

    def _held(self, entry: Entry) -> dict[str, Path]:
        """Files of other entries that lie here, by hash: the same bytes are not fetched nor kept twice."""
        found = {}
        for other in self.lock().values():
            if other.origin and other.revision and other.origin != entry.origin:
                repo = Repo(self.places.hub, other.origin)
                for file in other.files.values():
                    if file.sha256 and (path := repo.find(other.revision, file.path)):
                        found[file.sha256] = path
        return found

    def pull(self, entry: Entry, parts: Sequence[str] = ()) -> Entry:
        """Bring an entry's files, check them, and keep what was learned. Returns the entry as now known."""
        planned = self.plan(entry, parts)
        check_pull_space([planned], self.places.hub)
        if planned.lacking:
            self.tell(f"pulling {entry.name} ({planned.bytes / 1e6:,.1f} MB); licence: {describe_licence(entry)}")
        return self.fetch(entry, planned)

    def fetch(self, entry: Entry, planned: PullPlan) -> Entry:
        """Carry out a plan for an entry."""
        known = self._looked_at(Puller(self._server(entry), self.stamps, self.report).run(planned))
        if known.files != entry.files or known.revision != entry.revision:
            self._learn(entry, known)
        return known

    def _looked_at(self, known: Entry) -> Entry:
        """Read the family of a user's base or LoRA from its header, once it is here."""
        files = self.lying(known) if known.family == ANY and known.kind in ("base", "lora") else None
        if not files:
            return known
        root = Repo(self.places.hub, known.origin or "").snapshot(known.revision or "")
        return replace(known, family=local.family_of(root / known.folder))

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
    """Make an entry for a hub id that no lock names: a diffusers folder, or whatever weights lie there."""
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
    """Say under which terms an entry stands."""
    return f"{entry.license} ({entry.terms})" if entry.terms else entry.license
