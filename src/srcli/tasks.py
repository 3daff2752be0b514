"""The four tasks, as data. The four picture commands differ only in their task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from srcli.errors import InputError, check_range
from srcli.settings import (
    MAX_MAP_SEEDS,
    MAX_SATURATION,
    MAX_SEED,
    SEED,
    ColorFix,
    Prompt,
    Repair,
    Sampling,
    TargetSize,
    Tone,
)

# Stages of a run, as its progress reports them with what is done and the total.
LOADING, PREPARING, SAMPLING, FINISHING = "loading", "preparing", "sampling", "finishing"
FILLING = "filling"  # the damage, before the engine gets the picture
TILES = "tiles"  # of one step
PASS, VERSION = "pass", "version"  # before each pass over a picture, and each run of it for a map

CLEAN_PROMPT = "clean, high-resolution, 8k"
NEGATIVE_PROMPT = "blurry, dotted, noise, raster lines, unclear, lowres, over-smoothed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a picture command asks of an engine."""

    name: str
    done: str  # the word in the result's name
    scale: float
    needs_base: bool = False
    added_prompt: str = CLEAN_PROMPT
    negative_prompt: str = NEGATIVE_PROMPT
    replace_words: tuple[tuple[str, str], ...] = (("blurry", "clear"), ("noisy", "clean"))
    grey_hint: bool = False  # the model is shown luminance alone
    keep_luma: bool = False  # the result takes its luminance from the input
    color_fix: ColorFix | None = None  # None: the engine's own
    tone: Tone = "none"  # tone correction, unless --tone is given

    def suffix(self, factor: float) -> str:
        """What is added to the result's name: `_x4`, `_stylized`, ..."""
        return f"_x{factor:.4g}" if self.done == "x" else f"_{self.done}"


UPSCALE = Task(name="upscale", done="x", scale=4)

STYLIZE = Task(name="stylize", done="stylized", scale=1, needs_base=True)

RESTORE = Task(
    name="restore-old-photo",
    done="restored",
    scale=1,
    tone="auto",
)

COLORIZE = Task(
    name="colorize",
    done="colorized",
    scale=1,
    added_prompt="",
    negative_prompt="b&w, color bleeding",
    replace_words=(("black and white", "color"),),
    grey_hint=True,
    keep_luma=True,
    color_fix="none",
)

TASKS: Mapping[str, Task] = MappingProxyType({t.name: t for t in (UPSCALE, STYLIZE, RESTORE, COLORIZE)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A task with all its settings: what one run does to every picture."""

    task: Task
    size: TargetSize = TargetSize()
    sampling: Sampling = Sampling()
    prompt: Prompt = Prompt()
    repair: Repair = Repair()
    seed: int = SEED
    consistent: bool = False  # change the result so that, reduced again, it equals the input
    saturation: float = 1.0  # factor for the colours of `colorize`
    guided: bool = False  # whether strokes or a reference are given
    mapped: bool = False  # whether to make a map of uncertainty
    map_seeds: int | None = None  # results that the map compares, for engines that sample; None: MAP_SEEDS

    def __post_init__(self) -> None:
        if self.consistent and self.task is not UPSCALE:
            raise InputError(f"`consistent` goes with upscale: {self.task.name} is asked to change the picture")
        if self.saturation != 1 and not self.task.keep_luma:
            raise InputError(f"`saturation` goes with {COLORIZE.name}: {self.task.name} gives no colour")
        if self.guided and not self.task.keep_luma:
            raise InputError(f"`hint` and `reference` go with {COLORIZE.name}: {self.task.name} gives no colour")
        check_range("`saturation`", self.saturation, 0, MAX_SATURATION)
        if self.map_seeds is not None and not self.mapped:
            raise InputError("`map_seeds` goes with `map`: give both, or neither")
        if self.map_seeds is not None:
            check_range("`map_seeds`", self.map_seeds, 2, MAX_MAP_SEEDS)
        check_range("`seed`", self.seed, 0, MAX_SEED)

    @property
    def tone(self) -> Tone:
        """The tone correction that is asked for, or the task's own."""
        return self.repair.tone or self.task.tone

    def factor(self, width: int, height: int) -> float:
        return self.size.factor(width, height, self.task.scale)

    def target(self, width: int, height: int) -> tuple[int, int]:
        """Size of the result for a picture of this size."""
        return self.size.of(width, height, self.task.scale)
