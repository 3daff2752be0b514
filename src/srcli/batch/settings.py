"""Settings of a batch: inputs, outputs, how it runs, and which pipeline it loads."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from srcli import __version__
from srcli.errors import InputError, check_range
from srcli.files import hash_file, is_dir, is_file, path_exists, same_file
from srcli.messages import forward_messages
from srcli.settings import AUTO, MASK_ENDING, MAX_PIXELS, DeviceChoice, Frames, ModelChoice, Repair, refuse_unknown
from srcli.tasks import TASKS, Job

if TYPE_CHECKING:
    from srcli.imaging.prepare_output import SaveOptions
    from srcli.pipeline import EnginePipeline

STDIO = "-"
LOCAL = "local"
CAPTION_KINDS = ("captioner", "classifier", "detector")  # weights that describe a picture for its prompt
LEAST_TIMEOUT, MOST_TIMEOUT = 0.001, 31_536_000  # seconds; timers accept no more than a year
MOST_WORKERS = 10_000
MOST_PIXELS = 1 << 40  # largest --max-pixels: the reading process's memory limit follows from it
SIDE_ROLES = ("mask", "hint", "reference")
MASK_ENDINGS = (MASK_ENDING, *(f"_{task.done}{MASK_ENDING}" for task in TASKS.values() if task.done != "x"))
OnExists = Literal["fail", "skip", "rename", "overwrite"]
PREVIEWS = (".png", ".jpg", ".jpeg", ".webp")  # formats that any viewer shows and that hold our metadata


@dataclass(frozen=True, slots=True, kw_only=True)
class SidePictures:
    """Pictures read together with a picture: the mask of its damage, and what guides its colours."""

    mask: Path | None = None
    hint: Path | None = None
    reference: Path | None = None

    def by_role(self) -> dict[str, Path]:
        """The paths that are set."""
        return {role: path for role in SIDE_ROLES if (path := getattr(self, role)) is not None}


NO_SIDES = SidePictures()


@dataclass(frozen=True, slots=True, kw_only=True)
class InputOptions:
    """Which pictures to read, and how strictly."""

    inputs: tuple[str, ...] = ()  # files, folders, or "-" for a picture on stdin
    recursive: bool = False
    listed: str | None = None  # a file of names, or "-" for names on stdin
    null: bool = False  # names in the list end with NUL, not with a newline
    max_pixels: int = MAX_PIXELS
    frames: Frames = "refuse"
    allow_truncated: bool = False
    mask: str | None = None  # a file that marks damage in white, a folder of such files, or "auto": find the damage
    hint: str | None = None  # a file with coloured strokes, or a folder of such files
    reference: str | None = None  # a file whose colours to use, or a folder of such files

    def __post_init__(self) -> None:
        if not self.inputs and self.listed is None:
            raise InputError("no picture named: give files, folders, - for stdin, or --from FILE")
        if self.inputs.count(STDIO) + (self.listed == STDIO) > 1:
            raise InputError("stdin was named twice: it can be read once")
        for role, named in self.named_sides().items():
            self._check_side(role, named)
        check_range("--max-pixels", self.max_pixels, 1, MOST_PIXELS)
        refuse_unknown("frames", self.frames, Frames)

    def _check_side(self, role: str, named: Path) -> None:
        if not path_exists(named):
            raise InputError(f"no such {role} {named}: give --{role} a picture, or a folder of pictures")
        if any(same_file(named, Path(name)) for name in self.inputs):
            raise InputError(f"the {role} {named} is itself an input: keep {role}s in a folder of their own")

    @property
    def finds_mask(self) -> bool:
        """Whether srcli searches for damage. A file of this name is given as ./auto."""
        return self.mask == AUTO

    def named_sides(self) -> dict[str, Path]:
        """The files and folders of --mask, --hint and --reference, by role."""
        named = {role: getattr(self, role) for role in SIDE_ROLES if not (role == "mask" and self.finds_mask)}
        return {role: Path(name) for role, name in named.items() if name is not None}

    def sides_for(self, path: Path, root: Path) -> SidePictures:
        """The pictures for one input: a file for all inputs, or NAME.png in the same subfolder of a folder.

        Masks may also have the names that `--mask auto` gives them.
        """
        named, endings = self.named_sides(), {"mask": ("", *MASK_ENDINGS)}
        return SidePictures(**{role: _side_for(named[role], path, root, endings.get(role, ("",))) for role in named})


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """Where results go, and in which format."""

    path: str | None = None  # a file, a folder, "-" for stdout, or None: beside each input
    format: str | None = None
    suffix: str | None = None  # None: the task's own
    on_exists: OnExists = "fail"
    quality: int | None = None
    strip: bool = False
    strip_gps: bool = False
    preview: str | None = None  # a file that shows the result while it is computed
    map: str | None = None  # a file for the map of uncertainty, or a folder for maps

    @property
    def saving(self) -> SaveOptions:
        from srcli.imaging.prepare_output import SaveOptions

        return SaveOptions(quality=self.quality, strip=self.strip, strip_gps=self.strip_gps)

    def __post_init__(self) -> None:
        if self.path == "":
            raise InputError("-o is empty: give a file, a folder, or - (is a shell variable empty?)")
        refuse_unknown("on_exists", self.on_exists, OnExists)
        if self.suffix is not None and ("/" in self.suffix or "\0" in self.suffix):
            raise InputError("--suffix contains a slash: leave it out")
        if self.quality is not None:
            check_range("--file-quality", self.quality, 1, 100)
        if self.format is not None:
            from srcli.imaging.formats import parse_format

            parse_format(self.format)
        if self.preview is not None and not self.preview.lower().endswith(PREVIEWS):
            endings = ", ".join(PREVIEWS)
            raise InputError(f"--preview {self.preview!r} is not the name of a picture file: end it in {endings}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How the batch runs."""

    fail_fast: bool = False
    timeout: float | None = None  # seconds for one picture
    workers: int = 1
    ray: str | None = None  # address of a Ray cluster, "auto", or "local": this machine, without Ray
    journal: bool | None = None  # None: where there is more than one picture
    ahead: int = 2  # pictures read in advance, and results waiting to be written; 0: one stage at a time

    def __post_init__(self) -> None:
        if self.timeout is not None:
            check_range("--timeout", self.timeout, LEAST_TIMEOUT, MOST_TIMEOUT)
        check_range("--workers", self.workers, 1, MOST_WORKERS)

    @property
    def cluster(self) -> str | None:
        """The Ray cluster to use, if any."""
        return None if self.ray == LOCAL else self.ray


