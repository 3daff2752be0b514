"""Weights outside the Hub's cache, and `Located`, the description of weights that engines load."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from srcli.errors import MachineError, WeightsError
from srcli.files import is_dir, is_file
from srcli.weights.families import detect_family
from srcli.weights.lock import PICKLES, Entry
from srcli.weights.parts import SUFFIX, choose_files, weight_files
from srcli.weights.pull import is_wanted
from srcli.weights.trust import Stamps, find_fault

CONVERTED = {"pytorch_model": "model"}
HEADER_PATTERNS = ("unet/*" + SUFFIX, "*" + SUFFIX)


@dataclass(frozen=True)
class Located:
    """Checked weights on this disk. `folder` contains the parts; `file` is set if they are a single file."""

    name: str
    kind: str
    family: str
    license: str
    folder: Path
    files: Mapping[str, Path]  # by path inside the repository or folder
    sha256: Mapping[str, str]  # of the same, as locked or as hashed
    file: Path | None = None

    def part(self, name: str) -> Path:
        """The folder of one component; WeightsError if there is none."""
        path = self.folder / name
        if not is_dir(path):
            raise WeightsError(f"{self.name} has no {name} ({path}): choose another, or a base model that has one")
        return path

    def only_file(self) -> Path:
        """The single safetensors file of these weights. Raises WeightsError if there is not exactly one."""
        if self.file is not None:
            return self.file
        tensors = [path for name, path in self.files.items() if name.endswith(SUFFIX)]
        if len(tensors) != 1:
            raise WeightsError(f"{self.name} is a folder of {len(tensors)} safetensors files: choose one of them")
        return tensors[0]

    def provenance(self) -> dict[str, str]:
        """Names, hashes and licence of the weights, for a result's metadata."""
        weights = {path: digest for path, digest in self.sha256.items() if path.endswith((SUFFIX, *PICKLES))}
        return {f"{self.name}/{path}": digest for path, digest in weights.items()} | {
            f"{self.name} licence": self.license
        }


def describe_entry(entry: Entry, folder: Path, files: Mapping[str, Path]) -> Located:
    hashes = {path: entry.files[path].sha256 or "" for path in files}
    weights = [path for path in files if path.endswith((SUFFIX, *PICKLES))]
    file = files[weights[0]] if len(files) == len(weights) == 1 else None
    return Located(entry.name, entry.kind, entry.family, entry.license, folder, dict(files), hashes, file)


def refuse_strays(entry: Entry, files: Mapping[str, Path]) -> None:
    """Refuse a component's folder in which an unlocked file would be loaded instead of the locked one."""
    for path, file in files.items():
        if not path.endswith(SUFFIX) or not is_file(file.parent / "config.json"):
            continue
        for other in weight_files(file.parent):
            if other.name not in {PurePosixPath(name).name for name in entry.files}:
                raise WeightsError(f"{other}: not in the lock, and would be opened in place of {path}: move it away")


def locate_entry(entry: Entry, stamps: Stamps, parts: Sequence[str] = ()) -> Located:
    """Check and describe an entry with a file or folder of the user's, or one inside the package."""
    root = find_entry_root(entry)
    files = {path: file for path, file in list_entry_files(entry).items() if is_wanted(entry, path, parts)}
    for path, file in files.items():
        if not is_file(file):
            raise WeightsError(f"{file}: gone since it was added as {entry.name}: put it back, or add it again")
        if what := find_fault(file, entry.files[path], stamps):
            raise WeightsError(f"{file} {what}: put the old file back, or add it again as {entry.name}")
    return describe_entry(entry, root if is_dir(root) else root.parent, files)


def find_entry_root(entry: Entry) -> Path:
    """The user's file or folder of an entry, or srcli's data folder."""
    return Path(entry.local) if entry.local else Path(__file__).resolve().parent.parent / "data"


def list_entry_files(entry: Entry) -> dict[str, Path]:
    """The files of a local or packaged entry, by their names in the lock."""
    root = find_entry_root(entry)
    return {path: root if is_file(root) else root / path for path in entry.files}


def has_all_files(entry: Entry) -> bool:
    """Whether all files of a local or packaged entry exist."""
    return all(is_file(file) for file in list_entry_files(entry).values())


def locate_path(
    path: Path,
    stamps: Stamps,
    data: Path,
    entries: Mapping[str, Entry],
    parts: Sequence[str] = (),
    allow_pickle: bool = False,
) -> Located:
    """Hash and describe a file or folder that the user names by path."""
    paths = list_model_files(path)
    if parts and is_dir(path):
        paths = [name for name in paths if any(name == part or name.startswith(part + "/") for part in parts)]
    folder, file = (path.parent, path) if is_file(path) else (path, None)
    files = {name: file or path / name for name in paths}
    if not files:
        raise no_weights_in(path)
    hashes = {name: stamps.sha256(file) for name, file in files.items()}
    name = name_of_hashes(hashes, entries) or path.name
    found = Located(name, "base", "any", "the user's own file", folder, files, hashes, file)
    found = convert_pickles(found, data, stamps, allow_pickle)
    return replace(found, family=read_family(found.folder if found.file is None else found.file))


