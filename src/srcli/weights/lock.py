"""Read weights.lock, the registry of all weights that srcli knows. Any deviation from its format is an error."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from srcli.errors import WeightsError
from srcli.files import read_regular

SCHEMA = 1
ENTRY_KINDS = (
    *("adapter", "base", "captioner", "classifier", "damage", "detector", "engine", "lora", "metric", "preview", "vae"),
)
AddedKind = Literal["base", "adapter", "lora", "vae", "captioner", "classifier", "detector"]  # by users
ENTRY_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
HUB_NAME = re.compile(rf"{HUB_ID.pattern}(@[\w./-]+)?")
ADDRESS = re.compile(r"(https://[\w.-]+(:\d+)?|http://(127\.0\.0\.1|localhost):\d+)(/[\w.-]+)+")
REVISION = BLOB = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
UNSAFE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")  # control characters, and code points that UTF-8 cannot encode
MAX_PATH_PART = 255
LARGEST_LOCK = 4 << 20
LONGEST_LOCK_LINE = 16 << 10  # a dotted key costs the TOML reader the square of its parts
LARGEST_SIZE = 1 << 50
PICKLES = (".ckpt", ".bin", ".pt", ".pth", ".pkl")


@dataclass(frozen=True, slots=True)
class File:
    """One file of a repository. Unknown values are None."""

    path: str
    size: int | None = None
    sha256: str | None = None
    blob: str | None = None  # git's SHA-1 of the content, for files at an address instead of the Hub

    @property
    def pickled(self) -> bool:
        return self.path.endswith(PICKLES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A named model: its files, or the patterns (`include`) with which the first pull finds them."""

    name: str
    kind: str
    family: str
    license: str
    title: str = ""
    terms: str = ""  # short summary of what the licence requires of the user
    repo: str | None = None
    address: str | None = None  # of a git repository's raw files, in place of `repo`: ADDRESS/REVISION/PATH
    revision: str | None = None
    branch: str = ""  # branch whose head the first pull pins; empty: the main branch
    folder: str = ""  # folder of the repository with this model
    files: Mapping[str, File] = field(default_factory=dict)
    include: tuple[str, ...] = ()  # glob patterns of its files, until the first pull has listed them
    needs: tuple[str, ...] = ()  # other entries that it depends on, or "entry/part"
    mirrors: tuple[str, ...] = ()
    about: int | None = None  # approximate size in bytes, if the files' sizes are not known
    source: str = ""  # where users get a file that srcli may not download
    local: str | None = None  # the user's own file or folder
    form_of: str = ""  # entry of which this is another form, such as another precision; not listed by default
    learned: bool = False  # written by a first pull to complete a packaged entry

    @property
    def size(self) -> int | None:
        """Total bytes of its files, or the approximate size; None if neither is known."""
        sizes = [file.size for file in self.files.values()]
        if self.listed and None not in sizes:
            return sum(size for size in sizes if size is not None)
        return self.about

    @property
    def pinned(self) -> bool:
        """Whether the commit and the hashes of all files are known."""
        fixed = self.revision is not None or self.origin is None
        return fixed and self.listed and all(file.sha256 for file in self.files.values())

    @property
    def listed(self) -> bool:
        """Whether `files` is complete."""
        return bool(self.files) and not self.include

    @property
    def origin(self) -> str | None:
        """The repository or address of its files, which is also their key in the cache; None: never downloaded."""
        if self.address is None:
            return self.repo
        return self.address.partition("://")[2].replace(":", "-")

    @property
    def user_supplied(self) -> bool:
        """Whether the user must download the file by hand."""
        return self.origin is None and self.local is None and self.kind != "engine"


TOML_TYPES: Mapping[object, type] = {bool: bool, int | None: int, tuple[str, ...]: list, Mapping[str, File]: dict}
ENTRY_FIELDS = {item.name: TOML_TYPES.get(item.type, str) for item in fields(Entry) if item.name != "name"}
REQUIRED = ("kind", "family", "license")


