"""srcli as a library: load a pipeline and process pictures with it. See docs/api.md for examples.

Nothing here changes settings of the whole process: allocator, number of threads, precision flags, standard streams.
Messages go to the logger `srcli`. Errors are `srcli.errors.SrcliError`, whose texts name parameters in backticks.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srcli.engines.choose import settle_choice
from srcli.errors import InputError, unknown_word
from srcli.imaging.inpaint import Marks, mark_damage
from srcli.imaging.picture import Picture
from srcli.imaging.prepare_output import SaveOptions
from srcli.imaging.read import read_picture
from srcli.imaging.strokes import add_reference, add_strokes
from srcli.imaging.write import write_picture
from srcli.settings import (
    Caption,
    ChromaUpsampling,
    ColorFix,
    Damage,
    DeviceChoice,
    Dtype,
    Fill,
    LoraChoice,
    ModelChoice,
    Prompt,
    Quality,
    Repair,
    Sampling,
    SchedulerName,
    TargetSize,
    Tone,
    size_in_bytes,
)
from srcli.tasks import COLORIZE, RESTORE, STYLIZE, UPSCALE, Job, Task
from srcli.uncertainty.map import map_uncertainty, report_versions, write_map

if TYPE_CHECKING:
    from srcli.pipeline import EnginePipeline
    from srcli.sampling.resume import OnBlock, OnExpected

PictureSource = str | os.PathLike[str] | bytes | Image.Image | NDArray[Any] | Picture
ProgressCallback = Callable[[str, int, int], None]  # stage, done, of
TASKS_BY_METHOD: Mapping[str, Task] = {"upscale": UPSCALE, "stylize": STYLIZE, "restore": RESTORE, "colorize": COLORIZE}

log = logging.getLogger(__name__)


class PictureOptions(TypedDict, total=False):
    """Options for one picture. Those left out have the defaults of the task or the engine."""

    scale: float
    width: int
    height: int
    long_side: int
    fit: tuple[int, int]
    to: str
    prompt: str
    negative_prompt: str
    caption: Caption
    seed: int
    quality: Quality
    steps: int
    guidance: float
    guidance_interval: tuple[float, float]
    reuse: int
    conditioning_scale: float
    noise_level: int
    fidelity: float
    damage: Damage
    scheduler: SchedulerName
    color_fix: ColorFix
    chroma_upsampling: ChromaUpsampling
    process_size: int
    tile: int
    overlap: int
    tiny_vae: bool
    consistent: bool
    map: bool
    map_seeds: int
    saturation: float
    find_scratches: bool
    mask_threshold: float
    mask_side: int
    mask_limit: float
    fill: Fill
    tone: Tone


@dataclass(frozen=True)
class Result:
    """A result, and how it was made."""

    picture: Picture
    provenance: Mapping[str, object]
    map: NDArray[np.uint8] | None = None  # (height, width); 255: the result is certainly a guess there

    @property
    def pixels(self) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """(height, width, 3) in sRGB, with as many bits as the source."""
        return self.picture.pixels

    @property
    def mask(self) -> Marks | None:
        """(height, width) of the source; 255 where scratches were found."""
        return self.picture.damage

    @property
    def image(self) -> Image.Image:
        """The result in 8 bits, with the source's transparency."""
        alpha = self.picture.alpha
        levels: NDArray[Any] = self.pixels if alpha is None else np.dstack([self.pixels, alpha])
        return Image.fromarray(np.round(levels / 257).astype(np.uint8) if levels.dtype == np.uint16 else levels)

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        format: str | None = None,
        quality: int | None = None,
        strip: bool = False,
        strip_gps: bool = False,
    ) -> None:
        """Write a file atomically, in the format of its suffix, with the source's metadata and colour profile and with
        the provenance of the result. `strip` leaves out the source's metadata, `strip_gps` its location."""
        saving = SaveOptions(quality=quality, strip=strip, strip_gps=strip_gps)
        for note in write_picture(self.picture, Path(path), format=format, saving=saving, provenance=self.provenance):
            log.info(f"{path}: {note}")

    def save_map(self, path: str | os.PathLike[str]) -> None:
        """Write the map as a grey PNG."""
        if self.map is None:
            raise InputError("there is no map: ask for one with map=True")
        write_map(self.map, self.provenance, Path(path))