def no_weights_in(path: Path) -> WeightsError:
    """The error for a file or folder without weights."""
    return WeightsError(f"{path}: holds no weights: choose a safetensors file or a diffusers folder")


def list_model_files(path: Path) -> list[str]:
    """The model files of a folder, as relative paths, or the single file's name."""
    if is_file(path):
        return [path.name]
    inner = (item for item in path.rglob("*") if is_file(item) and not item.name.startswith("."))
    return choose_files(item.relative_to(path).as_posix() for item in inner)


def name_of_hashes(hashes: Mapping[str, str], entries: Mapping[str, Entry]) -> str | None:
    """The entry that has one of these hashes of weights; None if there is none."""
    here = set(hashes.values())
    for entry in entries.values():
        if any(file.sha256 in here for file in entry.files.values() if file.path.endswith((SUFFIX, *PICKLES))):
            return entry.name
    return None


def name_by_hash(path: Path, entries: Mapping[str, Entry], stamps: Stamps) -> str | None:
    """The entry with the same weights as a file or folder. Only files with the size of a locked one are hashed."""
    if not path.exists():
        return None
    sizes = {file.size for entry in entries.values() for file in entry.files.values()}
    files = [path if is_file(path) else path / name for name in list_model_files(path)]
    alike = [file for file in files if file.suffix in (SUFFIX, *PICKLES) and file.stat().st_size in sizes]
    return name_of_hashes({str(file): stamps.sha256(file) for file in alike}, entries)


def read_family(path: Path) -> str:
    """The family from the header of a file, or of the UNet (else any weights) in a folder."""
    if is_file(path):
        return detect_family(path).family
    heads = (head for pattern in HEADER_PATTERNS for head in sorted(path.glob(pattern)))
    return next((detect_family(head).family for head in heads), "any")


def convert_pickles(found: Located, data: Path, stamps: Stamps, allow: bool) -> Located:
    """The same weights with all pickles converted to safetensors, if the user allows it.

    A conversion is kept. Later runs use it without `allow_pickle`, since the pickle is not read again.
    """
    pickled = [path for path in found.files if path.endswith(PICKLES)]
    if not pickled:
        return found
    root = data / "converted" / found.sha256[pickled[0]] / _hash_together(found.sha256)
    if not allow and not all(_is_converted(root / converted_name(path), stamps) for path in pickled):
        raise WeightsError(
            f"{found.name}: {pickled[0]} is a pickle, which can run code: add `allow_pickle` to convert it"
        )
    files = {converted_name(path): _copy(file, path, root, stamps) for path, file in found.files.items()}
    hashes = {converted_name(path): digest for path, digest in found.sha256.items()}
    folder = root / found.folder.relative_to(_find_root(found)) if found.file is None else root
    file = next(iter(files.values())) if found.file is not None else None
    return replace(found, folder=folder, files=files, file=file, sha256=hashes)


def _hash_together(hashes: Mapping[str, str]) -> str:
    """A hash of all files and their paths: a change in any of them, even a configuration, needs another conversion."""
    return hashlib.sha256(json.dumps(sorted(hashes.items())).encode()).hexdigest()[:16]


def _find_root(found: Located) -> Path:
    """The folder that the files' paths are relative to."""
    path, file = next(iter(found.files.items()))
    return Path(*file.parts[: len(file.parts) - len(Path(path).parts)])


def converted_name(path: str) -> str:
    """The name of a converted pickle; other names unchanged."""
    if not path.endswith(PICKLES):
        return path
    old = Path(path)
    return old.with_name(CONVERTED.get(old.stem, old.stem) + SUFFIX).as_posix()


def _is_converted(target: Path, stamps: Stamps) -> bool:
    """Whether a conversion exists and is unchanged."""
    return is_file(target) and stamps.known(target)


def _copy(file: Path, path: str, root: Path, stamps: Stamps) -> Path:
    """Convert or copy one file to `root`, unless that was done before."""
    target = root / converted_name(path)
    if _is_converted(target, stamps):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.endswith(PICKLES):
            from srcli.weights.pickles import to_safetensors

            to_safetensors(file, target)
        else:
            shutil.copyfile(file, target)
    except OSError as error:
        raise MachineError(f"{target}: cannot be written ({error.strerror}): free space, or set HF_HOME") from error
    stamps.record(target)
    return target