@dataclass(frozen=True)
class _Text:
    """The text of a lock file, for the line numbers of errors."""

    path: Path
    lines: list[str]

    def wrong(self, table: str, key: str, what: str) -> WeightsError:
        return _wrong_line(self.path, self._line(table, key), what)

    def _line(self, table: str, key: str) -> int:
        head = re.compile(rf"\[\s*{_quoted(table)}\s*(\.\s*files\s*)?\]")
        start = 0
        for number, line in enumerate(self.lines, 1):
            if line.lstrip().startswith("["):
                start = number if head.match(line.lstrip()) else 0
                if start and not key:
                    return number
            elif start and re.match(rf"\s*{_quoted(key)}\s*=", line):
                return number
        first = re.compile(rf"{head.pattern}|{_quoted(table)}\s*=")
        return next((n for n, line in enumerate(self.lines, 1) if table and first.match(line.lstrip())), 1)


def _quoted(name: str) -> str:
    return rf"[\"']?{re.escape(name)}[\"']?"


def read_lock(path: Path) -> dict[str, Entry]:
    """Read a lock file. Raises WeightsError with file and line."""
    try:
        text = read_regular(path, LARGEST_LOCK).decode("utf-8")
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}): restore the file") from error
    except UnicodeDecodeError as error:
        raise WeightsError(f"{path}:1: not UTF-8 text: restore the file") from error
    return parse_lock(text, path)


def parse_lock(text: str, path: Path) -> dict[str, Entry]:
    """Parse the text of a lock file; `path` is only used in messages."""
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if len(line) > LONGEST_LOCK_LINE:
            raise WeightsError(f"{path}:{number}: the line is too long for a lock file: restore the file")
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise _syntax(path, lines, str(error)) from error
    where = _Text(path, lines)
    count = _framed(where, tables)
    entries = {name: _entry(where, name, table) for name, table in tables.items()}
    for entry in entries.values():
        _check(where, entry)
    if count != len(entries):
        raise where.wrong("end", "entries", f"{len(entries)} entries found, {count} expected")
    return entries


def _syntax(path: Path, lines: list[str], said: str) -> WeightsError:
    for number, line in enumerate(lines, 1):
        if line.startswith(("<<<<<<< ", ">>>>>>> ")) or line == "=======":
            return WeightsError(f"{path}:{number}: holds an unresolved merge: resolve it or restore the file")
    place = re.search(r"line (\d+)", said)
    number = int(place[1]) if place else max(1, len(lines))
    return _wrong_line(path, number, said.split(" (at")[0])


def _wrong_line(path: Path, number: int, what: str) -> WeightsError:
    return WeightsError(f"{path}:{number}: {what}: correct that line or restore the file")


def _framed(where: _Text, tables: dict[str, Any]) -> Any:
    """Remove the schema and the [end] table; return the number of entries that the latter states."""
    schema, end = tables.pop("schema", None), tables.pop("end", None)
    if schema != SCHEMA:
        raise where.wrong("", "", f"schema is {schema!r}, and this version of srcli reads {SCHEMA}")
    if not isinstance(end, dict) or set(end) != {"entries"}:
        number = len(where.lines)
        raise WeightsError(f"{where.path}:{number}: incomplete, without its [end] table: restore the file")
    return end["entries"]


def _entry(where: _Text, name: str, table: Any) -> Entry:
    if not (ENTRY_NAME.fullmatch(name) or HUB_NAME.fullmatch(name)):
        raise where.wrong(name, "", f"{name!r} is not a valid name of a model")
    if not isinstance(table, dict):
        raise where.wrong(name, "", f"{name!r} is not a table")
    for key, value in table.items():
        _typed(where, name, key, value)
    for key in REQUIRED:
        if not table.get(key):
            raise where.wrong(name, "", f"{name} lacks {key!r}")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    values["files"] = {path: _file(where, name, path, facts) for path, facts in table.get("files", {}).items()}
    return Entry(name=name, **values)


def _typed(where: _Text, name: str, key: str, value: Any) -> None:
    if key not in ENTRY_FIELDS:
        raise where.wrong(name, key, f"{name} has an unknown field {key!r}")
    if type(value) is not ENTRY_FIELDS[key]:
        raise where.wrong(name, key, f"{key!r} is not a {ENTRY_FIELDS[key].__name__}")
    if type(value) is int and not 0 <= value <= LARGEST_SIZE:
        raise where.wrong(name, key, f"{key!r} is not a number of bytes")
    if isinstance(value, list) and not all(isinstance(item, str) for item in value):
        raise where.wrong(name, key, f"{key!r} is not a list of strings")