class Pipeline:
    """Loaded models, for any number of pictures, one at a time. A task or quality that needs other weights replaces
    the loaded ones."""

    def __init__(self, models: ModelChoice, device: DeviceChoice) -> None:
        self._models, self._device = models, device
        self._loaded: EnginePipeline | None = None
        self.on_block: OnBlock | None = None  # called with each finished block of a result
        self.on_expected: OnExpected | None = None  # called after each step with what the sampler expects
        self._choices: dict[tuple[object, ...], ModelChoice] = {}

    @classmethod
    def load(
        cls,
        engine: str = "auto",
        *,
        task: str = "upscale",
        variant: str | None = None,
        base: str | None = None,
        adapter: str | None = None,
        loras: tuple[str, ...] = (),
        device: str = "auto",
        dtype: Dtype = "auto",
        max_memory: str | int | None = None,
        allow_pickle: bool = False,
        offline: bool = False,
    ) -> Pipeline:
        """Load the models for a task. The parameters mean the same as the command line's options of these names.
        Missing weights are pulled if they are named, unless `offline`."""
        models = ModelChoice(
            engine=engine,
            variant=variant,
            base=base,
            adapter=adapter,
            loras=tuple(LoraChoice.parse(text) for text in loras),
            allow_pickle=allow_pickle,
            offline=offline,
        )
        memory = size_in_bytes(max_memory) if isinstance(max_memory, str) else max_memory
        pipeline = cls(models, DeviceChoice(device=device, dtype=dtype, memory=memory))
        pipeline._load(Job(task=find_task(task)))
        return pipeline

    @property
    def engine(self) -> str:
        """The name of the loaded engine."""
        return self._loaded.choice.engine if self._loaded else self._models.engine

    def upscale(
        self, image: PictureSource, *, on_progress: ProgressCallback | None = None, **options: Unpack[PictureOptions]
    ) -> Result:
        """Enlarge a picture, 4 times by default, and remove noise and artefacts."""
        return self._run(UPSCALE, read_source(image), on_progress, options)

    def stylize(
        self, image: PictureSource, *, on_progress: ProgressCallback | None = None, **options: Unpack[PictureOptions]
    ) -> Result:
        """Redraw a picture in the style of the loaded base model."""
        return self._run(STYLIZE, read_source(image), on_progress, options)

    def restore(
        self,
        image: PictureSource,
        *,
        mask: PictureSource | None = None,
        on_progress: ProgressCallback | None = None,
        **options: Unpack[PictureOptions],
    ) -> Result:
        """Restore an old photograph. `mask` marks its damage, white on black; `find_scratches` finds it instead."""
        picture = read_source(image)
        if mask is not None:
            picture = mark_damage(picture, read_source(mask))
        return self._run(RESTORE, picture, on_progress, options)

    def colorize(
        self,
        image: PictureSource,
        *,
        hint: PictureSource | None = None,
        reference: PictureSource | None = None,
        on_progress: ProgressCallback | None = None,
        **options: Unpack[PictureOptions],
    ) -> Result:
        """Colorize a black and white photograph; its luminance is unchanged. `hint` is a copy with coloured strokes, or
        strokes on transparency; `reference` is a picture whose colours to use."""
        picture = read_source(image)
        if hint is not None:
            picture = add_strokes(picture, read_source(hint))
        if reference is not None:
            picture = add_reference(picture, read_source(reference))
        return self._run(COLORIZE, picture, on_progress, options)

    def _run(
        self, task: Task, picture: Picture, on_progress: ProgressCallback | None, options: Mapping[str, Any]
    ) -> Result:
        guided = picture.strokes is not None or picture.reference is not None
        job = replace(make_job(task, options), guided=guided)
        job.repair.refuse_unused_fill(masked=picture.damage is not None)
        pipeline = self._load(job)
        follow = on_progress or (lambda stage, done, total: None)
        picture = pipeline.repair(picture, job, follow)
        report_versions(pipeline, job, follow)
        result = pipeline.run(picture, job, follow, on_block=self.on_block, on_expected=self.on_expected)
        if not job.mapped:
            return Result(result, pipeline.provenance(job, picture))
        found = map_uncertainty(pipeline, picture, job, result, follow)
        for state in found.resume_states:
            state.delete()
        return Result(result, pipeline.provenance(job, picture) | {"map": found.facts}, map=found.levels)

    def _load(self, job: Job) -> EnginePipeline:
        """The pipeline for this job; it replaces the loaded one if that has other weights."""
        from srcli.pipeline import EnginePipeline

        key = job.task.name, job.sampling, job.prompt, job.guided, job.mapped, job.map_seeds
        if key not in self._choices:
            self._choices[key] = settle_choice(self._models, self._device, job)
        if self._loaded is None or self._loaded.choice != self._choices[key]:
            self._loaded = None  # both together may not fit into memory
            self._loaded = EnginePipeline.load(self._choices[key], self._device, repair=job.repair)
        self._loaded = self._loaded.with_finder(job.repair, self._device)
        return self._loaded


