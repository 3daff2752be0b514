"""Manage weights on this disk: their state, verification, adding and removing."""

import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from srcli.errors import WeightsError
from srcli.files import UNFINISHED_PREFIX, expand_user, is_dir, is_file, path_exists
from srcli.weights import local
from srcli.weights.cache import Repo, find_abandoned_files, remove_file, set_aside
from srcli.weights.families import detect_family
from srcli.weights.lock import ENTRY_KINDS, ENTRY_NAME, HUB_ID, PICKLES, Entry, File, read_lock
from srcli.weights.overlay import read_overlay, remove_entry, write_entry
from srcli.weights.parts import SUFFIX
from srcli.weights.store import Store, entry_for_hub_id
from srcli.weights.trust import find_fault

NO, SOME, HERE, CHECKED, YOURS = "no", "part", "here", "checked", "yours"


@dataclass(frozen=True)
class Copy:
    """One file of an entry on this disk."""

    entry: Entry
    file: File
    path: Path


@dataclass(frozen=True)
class Verdict:
    """The result of verifying a file; `wrong` is None if it matches the lock."""

    copy: Copy
    wrong: str | None = None
    aside: Path | None = None


def find_copies(store: Store, entry: Entry) -> list[Copy]:
    """The files of an entry on this disk."""
    if entry.origin is None:
        root = local.find_entry_root(entry)
        pairs = ((file, root if root.is_file() else root / path) for path, file in entry.files.items())
        return [] if entry.user_supplied else [Copy(entry, file, path) for file, path in pairs if is_file(path)]
    if entry.revision is None:
        return []
    repo = Repo(store.places.hub, entry.origin)
    found = ((file, repo.find(entry.revision, path)) for path, file in entry.files.items())
    return [Copy(entry, file, path) for file, path in found if path is not None]


def read_state(store: Store, entry: Entry) -> str:
    """How much of an entry is on this disk, and whether its hashes were checked since the last change."""
    if entry.user_supplied:
        return YOURS
    found = find_copies(store, entry)
    if not found:
        return NO
    if not store.is_here(entry):
        return SOME
    return CHECKED if all(store.stamps.known(copy.path) for copy in found) else HERE


def verify_copies(store: Store, found: Sequence[Copy], share: float = 1.0) -> Iterator[Verdict]:
    """Hash files again and set aside files of the cache that differ from the lock.

    With a `share` below 1, only random files with this share of the bytes.
    """
    for copy in draw_share(found, share):
        wrong = find_fault(copy.path, copy.file, store.stamps, again=True)
        aside = set_aside(copy.path) if wrong and copy.entry.origin else None
        yield Verdict(copy, wrong, aside)


def draw_share(found: Sequence[Copy], share: float) -> list[Copy]:
    """Choose random files until their bytes reach the share."""
    if share >= 1:
        return list(found)
    sizes = {copy.path: copy.path.stat().st_size for copy in found}
    enough, chosen = share * sum(sizes.values()), list[Copy]()
    for copy in random.sample(list(found), len(found)):
        if chosen and sum(sizes[item.path] for item in chosen) >= enough:
            break
        chosen.append(copy)
    return chosen


def add_entry(store: Store, name: str, target: str, kind: str, file: str | None = None) -> Entry:
    """Add a file, a folder, or a repository on the Hub (or its file `file`) to the user's lock."""
    if not ENTRY_NAME.fullmatch(name):
        raise WeightsError(f"{name!r} is not a valid name: use lower-case letters, digits, dots and dashes")
    if kind not in ENTRY_KINDS:
        raise WeightsError(f"{kind!r} is not a kind of weight: choose one of {', '.join(ENTRY_KINDS)}")
    known = read_lock(store.packaged).get(name)
    if known is not None and known.user_supplied:
        entry = _add_manual_download(store, known, target)
    elif known is not None:
        raise WeightsError(f"{name} is a name of srcli's own weights: choose another")
    elif path_exists(expand_user(target)):
        path = expand_user(target).resolve()
        if kind == "base" and _detect(path)[1] == "unknown":
            remedy = "choose another file, or give another --kind, such as adapter"
            raise WeightsError(f"{path}: this is no base model that srcli knows: {remedy}")
        entry = _describe_local(store, name, path, kind)
    elif HUB_ID.fullmatch(target.partition("@")[0]):
        entry = _describe_remote(store, name, target, kind, file)
    else:
        raise WeightsError(f"{target}: no such file or folder, and no hub id: check it")
    write_entry(store.places.overlay, entry)
    return entry


