"""Names and folders of results."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

from srcli.batch.planning.inputs import FoundFile
from srcli.batch.settings import STDIO, BatchSettings, InputOptions, OutputOptions
from srcli.errors import InputError, PictureError
from srcli.files import is_dir, path_exists, same_file
from srcli.imaging.formats import format_of_name, parse_format, suffix_for
from srcli.imaging.printable import printable
from srcli.settings import MAP_ENDING
from srcli.tasks import TASKS, Job

NAME_MAX = 255  # bytes, on every file system in common use
TASK_SUFFIXES = tuple(f"_{task.done}" for task in TASKS.values() if task.done != "x")

ReadSize = Callable[[Path], tuple[int, int]]  # width and height, from a file's header


class OutputNamer:
    """Computes the path of the result for an input, without keeping any state about other inputs."""

    def __init__(self, settings: BatchSettings, read_size: ReadSize) -> None:
        self._output, self._job, self._read_size = settings.output, settings.job, read_size
        self._list = settings.input.listed
        self.file = _single_file(settings.input, settings.output)
        streams = settings.output.path == STDIO
        self.folder = None if self.file or streams or settings.output.path is None else Path(settings.output.path)
        self.streams = streams

    def target(self, item: FoundFile) -> Path:
        """The result's path, or `-` for stdout. Raises PictureError if its name would be too long."""
        if self.streams:
            return Path(STDIO)
        if self.file:
            return self.file.with_name(self.file.stem + frame_suffix(item) + self.file.suffix)
        name = self._name(item)
        if len(os.fsencode(name)) > NAME_MAX:
            raise PictureError(f"the result's name would exceed {NAME_MAX} bytes: rename the input", "name-too-long")
        return self.result_folder(item) / name

    def journal_folders(self, options: InputOptions) -> set[Path]:
        """Folders that may hold journals of earlier runs over these inputs."""
        folders = {path if is_dir(path) else path.parent for path in map(Path, options.inputs)}
        listed = {Path(self._list).parent} if self._list is not None else set()
        return folders | listed | ({self.folder} if self.folder else set())

    def result_folder(self, item: FoundFile) -> Path:
        """The result's folder: the input's own, or the same subfolder of the output folder."""
        return item.path.parent if self.folder is None else self.folder / item.path.parent.relative_to(item.root)

    def journal_folder(self, item: FoundFile) -> Path:
        """The folder of the journal, given the first input."""
        if self.file:
            return self.file.parent
        if self.folder is None and self._list is not None:
            return Path(self._list).parent
        return item.root if self.folder is None else self.folder

    def _name(self, item: FoundFile) -> str:
        path = Path("stdin") if item.path == Path(STDIO) else item.path
        return path.stem + frame_suffix(item) + self._suffix(item) + output_suffix(path, self._output.format)

    def _suffix(self, item: FoundFile) -> str:
        if self._output.suffix is not None:
            return self._output.suffix
        return self._job.task.suffix(self._find_factor(item))

    def _find_factor(self, item: FoundFile) -> float:
        if self._job.task.done != "x" or self._job.size.is_scale:
            return self._job.factor(1, 1)
        if item.path == Path(STDIO):
            raise InputError("the scale of a picture from stdin is unknown before it is read: give -o FILE")
        return self._job.factor(*self._read_size(item.path))


def frame_suffix(item: FoundFile) -> str:
    return f"_p{item.frame:03}" if item.frame else ""


def least_factor(job: Job) -> float:
    """The smallest scale that is known before any picture is read."""
    return job.factor(1, 1) if job.size.is_scale else 1.0


def output_suffix(path: Path, format: str | None) -> str:
    """The suffix of the requested format; without one, the input's own or the nearest writable one."""
    return suffix_for(path) if format is None else parse_format(format).suffixes[0]


def is_numbered_name(path: Path, plain: Path) -> bool:
    """Return whether `path` is `plain` or one of its numbered names."""
    stem = path.stem.removeprefix(plain.stem)
    same_place = (path.parent, path.suffix) == (plain.parent, plain.suffix) and path.stem.startswith(plain.stem)
    return same_place and (not stem or (stem[0] == "-" and stem[1:].isdigit()))


def fold_case(path: Path) -> bytes:
    """A key that is equal for all spellings that a case-insensitive or normalizing file system treats as one name."""
    return os.fsencode(unicodedata.normalize("NFC", os.fspath(path)).casefold())


def _single_file(options: InputOptions, output: OutputOptions) -> Path | None:
    """The path of `-o` if it names a file, else None."""
    if output.path is None or output.path == STDIO:
        return None
    path = Path(output.path)
    if output.path.endswith(("/", os.sep)) or is_dir(path):
        return None
    if not path.suffix and not path_exists(path):
        return None
    _check_ending(path, output.format)
    check_one_input("-o", path, options)
    return path


def check_one_input(flag: str, path: Path, options: InputOptions) -> None:
    """Raises InputError if one file is named for the results of several inputs."""
    first = options.inputs[0] if options.inputs else STDIO
    if options.listed is not None or len(options.inputs) > 1 or (first != STDIO and is_dir(Path(first))):
        raise InputError(f"{flag} {printable(path)} is one file, but there are several inputs: give a folder")


def _check_ending(path: Path, format: str | None) -> None:
    """Raise InputError if the suffix is not writable or contradicts --format."""
    try:
        row = format_of_name(path)
    except InputError as error:
        if format is not None:
            return
        way = "give a folder, or a name ending in .png" if path_exists(path) else "end it in .png, or in / for a folder"
        raise InputError(f"-o {printable(path)} is neither a folder nor the name of a picture file: {way}") from error
    if format is not None and row != parse_format(format):
        raise InputError(f"-o {printable(path)} does not have the suffix of --format {format}: leave one of them out")


class OwnOutputs:
    """Recognises results of earlier runs among the files of a folder, by journal or metadata and not by name alone."""

    def __init__(
        self, settings: BatchSettings, journaled: Callable[[Path], bool], provenance: Callable[[Path], object]
    ) -> None:
        self._suffix, self._journaled, self._provenance = settings.output.suffix, journaled, provenance
        self._beside = settings.output.path is None or any(
            same_file(Path(name), Path(settings.output.path)) for name in settings.input.inputs
        )

    def __call__(self, path: Path, has_source: bool) -> bool:
        """Return whether the journal or the file's own metadata says that srcli wrote it.

        `has_source`: this name starts with the name of another picture in the folder, as the name of a result does.
        Without such a picture, results are taken as inputs, unless new results go into the same folder.
        """
        if self._beside and self._journaled(path):
            return True
        return (has_source or (self._beside and self._has_result_name(path.stem))) and bool(self._provenance(path))

    def _has_result_name(self, stem: str) -> bool:
        stem = stem.removesuffix(MAP_ENDING)
        head, _, number = stem.rpartition("-")
        stem = head if head and number.isdigit() else stem
        _, _, factor = stem.rpartition("_x")
        return (
            bool(self._suffix and stem.endswith(self._suffix))
            or stem.endswith(TASK_SUFFIXES)
            or factor.replace(".", "", 1).isdigit()
        )