def _file(where: _Text, name: str, path: str, facts: Any) -> File:
    if not safe_path(path):
        raise where.wrong(name, path, f"{path!r} is not a relative path within its folder")
    if not isinstance(facts, dict) or facts.keys() - {"size", "sha256", "blob"}:
        raise where.wrong(name, path, f"{path!r} has a field other than size, sha256 and blob")
    size, sha256, blob = facts.get("size"), facts.get("sha256"), facts.get("blob")
    if size is not None and (type(size) is not int or not 0 <= size <= LARGEST_SIZE):
        raise where.wrong(name, path, f"the size of {path!r} is not a number of bytes")
    if sha256 is not None and not (isinstance(sha256, str) and SHA256.fullmatch(sha256)):
        raise where.wrong(name, path, f"the sha256 of {path!r} is not 64 hex digits")
    if blob is not None and not (isinstance(blob, str) and BLOB.fullmatch(blob)):
        raise where.wrong(name, path, f"the blob of {path!r} is not 40 hex digits")
    return File(path, size, sha256, blob)


def safe_path(path: str) -> bool:
    """Whether an untrusted relative path stays within its folder on every operating system."""
    if not path or "\\" in path or ":" in path or len(path) > 1024 or UNSAFE.search(path):
        return False
    parts = path.split("/")
    if any(part in ("", ".", "..") or len(part.encode()) > MAX_PATH_PART for part in parts):
        return False
    return not PurePosixPath(path).is_absolute()


def _check(where: _Text, entry: Entry) -> None:
    if entry.kind not in ENTRY_KINDS:
        raise where.wrong(entry.name, "kind", f"{entry.kind!r} is not one of {', '.join(ENTRY_KINDS)}")
    if entry.repo is not None and not HUB_ID.fullmatch(entry.repo):
        raise where.wrong(entry.name, "repo", f"{entry.repo!r} is not a repository name")
    if entry.revision is not None and not REVISION.fullmatch(entry.revision):
        raise where.wrong(entry.name, "revision", "the revision is not 40 hex digits")
    if entry.branch and not safe_path(entry.branch):
        raise where.wrong(entry.name, "branch", f"{entry.branch!r} is not a branch name")
    if entry.folder and not safe_path(entry.folder):
        raise where.wrong(entry.name, "folder", f"{entry.folder!r} is not a path within its repository")
    for pattern in entry.include:
        if not safe_path(pattern):
            raise where.wrong(entry.name, "include", f"{pattern!r} is not a pattern within its repository")
    if not entry.files and not entry.include:
        raise where.wrong(entry.name, "", f"{entry.name} has neither files nor patterns")
    _check_address(where, entry)
    if entry.repo and not (entry.revision or entry.branch) and any(file.sha256 for file in entry.files.values()):
        raise where.wrong(entry.name, "", f"{entry.name} has a hash but neither a revision nor a branch")


def _check_address(where: _Text, entry: Entry) -> None:
    """Files at an address need a commit and git hashes, because an address has no listing."""
    if entry.address is None:
        if blobs := [path for path, file in entry.files.items() if file.blob]:
            raise where.wrong(entry.name, blobs[0], f"{blobs[0]!r} has a blob, but {entry.name} has no address")
        return
    if not ADDRESS.fullmatch(entry.address):
        raise where.wrong(entry.name, "address", f"{entry.address!r} is not an https address of a repository")
    if entry.repo or entry.include or entry.branch or not entry.revision:
        raise where.wrong(entry.name, "address", "an address goes with a revision and files, and with nothing else")
    if missing := [path for path, file in entry.files.items() if not file.blob]:
        raise where.wrong(entry.name, missing[0], f"{missing[0]!r} has no blob, which files at an address need")


def find_entry(lock: Mapping[str, Entry], name: str, kind: str = "") -> Entry:
    """The entry with this name, and of this kind if one is given. WeightsError with suggestions if there is none."""
    known = {key: entry for key, entry in lock.items() if kind in ("", entry.kind)}
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=3)
    usual = sorted(key for key, entry in known.items() if not entry.form_of)
    if near:
        remedy = f"did you mean {' or '.join(near)}?"
    else:
        remedy = f"choose one of {', '.join(usual)}" if kind and usual else "see srcli models list"
    if name in lock:
        raise WeightsError(f"{name} is a {lock[name].kind}, not a {kind}: {remedy}")
    raise WeightsError(f"no {kind or 'weight'} named {name!r}: {remedy}")
