"""What an engine is: data and functions that can be read without its libraries, and the loaded model behind them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from srcli.engines.calibration import OtherVersions, vary_seed
from srcli.engines.runtime.oom_fallback import MemorySavings
from srcli.errors import InputError
from srcli.settings import ENGINE_OPTIONS, QUALITIES, LoraChoice, ModelChoice, Prompt, Sampling, unused_option
from srcli.tasks import Job, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from srcli.engines.runtime.device import Device
    from srcli.engines.runtime.forecast import Forecast
    from srcli.sampling.noise import NoiseField
    from srcli.sampling.sampler import Denoiser, Scheduler, TileWeight
    from srcli.sampling.tiling import Tile
    from srcli.weights.header import Header
    from srcli.weights.lock import Entry
    from srcli.weights.store import Store

PixelSize = tuple[int, int]  # width, height


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSupport:
    """How an engine does one task.

    `rank`: `auto` tries engines by rising rank; None is never chosen unless it is named. `variant` and `base` are the
    weights that the task needs where the user names none. An `optional` engine is taken where its weights are here, and
    nobody is told to get them. One that is `guided_only` does nothing to a picture without strokes or reference.
    """

    rank: int | None = None
    optional: bool = False
    guided_only: bool = False
    variant: str | None = None
    base: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """What a --quality changes of an engine's defaults, and which LoRAs it needs."""

    sampling: Sampling = Sampling()
    loras: tuple[LoraChoice, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantProfile:
    """What an engine does by default with one variant of its weights. `presets`: by quality; "standard" is none."""

    defaults: Sampling
    presets: Mapping[str, Preset] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AdapterEvidence:
    """What is known of an `--adapter` before it is opened: its entry of weights.lock, and the headers of files here."""

    entry: Entry | None
    headers: tuple[Header, ...]

    def is_one_of(self, names: Collection[str]) -> bool:
        """Whether it is one of these entries, or another form of one."""
        return self.entry is not None and bool({self.entry.name, self.entry.form_of} & set(names))

    def is_added(self, family: str) -> bool:
        """Whether the user added it, and it is of this family; that is all there is to know of a pickle."""
        return self.entry is not None and self.entry.local is not None and self.entry.family == family


def _recognize_none(evidence: AdapterEvidence) -> bool:
    return False


def _keep_choice(choice: ModelChoice, store: Store) -> ModelChoice:
    return choice


def _need_nothing(choice: ModelChoice) -> tuple[str, ...]:
    return ()


def _accept_sampling(sampling: Sampling) -> None:
    """Whatever the settings allow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """All that the program knows of an engine before it loads it. Adding an engine is one folder and one line.

    The folder, `engines/NAME/`, holds:

    - `spec.py`: one `EngineSpec`, named SPEC. It imports no torch, diffusers or transformers; functions that need
      them import the modules below when they are called.
    - `engine.py`: a class with the methods of `Engine`, and the function that loads it.
    - `weights.py`: networks from checked files; `models/` holds networks of its own making.
    - `forecast.py`: work and memory of a run, from measured constants.

    The line is in `engines/registry.py`; another package registers its SPEC under the entry-point group
    `srcli.engines` instead. Everything else (which engine `auto` takes, `--help`, `--explain`, `doctor`, the resume
    recipe, the README's table) is read from the spec. Engines over the latents of a VAE find codec, bases, prompts,
    schedulers and forecast in `engines/latent/`; device, memory plan and out-of-memory fallback are in
    `engines/runtime/`.

    A spec is used in this order:

    1. `tasks` and `recognizes` decide which engine runs.
    2. `resolve` completes the choice of weights: after it the variant is known, as far as it can be known without
       loading. Nothing asks for defaults before.
    3. `complete_sampling` lays the user's settings over the variant's profile, refuses options that mean nothing to
       the engine, and lets `check` refuse what sampling would refuse after minutes of loading.
    4. `forecast` plans a run, or `load` loads the engine.
    """

    name: str  # as `--engine` takes it
    title: str  # as a sentence names it: "PASD"
    about: str  # README: what it is, in Markdown
    needs: str  # README: what it takes to run it
    tasks: Mapping[str, TaskSupport]  # by the name of the task
    profile: VariantProfile
    variants: Mapping[str, VariantProfile] = field(default_factory=dict)  # those whose profile is another
    variant_names: tuple[str, ...] = ()  # all that `--variant` takes
    options: frozenset[str] = frozenset()  # names in settings.ENGINE_OPTIONS that mean something to it
    unset: frozenset[str] = frozenset()  # fields of Sampling that it takes although they have no default
    needs_accelerator: bool = True  # without one, `auto` prefers any engine that needs none
    load: Callable[[ModelChoice, Device, Store], Engine]
    forecast: Callable[[ModelChoice, Job, PixelSize, Device], Forecast]  # job: with completed sampling
    entries: Callable[[ModelChoice], tuple[str, ...]] = _need_nothing  # of weights.lock, that the choice consists of
    shared_entries: tuple[str, ...] = ()  # others that it may open, as for configurations that a file lacks
    recognizes: Callable[[AdapterEvidence], bool] = _recognize_none
    resolve: Callable[[ModelChoice, Store], ModelChoice] = _keep_choice
    check: Callable[[Sampling], None] = _accept_sampling
    # What the engine finds in a picture, (H, W, 3) levels, for `--explain`: only where looking takes but a moment.
    inspect: Callable[[ModelChoice, Job, Device, NDArray[Any]], Mapping[str, float]] | None = None
    other_versions: Callable[[Job], OtherVersions] = vary_seed  # for a map of uncertainty; takes the option "mapped"

    def profile_of(self, variant: str | None) -> VariantProfile:
        """The defaults that go with a variant."""
        return self.variants.get(variant or "", self.profile)

    def name_of(self, variant: str | None) -> str:
        """The engine's name, with the variant's where that has a profile of its own."""
        return f"{self.name}-{variant}" if variant in self.variants else self.name

    def preset_of(self, variant: str | None, quality: str | None) -> Preset:
        """What this quality means here. Where nothing better is known, best is standard."""
        presets = self.profile_of(variant).presets
        if quality == QUALITIES[0] and quality not in presets:
            raise InputError(f"`quality` {quality} means nothing to the {self.name_of(variant)} engine: leave it out")
        return presets.get(quality or "", Preset())

    def complete_sampling(self, sampling: Sampling, variant: str | None) -> Sampling:
        """These settings over the preset, over the defaults; an error where one means nothing to the engine."""
        defaults, given = self.profile_of(variant).defaults, sampling.given()
        for name in given:
            if getattr(defaults, name) is None and name not in self.unset:
                raise unused_option(name, self.name_of(variant))
        complete = replace(defaults, **{**self.preset_of(variant, sampling.quality).sampling.given(), **given})
        self.check(complete)
        return complete

    def takes(self, field: str) -> bool:
        """Whether a field of the settings means something to it, with one variant or another."""
        if field in ENGINE_OPTIONS:
            return field in self.options
        if field not in Sampling.__dataclass_fields__ or field == "quality":
            return True
        profiles = self.profile, *self.variants.values()
        return field in self.unset or any(getattr(profile.defaults, field) is not None for profile in profiles)

    def refuse_unused(self, *settings: object) -> None:
        """An option that is given in any of these settings and means nothing to the engine is an error."""
        for given in settings:
            for name, value in given.__dataclass_fields__.items():  # type: ignore[attr-defined]
                changed = getattr(given, name) != value.default
                if changed and name in ENGINE_OPTIONS and name not in self.options:
                    raise unused_option(ENGINE_OPTIONS[name], self.name)


@dataclass(frozen=True, slots=True)
class Request:
    """What is wanted of an engine for one picture."""

    task: Task
    sampling: Sampling  # complete: already laid over the engine's defaults
    prompt: Prompt
    noise: NoiseField
    savings: MemorySavings = MemorySavings()
    findings: Mapping[str, float] = field(default_factory=dict)  # what a Surveyor found in the whole picture


@dataclass(frozen=True, slots=True)
class Canvas:
    """A picture ready for sampling: all that does not depend on the step is already worked out.

    An engine of a single pass does its work in `finish` and leaves out what only sampling needs.
    """

    start: Tensor
    hint: Tensor
    denoiser: Denoiser | None
    scheduler: Scheduler | None
    finish: Callable[[Tensor], Tensor]  # sampled canvas -> RGB (1, 3, H, W) in 0..1
    tile_weight: TileWeight | None = None  # None: as PASD and StableSR weigh their tiles


@runtime_checkable
class Surveyor(Protocol):
    """An engine that looks at a whole picture before it works on its blocks."""

    def survey(self, hint: NDArray[Any], request: Request) -> Request:
        """The request with what was found. `hint` is (H, W, 3) levels in the engine's working size."""
        ...


class Engine(Protocol):
    """A loaded model family."""

    @property
    def spec(self) -> EngineSpec: ...

    @property
    def factor(self) -> int:
        """Pixels of the result per pixel of the hint: 4 for the built-in engine, 1 where the hint is full size."""
        ...

    @property
    def block(self) -> int | None:
        """Side of the largest piece of hint taken at once; None: any size is taken whole."""
        ...

    @property
    def halo(self) -> int:
        """Hint pixels around a block that bear on its result."""
        ...

    @property
    def supported_savings(self) -> Collection[str]:
        """Fields of MemorySavings that it can apply."""
        ...

    @property
    def variant(self) -> str | None:
        """Of its weights, where there are several."""
        ...

    def passes(self, size: PixelSize, target: PixelSize) -> list[PixelSize]:
        """Sizes of the results of successive passes; the last is `target`. Most engines need one."""
        ...

    def working_size(self, size: PixelSize, target: PixelSize, request: Request) -> PixelSize:
        """Size of the hint that this engine wants, to make a result of `target` from a picture of `size`."""
        ...

    def layout(self, height: int, width: int, sampling: Sampling) -> tuple[list[Tile], int] | None:
        """Tiles of a canvas of this height and width, and how many share a call; None takes it whole."""
        ...

    def prepare(self, hint: Tensor, request: Request) -> Canvas:
        """Work out all that does not depend on the step. `hint` is (1, 3, H, W) levels, on the CPU."""
        ...

    def provenance(self) -> Mapping[str, str]:
        """The models it is made of, with their hashes and licences, for the output's metadata."""
        ...


class WholePicture:
    """What an engine has in common with others that take a picture whole, in the result's size, and sample nothing."""

    factor: int = 1
    block: int | None = None
    halo: int = 0
    supported_savings: Collection[str] = ()

    def passes(self, size: PixelSize, target: PixelSize) -> list[PixelSize]:
        return [target]

    def working_size(self, size: PixelSize, target: PixelSize, request: Request) -> PixelSize:
        return target

    def layout(self, height: int, width: int, sampling: Sampling) -> tuple[list[Tile], int] | None:
        return None
