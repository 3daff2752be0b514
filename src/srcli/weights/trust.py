"""Check files against the lock: hashed once, and again whenever size, time or inode changed."""

import hashlib
import json
import os
import re
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from srcli.errors import WeightsError
from srcli.files import path_exists, read_regular, replace_file
from srcli.weights.cache import BAD, set_aside
from srcli.weights.header import HASH_CHUNK, hash_weights
from srcli.weights.lock import File

Stamp = tuple[int, int, int]
KeptHash = tuple[Stamp, str]
SHA256_HEX = re.compile("[0-9a-f]{64}")
MAX_TRUST_BYTES = 64 << 20
WRITING = threading.Lock()


@dataclass(frozen=True)
class Stamps:
    """A cache of file hashes, each valid as long as the file's stamp (size, time, inode) is the same.

    Stored as JSON beside the weights; if it is lost or damaged, files are hashed again.
    """

    path: Path

    def sha256(self, path: Path) -> str:
        """The hash of a file, from the cache if the file is unchanged."""
        stamp = _stamp(path)
        kept = self._read().get(str(path.resolve()))
        return kept[1] if kept and kept[0] == stamp else self.record(path)

    def record(self, path: Path) -> str:
        """Hash a file and cache the result, unless the file changed meanwhile."""
        before = _stamp(path)
        digest = hash_weights(path)
        if _stamp(path) == before:
            self.keep(path, digest)
        return digest

    def keep(self, path: Path, digest: str) -> None:
        """Cache a hash that was just computed."""
        with WRITING:
            self._write(str(path.resolve()), (_stamp(path), digest))

    def known(self, path: Path) -> bool:
        """Whether the cache has a valid hash of this file."""
        kept = self._read().get(str(path.resolve()))
        return kept is not None and kept[0] == _stamp(path)

    def _read(self) -> dict[str, KeptHash]:
        try:
            found = json.loads(read_regular(self.path, MAX_TRUST_BYTES))
        except (OSError, ValueError, RecursionError):
            return {}
        items = found.items() if isinstance(found, dict) else ()
        return {name: kept for name, value in items if (kept := _parse_hash(value))}

    def _write(self, key: str, value: KeptHash) -> None:
        stamps = {name: kept for name, kept in self._read().items() if path_exists(Path(name))} | {key: value}
        with suppress(OSError):  # a read-only or full disk: the next run hashes again
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replace_file(self.path) as fresh:
                fresh.write_text(json.dumps(stamps, indent=1), encoding="utf-8")


def _parse_hash(value: object) -> KeptHash | None:
    """Parse one cached hash; None if it is invalid."""
    match value:
        case [[int(size), int(time), int(inode)], str(digest)] if SHA256_HEX.fullmatch(digest):
            return (size, time, inode), digest
    return None


def _stamp(path: Path) -> Stamp:
    try:
        facts = path.stat()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}): check the file") from error
    return facts.st_size, facts.st_mtime_ns, facts.st_ino


def git_blob(path: Path) -> str:
    """Git's hash of a file's content, which the Hub gives for files outside LFS."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def find_fault(path: Path, file: File, stamps: Stamps, again: bool = False) -> str | None:
    """How a file differs from the lock; None if it does not. `again`: ignore the cached hash."""
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        return f"has {size} bytes and the lock says {file.size}"
    if file.sha256 is None:
        return None
    digest = stamps.record(path) if again else stamps.sha256(path)
    if digest != file.sha256:
        return f"has sha256 {digest} and the lock says {file.sha256}"
    return None


def quarantine_file(path: Path, what: str) -> WeightsError:
    """Set a bad file aside; returns the error that names it."""
    aside = set_aside(path)
    where = f"moved to {aside}" if aside else f"it is on a read-only disk, so delete it or add the suffix {BAD}"
    return WeightsError(f"{os.fspath(path)} {what} ({where}): run srcli models pull")