@dataclass(frozen=True, slots=True)
class PipelineFactory:
    """Loads a pipeline. It is sent to other processes, so it holds settings and no models."""

    choice: ModelChoice
    device: DeviceChoice
    repair: Repair = Repair()

    def load(self, tell: Callable[[str], None], preview: Path | None = None) -> EnginePipeline:
        from srcli.engines.runtime.device import choose_device, prepare_process
        from srcli.pipeline import EnginePipeline
        from srcli.weights.hub import go_offline

        forward_messages(tell)
        if self.choice.offline:
            go_offline()
        prepare_process(choose_device(self.device), self.device.threads)
        return EnginePipeline.load(self.choice, self.device, preview, self.repair)


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """All settings of one run."""

    input: InputOptions
    output: OutputOptions
    run: RunOptions
    job: Job
    factory: PipelineFactory

    def __post_init__(self) -> None:
        if self.preview and (self.run.workers > 1 or self.run.ray is not None):
            raise InputError("--preview shows one picture at a time: leave out --workers and --ray")

    @property
    def preview(self) -> Path | None:
        return Path(self.output.preview) if self.output.preview else None

    @property
    def lock(self) -> str:
        return lock_digest(self.factory.choice, self.detectors)

    @property
    def detectors(self) -> tuple[str, ...]:
        """The weights that find damage, if --mask auto is given."""
        return (self.job.repair.mask_model,) if self.job.repair.find_scratches else ()

    def result_settings(self) -> dict[str, object]:
        """All settings that affect the bytes of a result, besides the input and its side pictures."""
        return {
            "version": __version__,
            "job": asdict(self.job),
            "device": [self.factory.device.device, self.factory.device.dtype, self.factory.device.memory],
            "models": asdict(self.factory.choice) | {"offline": None},
            "files": [
                stamp for path in _local_paths(self.factory.choice, self.detectors) for stamp in _file_stamps(path)
            ],
            "lock": self.lock,
            "form": [
                self.output.format,
                self.output.quality,
                self.output.strip,
                self.output.strip_gps,
            ],
            "reading": [self.input.frames, self.input.allow_truncated],
        }

    def recipe(self) -> str:
        """Digest of `result_settings`: runs with the same recipe make the same result from the same input."""
        text = json.dumps(self.result_settings(), sort_keys=True, default=str)
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _side_for(named: Path, path: Path, root: Path, endings: tuple[str, ...]) -> Path | None:
    folder = named / path.parent.relative_to(root) if is_dir(named) else None
    sides = [folder / f"{path.stem}{ending}.png" for ending in endings] if folder else [named]
    return next((side for side in sides if is_file(side) and not same_file(side, path)), None)


