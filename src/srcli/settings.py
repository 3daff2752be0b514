"""The settings of a run: frozen and checked once. Defaults of an engine are in its own spec."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Literal, get_args

from srcli.errors import InputError, check_range, unknown_word
from srcli.target_sizes import parse_box

AUTO = "auto"
Quality = Literal["draft", "standard", "best"]
Damage = Literal["auto", "none", "light", "heavy"]
SchedulerName = Literal["unipc", "dpm++", "ddim", "euler", "lcm", "ddpm"]
ColorFix = Literal["wavelet", "adain", "none"]
ChromaUpsampling = Literal["joint", "nearest"]
JOINT, NEAREST = CHROMA_UPSAMPLINGS = get_args(ChromaUpsampling)
Caption = Literal["auto", "none", "classify", "detect", "caption"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Frames = Literal["refuse", "first", "all"]
Fill = Literal["patches", "smooth"]
Tone = Literal["auto", "none"]
PATCHES: Fill = "patches"
QUALITIES: tuple[Quality, ...] = get_args(Quality)

SEED = 0
MAX_SEED = 2**63 - 1
MAX_SCALE = 64.0
MAX_SATURATION = 4.0
MAP_SEEDS = 4  # results that a map of uncertainty compares, including the one that is kept
MAX_MAP_SEEDS = 64
MAP_ENDING, MASK_ENDING = "_map", "_mask"  # of the names of a result's map and mask, which are PNG files
MAX_PIXELS = 250_000_000  # of an input; a small file that claims more is more likely an attack


def _check_optional(parameter: str, value: float | None, low: float, high: float) -> None:
    if value is not None:
        check_range(f"`{parameter}`", value, low, high)


def refuse_unknown(parameter: str, value: str | None, choices: Any) -> None:
    """Raises InputError for a value that the Literal does not list, for callers that do not check types."""
    if value is not None and value not in get_args(choices):
        raise unknown_word(f"`{parameter}`", value, get_args(choices))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """Tile size and overlap, counted in the canvas's own elements (latents, or pixels)."""

    size: int
    overlap: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError(f"`tile` {self.size} is not a size: give a positive number")
        if not 0 <= self.overlap < self.size:
            raise InputError(f"`overlap` {self.overlap} must be from 0 to below the tile ({self.size}): lower it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a canvas is sampled. None: the engine's default."""

    quality: Quality | None = None  # a preset; all fields below override it
    steps: int | None = None
    guidance: float | None = None
    guidance_interval: tuple[float, float] | None = None  # range of the steps that are guided, as shares in 0..1
    reuse: int | None = None  # steps that share one result of the deep layers
    conditioning_scale: float | None = None
    noise_level: int | None = None
    fidelity: float | None = None
    damage: Damage | None = None  # how damaged the picture is; "auto": estimate it
    scheduler: SchedulerName | None = None
    color_fix: ColorFix | None = None
    chroma_upsampling: ChromaUpsampling | None = None  # how colour that was predicted at a small size is enlarged
    process_size: int | None = None  # smallest short side of the hint, in pixels
    tile: int | None = None
    overlap: int | None = None
    tiny_vae: bool | None = None  # decode with a VAE of a few million weights instead of the base's own

    def __post_init__(self) -> None:
        refuse_unknown("quality", self.quality, Quality)
        _check_optional("steps", self.steps, 1, 4000)
        _check_optional("guidance", self.guidance, 0, 50)
        _check_optional("reuse", self.reuse, 1, 10)
        _check_optional("conditioning_scale", self.conditioning_scale, 0, 4)
        _check_optional("noise_level", self.noise_level, 0, 999)
        _check_optional("fidelity", self.fidelity, 0, 1)
        _check_optional("process_size", self.process_size, 8, 8192)
        refuse_unknown("damage", self.damage, Damage)
        refuse_unknown("scheduler", self.scheduler, SchedulerName)
        refuse_unknown("color_fix", self.color_fix, ColorFix)
        refuse_unknown("chroma_upsampling", self.chroma_upsampling, ChromaUpsampling)
        if self.guidance_interval is not None:
            low, high = self.guidance_interval
            if not 0 <= low <= high <= 1:
                raise InputError(f"`guidance_interval` {low:g},{high:g} must rise within 0 and 1: try 0.1,0.8")
        if self.tile is not None:
            Tiling(size=self.tile, overlap=self.overlap or 0)
        elif self.overlap is not None:
            raise InputError("`overlap` goes with `tile`: give both, or neither and let the layout be planned")

    def given(self) -> dict[str, Any]:
        """All fields that are set, except the quality."""
        return {f.name: v for f in fields(self) if f.name != "quality" and (v := getattr(self, f.name)) is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What is repaired in a picture before an engine gets it."""

    find_scratches: bool = False
    mask_model: str = "scratch-detector"  # in weights.lock, or a file
    mask_threshold: float = 0.4  # smallest probability that counts as damage
    mask_side: int = 256  # short side, in pixels, of the picture that the detector sees
    mask_limit: float = 25.0  # percent of the picture; if more is marked, nothing is filled
    fill: Fill = PATCHES  # with pieces of the picture, or smoothly (Telea)
    tone: Tone | None = None  # None: the task's own

    def __post_init__(self) -> None:
        _check_optional("mask_threshold", self.mask_threshold, 0.01, 0.99)
        _check_optional("mask_side", self.mask_side, 64, 1024)
        _check_optional("mask_limit", self.mask_limit, 0, 100)
        if self.mask_side % 16:
            raise InputError(
                f"`mask_side` {self.mask_side} is not a multiple of 16: try 256, or 512 for thin scratches"
            )
        refuse_unknown("fill", self.fill, Fill)
        refuse_unknown("tone", self.tone, Tone)
        for f in fields(self):
            if f.name.startswith("mask_") and getattr(self, f.name) != f.default and not self.find_scratches:
                raise InputError(f"`{f.name}` goes with `mask` auto: give both")

    def refuse_unused_fill(self, *, masked: bool) -> None:
        """Raises InputError where `fill` was chosen and no damage is marked. `masked`: masks come with the pictures."""
        if self.fill != PATCHES and not (masked or self.find_scratches):
            raise InputError(f"`fill` {self.fill} goes with `mask`: give both")


# Options that some engines do not use: field and parameter.
ENGINE_OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "variant": "variant",
        "base": "base",
        "adapter": "adapter",
        "loras": "loras",
        "lora_alpha": "lora_alpha",
        "blend": "blend",
        "text": "prompt",
        "negative": "negative_prompt",
        "caption": "caption",
        "preview": "preview",
        "mapped": "map",
        "map_seeds": "map_seeds",
        "compiled": "compile",
    }
)


def unused_option(parameter: str, engine: str) -> InputError:
    """The error for an option that an engine does not use: no option is ignored silently."""
    return InputError(f"`{parameter}` means nothing to the {engine} engine: leave it out, or name another `engine`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """The user's description of the picture, and which model may describe it besides."""

    text: str = ""
    negative: str | None = None  # None: the task's own
    caption: Caption = "auto"

    def __post_init__(self) -> None:
        refuse_unknown("caption", self.caption, Caption)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraChoice:
    """A LoRA file (or a name in weights.lock) and its weight."""

    source: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        _check_optional("loras", self.weight, -10, 10)

    @classmethod
    def parse(cls, text: str) -> LoraChoice:
        source, _, weight = text.rpartition(":")
        try:
            return cls(source=source, weight=float(weight)) if source else cls(source=text)
        except ValueError:
            return cls(source=text)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """Which weights a pipeline is made of."""

    engine: str = AUTO
    variant: str | None = None
    base: str | None = None
    adapter: str | None = None
    loras: tuple[LoraChoice, ...] = ()
    lora_alpha: bool = True  # False: the official PASD rule, which ignores a LoRA's alpha
    blend: float = 1.0
    allow_pickle: bool = False
    offline: bool = False

    def __post_init__(self) -> None:
        _check_optional("blend", self.blend, 0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceChoice:
    """Where to compute and in which precision; "auto" depends on the machine."""

    device: str = "auto"
    dtype: Dtype = "auto"
    threads: int | None = None
    memory: int | None = None  # bytes of device memory that may be used; None: all that is free
    compiled: bool = False  # compile the networks of each step, from the second picture on

    def __post_init__(self) -> None:
        refuse_unknown("dtype", self.dtype, Dtype)
        _check_optional("threads", self.threads, 1, 1024)


def size_in_bytes(text: str | None) -> int | None:
    """Parse `max_memory`: a number of bytes, or of K, M, G or T (powers of 1024)."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)i?B?", text.strip(), re.IGNORECASE)
    size = float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " ") if found else 0.0
    if not 1 <= size < math.inf:
        raise InputError(f"`max_memory` {text!r} is not a size: give one like 4G or 800M")
    return int(size)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSize:
    """The size of the result: one of these, or the task's own scale."""

    scale: float | None = None
    width: int | None = None
    height: int | None = None
    long_side: int | None = None
    fit: tuple[int, int] | None = None  # largest width and height of the result
    to: str | None = None  # a screen or print that it fits into, in either orientation: 4k, a4@300, 30x40cm@300dpi

    def __post_init__(self) -> None:
        given = {f.name: v for f in fields(self) if (v := getattr(self, f.name)) is not None}
        if len(given) > 1:
            *names, last = (f"`{f.name}`" for f in fields(self))
            raise InputError(f"{', '.join(names)} and {last} exclude each other: give one")
        for name, value in given.items():
            for number in () if name == "to" else value if isinstance(value, tuple) else (value,):
                if not number > 0:
                    raise InputError(f"`{name}` {number:g} must be greater than 0")
        if self.scale is not None and self.scale > MAX_SCALE:
            raise InputError(f"`scale` {self.scale:g} is out of range: give at most {MAX_SCALE:g}")
        if self.to is not None:
            parse_box(self.to)

    @property
    def is_scale(self) -> bool:
        """Whether all pictures are enlarged by the same factor."""
        return all(getattr(self, f.name) is None for f in fields(self) if f.name != "scale")

    @property
    def dpi(self) -> float | None:
        """The resolution, if `to` names a print."""
        return None if self.to is None else parse_box(self.to).dpi

    def factor(self, width: int, height: int, default: float) -> float:
        """The enlargement of a picture of this size."""
        if self.width is not None:
            return self.width / width
        if self.height is not None:
            return self.height / height
        if self.long_side is not None:
            return self.long_side / max(width, height)
        box = self.fit if self.to is None else parse_box(self.to).sides(width, height)
        if box is not None:
            return min(box[0] / width, box[1] / height)
        return self.scale if self.scale is not None else default

    def of(self, width: int, height: int, default: float) -> tuple[int, int]:
        """Width and height of the result: each side is round(side x factor), at least one pixel."""
        factor = self.factor(width, height, default)
        if factor > MAX_SCALE:
            raise InputError(f"{width}x{height} would grow {factor:.0f} times: at most {MAX_SCALE:g} is possible")
        return max(1, round(width * factor)), max(1, round(height * factor))