def find_task(name: str) -> Task:
    if name not in TASKS_BY_METHOD:
        raise unknown_word("`task`", name, TASKS_BY_METHOD)
    return TASKS_BY_METHOD[name]


def check_option_names(options: Mapping[str, Any]) -> None:
    """Raises InputError for a name that is not among `PictureOptions`."""
    known = PictureOptions.__annotations__
    if unknown := sorted(options.keys() - known.keys()):
        raise InputError(f"`{unknown[0]}` is not an option: choose from {', '.join(known)}")


def make_job(task: Task, options: Mapping[str, Any]) -> Job:
    """The job for a task and the options of one picture."""
    check_option_names(options)

    def pick(settings: type) -> dict[str, Any]:
        return {f.name: options[f.name] for f in fields(settings) if f.name in options}

    prompt = Prompt(
        text=options.get("prompt", ""),
        negative=options.get("negative_prompt"),
        caption=options.get("caption", Prompt().caption),
    )
    size, sampling = TargetSize(**pick(TargetSize)), Sampling(**pick(Sampling))
    rest = {name: options[name] for name in ("seed", "consistent", "saturation", "map_seeds") if name in options}
    parts: dict[str, Any] = {"size": size, "sampling": sampling, "prompt": prompt, "repair": Repair(**pick(Repair))}
    return Job(task=task, mapped=bool(options.get("map")), **parts, **rest)


def read_source(image: PictureSource) -> Picture:
    """The picture in a file, in a file's bytes, in a Pillow image, or in an array of levels."""
    if isinstance(image, Picture):
        picture = image
    elif isinstance(image, bytes):
        picture = read_picture(image, name="the picture")
    elif isinstance(image, Image.Image):
        picture = read_picture(_encode_lossless(image), name="the picture")
    elif isinstance(image, np.ndarray):
        picture = _picture_from_array(image)
    else:
        picture = read_picture(Path(image))
    for note in picture.notes:
        log.info(note)
    return picture


def _encode_lossless(image: Image.Image) -> bytes:
    """Encode the image as a file, so that profile, transparency, depth and metadata are read as from any file."""
    buffer, extra = io.BytesIO(), {"icc_profile": image.info.get("icc_profile"), "exif": image.getexif()}
    try:
        image.save(buffer, "TIFF" if image.mode in ("CMYK", "LAB") else "PNG", **extra)
    except (OSError, ValueError) as error:
        raise InputError(f"a Pillow image of mode {image.mode} cannot be used: convert it to RGB") from error
    return buffer.getvalue()


def _picture_from_array(levels: NDArray[Any]) -> Picture:
    """The picture of an array: (H, W), (H, W, 3) or (H, W, 4), 8 or 16 bits, sRGB."""
    shape = levels.shape
    if levels.dtype not in (np.uint8, np.uint16) or len(shape) not in (2, 3) or 0 in shape:
        raise InputError(
            f"an array of {levels.dtype} and shape {shape} is not a picture: give uint8 or uint16, (H, W, 3)"
        )
    if len(shape) == 2:
        return Picture(pixels=np.repeat(levels[:, :, None], 3, axis=2), grey=True, lossless=True)
    if shape[2] not in (3, 4):
        raise InputError(f"an array with {shape[2]} channels is not a picture: give 3 (RGB) or 4 (RGBA)")
    alpha = np.ascontiguousarray(levels[:, :, 3]) if shape[2] == 4 else None
    return Picture(pixels=np.ascontiguousarray(levels[:, :, :3]), alpha=alpha, lossless=True)
