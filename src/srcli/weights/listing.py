"""Parse the Hub's listing of a commit. It comes over the network, so every field is validated."""

import json
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from srcli.errors import WeightsError
from srcli.weights.lock import LARGEST_SIZE, REVISION, safe_path

LARGEST_LISTING = 16 << 20
HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # git's name for a small file, sha256 for one in LFS
LONGEST_LICENCE = 200


class NotTheHub(ValueError):
    """The answer does not have the form of the Hub's answers."""


@dataclass(frozen=True)
class Remote:
    """One file of a commit, as the Hub describes it. `blob` is its name in the cache."""

    path: str
    size: int
    blob: str
    sha256: str | None


@dataclass(frozen=True)
class Commit:
    """A commit and all its files."""

    repo: str
    revision: str
    files: dict[str, Remote]
    license: str | None = None


def parse_commit(repo: str, content: bytes) -> Commit:
    """Parse the Hub's answer. NotTheHub if it has another form, WeightsError if it contains unsafe paths."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise NotTheHub("not json") from error
    match answer:
        case {"sha": str(revision), "siblings": list(siblings)} if REVISION.fullmatch(revision):
            files = {remote.path: remote for remote in map(_remote, siblings)}
        case _:
            raise NotTheHub("no commit with files")
    _check_paths(repo, files)
    return Commit(repo, revision, files, _read_license(answer.get("cardData")))


def _remote(item: Any) -> Remote:
    match item:
        case {"rfilename": str(path), "size": int(size), "lfs": {"sha256": str(blob)}}:
            sha256: str | None = blob
        case {"rfilename": str(path), "size": int(size), "blobId": str(blob)}:
            sha256 = None
        case _:
            raise NotTheHub("a file without name, size or hash")
    if isinstance(size, bool) or not 0 <= size <= LARGEST_SIZE or not HASH.fullmatch(blob):
        raise NotTheHub("a size or hash that cannot be")
    if sha256 is not None and len(sha256) != 64:
        raise NotTheHub("a sha256 that cannot be")
    return Remote(path, size, blob, sha256)


def _check_paths(repo: str, files: dict[str, Remote]) -> None:
    """Refuse paths that leave their folder, and files inside other files."""
    for path in files:
        inside_a_file = any(str(folder) in files for folder in PurePosixPath(path).parents)
        if not safe_path(path) or inside_a_file:
            raise WeightsError(f"{repo} lists {path!r}, which leaves its folder: do not use it")


def _read_license(card: Any) -> str | None:
    """The licence in a model card, or several, joined by commas."""
    value = card.get("license") if isinstance(card, dict) else None
    names = value if isinstance(value, list) else [value]
    joined = ", ".join(name for name in names if isinstance(name, str))
    return joined if joined.isprintable() and 0 < len(joined) <= LONGEST_LICENCE else None