def recipe_of_picture(recipe: str, sides: SidePictures, frame: int = 0) -> str:
    """The recipe of one picture, which includes the contents of its side pictures and its frame number."""
    if frame:
        recipe = hashlib.sha256(f"{recipe} frame {frame}".encode()).hexdigest()
    for role, path in sides.by_role().items():
        try:
            digest = hash_file(path)
        except OSError:
            digest = "unreadable"  # reading the picture will fail and give the reason
        recipe = hashlib.sha256(f"{recipe} {role} {digest}".encode()).hexdigest()
    return recipe


def lock_digest(choice: ModelChoice, more: tuple[str, ...] = ()) -> str:
    """Digest of the lock entries that this choice may open, and of those named in `more`.

    Entries that a pull only completed with hashes do not count: they change no picture.
    """
    from srcli.engines.registry import entries_of
    from srcli.weights.lock import HUB_NAME, read_lock
    from srcli.weights.overlay import read_overlay
    from srcli.weights.places import find_places, packaged_lock
    from srcli.weights.store import parse_need

    own = read_overlay(find_places().overlay)
    added = {name: entry for name, entry in own.items() if not entry.learned and not HUB_NAME.fullmatch(name)}
    lock = read_lock(packaged_lock()) | added
    named = {choice.base, choice.adapter, *(lora.source for lora in choice.loras), *more}
    opened = entries_of(choice)
    implied = [e.name for e in lock.values() if e.name in opened or e.kind in CAPTION_KINDS]
    queue, used = [*implied, *(name for name in named if name)], set[str]()
    while queue:
        if (name := queue.pop()) in lock and name not in used:
            used.add(name)
            queue += [parse_need(text)[0] for text in lock[name].needs]
    return hashlib.sha256(repr([lock[name] for name in sorted(used)]).encode()).hexdigest()


def _local_paths(choice: ModelChoice, more: tuple[str, ...]) -> list[Path]:
    names = [choice.base, choice.adapter, *(lora.source for lora in choice.loras), *more]
    return [path for name in names if name and path_exists(path := Path(name))]


def _file_stamps(path: Path) -> list[list[object]]:
    """Sizes and times of the files of a local model, which change when the weights are edited."""
    stamps: list[list[object]] = []
    for file in sorted(Path(folder, name) for folder, _, names in os.walk(path) for name in names) or [path]:
        with suppress(FileNotFoundError):  # deleted in the meantime
            status = file.stat()
            stamps.append([str(file), status.st_size, status.st_mtime_ns])
    return stamps