def _add_manual_download(store: Store, known: Entry, target: str) -> Entry:
    """Add a file that the lock knows, after checking its hash."""
    path = expand_user(target)
    if not path_exists(path):
        raise WeightsError(f"{target}: no such file or folder: check the path")
    path = path.resolve()
    own = _describe_local(store, known.name, path, known.kind)
    expected = {file.sha256 for file in known.files.values()} - {None}
    actual = {file.sha256 for file in own.files.values()}
    if expected and not expected & actual:
        raise WeightsError(
            f"{path} has sha256 {next(iter(actual))} and {known.name} has {next(iter(expected))}: "
            "it is another file, so add it under another name"
        )
    return replace(own, license=known.license, title=known.title, terms=known.terms, needs=known.needs)


def _describe_local(store: Store, name: str, path: Path, kind: str) -> Entry:
    names = local.list_model_files(path)
    if not names:
        raise local.no_weights_in(path)
    files = {item: path if path.is_file() else path / item for item in names}
    _check_encodable(path, files)
    locked = {item: File(item, file.stat().st_size, store.stamps.record(file)) for item, file in files.items()}
    family, detected = _detect(path)
    kind = detected if detected in ENTRY_KINDS else kind
    terms = "the user's own file"
    return Entry(name=name, kind=kind, family=family, license=terms, title=path.name, files=locked, local=str(path))


def _check_encodable(path: Path, files: Mapping[str, Path]) -> None:
    try:
        "".join((str(path), *files)).encode("utf-8")
    except UnicodeEncodeError as error:
        raise WeightsError(f"{path}: a lock holds UTF-8 names only: rename it") from error


def _detect(path: Path) -> tuple[str, str]:
    """Family and kind from the headers; both are unknown for a pickle."""
    if path.is_file():
        if path.suffix in PICKLES:
            return "any", ""
        detected = detect_family(path)
        return detected.family, detected.kind
    return local.read_family(path), ""


def _describe_remote(store: Store, name: str, target: str, kind: str, file: str | None) -> Entry:
    """Describe a repository, with its files, hashes and licence from the Hub."""
    entry = replace(entry_for_hub_id(target, kind), name=name)
    return store.plan(replace(entry, include=(file,)) if file else entry).entry


def lock_entry(store: Store, entry: Entry) -> Entry:
    """Fill in an entry's revision and hashes from the Hub. Small files outside LFS are downloaded for their hashes."""
    if entry.origin is None:
        raise WeightsError(f"{entry.name} is not on the Hub: there is nothing to look up")
    planned = store.plan(entry)
    small = tuple(remote for remote in planned.wanted if remote.sha256 is None)
    return store.fetch(entry, replace(planned, wanted=small, missing=small))


def forget_entry(store: Store, entry: Entry) -> int:
    """Remove an entry's files from the cache, except those shared with other entries; returns the bytes freed."""
    freed, own = 0, read_overlay(store.places.overlay).get(entry.name)
    if entry.origin is not None:
        kept = _find_shared(store, entry)
        freed = sum(remove_file(copy.path) for copy in find_copies(store, entry) if copy.path not in kept)
    elif own is None:
        raise WeightsError(f"{entry.name} is a part of srcli: it goes when srcli is uninstalled")
    if own is not None and not own.learned:
        remove_entry(store.places.overlay, entry.name)
    return freed


def _find_shared(store: Store, entry: Entry) -> set[Path]:
    """Files that also belong to other entries, if those are complete or have other tensors here."""
    mine = {copy.path for copy in find_copies(store, entry)}
    shared: set[Path] = set()
    for other in store.lock().values():
        found = find_copies(store, other) if other.name != entry.name else []
        own = any(copy.file.path.endswith((SUFFIX, *PICKLES)) and copy.path not in mine for copy in found)
        if own or (found and store.is_here(other)):
            shared |= {copy.path for copy in found}
    return shared


def find_garbage(store: Store) -> list[tuple[Path, int]]:
    """Unfinished downloads, files set aside, and converted pickles without an entry, with their sizes."""
    known = {file.sha256 for entry in store.lock().values() for file in entry.files.values()}
    converted = store.places.data / "converted"
    orphans = list[Path]()
    if is_dir(converted):
        orphans += (path for path in converted.iterdir() if path.name not in known)
        orphans += converted.glob(f"*/**/{UNFINISHED_PREFIX}*")
    return [(path, _size(path)) for path in (*find_abandoned_files(store.places.hub), *orphans)]


def remove_garbage(store: Store) -> list[tuple[Path, int]]:
    """Remove and return what `find_garbage` finds."""
    garbage = find_garbage(store)
    for path, _ in garbage:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return garbage


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files if file.is_file())
