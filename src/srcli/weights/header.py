"""Read the header of a safetensors file, without reading its tensors."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from srcli import files
from srcli.errors import WeightsError

HASH_CHUNK = 1 << 20
POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class Header:
    """The names, shapes and dtypes of a file's tensors, and its metadata."""

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    metadata: Mapping[str, str]

    def under(self, prefix: str) -> dict[str, tuple[int, ...]]:
        """The shapes of the tensors whose names start with `prefix`, which is removed."""
        return {name.removeprefix(prefix): shape for name, shape in self.shapes.items() if name.startswith(prefix)}

    def ending(self, suffix: str) -> Iterator[tuple[int, ...]]:
        """The shapes of the tensors whose names end with `suffix`, sorted by name."""
        return (self.shapes[name] for name in sorted(self.shapes) if name.endswith(suffix))


def read_header(path: Path) -> Header:
    """Read the header of a safetensors file. WeightsError for other files, saying what they seem to be."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
            dtypes = {name: part.get_dtype() for name, part in slices.items()}
            return Header(path, shapes, dtypes, file.metadata() or {})
    except (SafetensorError, OSError, UnicodeDecodeError, ValueError) as error:
        raise unreadable_weights(path, error) from error


def unreadable_weights(path: Path, error: Exception) -> WeightsError:
    """The error for a weights file that is missing or not a safetensors file."""
    if isinstance(error, FileNotFoundError):
        return WeightsError(f"{path}: no such file: check the path")
    return WeightsError(f"{path}: {describe_file(path)}: get the file again")


def describe_file(path: Path) -> str:
    """What a file that is not safetensors seems to be."""
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    if start.startswith(POINTER):
        return "this is a Git LFS pointer, not the weights"
    if start.lstrip()[:1] == b"<":
        return "this is a web page, not weights"
    if start[:2] in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05"):
        return "this is a pickle, not safetensors"
    return "this is not a whole safetensors file"


def hash_weights(path: Path) -> str:
    """SHA-256 of a file; WeightsError if it cannot be read."""
    try:
        return files.hash_file(path)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}): check the file and its disk") from error
